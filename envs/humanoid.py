"""Humanoid of the DeepMind Control Suite: a body with 21 joints on two legs."""

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

_HEIGHT = 1.4  # m of the head of one who stands
_LIMBS = ("left_hand", "left_foot", "right_hand", "right_foot")


class _Humanoid(Task, ABC):
    """Success: a reward of 0.8 or more."""

    control_dt = 0.025
    time_limit = 25.0
    control = Direct()
    camera = "side"
    good = suite.GOOD
    speed: ClassVar[float]  # m/s in any direction; 0: only to stand

    def spec(self) -> mujoco.MjSpec:
        return suite.load("humanoid")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.place_freely(sim, i, lambda: suite.draw_joints(sim, i, rng), 10_000)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 67): 21 joints, the head's height, hands and feet from the torso as it
        sees them (m), its sight of up, the velocity of the centre of mass, velocities."""
        torso, place = suite.turn(sim, "torso"), sim.body("torso")
        limbs = [suite.local(sim.body(limb) - place, torso) for limb in _LIMBS]
        speed = sim.sensor("torso_subtreelinvel")
        parts = [sim.qpos[:, 7:], sim.body("head")[:, 2:], *limbs, torso[:, 6:], speed, sim.qvel]
        return {"proprio": np.concatenate(parts, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        high = tolerance(sim.body("head")[:, 2], _HEIGHT, np.inf, _HEIGHT / 4)
        upright = suite.turn(sim, "torso")[:, 8]
        straight = tolerance(upright, 0.9, np.inf, 1.9, shape="linear", at_margin=0)
        speed = sim.sensor("torso_subtreelinvel")[:, :2]
        if self.speed:
            pace = np.sqrt(speed[:, 0] ** 2 + speed[:, 1] ** 2)
            fast = tolerance(pace, self.speed, np.inf, self.speed, shape="linear", at_margin=0)
            moves = (5 * fast + 1) / 6
        else:
            moves = tolerance(speed, margin=2).mean(1)
        return {"calm": suite.calm(sim), "high": high, "straight": straight, "moves": moves}


class HumanoidStand(_Humanoid):
    """Stand upright and still."""

    speed = 0.0
    solved = 850.0


class HumanoidWalk(_Humanoid):
    """Walk at 1 m/s."""

    speed = 1.0
    solved = 850.0


class HumanoidRun(_Humanoid):
    """Run; 10 m/s would pay in full."""

    speed = 10.0
    solved = 500.0
