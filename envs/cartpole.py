"""Cartpole of the DeepMind Control Suite: its own model file, its rewards and starts, batched."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco
import numpy as np

from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task


def _spec() -> mujoco.MjSpec:
    # Found, not imported: the suite's package imports every domain it has.
    folder = importlib.util.find_spec("dm_control").submodule_search_locations[0]
    return mujoco.MjSpec.from_file(str(Path(folder) / "suite" / "cartpole.xml"))


def _observe(sim: Sim) -> dict[str, np.ndarray]:
    pole = sim.model.body("pole_1").id
    upright, lean = sim.xmat[:, pole, 8:], sim.xmat[:, pole, 2:3]
    return {"proprio": np.concatenate([sim.qpos[:, :1], upright, lean, sim.qvel], 1)}


def _reward(sim: Sim) -> np.ndarray:
    """Source: dm_control's suite/cartpole.py, the smooth reward."""
    upright = (sim.xmat[:, sim.model.body("pole_1").id, 8] + 1) / 2
    centred = (1 + tolerance(sim.qpos[:, 0], margin=2)) / 2
    effort = tolerance(sim.ctrl[:, 0], margin=1, at_margin=0, shape="quadratic")
    slow = (1 + tolerance(sim.qvel[:, 1], margin=5)) / 2
    return upright * (4 + effort) / 5 * slow * centred


class CartpoleBalance(Task):
    """Keep the pole up; starts near upright. `proprio` (n, 5): cart (m), cos, sin, velocities."""

    control_dt = 0.01
    time_limit = 10.0
    control = Direct()
    camera = "fixed"

    def spec(self) -> mujoco.MjSpec:
        return _spec()

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i] = rng.uniform(-0.1, 0.1), rng.uniform(-0.034, 0.034)
        sim.qvel[i] = 0.01 * rng.standard_normal(2)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return _observe(sim)

    def reward(self, sim: Sim) -> np.ndarray:
        return _reward(sim)

    def success(self, sim: Sim) -> np.ndarray:
        return _balanced(sim)


class CartpoleSwingup(Task):
    """Swing the hanging pole up and keep it there. Observation and reward are CartpoleBalance's."""

    control_dt = 0.01
    time_limit = 10.0
    control = Direct()
    camera = "fixed"

    def spec(self) -> mujoco.MjSpec:
        return _spec()

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i] = (0, np.pi) + 0.01 * rng.standard_normal(2)
        sim.qvel[i] = 0.01 * rng.standard_normal(2)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return _observe(sim)

    def reward(self, sim: Sim) -> np.ndarray:
        return _reward(sim)

    def success(self, sim: Sim) -> np.ndarray:
        return _balanced(sim)


def _balanced(sim: Sim) -> np.ndarray:
    """Upright and centred as the suite's sparse reward asks (cosine >= 0.995, 0.25 m)."""
    upright = sim.xmat[:, sim.model.body("pole_1").id, 8]
    return (upright >= 0.995) & (np.abs(sim.qpos[:, 0]) <= 0.25)
