"""Arrange: put the object that the words name beside another one, on the side that they say."""

from __future__ import annotations

import mujoco
import numpy as np

from . import carry, scene
from .carry import held, move, things
from .language import NAMES, RELATIONS, VERBS, refer
from .relations import HOLDS
from .rewards import distance
from .sim import Sim
from .task import Task

_THINGS = ("cube", "cylinder", "cube2", "cylinder2")  # two to be moved, two landmarks
_HALF = 0.02  # m: half size of an object
_WHICH, _MARK, _SIDE = 0, 1, 2  # in userdata; then phrase, form of words, colours
_SIDES = ("left of", "right of", "in front of", "behind")
_WAY = np.array([[0, 1, 0], [0, -1, 0], [-1, 0, 0], [1, 0, 0]])  # of the sides
_APART, _NEAR = 0.095, 0.14  # m between centres: where the expert puts it; beside is within


def _sides(thing: np.ndarray, mark: np.ndarray) -> np.ndarray:
    """Returns `(n, 4)` bool: on which of `_SIDES` of the mark the thing is; both `(n, 3)` m."""
    return np.stack([HOLDS[side]((thing, _HALF), (mark, _HALF)) for side in _SIDES], 1)


class Arrange(Task):
    """Put the named object beside the named landmark, left, right, in front or behind.

    Sides are the robot's own (`relations`); success: the relation holds within 14 cm, the object
    lies on the table, let go. `objects` (n, 66): of the named object, the other one, the named
    landmark and the other, place, place seen from the tool (m), two axes and velocity (m/s); then
    the side asked for, a direction, and the way from the object to there (m).
    """

    control_dt = 0.1
    time_limit = 9.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=9)
        for name in _THINGS:
            scene.add_object(s, name, name.rstrip("2"), _HALF, mass=0.1)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        x, y, yaw, mass, choices = rng.random((5, 4)).tolist()
        far, left = int(rng.integers(2)), int(rng.integers(2))
        spots = np.empty((4, 3))
        for k, name in enumerate(_THINGS):
            if k < 2:  # in the middle, one near and one far
                spots[k] = 0.28 + 0.05 * x[k] + 0.19 * (k == far), 0.07 * y[k] - 0.035, _HALF
            else:  # landmarks, with room around them, one left and one right
                side = 1 if (k == 2) == left else -1
                spots[k] = 0.37 + 0.06 * x[k], side * (0.13 + 0.03 * y[k]), _HALF
            scene.place(sim, i, k, spots[k, :2], 0.8 * yaw[k] - 0.4)
            scene.weigh(sim, i, name, 0.5 + 1.5 * mass[k])
        which, mark, form = (int(k * c) for k, c in zip((2, 2, 2), choices[:3], strict=True))
        open_sides = np.flatnonzero(~_sides(spots[None, which], spots[None, 2 + mark])[0])
        side = open_sides[int(len(open_sides) * choices[3])]  # where it is not already
        looks, shapes = rng.permutation(len(NAMES))[:4], [s.rstrip("2") for s in _THINGS]
        phrase = self.grammar.phrase(
            (rng.integers(len(VERBS["arrange"])) + 0.5) / len(VERBS["arrange"]),
            len(VERBS["arrange"]),
        )
        named = [which, 2 + mark]
        looks = self.grammar.colours(rng, shapes, named, drawn=looks, distinct=True)
        scene.paint(sim, i, _THINGS, looks)
        sim.userdata[i] = [which, mark, side, phrase, form, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, mark, side, phrase, form, *colours = sim.userdata[i].astype(int)
        looks = [(NAMES[c], s.rstrip("2")) for c, s in zip(colours, _THINGS, strict=True)]
        where = f"{RELATIONS[_SIDES[side]][form]} {refer(2 + mark, looks, 0)}"
        return VERBS["arrange"][phrase].format(refer(which, looks, form), where)

    def _judge(self, sim: Sim):
        which, mark, side = sim.userdata[:, :3].astype(int).T
        places = scene.objects(sim)[0]
        thing, place = scene.pick(sim, places, which), scene.pick(sim, places, 2 + mark)
        touch = scene.pick(sim, scene.touched(sim), which)
        goal = place + _APART * _WAY[side]
        holds = _sides(thing, place)[sim.rows, side]
        beside = holds & (distance(thing[:, :2], place[:, :2]) < _NEAR)
        placed = beside & (thing[:, 2] < _HALF + 0.004) & ~touch.any(1)
        return which, thing, touch, goal, placed

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        which, mark, side = sim.userdata[:, :3].astype(int).T
        _, thing, _, goal, _ = self._judge(sim)
        named = np.concatenate([scene.order(which, 2), 2 + scene.order(mark, 2)], 1)
        seen = things(sim)[sim.rows[:, None], named].reshape(sim.n, -1)
        objects = np.concatenate([seen, _WAY[side], goal - thing], 1)
        return {"proprio": scene.proprio(sim, self.body), "objects": objects}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        _, thing, touch, goal, placed = self._judge(sim)
        gap, lifted = distance(thing[:, :2], goal[:, :2]), thing[:, 2] > _HALF + 0.02
        return carry.terms(sim, thing, gap, held(touch), lifted, placed)

    pay = staticmethod(carry.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        _, thing, touch, goal, placed = self._judge(sim)
        goal[:, 2] = _HALF + 0.001
        place, jaws = move(sim, self.body, thing, held(touch), goal, placed)
        return self.control.aim(sim, place, jaws, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which, thing, touch, _, placed = self._judge(sim)
        carried = held(touch) & (thing[:, 2] > _HALF + 0.01)
        return {
            "subtask": np.select([placed, carried, touch.any(1)], [3, 2, 1], 0).astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }
