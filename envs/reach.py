"""Reach: bring the tool to the marker that the words name, among markers of other looks."""

from __future__ import annotations

import mujoco
import numpy as np

from . import scene
from .language import NAMES, refer
from .rewards import distance
from .sim import Sim
from .task import Task

_SHAPES = ("ball", "cube", "cylinder")
_PHRASES = ("reach {}", "move the gripper to {}", "touch {}")
_TARGET = 0  # in userdata: which is named, phrase, form of words, the colours


class Reach(Task):
    """Three floating markers; success within 4 cm of the named one. Reward falls with distance."""

    control_dt = 0.1
    time_limit = 5.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "hold")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=6)
        for shape in _SHAPES:
            scene.add_marker(s, shape, shape, 0.02)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        points = scene.scatter(rng, 3, (0.28, -0.22, 0.05), (0.52, 0.22, 0.30), apart=0.12)
        sim.mocap_pos[i, 1:4] = points
        colours = rng.permutation(len(NAMES))[:3].tolist()
        which, phrase, form = rng.random(3)
        target = int(3 * which)
        colours = self.grammar.colours(rng, _SHAPES, [target], drawn=colours, distinct=True)
        scene.paint(sim, i, _SHAPES, colours)
        phrase = self.grammar.phrase(phrase, len(_PHRASES))
        sim.userdata[i] = [target, phrase, self.grammar.form(form), *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        target, phrase, form, *colours = sim.userdata[i].astype(int)
        things = [(NAMES[c], s) for c, s in zip(colours, _SHAPES, strict=True)]
        return _PHRASES[phrase].format(refer(target, things, form))

    def _goal(self, sim: Sim) -> np.ndarray:
        return scene.pick(sim, sim.mocap_pos[:, 1:4], sim.userdata[:, _TARGET].astype(int))

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`objects` (n, 18): place and place seen from the tool (m) of the named marker first."""
        markers = scene.order(sim.userdata[:, _TARGET].astype(int), 3)
        places = sim.mocap_pos[:, 1:4][sim.rows[:, None], markers]
        seen = places - sim.site("tcp")[:, None]
        return {
            "proprio": scene.proprio(sim, self.body),
            "objects": np.concatenate([places, seen], 2).reshape(sim.n, -1),
        }

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"near": scene.nearness(sim, self._goal(sim), high=0.015)}

    def success(self, sim: Sim) -> np.ndarray:
        return distance(sim.site("tcp"), self._goal(sim)) < 0.04

    def expert(self, sim: Sim) -> np.ndarray | None:
        return self.control.aim(sim, self._goal(sim), jaws=1.0)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        near = self.success(sim)
        return {
            "subtask": near.astype(np.int32),
            "target": sim.userdata[:, _TARGET].astype(np.int32),
        }
