"""Fish of the DeepMind Control Suite: a body in water that swims with fins and tail."""

from __future__ import annotations

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_RADII = 0.045  # m: of mouth and target together


class FishUpright(Task):
    """Turn upright and stay so. Success: a reward of 0.8 or more.

    `proprio` (n, 21): joints, the cosine to upright, velocities.
    """

    control_dt = 0.04
    time_limit = 40.0
    control = Direct()
    camera = "tracking_y"
    good = suite.GOOD
    solved = 850.0

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("fish")
        s.geom("target").rgba[3] = 0
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _pose(sim, i, rng)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        upright = suite.turn(sim, "torso")[:, 8:]
        return {"proprio": np.concatenate([sim.qpos[:, 7:], upright, sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"upright": tolerance(suite.turn(sim, "torso")[:, 8], 1, 1, margin=1)}


class FishSwim(Task):
    """Bring the mouth to the target, upright. Success: the mouth is in the target.

    `proprio` (n, 24): joints, the cosine to upright, mouth to target as the mouth sees it (m),
    velocities.
    """

    control_dt = 0.04
    time_limit = 40.0
    control = Direct()
    camera = "tracking_y"
    solved = 600.0

    def spec(self) -> mujoco.MjSpec:
        return suite.load("fish")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _pose(sim, i, rng)
        place = rng.uniform((-0.4, -0.4, 0.1), (0.4, 0.4, 0.3))
        sim.vary("geom_pos")[i, sim.model.geom("target").id] = place

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        upright = suite.turn(sim, "torso")[:, 8:]
        mouth = sim.geom_xmat[:, sim.model.geom("mouth").id]
        way = suite.local(sim.geom("target") - sim.geom("mouth"), mouth)
        return {"proprio": np.concatenate([sim.qpos[:, 7:], upright, way, sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = distance(sim.geom("target"), sim.geom("mouth"))
        near = tolerance(gap, high=_RADII, margin=2 * _RADII)
        return {"near": near, "upright": (suite.turn(sim, "torso")[:, 8] + 1) / 2}

    @staticmethod
    def pay(near, upright) -> np.ndarray:
        return (7 * near + upright) / 8

    def success(self, sim: Sim) -> np.ndarray:
        return distance(sim.geom("target"), sim.geom("mouth")) <= _RADII


def _pose(sim: Sim, i: int, rng: np.random.Generator) -> None:
    sim.qpos[i, 3:7] = suite.draw_turn(rng)
    sim.qpos[i, 7:] = rng.uniform(-0.2, 0.2, 7)
