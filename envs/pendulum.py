"""Pendulum of the DeepMind Control Suite: a weak motor that has to swing a weight up."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task

_UP = math.cos(math.radians(8))


class PendulumSwingup(Task):
    """Swing the pole up and keep it within 8 degrees of upright, which alone pays and is success.

    `proprio` (n, 3): the pole's cosine and sine, its speed (rad/s).
    """

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "fixed"
    solved = 750.0

    def spec(self) -> mujoco.MjSpec:
        return suite.load("pendulum")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i] = rng.uniform(-np.pi, np.pi)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": np.concatenate([suite.turn(sim, "pole")[:, [8, 2]], sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"upright": tolerance(suite.turn(sim, "pole")[:, 8], _UP, 1)}

    def success(self, sim: Sim) -> np.ndarray:
        return self.reward(sim) > 0
