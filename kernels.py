"""Fused float32 kernels for CPUs, on the threads that torch keeps; knows no module, no gradient.

A kernel is a C function that takes an array of addresses and sizes. It splits its rows into tasks,
and threads claim tasks from a counter; a task's work and its place in the output never depend on
who claims it, so results are bit for bit the same for any number of threads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

GROUP = 8  # neighbours that share a simplex
ROWS = 16  # rows of a task
NARROW = 16  # sides of a matrix below which oneDNN has nothing to gain, or a slow way to do it
EPSILON = np.float32(1e-5)
# What keeps sums in vector registers, but neither assumes that numbers are finite nor hides a NaN.
FAST = {"reassoc", "contract", "arcp", "nsz"}


_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def fits(x: Tensor) -> bool:
    """Returns whether x may be used here: float32 on the CPU, not traced by a compiler."""
    return x.is_cpu and x.dtype is torch.float32 and not torch.compiler.is_compiling()


def norm_mish(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns Mish(LayerNorm(x + bias)), LayerNorm with gain and shift.

    x: (..., d), or (g, ..., d) for parameters (g, d). All contiguous, here and below.
    """
    out = torch.empty_like(x)
    run(_norm_mish, *_grid(x, bias, gain, shift), x, bias, gain, shift, out)
    return out


def norm_mish_backward(
    x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of x, bias, gain and shift."""
    out, parts, sizes = torch.empty_like(x), _parts(x, bias), _grid(x, bias, gain, shift)
    run(_norm_mish_backward, *sizes, x, bias, gain, shift, grad, out, parts)
    return out, *parts.sum(1).view(3, *bias.shape)


def norm_simnorm(x: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Returns the softmax of LayerNorm(x + bias) over every 8 neighbours; d is a multiple of 8."""
    out = torch.empty_like(x)
    run(_norm_simnorm, *_grid(x, bias, gain, shift), x, bias, gain, shift, out)
    return out


def norm_simnorm_backward(
    x: Tensor, bias: Tensor, gain: Tensor, y: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of x, bias, gain and shift; y is what `norm_simnorm` returned."""
    out, parts = torch.empty_like(x), _parts(x, bias)
    run(_norm_simnorm_backward, *_grid(x, bias, gain), x, bias, gain, y, grad, out, parts)
    return out, *parts.sum(1).view(3, *bias.shape)


def two_hot_decode(x: Tensor, bins: Tensor) -> Tensor:
    """Returns symexp(sum softmax(x) bins), (...), for logits x (..., d) and bins (d,)."""
    m, d = x.numel() // x.shape[-1], x.shape[-1]
    out = x.new_empty(x.shape[:-1])
    run(_two_hot_decode, -(-m // ROWS), m, d, x, bins, out)
    return out


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x (m, k) times the transpose of weight (o, k), plus bias (o,): (m, o).

    x and weight may be strided.

    Where torch's usual library keeps to half of the vector units (MKL on processors that are not
    Intel's), oneDNN, which torch has too, does it in half the time. Narrow ones stay.
    """
    if _onednn is None or min(*x.shape, *weight.shape) < NARROW or not fits(x):
        return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
    return _onednn(_dense(x), _dense(weight), bias, "none", [], "")


def _dense(x: Tensor) -> Tensor:
    """Returns a matrix that fills its memory, by rows or by columns: oneDNN is slow on others."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def _grid(x: Tensor, *parameters: Tensor) -> tuple[int, int, int]:
    """Returns the number of tasks, the rows of a group and their width.

    Raises ValueError where the parameters are not of one size that fits x.
    """
    d, size = x.shape[-1], parameters[0].numel()
    if any(p.numel() != size or p.shape[-1] != d for p in parameters) or x.numel() % size:
        shapes = [tuple(p.shape) for p in parameters]
        raise ValueError(f"parameters of shapes {shapes} do not fit x of shape {tuple(x.shape)}")
    m = x.numel() // size
    return size // d * -(-m // ROWS), m, d


def _parts(x: Tensor, bias: Tensor) -> Tensor:
    """Returns room for what each task adds up by itself, in an order that no thread changes."""
    d, groups = x.shape[-1], bias.numel() // x.shape[-1]
    return torch.empty(3, -(-x.numel() // bias.numel() // ROWS), groups, d)


def run(kernel: Callable, tasks: int, *arguments: int | Tensor) -> None:
    """Runs a kernel on all its tasks, on the threads of torch; ValueError for strided memory."""
    words = [0, tasks]
    for a in arguments:
        if type(a) is int:
            words.append(a)
        elif a.is_contiguous():
            words.append(a.data_ptr())
        else:
            raise ValueError(f"memory of strides {a.stride()} is not contiguous; copy it first")
    words = (ctypes.c_int64 * len(words))(*words)
    function, pool = _compiled(kernel), _pool()
    if pool is None:
        function(words)
    else:
        pool(function, words, min(tasks, torch.get_num_threads()), 0)


@functools.cache
def _pool() -> Callable | None:
    """Returns the entry to the OpenMP threads of torch, or None where it has none to enter.

    A pool of our own would share the cores with theirs, which spins while it waits.
    """
    try:
        pool = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, TypeError, OSError):
        return None
    pool.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    pool.restype = None
    return pool


@functools.cache
def _compiled(kernel: Callable) -> Callable:
    signature = types.void(types.CPointer(types.int64))
    # The error model of numpy: a test for zero before each division would keep it scalar.
    options = {"cache": True, "fastmath": FAST, "error_model": "numpy"}
    address = numba.cfunc(signature, **options)(kernel).address
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


# ---- what kernels are made of


@intrinsic
def claim(typing, words):
    """Adds 1 to the first word, atomically, and returns what it was."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", arguments[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(words), generate


@intrinsic
def floats(typing, address):
    """Turns an address into a pointer to float32."""

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _nearest(typing, x):
    """Returns the whole number nearest to x, as float32."""

    def generate(context, builder, signature, arguments):
        rint = builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()])
        return builder.call(rint, arguments)

    return types.float32(types.float32), generate


@intrinsic
def _times_power_of_two(typing, x, n):
    """Returns x 2^n for a whole n, by adding n to the exponent of x."""

    def generate(context, builder, signature, arguments):
        word, (x, n) = ir.IntType(32), arguments
        shift = builder.shl(builder.fptosi(n, word), ir.Constant(word, 23))
        return builder.bitcast(builder.add(builder.bitcast(x, word), shift), ir.FloatType())

    return types.float32(types.float32, types.float32), generate


F = np.float32
ONE, TWO, FOUR, ZERO = F(1), F(2), F(4), F(0)
LOG2E, LN2 = F(1.4426950408889634), F(0.6931471805599453)
# (exp(r) - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2], fitted at Chebyshev nodes
C2, C3, C4 = F(0.5), F(0.1666657338), F(0.04166655011)
C5, C6 = F(0.008363773874), F(0.001392692661)
LEAST, MOST = F(-86), F(20)


@numba.njit(inline="always")
def exp(x):
    """Returns exp(x) of a float32 in [-86, 88], to 2 units in the last place."""
    n = _nearest(x * LOG2E)
    r = x - n * LN2
    p = C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))
    return _times_power_of_two(ONE + r * (ONE + r * p), n)


@numba.njit(inline="always")
def _moments(x, bias):
    """Returns the mean of a row x + bias and one over its deviation."""
    d = F(x.size)
    mean = ZERO
    for j in range(x.size):
        mean += x[j] + bias[j]
    mean /= d
    variance = ZERO
    for j in range(x.size):
        variance += (x[j] + bias[j] - mean) * (x[j] + bias[j] - mean)
    return mean, ONE / np.sqrt(variance / d + EPSILON)


@numba.njit(inline="always")
def _mish_parts(u):
    """Returns mish(u) / u = w / (w + 2) with w = e (e + 2), and e, w at e = exp(u)."""
    e = exp(min(max(u, LEAST), MOST))  # from 20 on, w / (w + 2) is 1 in float32
    w = e * (e + TWO)
    return w / (w + TWO), e, w


# ---- the kernels; words: counter, tasks, rows of a group, width, then addresses


def _norm_mish(words):
    tasks, m, d = words[1], words[2], words[3]
    blocks = (m + ROWS - 1) // ROWS
    shape, flat = (tasks // blocks, m, d), (tasks // blocks, d)
    xs, biases = numba.carray(floats(words[4]), shape), numba.carray(floats(words[5]), flat)
    gains, shifts = numba.carray(floats(words[6]), flat), numba.carray(floats(words[7]), flat)
    outs = numba.carray(floats(words[8]), shape)
    while True:
        task = claim(words)
        if task >= tasks:
            return
        g, first = task // blocks, task % blocks * ROWS
        bias, gain, shift = biases[g], gains[g], shifts[g]
        last = min(first + ROWS, m)
        for i in range(first, last, 2):  # two rows at a time load constants half as often
            k = min(i + 1, last - 1)
            x, y, out, other = xs[g, i], xs[g, k], outs[g, i], outs[g, k]
            mean, scale = _moments(x, bias)
            mean_y, scale_y = _moments(y, bias)
            for j in range(d):
                u = (x[j] + bias[j] - mean) * scale * gain[j] + shift[j]
                v = (y[j] + bias[j] - mean_y) * scale_y * gain[j] + shift[j]
                of_u, _, _ = _mish_parts(u)
                of_v, _, _ = _mish_parts(v)
                out[j] = u * of_u
                other[j] = v * of_v


def _norm_mish_backward(words):
    tasks, m, d = words[1], words[2], words[3]
    blocks = (m + ROWS - 1) // ROWS
    shape, flat = (tasks // blocks, m, d), (tasks // blocks, d)
    xs, biases = numba.carray(floats(words[4]), shape), numba.carray(floats(words[5]), flat)
    gains, shifts = numba.carray(floats(words[6]), flat), numba.carray(floats(words[7]), flat)
    grads, outs = numba.carray(floats(words[8]), shape), numba.carray(floats(words[9]), shape)
    parts = numba.carray(floats(words[10]), (3, blocks, tasks // blocks, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        g, first = task // blocks, task % blocks * ROWS
        bias, gain, shift = biases[g], gains[g], shifts[g]
        sums = parts[0, task % blocks, g], parts[1, task % blocks, g], parts[2, task % blocks, g]
        _clear(sums)
        for i in range(first, min(first + ROWS, m)):
            x, grad, out = xs[g, i], grads[g, i], outs[g, i]
            mean, scale = _moments(x, bias)
            for j in range(d):
                u = (x[j] + bias[j] - mean) * scale * gain[j] + shift[j]
                ratio, e, w = _mish_parts(u)
                slope = FOUR * e * (e + ONE) / ((w + TWO) * (w + TWO))
                out[j] = grad[j] * (ratio + u * slope)
            _norm_backward(x, bias, gain, mean, scale, out, sums)


def _norm_simnorm(words):
    tasks, m, d = words[1], words[2], words[3]
    blocks = (m + ROWS - 1) // ROWS
    shape, flat = (tasks // blocks, m, d), (tasks // blocks, d)
    xs, biases = numba.carray(floats(words[4]), shape), numba.carray(floats(words[5]), flat)
    gains, shifts = numba.carray(floats(words[6]), flat), numba.carray(floats(words[7]), flat)
    outs = numba.carray(floats(words[8]), shape)
    while True:
        task = claim(words)
        if task >= tasks:
            return
        g, first = task // blocks, task % blocks * ROWS
        bias, gain, shift = biases[g], gains[g], shifts[g]
        for i in range(first, min(first + ROWS, m)):
            x, out = xs[g, i], outs[g, i]
            mean, scale = _moments(x, bias)
            for j in range(d):
                out[j] = (x[j] + bias[j] - mean) * scale * gain[j] + shift[j]
            for k in range(d // GROUP):
                peak = out[k * GROUP]
                for j in range(1, GROUP):
                    peak = max(peak, out[k * GROUP + j])
                total = ZERO
                for j in range(GROUP):
                    e = exp(max(out[k * GROUP + j] - peak, LEAST))
                    out[k * GROUP + j] = e
                    total += e
                for j in range(GROUP):
                    out[k * GROUP + j] /= total


def _norm_simnorm_backward(words):
    tasks, m, d = words[1], words[2], words[3]
    blocks = (m + ROWS - 1) // ROWS
    shape, flat = (tasks // blocks, m, d), (tasks // blocks, d)
    xs, biases = numba.carray(floats(words[4]), shape), numba.carray(floats(words[5]), flat)
    gains, ys = numba.carray(floats(words[6]), flat), numba.carray(floats(words[7]), shape)
    grads, outs = numba.carray(floats(words[8]), shape), numba.carray(floats(words[9]), shape)
    parts = numba.carray(floats(words[10]), (3, blocks, tasks // blocks, d))
    while True:
        task = claim(words)
        if task >= tasks:
            return
        g, first = task // blocks, task % blocks * ROWS
        bias = biases[g]
        sums = parts[0, task % blocks, g], parts[1, task % blocks, g], parts[2, task % blocks, g]
        _clear(sums)
        for i in range(first, min(first + ROWS, m)):
            x, y, grad, out = xs[g, i], ys[g, i], grads[g, i], outs[g, i]
            for k in range(d // GROUP):
                total = ZERO
                for j in range(GROUP):
                    total += y[k * GROUP + j] * grad[k * GROUP + j]
                for j in range(GROUP):
                    out[k * GROUP + j] = y[k * GROUP + j] * (grad[k * GROUP + j] - total)
            mean, scale = _moments(x, bias)
            _norm_backward(x, bias, gains[g], mean, scale, out, sums)


@numba.njit(inline="always")
def _clear(sums):
    for j in range(sums[0].size):
        sums[0][j] = sums[1][j] = sums[2][j] = ZERO


@numba.njit(inline="always")
def _norm_backward(x, bias, gain, mean, scale, out, sums):
    """Turns the gradient behind a LayerNorm, in `out`, into the one before it; adds to the sums."""
    d, (of_bias, of_gain, of_shift) = F(x.size), sums
    total, along = ZERO, ZERO
    for j in range(x.size):
        inner = (x[j] + bias[j] - mean) * scale
        of_gain[j] += out[j] * inner
        of_shift[j] += out[j]
        out[j] *= gain[j]
        total += out[j]
        along += out[j] * inner
    total /= d
    along /= d
    for j in range(x.size):
        out[j] = scale * (out[j] - total - (x[j] + bias[j] - mean) * scale * along)
        of_bias[j] += out[j]


def _two_hot_decode(words):
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
            for j in range(d):
                e = exp(max(x[j] - peak, LEAST))
                total += e
                mean += e * bins[j]
            mean /= total
            size = exp(abs(mean)) - ONE
            out[i] = size if mean > ZERO else -size
