"""Ball in cup of the DeepMind Control Suite: a ball on a string, to be caught with the cup."""

from __future__ import annotations

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .sim import Sim
from .task import Task

_INSIDE = 0.05 - 0.025  # m: half the cup's hollow less the ball's radius


class CupCatch(Task):
    """Swing the ball into the cup and keep it there, which alone pays and is success.

    `proprio` (n, 8): cup and ball in the plane (m), and their velocities.
    """

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "cam0"
    solved = 950.0

    def spec(self) -> mujoco.MjSpec:
        return suite.load("ball_in_cup")

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        def propose() -> None:
            sim.qpos[i, 2:] = rng.uniform((-0.2, 0.2), (0.2, 0.5))

        suite.place_freely(sim, i, propose, 1000)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": np.concatenate([sim.qpos, sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"caught": self.success(sim).astype(float)}

    def success(self, sim: Sim) -> np.ndarray:
        gap = np.abs(sim.site("target") - sim.body("ball"))
        return (gap[:, 0] < _INSIDE) & (gap[:, 2] < _INSIDE)
