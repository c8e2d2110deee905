"""Moment: what a policy that follows the world by a WorldModel has in hand when asked to act.

Here numpy meets torch: the carry is numpy and goes into checkpoints by value, the moment lies on
the model's device. What is decided with it is not known here. A carry holds, for every row: `seed`
and `count` (which name the row's next random stream), `action` (the last one sent), `mean` (the
last plan, or several), `iterations` (how many the last decision took) and the model's belief,
`belief/...`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..world_models.contract import ContractError
from ..world_models.model import Belief, WorldModel
from .policy import Carry

Step = dict[str, np.ndarray]
Plan = Callable[["Moment"], tuple[Tensor, Tensor]]


def begin(model: WorldModel, seeds: np.ndarray, *plan: int) -> Carry:
    """Returns the carry of len(seeds) rows that have seen nothing and remember a plan, all 0.

    plan: the shape of what a row remembers, its actions' nu left out; the horizon comes last.
    Raises ValueError unless `seeds` is a vector of integers.
    """
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu":
        raise ValueError(
            f"seeds of shape {seeds.shape} and dtype {seeds.dtype}: give one integer per row"
        )
    n = len(seeds)
    return {
        "seed": seeds.astype(np.int64),
        "count": np.zeros(n, np.int64),
        "mean": np.zeros((n, *plan, model.nu), np.float32),
        "action": np.zeros((n, model.nu), np.float32),
        "iterations": np.zeros(n, np.int64),
        **{f"belief/{key}": _array(value) for key, value in model.start(n).items()},
    }


@torch.no_grad()
def decide(
    model: WorldModel, plan: Plan, step: Step, carry: Carry, deadline_ms: float = math.inf
) -> tuple[np.ndarray, Carry]:
    """Returns the actions `(n, nu)` float32 that `plan` decides on, and the next carry.

    Step and carry go to the device here, and come back as arrays of their own. Actions are clipped
    to [-1, 1]. `plan` maps a Moment to an action `(n, nu)` and the plan to be remembered; its
    iterations, taken from the moment's clock, end when `deadline_ms` from now would be passed.
    """
    clock = Clock(deadline_ms, model.device)
    moment = _moment(model, step, carry, clock)
    action, mean = plan(moment)
    action = _array(action.float().clamp(-1.0, 1.0))
    return action, {
        "seed": carry["seed"],
        "count": carry["count"] + 1,
        "mean": _array(mean),
        "action": action.copy(),
        "iterations": np.full(len(action), clock.done),
        **{f"belief/{key}": _array(value) for key, value in moment.belief.items()},
    }


def _moment(model: WorldModel, step: Step, carry: Carry, clock: Clock) -> Moment:
    """Brings the step and the carry to the device, and the belief up to the step.

    Raises ContractError, with the key's name, where what the model reads is no finite number: to a
    planner all plans would be worth the same, and what it chose would look sound.
    """
    for key in getattr(model, "observation", ()):
        if key in step and step[key].dtype.kind == "f" and not np.isfinite(step[key]).all():
            rows = np.flatnonzero(~np.isfinite(step[key]).reshape(len(step[key]), -1).all(1))
            raise ContractError(
                f"{key!r} of the step is not finite in rows {rows.tolist()}; look where it is made"
            )
    seed, count, device = carry["seed"], carry["count"], model.device
    held = {key: torch.as_tensor(value, device=device) for key, value in carry.items()}
    seen = {key: torch.as_tensor(value, device=device) for key, value in step.items()}
    belief = {key[7:]: value for key, value in held.items() if key.startswith("belief/")}
    action, mean = held["action"], held["mean"]
    mean = torch.cat((mean[..., 1:, :], torch.zeros_like(mean[..., :1, :])), -2)
    if step["first"].any():
        first, anew = seen["first"], model.start(len(seed))
        belief = {key: _where(first, anew[key], value) for key, value in belief.items()}
        action = _where(first, torch.zeros_like(action), action)
        mean = _where(first, torch.zeros_like(mean), mean)
    rng = _generator(device, 1, *seed, *count)
    belief = model.observe(belief, action, seen, rng)
    return Moment(belief, mean, Noise(seed, count, device), rng, action, clock)


class Clock:
    """The time of one decision, from the moment it is asked for."""

    def __init__(self, deadline_ms: float = math.inf, device: torch.device | None = None):
        """Takes the deadline from now on, in ms; inf is none, and then no time is looked at."""
        self.done = 0  # iterations
        self._device, self._timed = device, deadline_ms < math.inf
        self._end = perf_counter() + deadline_ms / 1000 if self._timed else math.inf

    def iterations(self, count: int) -> Iterator[int]:
        """Yields 0 to count - 1 while there is time for one more as slow as the slowest so far.

        The first is always yielded.
        """
        slowest, before = 0.0, self._now()
        for i in range(count):
            yield i
            self.done += 1
            now = self._now()
            slowest, before = max(slowest, now - before), now
            if now + slowest > self._end:
                return

    def _now(self) -> float:
        if not self._timed:
            return 0.0
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what was asked of it is done, not only queued
        return perf_counter()


class Noise:
    """A random stream per row, so that what a row draws depends on its seed and count alone."""

    def __init__(self, seed: np.ndarray, count: np.ndarray, device: torch.device):
        self.device, self._seed, self._count = device, seed, count

    @cached_property
    def streams(self) -> list[torch.Generator]:
        """The rows' generators; who never draws pays for none."""
        rows = zip(self._seed, self._count, strict=True)
        return [_generator(self.device, 0, s, c) for s, c in rows]

    def normal(self, *shape: int) -> Tensor:
        """Returns standard normal draws, `(n, *shape)` float32."""
        return self._fill(shape, Tensor.normal_, 0.0, 1.0)

    def uniform(self, *shape: int) -> Tensor:
        """Returns draws from [-1, 1), `(n, *shape)` float32."""
        return self._fill(shape, Tensor.uniform_, -1.0, 1.0)

    def gumbel(self, *shape: int) -> Tensor:
        """Returns standard Gumbel draws, `(n, *shape)` float32."""
        return -self._fill(shape, Tensor.exponential_, 1.0).clamp_min_(1e-30).log_()

    def _fill(self, shape: tuple[int, ...], draw: Callable, *parameters: float) -> Tensor:
        out = torch.empty(len(self.streams), *shape, device=self.device)
        for row, stream in zip(out, self.streams, strict=True):
            draw(row, *parameters, generator=stream)
        return out


class Moment(NamedTuple):
    """What a planner has in hand when it is asked for an action."""

    belief: Belief
    mean: Tensor  # (n, ..., h, nu): the last plan moved on by one step, 0 where nothing is known
    noise: Noise  # the planner's own draws
    rng: torch.Generator  # the model's draws, shared by the rows
    last: Tensor  # (n, nu): the action before, 0 where an episode begins
    clock: Clock


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old)


def _array(value: Tensor) -> np.ndarray:
    value = value.float() if value.dtype is torch.bfloat16 else value  # numpy has no bfloat16
    return value.detach().to("cpu", copy=True).numpy()


def _generator(device: torch.device, use: int, *words: int) -> torch.Generator:
    entropy = [use, *(int(word) & 0xFFFF_FFFF_FFFF_FFFF for word in words)]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))
