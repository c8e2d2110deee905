"""Planners: policies that refine a plan of actions against any WorldModel, n rows at once.

A planner knows neither network nor simulator: it imagines candidates, scores them with `evaluate`
and acts. What it remembers from step to step is told in `moment.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..world_models.model import Belief, WorldModel
from .moment import Moment, Noise, Step, begin, decide
from .policy import Carry, Policy


def evaluate(model: WorldModel, belief: Belief, plans: Tensor, rng: torch.Generator) -> Tensor:
    """Returns the return that the model expects of each plan, `(n, k)` float32.

    `belief` has n rows, `plans` is `(n, k, h, nu)`, k candidates for each row. A plan earns
    sum_t discount^t * reward_t + discount^h * value, where everything after a step counts by the
    probability of being alive there; the reward of arriving at an end is paid. A NaN counts 0,
    the least that rewards in [0, 1] can bring.
    """
    return _returns(model, _repeat(belief, plans.shape[1]), plans, rng)


class MPPI(Policy):
    """Model predictive path integral control with proposals from the model's own policy.

    Gaussian candidates around a warm-started mean compete with `proposals` rollouts of
    `model.propose` (with samples alone where the model has no policy); the `elites` best refit
    mean and std, weighted by softmax(temperature * return). The row acts with the first action of
    an elite drawn by that weight; `explore` adds noise of the refitted std, as in collecting data.

    Source: TD-MPC2, Hansen, Su and Wang 2024, arXiv:2310.16828, section 3.2 and its released code.
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 3,
        iterations: int = 6,
        samples: int = 512,
        proposals: int = 24,
        elites: int = 64,
        temperature: float = 0.5,
        min_std: float = 0.05,
        max_std: float = 2.0,
        explore: bool = False,
    ):
        """Raises ValueError where a count or a std makes no plan; std is in units of action."""
        _at_least_one(horizon=horizon, iterations=iterations, samples=samples)
        _within("elites", elites, 1, samples)
        _within("proposals", proposals, 0, samples - 1)
        _check_std(min_std, max_std)
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} is not > 0; 0.5 is the published one")
        self.model = model
        self.horizon, self.iterations, self.explore = horizon, iterations, explore
        self.samples, self.proposals, self.elites = samples, proposals, elites
        self.temperature, self.min_std, self.max_std = temperature, min_std, max_std

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, self.horizon)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 in [-1, 1] for the step, and the next carry."""
        return decide(self.model, self.plan, step, carry)

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the refined mean `(n, h, nu)` for the moment."""
        belief, mean, noise, rng = moment
        proposed = _proposals(self.model, belief, self.proposals, self.horizon, rng)
        p, belief = proposed.shape[1], _repeat(belief, self.samples)
        std = torch.full_like(mean, self.max_std)
        for _ in range(self.iterations):
            sampled = _gaussian(mean, std, noise, self.samples - p)
            plans = torch.cat((proposed, sampled), 1)
            elite, value = _best(self.model, belief, plans, self.elites, rng)
            score = torch.softmax(self.temperature * value, 1)
            weight = score[:, :, None, None]
            mean = (weight * elite).sum(1)
            variance = (weight * (elite - mean[:, None]).square()).sum(1)
            std = variance.sqrt().clamp(self.min_std, self.max_std)
        action = _draw(elite[:, :, 0], score, noise)
        if self.explore:
            action = action + std[:, 0] * noise.normal(self.model.nu)
        return action, mean


class CEM(Policy):
    """The cross-entropy method: refits a Gaussian to its best samples, acts with its mean.

    Source: Rubinstein 1999, The cross-entropy method for combinatorial and continuous optimization.
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 12,
        iterations: int = 6,
        samples: int = 512,
        elites: int = 64,
        min_std: float = 0.05,
        max_std: float = 1.0,
    ):
        """Takes `max_std` as the first iteration's std; raises ValueError as MPPI does."""
        _at_least_one(horizon=horizon, iterations=iterations, samples=samples)
        _within("elites", elites, 1, samples)
        _check_std(min_std, max_std)
        self.model = model
        self.horizon, self.iterations = horizon, iterations
        self.samples, self.elites = samples, elites
        self.min_std, self.max_std = min_std, max_std

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, self.horizon)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 in [-1, 1] for the step, and the next carry."""
        return decide(self.model, self.plan, step, carry)

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the refined mean `(n, h, nu)` for the moment."""
        _, mean, noise, rng = moment
        belief = _repeat(moment.belief, self.samples)
        std = torch.full_like(mean, self.max_std)
        for _ in range(self.iterations):
            plans = _gaussian(mean, std, noise, self.samples)
            elite, _ = _best(self.model, belief, plans, self.elites, rng)
            mean = elite.mean(1)
            std = elite.std(1, correction=0).clamp(self.min_std, self.max_std)
        return mean[:, 0], mean


