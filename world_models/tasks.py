"""Tasks: what a model of several tasks is told of each; it knows no network that listens.

Each task has a learned embedding, a mask of the action components that its body has, and a
discount of its own. Ids count from 0 in the order given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPREAD = 0.02  # embeddings begin uniform within +-SPREAD


@dataclass(frozen=True)
class TaskSpec:
    """One of the tasks that a model learns: its name, its action's components, its steps."""

    name: str
    nu: int
    episode_length: int


class Told(NamedTuple):
    """What the networks are told of the tasks of n rows."""

    embedding: Tensor  # (n, width)
    mask: Tensor  # (n, nu), 1 where the task's body has the component
    discount: Tensor  # (n,)

    @property
    def nu(self) -> Tensor:
        """Returns how many components of an action count, (n,) float32."""
        return self.mask.sum(-1)

    def repeat(self, count: int) -> Told:
        """Returns the rows `count` times over, all of them before any comes again."""
        return Told(*(x.repeat(count, *[1] * (x.ndim - 1)) for x in self))

    def detach(self) -> Told:
        """Returns the same with no gradient."""
        return Told(*(x.detach() for x in self))


class TaskTable(nn.Module):
    """Learned embeddings within the unit ball, action masks and discounts, a row per task.

    Source: Hansen et al. 2024, arXiv 2310.16828, section 3.3 and appendix, and the authors' code.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        nu: int,
        width: int,
        rng: torch.Generator,
        discount: float | None = None,
    ):
        """Takes `discount` for all tasks in place of each one's own.

        Raises ValueError for no tasks, a name that comes twice, and a task with more than `nu`
        components or none.
        """
        super().__init__()
        self.names = tuple(task.name for task in tasks)
        if not tasks or len(set(self.names)) < len(tasks):
            raise ValueError(f"tasks {list(self.names)}: give at least one, and none twice")
        for task in tasks:
            if not 1 <= task.nu <= nu:
                raise ValueError(f"task {task.name!r} has {task.nu} of {nu} action components")
        weight = torch.empty(len(tasks), width)
        weight = weight if weight.is_meta else weight.uniform_(-SPREAD, SPREAD, generator=rng)
        self.weight = nn.Parameter(weight)
        own = [
            heuristic_discount(t.episode_length) if discount is None else discount for t in tasks
        ]
        mask = torch.arange(nu) < torch.tensor([task.nu for task in tasks])[:, None]
        self.register_buffer("mask", mask.float(), persistent=False)
        self.register_buffer("discount", torch.tensor(own), persistent=False)
        self.longest = max(own)

    def forward(self, task: Tensor) -> Told:
        """Returns what is told of the tasks with the ids (n,) int64."""
        embedding = F.embedding(task, self.weight)
        return Told(embedding, self.mask[task], self.discount[task])

    @torch.no_grad()
    def project(self) -> None:
        """Scales embeddings longer than 1 to that; a model calls it wherever they changed.

        The authors' code does so when one is looked up, which changes a model that only acts.
        """
        if not self.weight.is_meta:
            self.weight.copy_(torch.renorm(self.weight, 2, 0, 1.0))


def told_of(x: Tensor, told: Told | None) -> Tensor:
    """Returns x (..., n, d) with each row's embedding behind it, (..., n, d + width).

    Without anything told it is x itself.
    """
    if told is None:
        return x
    return torch.cat((x, told.embedding.expand(*x.shape[:-1], -1)), -1)


def heuristic_discount(episode_length: int) -> float:
    """Returns (L/5 - 1) / (L/5) for episodes of L steps, within [0.95, 0.995]."""
    part = episode_length / 5
    return min(max((part - 1) / part, 0.95), 0.995)
