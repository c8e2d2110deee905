"""Pair: two arms of one kind, face to face across one table, and what moves both; knows no task.

The left arm stands at the table's left, +y, and looks along -y; the right one looks at it. The
left one has the names that an only arm has, the right one's begin with "b/". Of an action the first
half is the left arm's, the second half the right one's, and `proprio` is shared out alike. Steps
of a tool are along the world's axes, whichever arm's it is.
"""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from ..robots.action import ActionSpec
from ..robots.body import Body
from . import control as controls
from . import scene
from .control import HIGH, LOW, Control
from .sim import Sim

ARMS = ("", "b/")  # the prefixes of their names
_ORIGINS = ((0.38, 0.52), (0.38, -0.52))  # m: of the frames in which their bases are mounted
_QUARTER = 0.5**0.5


def bounds(side: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns where the tool of the left (0) or right (1) arm may go, low and high, world, m.

    Each reaches 8 cm beyond the middle of the table.
    """
    x, y = _ORIGINS[side]
    near, far = (y - LOW[0], y - HIGH[0]) if side == 0 else (y + LOW[0], y + HIGH[0])
    low, high = sorted((near, far))
    return (x + LOW[1], low, LOW[2]), (x + HIGH[1], high, HIGH[2])


def tabletop(body: Body, memory: int) -> mujoco.MjSpec:
    """Returns two arms at a table, as `scene.tabletop` does one; mocap bodies 0 and 1 command them.

    The arms meet each other, though no arm meets itself.
    """
    (ahead, aside, z), (left, right) = body.mount, _ORIGINS
    mounts = (left[0] + aside, left[1] - ahead, z), (right[0] - aside, right[1] + ahead, z)
    s = scene.tabletop(dataclasses.replace(body, mount=mounts[0]), memory)
    s.body("base").quat = _QUARTER, 0, 0, -_QUARTER
    other = body.spec()
    other.body("base").pos, other.body("base").quat = mounts[1], (_QUARTER, 0, 0, _QUARTER)
    for geom in other.geoms:
        if geom.contype == 2:
            geom.contype, geom.conaffinity = 1, 2
    s.attach(other, prefix=ARMS[1], frame=s.worldbody.add_frame())
    scene.add_stand(s, mounts[1], ARMS[1])
    s.worldbody.add_body(name=ARMS[1] + "command", mocap=True)
    return s


class Both(Control):
    """The controls of the two arms, one after the other; names of the right one's have its prefix.

    Each moves its tool within the `bounds` of its side; steps are along the world's axes.
    """

    def __init__(self, name: str, body: Body, dt: float):
        self.arms = tuple(
            controls.make(name, body, dt, prefix, *bounds(side)) for side, prefix in enumerate(ARMS)
        )

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        components = tuple(
            dataclasses.replace(
                c, name=prefix + c.name, frame="world" if c.frame == "base" else c.frame
            )
            for prefix, arm in zip(ARMS, self.arms, strict=True)
            for c in arm.spec(model, rate).components
        )
        return ActionSpec(components, rate)

    def prepare(self, spec: mujoco.MjSpec) -> None:
        for arm in self.arms:
            arm.prepare(spec)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        for arm in self.arms:
            arm.start(sim, rows)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        for arm, half in zip(self.arms, np.split(action, 2, 1), strict=True):
            arm.apply(sim, half)

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray | None:
        """Returns actions towards goals `(n, 2, 3)` in m, of left and right; jaws `(n, 2)`."""
        halves = [arm.aim(sim, goal[:, k], jaws[:, k], speed) for k, arm in enumerate(self.arms)]
        return None if halves[0] is None else np.concatenate(halves, 1)


def proprio(sim: Sim, body: Body) -> np.ndarray:
    """Returns the left arm's own senses, then the right one's, as `scene.proprio`'s of one arm."""
    return np.concatenate([scene.proprio(sim, body, prefix) for prefix in ARMS], 1)


def tools(sim: Sim) -> np.ndarray:
    """Returns where the tools are, `(n, 2, 3)` in m."""
    return np.stack([sim.site(prefix + "tcp") for prefix in ARMS], 1)


def touched(sim: Sim) -> np.ndarray:
    """Returns `(n, things, 2, 2)` bool: whether of an arm the left and right finger touch it."""
    return np.stack([scene.touched(sim, prefix) for prefix in ARMS], 2)


def opening(sim: Sim, body: Body) -> np.ndarray:
    """Returns how far the jaws are open `(n, 2)`, 0 closed to 1 open."""
    return np.stack([scene.opening(sim, body, prefix) for prefix in ARMS], 1)
