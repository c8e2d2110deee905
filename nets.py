"""Torch blocks and formulas that several models share; knows no observation, task or optimiser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels


def symlog(x: Tensor) -> Tensor:
    """Returns sign(x) ln(1 + |x|), elementwise: the identity near 0, a logarithm far from it."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Returns sign(x) (exp|x| - 1), elementwise: the inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def simnorm(x: Tensor, group: int = 8) -> Tensor:
    """Returns x (..., d) with a softmax over every `group` neighbours: d / group simplices.

    Source: Lavoie et al. 2022, arXiv 2204.00616.
    """
    return F.softmax(x.unflatten(-1, (-1, group)), dim=-1).flatten(-2)


@dataclass(frozen=True)
class TwoHot:
    """A scalar as weights on the two nearest of `count` bins, evenly spaced in symlog space.

    Source: Schrittwieser et al. 2020 (two-hot); Hafner et al. 2023, arXiv 2301.04104 (symlog).
    """

    low: float = -10.0
    high: float = 10.0
    count: int = 101

    def bins(self, like: Tensor) -> Tensor:
        """Returns the bins (count,) in symlog space, on the device and of the dtype of `like`."""
        return torch.linspace(self.low, self.high, self.count, device=like.device, dtype=like.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Returns the weights (..., count) of scalars x (...); they sum to 1."""
        index, weight = self._place(x)
        two = torch.zeros(*x.shape, self.count, device=x.device, dtype=x.dtype)
        two.scatter_(-1, index[..., None], 1 - weight[..., None])
        return two.scatter_(-1, index[..., None] + 1, weight[..., None])

    def decode(self, logits: Tensor) -> Tensor:
        """Returns the scalars (...) that logits (..., count) stand for."""
        return symexp((F.softmax(logits, dim=-1) * self.bins(logits)).sum(-1))

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Returns the cross entropy (...) of logits (..., count) to the weights of x (...)."""
        index, weight = self._place(x)
        index = index.expand(logits.shape[:-1])[..., None]
        below, above = logits.gather(-1, index)[..., 0], logits.gather(-1, index + 1)[..., 0]
        return logits.logsumexp(-1) - torch.lerp(below, above, weight.expand_as(below))

    def _place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the bin below each scalar and the weight of the bin above it."""
        place = symlog(x).clamp(self.low, self.high)
        place = (place - self.low) * ((self.count - 1) / (self.high - self.low))
        index = place.floor().clamp(max=self.count - 2)
        return index.long(), place - index


def norm_mish(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns Mish(LayerNorm(x)) of x (..., d); gain, shift (d,), or (k, d) for x (k, m, d).

    In float32 on the CPU it is one kernel.
    """
    if kernels.fits(x, gain, shift):
        return _fused(_NormMish, x, gain, shift)
    return F.mish(_norm(x, gain, shift))


def norm_simnorm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns SimNorm(LayerNorm(x)), in groups of 8; arguments as `norm_mish` takes them."""
    if kernels.fits(x, gain, shift) and x.shape[-1] % kernels.GROUP == 0:
        return _fused(_NormSimnorm, x, gain, shift)
    return simnorm(_norm(x, gain, shift))


def _norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    gain, shift = (p if p.ndim == 1 else p.unsqueeze(1) for p in (gain, shift))
    return F.layer_norm(x, x.shape[-1:]) * gain + shift


def _fused(function, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Applies an autograd function to the (k, m, d) that a kernel takes."""
    groups = x.unsqueeze(0).flatten(1, -2) if gain.ndim == 1 else x
    parts = groups.contiguous(), gain.view(len(groups), -1), shift.view(len(groups), -1)
    return function.apply(*parts).view(x.shape)


class _NormMish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, shift):
        ctx.save_for_backward(x, gain, shift)
        out = torch.empty_like(x)
        kernels.norm_mish(x, gain, shift, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, gain, shift = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(F.mish, x, gain, shift, grad)
        out = torch.empty_like(x)
        return out, *kernels.norm_mish_backward(x, gain, shift, grad.contiguous(), out)


class _NormSimnorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, shift):
        out = torch.empty_like(x)
        kernels.norm_simnorm(x, gain, shift, out)
        ctx.save_for_backward(x, gain, shift, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, gain, shift, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(simnorm, x, gain, shift, grad)
        out = torch.empty_like(x)
        return out, *kernels.norm_simnorm_backward(x, gain, y, grad.contiguous(), out)


def _again(activation, x: Tensor, gain: Tensor, shift: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Returns the gradients by torch's own operations, for a second derivative to pass through."""
    y = activation(_norm(x, gain, shift))
    return torch.autograd.grad(y, (x, gain, shift), grad, create_graph=True)


class NormedLinear(nn.Module):
    """A linear layer, LayerNorm, then Mish (or what `activation` does after the norm).

    Weights are a truncated normal of deviation 0.02 drawn from `rng`; biases begin at 0.
    """

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator, activation=norm_mish):
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((outputs, inputs), rng))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., inputs) to (..., outputs)."""
        return self.activation(F.linear(x, self.weight, self.bias), self.gain, self.shift)


class Linear(nn.Module):
    """A plain last layer: truncated normal weights from `rng`, or zeros where `rng` is None."""

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator | None):
        super().__init__()
        shape = (outputs, inputs)
        self.weight = nn.Parameter(
            torch.zeros(shape) if rng is None else truncated_normal(shape, rng)
        )
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight, self.bias)


def mlp(sizes: Sequence[int], rng: torch.Generator, last=None, zero: bool = False) -> nn.Sequential:
    """Returns hidden NormedLinear layers of `sizes` and a last layer.

    The last layer is a NormedLinear with the activation `last`, or plain where `last` is None;
    `zero` makes a plain last layer begin at 0.
    """
    layers: list[nn.Module] = [NormedLinear(i, o, rng) for i, o in itertools.pairwise(sizes[:-1])]
    if last is not None:
        layers.append(NormedLinear(sizes[-2], sizes[-1], rng, last))
    else:
        layers.append(Linear(sizes[-2], sizes[-1], None if zero else rng))
    return nn.Sequential(*layers)


class Ensemble(nn.Module):
    """`count` equal MLPs with separate weights, stacked; their last layers begin at 0."""

    def __init__(self, count: int, sizes: Sequence[int], rng: torch.Generator):
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.count = count
        self.weight = nn.ParameterList(
            torch.stack([truncated_normal((o, i), rng) for _ in range(count)])
            for i, o in pairs[:-1]
        )
        self.weight.append(torch.zeros(count, *pairs[-1][::-1]))
        self.bias = nn.ParameterList(torch.zeros(count, o) for _, o in pairs)
        self.gain = nn.ParameterList(torch.ones(count, o) for _, o in pairs[:-1])
        self.shift = nn.ParameterList(torch.zeros(count, o) for _, o in pairs[:-1])

    def forward(
        self,
        x: Tensor,
        members: Tensor | None = None,
        mask: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Maps x (m, inputs) to (k, m, outputs), for all or for the `members` (k,) int64 asked.

        `mask` (k, m, hidden) multiplies the first linear outputs (see `dropout_mask`); `frozen`
        lets a gradient reach x but no weight.
        """

        def pick(parameters: nn.ParameterList) -> list[Tensor]:
            tensors = [p.detach() for p in parameters] if frozen else list(parameters)
            return tensors if members is None else [p[members] for p in tensors]

        weights, biases = pick(self.weight), pick(self.bias)
        x = x.expand(len(weights[0]), *x.shape)
        for weight, bias, gain, shift in zip(
            weights[:-1], biases[:-1], pick(self.gain), pick(self.shift), strict=True
        ):
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            if mask is not None:
                x, mask = x * mask, None
            x = norm_mish(x, gain, shift)
        return torch.baddbmm(biases[-1][:, None], x, weights[-1].transpose(1, 2))


def dropout_mask(shape: tuple[int, ...], share: float, rng: torch.Generator) -> Tensor:
    """Returns float32 factors: 0 with probability `share`, else 1 / (1 - share)."""
    mask = torch.empty(shape, device=rng.device)
    return mask.bernoulli_(1 - share, generator=rng).div_(1 - share)


def truncated_normal(shape: tuple[int, ...], rng: torch.Generator, std: float = 0.02) -> Tensor:
    """Returns float32 draws of N(0, std^2) within 2 units of 0, on the default device."""
    weight = torch.empty(shape)
    return weight if weight.is_meta else nn.init.trunc_normal_(weight, std=std, generator=rng)


def squashed_gaussian(
    mean: Tensor, raw: Tensor, noise: Tensor, low: float = -10.0, high: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Returns tanh(mean + std noise) and the log density before the tanh.

    mean, raw, noise: (..., nu); log std = low + (high - low) (tanh(raw) + 1) / 2. Returns the
    actions (..., nu) in [-1, 1] and the densities (...).
    """
    log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
    density = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
    return torch.tanh(mean + noise * log_std.exp()), density
