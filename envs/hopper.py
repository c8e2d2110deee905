"""Hopper of the DeepMind Control Suite: a planar body on one leg."""

from __future__ import annotations

from abc import ABC

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task

_HEIGHT, _SPEED = 0.6, 2.0  # m from foot to torso that is standing, m/s that is hopping


class _Hopper(Task, ABC):
    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "cam0"
    good = suite.GOOD

    def spec(self) -> mujoco.MjSpec:
        return suite.load("hopper")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 15): all joints but the place along x, velocities, two touches (log)."""
        touch = np.log1p(suite.sensors(sim, "touch_toe", "touch_heel"))
        return {"proprio": np.concatenate([sim.qpos[:, 1:], sim.qvel, touch], 1)}


class HopperStand(_Hopper):
    """Stand with small controls. Success: the torso is 0.6 m above the foot."""

    solved = 900.0

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"stands": _stands(sim), "calm": suite.calm(sim)}


class HopperHop(_Hopper):
    """Hop forward at 2 m/s. Success: a reward of 0.8 or more."""

    solved = 250.0

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        speed = sim.sensor("torso_subtreelinvel")[:, 0]
        fast = tolerance(speed, _SPEED, np.inf, _SPEED / 2, shape="linear", at_margin=0.5)
        return {"stands": _stands(sim), "fast": fast}


def _stands(sim: Sim) -> np.ndarray:
    torso, foot = (sim.xipos[:, sim.model.body(name).id, 2] for name in ("torso", "foot"))
    return tolerance(torso - foot, _HEIGHT, 2)
