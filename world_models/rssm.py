"""RSSM: a recurrent state-space model; a deterministic state beside categorical ones.

It knows tokens and actions; not what observations they came from, nor rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import kernels
from ..blocks import MLP, BlockGRU, Linear, draw, mixed
from .model import Belief
from .scan import scan


class RSSM(nn.Module):
    """Predicts the next categories from the state alone, and corrects them by what is seen.

    A belief is `deter` (n, deter) and `stoch` (n, stoch, classes), one-hot; nothing seen is zeros.
    Probabilities are mixed with a uniform share `unimix`. Distributions are passed as the log
    probabilities (..., stoch, classes).

    Source: Hafner et al. 2025, Nature 640, Mastering diverse control tasks through world models
    (DreamerV3), and the authors' code of May 2026.
    """

    def __init__(
        self,
        tokens: int,
        nu: int,
        deter: int,
        hidden: int,
        stoch: int,
        classes: int,
        rng: torch.Generator,
        blocks: int = 8,
        unimix: float = 0.01,
    ):
        super().__init__()
        self.deter, self.stoch, self.classes, self.unimix = deter, stoch, classes, unimix
        logits = stoch * classes
        self.core = BlockGRU((logits, nu), deter, hidden, blocks, rng)
        self.prior = nn.Sequential(MLP(deter, hidden, 2, rng), Linear(hidden, logits, rng))
        self.posterior = nn.Sequential(
            MLP(deter + tokens, hidden, 1, rng), Linear(hidden, logits, rng)
        )

    def start(self, n: int) -> Belief:
        """Returns the belief of n rows that have seen nothing."""
        like = self.core.mix.bias
        return {
            "deter": like.new_zeros(n, self.deter),
            "stoch": like.new_zeros(n, self.stoch, self.classes),
        }

    def move(self, belief: Belief, action: Tensor) -> Tensor:
        """Returns the deterministic state (n, deter) after actions (n, nu), scaled into [-1, 1]."""
        action = action / action.abs().clamp(min=1).detach()
        return self.core(belief["deter"], belief["stoch"].flatten(1), action)

    def predict(self, deter: Tensor) -> Tensor:
        """Returns the distribution of categories that states (..., deter) lead to expect."""
        return mixed(self._logits(self.prior(deter)), self.unimix)

    def correct(self, deter: Tensor, tokens: Tensor) -> Tensor:
        """Returns the distribution of categories once tokens (..., d) are seen as well."""
        return mixed(self._corrected(deter, tokens), self.unimix)

    def _corrected(self, deter: Tensor, tokens: Tensor) -> Tensor:
        return self._logits(self.posterior(torch.cat([deter, tokens.to(deter.dtype)], -1)))

    def _logits(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.stoch, self.classes))

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Returns what `draw` decides by, (*shape, stoch)."""
        return torch.rand(*shape, self.stoch, generator=rng, device=rng.device)

    def observe(
        self, belief: Belief, action: Tensor, tokens: Tensor, first: Tensor, noise: Tensor | None
    ) -> tuple[Belief, Tensor]:
        """Returns the belief after `action` (n, nu) led to `tokens`, and its logits.

        Rows at `first` (n,) bool begin anew: their belief and action count as zeros.
        """
        anew = first[:, None]
        deter, stoch = belief["deter"], belief["stoch"]
        belief = {
            "deter": deter.masked_fill(anew, 0),
            "stoch": stoch.masked_fill(anew[..., None], 0),
        }
        deter = self.move(belief, action.masked_fill(anew, 0))
        logits = self._corrected(deter, tokens)
        return {"deter": deter, "stoch": draw(logits, noise, self.unimix)}, logits

    def follow(
        self, action: Tensor, tokens: Tensor, first: Tensor, noise: Tensor, start: Belief
    ) -> tuple[Belief, Tensor]:
        """Returns the beliefs `{key: (b, t, ...)}` along windows, and their distributions.

        action: (b, t, nu), each the one that led to its step. noise: (b, t, stoch). start: the
        belief (b, ...) before the first step.
        """
        if kernels.fits(tokens):
            action = (action / action.abs().clamp(min=1)).masked_fill(first[..., None], 0)
            before = start["deter"], start["stoch"]
            deter, stoch, logits = scan(
                self.core, self.posterior, action, tokens, first, noise, before, self.unimix
            )
            return {"deter": deter, "stoch": stoch}, mixed(logits, self.unimix)
        belief, beliefs, corrected = start, [], []
        for i in range(first.shape[1]):
            belief, logits = self.observe(
                belief, action[:, i], tokens[:, i], first[:, i], noise[:, i]
            )
            beliefs.append(belief)
            corrected.append(logits)
        joined = {key: torch.stack([b[key] for b in beliefs], 1) for key in belief}
        return joined, mixed(torch.stack(corrected, 1), self.unimix)

    def imagine(self, belief: Belief, action: Tensor, noise: Tensor | None) -> Belief:
        """Returns the belief that `action` (n, nu) is expected to lead to."""
        deter = self.move(belief, action)
        return {
            "deter": deter,
            "stoch": draw(self._logits(self.prior(deter)), noise, self.unimix),
        }


def flat(belief: Belief) -> Tensor:
    """Returns a belief as one vector (..., deter + stoch * classes): what every head reads."""
    return torch.cat([belief["deter"], belief["stoch"].flatten(-2)], -1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Returns KL(p || q) (...) in nats, summed over the categories."""
    return (p.exp() * (p - q)).sum((-2, -1))


def balanced(posterior: Tensor, prior: Tensor, free: float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns the losses (...) of the dynamics and of the representation.

    Both are the divergence of the prior from the posterior, but no lower than `free` nats. The
    first moves the prior alone, the second the posterior alone.
    """
    dynamics = divergence(posterior.detach(), prior)
    representation = divergence(posterior, prior.detach())
    return dynamics.clamp(min=free), representation.clamp(min=free)
