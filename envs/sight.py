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
_NO_COLOUR = np.array([0.5, 0.5, 0.5, 1], np.float32)  # a geom's rgba that yields to its material


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
    skip: np.ndarray  # (1|m, g) bool
    window: np.ndarray  # (1|m, 4)
    eye: np.ndarray  # (m, 3)
    look: np.ndarray  # (m, 9)
    frames: np.ndarray  # (m, g, rays.FRAME)


class Sight:
    """What the kernels need of a Sim: its bound poses, its fields per row, its paint and lamps."""

    def __init__(self, sim: Sim, size: tuple[int, int]):
        self.sim, self.pixels = sim, size
        self.poses = sim.geom_xpos, sim.geom_xmat, sim.cam_xpos, sim.cam_xmat
        self.lights = sim.light_xpos, sim.light_xdir
        m = sim.model
        self.material = np.array(m.geom_matid, np.int64)
        self.textures = shading.textures(m)
        texture = (
            m.mat_texid[self.material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] if m.nmat else -1
        )
        texture = np.where(self.material >= 0, texture, -1).astype(np.int32)
        self.tint = np.ones((m.ngeom, 3), np.float32)
        for g in np.flatnonzero(texture >= 0):
            if int(m.geom_type[g]) not in rays.PRIMITIVES:
                self.tint[g], texture[g] = shading.mean_colour(m, texture[g]), -1
        self.texture = texture
        fields = [m.mat_emission[:, None], m.mat_texrepeat, m.mat_texuniform[:, None]]
        finish = np.concatenate(fields, -1).astype(np.float32)
        self.finish = (
            np.where((self.material >= 0)[:, None], finish[self.material], 0)
            if m.nmat
            else np.zeros((m.ngeom, 4))
        )
        self.kind = np.array(m.light_type, np.int32)
        cosine = np.where(self.kind == shading.SPOT, np.cos(np.deg2rad(m.light_cutoff)), -2)
        exponent = np.where(self.kind == shading.DIRECTIONAL, -1, m.light_exponent)
        self.cone = np.stack([cosine, exponent], -1)

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

    def view(self, camera: int, rows: np.ndarray) -> View:
        """Returns the view of a camera in m rows."""
        m = self.sim.model
        xpos, xmat = (np.ascontiguousarray(array[rows]) for array in self.poses[:2])
        eye, look = (np.ascontiguousarray(array[rows, camera]) for array in self.poses[2:])
        kind = np.ascontiguousarray(self._field("geom_type", rows), np.int32)
        size = np.ascontiguousarray(self._field("geom_size", rows), np.float64)
        own = m.geom_bodyid == mount(m, camera)
        skip = self._rgba(rows)[1] | own | (m.geom_group >= DRAWN_GROUPS)
        frames = np.empty((len(rows), m.ngeom, rays.FRAME), np.float32)
        rays.place(kind, size, xpos, xmat, eye, look, frames)
        return View(kind, size, skip, self._window(camera, rows), eye, look, frames)

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
        top = np.tan(np.deg2rad(self._field("cam_fovy", rows)[:, camera]) / 2)
        pixel = 2 * top / height
        return np.stack([-width / 2 * pixel, top, pixel, pixel], -1)

    def ways(self, view: View) -> np.ndarray:
        """Returns the directions of the pixels, (m, H W, 3), world frame, 1 along the axis."""
        height, width = self.pixels
        left, top, dx, dy = view.window.T[..., None]
        x = np.repeat((left + (np.arange(width) + 0.5) * dx)[:, None], height, 1)
        y = np.repeat((top - (np.arange(height) + 0.5) * dy)[:, :, None], width, 2)
        flat = np.stack([x, y, -np.ones_like(x)], -1).reshape(len(x), -1, 3)
        return flat @ view.look.reshape(-1, 3, 3).transpose(0, 2, 1)

    def lamps(self, view: View, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns lamps (m, l, 14) and glow (1|m, 6) of the rows, for `shading.shade`."""
        m, kind = self.sim.model, self.kind[:, None]
        on = self._field("light_active", rows)[..., None] & (kind <= shading.POINT)
        place, aim = (array[rows] for array in self.lights)
        lamps = np.empty((len(rows), m.nlight, 14), np.float32)
        lamps[..., :3] = np.where(kind == shading.DIRECTIONAL, -aim, place - view.eye[:, None])
        lamps[..., 3:6] = aim
        lamps[..., 6:9] = on * self._field("light_diffuse", rows)
        lamps[..., 9:12] = m.light_attenuation
        lamps[..., 12:] = self.cone
        head, ambient = m.vis.headlight, (on * self._field("light_ambient", rows)).sum(1)
        if not head.active and not m.nlight:
            ambient = ambient + 0.3  # MuJoCo's renderer leaves no scene in the dark either
        glow = np.empty((len(ambient), 6), np.float32)
        glow[:, :3] = ambient + (head.ambient if head.active else 0)
        glow[:, 3:] = head.diffuse if head.active else 0
        return lamps, glow

    def shade(self, view: View, rows: np.ndarray, hits, lamps, glow, lit, rgb) -> None:
        """Colours the hits (depth, geom, normal) into `rgb`."""
        rgba = self._rgba(rows)[0]
        paint = np.empty((*rgba.shape[:2], 7), np.float32)
        paint[..., :3], paint[..., 3:] = rgba[..., :3] * self.tint, self.finish
        shading.shade(
            view.kind, view.size, view.window, view.look, view.frames, *hits,
            lamps, lit, glow, paint, self.texture, self.textures, rgb,
        )  # fmt: skip
