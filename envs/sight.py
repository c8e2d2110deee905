"""Sight: what the ray kernels need of a Sim, gathered per camera and rows; draws nothing itself."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from . import rays, shading
from .sim import Sim

DRAWN_GROUPS = 3  # geom groups drawn, of mjNGROUP; the rest is hidden, as in MuJoCo's viewers
_MODE = mujoco.mjtCamLight
_FOLLOWING = (int(_MODE.mjCAMLIGHT_TRACK), int(_MODE.mjCAMLIGHT_TRACKCOM))
_GEOM = "geom_type", "geom_size", "cam_fovy"
_COAT = "geom_rgba", "mat_rgba"
_LIGHT = "light_active", "light_diffuse", "light_ambient", "light_attenuation"


def mount(model: mujoco.MjModel, camera: int) -> int:
    """Returns the body that carries a camera and that it does not see, or -1.

    A camera of the world has none, nor has one that follows its body from outside.
    """
    body, mode = int(model.cam_bodyid[camera]), int(model.cam_mode[camera])
    return -1 if body == 0 or mode in _FOLLOWING else body


class View(NamedTuple):
    """One camera and m rows, as the kernels of `rays` and `shading` take them."""

    kind: np.ndarray  # (1|m, g) int32
    size: np.ndarray  # (1|m, g, 3)
    skip: np.ndarray  # (m, g) bool
    window: np.ndarray  # (1|m, 4)
    eye: np.ndarray  # (m, 3)
    look: np.ndarray  # (m, 9)
    frames: np.ndarray  # (m, g, rays.FRAME)
    paint: np.ndarray  # (m, g, 7), or (m, g, 15) where there may be patterns
    lamps: np.ndarray  # (m, l, 14)
    glow: np.ndarray  # (m, 6)


class Sight:
    """What the kernels need of a Sim: its bound poses, its fields per row, its paint and lamps."""

    def __init__(self, sim: Sim, size: tuple[int, int]):
        self.sim, self.pixels = sim, size
        m = sim.model
        self.poses = sim.geom_xpos, sim.geom_xmat, sim.cam_xpos, sim.cam_xmat
        self.lights = sim.light_xpos, sim.light_xdir
        # Of all rows, live: to name a field of a model takes longer than to read it.
        self._shared = {name: getattr(m, name)[None] for name in (*_GEOM, *_COAT, *_LIGHT)}
        self._shared["pattern"] = np.zeros((1, m.ngeom, 0), np.float32)
        self._shared["headlight"] = m.vis.headlight.diffuse[None]
        self._head = m.vis.headlight.ambient
        self._windows: dict[int, tuple[bytes, np.ndarray]] = {}
        self._hidden: dict[int, np.ndarray] = {}
        self.textures = shading.textures(m)
        self.material = np.array(m.geom_matid, np.int32) if m.nmat else np.full(m.ngeom, -1, "i4")
        if not m.nmat:
            self._shared["mat_rgba"] = np.zeros((1, 1, 4), np.float32)
        has = self.material >= 0
        texture = np.full(m.ngeom, -1, np.int32)
        if m.nmat:
            of = m.mat_texid[self.material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
            texture = np.where(has, of, -1).astype(np.int32)
        self.tint = np.ones((m.ngeom, 3), np.float32)
        for g in np.flatnonzero(texture >= 0):
            if int(m.geom_type[g]) not in rays.PRIMITIVES:
                self.tint[g], texture[g] = shading.mean_colour(m, texture[g]), -1
        self.texture = texture
        fields = [m.mat_emission[:, None], m.mat_texrepeat, m.mat_texuniform[:, None]]
        self.finish = np.zeros((m.ngeom, 4), np.float32)
        if m.nmat:
            self.finish[has] = np.concatenate(fields, -1).astype(np.float32)[self.material[has]]
        self.kind = np.array(m.light_type, np.int32)
        cosine = np.where(self.kind == shading.SPOT, np.cos(np.deg2rad(m.light_cutoff)), -2)
        exponent = np.where(self.kind == shading.DIRECTIONAL, -1, m.light_exponent)
        self.cone = np.stack([cosine, exponent], -1)

    def _all(self, name: str) -> np.ndarray:
        """Returns a model field as (n, ...) where rows differ, else (1, ...), live."""
        varied = self.sim.varied.get(name)
        return self._shared[name] if varied is None else varied

    def _field(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Returns a model field as (m, ...) where rows differ, else (1, ...)."""
        varied = self.sim.varied.get(name)
        return self._shared[name] if varied is None else varied[rows]

    def still(self, camera: int, shadows: bool) -> np.ndarray:
        """Returns which geoms, (g,) bool, a camera always sees in one place and one light.

        None, if the camera or a lamp can move, or shadows of others fall on them.
        """
        m = self.sim.model
        moves = (m.body_weldid != 0) | (m.body_mocapid[m.body_rootid] >= 0)
        lamps_move = (m.light_mode != int(_MODE.mjCAMLIGHT_FIXED)) | moves[m.light_bodyid]
        stands = int(m.cam_mode[camera]) == int(_MODE.mjCAMLIGHT_FIXED)
        if shadows or lamps_move.any() or moves[m.cam_bodyid[camera]] or not stands:
            return np.zeros(m.ngeom, bool)
        return ~moves[m.geom_bodyid]

    def view(self, camera: int, rows: np.ndarray) -> View:
        """Returns the view of a camera in m rows."""
        m, count = self.sim.model, len(rows)
        kind, size = self._field("geom_type", rows), self._field("geom_size", rows)
        pattern = self._all("pattern")
        if camera not in self._hidden:
            own = m.geom_bodyid == mount(m, camera)
            self._hidden[camera] = own | (m.geom_group >= DRAWN_GROUPS)
        view = View(
            kind, size, np.empty((count, m.ngeom), bool), self._window(camera, rows),
            np.empty((count, 3)), np.empty((count, 9)),
            np.empty((count, m.ngeom, rays.FRAME), np.float32),
            np.empty((count, m.ngeom, shading.PAINT + pattern.shape[2]), np.float32),
            np.empty((count, m.nlight, 14), np.float32), np.empty((count, 6), np.float32),
        )  # fmt: skip
        head = m.vis.headlight
        _survey(
            rows, camera, *self.poses, *self.lights, self._hidden[camera],
            self.material, self.tint, self.finish, pattern, *map(self._all, _COAT),
            self.kind, self.cone, self._shared["light_attenuation"][0], *map(self._all, _LIGHT[:3]),
            self._head, self._all("headlight"), bool(head.active), *view[2:3], *view[4:],
        )  # fmt: skip
        poses = (np.ascontiguousarray(array[rows]) for array in self.poses[:2])
        rays.place(kind, size, *poses, view.eye, view.look, view.frames)
        return view

    def _window(self, camera: int, rows: np.ndarray) -> np.ndarray:
        """Returns left, top and the size of a pixel at depth 1, (1|m, 4), of a camera."""
        m, (height, width) = self.sim.model, self.pixels
        if m.cam_sensorsize[camera].any():
            focal, offset = m.cam_intrinsic[camera].astype(np.float64).reshape(2, 2)
            half = m.cam_sensorsize[camera].astype(np.float64) / 2
            offset = offset * (1, -1)  # a positive vertical offset lowers the window
            low, high = (
                (offset - half) / focal,
                (offset + half) / focal,
            )  # along x and y, at depth 1
            pixel = (high - low) / (width, height)
            return np.array([[low[0], high[1], pixel[0], pixel[1]]])
        fovy = self._field("cam_fovy", rows)[:, camera]
        key, window = self._windows.get(camera, (b"", None))
        if key != fovy.tobytes():
            top = np.tan(np.deg2rad(fovy) / 2)
            pixel = 2 * top / height
            window = np.stack([-width / 2 * pixel, top, pixel, pixel], -1)
            self._windows[camera] = fovy.tobytes(), window
        return window

    def ways(self, view: View) -> np.ndarray:
        """Returns the directions of the pixels, (m, H W, 3), world frame, 1 along the axis."""
        height, width = self.pixels
        left, top, dx, dy = view.window.T[..., None]
        x = np.repeat((left + (np.arange(width) + 0.5) * dx)[:, None], height, 1)
        y = np.repeat((top - (np.arange(height) + 0.5) * dy)[:, :, None], width, 2)
        flat = np.stack([x, y, -np.ones_like(x)], -1).reshape(len(x), -1, 3)
        return flat @ view.look.reshape(-1, 3, 3).transpose(0, 2, 1)

    def shade(self, view: View, known: np.ndarray, hits, lit, rgb) -> None:
        """Colours the hits (depth, geom, normal) into `rgb`; see `shading.shade` for the rest."""
        shading.shade(
            view.kind, view.size, view.skip, known, view.window, view.look, view.frames, *hits,
            view.lamps, lit, view.glow, view.paint, self.texture, self.textures, rgb,
        )  # fmt: skip


