"""Fused float32 kernels of recurrent world models, for CPUs; knows no module and no gradient tape.

They are written and run as those of `kernels`: no number of threads changes a bit.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .kernels import LEAST, ONE, ROWS, TWO, ZERO, F, claim, exp, floats, run

EPSILON = F(1e-4)  # of RMSNorm
HIGH, THREE, FOUR = F(86), 3, 4


def norm_silu(x: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
    """Returns SiLU(RMSNorm(x + bias)) for x (..., d), RMSNorm with gain; bias and gain (d,).

    All is contiguous, here and below.
    """
    out = torch.empty_like(x)
    run(_norm_silu, *_rows(x, bias, gain), x, bias, gain, out)
    return out


def norm_silu_backward(
    x: Tensor, bias: Tensor, gain: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, bias and gain."""
    tasks, m, d = _rows(x, bias, gain)
    out, parts = torch.empty_like(x), torch.empty(2, tasks, d)
    run(_norm_silu_backward, tasks, m, d, x, bias, gain, grad, out, parts)
    return out, *parts.sum(1)


def gated(gates: Tensor, bias: Tensor, state: Tensor, blocks: int) -> Tensor:
    """Returns the next state (m, d) of a gated cell.

    gates: (m, 3 d), block after block the reset, candidate and update of its part; bias (3 d,) is
    added to them. The state moves by sigmoid(update - 1) to tanh(sigmoid(reset) candidate).
    """
    out = torch.empty_like(state)
    run(_gated, *_cells(gates, bias, state, blocks), gates, bias, state, out)
    return out


