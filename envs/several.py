"""Several: worlds of several tasks side by side, as one Gymnasium VectorEnv; it knows no model."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from . import language
from .env import BatchEnv
from .rows import accepted, asked_rows, row_seeds

VECTOR, TASK = "vector", "task"


@dataclass(frozen=True)
class Side:
    """What is known of one of the tasks, whether its world is among those here or not."""

    name: str  # of the Task's class
    keys: tuple[str, ...]  # of the vectors that become one, in their order there
    width: int  # of all of them together
    nu: int
    episode_length: int  # decisions
    words: bool  # whether it has instructions


@dataclass(frozen=True)
class Snapshots:
    """All worlds at one moment: `<id>/<key>` for every array of each one's Snapshot."""

    fingerprint: str
    arrays: dict[str, np.ndarray]


class Several(VectorEnv):
    """BatchEnvs of different tasks in one VectorEnv: the rows of the first, of the second, ...

    Tasks have different observations, so all float32 vectors of a row are concatenated in the order
    of their keys and padded with zeros to the widest task's: `vector` (n, d). `task` (n,) int64
    says which task a row has, `instruction` comes where any task has words. Actions are (n, nu)
    for the most components of any task; those that a row's body lacks do nothing, and
    `action_space` allows them 0 alone. Infos are those that all worlds give alike, in shape too.
    A row is bit-identical to the same row of its own world.
    """

    def __init__(self, worlds: Sequence[BatchEnv], sides: Sequence[Side] | None = None):
        """Takes worlds in NEXT_STEP mode; `sides`, the tasks that count, default one a world.

        Raises ValueError for no world, a task twice, another mode, an observation that is neither
        a vector nor words, and a world of none of the sides.
        """
        self.worlds = tuple(worlds)
        self.sides = tuple(map(_side, worlds) if sides is None else sides)
        self.names = tuple(side.name for side in self.sides)
        if not worlds or len(set(self.names)) < len(self.names):
            raise ValueError(f"tasks {list(self.names)}: give at least one, and none twice")
        for world in worlds:
            if (mode := world.metadata["autoreset_mode"]) is not AutoresetMode.NEXT_STEP:
                raise ValueError(f"{_name(world)} resets in mode {mode}; build it with NEXT_STEP")
            if _side(world) not in self.sides:
                raise ValueError(f"{_side(world)} is none of {list(self.sides)}")
        self.ids = tuple(self.names.index(_name(world)) for world in worlds)
        sizes = [world.num_envs for world in worlds]
        self.num_envs, edges = sum(sizes), np.cumsum([0, *sizes])
        self._rows = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self._task = np.repeat(np.array(self.ids, np.int64), sizes)
        self.action_repeat, self.render_mode = worlds[0].action_repeat, None
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.metadata["render_fps"] = worlds[0].metadata["render_fps"]
        self._spaces()

    def _spaces(self) -> None:
        wide, nu = max(s.width for s in self.sides), max(s.nu for s in self.sides)
        spaces = {
            VECTOR: Box(-np.inf, np.inf, (wide,), np.float32),
            TASK: Discrete(len(self.sides)),
        }
        if any(side.words for side in self.sides):
            spaces["instruction"] = Box(0, 255, (language.LENGTH,), np.uint8)
        self.single_observation_space = Dict(spaces)
        self.single_action_space = Box(-1.0, 1.0, (nu,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        has = np.arange(nu) < np.array([s.nu for s in self.sides])[self._task, None]
        self.action_space = Box(-has.astype(np.float32), has.astype(np.float32))

    def alone(self, name: str) -> Several:
        """Returns the one world of a task, its rows as they are among the others."""
        world = self.worlds[self.ids.index(self.names.index(name))]
        return Several([world], self.sides)

    def reset(self, *, seed: int | list[int | None] | None = None, options: dict | None = None):
        """Begins an episode in every row; seed s gives row i of all rows the seed s + i.

        Raises ValueError for a mask that leaves rows out.
        """
        mask, seeds = asked_rows(options, self.num_envs), row_seeds(seed, self.num_envs)
        if not mask.all():
            raise ValueError("several worlds are reset together; leave reset_mask out")
        found = [w.reset(seed=seeds[rows]) for w, rows in self._each()]
        return self._observed([obs for obs, _ in found]), _joined([info for _, info in found])

    def step(self, actions: np.ndarray):
        """Advances every row by one action; ValueError as of BatchEnv, before anything moves."""
        actions = accepted(actions, self.action_space.shape)
        found = [
            w.step(actions[rows, : w.single_action_space.shape[0]]) for w, rows in self._each()
        ]
        obs, reward, terminated, truncated, info = zip(*found, strict=True)
        flags = (np.concatenate(x) for x in (reward, terminated, truncated))
        return self._observed(obs), *flags, _joined(info)

    def expert(self) -> np.ndarray:
        """Returns the tasks' scripted actions (n, nu); ValueError where one has no expert."""
        return _padded([w.expert() for w in self.worlds], self.single_action_space.shape[0])

    def words(self) -> np.ndarray:
        """Returns the rows' instructions, (n,) of str."""
        return np.concatenate([w.words() for w in self.worlds])

    @property
    def fingerprint(self) -> str:
        """Returns a hash of all compiled models: Snapshots pass between worlds that share it."""
        told = [
            f"{i} {w.num_envs} {w.fingerprint}" for i, w in zip(self.ids, self.worlds, strict=True)
        ]
        return hashlib.sha256("\n".join([*self.names, *told]).encode()).hexdigest()

    def save(self) -> Snapshots:
        """Returns all rows as they are now; `load` goes on from there to the same bits."""
        arrays = {
            f"{i}/{key}": value
            for i, world in zip(self.ids, self.worlds, strict=True)
            for key, value in world.save().arrays.items()
        }
        return Snapshots(self.fingerprint, arrays)

    def load(self, snapshots: Snapshots) -> dict[str, np.ndarray]:
        """Puts every row where the Snapshots' is; returns the observations (n, ...) of then.

        Raises ValueError for Snapshots of other worlds.
        """
        if snapshots.fingerprint != self.fingerprint:
            raise ValueError("the Snapshots are of other tasks, models or rows than these worlds")
        found = []
        for i, world in zip(self.ids, self.worlds, strict=True):
            head = f"{i}/"
            own = {k[len(head) :]: v for k, v in snapshots.arrays.items() if k.startswith(head)}
            found.append(world.load(type(world.save())(world.fingerprint, own)))
        return self._observed(found)

    def _each(self) -> Iterator[tuple[BatchEnv, slice]]:
        return zip(self.worlds, self._rows, strict=True)

    def _observed(self, found: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        sides = [self.sides[i] for i in self.ids]
        vectors = [
            np.concatenate([obs[k] for k in side.keys], 1)
            for obs, side in zip(found, sides, strict=True)
        ]
        out = {VECTOR: _padded(vectors, self.single_observation_space[VECTOR].shape[0])}
        if "instruction" in self.single_observation_space.keys():
            silent = (np.zeros((len(v), language.LENGTH), np.uint8) for v in vectors)
            words = [o.get("instruction", none) for o, none in zip(found, silent, strict=True)]
            out["instruction"] = np.concatenate(words)
        return out | {TASK: self._task.copy()}


def _name(world: BatchEnv) -> str:
    return type(world.task).__name__


def _side(world: BatchEnv) -> Side:
    spaces = world.single_observation_space
    vectors = {k: s for k, s in spaces.items() if s.dtype == np.float32 and len(s.shape) == 1}
    if odd := spaces.keys() - vectors.keys() - {"instruction"}:
        raise ValueError(
            f"{_name(world)} shows {sorted(odd)[0]!r}; of several tasks, vectors and words alone "
            "can be shown: leave cameras and such senses out"
        )
    width = sum(s.shape[0] for s in vectors.values())
    steps = round(world.task.time_limit / world.task.control_dt / world.action_repeat)
    nu = world.single_action_space.shape[0]
    words = "instruction" in spaces.keys()
    return Side(_name(world), tuple(sorted(vectors)), width, nu, steps, words)


def _padded(parts: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Returns parts (m, d) one after the other, zeros behind those that are not as wide."""
    return np.concatenate([np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in parts])


def _joined(infos: Sequence[dict]) -> dict[str, np.ndarray]:
    """Returns what all infos hold in one shape, row behind row."""
    first, *rest = infos
    same = [
        k for k, v in first.items()
        if all(k in i and i[k].shape[1:] == v.shape[1:] for i in rest)
    ]  # fmt: skip
    return {k: np.concatenate([info[k] for info in infos]) for k in same}