@rays.kernel
def _survey(
    rows, camera, xpos, xmat, cam_xpos, cam_xmat, light_xpos, light_xdir, hidden,
    material, tint, finish, pattern, own, coat, light_kind, cone, attenuation, active, diffuse,
    ambient, head_ambient, head_diffuse, head_on, skip, eye, look, frames, paint, lamps, glow,
):  # fmt: skip
    """Gathers for m rows what the fields of View say, but for kind, size, window and frames."""
    f32 = np.float32
    for s in range(rows.shape[0]):
        i = rows[s]
        eye[s], look[s] = cam_xpos[i, camera], cam_xmat[i, camera]
        colours, coats = own[min(i, own.shape[0] - 1)], coat[min(i, coat.shape[0] - 1)]
        for g in range(skip.shape[1]):
            rgba, mat = colours[g], material[g]
            yields = rgba[0] == f32(0.5) and rgba[1] == f32(0.5) and rgba[2] == f32(0.5)
            clear = rgba[3] == f32(0)
            if mat >= 0:
                clear = coats[mat, 3] == f32(0)
                if yields and rgba[3] == f32(1):  # a geom's rgba that yields to its material
                    rgba = coats[mat]
            skip[s, g] = hidden[g] or clear
            for k in range(3):
                paint[s, g, k] = rgba[k] * tint[g, k]
            for k in range(4):
                paint[s, g, 3 + k] = finish[g, k]
            for k in range(pattern.shape[2]):
                paint[s, g, shading.PAINT + k] = pattern[i, g, k]
        on = active[min(i, active.shape[0] - 1)]
        colours, ambients = diffuse[min(i, len(diffuse) - 1)], ambient[min(i, len(ambient) - 1)]
        for k in range(3):
            glow[s, k] = f32(0)
        for q in range(lamps.shape[1]):
            lamp, lights = lamps[s, q], f32(on[q] and light_kind[q] <= shading.POINT)
            for k in range(3):
                away = light_kind[q] == shading.DIRECTIONAL
                place = light_xpos[i, q, k] - eye[s, k]
                lamp[k] = -light_xdir[i, q, k] if away else place
                lamp[3 + k] = light_xdir[i, q, k]
                lamp[6 + k] = lights * colours[q, k]
                lamp[9 + k] = attenuation[q, k]
                glow[s, k] += lights * ambients[q, k]
            lamp[12], lamp[13] = cone[q, 0], cone[q, 1]
        for k in range(3):
            if not head_on and lamps.shape[1] == 0:
                glow[s, k] += f32(0.3)  # MuJoCo's renderer leaves no scene in the dark either
            glow[s, k] += head_ambient[k] if head_on else f32(0)
            glow[s, 3 + k] = head_diffuse[min(i, len(head_diffuse) - 1), k] if head_on else f32(0)
