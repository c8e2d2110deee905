"""PointGoal, ObjectGoal and Maze: drive to what the words name, past what is in the way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import mujoco
import numpy as np

from ..robots import rover
from . import drive, maze, scene, yard
from .drive import Drive
from .language import NAMES, refer
from .rewards import distance
from .sim import Sim
from .task import Task

_PHRASES = ("go to {}", "drive to {}", "move over to {}")
_TARGET = 0  # in userdata: which is named, phrase, form of words, then colours
_DISCS = ("disc", "disc2")
_STONES = ("stone", "stone2", "stone3", "stone4")
_THINGS = ("ball", "cube", "cylinder")
_RADIUS = 0.2  # m, of a disc
_CLEAR = 0.40  # m from a thing's middle: its own 0.15, the rover's 0.18 and a margin
_STOP = 0.45  # m from a thing's middle where it stands before it


class _Navigation(Task, ABC):
    """A rover in a walled yard. `proprio` (n, 6): place (m), facing, velocities (m/s, rad/s)."""

    control_dt = 0.1
    control = Drive(rover.FORWARD, rover.TURN)
    camera = "yard"
    subtasks = ("drive", "arrive", "done")
    goals: tuple[str, ...]  # what the words choose from; mocap bodies 0, 1, ...
    noun: tuple[str, ...]
    span: float  # m: the farthest that there is to go

    def _words(self, sim: Sim, i: int, rng: np.random.Generator, looks: list[int]) -> list[int]:
        """Paints row i's goals; returns what opens its userdata."""
        which, phrase, form = rng.random(3).tolist()
        which = int(len(self.goals) * which)
        looks = self.grammar.colours(rng, self.noun, [which], drawn=looks)
        scene.paint(sim, i, self.goals, looks)
        said = self.grammar.phrase(phrase, len(_PHRASES)), self.grammar.form(form)
        return [which, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *looks = sim.userdata[i, : 3 + len(self.goals)].astype(int)
        things = [(NAMES[look], noun) for look, noun in zip(looks, self.noun, strict=True)]
        return _PHRASES[phrase].format(refer(which, things, form))

    def _which(self, sim: Sim) -> np.ndarray:
        return sim.userdata[:, _TARGET].astype(int)

    def _goal(self, sim: Sim) -> np.ndarray:
        """Returns where the named thing is, `(n, 2)` in m."""
        return scene.pick(sim, sim.mocap_pos[:, : len(self.goals), :2], self._which(sim))

    def _seen(self, sim: Sim, things: int) -> np.ndarray:
        """Returns places `(n, 2 things)` as the rover sees them: the named goal's, the others'."""
        seen = drive.places(sim, sim.mocap_pos[:, :things, :2])
        first, count = scene.order(self._which(sim), len(self.goals)), len(self.goals)
        seen = np.concatenate([seen[:, :count][sim.rows[:, None], first], seen[:, count:]], 1)
        return seen.reshape(sim.n, -1)

    @abstractmethod
    def left(self, sim: Sim) -> np.ndarray:
        """Returns how far it is to go `(n,)`, in m."""

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return yard.terms(self.left(sim), self.success(sim), self.span)

    pay = staticmethod(yard.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return (distance(drive.place(sim), self._goal(sim)) < _RADIUS) & drive.resting(sim)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        stage = np.select([self.success(sim), self.left(sim) < 0.3], [2, 1], 0)
        return {"subtask": stage.astype(np.int32), "target": self._which(sim).astype(np.int32)}


class PointGoal(_Navigation):
    """Drive onto the disc that the words name, past four stones; success within 20 cm, standing.

    `objects` (n, 12): places as the rover sees them (m): of the named disc, the other, the stones.
    """

    time_limit = 15.0
    goals = _DISCS
    noun = ("disc", "disc")
    span = 4.5

    def spec(self) -> mujoco.MjSpec:
        s = rover.spec()
        yard.enclose(s, memory=5, half=2.3)
        for disc in _DISCS:
            scene.add_disc(s, disc, _RADIUS)
        for stone in _STONES:
            yard.add_thing(s, stone, "cylinder", (0.12, 0.15, 0))
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 7, (-1.6, -1.6), (1.6, 1.6), apart=0.9)
        drive.put(sim, i, spots[0], rng.uniform(-math.pi, math.pi))
        sim.mocap_pos[i, :6, :2] = spots[1:]
        looks = rng.permutation(len(NAMES))[:2].tolist()
        sim.userdata[i] = self._words(sim, i, rng, looks)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": drive.proprio(sim), "objects": self._seen(sim, 6)}

    def left(self, sim: Sim) -> np.ndarray:
        return distance(drive.place(sim), self._goal(sim))

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Heads for the disc, or past the first stone in the way."""
        goal = self._goal(sim)
        way = drive.detour(drive.place(sim), goal, sim.mocap_pos[:, 2:6, :2], _CLEAR)
        return self.control.go(sim, way, through=(way != goal).any(1))


class ObjectGoal(_Navigation):
    """Stand before the thing that the words name; success within 55 cm of it, facing it, standing.

    `objects` (n, 6): places as the rover sees them (m): the named thing's, then the others'.
    """

    time_limit = 15.0
    goals = _THINGS
    noun = _THINGS
    span = 4.5

    def spec(self) -> mujoco.MjSpec:
        s = rover.spec()
        yard.enclose(s, memory=6, half=2.3)
        yard.add_thing(s, "ball", "ball", (0.15, 0, 0))
        yard.add_thing(s, "cube", "cube", (0.12, 0.12, 0.12))
        yard.add_thing(s, "cylinder", "cylinder", (0.13, 0.15, 0))
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 4, (-1.6, -1.6), (1.6, 1.6), apart=1.1)
        drive.put(sim, i, spots[0], rng.uniform(-math.pi, math.pi))
        sim.mocap_pos[i, :3, :2] = spots[1:]
        looks = rng.integers(len(NAMES), size=3).tolist()
        sim.userdata[i] = self._words(sim, i, rng, looks)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"proprio": drive.proprio(sim), "objects": self._seen(sim, 3)}

    def left(self, sim: Sim) -> np.ndarray:
        return np.maximum(distance(drive.place(sim), self._goal(sim)) - _STOP, 0)

    def success(self, sim: Sim) -> np.ndarray:
        return yard.facing(sim, self._goal(sim), within=_STOP + 0.1)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Heads for the thing, or past another in the way."""
        return yard.approach(sim, self.control, self._which(sim), 3, _CLEAR, _STOP)


class Maze(_Navigation):
    """Find the way to the disc that the words name; success within 20 cm of it, standing.

    The walls of 5 x 5 cells are drawn anew for every episode; every cell can be reached. `objects`
    (n, 4): the discs' places as the rover sees them (m), the named first. `walls` (n, 40): which
    of the edges between cells are walls (1) or open (0), in the order of `maze.EDGES`.
    """

    time_limit = 45.0
    goals = _DISCS
    noun = ("disc", "disc")
    span = 12.0

    def spec(self) -> mujoco.MjSpec:
        s = rover.spec()
        yard.enclose(s, memory=5 + maze.MEMORY, half=maze.SIDE * maze.CELL / 2)
        for disc in _DISCS:
            scene.add_disc(s, disc, _RADIUS)
        for k in range(maze.WALLS):
            yard.add_wall(s, f"wall{k}", maze.CELL + yard.THICK)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        closed = maze.draw(rng)
        start, *goals = maze.ends(rng, closed)
        drive.put(sim, i, maze.middle(start), rng.uniform(-math.pi, math.pi))
        for k, goal in enumerate(goals):
            sim.mocap_pos[i, k, :2] = maze.middle(goal)
        for k, edge in enumerate(np.flatnonzero(closed).tolist()):
            x, y, across = maze.edge(edge)
            sim.mocap_pos[i, 2 + k, :2] = x, y
            half = across * math.pi / 4
            sim.mocap_quat[i, 2 + k] = math.cos(half), 0, 0, math.sin(half)
        looks = rng.permutation(len(NAMES))[:2].tolist()
        words = self._words(sim, i, rng, looks)
        hops = [maze.hops(closed, goal) for goal in goals]
        sim.userdata[i] = np.concatenate([words, closed, *hops])

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        walls = sim.userdata[:, 5 : 5 + len(maze.EDGES)]
        return {"proprio": drive.proprio(sim), "objects": self._seen(sim, 2), "walls": walls}

    def _way(self, sim: Sim) -> maze.Way:
        memory = sim.userdata[:, 5:]
        return maze.way(memory, self._which(sim), drive.place(sim), self._goal(sim))

    def left(self, sim: Sim) -> np.ndarray:
        return self._way(sim).left

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Goes from cell to cell by the shortest way."""
        way = self._way(sim)
        return self.control.go(sim, way.towards, through=way.on)
