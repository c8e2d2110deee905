"""Sort and Tidy: thing after thing into the bins that the words mean, or out of one."""

from __future__ import annotations

import mujoco
import numpy as np

from ..robots.body import Body
from . import scene, vessels
from .carry import HOVER, held, move, things
from .control import Control
from .furniture import paint
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_HALF = 0.02  # m: half size of an object
_INSIDE, _WALLS = (0.075, 0.07), 0.035  # m: half width of a bin inside, its height
_DROP = _HALF + 2 * vessels.WALL + 0.01  # m: how high a thing's centre is let go in a bin
_OUTSIDE = (0.10, 0.10)  # m: farther than this from its middle along x or y a thing is outside
_SLOTS = np.array([[-0.045, 0, _DROP], [0, 0, _DROP], [0.045, 0, _DROP]])  # m, seen from the bin
_BINS = ("bin", "bin2")
_SORTED = ("cube", "cylinder", "cube2")
_SHAPED = np.array([0, 1, 0])  # bins by shape
# Bins by own colour: each of the rules means something else with any of these.
_PATTERNS = ((0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 0))
_RULES = (
    ("sort the things by colour", "put each thing into the bin of its own colour"),
    ("sort the things against colour", "put each thing into the bin of the other colour"),
    ("put the cubes into {} and the cylinder into {}", "bring cubes to {}, cylinders to {}"),
)
_WORK = 3  # things to be moved, in either task
_TIDIED = ("cylinder2", "cube", "cylinder", "cube2")  # the first lies in the bin


def _lay(sim: Sim, i: int, which: int, name: str, xy, draws) -> None:
    """Puts object number `which` of row i somewhere, turned and as heavy as two draws say."""
    scene.place(sim, i, which, xy, 0.8 * draws[0] - 0.4)
    scene.weigh(sim, i, name, 0.5 + 1.5 * draws[1])


