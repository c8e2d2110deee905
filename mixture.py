"""Mixture: windows of several tasks in one batch, whichever folder has them; it knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .episodes import Episodes
from .replay import Replay

MARKS = ("reward", "first", "last", "terminal", "valid")


class Side(Protocol):
    """What has to be known of a task, as a world of several (`envs.several`) says of its own."""

    name: str
    keys: tuple[str, ...]  # of the vectors that become one, in their order there
    width: int  # of all of them together
    nu: int


class Mixture:
    """Where batches of several tasks come from, in place of a Replay.

    A folder holds episodes of one task, which its `info` names as "task", or of a world of several,
    which has the keys `vector` and `task` and whose info names them all as "tasks". Every window of
    all folders is drawn alike often, so a task counts as its episodes do.
    """

    def __init__(
        self, paths: Sequence[str | Path], sides: Sequence[Side], device: torch.device | str = "cpu"
    ):
        """Takes the tasks in the order of their ids.

        Raises ValueError for a folder of another task, or of several in another order.
        """
        self._sides, folders = {side.name: side for side in sides}, {}
        self._width, self._nu = max(s.width for s in sides), max(s.nu for s in sides)
        names = tuple(self._sides)
        for path in paths:
            info = Episodes(path, keys=()).info
            task, tasks = info.get("task"), info.get("tasks")
            if tasks is not None and tuple(tasks) != names:
                raise ValueError(f"{path} is of the tasks {tasks}, learnt are {list(names)}")
            if tasks is None and task not in names:
                raise ValueError(
                    f"{path} is of the task {task!r}, learnt are {list(names)}; collect what is "
                    "among these, or learn that task too"
                )
            folders.setdefault(None if tasks is not None else task, []).append(path)
        self._parts = {
            task: Replay(Episodes(found, self._keys(task)), device)
            for task, found in folders.items()
        }

    def refresh(self) -> int:
        """Takes in shards that have appeared since; returns how many episodes came with them."""
        return sum(part.refresh() for part in self._parts.values())

    def sample(self, rng: np.random.Generator, b: int, t: int) -> dict[str, Tensor]:
        """Draws b windows of t steps, `{key: (b, t, ...)}`: `vector`, `task`, `action` and marks.

        Uniform over the windows of all tasks; a function of the generator's state and of the
        episodes alone. Raises ValueError if there is no window.
        """
        count = np.array([part.episodes.count(t) for part in self._parts.values()], float)
        if not count.any():
            raise ValueError(f"no window of {t} valid steps of any task; record longer episodes")
        shares = rng.multinomial(b, count / count.sum())
        found = [
            self._padded(task, part.sample(rng, int(share), t))
            for (task, part), share in zip(self._parts.items(), shares, strict=True)
            if share
        ]
        return {key: torch.cat([batch[key] for batch in found]) for key in found[0]}

    def _keys(self, task: str | None) -> tuple[str, ...]:
        own = ("vector", "task") if task is None else self._sides[task].keys
        return (*own, "action", *MARKS)

    def _padded(self, task: str | None, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns windows as a world of several tasks would have had them recorded."""
        out = {key: batch[key] for key in MARKS}
        if task is None:
            return out | {key: batch[key] for key in ("vector", "task", "action")}
        side, action = self._sides[task], batch["action"]
        vector = torch.cat([batch[key] for key in side.keys], -1)
        found = vector.shape[-1], action.shape[-1]
        if found != (side.width, side.nu):
            raise ValueError(
                f"episodes of {task!r} show and take {found} numbers a step, its world "
                f"{(side.width, side.nu)}; collect them with its robot and control"
            )
        number = tuple(self._sides).index(task)
        return out | {
            "vector": F.pad(vector, (0, self._width - side.width)),
            "task": torch.full(vector.shape[:2], number, device=vector.device),
            "action": F.pad(action, (0, self._nu - side.nu)),
        }
