"""Cartpole of the DeepMind Control Suite: a cart on a rail that keeps a pole up."""

from __future__ import annotations

from abc import ABC

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task


class _Cartpole(Task, ABC):
    """Success: the pole is upright and the cart in the middle, as the sparse reward asks."""

    control_dt = 0.01
    time_limit = 10.0
    control = Direct()
    camera = "fixed"

    def spec(self) -> mujoco.MjSpec:
        return suite.load("cartpole")

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 5): the cart (m), the pole's cosine and sine, velocities."""
        pole = suite.turn(sim, "pole_1")
        return {"proprio": np.concatenate([sim.qpos[:, :1], pole[:, [8, 2]], sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {
            "upright": (suite.turn(sim, "pole_1")[:, 8] + 1) / 2,
            "calm": suite.calm(sim),
            "slow": (1 + tolerance(sim.qvel[:, 1], margin=5)) / 2,
            "centred": (1 + tolerance(sim.qpos[:, 0], margin=2)) / 2,
        }

    def success(self, sim: Sim) -> np.ndarray:
        upright = suite.turn(sim, "pole_1")[:, 8]
        return (upright >= 0.995) & (np.abs(sim.qpos[:, 0]) <= 0.25)


class CartpoleBalance(_Cartpole):
    """Keep the pole up; it starts near upright."""

    solved = 900.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _upright(sim, i, rng)


class CartpoleBalanceSparse(_Cartpole):
    """Keep the pole up; pays only where it is up and the cart in the middle."""

    solved = 950.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _upright(sim, i, rng)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"balanced": self.success(sim).astype(float)}


class CartpoleSwingup(_Cartpole):
    """Swing the hanging pole up and keep it there."""

    solved = 800.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _hanging(sim, i, rng)


class CartpoleSwingupSparse(_Cartpole):
    """Swing the hanging pole up; pays only where it is up and the cart in the middle."""

    solved = 800.0

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _hanging(sim, i, rng)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"balanced": self.success(sim).astype(float)}


def _upright(sim: Sim, i: int, rng: np.random.Generator) -> None:
    sim.qpos[i] = rng.uniform(-0.1, 0.1), rng.uniform(-0.034, 0.034)
    sim.qvel[i] = 0.01 * rng.standard_normal(2)


def _hanging(sim: Sim, i: int, rng: np.random.Generator) -> None:
    sim.qpos[i] = (0, np.pi) + 0.01 * rng.standard_normal(2)
    sim.qvel[i] = 0.01 * rng.standard_normal(2)
