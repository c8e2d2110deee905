"""Rates, averages and parts of a batch are what their formulas say, and go on where they stood."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from umwelten.optimise import Optimiser, warm_cosine


class Point(nn.Module):
    """Three weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def slope(module):
    """Returns a loss whose gradient is the same everywhere: 2, -1 and 3 for each row."""
    gradient = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)
    return lambda batch: ((batch["x"] @ (module.weight * gradient)[:, None]).sum(), len(batch["x"]))


def moves(updates, **options):
    """Yields the weights after each update down a constant slope."""
    point = Point()
    optimiser = Optimiser(point, **options)
    for _ in range(updates):
        told = optimiser.update({"x": torch.ones(4, 3, dtype=torch.float64)}, slope(point))
        yield point.weight.detach().clone(), optimiser.average.weight.detach().clone(), told


def test_the_rate_rises_in_equal_steps_and_falls_by_half_a_cosine():
    found = [warm_cosine(k, 4, 12) for k in (0, 1, 2, 3, 4, 6, 8, 10, 12, 13, 1000)]
    quarter = math.sqrt(0.5) / 2
    falls = [1.0, 0.5 + quarter, 0.5, 0.5 - quarter, 0.0, 0.0, 0.0]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, *falls], abs=1e-15)
    assert [warm_cosine(k, 0, 0) for k in (0, 7, 10**6)] == [1.0] * 3
    assert [warm_cosine(k, 2, 0) for k in (0, 1, 2, 10**6)] == [0.5, 1.0, 1.0, 1.0]
    assert warm_cosine(3, 3, 3) == 1.0 and warm_cosine(4, 3, 3) == 0.0  # nothing left to fall in


def test_the_cosine_is_torchs_own():
    weight = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 30)
    for k in range(30):
        assert theirs.get_last_lr()[0] == pytest.approx(warm_cosine(k, 0, 30), abs=1e-12)
        sgd.step(), theirs.step()


def test_weights_move_by_the_rate_of_the_moment():
    """Down a constant slope Adam's step is the rate itself, whatever the slope."""
    before, signs = Point().weight.detach(), torch.tensor([1.0, -1.0, 1.0])
    for k, (after, _, told) in enumerate(moves(12, rate=0.1, warmup=3, cosine=10, decay=0.0)):
        rate = 0.1 * warm_cosine(k, 3, 10)
        assert torch.allclose(before - after, rate * signs.double(), atol=1e-8)
        assert float(told["rate"]) == pytest.approx(rate)
        assert float(told["gradient"]) == pytest.approx(math.sqrt(14))
        before = after


def test_the_average_is_its_closed_form_and_that_of_none_the_weights():
    weights, averages = [], []
    for weight, average, _ in moves(20, rate=0.1, ema=0.9):
        weights.append(weight.numpy()), averages.append(average.numpy())
    for k in range(20):
        share = 0.1 * 0.9 ** np.arange(k, -1.0, -1)
        share[0] = 0.9**k  # it begins as the weights after the first update
        assert share.sum() == pytest.approx(1)
        assert np.allclose(averages[k], share @ np.array(weights[: k + 1]), atol=1e-12)
    assert not np.allclose(averages[-1], weights[-1], atol=1e-3)
    assert all(torch.equal(w, a) for w, a, _ in moves(5, ema=0.0))


def regression(accumulate, whole=True, rows=12, updates=8):
    """Returns the weights after a regression whose rows count unevenly, in parts."""
    rng = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) / 2)
    optimiser = Optimiser(net, rate=1e-2, ema=0.5, accumulate=accumulate)

    def loss(part):
        error = (net(part["x"]) - part["y"]).square().mean(1) * part["counts"]
        count = part["counts"].sum()
        return (error.sum(), count) if whole else (error.sum() / count, torch.tensor(1.0))

    for _ in range(updates):
        x, y = (torch.randn(rows, d, generator=rng) for d in (5, 2))
        counts = torch.rand(rows, generator=rng) < torch.linspace(1.2, 0.1, rows)
        told = optimiser.update({"x": x, "y": y, "counts": counts.float()}, loss)
    return torch.cat([p.detach().flatten() for p in optimiser.average.parameters()]), told


@pytest.mark.parametrize("parts", [2, 3, 5, 12])
def test_parts_of_a_batch_are_the_batch(parts):
    (whole, told), (accumulated, also) = regression(1), regression(parts)
    assert torch.allclose(whole, accumulated, rtol=0, atol=1e-6)
    assert float(told["loss"]) == pytest.approx(float(also["loss"]), abs=1e-6)
    assert float(told["gradient"]) == pytest.approx(float(also["gradient"]), abs=1e-5)


def test_the_mean_of_the_parts_means_is_not_the_batchs():
    """The mistake that equal parts hide: rows that do not count are not spread evenly."""
    assert torch.allclose(regression(1)[0], regression(1, whole=False)[0], atol=1e-6)
    assert not torch.allclose(regression(1)[0], regression(2, whole=False)[0], atol=1e-4)


def test_it_goes_on_to_the_bit():
    options = {"rate": 0.1, "warmup": 3, "cosine": 20, "ema": 0.8}
    batch = {"x": torch.ones(4, 3, dtype=torch.float64)}

    def bent(point):
        return lambda part: ((part["x"] * point.weight).sin().sum(), len(part["x"]))

    whole, first, then, lost = Point(), Point(), Point(), Point()
    one = Optimiser(whole, **options)
    for _ in range(9):
        one.update(batch, bent(whole))
    parts = Optimiser(first, **options)
    for _ in range(4):
        parts.update(batch, bent(first))
    saved = {k: v.detach().clone() for k, v in parts.tensors().items()}
    for point, forget in ((then, ""), (lost, "moments")):
        other = Optimiser(point, **options)
        with torch.no_grad():
            for key, tensor in other.tensors().items():
                if not (forget and key.startswith(forget)):
                    tensor.copy_(saved[key])
        other.went_on(int(saved["updates"]))
        assert other.rate == parts.rate
        for _ in range(5):
            other.update(batch, bent(point))
        same = {k: torch.equal(v, one.tensors()[k]) for k, v in other.tensors().items()}
        assert all(same.values()) == (not forget)


@pytest.mark.parametrize("options", [
    {"rate": 0.0}, {"ema": 1.0}, {"ema": -0.1}, {"accumulate": 0}, {"decay": -1.0}, {"clip": 0.0},
    {"warmup": 5, "cosine": 4}, {"warmup": -1}, {"rate": math.nan},
])  # fmt: skip
def test_what_it_refuses(options):
    with pytest.raises(ValueError, match="choose"):
        Optimiser(Point(), **options)
