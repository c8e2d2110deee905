"""LaProp: its steps against the formulas written out, its clipping, its warm-up, its state."""

import copy

import numpy as np
import pytest
import torch

from umwelten.laprop import LaProp, clipped


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights(seed=0):
    g = generator(seed)
    shapes = [(4, 3), (5,), (2, 3, 2)]
    return [torch.nn.Parameter(torch.randn(s, generator=g)) for s in shapes]


def by_hand(x, gradients, lr, b1, b2, clip, floor, warmup):
    """The published rules, one after another, in float64."""
    v, m = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients):
        longest = clip * max(floor, np.sqrt((x**2).sum()))
        g = g / max(1.0, np.sqrt((g**2).sum()) / longest)
        v = b2 * v + (1 - b2) * g**2
        u = g / np.sqrt(v / (1 - b2 ** (t + 1)))
        m = b1 * m + (1 - b1) * u
        x = x - lr * min(1.0, t / warmup) * m / (1 - b1 ** (t + 1))
    return x


@pytest.mark.parametrize("size", [0.01, 10.0])  # below and above what is clipped
def test_steps_are_those_of_the_formulas(size):
    ours, g = weights(), generator(3)
    start = [p.detach().double().numpy().copy() for p in ours]
    optimiser = LaProp(ours, lr=0.01, betas=(0.8, 0.99), warmup=4)
    history = [[] for _ in ours]
    for _ in range(9):
        for p, seen in zip(ours, history, strict=True):
            p.grad = size * torch.randn(p.shape, generator=g)
            seen.append(p.grad.double().numpy().copy())
        optimiser.step()
    for p, x, seen in zip(ours, start, history, strict=True):
        want = by_hand(x, seen, 0.01, 0.8, 0.99, 0.3, 1e-3, 4)
        np.testing.assert_allclose(p.detach().numpy(), want, rtol=2e-5, atol=2e-6)


def test_the_first_step_of_a_warm_up_moves_nothing_and_the_second_does():
    (p, *_) = weights()
    before = p.detach().clone()
    optimiser = LaProp([p], lr=1.0, warmup=10)
    p.grad = torch.ones_like(p)
    optimiser.step()
    assert torch.equal(p, before)
    optimiser.step()
    # The gradient did not change, so each entry moved by the rate of the second step.
    torch.testing.assert_close(before - p.detach(), torch.full_like(p, 0.1), rtol=1e-4, atol=0)


def test_a_gradient_is_no_longer_than_a_share_of_its_parameter():
    ours = [torch.full((3,), 2.0), torch.zeros(3), torch.full((3,), 2.0)]
    given = [torch.full((3,), 50.0), torch.full((3,), 50.0), torch.full((3,), 0.1)]
    found = clipped(given, ours)
    assert abs(float(found[0].norm()) - 0.3 * 12**0.5) < 1e-5
    assert abs(float(found[1].norm()) - 0.3e-3) < 1e-8
    assert torch.equal(found[2], given[2]) and found[2] is not given[2]


def test_zero_gradients_leave_finite_zeros():
    (p, *_) = weights()
    before = p.detach().clone()
    optimiser = LaProp([p], warmup=0)
    p.grad = torch.zeros_like(p)
    optimiser.step()
    assert torch.equal(p, before)


def test_parameters_without_a_gradient_stay_and_others_move():
    one, two, _ = weights()
    before = two.detach().clone()
    optimiser = LaProp([one, two], warmup=0)
    one.grad = torch.ones_like(one)
    start = one.detach().clone()
    optimiser.step()
    assert torch.equal(two, before) and not torch.equal(one, start)


def test_its_state_goes_on_elsewhere_bit_for_bit():
    def step(optimiser, ours, seed):
        g = generator(seed)
        for p in ours:
            p.grad = torch.randn(p.shape, generator=g)
        optimiser.step()

    ours = weights()
    optimiser = LaProp(ours, warmup=5)
    for seed in range(3):
        step(optimiser, ours, seed)
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    other = LaProp(theirs, warmup=5)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for seed in range(3, 6):
        step(optimiser, ours, seed)
        step(other, theirs, seed)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("wrong", [{"clip": 0}, {"lr": -1}, {"betas": (1.0, 0.9)}, {"eps": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError):
        LaProp(weights(), **wrong)
