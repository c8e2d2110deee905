"""Furniture: drawers, doors, buttons, dials: what stands on a table and moves in joints of its own.

Each stands on a mocap body, so that where it stands is part of the state. The parts meet arms and
free objects, never each other. They have no springs: dry friction keeps a drawer, door, button or
dial where it was left, so that its joint is its memory. Knows no task.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import scene
from .language import RGBA
from .sim import Sim

_G, _J = mujoco.mjtGeom, mujoco.mjtJoint
_WOOD, _METAL = (0.55, 0.42, 0.30, 1), (0.35, 0.36, 0.38, 1)
POST = 0.10  # m above the table: the top of a handle
_LOW = 0.03  # m: its foot
_REACH = 0.045  # m that a handle stands out before its drawer or door
SLIDE = 0.10  # m that a drawer can be pulled out


def add_stand(s: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """Adds a mocap body on the table, and its site `name`, for furniture to stand on."""
    stand = s.worldbody.add_body(name=name, mocap=True)
    stand.add_site(name=name, size=(0.003,) * 3, group=4)
    return stand


def stand_at(sim: Sim, i: int, name: str, xy, yaw: float = 0.0) -> None:
    """Puts row i's stand on the table at xy (m), turned by yaw (rad)."""
    k = int(sim.model.body(name).mocapid[0])
    sim.mocap_pos[i, k, :2] = xy
    sim.mocap_quat[i, k] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)


def paint(sim: Sim, i: int, names: tuple[str, ...], colours: list[int]) -> None:
    """Gives all geoms of row i's bodies, by name, the palette colours of these indices."""
    rgba = sim.vary("geom_rgba")
    for name, colour in zip(names, colours, strict=True):
        body = sim.model.body(name)
        first = int(body.geomadr[0])
        rgba[i, first : first + int(body.geomnum[0])] = RGBA[colour]


def add_drawers(s: mujoco.MjSpec, stand: mujoco.MjsBody, names: tuple[str, ...]) -> None:
    """Adds a chest of drawers side by side, open above, from the left; they slide along its -x.

    Each has a body and a joint `name` (m, 0 shut to `SLIDE`) and a handle, where its site is.
    """
    pitch = 0.125
    wide = pitch * len(names) / 2
    _box(stand, (0.006, wide, 0.04), (0.06, 0, 0.04))
    for k in range(len(names) + 1):
        _box(stand, (0.06, 0.004, 0.04), (0, wide - k * pitch, 0.04))
    for k, name in enumerate(names):
        tray = stand.add_body(name=name, pos=(-0.004, wide - (k + 0.5) * pitch, 0), gravcomp=1)
        _joint(tray, _J.mjJNT_SLIDE, (-1, 0, 0), (0, SLIDE), friction=1.5, damping=4.0)
        _box(tray, (0.006, 0.055, 0.035), (-0.054, 0, 0.04), name=name)
        _box(tray, (0.05, 0.055, 0.003), (0, 0, 0.01))
        _box(tray, (0.004, 0.055, 0.025), (0.046, 0, 0.03))
        for side in (-1, 1):
            _box(tray, (0.05, 0.003, 0.025), (0, side * 0.052, 0.03))
        _box(tray, (_REACH / 2, 0.005, 0.005), (-0.06 - _REACH / 2, 0, 0.035))
        _post(s, tray, (-0.06 - _REACH, 0), flat=True)


def add_doors(s: mujoco.MjSpec, stand: mujoco.MjsBody, names: tuple[str, str]) -> None:
    """Adds a cupboard, open above, with a left and a right door in its front, the stand's -x.

    Each has a body at its hinge, a joint `name` (rad, 0 shut to 1.6) and a handle, where its site
    is; the left one opens by turning to the right seen from above, the right one to the left.
    """
    _box(stand, (0.006, 0.196, 0.03), (0.10, 0, 0.03))
    for name, side in zip(names, (1, -1), strict=True):
        _box(stand, (0.05, 0.006, 0.04), (0.05, side * 0.196, 0.04))
        door = stand.add_body(name=name, pos=(0, side * 0.19, 0), gravcomp=1)
        _joint(door, _J.mjJNT_HINGE, (0, 0, -side), (0, 1.6), friction=0.2, damping=0.3)
        _box(door, (0.005, 0.0925, 0.04), (0, -side * 0.0945, 0.045), name=name)
        _box(door, (_REACH / 2, 0.005, 0.005), (-_REACH / 2, -side * 0.14, 0.035))
        _post(s, door, (-_REACH, -side * 0.14), flat=False)


def _box(body: mujoco.MjsBody, size, pos, rgba=_WOOD, name: str = "") -> None:
    body.add_geom(
        name=name, type=_G.mjGEOM_BOX, size=size, pos=pos, rgba=rgba, contype=0, conaffinity=3,
        mass=0.1,
    )  # fmt: skip


def _joint(body: mujoco.MjsBody, kind, axis, limits, friction: float, damping: float) -> None:
    body.add_joint(
        name=body.name, type=kind, axis=axis, range=limits, limited=1, frictionloss=friction,
        damping=[damping, 0, 0], armature=0.001, solref_limit=(0.01, 1),
    )  # fmt: skip


def _post(s: mujoco.MjSpec, body: mujoco.MjsBody, pos, flat: bool) -> None:
    """Adds an upright post, flat to the sides or round, to hold at the body's own site, by its top.

    Its geom, `<body>-handle`, is what fingers sense.
    """
    half, name = (POST - _LOW) / 2, f"{body.name}-handle"
    body.add_geom(
        name=name, type=_G.mjGEOM_BOX if flat else _G.mjGEOM_CYLINDER,
        size=(0.012, 0.008, half) if flat else (0.009, half, 0), pos=(*pos, _LOW + half),
        contype=0, conaffinity=3, mass=0.02,
    )  # fmt: skip
    body.add_site(name=body.name, pos=(*pos, POST - 0.02), size=(0.003,) * 3, group=4)
    scene.add_touch(s, name)


def swung(point: np.ndarray, pivot: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Returns points `(n, 3)` turned about upright axes through pivot `(n, 3)` by angle `(n,)`."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = point[:, 0] - pivot[:, 0], point[:, 1] - pivot[:, 1]
    out = point.copy()
    out[:, 0] = pivot[:, 0] + c * x - s * y
    out[:, 1] = pivot[:, 1] + s * x + c * y
    return out


def joints(sim: Sim, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns where parts of one joint are, and how fast, each `(n, parts)`, m or rad, /s."""
    at = sim.once(("joints", names), lambda: [sim.model.joint(name) for name in names])
    q, v = [int(j.qposadr[0]) for j in at], [int(j.dofadr[0]) for j in at]
    return sim.qpos[:, q], sim.qvel[:, v]


def seen(sim: Sim, names: tuple[str, ...]) -> np.ndarray:
    """Returns `(n, parts, 8)`: a part's site, that seen from the tool (m), its joint, its speed."""
    q, v = joints(sim, names)
    places = sites(sim, names)
    return np.concatenate(
        [places, places - sim.site("tcp")[:, None], q[..., None], v[..., None]], 2
    )


def sites(sim: Sim, names: tuple[str, ...]) -> np.ndarray:
    """Returns the places of the sites, `(n, sites, 3)` in m."""
    return np.stack([sim.site(name) for name in names], 1)
