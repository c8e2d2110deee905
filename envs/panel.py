"""Button and Dial: press the button, turn the dial, that the words name."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import furniture, hand, scene
from .language import NAMES, refer
from .rewards import distance
from .sim import Sim
from .task import Task

_BUTTONS = ("button", "button2", "button3")
_PRESS = ("press {}", "push {} down", "hit {}")
_DOWN = 0.8 * furniture.TRAVEL  # m: beyond it a button is pressed
_DIALS = ("dial", "dial2")
_TURN = ("turn {} to the {}", "point {} to the {}", "set {} to the {}")
_MARKS = {"left": math.pi / 2, "back": 0.0, "right": -math.pi / 2}  # rad, as in `language`
_ANGLES = np.array(list(_MARKS.values()))
_NEAR = 0.15  # rad from a mark that a dial points at it
_WHICH, _MARK = 0, 1  # in userdata; then phrase, form of words, the colours (a button: no mark)


class Button(Task):
    """Press the named one of three buttons, of which only one stays down: pressing lets others up.

    `objects` (n, 24): of each button, the named one first, its top's place and place seen from the
    tool (m), how far it is down (m) and its velocity (m/s).
    """

    control_dt = 0.1
    time_limit = 5.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "press", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=6)
        for name in _BUTTONS:
            furniture.add_button(s, name)
        furniture.interlock(s, _BUTTONS)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 3, (0.33, -0.19), (0.50, 0.19), apart=0.12)
        for name, spot in zip(_BUTTONS, spots, strict=True):
            furniture.stand_at(sim, i, f"{name}-stand", spot)
        colours = rng.permutation(len(NAMES))[:3].tolist()
        which, phrase, form = rng.random(3)
        which = int(3 * which)
        colours = self.grammar.colours(rng, ("button",) * 3, [which], drawn=colours)
        furniture.paint(sim, i, _BUTTONS, colours)
        sim.userdata[i] = [which, self.grammar.phrase(phrase, 3), int(2 * form), *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *colours = sim.userdata[i].astype(int)
        return _PRESS[phrase].format(refer(which, [(NAMES[c], "button") for c in colours], form))

    def _named(self, sim: Sim):
        """Returns the named button's top (n, 3), the fingers on it (n, 2), how far it is down
        (n,) and whether it is pressed (n,)."""
        which = sim.userdata[:, _WHICH].astype(int)
        top = scene.pick(sim, furniture.sites(sim, _BUTTONS), which)
        down = furniture.joints(sim, _BUTTONS)[0][sim.rows, which]
        return top, scene.pick(sim, scene.touched(sim), which), down, down > _DOWN

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        each = furniture.seen(sim, _BUTTONS)
        each = each[sim.rows[:, None], scene.order(sim.userdata[:, _WHICH].astype(int), 3)]
        return {"proprio": scene.proprio(sim, self.body), "objects": each.reshape(sim.n, -1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the tool is at the button, in [0, 1]; `down`: how far that is pressed (m)."""
        top, _, down, done = self._named(sim)
        return {"near": scene.nearness(sim, top), "down": down, "done": done}

    @staticmethod
    def pay(near, down, done) -> np.ndarray:
        return np.where(done, 1.0, 0.5 * near + 0.4 * down / furniture.TRAVEL)

    def success(self, sim: Sim) -> np.ndarray:
        return self._named(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Closes the jaws over the button, goes down until it is pressed, and rises."""
        top, _, down, _ = self._named(sim)
        tip = sim.site("tcp")
        done = down > 0.95 * furniture.TRAVEL
        over = distance(tip[:, :2], top[:, :2]) < 0.012
        xy = np.where(done[:, None], tip[:, :2], top[:, :2])
        z = np.where(over & ~done, tip[:, 2] - 0.03, 0.12)
        return self.control.aim(sim, np.concatenate([xy, z[:, None]], 1), jaws=-1.0, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, touch, _, done = self._named(sim)
        return {
            "subtask": np.select([done, touch.any(1)], [2, 1], 0).astype(np.int32),
            "target": sim.userdata[:, _WHICH].astype(np.int32),
            "contact": touch,
        }


class Dial(Task):
    """Turn the named one of two dials until it points at the named mark: left, right or back.

    `objects` (n, 19): of each dial, the named one first, its handle's place and place seen from
    the tool (m), its angle (rad) and velocity (rad/s); how much farther it should turn (rad), and
    its sine and cosine.
    """

    control_dt = 0.1
    time_limit = 10.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "turn", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=6)
        for name in _DIALS:
            furniture.add_dial(s, name, tuple(_MARKS.values()))
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 2, (0.36, -0.18), (0.48, 0.18), apart=0.19)
        for name, spot in zip(_DIALS, spots, strict=True):
            furniture.stand_at(sim, i, f"{name}-stand", spot)
            side, off = rng.random(2).tolist()  # each begins between two marks
            sim.joint(name)[i] = (math.pi / 4 + 0.4 * (off - 0.5)) * (1 if side < 0.5 else -1)
        colours = rng.permutation(len(NAMES))[:2].tolist()
        which, mark, phrase, form = rng.random(4)
        which = int(2 * which)
        colours = self.grammar.colours(rng, ("dial", "dial"), [which], drawn=colours)
        furniture.paint(sim, i, _DIALS, colours)
        said = int(3 * mark), self.grammar.phrase(phrase, 3), int(2 * form)
        sim.userdata[i] = [which, *said, *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        which, mark, phrase, form, *colours = sim.userdata[i].astype(int)
        thing = refer(which, [(NAMES[c], "dial") for c in colours], form)
        return _TURN[phrase].format(thing, list(_MARKS)[mark])

    def _named(self, sim: Sim):
        """Returns the named dial's handle (n, 3), the fingers on it (n, 2), how much farther it
        should turn (n,) and whether it is at the mark (n,)."""
        which = sim.userdata[:, _WHICH].astype(int)
        handle = scene.pick(sim, furniture.sites(sim, _DIALS), which)
        angle = furniture.joints(sim, _DIALS)[0][sim.rows, which]
        lacks = _ANGLES[sim.userdata[:, _MARK].astype(int)] - angle
        return handle, scene.pick(sim, scene.touched(sim), which), lacks, np.abs(lacks) < _NEAR

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        each = furniture.seen(sim, _DIALS)
        each = each[sim.rows[:, None], scene.order(sim.userdata[:, _WHICH].astype(int), 2)]
        flat = [each.reshape(sim.n, -1), self._named(sim)[2][:, None]]
        return {"proprio": scene.proprio(sim, self.body), "objects": np.concatenate(flat, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        handle, touch, lacks, done = self._named(sim)
        return hand.terms(sim, handle, touch, 1 - np.abs(lacks) / math.pi, done)

    pay = staticmethod(hand.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return self._named(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Takes the pointer by its handle and leads it around."""
        handle, touch, lacks, _ = self._named(sim)
        which = sim.userdata[:, _WHICH].astype(int)
        pivot = np.stack([sim.body(name) for name in _DIALS], 1)[sim.rows, which]
        goal = furniture.swung(handle, pivot, np.clip(lacks, -0.5, 0.5))
        done = np.abs(lacks) < 0.08
        return hand.lead(sim, self.body, self.control, handle, touch, goal, done)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, touch, _, done = self._named(sim)
        return {
            "subtask": np.select([done, touch.any(1)], [2, 1], 0).astype(np.int32),
            "target": sim.userdata[:, _WHICH].astype(np.int32),
            "contact": touch,
        }
