"""Push and PickPlace: bring the object that the words name to the disc that they name."""

from __future__ import annotations

import mujoco
import numpy as np

from ..robots.body import Body
from . import carry, scene
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .splits import Grammar
from .task import Task

_OBJECTS = ("cube", "cylinder")
_DISCS = ("disc", "disc2")
_HALF = 0.02  # m: half size of an object
_OBJECT, _DISC = 0, 1  # in userdata; then phrase, form of words, colours of objects and discs
_HOVER = 0.12  # m above the table: clear of everything on it


def _spec(body: Body) -> mujoco.MjSpec:
    s = scene.tabletop(body, memory=8)
    for disc in _DISCS:
        scene.add_disc(s, disc, 0.045)
    for shape in _OBJECTS:
        scene.add_object(s, shape, shape, _HALF, mass=0.1)
    return scene.finish(s, body)


def _reset(sim: Sim, i: int, rng: np.random.Generator, phrases: int, grammar: Grammar) -> None:
    spots = scene.scatter(rng, 4, (0.31, -0.19), (0.49, 0.19), apart=0.11)
    yaw, mass, colours, choices = rng.random((4, 4)).tolist()  # one draw: calls cost the most
    for k, name in enumerate(_OBJECTS):
        scene.place(sim, i, k, spots[k], 0.8 * yaw[k] - 0.4)
        scene.weigh(sim, i, name, 0.5 + 1.5 * mass[k])
    sim.mocap_pos[i, 1:3, :2] = spots[2:]
    looks = [int(len(NAMES) * c) for c in colours]
    looks[3] = (looks[2] + 1 + int((len(NAMES) - 1) * colours[3])) % len(NAMES)  # discs differ
    which, disc = int(2 * choices[0]), int(2 * choices[1])
    looks = grammar.colours(rng, (*_OBJECTS, "disc", "disc"), [which, 2 + disc], drawn=looks)
    scene.paint(sim, i, (*_OBJECTS, *_DISCS), looks)
    said = grammar.phrase(choices[2], phrases), grammar.form(choices[3])
    sim.userdata[i] = [which, disc, *said, *looks]


def _words(sim: Sim, i: int, phrases: tuple[str, ...]) -> str:
    which, disc, phrase, form, *colours = sim.userdata[i].astype(int)
    looks = [NAMES[c] for c in colours]
    thing = refer(which, list(zip(looks[:2], _OBJECTS, strict=True)), form)
    spot = refer(disc, [(look, "disc") for look in looks[2:]], form=0)
    return phrases[phrase].format(thing, spot)


