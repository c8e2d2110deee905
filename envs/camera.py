"""Cameras: pictures, depth, segmentation and normals of every row; know no task and no clock."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from . import rays
from .sight import DRAWN_GROUPS, Sight, mount
from .sim import Sim

KINDS = ("rgb", "depth", "segmentation", "normal")
_FORM = {  # kind -> (channels, dtype)
    "rgb": ((3,), np.uint8),
    "depth": ((), np.float32),
    "segmentation": ((), np.int32),
    "normal": ((3,), np.float32),
}


class Camera(ABC):
    """Cameras of a model, seen in all rows of a Sim by one call.

    Draws geoms of groups 0 to 2 that are not wholly transparent, but none of the body that carries
    the camera (unless that is the world, or the camera tracks it from outside); sites, tendons,
    skins and flexes are not drawn. What is not drawn casts no shadow. Build it before the first
    reset (`Sim.seal`). `far`, in m, is where sight ends.

    Args:
        sim: the rows.
        names: cameras of the model.
        size: (height, width) of every picture, in pixels.
        kinds: what to draw, of "rgb", "depth", "segmentation" and "normal"; no other costs time.
        shadows: whether the model's lamps cast shadows.

    Raises ValueError for a name that is no camera of the model, an orthographic camera, a size
    that is no pair of 1 to 4096 pixels, and an unknown kind.
    """

    drawable: ClassVar[tuple[str, ...]] = KINDS

    def __init__(
        self,
        sim: Sim,
        names: tuple[str, ...],
        size: tuple[int, int] = (64, 64),
        kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
        shadows: bool = False,
    ):
        self.sim, self.names, self.kinds, self.shadows = sim, tuple(names), tuple(kinds), shadows
        if not self.names or isinstance(names, str):
            raise ValueError(f"cameras {names!r}; name at least one, in a tuple")
        self.cameras = [_camera_id(sim.model, name) for name in self.names]
        self.size = _checked_size(size)
        for kind in self.kinds:
            if kind not in self.drawable:
                raise ValueError(f"a {type(self).__name__} draws no {kind!r}: {self.drawable}")
        self.far = float(sim.model.vis.map.zfar * sim.model.stat.extent)

    def render(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Draws the rows (sorted ints; None: all n), m of them, as they stand.

        Returns new arrays: `rgb/<name>` (m, H, W, 3) uint8; `depth/<name>` (m, H, W) float32, m
        along the optical axis, `far` where nothing nearer is; `segmentation/<name>` (m, H, W)
        int32, a geom's id or -1; `normal/<name>` (m, H, W, 3) float32, the unit normal of the
        surface in the world's frame, 0 where nothing is.
        """
        count = self.sim.n if rows is None else len(rows)
        images = {
            f"{kind}/{name}": np.empty((count, *self.size, *_FORM[kind][0]), _FORM[kind][1])
            for kind in self.kinds
            for name in self.names
        }
        if count:
            self._draw(np.arange(self.sim.n) if rows is None else np.asarray(rows), images)
        return images

    def spaces(self) -> dict[str, gym.Space]:
        """Returns the space of one row's image under every key of `render`."""
        ends = {
            "rgb": (0, 255),
            "depth": (0, np.float32(self.far)),
            "segmentation": (-1, self.sim.model.ngeom - 1),
            "normal": (-1, 1),
        }
        return {
            f"{kind}/{name}": gym.spaces.Box(
                *ends[kind], (*self.size, *_FORM[kind][0]), _FORM[kind][1]
            )
            for kind in self.kinds
            for name in self.names
        }

    @abstractmethod
    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        """Fills the images, (m, ...), of the m rows."""


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

        def work(job) -> None:
            name, camera, part = job
            own = {kind: images[f"{kind}/{name}"][part] for kind in self.kinds}
            self._draw_part(camera, rows[part], own)

        if len(jobs) == 1 or self.sim.nthread == 1:
            for job in jobs:
                work(job)
            return
        self._pool = self._pool or ThreadPoolExecutor(self.sim.nthread)
        for _ in self._pool.map(work, jobs):
            pass

    def _draw_part(self, camera: int, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        view = self._sight.view(camera, rows)
        shape = (len(rows), *self.size)
        depth = images.get("depth")
        depth = np.empty(shape, np.float32) if depth is None else depth
        geom = images.get("segmentation")
        geom = np.empty(shape, np.int32) if geom is None else geom
        look = (view.kind, view.size)
        rays.cast(*look, view.skip, view.window, np.float32(self.far), view.frames, depth, geom)
        if "rgb" not in images and "normal" not in images:
            return
        normal = images.get("normal")
        normal = np.empty((*shape, 3), np.float32) if normal is None else normal
        rays.normals(*look, view.window, view.frames, depth, geom, normal)
        if "rgb" not in images:
            return
        lamps, glow = self._sight.lamps(view, rows)
        lit = np.empty((*shape, lamps.shape[1] if self.shadows else 0), bool)
        if self.shadows:
            casts = np.array(self.sim.model.light_castshadow, bool)
            hits = view.frames, depth, geom
            rays.occlude(*look, view.skip, view.window, *hits, view.look, lamps, casts, lit)
        self._sight.shade(view, rows, (depth, geom, normal), lamps, glow, lit, images["rgb"])


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
        lamps, glow = self._sight.lamps(view, rows)
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
        self._sight.shade(view, rows, (depth, geom, normal), lamps, glow, lit, images["rgb"])


def make_camera(
    sim: Sim,
    names: tuple[str, ...],
    size: tuple[int, int] = (64, 64),
    kind: str = "auto",
    kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
    shadows: bool = False,
) -> Camera:
    """Returns the fastest Camera that can draw the model; see `Camera` for the other arguments.

    `kind` is "rays" (RayCamera), "batch" (BatchRayCamera), "gl" (GLCamera) or "auto": rays where
    all geoms are primitives, else OpenGL where this machine has it, else the engine's rays.
    Raises ValueError for another kind, or for "gl" where OpenGL does not work.
    """
    from .gl import GLCamera, gl_works

    classes = {"rays": RayCamera, "batch": BatchRayCamera, "gl": GLCamera}
    if kind == "auto":
        if all(int(kind) in rays.PRIMITIVES for kind in sim.model.geom_type):
            kind = "rays"
        else:
            kind = "gl" if "normal" not in kinds and gl_works()[0] else "batch"
    if kind not in classes:
        raise ValueError(f"no camera kind {kind!r}; there is auto, {', '.join(classes)}")
    return classes[kind](sim, names, size, kinds, shadows)


def _groups() -> np.ndarray:
    """Returns the geom groups that are drawn, as mj_ray takes them."""
    return (np.arange(mujoco.mjNGROUP) < DRAWN_GROUPS).astype(np.uint8)


def _camera_id(model: mujoco.MjModel, name: str) -> int:
    names = [model.camera(i).name for i in range(model.ncam)]
    if not names:
        raise ValueError(f"no camera {name!r}: the model has none; add a <camera> to the scene")
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no camera {name!r} among {', '.join(map(repr, names))}{hint}")
    camera = names.index(name)
    if int(model.cam_projection[camera]) != int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE):
        raise ValueError(f"camera {name!r} is orthographic; only perspective cameras are drawn")
    return camera


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    whole = isinstance(size, (tuple, list)) and all(isinstance(x, (int, np.integer)) for x in size)
    if not whole or len(size) != 2 or not all(1 <= x <= 4096 for x in size):
        raise ValueError(f"size {size!r}; give (height, width), each of 1 to 4096 pixels")
    return int(size[0]), int(size[1])
