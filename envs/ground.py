"""Ground: open level ground under a sky, for bodies that move about; knows no body and no task."""

from __future__ import annotations

import mujoco
import numpy as np

_T, _B = mujoco.mjtTexture, mujoco.mjtBuiltin


def lay(
    s: mujoco.MjSpec, timestep: float, memory: int, square: float, meets: int = 3
) -> mujoco.MjSpec:
    """Adds to a body's spec the plane z = 0 (geom `floor`), a sky, a lamp, and how time passes.

    timestep: s. memory: numbers of userdata. square: m, the width of the floor's squares. meets:
    the floor's conaffinity.
    """
    s.option.timestep = timestep
    s.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    s.nuserdata = memory
    s.visual.headlight.ambient = (0.40, 0.40, 0.40)
    s.visual.headlight.diffuse = (0.25, 0.25, 0.25)
    s.add_texture(
        name="floor", type=_T.mjTEXTURE_2D, builtin=_B.mjBUILTIN_CHECKER,
        rgb1=(0.44, 0.45, 0.43), rgb2=(0.50, 0.51, 0.49), width=64, height=64,
    )  # fmt: skip
    s.add_texture(
        name="sky", type=_T.mjTEXTURE_SKYBOX, builtin=_B.mjBUILTIN_GRADIENT,
        rgb1=(0.80, 0.87, 0.94), rgb2=(0.36, 0.50, 0.66), width=64, height=384,
    )  # fmt: skip
    material = s.add_material(name="floor", texrepeat=(1 / square,) * 2, texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    s.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), material="floor",
        contype=1, conaffinity=meets, friction=(0.9, 0.005, 0.0001),
    )  # fmt: skip
    s.worldbody.add_light(
        name="lamp", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=(0, 0, 20),
        dir=(-0.35, 0.45, -0.85), diffuse=(0.65, 0.64, 0.60), castshadow=1,
    )  # fmt: skip
    return s


def looking(eye, target) -> np.ndarray:
    """Returns the quaternion `(4,)` of a camera at `eye` that sees `target` (m) in its middle."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    mujoco.mju_mat2Quat(
        out := np.empty(4), np.stack([right, np.cross(back, right), back], 1).ravel()
    )
    return out
