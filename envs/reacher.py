"""Reacher of the DeepMind Control Suite: a planar arm of two links, and a target on the plane."""

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

_FINGER = 0.01  # m: radius of the finger


class _Reacher(Task, ABC):
    """Success: the finger touches the target, which alone pays."""

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "fixed"
    radius: ClassVar[float]  # m, of the target

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("reacher")
        s.geom("target").size[0] = self.radius
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.20)
        place = reach * np.sin(angle), reach * np.cos(angle)
        sim.vary("geom_pos")[i, sim.model.geom("target").id, :2] = place

    def _gap(self, sim: Sim) -> np.ndarray:
        return sim.geom("target")[:, :2] - sim.geom("finger")[:, :2]

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 6): joints (rad), the way to the target (m), speeds (rad/s)."""
        return {"proprio": np.concatenate([sim.qpos, self._gap(sim), sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"near": tolerance(distance(self._gap(sim), 0), high=self.radius + _FINGER)}

    def success(self, sim: Sim) -> np.ndarray:
        return self.reward(sim) > 0


class ReacherEasy(_Reacher):
    """Hold the finger on a target of 5 cm radius."""

    radius = 0.05
    solved = 900.0


class ReacherHard(_Reacher):
    """Hold the finger on a target of 1.5 cm radius."""

    radius = 0.015
    solved = 900.0