class RandomShooting(Policy):
    """Scores uniform plans and acts with the first action of the best; the floor for planners."""

    def __init__(self, model: WorldModel, horizon: int = 12, samples: int = 1024):
        """Raises ValueError where horizon or samples is below 1."""
        _at_least_one(horizon=horizon, samples=samples)
        self.model = model
        self.horizon, self.samples = horizon, samples

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, self.horizon)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 in [-1, 1] for the step, and the next carry."""
        return decide(self.model, self.plan, step, carry)

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the best plan `(n, h, nu)` for the moment."""
        belief = _repeat(moment.belief, self.samples)
        plans = moment.noise.uniform(self.samples, self.horizon, self.model.nu)
        best, _ = _best(self.model, belief, plans, 1, moment.rng)
        return best[:, 0, 0], best[:, 0]


class Prior(Policy):
    """Acts by the model's own policy, without planning: its mode, `model.propose(belief, None)`."""

    def __init__(self, model: WorldModel):
        """Raises ValueError if the model has no policy of its own."""
        if model.propose(model.start(1), None) is None:
            raise ValueError(f"{type(model).__name__} proposes no actions; plan with MPPI instead")
        self.model = model

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, 0)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 in [-1, 1] for the step, and the next carry."""
        return decide(self.model, self._plan, step, carry)

    def _plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        return self.model.propose(moment.belief, None), moment.mean


_CACHED = 1024  # candidates whose activations stay in a CPU's cache; more are taken row by row


def _returns(model: WorldModel, belief: Belief, plans: Tensor, rng: torch.Generator) -> Tensor:
    """Returns what `evaluate` does, for a belief that has a row per plan."""
    n, k, h, nu = plans.shape
    if n > 1 and plans.device.type == "cpu" and n * k > _CACHED:
        parts = ({b: v[i * k : (i + 1) * k] for b, v in belief.items()} for i in range(n))
        return torch.cat(
            [_returns(model, part, plans[i : i + 1], rng) for i, part in enumerate(parts)]
        )
    total = torch.zeros(n * k, device=plans.device)
    weight = torch.ones(n * k, device=plans.device)
    for t in range(h):
        belief, reward, alive = model.imagine(belief, plans[:, :, t].reshape(n * k, nu), rng)
        total = total + weight * reward
        weight = weight * alive * model.discount
    total = total + weight * model.value(belief, rng)
    return total.float().nan_to_num(0.0).view(n, k)


def _proposals(
    model: WorldModel, belief: Belief, count: int, horizon: int, rng: torch.Generator
) -> Tensor:
    """Returns `(n, count, h, nu)` plans of the model's policy, or `(n, 0, h, nu)` if none."""
    n = next(iter(belief.values())).shape[0]
    nothing = torch.zeros(n, 0, horizon, model.nu, device=model.device)
    if not count:
        return nothing
    belief, actions = _repeat(belief, count), []
    for t in range(horizon):
        action = model.propose(belief, rng)
        if action is None:
            return nothing
        actions.append(action.float().clamp(-1.0, 1.0).view(n, count, model.nu))
        if t + 1 < horizon:
            belief, _, _ = model.imagine(belief, action, rng)
    return torch.stack(actions, 2)


def _gaussian(mean: Tensor, std: Tensor, noise: Noise, count: int) -> Tensor:
    """Returns `(n, count, h, nu)` plans around mean and std `(n, h, nu)`, clamped to [-1, 1]."""
    draws = noise.normal(count, *mean.shape[1:])
    return draws.mul_(std[:, None]).add_(mean[:, None]).clamp_(-1.0, 1.0)


def _best(
    model: WorldModel, belief: Belief, plans: Tensor, count: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the `count` best plans `(n, count, h, nu)` of each row and their returns.

    `belief` has a row per plan.
    """
    value, index = _returns(model, belief, plans, rng).topk(count, 1)
    return plans.take_along_dim(index[:, :, None, None], 1), value


def _draw(actions: Tensor, score: Tensor, noise: Noise) -> Tensor:
    """Returns one of the actions `(n, k, nu)` of each row, with probability score `(n, k)`."""
    pick = (score.log() + noise.gumbel(score.shape[1])).argmax(1)
    return actions.take_along_dim(pick[:, None, None], 1).squeeze(1)


def _repeat(belief: Belief, count: int) -> Belief:
    return {key: value.repeat_interleave(count, 0) for key, value in belief.items()}


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} {count} is below 1; choose at least 1")


def _within(name: str, count: int, low: int, high: int) -> None:
    if not low <= count <= high:
        raise ValueError(f"{name} {count} is outside [{low}, {high}] allowed by the samples")


def _check_std(min_std: float, max_std: float) -> None:
    if not 0 < min_std <= max_std:
        raise ValueError(f"min_std {min_std} and max_std {max_std}: choose 0 < min_std <= max_std")
