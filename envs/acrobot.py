"""Acrobot of the DeepMind Control Suite: two links, and a motor at the elbow alone."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_RADIUS = 0.2  # m: of the target that the tip has to be in, straight above


class _Acrobot(Task, ABC):
    """Success: the tip is within the target."""

    control_dt = 0.01
    time_limit = 10.0
    control = Direct()
    camera = "fixed"
    margin: ClassVar[float]  # m outside the target where the reward is a tenth

    def spec(self) -> mujoco.MjSpec:
        return suite.load("acrobot")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i] = rng.uniform(-np.pi, np.pi, 2)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 6): both links' sines, both cosines, speeds (rad/s)."""
        upper, lower = suite.turn(sim, "upper_arm"), suite.turn(sim, "lower_arm")
        links = [upper[:, 2:3], lower[:, 2:3], upper[:, 8:9], lower[:, 8:9]]
        return {"proprio": np.concatenate([*links, sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = distance(sim.site("target"), sim.site("tip"))
        return {"near": tolerance(gap, high=_RADIUS, margin=self.margin)}

    def success(self, sim: Sim) -> np.ndarray:
        return distance(sim.site("target"), sim.site("tip")) <= _RADIUS


class AcrobotSwingup(_Acrobot):
    """Swing both links up and keep the tip at the target above."""

    margin = 1.0
    solved = 450.0


class AcrobotSwingupSparse(_Acrobot):
    """Swing both links up; pays only while the tip is within the target."""

    margin = 0.0
    solved = 200.0
