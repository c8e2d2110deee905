"""Raycast: the cameras that draw by rays, our own or the engine's; they know no task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

from . import rays
from .backdrop import Backdrop
from .camera import FORM, Camera
from .sight import DRAWN_GROUPS, Sight, View, mount
from .sim import Sim


class RayCamera(Camera):
    """Draws scenes of planes, spheres, capsules, ellipsoids, cylinders and boxes by ray casting.

    Compiled for the processor, rows split over the Sim's threads: a row's picture has the same
    bits whatever n, its place and the thread count. What a pixel meets is what mj_ray meets.
    Raises ValueError for a model with other geoms (`BatchRayCamera` and `GLCamera` draw those).
    """

    def __init__(
        self,
        sim: Sim,
        names: tuple[str, ...],
        size: tuple[int, int] = (64, 64),
        kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
        shadows: bool = False,
    ):
        super().__init__(sim, names, size, kinds, shadows)
        other = [
            i for i, kind in enumerate(sim.model.geom_type) if int(kind) not in rays.PRIMITIVES
        ]
        if other:
            name = sim.model.geom(other[0]).name or other[0]
            kind = mujoco.mjtGeom(int(sim.model.geom_type[other[0]])).name
            raise ValueError(
                f"geom {name!r} is of type {kind}; a RayCamera draws primitives, "
                "use make_camera, BatchRayCamera or GLCamera"
            )
        self._sight = Sight(sim, self.size)
        self._backdrops = {
            camera: Backdrop(self._sight.still(camera, shadows), self.far)
            for camera in self.cameras
        }
        self._pool: ThreadPoolExecutor | None = None

    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        count = max(
            1, min(2**16 // (self.size[0] * self.size[1]), -(-len(rows) // self.sim.nthread))
        )
        jobs = [
            (name, camera, slice(start, start + count))
            for name, camera in zip(self.names, self.cameras, strict=True)
            for start in range(0, len(rows), count)
        ]

        def work(job) -> View | None:
            name, camera, part = job
            own = {kind: images[f"{kind}/{name}"][part] for kind in self.kinds}
            return self._draw_part(camera, rows[part], own)

        if len(jobs) == 1 or self.sim.nthread == 1:
            news = list(map(work, jobs))
        else:
            self._pool = self._pool or ThreadPoolExecutor(self.sim.nthread)
            news = list(self._pool.map(work, jobs))
        for (_, camera, part), view in zip(jobs, news, strict=True):
            if view is not None and part.start == 0:
                self._backdrops[camera].offer(view, self._backdrop)

    def _draw_part(
        self, camera: int, rows: np.ndarray, images: dict[str, np.ndarray]
    ) -> View | None:
        """Draws some rows; returns their view if the backdrop knew none of them."""
        view, back = self._sight.view(camera, rows), self._backdrops[camera]
        if "depth" not in images:
            images["depth"] = np.empty((len(rows), *self.size), np.float32)
        if "segmentation" not in images:
            images["segmentation"] = np.empty((len(rows), *self.size), np.int32)
        known = back.begin(view, images)
        self._draw_over(view, known, images)
        return None if known.any() else view

    def _draw_over(self, view: View, known: np.ndarray, images: dict[str, np.ndarray]) -> None:
        depth, geom = images["depth"], images["segmentation"]
        look = view.kind, view.size, view.skip
        rays.cast(*look, view.window, view.frames, depth, geom)
        if "normal" in images:
            rays.normals(*look, known, view.window, view.frames, depth, geom, images["normal"])
        if "rgb" not in images:
            return
        normal = np.empty((len(depth), 0, 0, 3), np.float32)
        lit = np.empty((*depth.shape, view.lamps.shape[1] if self.shadows else 0), bool)
        if self.shadows:
            casts = np.array(self.sim.model.light_castshadow, bool)
            hits = view.frames, depth, geom
            rays.occlude(*look, view.window, *hits, view.look, view.lamps, casts, lit)
        self._sight.shade(view, known, (depth, geom, normal), lit, images["rgb"])

    def _backdrop(self, view: View) -> dict[str, np.ndarray]:
        """Returns pictures of all kinds of one row's view."""
        images = {
            kind: np.zeros((1, *self.size, *shape), dtype) for kind, (shape, dtype) in FORM.items()
        }
        images["depth"][:], images["segmentation"][:] = self.far, -1
        self._draw_over(view, np.zeros(1, bool), images)
        return images


class BatchRayCamera(Camera):
    """Draws scenes with any geoms, meshes and height fields too, by the engine's own rays.

    Several times slower than a `RayCamera`, and slower still where meshes are met
    (`benchmarks/pixels.py`). A textured mesh is drawn in its texture's mean colour.
    """

    def __init__(
        self,
        sim: Sim,
        names: tuple[str, ...],
        size: tuple[int, int] = (64, 64),
        kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
        shadows: bool = False,
    ):
        super().__init__(sim, names, size, kinds, shadows)
        self._sight = Sight(sim, self.size)

    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        count = max(1, 2**18 // (self.size[0] * self.size[1]))
        for name, camera in zip(self.names, self.cameras, strict=True):
            for start in range(0, len(rows), count):
                part = slice(start, start + count)
                own = {kind: images[f"{kind}/{name}"][part] for kind in self.kinds}
                self._draw_part(camera, rows[part], own)

    def _draw_part(self, camera: int, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        view = self._sight.view(camera, rows)
        shape = (len(rows), *self.size)
        ways = self._sight.ways(view)  # (m, pixels, 3)
        body = mount(self.sim.model, camera)
        distance, geom, normal = self.sim.batch.ray(
            view.eye[:, None], ways, _groups(), True, body, ids=rows, normal=True
        )
        sky = (geom < 0) | (distance >= self.far)
        depth = np.where(sky, self.far, distance).astype(np.float32).reshape(shape)
        geom = np.where(sky, -1, geom).astype(np.int32).reshape(shape)
        normal = np.where(sky[..., None], 0, normal).astype(np.float32).reshape(*shape, 3)
        for kind, image in (("depth", depth), ("segmentation", geom), ("normal", normal)):
            if kind in images:
                images[kind][:] = image
        if "rgb" not in images:
            return
        lamps = view.lamps
        lit = np.ones((*shape, lamps.shape[1] if self.shadows else 0), bool)
        points = depth.reshape(len(rows), -1, 1) * ways + 1e-4 * normal.reshape(len(rows), -1, 3)
        for k in range(lit.shape[-1]):
            if self.sim.model.light_castshadow[k]:
                away = lamps[:, k, 13] < 0
                toward = lamps[:, k, None, :3] - np.where(away[:, None, None], 0, points)
                t, _ = self.sim.batch.ray(
                    view.eye[:, None] + points, toward, _groups(), True, body, ids=rows
                )
                lit[..., k] = ((t < 0) | ((t >= 1) & ~away[:, None])).reshape(shape)
        known = np.zeros(len(rows), bool)
        self._sight.shade(view, known, (depth, geom, normal), lit, images["rgb"])


def _groups() -> np.ndarray:
    """Returns the geom groups that are drawn, as mj_ray takes them."""
    return (np.arange(mujoco.mjNGROUP) < DRAWN_GROUPS).astype(np.uint8)
