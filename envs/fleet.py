"""Fleet: several rovers in one world, told apart by their names; knows no task.

They are the first in qpos and among the actuators, in the order of their names; arrays of them are
`(n, k, ...)`. All that `drive` says of one base, this says of k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from ..robots import rover
from ..robots.action import ActionSpec, Component
from ..robots.wheels import RADIUS, SEPARATION
from .control import Control
from .sim import Sim

RIM = 0.185  # m: the radius of a rover with its bumper
_Q, _V = 9, 8  # coordinates and velocities of a rover: its free joint's, its wheels'
_NEAR, _SHARP = 0.3, 0.5  # m within which one slows down; rad off its way at which it stands


class Fleet(Control):
    """Two components for each rover: forward velocity (m/s) and turning rate (rad/s, to the left).

    names: of the rovers; forward: how fast each may drive, m/s.
    """

    def __init__(self, names: Sequence[str], forward: Sequence[float]):
        self.names, self.forward = tuple(names), np.array(forward)

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        parts = []
        for name, forward in zip(self.names, self.forward.tolist(), strict=True):
            parts.append(Component(f"{name}/forward", "base", "m/s", forward))
            parts.append(Component(f"{name}/turn", "base", "rad/s", rover.TURN))
        return ActionSpec(tuple(parts), rate)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        k = 2 * len(self.names)
        ahead = self.forward * action[:, 0:k:2] / RADIUS
        around = rover.TURN * action[:, 1:k:2] * (SEPARATION / 2 / RADIUS)
        sim.ctrl[:, 0:k:2] = ahead - around
        sim.ctrl[:, 1:k:2] = ahead + around

    def go(self, sim: Sim, goals: np.ndarray, through=False, pace=1.0) -> np.ndarray:
        """Returns actions `(n, 2 k)` that lead to the places `goals` (n, k, 2), in m.

        through: `(n, k)` bool, who does not slow down there; pace: the share of their speed that
        they use, a number or `(k,)`.
        """
        way = goals - places(sim)
        far = length(way)
        x, y = np.moveaxis(seen(sim, way[:, :, None])[:, :, 0], 2, 0)
        angle = np.arctan2(y, x)
        drive = np.maximum(1 - np.abs(angle) / _SHARP, 0)
        drive = drive * np.where(through, 1.0, np.minimum(far / _NEAR, 1)) * pace
        turn = np.minimum(np.maximum(3.0 * angle / rover.TURN, -1), 1)
        action = np.stack([drive, turn], 2)
        return np.where((far < 0.02)[..., None], 0.0, action).reshape(len(way), -1)


def spec(names: Sequence[str]) -> mujoco.MjSpec:
    """Returns the rovers, all at the origin; what belongs to one begins with its name and a slash.

    They meet each other, though no rover meets itself.
    """
    s = mujoco.MjSpec()
    s.compiler.degree = False
    everyone = sum(2 << k for k in range(len(names)))
    for k, name in enumerate(names):
        one = rover.spec()
        for geom in one.geoms:  # a bit for each rover: it meets the world and all but itself
            geom.contype, geom.conaffinity = 2 << k, everyone - (2 << k) + 1
        bumper = one.geom("chassis")  # around the wheels, and smooth: who leans on it can turn
        bumper.size[0], bumper.friction[0], bumper.priority = RIM, 0.1, 1
        s.attach(one, prefix=f"{name}/", frame=s.worldbody.add_frame())
    return s


def put(sim: Sim, i: int, which: int, xy, yaw: float) -> None:
    """Puts rover `which` of row i at a place (m), facing yaw (rad)."""
    q = sim.qpos[i, _Q * which :]
    q[:2] = xy
    q[3], q[6] = math.cos(yaw / 2), math.sin(yaw / 2)


def count(sim: Sim) -> int:
    """Returns how many rovers there are."""
    return sim.model.nu // 2


def places(sim: Sim) -> np.ndarray:
    """Returns where the rovers are, `(n, k, 2)` in m."""
    return _coordinates(sim)[..., :2]


def faces(sim: Sim) -> np.ndarray:
    """Returns the directions `(n, k, 2)` that they face, of length 1."""
    w, x, y, z = np.moveaxis(_coordinates(sim)[..., 3:7], 2, 0)
    c, s = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z)
    return np.stack([c, s], 2) / np.sqrt(c * c + s * s)[..., None]


def seen(sim: Sim, ways: np.ndarray) -> np.ndarray:
    """Returns directions in the world `(n, k, m, 2)` as each rover sees its m: x is ahead."""
    c, s = (part[..., None] for part in np.moveaxis(faces(sim), 2, 0))
    x, y = ways[..., 0], ways[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], -1)


def proprio(sim: Sim) -> np.ndarray:
    """Returns what each rover knows `(n, k, 6)`: its place (m), facing, speeds (m/s, rad/s)."""
    v = _velocities(sim)
    face = faces(sim)
    ahead = v[..., 0] * face[..., 0] + v[..., 1] * face[..., 1]
    return np.concatenate([places(sim), face, ahead[..., None], v[..., 5:6]], 2)


def others(sim: Sim) -> np.ndarray:
    """Returns where the other rovers are and what they do, as each sees it, `(n, k, 4 (k - 1))`.

    Place (m) and velocity (m/s) of one after the other, in the order of their names.
    """
    k = count(sim)
    rest = sim.once("others", lambda: np.array([[j for j in range(k) if j != i] for i in range(k)]))
    at, v = places(sim), _velocities(sim)[..., :2]
    ways = seen(sim, at[:, rest] - at[:, :, None])
    return np.concatenate([ways, seen(sim, v[:, rest])], 3).reshape(len(at), k, -1)


def length(way: np.ndarray) -> np.ndarray:
    """Returns the lengths of plane vectors `(..., 2)`."""
    return np.sqrt(way[..., 0] ** 2 + way[..., 1] ** 2)


def _coordinates(sim: Sim) -> np.ndarray:
    k = count(sim)
    return sim.qpos[:, : _Q * k].reshape(sim.n, k, _Q)


def _velocities(sim: Sim) -> np.ndarray:
    k = count(sim)
    return sim.qvel[:, : _V * k].reshape(sim.n, k, _V)
