"""Walker of the DeepMind Control Suite: a planar body on two legs."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task

_HEIGHT = 1.2  # m of the torso that is standing


class _Walker(Task, ABC):
    """Success: a reward of 0.8 or more."""

    control_dt = 0.025
    time_limit = 25.0
    control = Direct()
    camera = "side"
    good = suite.GOOD
    speed: ClassVar[float]  # m/s forward; 0: only to stand

    def spec(self) -> mujoco.MjSpec:
        return suite.load("walker")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 24): every body's cosine and sine, the torso's height, velocities."""
        links = sim.xmat[:, 1:, 0:3:2].reshape(sim.n, -1)
        return {"proprio": np.concatenate([links, sim.body("torso")[:, 2:], sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        high = tolerance(sim.body("torso")[:, 2], _HEIGHT, np.inf, _HEIGHT / 2)
        found = {"high": high, "upright": (1 + suite.turn(sim, "torso")[:, 8]) / 2}
        speed = sim.sensor("torso_subtreelinvel")[:, 0]
        if self.speed:
            margin = self.speed / 2
            found["fast"] = tolerance(speed, self.speed, np.inf, margin, "linear", at_margin=0.5)
        return found

    @staticmethod
    def pay(high, upright, fast=None) -> np.ndarray:
        stands = (3 * high + upright) / 4
        return stands if fast is None else stands * (5 * fast + 1) / 6


class WalkerStand(_Walker):
    """Stand upright."""

    speed = 0.0
    solved = 950.0


class WalkerWalk(_Walker):
    """Walk forward at 1 m/s."""

    speed = 1.0
    solved = 950.0


class WalkerRun(_Walker):
    """Run forward; 8 m/s would pay in full."""

    speed = 8.0
    solved = 750.0
