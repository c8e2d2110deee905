"""Cheetah of the DeepMind Control Suite: a planar body on two legs that runs."""

from __future__ import annotations

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task

_SPEED = 10.0  # m/s that pays in full
_MASS = 14.0  # kg
_SETTLE = 200  # physics steps before an episode begins
_NO_SENSORS = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)  # which nobody reads while it falls


class CheetahRun(Task):
    """Run forward. Success: a reward of 0.8 or more, which is 8 m/s.

    `proprio` (n, 17): all joints but the place along x, and velocities.
    """

    control_dt = 0.01
    time_limit = 10.0
    control = Direct()
    camera = "side"
    good = suite.GOOD
    solved = 700.0

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("cheetah")
        # The file gives the mass by an attribute that the engine deprecates: weigh it ourselves.
        s.compiler.settotalmass = -1
        density = _MASS / s.compile().body_mass.sum()
        for geom in s.geoms:
            geom.density *= density
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        """Draws the limited joints and lets the body fall for 2 s, as the suite does."""
        model, data = sim.model, suite.scratch(sim)
        flags = model.opt.disableflags
        model.opt.disableflags |= _NO_SENSORS
        mujoco.mj_resetData(model, data)
        mujoco.mj_forward(model, data)
        limited = model.jnt_limited.astype(bool)
        data.qpos[limited] = rng.uniform(*model.jnt_range[limited].T)
        mujoco.mj_step2(model, data)  # with forces still of the pose in the file: the suite's way
        mujoco.mj_step(model, data, _SETTLE - 1)
        model.opt.disableflags = flags
        sim.qpos[i], sim.qvel[i] = data.qpos, data.qvel

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": np.concatenate([sim.qpos[:, 1:], sim.qvel], 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        speed = sim.sensor("torso_subtreelinvel")[:, 0]
        return {"fast": tolerance(speed, _SPEED, np.inf, _SPEED, shape="linear", at_margin=0)}
