"""Quadruped of the DeepMind Control Suite: a body on four legs of three motors each."""

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

_TOES = ("front_left", "front_right", "back_right", "back_left")
_FORCES = [f"{what}_toe_{toe}" for what in ("force", "torque") for toe in _TOES]
_IMU = ("imu_accel", "imu_gyro")


class _Quadruped(Task, ABC):
    """Success: a reward of 0.8 or more."""

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "y"
    good = suite.GOOD
    speed: ClassVar[float]  # m/s forward

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("quadruped")
        half = self.time_limit * self.speed
        s.geom("floor").size = half, half, 0.5
        walls = [s.geom(f"wall_{side}") for side in ("px", "py", "nx", "ny")]
        unused = [*walls, s.geom("terrain"), s.hfield("terrain"), s.body("ball"), s.site("target")]
        for thing in unused:  # of the suite's other tasks
            s.delete(thing)
        for sensor in list(s.sensors):
            if sensor.name.startswith("rf_"):
                s.delete(sensor)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        """Turns the body at random and lifts it from the origin until it touches nothing."""
        sim.qpos[i, 3:7] = suite.draw_turn(rng)
        heights = iter(np.arange(1000) * 0.01)

        def propose() -> None:
            sim.qpos[i, :3] = 0, 0, next(heights)

        suite.place_freely(sim, i, propose, 1000)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 78): 16 joints, their speeds, 12 actuators' states, the torso's velocity
        as it sees it, cosine to upright, acceleration, turning rate, toes' forces (arsinh)."""
        parts = [
            *suite.hinges(sim),
            sim.act,
            sim.sensor("velocimeter"),
            suite.turn(sim, "torso")[:, 8:],
            suite.sensors(sim, *_IMU),
            np.arcsinh(suite.sensors(sim, *_FORCES)),
        ]
        return {"proprio": np.concatenate(parts, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        upright = suite.turn(sim, "torso")[:, 8]
        straight = tolerance(upright, 1, np.inf, 2, shape="linear", at_margin=0)
        speed = sim.sensor("velocimeter")[:, 0]
        fast = tolerance(speed, self.speed, np.inf, self.speed, shape="linear", at_margin=0.5)
        return {"straight": straight, "fast": fast}


class QuadrupedWalk(_Quadruped):
    """Walk forward at 0.5 m/s."""

    speed = 0.5
    solved = 900.0


class QuadrupedRun(_Quadruped):
    """Run forward at 5 m/s."""

    speed = 5.0
    solved = 900.0
