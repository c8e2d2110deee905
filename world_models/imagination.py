"""Actor and critic that learn from imagined returns: the heads, the returns and the losses.

It knows neither a world model nor an optimiser: features and rewards come in, losses go out.

Source of the rules and constants: Hafner et al. 2025, Nature 640, Mastering diverse control tasks
through world models (DreamerV3), and the authors' code of May 2026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import MLP, Linear, SymexpTwoHot

LEAST_STD, MOST_STD = 0.1, 1.0


class Head(nn.Sequential):
    """An MLP and a last layer whose weights begin at `scale` times those of its fan-in."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int, rng, scale: float = 1.0):
        super().__init__(MLP(inputs, units, layers, rng), Linear(units, outputs, rng, scale))


@dataclass(frozen=True)
class BoundedNormal:
    """Independent normals (..., nu), mean within [-1, 1]; an action drawn may lie outside."""

    mean: Tensor
    std: Tensor

    def mode(self) -> Tensor:
        """Returns the most likely actions (..., nu)."""
        return self.mean

    def draw(self, noise: Tensor) -> Tensor:
        """Returns actions (..., nu), as noise of the actor's decides."""
        return self.mean + self.std * noise

    def density(self, action: Tensor) -> Tensor:
        """Returns the log density (...) of actions (..., nu)."""
        z = (action - self.mean) / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Returns the entropy (...) in nats."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


@dataclass(frozen=True)
class Choice:
    """One of nu actions, one-hot (..., nu), by log probabilities (..., nu)."""

    log_p: Tensor

    def mode(self) -> Tensor:
        """Returns the most likely actions (..., nu)."""
        return F.one_hot(self.log_p.argmax(-1), self.log_p.shape[-1]).float()

    def draw(self, noise: Tensor) -> Tensor:
        """Returns actions (..., nu), as noise of the actor's decides."""
        return Choice(self.log_p - noise.log()).mode()

    def density(self, action: Tensor) -> Tensor:
        """Returns the log probability (...) of actions (..., nu)."""
        return (action * self.log_p).sum(-1)

    def entropy(self) -> Tensor:
        """Returns the entropy (...) in nats."""
        return -(self.log_p.exp() * self.log_p).sum(-1)


class Actor(nn.Module):
    """Features (..., inputs) to a distribution over actions: bounded normals, or one of nu."""

    def __init__(self, inputs: int, units: int, nu: int, discrete: bool, rng: torch.Generator):
        super().__init__()
        self.nu, self.mlp = nu, MLP(inputs, units, 3, rng)
        self.mean = Linear(units, nu, rng, 0.01)  # of a discrete action, its logits
        self.spread = None if discrete else Linear(units, nu, rng, 0.01)

    def noise(self, rows: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Returns what a distribution's `draw` decides by, (*rows, nu)."""
        like = torch.empty(*rows, self.nu, device=rng.device)
        draw = like.normal_ if self.spread is not None else like.exponential_
        return draw(generator=rng)

    def forward(self, x: Tensor) -> BoundedNormal | Choice:
        """Returns the distribution at features x."""
        x = self.mlp(x)
        mean = self.mean(x).float()
        if self.spread is None:
            return Choice(F.log_softmax(mean, -1))
        share = torch.sigmoid(self.spread(x).float() + 2)
        return BoundedNormal(torch.tanh(mean), LEAST_STD + (MOST_STD - LEAST_STD) * share)


class ReturnScale(nn.Module):
    """The running distance between low and high returns, at least 1: what divides advantages.

    The 5th and 95th percentiles begin at 0 and follow each batch's by one hundredth.
    """

    def __init__(self, rate: float = 0.01, ends: tuple[float, float] = (0.05, 0.95)):
        super().__init__()
        self.rate = rate
        self.register_buffer("ends", torch.zeros(2))
        self.register_buffer("quantiles", torch.tensor(ends), persistent=False)

    @torch.no_grad()
    def forward(self, returns: Tensor) -> Tensor:
        """Takes a batch's returns in; returns the scale (), as it is then."""
        found = torch.quantile(returns.float().flatten(), self.quantiles)
        self.ends.lerp_(found, self.rate)
        return (self.ends[1] - self.ends[0]).clamp(min=1)


def lambda_returns(reward: Tensor, alive: Tensor, boot: Tensor, mixed: Tensor | float) -> Tensor:
    """Returns the lambda returns (t - 1, ...) of all steps but the last.

    R_i = reward_{i+1} + alive_{i+1} ((1 - mixed_{i+1}) boot_{i+1} + mixed_{i+1} R_{i+1}), and the
    last R is the last boot. All are (t, ...): `reward` paid for arriving, `alive` the probability
    of going on times the discount, `boot` the value there, `mixed` lambda, or 0 where a window's
    episode is cut off.
    """
    if not isinstance(mixed, Tensor):
        mixed = torch.full_like(reward, mixed)
    mixed = mixed.expand_as(reward)
    found = [boot[-1]]
    for i in range(len(reward) - 1, 0, -1):
        beyond = torch.lerp(boot[i], found[-1], mixed[i])
        found.append(reward[i] + alive[i] * beyond)
    return torch.stack(found[:0:-1])


def actor_loss(
    policy: BoundedNormal | Choice, action: Tensor, advantage: Tensor, weight: Tensor, bonus: float
) -> Tensor:
    """Returns the REINFORCE loss (...), with `bonus` times the entropy; nothing else gets grad.

    advantage: (...), scaled. weight: (...), the probability of being there at all.
    """
    gain = policy.density(action.detach()) * advantage.detach() + bonus * policy.entropy()
    return -weight.detach() * gain


def critic_loss(
    two_hot: SymexpTwoHot, logits: Tensor, returns: Tensor, slow: Tensor, weight: Tensor
) -> Tensor:
    """Returns the cross entropy (...) to the returns plus that to the slow critic's values."""
    return weight.detach() * two_hot.loss(logits, returns, slow)
