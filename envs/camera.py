"""Cameras: pictures, depth, segmentation and normals of every row; know no task and no clock."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np

from . import rays, shading
from .sim import Sim

KINDS = ("rgb", "depth", "segmentation", "normal")
_FORM = {  # kind -> (channels, dtype)
    "rgb": ((3,), np.uint8),
    "depth": ((), np.float32),
    "segmentation": ((), np.int32),
    "normal": ((3,), np.float32),
}
_DRAWN_GROUPS = 3  # of mjNGROUP; the rest is hidden, as in MuJoCo's viewers
_NO_COLOUR = np.array([0.5, 0.5, 0.5, 1], np.float32)  # a geom's rgba that yields to its material


class Camera(ABC):
    """Cameras of a model, seen in all rows of a Sim by one call.

    Draws geoms of groups 0 to 2 that are not wholly transparent, but none of the body that carries
    the camera (unless that is the world); sites, tendons, skins and flexes are not drawn. Build
    it before the first reset (`Sim.seal`). `far`, in m, is where sight ends.

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
        self.cameras = [_camera_id(sim.model, name) for name in self.names]
        if not self.names or isinstance(names, str):
            raise ValueError(f"cameras {names!r}; name at least one, in a tuple")
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
            f"{kind}/{name}": gym.spaces.Box(*ends[kind], (*self.size, *_FORM[kind][0]), _FORM[kind][1])
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
        other = [i for i, kind in enumerate(sim.model.geom_type) if int(kind) not in rays.PRIMITIVES]
        if other:
            name = sim.model.geom(other[0]).name or other[0]
            kind = mujoco.mjtGeom(int(sim.model.geom_type[other[0]])).name
            raise ValueError(
                f"geom {name!r} is of type {kind}; a RayCamera draws primitives, "
                "use make_camera, BatchRayCamera or GLCamera"
            )
        self._scene = _Scene(sim, self.size)
        self._pool: ThreadPoolExecutor | None = None

    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        count = max(1, min(2**16 // (self.size[0] * self.size[1]), -(-len(rows) // self.sim.nthread)))
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
        view = self._scene.view(camera, rows)
        shape = (len(rows), *self.size)
        depth = images.get("depth", None)
        depth = np.empty(shape, np.float32) if depth is None else depth
        geom = images.get("segmentation", None)
        geom = np.empty(shape, np.int32) if geom is None else geom
        look = (view.kind, view.size)
        rays.cast(*look, view.skip, view.window, np.float32(self.far), view.frames, depth, geom)
        if "rgb" not in images and "normal" not in images:
            return
        normal = images.get("normal", None)
        normal = np.empty((*shape, 3), np.float32) if normal is None else normal
        rays.normals(*look, view.window, view.frames, depth, geom, normal)
        if "rgb" not in images:
            return
        lamps = self._scene.lamps(rows)
        lit = np.empty((*shape, len(lamps.kind) if self.shadows else 0), bool)
        if self.shadows:
            rays.occlude(
                *look, view.skip, view.window, view.frames, depth, geom, view.look,
                view.lamp, lamps.kind, lit,
            )  # fmt: skip
        self._scene.shade(view, lamps, rows, depth, geom, normal, lit, images["rgb"])


class BatchRayCamera(Camera):
    """Draws scenes with any geoms, meshes and height fields too, by the engine's own rays.

    Slower than a `RayCamera`, without its compiled kernels' limits: takes about 0.3 us a ray for
    primitives, some us for meshes. A textured mesh is drawn in its texture's mean colour.
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
        self._scene = _Scene(sim, self.size)

    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        count = max(1, 2**18 // (self.size[0] * self.size[1]))
        for name, camera in zip(self.names, self.cameras, strict=True):
            for start in range(0, len(rows), count):
                part = slice(start, start + count)
                own = {kind: images[f"{kind}/{name}"][part] for kind in self.kinds}
                self._draw_part(camera, rows[part], own)

    def _draw_part(self, camera: int, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        view = self._scene.view(camera, rows)
        shape = (len(rows), *self.size)
        ways = self._scene.ways(view)  # (m, pixels, 3)
        body = int(self.sim.model.cam_bodyid[camera]) or -1
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
        lamps = self._scene.lamps(rows)
        lit = np.ones((*shape, len(lamps.kind) if self.shadows else 0), bool)
        for k in range(lit.shape[-1]):
            points = depth.reshape(len(rows), -1, 1) * ways + 1e-4 * normal.reshape(len(rows), -1, 3)
            directional = lamps.kind[k] == shading.DIRECTIONAL
            toward = view.lamp[:, k, None] - (0 if directional else points)
            toward = np.broadcast_to(toward, points.shape)
            t, _ = self.sim.batch.ray(view.eye[:, None] + points, toward, _groups(), ids=rows)
            lit[..., k] = ((t < 0) | ((t >= 1) & (not directional)) | sky).reshape(shape)
        self._scene.shade(view, lamps, rows, depth, geom, normal, lit, images["rgb"])


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


class _View(NamedTuple):
    """One camera and m rows, as the kernels of `rays` and `shading` take them."""

    kind: np.ndarray  # (1|m, g) int32
    size: np.ndarray  # (1|m, g, 3)
    skip: np.ndarray  # (1|m, g) bool
    window: np.ndarray  # (1|m, 4)
    eye: np.ndarray  # (m, 3)
    look: np.ndarray  # (m, 9)
    frames: np.ndarray  # (m, g, rays.FRAME)
    lamp: np.ndarray  # (m, l, 3)
    aim: np.ndarray  # (m, l, 3)


class _Scene:
    """What the kernels need of a Sim: its bound poses, its fields per row, its paint and lamps."""

    def __init__(self, sim: Sim, size: tuple[int, int]):
        self.sim, self.pixels = sim, size
        self.poses = sim.geom_xpos, sim.geom_xmat, sim.cam_xpos, sim.cam_xmat
        self.lights = sim.light_xpos, sim.light_xdir
        m = sim.model
        self.material = np.array(m.geom_matid, np.int64)
        self.textures = shading.textures(m)
        texture = m.mat_texid[self.material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] if m.nmat else -1
        texture = np.where(self.material >= 0, texture, -1).astype(np.int32)
        self.tint = np.ones((m.ngeom, 4), np.float32)
        for g in np.flatnonzero(texture >= 0):
            if int(m.geom_type[g]) not in rays.PRIMITIVES:
                self.tint[g, :3], texture[g] = shading.mean_colour(m, texture[g]), -1
        self.texture = texture
        self.repeat = self._of_material(m.mat_texrepeat, (2,), np.float32)
        self.uniform = self._of_material(m.mat_texuniform, (), bool)
        self.emission = self._of_material(m.mat_emission, (), np.float32)
        self.lamp_kind = np.array(m.light_type, np.int32)

    def _of_material(self, field: np.ndarray, shape: tuple[int, ...], dtype) -> np.ndarray:
        out = np.zeros((len(self.material), *shape), dtype)
        has = self.material >= 0
        out[has] = field[self.material[has]]
        return out

    def _field(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Returns a model field as (m, ...) where rows differ, else (1, ...)."""
        if name in self.sim.varied:
            return self.sim.varied[name][rows]
        return getattr(self.sim.model, name)[None]

    def _rgba(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns colours (1|m, g, 4), material and geom combined, and what mj_ray leaves out."""
        own = self._field("geom_rgba", rows)
        if not self.sim.model.nmat:
            return own.astype(np.float32), own[..., 3] == 0
        painted = self._field("mat_rgba", rows)[:, self.material]
        has = self.material >= 0
        yields = has & (own == _NO_COLOUR).all(-1)
        absent = np.where(has, painted[..., 3], own[..., 3]) == 0
        return np.where(yields[..., None], painted, own).astype(np.float32), absent

    def view(self, camera: int, rows: np.ndarray) -> _View:
        """Returns the view of a camera in m rows."""
        m = self.sim.model
        xpos, xmat = (np.ascontiguousarray(array[rows]) for array in self.poses[:2])
        eye, look = (np.ascontiguousarray(array[rows, camera]) for array in self.poses[2:])
        kind = np.ascontiguousarray(self._field("geom_type", rows), np.int32)
        size = np.ascontiguousarray(self._field("geom_size", rows), np.float64)
        own = (m.geom_bodyid == m.cam_bodyid[camera]) & (m.cam_bodyid[camera] > 0)
        skip = self._rgba(rows)[1] | own | (m.geom_group >= _DRAWN_GROUPS)
        frames = np.empty((len(rows), m.ngeom, rays.FRAME), np.float32)
        rays.place(kind, size, xpos, xmat, eye, look, frames)
        lamp, aim = (np.ascontiguousarray(array[rows]) for array in self.lights)
        away = self.lamp_kind == shading.DIRECTIONAL
        lamp = np.where(away[:, None], -aim, lamp - eye[:, None])
        return _View(kind, size, skip, self._window(camera, rows), eye, look, frames, lamp, aim)

    def _window(self, camera: int, rows: np.ndarray) -> np.ndarray:
        """Returns left, top and the size of a pixel at depth 1, (1|m, 4), of a camera."""
        m, (height, width) = self.sim.model, self.pixels
        if m.cam_sensorsize[camera].any():
            fx, fy, cx, cy = m.cam_intrinsic[camera]
            w, h = m.cam_sensorsize[camera]
            x0, x1, y1, y0 = -(w / 2 - cx) / fx, (w / 2 + cx) / fx, (h / 2 + cy) / fy, -(h / 2 - cy) / fy
            return np.array([[x0, y1, (x1 - x0) / width, (y1 - y0) / height]])
        top = np.tan(np.deg2rad(self._field("cam_fovy", rows)[:, camera]) / 2)
        pixel = 2 * top / height
        return np.stack([-width / 2 * pixel, top, pixel, pixel], -1)

    def ways(self, view: _View) -> np.ndarray:
        """Returns the directions of the pixels, (m, H W, 3), world frame, 1 along the axis."""
        height, width = self.pixels
        left, top, dx, dy = view.window.T[..., None]
        x = np.repeat((left + (np.arange(width) + 0.5) * dx)[:, None], height, 1)
        y = np.repeat((top - (np.arange(height) + 0.5) * dy)[:, :, None], width, 2)
        flat = np.stack([x, y, -np.ones_like(x)], -1).reshape(len(x), -1, 3)
        return flat @ view.look.reshape(-1, 3, 3).transpose(0, 2, 1)

    def lamps(self, rows: np.ndarray) -> shading.Lamps:
        """Returns the lamps of the rows."""
        m = self.sim.model
        active = self._field("light_active", rows)[..., None] & (self.lamp_kind[:, None] <= shading.POINT)
        ambient = (active * self._field("light_ambient", rows)).sum(1)
        head = m.vis.headlight
        if head.active:
            ambient = ambient + head.ambient
        elif not m.nlight:
            ambient = ambient + 0.3  # MuJoCo's renderer too leaves no scene in the dark
        return shading.Lamps(
            kind=self.lamp_kind,
            colour=np.float32(active * self._field("light_diffuse", rows)),
            cone=np.float32(np.stack([np.cos(np.deg2rad(m.light_cutoff)), m.light_exponent], -1)),
            decay=np.float32(m.light_attenuation),
            ambient=np.float32(ambient),
            headlight=np.float32(head.diffuse if head.active else np.zeros(3)),
        )

    def shade(self, view, lamps, rows, depth, geom, normal, lit, rgb) -> None:
        """Colours the hits into `rgb`; a lamp that casts no shadow shines everywhere."""
        if lit.shape[-1]:
            lit |= ~np.asarray(self.sim.model.light_castshadow, bool)
        rgba = self._rgba(rows)[0] * self.tint
        paint = shading.Paint(rgba, self.emission, self.texture, self.repeat, self.uniform)
        shading.shade(
            view.kind, view.size, view.window, view.look, view.frames, depth, geom, normal,
            view.lamp, view.aim, lit, lamps, paint, self.textures, rgb,
        )  # fmt: skip


def _groups() -> np.ndarray:
    """Returns the geom groups that are drawn, as mj_ray takes them."""
    return (np.arange(mujoco.mjNGROUP) < _DRAWN_GROUPS).astype(np.uint8)


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
