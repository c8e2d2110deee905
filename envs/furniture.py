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
_LOW = 0.025  # m: its foot
_REACH = 0.045  # m that a handle stands out before its drawer or door
TRAVEL = 0.012  # m that a button goes down
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
    """Gives row i's bodies, by name, and their handles the palette colours of these indices."""
    rgba = sim.vary("geom_rgba")
    for name, colour in zip(names, colours, strict=True):
        rgba[i, sim.once(("geoms", name), lambda name=name: _geoms(sim, name))] = RGBA[colour]


def _geoms(sim: Sim, name: str) -> list[int]:
    bodies = {name, f"{name}-handle"}
    return [k for k, b in enumerate(sim.model.geom_bodyid) if sim.model.body(b).name in bodies]


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


def add_button(s: mujoco.MjSpec, name: str) -> None:
    """Adds a button on a stand of its own, whose joint `name` (m) says how far down it is.

    It stays down; `interlock` lets it up. Its cap is body and geom `name`, with a site on its top.
    """
    stand = add_stand(s, f"{name}-stand")
    _box(stand, (0.035, 0.035, 0.015), (0, 0, 0.015), _METAL)
    cap = stand.add_body(name=name, pos=(0, 0, 0.04), gravcomp=1)
    _joint(cap, _J.mjJNT_SLIDE, (0, 0, -1), (0, TRAVEL), friction=1.5, damping=5.0)
    cap.add_geom(
        name=name, type=_G.mjGEOM_CYLINDER, size=(0.024, 0.01, 0), contype=0, conaffinity=3,
        mass=0.02,
    )  # fmt: skip
    cap.add_site(name=name, pos=(0, 0, 0.01), size=(0.003,) * 3, group=4)
    scene.add_touch(s, name)


def interlock(s: mujoco.MjSpec, names: tuple[str, ...]) -> None:
    """Ties buttons as an old radio's are: together they are down by one travel at most."""
    tie = s.add_tendon(
        name="interlock", limited=1, range=(-TRAVEL, 1.05 * TRAVEL), solref_limit=(0.01, 1)
    )
    for name in names:
        tie.wrap_joint(name, 1.0)


def add_dial(s: mujoco.MjSpec, name: str, marks: tuple[float, ...]) -> None:
    """Adds a dial on a stand of its own, with white marks at these angles (rad, 0 along +x).

    Its pointer is body and joint `name` (rad), with a handle at its end, where its site is.
    """
    stand = add_stand(s, f"{name}-stand")
    stand.add_geom(
        type=_G.mjGEOM_CYLINDER, size=(0.085, 0.006, 0), pos=(0, 0, 0.006), rgba=_METAL,
        contype=0, conaffinity=3,
    )  # fmt: skip
    for mark in marks:
        stand.add_geom(
            type=_G.mjGEOM_BOX, size=(0.012, 0.005, 0.001), rgba=(0.95, 0.95, 0.93, 1), contype=0,
            conaffinity=0, pos=(0.07 * math.cos(mark), 0.07 * math.sin(mark), 0.0125),
            quat=(math.cos(mark / 2), 0, 0, math.sin(mark / 2)),
        )  # fmt: skip
    dial = stand.add_body(name=name, gravcomp=1)
    _joint(dial, _J.mjJNT_HINGE, (0, 0, 1), (-2.2, 2.2), friction=0.05, damping=0.05)
    dial.add_geom(
        name=name, type=_G.mjGEOM_CYLINDER, size=(0.03, 0.009, 0), pos=(0, 0, 0.022), contype=0,
        conaffinity=3, mass=0.1,
    )  # fmt: skip
    _box(dial, (0.03, 0.006, 0.006), (0.03, 0, 0.022))
    _post(s, dial, (0.05, 0), flat=False)


def add_socket(s: mujoco.MjSpec, name: str, hole: float, height: float) -> None:
    """Adds an upright square tube, `hole` wide inside (half, m), as a stand of four boxes."""
    stand, wall = add_stand(s, name), 0.007
    out = hole + wall
    for side in (1, -1):
        _box(stand, (wall, out + wall, height / 2), (side * out, 0, height / 2))
        _box(stand, (hole, wall, height / 2), (0, side * out, height / 2))


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
    """Adds an upright post to hold at the body's own site, by its top: `<body>-handle`.

    It is flat to the sides, or round and free to spin, as what swings about a pivot needs it.
    """
    half, name = (POST - _LOW) / 2, f"{body.name}-handle"
    post = body.add_body(name=name, pos=(*pos, _LOW + half), gravcomp=1)
    if not flat:
        _joint(post, _J.mjJNT_HINGE, (0, 0, 1), (-9, 9), friction=1e-4, damping=1e-4)
    post.add_geom(
        name=name, type=_G.mjGEOM_BOX if flat else _G.mjGEOM_CYLINDER,
        size=(0.012, 0.008, half) if flat else (0.009, half, 0), contype=0, conaffinity=3,
        mass=0.02,
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
