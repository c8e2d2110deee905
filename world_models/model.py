"""WorldModel: the contract between anything that predicts a world and anything that plans in it.

A belief is a value, `{key: tensor (n, ...)}`; a model object does not change while it predicts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from ..parallel import ALONE, Share
from .contract import NUMBER, Contract, Spec

Belief = dict[str, Tensor]


class WorldModel(nn.Module, ABC):
    """A belief that follows a world (`observe`) and can go on without it (`imagine`).

    Letters: n rows, nu components of an action, b windows of t steps. Every tensor lies on the
    model's device; every source of chance is a `torch.Generator` that the caller passes.
    """

    observation: Mapping[str, gymnasium.Space]  # what it reads of a step, one row's
    nu: int  # components of an action, each in [-1, 1]
    window: int = 0  # steps of the windows it learns from; 0 where it learns nothing
    discount: float  # of one imagined step
    device: torch.device
    differentiable: bool = False  # whether imagine and value let gradients through to actions
    fitted: Mapping[str, str] = MappingProxyType({})  # places with networks not its own: classes
    share: Share = ALONE  # of a batch, where several processes learn as one

    def io_contract(self) -> Contract:
        """Returns what the model takes and tells, derived from what it declares and decodes.

        `observe` calls its `check_step` first, `update` its `check_batch`.
        """
        return self._contract

    @cached_property
    def _contract(self) -> Contract:
        belief = self.start(1)
        # What has seen nothing may decode to no number; its shapes are all that counts here.
        with torch.no_grad(), np.errstate(all="ignore"):
            decoded = {k: Spec.of(v) for k, v in self.decode(belief).items()}
        return Contract(
            observation={k: Spec.of(v) for k, v in self.observation.items()},
            action=Spec((self.nu,), low=-1.0, high=1.0),
            belief={k: Spec.of(v) for k, v in belief.items()},
            prediction={"reward": NUMBER, "alive": Spec((), low=0.0, high=1.0)} | decoded,
            window=self.window,
            parts=self.fitted,
        )

    @abstractmethod
    def start(self, n: int) -> Belief:
        """Returns the belief of n rows that have seen nothing."""

    @abstractmethod
    def observe(self, belief: Belief, action: Tensor, step: dict[str, Tensor], rng) -> Belief:
        """Returns the belief after `action` (n, nu) led to `step`; rows at `first` begin anew."""

    @abstractmethod
    def imagine(self, belief: Belief, action: Tensor, rng) -> tuple[Belief, Tensor, Tensor]:
        """Returns the next belief, the reward of arriving there (n,), and P(not terminal) (n,).

        It may leave out what a belief holds to observe with.
        """

    def discounts(self, belief: Belief) -> float | Tensor:
        """Returns the discount of one step imagined from the belief on, or each row's, (n,)."""
        return self.discount

    def value(self, belief: Belief, rng) -> Tensor:
        """Returns the discounted return expected from the belief on, (n,); 0 where unknown."""
        first = next(iter(belief.values()))
        return torch.zeros(first.shape[0], device=first.device)

    def propose(self, belief: Belief, rng) -> Tensor | None:
        """Returns an action (n, nu) of the model's own policy, or None if it has none.

        It is drawn with `rng`, or the policy's mode where `rng` is None.
        """
        return None

    def decode(self, belief: Belief) -> dict[str, Tensor]:
        """Returns what the belief says of the observation, `{key: (n, ...)}`; may be empty."""
        return {}

    @abstractmethod
    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Learns from windows `{key: (b, t, ...)}` of the step record; returns 0-d metrics.

        `action[:, i]` is chosen at step i and leads to step i + 1, whose `reward[:, i + 1]` pays
        for arriving there. Metrics stay on the device: reading one costs a synchronisation.
        """


def require(**given: tuple[float, float, float]) -> None:
    """Raises ValueError unless low <= value <= high for each `name=(value, low, high)`."""
    for name, (value, low, high) in given.items():
        if not low <= value <= high:
            allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"{name} {value} is not allowed; it is {allowed}")
