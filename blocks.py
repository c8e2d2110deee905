"""Torch blocks that recurrent world models share: RMS-normed layers, a block GRU, symexp two-hot.

It knows no observation, no task, no optimiser and no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import symexp

EPSILON = 1e-4  # of RMSNorm


class Linear(nn.Module):
    """A linear layer: weights scaled by their fan-in and by `scale`, biases 0.

    `scale` 0 makes it begin at 0.
    """

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator, scale: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(fan_in_normal((outputs, inputs), inputs, rng, scale))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight, self.bias)


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal: each of `blocks` maps its part of the input.

    Weights are scaled by the whole width of the input, as in the published code.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, rng: torch.Generator):
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{inputs} inputs and {outputs} outputs do not part into {blocks}")
        shape = (blocks, inputs // blocks, outputs // blocks)
        self.weight = nn.Parameter(fan_in_normal(shape, inputs, rng))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (n, blocks, inputs / blocks) to (n, outputs), block after block."""
        y = torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1).flatten(1)
        return y + self.bias.to(y.dtype)


class RMSNorm(nn.Module):
    """Divides by the root mean square over the last axis, in float32, times a gain; then SiLU."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., width) to the same shape and dtype."""
        return F.silu(F.rms_norm(x.float(), x.shape[-1:], self.gain, EPSILON)).to(x.dtype)


class MLP(nn.Sequential):
    """`layers` times a Linear of `units`, RMSNorm and SiLU."""

    def __init__(self, inputs: int, units: int, layers: int, rng: torch.Generator):
        widths = [inputs, *[units] * layers]
        made = ([Linear(widths[i], units, rng), RMSNorm(units)] for i in range(layers))
        super().__init__(*(layer for pair in made for layer in pair))


class BlockGRU(nn.Module):
    """A gated recurrent cell whose large matrices are block-diagonal.

    State and inputs each pass a normed layer of `hidden`; every block sees its own part of the
    state beside all of these. The state moves by sigmoid(update - 1) towards the candidate.

    Source: Hafner et al. 2025, Nature 640, Mastering diverse control tasks through world models
    (DreamerV3), and the authors' code of May 2026.
    """

    def __init__(
        self, inputs: tuple[int, ...], width: int, hidden: int, blocks: int, rng: torch.Generator
    ):
        super().__init__()
        self.blocks = blocks
        self.branches = nn.ModuleList(MLP(i, hidden, 1, rng) for i in (width, *inputs))
        wide = width + blocks * hidden * len(self.branches)
        self.mix, self.norm = BlockLinear(wide, width, blocks, rng), RMSNorm(width)
        self.gates = BlockLinear(width, 3 * width, blocks, rng)

    def forward(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """Returns the next state (n, width) after inputs (n, ...)."""
        heard = [f(x) for f, x in zip(self.branches, (state, *inputs), strict=True)]
        heard = torch.cat(heard, -1)[:, None].expand(-1, self.blocks, -1)
        x = torch.cat([self._part(state).to(heard.dtype), heard], -1)
        x = self.gates(self._part(self.norm(self.mix(x))))
        reset, candidate, update = (g.flatten(1).float() for g in self._part(x).chunk(3, -1))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(state, candidate, torch.sigmoid(update - 1))

    def _part(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.blocks, -1))


@dataclass(frozen=True)
class SymexpTwoHot:
    """A scalar as weights on the two nearest of `count` bins, symexp(-bound) to symexp(bound).

    The weights are linear in the scalar itself, not in its symlog: an expectation over bins is
    unbiased however they are spaced. `count` is odd.

    Source: Hafner et al. 2025 (DreamerV3), Nature 640, equation 10.
    """

    count: int = 255
    bound: float = 20.0

    def bins(self, device: torch.device | None = None) -> Tensor:
        """Returns the bins (count,), ascending, exactly symmetric around 0."""
        below = symexp(torch.linspace(-self.bound, 0, self.count // 2 + 1, device=device))
        return torch.cat([below, -below[:-1].flip(0)])

    def decode(self, logits: Tensor) -> Tensor:
        """Returns the scalars (...) that logits (..., count) stand for.

        Bins of opposite sign are added first, so that equal logits give exactly 0.
        """
        weighed = F.softmax(logits.float(), -1) * self.bins(logits.device)
        half = self.count // 2
        return (weighed[..., :half].flip(-1) + weighed[..., half + 1 :]).sum(-1)

    def encode(self, x: Tensor) -> Tensor:
        """Returns the weights (..., count) of scalars x (...); they sum to 1."""
        below, share = self._place(x)
        two = torch.zeros(*x.shape, self.count, device=x.device)
        two.scatter_(-1, below[..., None], (1 - share)[..., None])
        return two.scatter_(-1, below[..., None] + 1, share[..., None])

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Returns the cross entropy (...) of logits (..., count) to the weights of x (...)."""
        below, share = self._place(x.detach())
        both = torch.stack([below, below + 1], -1)
        low, high = logits.float().gather(-1, both).unbind(-1)
        return logits.float().logsumexp(-1) - torch.lerp(low, high, share)

    def _place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the bin below each scalar and the weight of the bin above it."""
        bins = self.bins(x.device)
        x = x.float().clamp(bins[0], bins[-1]).contiguous()
        below = (torch.searchsorted(bins, x, right=True) - 1).clamp(max=self.count - 2)
        return below, (x - bins[below]) / (bins[below + 1] - bins[below])


def fan_in_normal(
    shape: tuple[int, ...], fan: int, rng: torch.Generator, scale: float = 1.0
) -> Tensor:
    """Returns float32 draws of deviation scale / sqrt(fan): a normal cut off at two of its own.

    Made on the default device; `scale` 0 gives zeros.
    """
    weight = torch.zeros(shape)
    if scale and not weight.is_meta:
        nn.init.trunc_normal_(weight, a=-2, b=2, generator=rng)
        weight *= scale * CUT / math.sqrt(fan)
    return weight


CUT = 1.1368  # 1 / the deviation of a standard normal cut off at 2
