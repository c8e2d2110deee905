"""Finger of the DeepMind Control Suite: a finger of two joints that turns a body on a hinge."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import distance
from .sim import Sim
from .task import Task

_REACH = 0.13  # m from the hinge to the body's tip, and to the target
_PLANE = [0, 2]


class FingerSpin(Task):
    """Keep the body spinning at 15 rad/s, which alone pays and is success.

    `proprio` (n, 9): joints, tip from hinge (m), three speeds (rad/s), two touches (log).
    """

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "cam0"
    solved = 950.0

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("finger")
        s.joint("hinge").damping[0] = 0.03
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.place_freely(sim, i, lambda: suite.draw_joints(sim, i, rng), 1000)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": _senses(sim)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"fast": self.success(sim).astype(float)}

    def success(self, sim: Sim) -> np.ndarray:
        return sim.sensor("hinge_velocity")[:, 0] <= -15


class _FingerTurn(Task, ABC):
    """Success, which alone pays: the body's tip is in the target."""

    control_dt = 0.02
    time_limit = 20.0
    control = Direct()
    camera = "cam0"
    radius: ClassVar[float]  # m, of the target

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("finger")
        # Sites in the suite's file, which cameras do not draw.
        _show(s.body("spinner"), "tip", s.site("tip").pos, 0.02)
        _show(s.worldbody, "target", s.site("target").pos, self.radius)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        angle, hinge = rng.uniform(-np.pi, np.pi), sim.model.body("spinner").pos
        place = hinge[0] + _REACH * np.sin(angle), 0, hinge[2] + _REACH * np.cos(angle)
        sim.vary("geom_pos")[i, sim.model.geom("target").id] = place
        suite.place_freely(sim, i, lambda: suite.draw_joints(sim, i, rng), 1000)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 12): FingerSpin's, target from hinge (m), tip to target's edge (m)."""
        target = (sim.geom("target") - sim.sensor("spinner"))[:, _PLANE]
        return {"proprio": np.concatenate([_senses(sim), target, self._gap(sim)[:, None]], 1)}

    def _gap(self, sim: Sim) -> np.ndarray:
        tip, target = sim.sensor("tip"), sim.geom("target")
        return distance(target[:, _PLANE], tip[:, _PLANE]) - self.radius

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"there": self.success(sim).astype(float)}

    def success(self, sim: Sim) -> np.ndarray:
        return self._gap(sim) <= 0


class FingerTurnEasy(_FingerTurn):
    """Turn the body's tip into a target of 7 cm radius and keep it there."""

    radius = 0.07
    solved = 750.0


class FingerTurnHard(_FingerTurn):
    """Turn the body's tip into a target of 3 cm radius and keep it there."""

    radius = 0.03
    solved = 900.0


def _senses(sim: Sim) -> np.ndarray:
    tip = (sim.sensor("tip") - sim.sensor("spinner"))[:, _PLANE]
    touch = np.log1p(suite.sensors(sim, "touchtop", "touchbottom"))
    return np.concatenate([sim.qpos[:, :2], tip, sim.qvel, touch], 1)


def _show(body: mujoco.MjsBody, name: str, pos: np.ndarray, radius: float) -> None:
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(radius, 0, 0), pos=pos,
        material="target", mass=0, contype=0, conaffinity=0,
    )  # fmt: skip
