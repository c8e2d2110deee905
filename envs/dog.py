"""Dog of the DeepMind Control Suite: a body with 38 muscles on four legs."""

from __future__ import annotations

import math
from abc import ABC
from functools import lru_cache
from typing import ClassVar

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import tolerance
from .sim import Sim
from .task import Task

# m: 0.9 of the heights of torso and pelvis in the file's pose
_TORSO, _PELVIS = 0.9 * 0.41522, 0.9 * 0.4761649
_UPRIGHT = math.cos(math.radians(30))
_INERTIAL = ("accelerometer", "velocimeter", "gyro")
_FORCES = ("foot_L", "foot_R", "hand_L", "hand_R")
_TOUCH = ("palm_L", "palm_R", "sole_L", "sole_R")


class _Dog(Task, ABC):
    """Success: a reward of 0.8 or more."""

    control_dt = 0.015
    time_limit = 15.0
    control = Direct()
    camera = "y-axis"
    good = suite.GOOD
    speed: ClassVar[float]  # m/s forward; 0: only to stand

    def spec(self) -> mujoco.MjSpec:
        s = _body().copy()
        half = self.time_limit * (self.speed or 1)
        s.geom("floor").size = half, half, 0.1
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        """Faces anywhere, drifts and turns, with muscles at random.

        At a first step the accelerations and forces have the muscles' pull, the suite's do not.
        """
        angle = rng.uniform(0, 2 * np.pi)
        sim.qpos[i, 3:7] = math.cos(angle / 2), 0, 0, math.sin(angle / 2)
        sim.qvel[i, [0, 1, 5]] = 2 * rng.standard_normal(3)
        sim.act[i] = rng.uniform(sim.ctrl_low, sim.ctrl_high)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 223): 73 joints, their speeds, heights of torso and pelvis, the sight of
        up from skull, torso and pelvis, the torso's velocity as it sees it, the head's inertial
        senses, the feet's forces and touches, 38 muscles' states."""
        parts = [
            *suite.hinges(sim),
            *(sim.body(name)[:, 2:] for name in ("torso", "pelvis")),
            *(suite.turn(sim, name)[:, 6:] for name in ("skull", "torso", "pelvis")),
            suite.local(sim.sensor("torso_linvel"), suite.turn(sim, "torso")),
            suite.sensors(sim, *_INERTIAL, *_FORCES, *_TOUCH),
            sim.act,
        ]
        return {"proprio": np.concatenate(parts, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`skull`, `torso`, `pelvis`: each is upright; `load`: the feet bear the weight."""
        weight = 9.81 * sim.model.body("torso").subtreemass[0]
        load = suite.sensors(sim, *_TOUCH).sum(1)
        found = {"load": tolerance(load, weight, np.inf, weight, shape="linear", at_margin=0.9)}
        for name in ("skull", "torso", "pelvis"):
            cosine = suite.turn(sim, name)[:, 8]
            found[name] = tolerance(cosine, _UPRIGHT, np.inf, _UPRIGHT + 1, "linear", 0)
        for name, height in (("torso", _TORSO), ("pelvis", _PELVIS)):
            found[f"{name}_high"] = tolerance(sim.body(name)[:, 2], height, np.inf, height)
        speed = suite.local(sim.sensor("torso_linvel"), suite.turn(sim, "torso"))[:, 0]
        if self.speed:
            margin = max(1, self.speed)
            found["fast"] = tolerance(speed, self.speed, 2 * self.speed, margin, "linear", 0)
        return found

    @staticmethod
    def pay(load, skull, torso, pelvis, torso_high, pelvis_high, fast=None) -> np.ndarray:
        stands = load * skull * torso * pelvis * torso_high * pelvis_high
        return stands if fast is None else stands * (4 * fast + 1) / 5


class DogStand(_Dog):
    """Stand."""

    speed = 0.0
    solved = 900.0


class DogWalk(_Dog):
    """Walk forward at 1 m/s."""

    speed = 1.0
    solved = 900.0


class DogTrot(_Dog):
    """Trot forward at 3 m/s."""

    speed = 3.0
    solved = 900.0


class DogRun(_Dog):
    """Run forward at 9 m/s."""

    speed = 9.0
    solved = 800.0


@lru_cache(1)
def _body() -> mujoco.MjSpec:
    """Returns the dog on its floor, without the bones and the skin.

    These 162 meshes take a second to compile and weigh 20 MB, meet nothing and are drawn by no
    ray camera, but give the bodies their mass: it is kept, they go, and the shapes that do
    collide are shown instead.
    """
    s = suite.load("dog")
    walls = [s.geom(f"wall_{side}") for side in ("px", "nx", "py", "ny")]
    unused = [s.body("ball"), s.geom("target"), s.camera("ball"), s.camera("head"), *walls]
    for thing in (*unused, *s.keys):
        s.delete(thing)
    model = s.compile()
    for body in s.bodies[1:]:
        known = model.body(body.name)
        body.explicitinertial = True
        body.mass, body.inertia = known.mass[0], known.inertia
        body.ipos, body.iquat = known.ipos, known.iquat
    mesh = mujoco.mjtGeom.mjGEOM_MESH
    for thing in (*(g for g in s.geoms if g.type == mesh), *s.meshes, *s.skins):
        s.delete(thing)
    for geom in s.geoms:
        geom.group = 0
    return s
