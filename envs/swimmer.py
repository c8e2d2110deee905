"""Swimmer of the DeepMind Control Suite: a chain of links in the plane, and a target."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import mujoco
import numpy as np

from . import suite
from .control import Direct
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_RADIUS = 0.1  # m, of the target
_PLANAR = [0, 1, 5]  # of a link's velocimeter and gyro


class _Swimmer(Task, ABC):
    """Success: the nose is in the target."""

    control_dt = 0.03
    time_limit = 30.0
    control = Direct()
    camera = "tracking1"
    links: ClassVar[int]

    def spec(self) -> mujoco.MjSpec:
        s = suite.load("swimmer")
        body = s.body("head")
        for k in range(self.links - 1):
            body = _add_link(s, body, k, 360 / self.links)
        for camera in s.cameras:
            if camera.mode == mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM:
                camera.pos = camera.pos * self.links / 6
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        suite.draw_joints(sim, i, rng)
        reach = 0.3 if rng.random() < 0.2 else 2.0
        place = rng.uniform(-reach, reach, 2)
        sim.vary("geom_pos")[i, sim.model.geom("target").id, :2] = place
        sim.vary("light_pos")[i, sim.model.light("target_light").id, :2] = place

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 4 links + 1): joints, nose to target as the head sees it (m), every
        link's velocity in the plane (m/s, m/s, rad/s)."""
        moves = sim.sensordata[:, 12 : 12 + 6 * self.links].reshape(sim.n, -1, 6)
        moves = moves[..., _PLANAR].reshape(sim.n, -1)
        return {"proprio": np.concatenate([sim.qpos[:, 3:], self._way(sim), moves], 1)}

    def _way(self, sim: Sim) -> np.ndarray:
        gap = sim.geom("target") - sim.geom("nose")
        return suite.local(gap, suite.turn(sim, "head"))[:, :2]

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = distance(self._way(sim), 0)
        return {"near": tolerance(gap, high=_RADIUS, margin=5 * _RADIUS, shape="long_tail")}

    def success(self, sim: Sim) -> np.ndarray:
        return distance(self._way(sim), 0) <= _RADIUS


class Swimmer6(_Swimmer):
    """Bring the nose of six links to the target."""

    links = 6
    solved = 500.0


class Swimmer15(_Swimmer):
    """Bring the nose of fifteen links to the target."""

    links = 15
    solved = 500.0


def _add_link(s: mujoco.MjSpec, parent, k: int, limit: float) -> mujoco.MjsBody:
    """Adds the chain's next link (a joint within +-limit degrees, its motor, its sensors)."""
    style = s.find_default("swimmer")
    body = parent.add_body(style, name=f"segment_{k}", pos=(0, 0.1, 0))
    body.add_geom(s.find_default("visual"), name=f"visual_{k}")
    body.add_geom(s.find_default("inertial"), name=f"inertial_{k}")
    body.add_site(style, name=f"site_{k}")
    joint = f"joint_{k}"
    body.add_joint(style, name=joint, range=(-limit, limit))
    s.add_actuator(s.default, name=f"motor_{k}", trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint)
    for kind in ("velocimeter", "gyro"):
        s.add_sensor(
            name=f"{kind}_{k}", type=getattr(mujoco.mjtSensor, f"mjSENS_{kind.upper()}"),
            objtype=mujoco.mjtObj.mjOBJ_SITE, objname=f"site_{k}",
        )  # fmt: skip
    return body
