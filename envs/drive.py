"""Drive: how actions move a base on two driven wheels, and ways for it over the ground.

Knows no task. Of a base: the free joint `base`, first in qpos, and the wheels' actuators.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots.action import ActionSpec, Component
from ..robots.wheels import NAMES, RADIUS, SEPARATION
from .control import Control
from .sim import Sim

_NEAR, _SHARP = 0.3, 0.5  # m within which it slows down; rad off its way at which it stands


class Drive(Control):
    """Two components: forward velocity (m/s) and turning rate (rad/s, to the left)."""

    def __init__(self, forward: float, turn: float):
        self.forward, self.turn = forward, turn

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        return ActionSpec(
            (
                Component("forward", "base", "m/s", self.forward),
                Component("turn", "base", "rad/s", self.turn),
            ),
            rate,
        )

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        at = sim.once("wheels", lambda: int(sim.model.actuator(NAMES[0]).id))
        ahead = self.forward * action[:, 0] / RADIUS
        around = self.turn * action[:, 1] * (SEPARATION / 2 / RADIUS)
        sim.ctrl[:, at] = ahead - around
        sim.ctrl[:, at + 1] = ahead + around

    def head(self, sim: Sim, way: np.ndarray, length) -> np.ndarray:
        """Returns actions `(n, 2)` that turn along `way` (n, 2), in the world, then drive.

        length: m to go, signed, `(n,)`; it slows down near 0.
        """
        x, y = seen(sim, way).T
        angle = np.arctan2(y, x)
        turn = np.clip(3.0 * angle / self.turn, -1, 1)
        straight = np.maximum(1 - np.abs(angle) / _SHARP, 0)
        return np.stack([straight * np.clip(length / _NEAR, -1, 1), turn], 1)

    def go(self, sim: Sim, goal: np.ndarray, close: float = 0.0, through=False) -> np.ndarray:
        """Returns actions `(n, 2)` that lead to `close` m from the place `goal` (n, 2), facing it.

        through: `(n,)` bool, the goal is only on the way, so that nothing slows down.
        """
        way = goal - place(sim)
        far = np.sqrt(np.einsum("ij,ij->i", way, way)) - close
        action = self.head(sim, way, np.where(through, _NEAR, far))
        there = far < 0.02
        action[:, 0] = np.where(there, 0.0, action[:, 0])
        if not close:  # at the place itself there is no direction to it
            action[:, 1] = np.where(there, 0.0, action[:, 1])
        return action


class Mobile(Control):
    """A base's two components, then a velocity for each joint of its arm, then the jaws.

    rates: of the arm's actuators, which follow one another in the model, m/s or rad/s at most.
    jaws: what the actuator `gripper` after them is told to close and to open, m. dt: s between
    actions. The servos' targets move at these velocities, up to `lead` s ahead of the joints.
    """

    def __init__(self, base: Drive, rates: dict[str, float], jaws, dt: float, lead: float = 0.3):
        self.base, self.names, self.jaws = base, tuple(rates), jaws
        self.rates, self.dt, self.lead = np.array(list(rates.values())), dt, lead

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        arm = []
        for name, limit in zip(self.names, self.rates.tolist(), strict=True):
            a = model.actuator(name)
            hinge = int(a.trntype[0]) == int(mujoco.mjtTrn.mjTRN_JOINT) and int(
                model.jnt_type[a.trnid[0]]
            ) == int(mujoco.mjtJoint.mjJNT_HINGE)
            arm.append(Component(name, "joint", "rad/s" if hinge else "m/s", limit))
        low, high = self.jaws
        jaws = Component("gripper", "tool", "m", (high - low) / 2, (high + low) / 2)
        return ActionSpec((*self.base.spec(model, rate).components, *arm, jaws), rate)

    def arm(self, sim: Sim) -> slice:
        """Returns where the arm's actuators are in `sim.ctrl`; the gripper's is next."""
        first = sim.once("arm's first", lambda: int(sim.model.actuator(self.names[0]).id))
        return slice(first, first + len(self.names))

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        self.base.apply(sim, action[:, :2])
        arm = self.arm(sim)
        now, ahead = sim.actuator_length[:, arm], self.lead * self.rates
        target = sim.ctrl[:, arm] + self.dt * self.rates * action[:, 2:-1]
        target = np.minimum(np.maximum(target, now - ahead), now + ahead)
        low, high = sim.ctrl_low[arm], sim.ctrl_high[arm]
        sim.ctrl[:, arm] = np.minimum(np.maximum(target, low), high)
        low, high = self.jaws
        sim.ctrl[:, arm.stop] = (high - low) / 2 * (1 + action[:, -1]) + low

    def reach(self, sim: Sim, goals: np.ndarray) -> np.ndarray:
        """Returns the arm's actions `(n, joints)` that bring its servos to `goals` (n, joints)."""
        rate = (goals - sim.ctrl[:, self.arm(sim)]) / (self.dt * self.rates)
        return np.minimum(np.maximum(rate, -1), 1)


