"""Torch blocks that recurrent world models share: RMS-normed layers, a block GRU, symexp two-hot.

It knows no observation, no task, no optimiser and no model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import fused, kernels
from .nets import linear, symexp

EPSILON = 1e-4  # of RMSNorm
MANY = 64  # rows from which a block's own product pays


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
        return linear(x, self.weight, self.bias)


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
        y = block_linear(x, self.weight)
        return y + self.bias.to(y.dtype)


class RMSNorm(nn.Module):
    """Divides by the root mean square over the last axis, in float32, times a gain; then SiLU."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Maps x (..., width), plus a bias (width,), to the same shape and dtype."""
        if kernels.fits(x):
            bias = torch.zeros_like(self.gain) if bias is None else bias
            return norm_silu(x.contiguous(), bias, self.gain)
        y = x.float() if bias is None else x.float() + bias
        return _plain_silu(y, self.gain).to(x.dtype)


class MLP(nn.Sequential):
    """`layers` times a Linear of `units`, RMSNorm and SiLU."""

    def __init__(self, inputs: int, units: int, layers: int, rng: torch.Generator):
        widths = [inputs, *[units] * layers]
        made = ([Linear(widths[i], units, rng), RMSNorm(units)] for i in range(layers))
        super().__init__(*(layer for pair in made for layer in pair))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., inputs) to (..., units)."""
        layers = iter(self)
        for layer, norm in zip(layers, layers, strict=True):
            x = norm(linear(x, layer.weight), layer.bias)  # a bias costs nothing in the norm
        return x


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
        heard, own = torch.cat(heard, -1), state.shape[1] // self.blocks
        x = block_linear(self._part(state).to(heard.dtype), self.mix.weight[:, :own])
        if len(heard) < MANY:  # too few to pay for weights of another order
            every = heard[:, None].expand(-1, self.blocks, -1)
            x = x + block_linear(every, self.mix.weight[:, own:])
        else:
            x = x + linear(heard, self.parts()[1])
        x = block_linear(self._part(self.norm(x, self.mix.bias)), self.gates.weight)
        return gated(x, self.gates.bias, state, self.blocks)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Returns the mixing weights of a block's own state, (blocks, i, o), and of what all hear.

        The latter are those of one layer (width, 3 hidden): no input is repeated for each block.
        """
        own = self.mix.weight.shape[2]
        return self.mix.weight[:, :own], self.mix.weight[:, own:].transpose(1, 2).flatten(0, 1)

    def _part(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.blocks, -1))


