"""Point mass of the DeepMind Control Suite: a ball on a plane, pushed along two directions."""

from __future__ import annotations

from abc import ABC

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_TARGET = 0.015  # m: radius of the target, in the middle


class _PointMass(Task, ABC):
    """Success: the ball's centre is within the target."""

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "fixed"

    def spec(self) -> mujoco.MjSpec:
        return suite.load("point_mass")

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 4): place (m) and velocity (m/s)."""
        return {"proprio": np.concatenate([sim.qpos, sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = distance(sim.geom("target"), sim.geom("pointmass"))
        return {"near": tolerance(gap, high=_TARGET, margin=_TARGET), "calm": suite.calm(sim)}

    def success(self, sim: Sim) -> np.ndarray:
        return distance(sim.geom("target"), sim.geom("pointmass")) <= _TARGET


class PointMassEasy(_PointMass):
    """Bring the ball to the middle; each motor pushes along an axis."""

    solved = 800.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)


class PointMassHard(_PointMass):
    """Bring the ball to the middle; where the motors push to is drawn anew for every episode."""

    solved = 500.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)
        one, other = _direction(rng), _direction(rng)
        while abs(one @ other) > 0.9:  # nearly parallel
            other = _direction(rng)
        sim.vary("wrap_prm")[i] = [*one, *other]


def _direction(rng: np.random.Generator) -> np.ndarray:
    way = rng.standard_normal(2)
    return way / np.linalg.norm(way)
