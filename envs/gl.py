"""GL: a Camera on MuJoCo's OpenGL renderer, and the probe that tells whether OpenGL works here."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import subprocess
import sys
import weakref

import mujoco
import numpy as np

from .camera import Camera
from .sight import DRAWN_GROUPS, mount
from .sim import Sim

_PROBE = """
import mujoco
from mujoco.egl import GLContext
context = GLContext(8, 8)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value).free()
from OpenGL import GL
print("renderer:", GL.glGetString(GL.GL_RENDERER).decode(), flush=True)
context.free()
"""


@functools.cache
def gl_works() -> tuple[bool, str]:
    """Tells whether MuJoCo can draw by OpenGL without a display, and on what, or why not.

    Asks a child process, once in a process's life: a broken driver may end whoever tries it.
    """
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    }
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return False, "OpenGL (EGL) did not answer within 60 s"
    for line in child.stdout.splitlines():
        if line.startswith("renderer: ") and child.returncode == 0:
            return True, line.removeprefix("renderer: ")
    lines = [line for line in child.stderr.splitlines() if line and not line.startswith(" ")]
    last = lines[-1] if lines else f"the probe ended with code {child.returncode}"
    return False, f"OpenGL (EGL) does not work here: {last}"


class GLCamera(Camera):
    """Draws scenes with any geoms by MuJoCo's own OpenGL renderer, one row after the other.

    Tuned for small pictures: no multisampling, coarse round shapes, a shadow map only where
    `shadows`. Has no normals, and draws surfaces that have a pattern (`patterns`) in their first
    colour alone. OpenGL binds it to the thread that draws first. Raises ValueError where OpenGL
    does not work (`gl_works` tells why).
    """

    drawable = ("rgb", "depth", "segmentation")

    def __init__(
        self,
        sim: Sim,
        names: tuple[str, ...],
        size: tuple[int, int] = (64, 64),
        kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
        shadows: bool = False,
    ):
        super().__init__(sim, names, size, kinds, shadows)
        works, reason = gl_works()
        if not works:
            raise ValueError(f"{reason}; draw with make_camera(kind='batch')")
        self._poses = {
            field: getattr(sim, field)
            for field in (
                "geom_xpos",
                "geom_xmat",
                "cam_xpos",
                "cam_xmat",
                "light_xpos",
                "light_xdir",
            )
        }
        self._model = _tuned(sim.model, self.size)
        self._data = mujoco.MjData(self._model)
        self._context = None

    def close(self) -> None:
        """Gives the OpenGL context back; a later call of `render` makes a new one."""
        if self._context is not None:
            self._context.make_current()
            self._painter.free()
            self._context.free()
            self._context = None

    def __del__(self):
        if getattr(self, "_context", None) is not None:
            self.close()

    def _open(self) -> None:
        from mujoco.egl import GLContext

        self._context = GLContext(self.size[1], self.size[0])
        self._context.make_current()
        atexit.register(_close, weakref.ref(self))  # after, so run before, EGL's own
        font = mujoco.mjtFontScale.mjFONTSCALE_50.value
        self._painter = mujoco.MjrContext(self._model, font)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._painter)
        self._painter.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._rect = mujoco.MjrRect(0, 0, self.size[1], self.size[0])
        self._scene = mujoco.MjvScene(self._model, self._model.ngeom + 16)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = np.arange(mujoco.mjNGROUP) < DRAWN_GROUPS
        for group in (
            "sitegroup",
            "jointgroup",
            "tendongroup",
            "actuatorgroup",
            "flexgroup",
            "skingroup",
        ):
            getattr(self._option, group)[:] = 0

    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        if self._context is None:
            self._open()
        self._context.make_current()
        hidden = np.array(self.sim.model.geom_group)
        for place, row in enumerate(rows):
            for field, values in self.sim.varied.items():
                if field.startswith(("geom_", "mat_", "light_", "cam_")):
                    getattr(self._model, field)[:] = values[row]
            self._model.vis.headlight.diffuse[:] = self.sim.model_field("headlight")[row]
            for field, array in self._poses.items():
                getattr(self._data, field)[:] = array[row]
            for name, camera in zip(self.names, self.cameras, strict=True):
                own = self.sim.model.geom_bodyid == mount(self.sim.model, camera)
                self._model.geom_group[:] = np.where(own, mujoco.mjNGROUP - 1, hidden)
                self._draw_one(camera, {k: images[f"{k}/{name}"][place] for k in self.kinds})

    def _draw_one(self, camera: int, images: dict[str, np.ndarray]) -> None:
        eye = mujoco.MjvCamera()
        eye.type, eye.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, camera
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, eye, everything, self._scene
        )
        if "rgb" in images:
            picture = np.empty((*self.size, 3), np.uint8)
            mujoco.mjr_render(self._rect, self._scene, self._painter)
            mujoco.mjr_readPixels(picture, None, self._rect, self._painter)
            images["rgb"][:] = picture[::-1]
        if "depth" in images or "segmentation" in images:
            depth, geom = self._measure()
            for kind, image in (("depth", depth), ("segmentation", geom)):
                if kind in images:
                    images[kind][:] = image

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns depth and geom ids of the scene, drawn in flat colours that name its geoms."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        colour, z = np.empty((*self.size, 3), np.uint8), np.empty(self.size, np.float32)
        mujoco.mjr_render(self._rect, self._scene, self._painter)
        mujoco.mjr_readPixels(colour, z, self._rect, self._painter)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        label = (colour[::-1].astype(np.int32) << np.array([0, 8, 16])).sum(-1)
        names = np.full(self._scene.ngeom + 1, -1, np.int32)
        is_geom = mujoco.mjtObj.mjOBJ_GEOM.value
        for g in self._scene.geoms[: self._scene.ngeom]:
            if g.segid >= 0 and g.objtype == is_geom:
                names[g.segid + 1] = g.objid
        # Reversed z: 1 at the near plane, 0 at the far one, linear in the inverse of the depth.
        near = self._model.vis.map.znear * self._model.stat.extent
        depth = 1 / (z[::-1].astype(np.float64) * (1 / near - 1 / self.far) + 1 / self.far)
        geom = names[label]
        return np.where(geom < 0, self.far, depth), geom


def _close(camera: weakref.ref[GLCamera]) -> None:
    if camera() is not None:
        camera().close()


def _tuned(model: mujoco.MjModel, size: tuple[int, int]) -> mujoco.MjModel:
    """Returns a copy of the model with cheap drawing settings and a buffer of the right size."""
    model = copy.copy(model)
    quality = model.vis.quality
    quality.offsamples, quality.shadowsize = 0, 2048
    quality.numslices, quality.numstacks, quality.numquads = 16, 8, 2
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    return model
