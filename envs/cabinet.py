"""Drawer and Door: open or close, by its handle, what the words name."""

from __future__ import annotations

import mujoco
import numpy as np

from . import furniture, hand, scene
from .language import NAMES, refer
from .sim import Sim
from .task import Task

_DRAWERS = ("drawer", "drawer2", "drawer3")
_DOORS = ("door", "door2")
_PHRASES = (
    ("open {}", "pull {} open", "pull {} out"),
    ("close {}", "push {} shut", "shut {}"),
)
_WHICH, _VERB = 0, 1  # in userdata; then phrase, form of words, the colours (a door: no verb)
_SWING = ("open {}", "pull {} open", "swing {} open")
_WIDE = 1.0  # rad: beyond it a door is open
_AXIS = [0, 3, 6]  # of a rotation matrix, row by row: its first column


def _steps(done, touch) -> np.ndarray:
    return np.select([done, touch.any(1)], [2, 1], 0).astype(np.int32)


class Drawer(Task):
    """Open or close the named one of three drawers; all begin ajar, so that the words decide.

    `objects` (n, 25): of each drawer, the named one first, its handle's place and place seen from
    the tool (m), how far it is out (m) and its velocity (m/s); how much farther out is asked for.
    """

    control_dt = 0.1
    time_limit = 6.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "move", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=7)
        furniture.add_drawers(s, furniture.add_stand(s, "chest"), _DRAWERS)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        x, y, yaw, *out = rng.random(6).tolist()
        furniture.stand_at(sim, i, "chest", (0.53 + 0.03 * x, 0.04 * y - 0.02), 0.2 * yaw - 0.1)
        for name, q in zip(_DRAWERS, out, strict=True):
            sim.joint(name)[i] = 0.035 + 0.03 * q
        colours = rng.permutation(len(NAMES))[:3].tolist()
        which, verb, phrase, form = rng.random(4)
        which, shapes = int(3 * which), ("drawer",) * 3
        colours = self.grammar.colours(rng, shapes, [which], drawn=colours)
        furniture.paint(sim, i, _DRAWERS, colours)
        said = int(2 * verb), self.grammar.phrase(phrase, 3), int(2 * form)
        sim.userdata[i] = [which, *said, *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        which, verb, phrase, form, *colours = sim.userdata[i].astype(int)
        things = [(NAMES[c], "drawer") for c in colours]
        return _PHRASES[verb][phrase].format(refer(which, things, form))

    def _named(self, sim: Sim):
        """Returns the named drawer's handle (n, 3), the fingers on it (n, 2), how much farther out
        it should be (n,) and whether it is as asked (n,)."""
        which = sim.userdata[:, _WHICH].astype(int)
        shut = sim.userdata[:, _VERB] == 1
        out = furniture.joints(sim, _DRAWERS)[0][sim.rows, which]
        handle = scene.pick(sim, furniture.sites(sim, _DRAWERS), which)
        lacks = np.where(shut, 0.0, furniture.SLIDE) - out
        touch = scene.pick(sim, scene.touched(sim), which)
        return handle, touch, lacks, np.abs(lacks) < 0.01

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        each = furniture.seen(sim, _DRAWERS)
        each = each[sim.rows[:, None], scene.order(sim.userdata[:, _WHICH].astype(int), 3)]
        flat = [each.reshape(sim.n, -1), self._named(sim)[2][:, None]]
        return {"proprio": scene.proprio(sim, self.body), "objects": np.concatenate(flat, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        handle, touch, lacks, done = self._named(sim)
        return hand.terms(sim, handle, touch, 1 - np.abs(lacks) / furniture.SLIDE, done)

    pay = staticmethod(hand.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return self._named(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Takes the handle and leads it along the way that the drawer goes."""
        handle, touch, lacks, _ = self._named(sim)
        outwards = -sim.turn("chest")[:, _AXIS]
        goal = handle + outwards * lacks[:, None]
        done = np.abs(lacks) < 0.005
        return hand.lead(sim, self.body, self.control, handle, touch, goal, done)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, touch, _, done = self._named(sim)
        which = sim.userdata[:, _WHICH].astype(np.int32)
        return {"subtask": _steps(done, touch), "target": which, "contact": touch}


class Door(Task):
    """Open the named one of two doors of a cupboard, beyond 57 degrees; both begin all but shut.

    `objects` (n, 17): of each door, the named one first, its handle's place and place seen from
    the tool (m), its angle (rad) and velocity (rad/s); how much farther it should open (rad).
    """

    control_dt = 0.1
    time_limit = 8.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("approach", "move", "done")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=5)
        furniture.add_doors(s, furniture.add_stand(s, "cupboard"), _DOORS)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        x, y, yaw, *ajar = rng.random(5).tolist()
        furniture.stand_at(sim, i, "cupboard", (0.50 + 0.03 * x, 0.04 * y - 0.02), 0.2 * yaw - 0.1)
        for name, q in zip(_DOORS, ajar, strict=True):
            sim.joint(name)[i] = 0.1 * q
        colours = rng.permutation(len(NAMES))[:2].tolist()
        which, phrase, form = rng.random(3)
        which = int(2 * which)
        colours = self.grammar.colours(rng, ("door", "door"), [which], drawn=colours)
        furniture.paint(sim, i, _DOORS, colours)
        sim.userdata[i] = [which, self.grammar.phrase(phrase, 3), int(2 * form), *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *colours = sim.userdata[i].astype(int)
        return _SWING[phrase].format(refer(which, [(NAMES[c], "door") for c in colours], form))

    def _named(self, sim: Sim):
        """Returns the named door's handle (n, 3), the fingers on it (n, 2), how much farther it
        should open (n,) and whether it is open (n,)."""
        which = sim.userdata[:, _WHICH].astype(int)
        handle = scene.pick(sim, furniture.sites(sim, _DOORS), which)
        lacks = _WIDE - furniture.joints(sim, _DOORS)[0][sim.rows, which]
        return handle, scene.pick(sim, scene.touched(sim), which), lacks, lacks < 0

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        each = furniture.seen(sim, _DOORS)
        each = each[sim.rows[:, None], scene.order(sim.userdata[:, _WHICH].astype(int), 2)]
        flat = [each.reshape(sim.n, -1), self._named(sim)[2][:, None]]
        return {"proprio": scene.proprio(sim, self.body), "objects": np.concatenate(flat, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        handle, touch, lacks, done = self._named(sim)
        return hand.terms(sim, handle, touch, 1 - lacks / _WIDE, done)

    pay = staticmethod(hand.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return self._named(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Takes the handle and leads it around the hinge."""
        handle, touch, lacks, _ = self._named(sim)
        which = sim.userdata[:, _WHICH].astype(int)
        hinge = np.stack([sim.body(name) for name in _DOORS], 1)[sim.rows, which]
        step = np.clip(lacks + 0.2, 0, 0.2) * np.where(which == 0, -1, 1)
        goal = furniture.swung(handle, hinge, step)
        return hand.lead(sim, self.body, self.control, handle, touch, goal, lacks < -0.1)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, touch, _, done = self._named(sim)
        which = sim.userdata[:, _WHICH].astype(np.int32)
        return {"subtask": _steps(done, touch), "target": which, "contact": touch}