def place(sim: Sim) -> np.ndarray:
    """Returns where the base is, `(n, 2)` in m."""
    return sim.qpos[:, :2]


def ahead(sim: Sim) -> np.ndarray:
    """Returns the direction `(n, 2)` the base faces, of length 1."""
    w, x, y, z = sim.qpos[:, 3:7].T
    c, s = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z)
    return np.stack([c, s], 1) / np.sqrt(c * c + s * s)[:, None]


def seen(sim: Sim, way: np.ndarray) -> np.ndarray:
    """Returns directions in the world `(n, 2)` or `(n, k, 2)` as the base sees them: x is ahead."""
    face = ahead(sim)
    c, s = face[:, 0], face[:, 1]
    if way.ndim == 3:
        c, s = c[:, None], s[:, None]
    x, y = way[..., 0], way[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], -1)


def places(sim: Sim, points: np.ndarray) -> np.ndarray:
    """Returns where points of the world `(n, k, 2)` are as the base sees them, m."""
    return seen(sim, points - place(sim)[:, None])


def speed(sim: Sim) -> np.ndarray:
    """Returns forward velocity (m/s) and turning rate (rad/s), `(n, 2)`."""
    return np.stack([np.einsum("ij,ij->i", sim.qvel[:, :2], ahead(sim)), sim.qvel[:, 5]], 1)


def resting(sim: Sim) -> np.ndarray:
    """Returns `(n,)` bool: the base stands, but for 5 cm/s and 0.2 rad/s."""
    moves = np.abs(speed(sim))
    return (moves[:, 0] < 0.05) & (moves[:, 1] < 0.2)


def proprio(sim: Sim) -> np.ndarray:
    """Returns what the base knows of itself `(n, 6)`: place (m), facing, speeds (m/s, rad/s)."""
    return np.concatenate([place(sim), ahead(sim), speed(sim)], 1)


def put(sim: Sim, i: int, xy, yaw: float) -> None:
    """Puts row i's base at a place (m), facing yaw (rad)."""
    q = sim.qpos[i]
    q[:2] = xy
    q[3], q[6] = math.cos(yaw / 2), math.sin(yaw / 2)


def detour(start: np.ndarray, goal: np.ndarray, blocks: np.ndarray, clear: float) -> np.ndarray:
    """Returns where to head for from `start` so as to come to `goal` `(n, 2)` past the blocks.

    blocks: `(n, k, 2)`; their places are kept `clear` m away from, which needs them twice that
    apart. The answer is the goal where the way is free, else a point beside the first block in the
    way, where the tangent of its circle touches, on the side that is the shorter way round.
    """
    for _ in range(2):  # the way past one block can lead to another
        way = goal - start
        long = np.sqrt(np.einsum("ij,ij->i", way, way))
        unit = way / np.maximum(long, 1e-9)[:, None]
        rest = blocks - start[:, None]
        along = rest[..., 0] * unit[:, :1] + rest[..., 1] * unit[:, 1:]
        aside = rest[..., 1] * unit[:, :1] - rest[..., 0] * unit[:, 1:]
        hit = (along > 0) & (along < long[:, None]) & (np.abs(aside) < clear)
        rows, first = np.arange(len(start)), np.where(hit, along, np.inf).argmin(1)
        block, aside = rest[rows, first], aside[rows, first]
        far = np.sqrt(np.einsum("ij,ij->i", block, block))
        # Who is within the circle already leaves it, the more outwards the deeper within.
        angle = np.arcsin(np.minimum(clear / np.maximum(far, 1e-9), 1))
        angle = angle + np.maximum(1 - far / clear, 0) * math.pi / 2
        angle = np.arctan2(block[:, 1], block[:, 0]) - np.where(aside > 0, 1, -1) * angle
        reach = np.sqrt(np.maximum(far * far - clear * clear, 0.09))[:, None]
        beside = start + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
        goal = np.where(hit.any(1)[:, None], beside, goal)
    return goal