def _state(sim: Sim, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is there and let go `(n, k)`, what is in the hand `(n, k)`, whose turn it is.

    there: which things are where they belong (n, k). It is the turn (n,) of what is in the hand,
    then of the first that is not done.
    """
    touch = scene.touched(sim)
    done, grasp = there & ~touch.any(2), held(touch)
    return done, grasp, np.argmax(np.where(done, 0, np.where(grasp, 2, 1)), 1)


def _terms(sim: Sim, goals: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    """Returns `near`, `there`, `grasp` and `lifted` of the thing whose turn it is, and `ready`: how
    many of the last `_WORK` things are done."""
    done, grasp, turn = _state(sim, there)
    thing, goal = scene.pick(sim, scene.objects(sim)[0], turn), scene.pick(sim, goals, turn)
    gap = distance(thing[:, :2], goal[:, :2])
    return {
        "near": scene.nearness(sim, thing),
        "there": tolerance(gap, high=0.01, margin=0.3, shape="long_tail"),
        "grasp": grasp[sim.rows, turn],
        "lifted": thing[:, 2] > 2 * _HALF,
        "ready": done.sum(1) - (done.shape[1] - _WORK),
    }


def _pay(near, there, grasp, lifted, ready) -> np.ndarray:
    part = 0.2 * near + grasp * (0.1 + lifted * (0.1 + 0.5 * there))
    return np.where(ready == _WORK, 1.0, 0.95 * (np.clip(ready + part, 0, _WORK) / _WORK))


def _wide(body: Body) -> float:
    """Returns how far jaws open: those that swing would reach over a bin's wall beside a thing."""
    return 0.45 if body.jaws[1] - body.jaws[0] > 0.5 else 1.0


def _script(sim: Sim, body: Body, control: Control, goals, there) -> np.ndarray | None:
    _, grasp, turn = _state(sim, there)
    thing = scene.pick(sim, scene.objects(sim)[0], turn)
    goal, rows = scene.pick(sim, goals, turn), sim.rows
    place, jaws = move(sim, body, thing, grasp[rows, turn], goal, there[rows, turn], _wide(body))
    # a light arm, which is slow over the table, makes up for it on the way
    tip = sim.site("tcp")
    way = (tip[:, 2] > HOVER - 0.04) & (distance(place[:, :2], tip[:, :2]) > 0.04)
    return control.aim(sim, place, jaws, np.where(way, 0.6 / body.pace, 0.6)[:, None])


def _label(sim: Sim, there: np.ndarray) -> dict[str, np.ndarray]:
    done, _, turn = _state(sim, there)
    ready = np.clip(done.sum(1) - (done.shape[1] - _WORK), 0, _WORK)
    return {
        "subtask": ready.astype(np.int32),
        "target": turn.astype(np.int32),
        "contact": scene.pick(sim, scene.touched(sim), turn),
    }


class Sort(Task):
    """Put three things into two bins, by colour, against colour or by shape, as the words say.

    `objects` (n, 60): of each thing place, place seen from the tool (m), two axes, velocity (m/s)
    and the bin where it belongs, seen from it (m); then the places of the bins (m).
    """

    control_dt = 0.1
    time_limit = 15.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("first", "second", "third", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=7)
        for name in _BINS:
            vessels.add_bin(s, name, _INSIDE, _WALLS)
        for name in _SORTED:
            scene.add_object(s, name, name.rstrip("2"), _HALF, mass=0.1)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        looks, slots = rng.permutation(len(NAMES))[:2].tolist(), rng.permutation(3).tolist()
        x, y, turn, mass, bins, (rule, phrase, pattern) = rng.random((6, 3)).tolist()
        looks = self.grammar.colours(rng, ("bin", "bin"), [0, 1], drawn=looks, distinct=True)
        own = _PATTERNS[int(len(_PATTERNS) * pattern)]
        for k, name in enumerate(_SORTED):
            spot = 0.28 + 0.11 * slots[k] + 0.02 * x[k], 0.15 * y[k] - 0.075
            _lay(sim, i, k, name, spot, (turn[k], mass[k]))
        for k, side in enumerate((0.21, -0.21)):
            sim.mocap_pos[i, 1 + k, :2] = 0.38 + 0.04 * bins[k], side
        paint(sim, i, (*_SORTED, *_BINS), [*(looks[k] for k in own), *looks])
        sim.userdata[i] = [int(4 * rule), int(2 * phrase), *own, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        rule, phrase, *_, one, two = sim.userdata[i].astype(int)
        bins = [f"the {NAMES[c]} bin" for c in (one, two)]
        return _RULES[min(rule, 2)][phrase].format(*(bins[::-1] if rule == 3 else bins))

    def _plan(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        """Returns where each thing shall be let go `(n, 3, 3)` in m, and which are in their bin."""
        rule, own = sim.userdata[:, :1].astype(int), sim.userdata[:, 2:5].astype(int)
        bins = np.where(rule == 0, own, np.where(rule == 1, 1 - own, _SHAPED ^ (rule == 3)))
        box = sim.mocap_pos[:, 1:3][sim.rows[:, None], bins]
        return box + _SLOTS, vessels.within(scene.objects(sim)[0], box, _INSIDE, _WALLS)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        seen, goals = things(sim), self._plan(sim)[0] - _SLOTS
        seen = np.concatenate([seen, goals - seen[..., :3]], 2).reshape(sim.n, -1)
        bins = sim.mocap_pos[:, 1:3].reshape(sim.n, -1)
        objects = np.concatenate([seen, bins], 1)
        return {"proprio": scene.proprio(sim, self.body), "objects": objects}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return _terms(sim, *self._plan(sim))

    pay = staticmethod(_pay)

    def success(self, sim: Sim) -> np.ndarray:
        return _state(sim, self._plan(sim)[1])[0].all(1)

    def expert(self, sim: Sim) -> np.ndarray | None:
        return _script(sim, self.body, self.control, *self._plan(sim))

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        return _label(sim, self._plan(sim)[1])


class Tidy(Task):
    """Empty the bin, then put the two named of three things into it; success once all lie still.

    The third thing stays outside, on the table, as does what was in the bin. `objects` (n, 67): of
    each thing place, place seen from the tool (m), two axes, velocity (m/s) and whether it belongs
    in the bin; then the bin's place (m).
    """

    control_dt = 0.1
    time_limit = 17.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("clear", "first", "second", "done")
    phrases = (
        "empty the bin, then put {} and {} into it",
        "clear the bin and then fill it with {} and {}",
        "take out what is in the bin, then put in {} and {}",
    )

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=9)
        vessels.add_bin(s, "bin", _INSIDE, _WALLS)
        for name in _TIDIED:
            scene.add_object(s, name, name.rstrip("2"), _HALF, mass=0.1)
        s.body(_TIDIED[0]).pos[2] += 2 * vessels.WALL  # it lies on the bin's floor
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        free = scene.scatter(rng, 4, (0.29, -0.20), (0.51, 0.05), apart=0.11)
        turn, mass, (out, phrase, form, side), (x, y, dx, dy) = rng.random((4, 4)).tolist()
        way = 1 if side < 0.5 else -1
        box = np.array([0.38 + 0.04 * x, way * (0.205 + 0.01 * y)])
        sim.mocap_pos[i, 1, :2] = box
        free[:, 1] *= way
        spots = [box + 0.02 * np.array([dx - 0.5, dy - 0.5]), *free[:3]]
        looks, out = rng.permutation(len(NAMES))[:4].tolist(), int(3 * out)
        shapes = [name.rstrip("2") for name in _TIDIED]
        named = [k for k in (1, 2, 3) if k != 1 + out]
        looks = self.grammar.colours(rng, shapes, named, drawn=looks, distinct=True)
        for k, name in enumerate(_TIDIED):
            _lay(sim, i, k, name, spots[k], (turn[k], mass[k]))
        paint(sim, i, _TIDIED, looks)
        said = self.grammar.phrase(phrase, len(self.phrases)), self.grammar.form(form)
        sim.userdata[i] = [out, *said, *looks, *free[3]]

    def instruction(self, sim: Sim, i: int) -> str:
        out, phrase, form, *colours = sim.userdata[i, :7].astype(int)
        looks = [(NAMES[c], s.rstrip("2")) for c, s in zip(colours, _TIDIED, strict=True)]
        named = [refer(k, looks, form) for k in (1, 2, 3) if k != 1 + out]
        return self.phrases[phrase].format(*named)

    def _named(self, sim: Sim) -> np.ndarray:
        """Returns `(n, 4)` bool: which things belong in the bin."""
        k = np.arange(4)
        return (k > 0) & (k != 1 + sim.userdata[:, :1])

    def _plan(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        """Returns where each thing shall be let go `(n, 4, 3)` in m, and which are where they
        belong."""
        named, box, places = self._named(sim), sim.mocap_pos[:, 1:2], scene.objects(sim)[0]
        spot = np.concatenate([sim.userdata[:, None, 7:9], np.full((sim.n, 1, 1), _HALF)], 2)
        slot = np.where((np.cumsum(named, 1) == 1)[..., None], _SLOTS[0], _SLOTS[2])
        inside = vessels.within(places, box, _INSIDE, _WALLS)
        away = ~vessels.within(places, box, _OUTSIDE, 1.0) & (places[..., 2] < _HALF + 0.004)
        goals = np.where(named[..., None], box + slot, spot)
        return goals, np.where(named, inside, away)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        seen = np.concatenate([things(sim), self._named(sim)[..., None]], 2)
        objects = np.concatenate([seen.reshape(sim.n, -1), sim.mocap_pos[:, 1]], 1)
        return {"proprio": scene.proprio(sim, self.body), "objects": objects}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return _terms(sim, *self._plan(sim))

    pay = staticmethod(_pay)

    def success(self, sim: Sim) -> np.ndarray:
        return _state(sim, self._plan(sim)[1])[0].all(1)

    def expert(self, sim: Sim) -> np.ndarray | None:
        return _script(sim, self.body, self.control, *self._plan(sim))

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        return _label(sim, self._plan(sim)[1])
