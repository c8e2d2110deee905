"""Search: what planners share, from the worth of a plan to the draws around one.

It knows neither network nor simulator, and not how a planner goes on from what it found.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..world_models.model import Belief, WorldModel
from .limits import Limits
from .moment import Moment, Noise, Step, begin, decide
from .policy import Carry, Policy

EXPLORE = 0.3  # std in units of action. Source: PlaNet, Hafner et al. 2019, arXiv:1811.04551
KeepOut = Callable[[dict[str, Tensor]], Tensor]


class Planner(Policy, ABC):
    """Refines a plan against a WorldModel, in iterations, as long as there are some or time is.

    Its keywords, which every planner takes:

    horizon: actions of a plan. iterations: at most so many. samples: candidates of a row in one
    iteration. limits: what actions must keep to.
    rollouts: how often each candidate is imagined, where chance is part of the model; the mean
    counts. deadline_ms: time for a decision of all rows. The first iteration is always done, and
    none is begun that would, at the pace of the slowest so far, pass the deadline; the best of
    what was done is acted on. What is done in time depends on the machine: with a deadline the
    same seed no longer means the same bits. The carry's `iterations` say how many were done.
    explore: the std of normal noise on the action, in units of action, as in collecting data; True
    is EXPLORE, or what a planner has of its own. The noise keeps to bounds and rate, and knows of
    no keep-out.
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int,
        iterations: int,
        samples: int,
        limits: Limits | None,
        rollouts: int,
        deadline_ms: float | None,
        explore: bool | float,
    ):
        """Raises ValueError for counts below 1, no time, limits of another action, a std < 0."""
        at_least_one(horizon=horizon, iterations=iterations, samples=samples, rollouts=rollouts)
        if deadline_ms is not None and not deadline_ms > 0:
            raise ValueError(f"deadline_ms {deadline_ms} is not > 0; None is no deadline")
        if not 0 <= explore < math.inf:
            raise ValueError(f"explore {explore} is no std >= 0; True is {EXPLORE}")
        self.explore = EXPLORE if explore is True else float(explore)
        self.model, self.limits = model, limits or Limits()
        self.limits.check(model.nu)
        self.horizon, self.iterations = horizon, iterations
        self.samples, self.rollouts = samples, rollouts
        self.deadline_ms = math.inf if deadline_ms is None else deadline_ms

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, *self.remembered())

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 within the limits, and the next carry."""
        return decide(self.model, self._limited, step, carry, self.deadline_ms)

    def _limited(self, moment: Moment) -> tuple[Tensor, Tensor]:
        action, memory = self.plan(moment)
        if self.explore:
            action = action + self.explore * moment.noise.normal(self.model.nu)
        return self.limits.step(action, moment.last), memory

    @abstractmethod
    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the refined plan `(n, *remembered(), nu)`."""

    def remembered(self) -> tuple[int, ...]:
        """Returns the shape of what is remembered for the next step, nu left out."""
        return (self.horizon,)

    def spread(self, belief: Belief, candidates: int) -> Belief:
        """Returns a belief with a row for every rollout of every candidate."""
        return _repeat(belief, candidates * self.rollouts)

    def worth(self, belief: Belief, plans: Tensor, rng: torch.Generator) -> Tensor:
        """Returns what `evaluate` does; `belief` is one that `spread` made for the candidates."""
        return _worth(self.model, belief, plans, rng, self.rollouts, self.limits.keep_out)

    def best(
        self, belief: Belief, plans: Tensor, count: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns the `count` best plans `(n, count, h, nu)` of each row and their returns.

        `belief` is one that `spread` made for the candidates.
        """
        return top(plans, self.worth(belief, plans, rng), count)

    def proposed(self, moment: Moment, count: int) -> Tensor:
        """Returns `(n, count, h, nu)` plans of the model's policy, or `(n, 0, h, nu)` if none."""
        model, n = self.model, len(moment.last)
        nothing = torch.zeros(n, 0, self.horizon, model.nu, device=model.device)
        if not count:
            return nothing
        belief, actions = _repeat(moment.belief, count), []
        last = moment.last[:, None].expand(n, count, model.nu)
        for t in range(self.horizon):
            action = model.propose(belief, moment.rng)
            if action is None:
                return nothing
            last = self.limits.step(action.float().view(n, count, model.nu), last)
            actions.append(last)
            if t + 1 < self.horizon:
                taken = last.reshape(n * count, model.nu)
                belief, _, _ = model.imagine(belief, taken, moment.rng)
        return torch.stack(actions, 2)


def evaluate(
    model: WorldModel,
    belief: Belief,
    plans: Tensor,
    rng: torch.Generator,
    rollouts: int = 1,
    keep_out: KeepOut | None = None,
) -> Tensor:
    """Returns the return that the model expects of each plan, `(n, k)` float32.

    `belief` has n rows, `plans` is `(n, k, h, nu)`, k candidates for each row. A plan earns
    sum_t discount^t * reward_t + discount^h * value, where everything after a step counts by the
    probability of being alive there; the reward of arriving at an end is paid. A NaN counts 0,
    the least that rewards in [0, 1] can bring. Of several `rollouts` the mean counts. Every step
    inside `keep_out` (see Limits) costs more than any return brings. Raises ValueError if the
    model decodes nothing that could be kept out of.
    """
    many = _repeat(belief, plans.shape[1] * rollouts)
    return _worth(model, many, plans, rng, rollouts, keep_out)


def top(plans: Tensor, worth: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` plans `(n, count, h, nu)` of most worth, and the worth `(n, count)`."""
    value, index = worth.topk(count, 1)
    return plans.take_along_dim(index[:, :, None, None], 1), value


def gaussian(mean: Tensor, std: Tensor, noise: Noise, count: int, beta: float = 0.0) -> Tensor:
    """Returns `(n, count, h, nu)` plans around mean and std `(n, h, nu)`, not yet limited.

    Their noise is coloured along time: the power at frequency f is in proportion to f^-beta.
    """
    draws = coloured(noise.normal(count, *mean.shape[1:]), beta)
    return draws.mul_(std[:, None]).add_(mean[:, None])


def coloured(white: Tensor, beta: float) -> Tensor:
    """Returns white noise `(..., h, nu)` with power in proportion to f^-beta along its h steps.

    Every step keeps variance 1. The mean over the steps (f = 0) has the power of the lowest
    frequency. Source: Timmer and Koenig 1995, On generating power law noise, A&A 300, 707.
    """
    h = white.shape[-2]
    if not beta or h < 3 or not white.numel():  # two steps have but one frequency
        return white
    cycles = torch.arange(h, device=white.device)
    frequency = torch.minimum(cycles, h - cycles).clamp_min(1).to(white.dtype)
    gain = frequency ** (-beta / 2)
    gain = gain / gain.square().mean().sqrt()
    spectrum = torch.fft.rfft(white, dim=-2) * gain[: h // 2 + 1, None]
    return torch.fft.irfft(spectrum, h, dim=-2)


def draw(actions: Tensor, score: Tensor, noise: Noise) -> Tensor:
    """Returns one of the actions `(n, k, nu)` of each row, with probability score `(n, k)`."""
    pick = (score.log() + noise.gumbel(score.shape[1])).argmax(1)
    return actions.take_along_dim(pick[:, None, None], 1).squeeze(1)


def at_least_one(**counts: int) -> None:
    """Raises ValueError if a count is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} {count} is below 1; choose at least 1")


def within(name: str, count: int, low: int, high: int) -> None:
    """Raises ValueError if the count is outside [low, high]."""
    if not low <= count <= high:
        raise ValueError(f"{name} {count} is outside [{low}, {high}] allowed by the samples")


def check_std(min_std: float, max_std: float) -> None:
    """Raises ValueError unless 0 < min_std <= max_std."""
    if not 0 < min_std <= max_std:
        raise ValueError(f"min_std {min_std} and max_std {max_std}: choose 0 < min_std <= max_std")


_CACHED = 1024  # candidates whose activations stay in a CPU's cache; more are taken row by row
_FORBIDDEN = 1e30  # the cost of a step inside the keep-out, beyond any return, within float32


def _worth(
    model: WorldModel,
    belief: Belief,
    plans: Tensor,
    rng: torch.Generator,
    rollouts: int,
    keep_out: KeepOut | None,
) -> Tensor:
    """Returns what `evaluate` does, for a belief that has a row per plan and rollout."""
    n, k = plans.shape[:2]
    if rollouts == 1:
        return _returns(model, belief, plans, rng, keep_out)
    each = _returns(model, belief, plans.repeat_interleave(rollouts, 1), rng, keep_out)
    return each.view(n, k, rollouts).mean(2)


def _returns(
    model: WorldModel,
    belief: Belief,
    plans: Tensor,
    rng: torch.Generator,
    keep_out: KeepOut | None,
) -> Tensor:
    n, k, h, nu = plans.shape
    if n > 1 and plans.device.type == "cpu" and n * k > _CACHED:
        parts = ({b: v[i * k : (i + 1) * k] for b, v in belief.items()} for i in range(n))
        return torch.cat(
            [_returns(model, part, plans[i : i + 1], rng, keep_out) for i, part in enumerate(parts)]
        )
    total = torch.zeros(n * k, device=plans.device)
    weight = torch.ones(n * k, device=plans.device)
    living, inside = torch.ones_like(total), torch.zeros_like(total)
    discount = model.discounts(belief)
    for t in range(h):
        belief, reward, alive = model.imagine(belief, plans[:, :, t].reshape(n * k, nu), rng)
        total = total + weight * reward
        weight = weight * alive * discount
        if keep_out is not None:
            inside = inside + (_entered(model, belief, keep_out) & (living >= 0.5))
            living = living * alive
    total = (total + weight * model.value(belief, rng)).float().nan_to_num(0.0)
    total = total if keep_out is None else total - _FORBIDDEN * inside
    return total.view(n, k)


def _entered(model: WorldModel, belief: Belief, keep_out: KeepOut) -> Tensor:
    seen = model.decode(belief)
    if not seen:
        name = type(model).__name__
        raise ValueError(f"{name} decodes nothing; a keep-out needs a model that does")
    entered = keep_out(seen)
    rows = len(next(iter(seen.values())))
    if entered.shape != (rows,) or entered.dtype is not torch.bool:
        raise ValueError(
            f"keep_out gave {entered.dtype} of shape {tuple(entered.shape)}; return bool ({rows},)"
        )
    return entered


def _repeat(belief: Belief, count: int) -> Belief:
    return {key: value.repeat_interleave(count, 0) for key, value in belief.items()}