class SymexpTwoHot(nn.Module):
    """A scalar as weights on the two nearest of `count` bins, symexp(-bound) to symexp(bound).

    The weights are linear in the scalar itself, not in its symlog: an expectation over bins is
    unbiased however they are spaced. `count` is odd. `bins` (count,) ascend, exactly symmetric
    around 0; they move with the module and are not saved.

    Source: Hafner et al. 2025 (DreamerV3), Nature 640, equation 10.
    """

    bins: Tensor

    def __init__(self, count: int = 255, bound: float = 20.0):
        super().__init__()
        self.count = count
        below = symexp(torch.linspace(-bound, 0, count // 2 + 1))
        self.register_buffer("bins", torch.cat([below, -below[:-1].flip(0)]), persistent=False)

    def decode(self, logits: Tensor) -> Tensor:
        """Returns the scalars (...) that logits (..., count) stand for.

        Bins of opposite sign are added first, so that equal logits give exactly 0.
        """
        if kernels.fits(logits) and not (torch.is_grad_enabled() and logits.requires_grad):
            return fused.expected(logits.contiguous(), self.bins)
        weighed = F.softmax(logits.float(), -1) * self.bins
        half = self.count // 2
        return (weighed[..., :half].flip(-1) + weighed[..., half + 1 :]).sum(-1)

    def encode(self, x: Tensor) -> Tensor:
        """Returns the weights (..., count) of scalars x (...); they sum to 1."""
        below, share = self._place(x)
        two = torch.zeros(*x.shape, self.count, device=x.device)
        two.scatter_(-1, below[..., None], (1 - share)[..., None])
        return two.scatter_(-1, below[..., None] + 1, share[..., None])

    def loss(self, logits: Tensor, *aims: Tensor) -> Tensor:
        """Returns the sum of the cross entropies (...) of logits (..., count) to each of the aims.

        aims: scalars (...), to whose weights the logits are held.
        """
        aims = [x.detach() for x in aims]
        if kernels.fits(logits):
            rows, both = logits.reshape(-1, self.count), torch.stack(aims, -1).float()
            both = both.view(-1, len(aims))
            found = _CrossEntropy.apply(rows.contiguous(), both, self.bins)
            return found.view(logits.shape[:-1])
        return sum(self._plain_loss(logits.float(), x) for x in aims)

    def _plain_loss(self, logits: Tensor, x: Tensor) -> Tensor:
        below, share = self._place(x)
        both = torch.stack([below, below + 1], -1)
        low, high = logits.gather(-1, both).unbind(-1)
        return logits.logsumexp(-1) - torch.lerp(low, high, share)

    def _place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the bin below each scalar and the weight of the bin above it."""
        bins = self.bins
        x = x.float().clamp(bins[0], bins[-1]).contiguous()
        below = (torch.searchsorted(bins, x, right=True) - 1).clamp(max=self.count - 2)
        return below, (x - bins[below]) / (bins[below + 1] - bins[below])


# ---- what the layers are made of; in float32 on the CPU each is one kernel


def norm_silu(x: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
    """Returns SiLU(RMSNorm(x + bias)) for float32 x (..., d) on the CPU."""
    return (_NormSilu.apply if torch.is_grad_enabled() else fused.norm_silu)(x, bias, gain)


def block_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Returns (n, blocks o): each part of x (n, blocks, i) times its block of weight (·, i, o)."""
    if kernels.fits(x) and not torch.is_grad_enabled() and len(x) >= MANY:
        parts = zip(x.unbind(1), weight.unbind(), strict=True)
        return torch.cat([kernels.product(part.contiguous(), w.t()) for part, w in parts], 1)
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1).flatten(1)


def gated(gates: Tensor, bias: Tensor, state: Tensor, blocks: int) -> Tensor:
    """Returns the next state (n, width), from gates (n, 3 width) of blocks; see `fused.gated`."""
    if not kernels.fits(gates):
        return _plain_gated(gates, bias, state, blocks)
    call = _Gated.apply if torch.is_grad_enabled() else fused.gated
    return call(gates.contiguous(), bias, state.contiguous(), blocks)


def mixed(logits: Tensor, unimix: float) -> Tensor:
    """Returns log probabilities (..., c) of logits, mixed with a uniform share `unimix`."""
    p = F.softmax(logits.float(), -1)
    return ((1 - unimix) * p + unimix / p.shape[-1]).log()


def draw(logits: Tensor, noise: Tensor | None, unimix: float = 0.0) -> Tensor:
    """Returns one-hot draws (..., c) of `mixed` logits, or their modes where `noise` is None.

    noise: (...), uniform in [0, 1): where it falls among the cumulated probabilities. The gradient
    passes as if the probabilities had been returned.
    """
    count = logits.shape[-1]
    tracked = torch.is_grad_enabled() and logits.requires_grad
    if noise is not None and not tracked and kernels.fits(logits):
        rows = logits.contiguous().flatten(0, -3), noise.contiguous().flatten(0, -2)
        return fused.choose(*rows, unimix).view(logits.shape)
    p = mixed(logits, unimix).exp()
    if noise is None:
        index = p.argmax(-1)
    else:
        index = (noise[..., None] >= p.cumsum(-1)).sum(-1).clamp(max=count - 1)
    chosen = F.one_hot(index, count)
    return chosen + (p - p.detach()) if tracked else chosen.to(p.dtype)


def _plain_silu(x: Tensor, gain: Tensor) -> Tensor:
    return F.silu(F.rms_norm(x, x.shape[-1:], gain, EPSILON))


def _plain_gated(gates: Tensor, bias: Tensor, state: Tensor, blocks: int) -> Tensor:
    gates = (gates.float() + bias).unflatten(-1, (blocks, 3, -1))
    reset, candidate, update = (g.flatten(1) for g in gates.unbind(2))
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    return torch.lerp(state, candidate, torch.sigmoid(update - 1))


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, gain):
        ctx.save_for_backward(x, bias, gain)
        return fused.norm_silu(x, bias, gain)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return fused.norm_silu_backward(*ctx.saved_tensors, grad.contiguous())


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, bias, state, blocks):
        ctx.save_for_backward(gates, bias, state)
        ctx.blocks = blocks
        return fused.gated(gates, bias, state, blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        found = fused.gated_backward(*ctx.saved_tensors, ctx.blocks, grad.contiguous())
        return found[0], found[0].sum(0), found[1], None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, aims, bins):
        found, slope = fused.cross_entropy(logits, aims, bins)
        ctx.save_for_backward(slope)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None], None, None


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