def gated_backward(
    gates: Tensor, bias: Tensor, state: Tensor, blocks: int, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of gates and state; that of the bias is the former's sum over rows."""
    of_gates, of_state = torch.empty_like(gates), torch.empty_like(state)
    sizes = _cells(gates, bias, state, blocks)
    run(_gated_backward, *sizes, gates, bias, state, grad, of_gates, of_state)
    return of_gates, of_state


def choose(logits: Tensor, noise: Tensor, unimix: float) -> Tensor:
    """Returns one-hot choices (m, s, c) among c classes, by logits (m, s, c) and noise (m, s).

    noise in [0, 1) picks the class whose share of the cumulated probabilities, mixed with a
    uniform share `unimix`, it falls into.
    """
    m, s, c = logits.shape
    if noise.shape != (m, s):
        raise ValueError(f"noise of shape {tuple(noise.shape)} does not fit {(m, s)} choices")
    out, shares = torch.empty_like(logits), torch.tensor([unimix])
    run(_choose, -(-m // ROWS), m, s, c, logits, noise, shares, out)
    return out


def expected(logits: Tensor, bins: Tensor) -> Tensor:
    """Returns sum softmax(logits) bins, (...), for logits (..., d) and bins (d,), -bins reversed.

    Equal logits give exactly 0: opposite bins are added first.
    """
    d = logits.shape[-1]
    m, out = logits.numel() // d, logits.new_empty(logits.shape[:-1])
    run(_expected, -(-m // ROWS), m, d, logits, bins, out)
    return out


def cross_entropy(logits: Tensor, aims: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cross entropies (m,) of logits (m, d) and the gradients (m, d) of their sum.

    Each of k aims (m, k) is shared by the two of the bins (d,), ascending, that it lies between,
    in proportion to how near they are; a row's k cross entropies are added.
    """
    (m, d), k = logits.shape, aims.shape[1]
    if aims.shape != (m, k) or bins.shape != (d,):
        shapes = [tuple(x.shape) for x in (aims, bins)]
        raise ValueError(f"aims and bins of shapes {shapes} do not fit logits {(m, d)}")
    out, slope = logits.new_empty(m), torch.empty_like(logits)
    run(_cross_entropy, -(-m // ROWS), m, d, k, logits, aims, bins, out, slope)
    return out, slope


def _rows(x: Tensor, *parameters: Tensor) -> tuple[int, int, int]:
    """Returns tasks, rows and width; ValueError where the parameters do not fit x."""
    d = x.shape[-1]
    if any(p.shape != (d,) for p in parameters):
        shapes = [tuple(p.shape) for p in parameters]
        raise ValueError(f"parameters of shapes {shapes} do not fit x of shape {tuple(x.shape)}")
    m = x.numel() // d
    return -(-m // ROWS), m, d


def _cells(gates: Tensor, bias: Tensor, state: Tensor, blocks: int) -> tuple[int, ...]:
    """Returns tasks, rows, blocks and a block's width; ValueError where shapes do not fit."""
    (m, d), wide = state.shape, 3 * state.shape[1]
    if gates.shape != (m, wide) or bias.shape != (wide,) or d % blocks:
        shapes = tuple(gates.shape), tuple(bias.shape), tuple(state.shape)
        raise ValueError(f"gates, bias and state of shapes {shapes} do not fit {blocks} blocks")
    return -(-m // ROWS), m, blocks, d // blocks


# ---- the kernels; words: counter, tasks, sizes, then addresses


@numba.njit(inline="always")
def _sigmoid(x):
    return ONE / (ONE + exp(min(max(-x, LEAST), HIGH)))


@numba.njit(inline="always")
def _tanh(x):
    return TWO * _sigmoid(TWO * x) - ONE


@numba.njit(inline="always")
def _scale(x, bias):
    """Returns one over the root mean square of a row x + bias."""
    total = ZERO
    for j in range(x.size):
        total += (x[j] + bias[j]) * (x[j] + bias[j])
    return ONE / np.sqrt(total / F(x.size) + EPSILON)


def _norm_silu(words):
    tasks, m, d = words[1], words[2], words[3]
    xs, outs = numba.carray(floats(words[4]), (m, d)), numba.carray(floats(words[7]), (m, d))
    bias, gain = numba.carray(floats(words[5]), (d,)), numba.carray(floats(words[6]), (d,))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            x, out = xs[i], outs[i]
            scale = _scale(x, bias)
            for j in range(d):
                u = (x[j] + bias[j]) * scale * gain[j]
                out[j] = u * _sigmoid(u)


def _norm_silu_backward(words):
    tasks, m, d = words[1], words[2], words[3]
    xs, grads = numba.carray(floats(words[4]), (m, d)), numba.carray(floats(words[7]), (m, d))
    bias, gain = numba.carray(floats(words[5]), (d,)), numba.carray(floats(words[6]), (d,))
    outs = numba.carray(floats(words[8]), (m, d))
    parts = numba.carray(floats(words[9]), (2, tasks, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        of_bias, of_gain = parts[0, task], parts[1, task]
        for j in range(d):
            of_bias[j] = of_gain[j] = ZERO
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            x, grad, out = xs[i], grads[i], outs[i]
            scale, along = _scale(x, bias), ZERO
            for j in range(d):
                inner = (x[j] + bias[j]) * scale
                u = inner * gain[j]
                s = _sigmoid(u)
                slope = grad[j] * s * (ONE + u * (ONE - s))
                of_gain[j] += slope * inner
                out[j] = slope * gain[j]
                along += out[j] * inner
            along /= F(d)
            for j in range(d):
                out[j] = scale * (out[j] - (x[j] + bias[j]) * scale * along)
                of_bias[j] += out[j]


def _gated(words):
    tasks, m, g, d = words[1], words[2], words[3], words[4]
    gates = numba.carray(floats(words[5]), (m, g, THREE, d))
    bias = numba.carray(floats(words[6]), (g, THREE, d))
    states = numba.carray(floats(words[7]), (m, g, d))
    outs = numba.carray(floats(words[8]), (m, g, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            for k in range(g):
                gate, add, h, out = gates[i, k], bias[k], states[i, k], outs[i, k]
                for j in range(d):
                    reset = _sigmoid(gate[0, j] + add[0, j])
                    aim = _tanh(reset * (gate[1, j] + add[1, j]))
                    out[j] = h[j] + (aim - h[j]) * _sigmoid(gate[2, j] + add[2, j] - ONE)


def _gated_backward(words):
    tasks, m, g, d = words[1], words[2], words[3], words[4]
    gates = numba.carray(floats(words[5]), (m, g, THREE, d))
    bias = numba.carray(floats(words[6]), (g, THREE, d))
    states = numba.carray(floats(words[7]), (m, g, d))
    grads = numba.carray(floats(words[8]), (m, g, d))
    of_gates = numba.carray(floats(words[9]), (m, g, THREE, d))
    of_states = numba.carray(floats(words[10]), (m, g, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            for k in range(g):
                gate, add, h, grad = gates[i, k], bias[k], states[i, k], grads[i, k]
                of_gate, of_h = of_gates[i, k], of_states[i, k]
                # A loop for each output: of more the compiler makes no vector code.
                for j in range(d):
                    reset = _sigmoid(gate[0, j] + add[0, j])
                    aim = _tanh(reset * (gate[1, j] + add[1, j]))
                    inner = grad[j] * _sigmoid(gate[2, j] + add[2, j] - ONE)
                    of_gate[1, j] = inner * (ONE - aim * aim) * reset
                for j in range(d):
                    reset = _sigmoid(gate[0, j] + add[0, j])
                    of_gate[0, j] = of_gate[1, j] * (gate[1, j] + add[1, j]) * (ONE - reset)
                for j in range(d):
                    aim = _tanh(_sigmoid(gate[0, j] + add[0, j]) * (gate[1, j] + add[1, j]))
                    update = _sigmoid(gate[2, j] + add[2, j] - ONE)
                    of_gate[2, j] = grad[j] * (aim - h[j]) * update * (ONE - update)
                for j in range(d):
                    of_h[j] = grad[j] * (ONE - _sigmoid(gate[2, j] + add[2, j] - ONE))


def _choose(words):
    tasks, m, s, c = words[1], words[2], words[3], words[4]
    logits = numba.carray(floats(words[5]), (m, s, c))
    noise = numba.carray(floats(words[6]), (m, s))
    unimix = numba.carray(floats(words[7]), (1,))[0]
    outs = numba.carray(floats(words[8]), (m, s, c))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            for k in range(s):
                x, out = logits[i, k], outs[i, k]
                peak, total = x[0], ZERO
                for j in range(1, c):
                    peak = max(peak, x[j])
                for j in range(c):
                    out[j] = exp(max(x[j] - peak, LEAST))
                    total += out[j]
                aim, sum_, index = noise[i, k], ZERO, 0
                part, least = (ONE - unimix) / total, unimix / F(c)
                for j in range(c):
                    sum_ += part * out[j] + least
                    index += aim >= sum_
                    out[j] = ZERO
                out[min(index, c - 1)] = ONE


def _expected(words):
    tasks, m, d = words[1], words[2], words[3]
    xs, bins = numba.carray(floats(words[4]), (m, d)), numba.carray(floats(words[5]), (d,))
    out = numba.carray(floats(words[6]), (m,))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            x = xs[i]
            peak = x[0]
            for j in range(1, d):
                peak = max(peak, x[j])
            total, mean = ZERO, ZERO
            for j in range(d // 2):
                low = exp(max(x[j] - peak, LEAST))
                high = exp(max(x[d - 1 - j] - peak, LEAST))
                total += low + high
                mean += (high - low) * bins[d - 1 - j]
            if d % 2:
                total += exp(max(x[d // 2] - peak, LEAST))
            out[i] = mean / total


def _cross_entropy(words):
    tasks, m, d, k = words[1], words[2], words[3], words[4]
    xs, aims = numba.carray(floats(words[5]), (m, d)), numba.carray(floats(words[6]), (m, k))
    bins, out = numba.carray(floats(words[7]), (d,)), numba.carray(floats(words[8]), (m,))
    slopes = numba.carray(floats(words[9]), (m, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        for i in range(task * ROWS, min(task * ROWS + ROWS, m)):
            x, slope = xs[i], slopes[i]
            peak = x[0]
            for j in range(1, d):
                peak = max(peak, x[j])
            total = ZERO
            for j in range(d):
                e = exp(max(x[j] - peak, LEAST))
                slope[j] = e
                total += e
            every = F(k) / total
            for j in range(d):
                slope[j] *= every
            found = F(k) * (peak + np.log(total))
            for a in range(k):
                aim = min(max(aims[i, a], bins[0]), bins[d - 1])
                j, last = 0, d - 1
                while last - j > 1:  # bins[j] <= aim < bins[last], or last is the end
                    middle = (j + last) // 2
                    if aim < bins[middle]:
                        last = middle
                    else:
                        j = middle
                share = (aim - bins[j]) / (bins[j + 1] - bins[j])
                found -= (ONE - share) * x[j] + share * x[j + 1]
                slope[j] -= ONE - share
                slope[j + 1] -= share
            out[i] = found
