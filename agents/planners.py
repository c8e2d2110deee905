"""Planners: policies that refine a plan of actions against any WorldModel, n rows at once.

A planner knows neither network nor simulator: it imagines candidates, compares what they are
worth and acts. What all of them do alike is in `search.py`, what they remember in `moment.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..world_models.model import WorldModel
from .limits import Limits
from .moment import Moment, Step, begin, decide
from .policy import Carry, Policy
from .search import Planner, at_least_one, check_std, draw, gaussian, top, within

WIDE = 20  # components of an action, from which on MPPI searches longer


class MPPI(Planner):
    """Model predictive path integral control with proposals from the model's own policy.

    Gaussian candidates around a warm-started mean compete with `proposals` rollouts of
    `model.propose` (with samples alone where the model has no policy); the `elites` best refit
    mean and std, weighted by softmax(temperature * return). The row acts with the first action of
    an elite drawn by that weight; `explore=True` adds noise of the refitted std. Where `iterations`
    is None there are 6, and 8 for actions of 20 components or more.

    Source: TD-MPC2, Hansen, Su and Wang 2024, arXiv:2310.16828, section 3.2 and its released code.
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 3,
        iterations: int | None = None,
        samples: int = 512,
        proposals: int = 24,
        elites: int = 64,
        temperature: float = 0.5,
        min_std: float = 0.05,
        max_std: float = 2.0,
        explore: bool | float = False,
        limits: Limits | None = None,
        rollouts: int = 1,
        deadline_ms: float | None = None,
    ):
        """Raises ValueError where a count or a std makes no plan; std is in units of action."""
        fixed = explore is not True and explore
        iterations = (6 if model.nu < WIDE else 8) if iterations is None else iterations
        super().__init__(model, horizon, iterations, samples, limits, rollouts, deadline_ms, fixed)
        within("elites", elites, 1, samples)
        within("proposals", proposals, 0, samples - 1)
        check_std(min_std, max_std)
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} is not > 0; 0.5 is the published one")
        self.proposals, self.elites = proposals, elites
        self.temperature, self.min_std, self.max_std = temperature, min_std, max_std
        self.refitted = explore is True

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the refined mean `(n, h, nu)` for the moment."""
        mean, noise = moment.mean, moment.noise
        proposed = self.proposed(moment, self.proposals)
        sampled = self.samples - proposed.shape[1]
        belief = self.spread(moment.belief, self.samples)
        std = torch.full_like(mean, self.max_std)
        for _ in moment.clock.iterations(self.iterations):
            drawn = self.limits.project(gaussian(mean, std, noise, sampled), moment.last)
            plans = torch.cat((proposed, drawn), 1)
            elite, value = self.best(belief, plans, self.elites, moment.rng)
            score = torch.softmax(self.temperature * value, 1)
            weight = score[:, :, None, None]
            mean = (weight * elite).sum(1)
            variance = (weight * (elite - mean[:, None]).square()).sum(1)
            std = variance.sqrt().clamp(self.min_std, self.max_std)
        action = draw(elite[:, :, 0], score, noise)
        if self.refitted:
            action = action + std[:, 0] * noise.normal(self.model.nu)
        return action, mean


class CEM(Planner):
    """The cross-entropy method: refits a Gaussian to its best samples, acts with its mean.

    Where there is a keep-out, which a mean of plans left and right of it may enter, it acts with
    the better of the mean and the best sample.

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
        limits: Limits | None = None,
        rollouts: int = 1,
        deadline_ms: float | None = None,
        explore: bool | float = False,
    ):
        """Takes `max_std` as the first iteration's std; raises ValueError as MPPI does."""
        given = (limits, rollouts, deadline_ms, explore)
        super().__init__(model, horizon, iterations, samples, *given)
        within("elites", elites, 1, samples)
        check_std(min_std, max_std)
        self.elites = elites
        self.min_std, self.max_std = min_std, max_std

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the refined mean `(n, h, nu)` for the moment."""
        mean, rng = moment.mean, moment.rng
        belief = self.spread(moment.belief, self.samples)
        std = torch.full_like(mean, self.max_std)
        for _ in moment.clock.iterations(self.iterations):
            plans = gaussian(mean, std, moment.noise, self.samples)
            plans = self.limits.project(plans, moment.last)
            elite, _ = self.best(belief, plans, self.elites, rng)
            mean = elite.mean(1)
            std = elite.std(1, correction=0).clamp(self.min_std, self.max_std)
        if self.limits.keep_out is None:
            return mean[:, 0], mean
        two = torch.cat((mean[:, None], elite[:, :1]), 1)
        better, _ = self.best(self.spread(moment.belief, 2), two, 1, rng)
        return better[:, 0, 0], mean


class ICEM(Planner):
    """The improved cross-entropy method: CEM with a memory and noise that lasts.

    Samples have noise of power f^-`beta` over the horizon, and their number falls by `decay` per
    iteration (never below twice the elites). The best `keep` of the elites stay in the contest,
    from iteration to iteration with their worth and, moved on by one step, from decision to
    decision. Mean and std keep `momentum` of what they were; the mean competes in the last
    iteration. The row acts with the best elite's first action: the best plan seen.

    Source: Pinneri et al. 2020, arXiv:2008.06389, and the authors' code (a kept plan's new last
    action is drawn, the mean's is repeated).
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 12,
        iterations: int = 4,
        samples: int = 128,
        elites: int = 10,
        beta: float = 2.0,
        keep: float = 0.3,
        decay: float = 1.25,
        momentum: float = 0.1,
        max_std: float = 0.5,
        limits: Limits | None = None,
        rollouts: int = 1,
        deadline_ms: float | None = None,
        explore: bool | float = False,
    ):
        """Takes `max_std` as the first iteration's std; raises ValueError for what is no plan."""
        given = (limits, rollouts, deadline_ms, explore)
        super().__init__(model, horizon, iterations, samples, *given)
        at_least_one(decay=decay)
        within("elites", elites, 1, samples)
        if not (0 <= keep <= 1 and 0 <= momentum < 1):
            raise ValueError(f"keep {keep} is a share in [0, 1], momentum {momentum} one below 1")
        if not (beta >= 0 and max_std > 0):
            raise ValueError(f"beta {beta} is >= 0 (white noise) and max_std {max_std} > 0")
        self.elites, self.kept = elites, int(keep * elites)
        self.beta, self.decay, self.momentum, self.max_std = beta, decay, momentum, max_std

    def remembered(self) -> tuple[int, ...]:
        """Returns the shape of the mean and the kept elites, `(1 + kept, h)`."""
        return (1 + self.kept, self.horizon)

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)`, and mean and kept elites `(n, 1 + kept, h, nu)`."""
        mean, kept = moment.mean[:, 0], moment.mean[:, 1:]
        mean = torch.cat((mean[:, :-1], mean[:, -2:-1]), 1) if self.horizon > 1 else mean
        std = torch.full_like(mean, self.max_std)
        ends = gaussian(mean, std, moment.noise, self.kept, self.beta)[:, :, -1:]
        kept = torch.cat((kept[:, :, :-1], ends), 2)
        elite, value = kept[:, :0], kept.new_empty(len(kept), 0)  # what was scored already
        for i in moment.clock.iterations(self.iterations):
            count = max(int(self.samples / self.decay**i), 2 * self.elites)
            plans = gaussian(mean, std, moment.noise, count, self.beta)
            if i + 1 == self.iterations:
                plans[:, 0] = mean
            plans = plans if i else torch.cat((plans, kept), 1)
            plans = self.limits.project(plans, moment.last)
            worth = self.worth(self.spread(moment.belief, plans.shape[1]), plans, moment.rng)
            plans = torch.cat((plans, elite[:, : self.kept]), 1)
            worth = torch.cat((worth, value[:, : self.kept]), 1)
            elite, value = top(plans, worth, self.elites)
            mean = torch.lerp(elite.mean(1), mean, self.momentum)
            std = torch.lerp(elite.std(1, correction=0), std, self.momentum)
        return elite[:, 0, 0], torch.cat((mean[:, None], elite[:, : self.kept]), 1)


class Gradient(Planner):
    """Climbs the gradient of the return, from several plans at once, through the model itself.

    It begins with the last plan moved on by one step, `proposals` of the model's policy and
    Gaussian samples around the former; each climbs by Adam, and after every step is moved to what
    the limits allow. The row acts with the best plan met. A keep-out has no gradient: it only
    decides which plan is the best.

    Source: Adam, Kingma and Ba 2015, arXiv:1412.6980, with its published constants.
    """

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 5,
        iterations: int = 12,
        samples: int = 16,
        proposals: int = 4,
        lr: float = 0.1,
        std: float = 0.5,
        limits: Limits | None = None,
        rollouts: int = 1,
        deadline_ms: float | None = None,
        explore: bool | float = False,
    ):
        """Raises ValueError for a model without gradients; lr and std are in units of action.

        samples: plans that climb, the last one and the proposals among them.
        """
        given = (limits, rollouts, deadline_ms, explore)
        super().__init__(model, horizon, iterations, samples, *given)
        if not model.differentiable:
            name = type(model).__name__
            raise ValueError(f"{name} gives no gradients to climb; plan with MPPI, CEM or ICEM")
        within("proposals", proposals, 0, samples - 1)
        if not (lr > 0 and std > 0):
            raise ValueError(f"lr {lr} and std {std}: choose both > 0")
        self.proposals, self.lr, self.std = proposals, lr, std

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the best plan `(n, h, nu)` for the moment."""
        mean, proposed = moment.mean, self.proposed(moment, self.proposals)
        count = self.samples - 1 - proposed.shape[1]
        drawn = gaussian(mean, torch.full_like(mean, self.std), moment.noise, count)
        plans = self.limits.project(torch.cat((mean[:, None], proposed, drawn), 1), moment.last)
        belief = self.spread(moment.belief, self.samples)
        best, most = plans, plans.new_full(plans.shape[:2], -torch.inf)
        first, second = torch.zeros_like(plans), torch.zeros_like(plans)
        for i in moment.clock.iterations(self.iterations):
            with torch.enable_grad():
                plans.requires_grad_()
                worth = self.worth(belief, plans, moment.rng)
                (slope,) = torch.autograd.grad(worth.sum(), plans)
            plans, worth, slope = plans.detach(), worth.detach(), slope.nan_to_num(0.0, 0.0, 0.0)
            best = torch.where((worth > most)[:, :, None, None], plans, best)
            most = torch.maximum(worth, most)
            first, second = first.lerp(slope, 0.1), second.lerp(slope.square(), 0.001)
            rise = first / (1 - 0.9 ** (i + 1))
            rise = rise / ((second / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
            plans = self.limits.project(plans + self.lr * rise, moment.last)
        best, _ = top(best, most, 1)
        return best[:, 0, 0], best[:, 0]


class RandomShooting(Planner):
    """Scores uniform plans and acts with the first action of the best; the floor for planners."""

    def __init__(
        self,
        model: WorldModel,
        horizon: int = 12,
        samples: int = 1024,
        iterations: int = 1,
        limits: Limits | None = None,
        rollouts: int = 1,
        deadline_ms: float | None = None,
        explore: bool | float = False,
    ):
        """Draws `samples` plans in each iteration; raises ValueError where a count is below 1."""
        given = (limits, rollouts, deadline_ms, explore)
        super().__init__(model, horizon, iterations, samples, *given)

    def plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Returns the action `(n, nu)` and the best plan `(n, h, nu)` for the moment."""
        belief = self.spread(moment.belief, self.samples)
        plans, worth = [], []
        for _ in moment.clock.iterations(self.iterations):
            drawn = moment.noise.uniform(self.samples, self.horizon, self.model.nu)
            drawn = self.limits.project(self.limits.spread(drawn), moment.last)
            elite, value = self.best(belief, drawn, 1, moment.rng)
            plans.append(elite)
            worth.append(value)
        best, _ = top(torch.cat(plans, 1), torch.cat(worth, 1), 1)
        return best[:, 0, 0], best[:, 0]


class Prior(Policy):
    """Acts by the model's own policy, without planning: its mode, `model.propose(belief, None)`.

    `explore` draws from that policy instead, as in collecting data.
    """

    def __init__(self, model: WorldModel, explore: bool = False):
        """Raises ValueError if the model has no policy of its own."""
        if model.propose(model.start(1), None) is None:
            raise ValueError(f"{type(model).__name__} proposes no actions; plan with MPPI instead")
        self.model, self.explore = model, explore

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows that have seen nothing."""
        return begin(self.model, seeds, 0)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns actions `(n, nu)` float32 in [-1, 1] for the step, and the next carry."""
        return decide(self.model, self._plan, step, carry)

    def _plan(self, moment: Moment) -> tuple[Tensor, Tensor]:
        rng = moment.rng if self.explore else None
        return self.model.propose(moment.belief, rng), moment.mean
