"""Torch blocks and formulas that several models share; knows no observation, task or optimiser."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels


def check_bf16(device: torch.device) -> None:
    """Raises ValueError where products in bfloat16 gain nothing, or where torch errs in them.

    Older versions keep a weight's cast for as long as autocast lasts: one made where no gradient is
    asked for then has none for what is computed later.
    """
    if device.type != "cuda":
        raise ValueError(f"bf16 on {device.type!r} gains nothing; use device='cuda' or drop it")
    x, weight = torch.ones(1, 1), torch.ones(1, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            F.linear(x, weight)
        kept = F.linear(x, weight).requires_grad
    if not kept:
        raise ValueError(f"torch {torch.__version__} loses gradients in bf16; update it or drop it")


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
        if kernels.fits(logits) and not logits.requires_grad:
            return kernels.two_hot_decode(logits.contiguous(), _bins(self))
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


@functools.cache
def _bins(two_hot: TwoHot) -> Tensor:
    return two_hot.bins(torch.empty(0))


def norm_mish(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns Mish(LayerNorm(x + bias)), LayerNorm with gain and shift, for x (..., d).

    The parameters are (d,), or (k, d) for x (k, m, d). In float32 on the CPU it is one kernel.
    """
    if not kernels.fits(x):
        return _plain_mish(x, bias, gain, shift)
    call = _NormMish.apply if torch.is_grad_enabled() else kernels.norm_mish
    return call(x.contiguous(), bias, gain, shift)