def _named(sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which object is named (n,), its position (n, 3) and the named disc's (n, 3)."""
    which = sim.userdata[:, _OBJECT].astype(int)
    spot = scene.pick(sim, sim.mocap_pos[:, 1:3], sim.userdata[:, _DISC].astype(int))
    return which, scene.pick(sim, scene.objects(sim)[0], which), spot


def _observe(sim: Sim, body: Body) -> dict[str, np.ndarray]:
    places, axes, speeds = scene.objects(sim)
    which, disc = sim.userdata[:, _OBJECT].astype(int), sim.userdata[:, _DISC].astype(int)
    rows, tip = sim.rows[:, None], sim.site("tcp")[:, None]
    things = np.concatenate([places, places - tip, axes, speeds], 2)
    things = things[rows, scene.order(which, 2)]
    spots = sim.mocap_pos[:, 1:3][rows, scene.order(disc, 2)]
    spots = np.concatenate([spots, spots - things[:, :1, :3]], 2)
    flat = [things.reshape(sim.n, -1), spots.reshape(sim.n, -1)]
    return {"proprio": scene.proprio(sim, body), "objects": np.concatenate(flat, 1)}


class Push(Task):
    """Slide the named object onto the named disc; success within 3 cm of its centre.

    `objects` (n, 42): the named object's place, place seen from the tool (m), two axes and
    velocity (m/s), the other's; the named disc's place and place seen from the object, the other's.
    """

    control_dt = 0.1
    time_limit = 10.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "push", "done")
    phrases = ("push {} to {}", "slide {} onto {}", "move {} over to {}")

    def spec(self) -> mujoco.MjSpec:
        return _spec(self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _reset(sim, i, rng, len(self.phrases), self.grammar)

    def instruction(self, sim: Sim, i: int) -> str:
        return _words(sim, i, self.phrases)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return _observe(sim, self.body)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the tool is at the object; `there`: the object is at the disc; both in [0, 1]."""
        _, thing, spot = _named(sim)
        near = scene.nearness(sim, thing, high=0.04)
        there = tolerance(
            distance(thing[:, :2], spot[:, :2]), high=0.02, margin=0.25, shape="long_tail"
        )
        return {"near": near, "there": there}

    @staticmethod
    def pay(near, there) -> np.ndarray:
        return 0.2 * near * (1 - there) + there * (0.8 + 0.2 * there)

    def success(self, sim: Sim) -> np.ndarray:
        _, thing, spot = _named(sim)
        down = thing[:, 2] < _HALF + 0.01  # held above the disc, it is not there
        return (distance(thing[:, :2], spot[:, :2]) < 0.03) & down

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Gets behind the object, seen from the disc, and pushes along the line between them."""
        which, thing, spot = _named(sim)
        other = scene.pick(sim, scene.objects(sim)[0], 1 - which)
        tip, low, closed = sim.site("tcp").copy(), _HALF * 0.9, scene.jaws(sim)
        closed *= np.abs(closed).max(1, keepdims=True) > 0.004  # others than one-sided jaws lag
        tip[:, :2] += closed
        gap = distance(thing[:, :2], spot[:, :2])
        along = (spot[:, :2] - thing[:, :2]) / np.maximum(gap, 1e-6)[:, None]
        away = tip[:, :2] - thing[:, :2]
        depth = np.einsum("ij,ij->i", away, along)
        aside = np.abs(away[:, 0] * along[:, 1] - away[:, 1] * along[:, 0])
        start = thing[:, :2] - 0.07 * along
        base = distance(start, np.array(self.body.mount[:2]))  # no arm reaches its own foot
        blocked = (distance(start, other[:, :2]) < 0.05) | (base < 0.1)
        start = thing[:, :2] - np.where(blocked, 0.047, 0.07)[:, None] * along
        behind = distance(tip[:, :2], start)
        down = tip[:, 2] < 0.045
        push = thing[:, :2] + along * (self.body.pace * np.minimum(0.015, gap) - 0.033)[:, None]
        case = [
            gap < 0.012,
            down & (depth < -0.02) & (aside < 0.02),
            behind < 0.015,
            tip[:, 2] < _HOVER - 0.03,
        ]
        xy = np.select([c[:, None] for c in case], [tip[:, :2], push, start, tip[:, :2]], start)
        z = np.select(case, [_HOVER, low, low, _HOVER], _HOVER)
        goal = np.concatenate([xy - closed, z[:, None]], 1)
        return self.control.aim(sim, goal, jaws=-1.0, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which, thing, _ = _named(sim)
        done = self.success(sim)
        touch = scene.pick(sim, scene.touched(sim), which)
        pushing = touch.any(1) | (distance(sim.site("tcp"), thing) < 0.05)
        return {
            "subtask": np.select([done, pushing], [2, 1], 0).astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }


class PickPlace(Task):
    """Pick the named object up and set it down on the named disc; success once it rests there.

    Success: within 3.5 cm of the disc's centre, on the table, and let go. `objects` is Push's.
    """

    control_dt = 0.1
    time_limit = 8.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "done")
    phrases = ("put {} on {}", "pick up {} and place it on {}", "set {} down on {}")

    def spec(self) -> mujoco.MjSpec:
        return _spec(self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        _reset(sim, i, rng, len(self.phrases), self.grammar)

    def instruction(self, sim: Sim, i: int) -> str:
        return _words(sim, i, self.phrases)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return _observe(sim, self.body)

    def _judge(self, sim: Sim):
        which, thing, spot = _named(sim)
        left, right = scene.pick(sim, scene.touched(sim), which).T
        gap = distance(thing[:, :2], spot[:, :2])
        down = thing[:, 2] < _HALF + 0.006
        placed = (gap < 0.035) & down & ~(left | right)
        return thing, spot, left & right, gap, down, placed

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`, `there`, as Push's; `grasp`, `lifted`, `placed`: 0 or 1."""
        thing, _, grasp, gap, _, placed = self._judge(sim)
        return carry.terms(sim, thing, gap, grasp, thing[:, 2] > _HALF + 0.02, placed)

    pay = staticmethod(carry.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Hovers, descends, grasps, lifts, carries, lowers and lets go, by what it sees now."""
        thing, spot, grasp, gap, down, _ = self._judge(sim)
        tip = sim.site("tcp")
        aside = distance(tip[:, :2], thing[:, :2])
        at_spot = gap < 0.015
        placed = down & (gap < 0.03)
        lifted = thing[:, 2] > _HOVER - 0.05
        carry = tip[:, :2] + spot[:, :2] - thing[:, :2]
        lower = tip[:, 2] + _HALF + 0.001 - thing[:, 2]
        case = [
            placed & (scene.opening(sim, self.body) < 0.75),
            placed,
            grasp & at_spot,
            grasp & lifted,
            grasp,
            (aside < 0.012) & (tip[:, 2] < thing[:, 2] + 0.008),
            aside < 0.012,
        ]
        flat = [c[:, None] for c in case]
        here, above = tip[:, :2], thing[:, :2]
        xy = np.select(flat, [here, here, carry, carry, here, above, above], above)
        height = thing[:, 2]
        z = np.select(case, [tip[:, 2], _HOVER, lower, _HOVER, _HOVER, height, height], _HOVER)
        jaws = np.select(case, [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0], 1.0)
        return self.control.aim(sim, np.concatenate([xy, z[:, None]], 1), jaws, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        thing, *_, placed = self._judge(sim)
        which = sim.userdata[:, _OBJECT].astype(int)
        touch = scene.pick(sim, scene.touched(sim), which)
        carried = touch.all(1) & (thing[:, 2] > _HALF + 0.01)
        return {
            "subtask": np.select([placed, carried, touch.any(1)], [3, 2, 1], 0).astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }
