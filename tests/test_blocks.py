"""Blocks of recurrent models: initial scales, block structure, the gated cell and two-hot."""

import math

import numpy as np
import pytest
import torch

from umwelten.blocks import (
    MLP,
    BlockGRU,
    BlockLinear,
    Linear,
    RMSNorm,
    SymexpTwoHot,
    block_linear,
    draw,
    gated,
    mixed,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_weights_begin_with_the_deviation_of_their_fan_in_and_cut_off_at_two_of_it():
    layer = Linear(256, 300, generator())
    assert abs(float(layer.weight.detach().std()) * 16 - 1) < 0.01 and not layer.bias.any()
    assert float(layer.weight.detach().abs().max()) <= 2 * 1.1368 / 16
    assert abs(float(Linear(256, 300, generator(), 0.01).weight.detach().std()) * 1600 - 1) < 0.01
    assert not Linear(256, 300, generator(), 0.0).weight.any()
    # A block hears an eighth of the input, yet its scale is that of the whole.
    assert abs(float(BlockLinear(256, 512, 8, generator()).weight.detach().std()) * 16 - 1) < 0.01


def test_a_block_layer_is_a_block_diagonal_matrix():
    layer = BlockLinear(12, 8, 4, generator())
    with torch.no_grad():
        layer.bias.normal_(generator=generator(1))
    x = torch.randn(5, 12, generator=generator(2))
    matrix = torch.block_diag(*layer.weight.detach())
    torch.testing.assert_close(layer(x.view(5, 4, 3)), x @ matrix + layer.bias)
    with pytest.raises(ValueError, match="do not part"):
        BlockLinear(12, 9, 4, generator())


def test_the_norm_is_that_of_the_formula_and_keeps_the_dtype():
    norm = RMSNorm(6)
    with torch.no_grad():
        norm.gain.copy_(torch.arange(6.0))
    x = torch.randn(3, 6, generator=generator())
    y = x / (x.square().mean(1, keepdim=True) + 1e-4).sqrt() * torch.arange(6.0)
    torch.testing.assert_close(norm(x).detach(), y * torch.sigmoid(y))
    assert norm(x.bfloat16()).dtype is torch.bfloat16


def cell_by_hand(cell, h, inputs, width, blocks):
    """The gated cell in numpy, block after block."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def normed(x, gain):
        y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * gain
        return y * sigmoid(y)

    def array(p):
        return p.detach().double().numpy()

    heard = []
    for branch, x in zip(cell.branches, (h, *inputs), strict=True):
        linear, norm = branch
        y = x @ array(linear.weight).T + array(linear.bias)
        heard.append(normed(y, array(norm.gain)))
    heard, each = np.concatenate(heard, -1), width // blocks
    parts = [np.concatenate([h[:, i * each : (i + 1) * each], heard], -1) for i in range(blocks)]
    x = np.concatenate([p @ array(w) for p, w in zip(parts, cell.mix.weight, strict=True)], -1)
    x = normed(x + array(cell.mix.bias), array(cell.norm.gain))
    new = np.empty_like(h)
    for i in range(blocks):
        own = slice(i * each, (i + 1) * each)
        bias = array(cell.gates.bias)[3 * i * each : 3 * (i + 1) * each]
        gates = x[:, own] @ array(cell.gates.weight[i]) + bias
        reset, candidate, update = np.split(gates, 3, -1)
        update = sigmoid(update - 1)
        new[:, own] = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * h[:, own]
    return new


def test_the_cell_is_that_of_the_formulas():
    cell = BlockGRU((3, 2), 8, 5, 4, generator())
    with torch.no_grad():
        for p in cell.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator(p.numel())))
    h, a, b = (torch.randn(6, d, generator=generator(d)) for d in (8, 3, 2))
    want = cell_by_hand(cell, h.numpy(), (a.numpy(), b.numpy()), 8, 4)
    np.testing.assert_allclose(cell(h, a, b).detach().numpy(), want, rtol=1e-4, atol=1e-5)


def test_bins_are_symexp_spaced_and_equal_logits_mean_exactly_zero():
    bins = SymexpTwoHot().bins.double().numpy()
    even = np.linspace(-20, 20, 255)
    np.testing.assert_allclose(bins, np.sign(even) * np.expm1(np.abs(even)), rtol=1e-4, atol=1e-5)
    assert np.array_equal(bins, -bins[::-1]) and bins[127] == 0
    logits = torch.full((4, 255), 0.7)
    assert not SymexpTwoHot().decode(logits).any()


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 1.0, 3.7, -250.0, 1e6, -4.2e8, 1e12])
def test_a_scalar_is_between_its_two_bins_and_comes_back(value):
    two_hot = SymexpTwoHot()
    x = torch.tensor([value])
    weights, bins = two_hot.encode(x)[0].double(), two_hot.bins.double()
    assert abs(float(weights.sum()) - 1) < 1e-6 and int((weights > 0).sum()) <= 2
    kept = min(max(value, float(bins[0])), float(bins[-1]))
    assert abs(float((weights * bins).sum()) - kept) <= 1e-5 * abs(kept) + 1e-6
    back = two_hot.decode(two_hot.encode(x).clamp(min=1e-38).log())
    assert abs(float(back) - kept) <= 1e-4 * abs(kept) + 1e-5


def test_its_loss_is_the_cross_entropy_and_leaves_the_target_alone():
    two_hot = SymexpTwoHot(5, math.log(3))
    bins = two_hot.bins.tolist()  # -2, -0.73, 0, 0.73, 2
    logits = torch.randn(5, generator=generator()).requires_grad_()
    x = torch.tensor(1.2, requires_grad=True)
    share = (1.2 - bins[3]) / (bins[4] - bins[3])
    log = torch.log_softmax(logits, -1)
    want = -(1 - share) * log[3] - share * log[4]
    found = two_hot.loss(logits, x)
    torch.testing.assert_close(found, want)
    found.backward()
    assert x.grad is None and logits.grad is not None


def test_layers_follow_one_another():
    net = MLP(3, 8, 2, generator())
    assert [type(m).__name__ for m in net] == ["Linear", "RMSNorm"] * 2
    assert net(torch.ones(2, 4, 3)).shape == (2, 4, 8)


# ---- categories


def logs(seed, *shape):
    return torch.randn(*shape, 4, 5, generator=generator(seed)).log_softmax(-1)


def test_a_uniform_share_is_mixed_into_probabilities():
    logits = torch.zeros(1, 4, 5)
    logits[0, :, 0] = 200.0  # all of it in the first class
    want = torch.tensor([0.99 + 0.002, *[0.002] * 4]).expand(1, 4, 5)
    torch.testing.assert_close(mixed(logits, 0.01).exp(), want)


@pytest.mark.parametrize("tracked", [False, True])
def test_categories_are_drawn_as_often_as_they_are_likely(tracked):
    logits = logs(1).expand(20_000, 4, 5).clone().requires_grad_(tracked)
    drawn = draw(logits, torch.rand(20_000, 4, generator=generator()), 0.2).detach()
    want = 0.8 * logs(1).exp() + 0.04
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and bool((drawn.sum(-1) == 1).all())
    assert float((drawn.mean(0) - want).abs().max()) < 0.015
    assert torch.equal(draw(logits[:1], None).argmax(-1), logits[:1].argmax(-1))


def test_a_draw_is_the_same_with_and_without_a_gradient():
    logits, noise = logs(2, 500), torch.rand(500, 4, generator=generator(3))
    plain = draw(logits, noise, 0.01)
    assert torch.equal(draw(logits.clone().requires_grad_(), noise, 0.01).detach(), plain)
    for edge in (0.0, 1 - 2**-24):
        chosen = draw(logits, torch.full((500, 4), edge), 0.01).argmax(-1)
        assert bool((chosen == (0 if edge == 0 else 4)).all())


def test_a_draw_passes_the_gradient_of_the_probabilities():
    logits = torch.randn(2, 4, 5, generator=generator()).requires_grad_()
    weight = torch.randn(2, 4, 5, generator=generator(1))
    hard = draw(logits, None)
    (ours,) = torch.autograd.grad((hard * weight).sum(), logits)
    (want,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    torch.testing.assert_close(ours, want)


# ---- as kernels and as torch's own operations


def test_layers_are_the_same_where_no_kernel_runs():
    """Values and gradients; many rows take other products than few."""
    cell, two_hot = BlockGRU((3, 2), 16, 8, 4, generator()), SymexpTwoHot()
    wide = BlockGRU((3, 2), 16, 8, 4, generator()).double()
    for rows in (5, 100):
        g = generator(rows)
        state, a, b = (torch.randn(rows, d, generator=g) for d in (16, 3, 2))
        with torch.no_grad():
            quick = cell(state, a, b)
        ours, truth = cell(state, a, b), wide(*(x.double() for x in (state, a, b)))
        for got in (quick, ours):
            torch.testing.assert_close(got.double(), truth, rtol=1e-5, atol=1e-5)
        weight = torch.randn(rows, 16, generator=g)
        one = torch.autograd.grad((ours * weight).sum(), list(cell.parameters()))
        two = torch.autograd.grad((truth * weight.double()).sum(), list(wide.parameters()))
        for got, want in zip(one, two, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
        x, logits = torch.randn(rows, 4, 6, generator=g), torch.randn(rows, 255, generator=g)
        blocks = torch.randn(4, 6, 20, generator=g)
        with torch.no_grad():
            torch.testing.assert_close(block_linear(x, blocks), torch.bmm(
                x.transpose(0, 1), blocks).transpose(0, 1).flatten(1))  # fmt: skip
        aims = 30 * torch.randn(2, rows, generator=g)
        logits.requires_grad_()
        doubled = logits.detach().double().requires_grad_()
        found, want = two_hot.loss(logits, *aims), two_hot.loss(doubled, *aims)
        torch.testing.assert_close(found, want.float(), rtol=1e-5, atol=1e-4)
        (got,) = torch.autograd.grad(found.square().sum(), logits)
        (want,) = torch.autograd.grad(want.square().sum(), doubled)
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-3)


def test_gates_move_the_state_towards_the_candidate():
    gates = torch.zeros(2, 12)
    bias, state = torch.zeros(12), torch.full((2, 4), 0.5)
    share = 1 / (1 + math.e)  # an update of 0, less 1
    torch.testing.assert_close(gated(gates, bias, state, 2), torch.full((2, 4), 0.5 * (1 - share)))
