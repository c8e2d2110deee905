"""Lift and Stack: hold the object that the words name in the air, or set a cube on another."""

from __future__ import annotations

import mujoco
import numpy as np

from . import scene
from .carry import held, move, still, things
from .language import NAMES, VERBS, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_HALF = 0.02  # m: half size of an object
_WHICH, _BASE = 0, 1  # in userdata; then phrase, form of words, colours
_SHAPES = ("cube", "cylinder", "ball")
_CUBES = ("cube", "cube2", "cube3", "cube4")  # two to be moved, two to stand on: all look alike
_UP = 0.10  # m
_ONTO = np.array([0, 0, 2 * _HALF + 0.001])  # m: from a cube to the one on it


def _lay(sim: Sim, i: int, rng: np.random.Generator, names: tuple[str, ...]) -> list[float]:
    """Puts the objects about, each of its own weight; returns numbers to choose by."""
    k = len(names)
    spots = scene.scatter(rng, k, (0.30, -0.20), (0.50, 0.20), apart=0.11)
    yaw, mass, choices = rng.random((3, 4)).tolist()
    for j, name in enumerate(names):
        scene.place(sim, i, j, spots[j], 0.8 * yaw[j] - 0.4)
        scene.weigh(sim, i, name, 0.5 + 1.5 * mass[j])
    return choices