def norm_simnorm(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns SimNorm(LayerNorm(x + bias)), in groups of 8; takes what `norm_mish` takes."""
    if not kernels.fits(x) or x.shape[-1] % kernels.GROUP:
        return _plain_simnorm(x, bias, gain, shift)
    call = _NormSimnorm.apply if torch.is_grad_enabled() else kernels.norm_simnorm
    return call(x.contiguous(), bias, gain, shift)


class NormedLinear(nn.Module):
    """A linear layer, LayerNorm, then Mish (or what `activation` does in place of Mish).

    Weights are a truncated normal of deviation 0.02 drawn from `rng`; biases begin at 0.
    """

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator, activation=norm_mish):
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((outputs, inputs), rng))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.activation = activation

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps parts (..., ·), joined along the last axis, to (..., outputs)."""
        return self.activation(joined_linear(parts, self.weight), self.bias, self.gain, self.shift)


class Linear(nn.Module):
    """A plain last layer: truncated normal weights from `rng`, or zeros where `rng` is None."""

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator | None):
        super().__init__()
        shape = (outputs, inputs)
        weight = torch.zeros(shape) if rng is None else truncated_normal(shape, rng)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., inputs) to (..., outputs)."""
        return linear(x, self.weight, self.bias)


class MLP(nn.Module):
    """Hidden NormedLinear layers of `sizes` and a last layer.

    The last layer is a NormedLinear with the activation `last`, or plain where `last` is None;
    `zero` makes a plain last layer begin at 0.
    """

    def __init__(self, sizes: Sequence[int], rng: torch.Generator, last=None, zero: bool = False):
        super().__init__()
        layers = [NormedLinear(i, o, rng) for i, o in itertools.pairwise(sizes[:-1])]
        if last is not None:
            layers.append(NormedLinear(sizes[-2], sizes[-1], rng, last))
        else:
            layers.append(Linear(sizes[-2], sizes[-1], None if zero else rng))
        self.layers = nn.ModuleList(layers)

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps parts (..., ·), joined as by `joined_linear`, to (..., outputs)."""
        first, *rest = self.layers
        x = first(*parts)
        for layer in rest:
            x = layer(x)
        return x


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
        *parts: Tensor,
        members: Tensor | None = None,
        mask: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Maps parts (m, ·), joined, to (k, m, outputs), for all or for k distinct `members`.

        members: (k,) int64. mask: (k, m, hidden), multiplies the first linear outputs (see
        `dropout_mask`). `frozen` lets a gradient reach the parts but no weight.
        """

        weights, biases, gains, shifts = (
            [p.detach() if frozen else p for p in group]
            for group in (self.weight, self.bias, self.gain, self.shift)
        )
        x = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        if kernels.fits(x):
            chosen = range(self.count) if members is None else members.tolist()
            # Parted once: then a member's gradient is not as large as all of them together.
            layers = [[p.unbind() for p in group] for group in (weights, biases, gains, shifts)]
            return torch.stack(
                [
                    _member(x, *([p[k] for p in group] for group in layers), mask, i)
                    for i, k in enumerate(chosen)
                ]
            )
        if members is not None:
            weights, biases, gains, shifts = (
                [p[members] for p in group] for group in (weights, biases, gains, shifts)
            )
        for weight, bias, gain, shift in zip(weights, biases, gains, shifts, strict=False):
            x = torch.matmul(x, weight.transpose(1, 2))
            if mask is not None:
                x, bias, mask = (x + bias[:, None]) * mask, torch.zeros_like(bias), None
            x = norm_mish(x, bias, gain, shift)
        return torch.matmul(x, weights[-1].transpose(1, 2)) + biases[-1][:, None]


def _member(x: Tensor, weights, biases, gains, shifts, mask: Tensor | None, i: int) -> Tensor:
    """Maps x (m, inputs) through one MLP of an ensemble; the i-th mask is its own."""
    for weight, bias, gain, shift in zip(weights, biases, gains, shifts, strict=False):
        x = linear(x, weight)
        if mask is not None:
            x, bias, mask = x.add_(bias).mul_(mask[i]), torch.zeros_like(bias), None
        x = norm_mish(x, bias, gain, shift)
    return linear(x, weights[-1], biases[-1])


# ---- what the layers are made of


def joined_linear(parts: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Returns weight times the parts (..., ·) joined along the last axis, (..., outputs).

    The first part may be (n, ·) where the others are (m, ·), m a multiple of n: then each of its
    rows stands for m / n rows in turn, and is multiplied once.
    """
    if len(parts) == 1:
        return linear(parts[0], weight)
    head, tail = parts[0], torch.cat(parts[1:], -1) if len(parts) > 2 else parts[1]
    if head.shape[:-1] == tail.shape[:-1]:
        return linear(torch.cat((head, tail), -1), weight)
    width = head.shape[-1]
    once = F.linear(head, weight[:, :width])
    if len(head) > 1:
        once = once.repeat_interleave(len(tail) // len(head), 0)
    return torch.addmm(once, tail, weight[:, width:].t())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns weight (outputs, inputs) times x (..., inputs), plus bias: (..., outputs)."""
    if not kernels.fits(x):
        return F.linear(x, weight, bias)
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    call = _Linear.apply if torch.is_grad_enabled() else kernels.product
    out = call(rows, weight, bias)
    return out if x.ndim == 2 else out.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight, bias)
        return kernels.product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight, bias = ctx.saved_tensors
        needs = _asked(ctx)
        if torch.is_grad_enabled():
            return _second(F.linear, (x, weight, bias), needs, grad)
        return (
            kernels.product(grad, weight.t()) if needs[0] else None,
            kernels.product(grad.t(), x.t()) if needs[1] else None,
            grad.sum(0) if needs[2] else None,
        )


def _asked(ctx) -> list[bool]:
    """Returns of which inputs the running pass asks the gradient.

    Where an input needs one, `autograd.grad` may still have been asked for others alone: to plan by
    the gradient of actions would else cost that of all weights as well.
    """
    found = list(ctx.needs_input_grad)
    for i, (node, _) in enumerate(ctx.next_functions):
        if found[i] and node is not None:
            try:
                found[i] = torch._C._will_engine_execute_node(node)
            except RuntimeError:  # what torch says of a leaf that was asked for
                found[i] = True
    return found


def distinct_rows(x: Tensor) -> Tensor:
    """Returns the n rows of which the m rows of x (m, d) are repetitions, m / n each, or x.

    It looks on the CPU alone: elsewhere to know would cost more than it saves.
    """
    if x.device.type != "cpu" or len(x) < 2 or not torch.equal(x[0], x[1]):
        return x
    # Repetitions are equal blocks: as many rows as equal the first, unless its neighbour does too.
    block = len(x) if torch.equal(x[0], x[-1]) else int((x == x[0]).all(1).int().argmin())
    rows = x[::block]
    if len(x) % block or not torch.equal(
        x.unflatten(0, (-1, block)), rows[:, None].expand(-1, block, -1)
    ):
        return x
    return rows


def _norm(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    if bias.ndim == 2:
        bias, gain, shift = (p.unsqueeze(1) for p in (bias, gain, shift))
    return F.layer_norm(x + bias, x.shape[-1:]) * gain + shift


def _plain_mish(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return F.mish(_norm(x, bias, gain, shift))


def _plain_simnorm(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return simnorm(_norm(x, bias, gain, shift))


class _NormMish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, gain, shift):
        ctx.save_for_backward(x, bias, gain, shift)
        return kernels.norm_mish(x, bias, gain, shift)

    @staticmethod
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _second(_plain_mish, inputs, ctx.needs_input_grad, grad)
        return kernels.norm_mish_backward(*inputs, grad.contiguous())


class _NormSimnorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, gain, shift):
        y = kernels.norm_simnorm(x, bias, gain, shift)
        ctx.save_for_backward(x, bias, gain, shift, y)
        return y

    @staticmethod
    def backward(ctx, grad):
        *inputs, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _second(_plain_simnorm, inputs, ctx.needs_input_grad, grad)
        return kernels.norm_simnorm_backward(*inputs[:3], y, grad.contiguous())


def _second(plain, inputs: Sequence, needs: Sequence[bool], grad: Tensor) -> tuple:
    """Returns the gradients by torch's own operations, for a second derivative to pass through."""
    asked = [p for p, need in zip(inputs, needs, strict=True) if need]
    found = iter(torch.autograd.grad(plain(*inputs), asked, grad, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def dropout_mask(shape: tuple[int, ...], share: float, rng: torch.Generator) -> Tensor:
    """Returns float32 factors: 0 with probability `share` in (0, 1), else 1 / (1 - share)."""
    mask = torch.full(shape, 1 / (1 - share), device=rng.device)
    if rng.device.type != "cpu":
        return mask.mul_(torch.empty_like(mask).bernoulli_(1 - share, generator=rng))
    # Gaps between what is dropped are geometric: few draws instead of one per factor. So many are
    # drawn that all factors are covered but for a chance below 1e-20.
    expected = mask.numel() * share
    gaps = torch.empty(int(expected + 10 * expected**0.5 + 50)).geometric_(share, generator=rng)
    places = gaps.long().cumsum(0) - 1
    mask.view(-1)[places[places < mask.numel()]] = 0
    return mask


def truncated_normal(shape: tuple[int, ...], rng: torch.Generator, std: float = 0.02) -> Tensor:
    """Returns float32 draws of N(0, std^2) within 2 units of 0, on the default device."""
    weight = torch.empty(shape)
    return weight if weight.is_meta else nn.init.trunc_normal_(weight, std=std, generator=rng)


def squashed_gaussian(
    mean: Tensor,
    raw: Tensor,
    noise: Tensor,
    low: float = -10.0,
    high: float = 2.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns tanh(mean + std noise) and the log density before the tanh.

    mean, raw, noise: (..., nu); log std = low + (high - low) (tanh(raw) + 1) / 2. Where `mask`
    (..., nu) is 0, so are the mean, the log std and the noise. Returns the actions (..., nu) in
    [-1, 1] and the densities (...).
    """
    log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
    if mask is not None:
        mean, log_std, noise = mean * mask, log_std * mask, noise * mask
    density = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
    return torch.tanh(mean + noise * log_std.exp()), density
