"""Kernels of recurrent models: their formulas in float64, NaN, the same bits on any threads."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umwelten import fused
from umwelten.blocks import SymexpTwoHot

# Rows that do not fill the last task, widths that do not fill the last vector.
SHAPES = pytest.mark.parametrize("shape", [(1, 8), (37, 104), (5, 512)])


def draws(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def truth(formula, grad, *parts):
    """Returns the value and the gradients of all parts in float64, by autograd."""
    parts = [p.double().requires_grad_() for p in parts]
    y = formula(*parts)
    return y.detach(), torch.autograd.grad((y * grad.double()).sum(), parts)


def near(got, want, share=2e-6):
    """Asserts that float32 results differ by a few roundings of the largest number."""
    got, want = got.detach().double(), want.detach()
    scale = float(want.abs().max()) + 1e-12
    assert float((got - want).abs().max()) / scale < share


def normed(x, bias, gain):
    y = x + bias
    return F.silu(y / (y.square().mean(-1, keepdim=True) + 1e-4).sqrt() * gain)


def cell(gates, bias, state):
    gates = (gates + bias).unflatten(-1, (4, 3, -1))
    reset, candidate, update = (g.flatten(1) for g in gates.unbind(2))
    share = torch.sigmoid(update - 1)
    return share * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - share) * state


@SHAPES
def test_the_norm_and_its_gradients_are_those_of_the_formula(shape):
    d = shape[-1]
    parts = draws(*shape, scale=3.0), draws(d, seed=1), 1 + draws(d, seed=2, scale=0.5)
    grad = draws(*shape, seed=3)
    want, gradients = truth(normed, grad, *parts)
    near(fused.norm_silu(*parts), want)
    for got, expected in zip(fused.norm_silu_backward(*parts, grad), gradients, strict=True):
        near(got, expected)


@SHAPES
def test_the_cell_and_its_gradients_are_those_of_the_formula(shape):
    m, d = shape
    parts = draws(m, 3 * d, scale=2.0), draws(3 * d, seed=1), draws(m, d, seed=2)
    grad = draws(m, d, seed=3)
    want, (of_gates, of_bias, of_state) = truth(cell, grad, *parts)
    near(fused.gated(*parts, 4), want)
    gates, state = fused.gated_backward(*parts, 4, grad)
    near(gates, of_gates)
    near(gates.sum(0), of_bias)
    near(state, of_state)


@pytest.mark.parametrize("classes", [2, 4, 31])
def test_choices_are_where_the_noise_falls_among_the_probabilities(classes):
    logits, noise = draws(50, 6, classes, scale=3.0), torch.rand(50, 6)
    p = 0.9 * logits.double().softmax(-1) + 0.1 / classes
    index = (noise[..., None] >= p.cumsum(-1)).sum(-1).clamp(max=classes - 1)
    assert torch.equal(fused.choose(logits, noise, 0.1), F.one_hot(index, classes).float())


def test_expectations_and_cross_entropies_are_those_of_the_formula():
    two_hot = SymexpTwoHot()
    logits, bins = draws(37, 255, scale=2.0), two_hot.bins
    near(fused.expected(logits, bins), (logits.double().softmax(-1) * bins.double()).sum(-1), 1e-5)
    assert not fused.expected(torch.full((3, 255), 7.0), bins).any()
    aims = torch.cat([draws(35, 2, scale=50.0), torch.tensor([[0.0, 1e30], [-1e30, bins[200]]])])
    weights = sum(two_hot.encode(x).double() for x in aims.unbind(1))
    want, (slope,) = truth(lambda x: -(weights * x.log_softmax(-1)).sum(-1), torch.ones(37), logits)
    got, got_slope = fused.cross_entropy(logits, aims, bins)
    near(got, want)
    near(got_slope, slope)


def test_what_is_not_a_number_stays_one():
    x, bias, gain = draws(3, 8), torch.zeros(8), torch.ones(8)
    x[1, 2] = np.nan
    bins = SymexpTwoHot(9, 2.0).bins
    for out in (
        fused.norm_silu(x, bias, gain),
        fused.norm_silu_backward(x, bias, gain, torch.ones(3, 8))[0],
        fused.gated(torch.cat([x] * 3, 1), torch.zeros(24), x, 4),
        fused.expected(F.pad(x, (0, 1)), bins)[:, None],
        fused.cross_entropy(F.pad(x, (0, 1)), torch.zeros(3, 1), bins)[0][:, None],
        fused.cross_entropy(torch.zeros(3, 9), x[:, 2:3].contiguous(), bins)[0][:, None],
    ):
        assert out[1].isnan().any() and not out[[0, 2]].isnan().any()


def test_shapes_that_do_not_fit_are_refused():
    for call, text in (
        (lambda: fused.norm_silu(draws(3, 8), draws(7), draws(8)), "do not fit x"),
        (lambda: fused.gated(draws(3, 24), draws(24), draws(3, 8), 3), "do not fit 3 blocks"),
        (lambda: fused.choose(draws(3, 2, 4), draws(3, 3), 0.0), "does not fit"),
        (lambda: fused.cross_entropy(draws(3, 9), draws(2, 1), draws(9)), "do not fit logits"),
        (lambda: fused.norm_silu(draws(8, 3).t(), draws(8), draws(8)), "not contiguous"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_the_number_of_threads_changes_no_bit():
    x, bias, gain, grad = draws(100, 64), draws(64, seed=1), draws(64, seed=2), draws(100, 64)
    gates, wide = draws(100, 192, seed=3), draws(192, seed=4)
    bins, noise = SymexpTwoHot(63).bins, torch.rand(100, 16)

    def everything():
        return [
            fused.norm_silu(x, bias, gain), *fused.norm_silu_backward(x, bias, gain, grad),
            fused.gated(gates, wide, x, 4), *fused.gated_backward(gates, wide, x, 4, grad),
            fused.choose(x.view(100, 16, 4), noise, 0.01), fused.expected(x[:, :63].clone(), bins),
            *fused.cross_entropy(x[:, :63].clone(), grad[:, :2].clone(), bins),
        ]  # fmt: skip

    threads, found = torch.get_num_threads(), []
    for n in (1, 3):
        torch.set_num_threads(n)
        found.append(everything())
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