class Lift(Task):
    """Lift the named object 10 cm off the table and hold it there; success while it is held still.

    `objects` (n, 45): of the named object, then of the others, place, place seen from the tool (m),
    two axes and velocity (m/s).
    """

    control_dt = 0.1
    time_limit = 6.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "grasp", "lift", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=7)
        for shape in _SHAPES:
            scene.add_object(s, shape, shape, _HALF, mass=0.1)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        which, _, phrase, form = _lay(sim, i, rng, _SHAPES)
        which, looks = int(3 * which), rng.permutation(len(NAMES))[:3]
        looks = self.grammar.colours(rng, _SHAPES, [which], drawn=looks, distinct=True)
        scene.paint(sim, i, _SHAPES, looks)
        phrase = self.grammar.phrase(phrase, len(VERBS["lift"]))
        sim.userdata[i] = [which, 0, phrase, self.grammar.form(form), *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, _, phrase, form, *colours = sim.userdata[i].astype(int)
        looks = [(NAMES[c], shape) for c, shape in zip(colours, _SHAPES, strict=True)]
        return VERBS["lift"][phrase].format(refer(which, looks, form))

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        named = scene.order(sim.userdata[:, _WHICH].astype(int), 3)
        seen = things(sim)[sim.rows[:, None], named]
        return {"proprio": scene.proprio(sim, self.body), "objects": seen.reshape(sim.n, -1)}

    def _judge(self, sim: Sim):
        which = sim.userdata[:, _WHICH].astype(int)
        thing = scene.pick(sim, scene.objects(sim)[0], which)
        touch = scene.pick(sim, scene.touched(sim), which)
        grasp, risen = held(touch), thing[:, 2] - _HALF
        return which, thing, touch, grasp, risen, grasp & (risen > _UP) & still(sim, which, 0.1)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the tool is at the cube; `risen`: that is as high as asked; both in [0, 1]."""
        _, thing, _, grasp, risen, done = self._judge(sim)
        risen = np.clip(risen / _UP, 0, 1)
        return {"near": scene.nearness(sim, thing), "grasp": grasp, "risen": risen, "done": done}

    @staticmethod
    def pay(near, grasp, risen, done) -> np.ndarray:
        return np.where(done, 1.0, 0.2 * near + grasp * (0.1 + 0.6 * risen))

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Carries the object to a place in the air above the one where it is."""
        _, thing, _, grasp, _, _ = self._judge(sim)
        goal = thing - [0, 0, 1]  # never reached, so it is never let go
        place, jaws = move(sim, self.body, thing, grasp, goal, np.zeros(sim.n, bool))
        place[:, 2] = np.where(grasp, _HALF + _UP + 0.04, place[:, 2])
        return self.control.aim(sim, place, jaws, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which, _, touch, grasp, risen, done = self._judge(sim)
        subtask = np.select([done, grasp & (risen > 0.01), touch.any(1)], [3, 2, 1], 0)
        return {
            "subtask": subtask.astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }


class Stack(Task):
    """Set the named cube on the other named one; success once it stands there, let go and still.

    `objects` (n, 60): as Lift's, of the named cube and the other that is moved, then of the named
    base and the other base.
    """

    control_dt = 0.1
    time_limit = 9.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "done")
    phrases = ("stack {} on {}", "put {} on top of {}", "build a tower of {} on {}")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=8)
        for name in _CUBES:
            scene.add_object(s, name, "cube", _HALF, mass=0.1)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        which, base, phrase, form = _lay(sim, i, rng, _CUBES)
        which, base = int(2 * which), int(2 * base)
        looks = rng.permutation(len(NAMES))[: len(_CUBES)]
        if self.grammar.split != "all":  # splits know three colours of cubes: two look alike
            said, onto, other = self.grammar.colours(rng, ("cube",) * 3, [0, 1], distinct=True)
            looks[:] = other
            looks[[which, 2 + base]] = said, onto
        scene.paint(sim, i, _CUBES, looks)
        phrase = self.grammar.phrase(phrase, len(self.phrases))
        sim.userdata[i] = [which, base, phrase, int(2 * form), *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, base, phrase, form, *colours = sim.userdata[i].astype(int)
        looks = [(NAMES[c], "cube") for c in colours]
        return self.phrases[phrase].format(refer(which, looks, form), refer(2 + base, looks, 0))

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        which, base = sim.userdata[:, _WHICH].astype(int), sim.userdata[:, _BASE].astype(int)
        named = np.concatenate([scene.order(which, 2), 2 + scene.order(base, 2)], 1)
        seen = things(sim)[sim.rows[:, None], named]
        return {"proprio": scene.proprio(sim, self.body), "objects": seen.reshape(sim.n, -1)}

    def _judge(self, sim: Sim):
        which, base = sim.userdata[:, _WHICH].astype(int), sim.userdata[:, _BASE].astype(int)
        places = scene.objects(sim)[0]
        thing, below = scene.pick(sim, places, which), scene.pick(sim, places, 2 + base)
        touch = scene.pick(sim, scene.touched(sim), which)
        gap = distance(thing[:, :2], below[:, :2])
        up = np.abs(thing[:, 2] - below[:, 2] - 2 * _HALF) < 0.004
        stands = up & (gap < _HALF) & (below[:, 2] < _HALF + 0.004)
        return which, thing, below, touch, gap, stands & ~touch.any(1)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        which, thing, _, touch, gap, placed = self._judge(sim)
        return {
            "near": scene.nearness(sim, thing),
            "there": tolerance(gap, high=0.01, margin=0.3, shape="long_tail"),
            "grasp": held(touch),
            "lifted": thing[:, 2] > 2 * _HALF,
            "placed": placed,
            "still": still(sim, which),
        }

    @staticmethod
    def pay(near, there, grasp, lifted, placed, still) -> np.ndarray:
        paid = 0.2 * near + grasp * (0.1 + lifted * (0.1 + 0.5 * there))
        return np.where(placed, np.where(still, 1.0, 0.95), paid)

    def success(self, sim: Sim) -> np.ndarray:
        which, *_, placed = self._judge(sim)
        return placed & still(sim, which)

    def expert(self, sim: Sim) -> np.ndarray | None:
        _, thing, below, touch, _, placed = self._judge(sim)
        goal = below + _ONTO
        place, jaws = move(sim, self.body, thing, held(touch), goal, placed)
        return self.control.aim(sim, place, jaws, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which, thing, _, touch, _, _ = self._judge(sim)
        carried = held(touch) & (thing[:, 2] > _HALF + 0.01)
        subtask = np.select([self.success(sim), carried, touch.any(1)], [3, 2, 1], 0)
        return {
            "subtask": subtask.astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }
