"""Torch blocks: every formula against numpy in float64, gradients, how weights begin."""

import numpy as np
import pytest
import torch

from umwelten import kernels
from umwelten.nets import (
    MLP,
    Ensemble,
    Linear,
    NormedLinear,
    TwoHot,
    distinct_rows,
    dropout_mask,
    norm_mish,
    norm_simnorm,
    simnorm,
    squashed_gaussian,
    symexp,
    symlog,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normalised(x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def mish(x):
    return x * np.tanh(np.logaddexp(0, x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ---- scalars as bins


def test_symlog_and_symexp_are_each_others_inverse():
    x = np.array([-1e4, -3.0, -1e-6, 0.0, 1e-6, 0.5, 2e4])
    got = symlog(torch.tensor(x))
    np.testing.assert_allclose(got, np.sign(x) * np.log(1 + np.abs(x)), rtol=1e-9)
    np.testing.assert_allclose(symexp(got), x, rtol=1e-9)


def test_two_hot_weights_are_those_of_the_two_nearest_bins():
    two_hot = TwoHot(-10.0, 10.0, 101)
    x = np.array([0.0, 0.1, -0.7, 3.3, 250.0, -9e5, 9e5, np.exp(10.0) - 1])
    weights = two_hot.encode(torch.tensor(x)).numpy()
    bins = np.linspace(-10, 10, 101)
    place = np.clip(np.sign(x) * np.log1p(np.abs(x)), -10, 10)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(weights @ bins, place, atol=1e-9)
    assert ((weights > 1e-9).sum(-1) <= 2).all()
    far = np.abs(bins - place[:, None]) > 0.2 + 1e-9
    assert (weights[far] == 0).all()


def test_two_hot_decodes_what_it_encodes_and_zero_logits_to_zero():
    two_hot = TwoHot()
    x = torch.tensor([-80.0, -0.3, 0.0, 0.04, 1.0, 700.0], dtype=torch.float64)
    torch.testing.assert_close(two_hot.decode(two_hot.encode(x).clamp_min(1e-300).log()), x)
    assert two_hot.decode(torch.zeros(3, 101)).abs().max() < 1e-5
    logits = np.random.default_rng(0).normal(size=(7, 101)) * 4
    mean = (softmax(logits) * np.linspace(-10, 10, 101)).sum(-1)
    want = np.sign(mean) * (np.exp(np.abs(mean)) - 1)
    np.testing.assert_allclose(two_hot.decode(torch.tensor(logits)), want, rtol=1e-9)
    got = two_hot.decode(torch.tensor(logits, dtype=torch.float32))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


def test_two_hot_loss_is_the_cross_entropy_with_its_gradient():
    two_hot = TwoHot(-2.0, 3.0, 11)
    rng = np.random.default_rng(1)
    logits = torch.tensor(rng.normal(size=(2, 6, 11)), requires_grad=True)
    x = torch.tensor(rng.normal(size=6) * 8)
    loss = two_hot.loss(logits, x)  # targets shared by the leading axis
    weights = two_hot.encode(x).numpy()
    want = -(weights * np.log(softmax(logits.detach().numpy()))).sum(-1)
    np.testing.assert_allclose(loss.detach(), want, rtol=1e-10)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    np.testing.assert_allclose(grad, softmax(logits.detach().numpy()) - weights, atol=1e-12)


# ---- normalised activations


@pytest.mark.parametrize("rows, width", [(5, 16), (3, 384), (70, 104)])
def test_norm_mish_and_norm_simnorm_are_their_formulas(rows, width):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(rows, width)) * 3 + 1
    bias, gain, shift = rng.normal(size=(3, width))
    parts = [torch.tensor(v, dtype=torch.float32) for v in (x, bias, gain, shift)]
    inner = normalised(x + bias) * gain + shift
    np.testing.assert_allclose(norm_mish(*parts), mish(inner), rtol=1e-4, atol=1e-5)
    want = softmax(inner.reshape(rows, -1, 8)).reshape(rows, width)
    np.testing.assert_allclose(norm_simnorm(*parts), want, rtol=1e-4, atol=1e-6)


def test_norm_mish_stands_extreme_inputs():
    x = torch.zeros(2, 64)
    x[0, 0] = 1e6
    y = norm_mish(x, torch.zeros(64), torch.full((64,), 1e3), torch.full((64,), -500.0))
    assert y.isfinite().all()
    assert abs(float(y[0, 0]) - (np.sqrt(63) * 1e3 - 500)) < 1  # mish(u) = u far above 0
    assert (y[1].abs() < 1e-6).all()  # and 0 far below it


def test_simnorm_groups_lie_on_simplices():
    y = simnorm(torch.randn(4, 3, 32, generator=generator()) * 50)
    assert (y >= 0).all()
    torch.testing.assert_close(y.view(4, 3, 4, 8).sum(-1), torch.ones(4, 3, 4))


# ---- layers


def test_weights_begin_as_truncated_normals_biases_and_zero_heads_at_zero():
    critics = Ensemble(5, [134, 512, 512, 101], generator())
    net = MLP([134, 384, 384, 101], generator(), zero=True)
    hidden = [w for stack in list(critics.weight)[:-1] for w in stack]
    for weight in [*hidden, net.layers[0].weight, net.layers[1].weight]:
        weight = weight.detach()
        assert abs(float(weight.std()) / 0.02 - 1) < 0.02
        assert abs(float(weight.mean())) < 5e-4
        assert float(weight.abs().max()) > 0.06  # truncated at 2, not at two deviations
    assert not critics.weight[-1].any() and not net.layers[-1].weight.any()
    assert MLP([4, 8, 3], generator()).layers[-1].weight.any()
    assert not torch.equal(hidden[0], hidden[1])
    assert not any(b.any() for b in critics.bias)
    assert all((g == 1).all() for g in critics.gain) and not any(s.any() for s in critics.shift)


def test_layers_draw_from_the_generator_alone():
    torch.manual_seed(1)
    one = MLP([4, 8, 3], generator(5), norm_simnorm)
    before = torch.get_rng_state()
    two = MLP([4, 8, 3], generator(5), norm_simnorm)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_normed_linear_keeps_leading_axes():
    layer = NormedLinear(6, 16, generator())
    x = torch.randn(2, 3, 6, generator=generator())
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2][None])[0])


def member(critics, k):
    """Returns member k as a plain function of x, written without the ensemble."""

    def forward(x, mask=None):
        for i, (w, b, g, s) in enumerate(
            zip(critics.weight, critics.bias, critics.gain, critics.shift, strict=False)
        ):
            x = x @ w[k].T + b[k]
            x = x * mask if i == 0 and mask is not None else x
            x = torch.nn.functional.layer_norm(x, x.shape[-1:], g[k], s[k])
            x = torch.nn.functional.mish(x)
        return x @ critics.weight[-1][k].T + critics.bias[-1][k]

    return forward


def wild(critics):
    """Gives every parameter a random value, so that a mistaken one shows."""
    with torch.no_grad():
        for p in critics.parameters():
            p.add_(torch.randn(p.shape, generator=generator(p.numel())) * 0.3)
    return critics


@pytest.fixture(params=["fused", "plain"])
def path(request, monkeypatch):
    """Runs a test on the CPU's own path and on that of every other device."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "fits", lambda *_: False)


@pytest.mark.parametrize("members", [None, [2, 0]])
@pytest.mark.parametrize("masked", [False, True])
def test_an_ensemble_is_its_members_with_their_gradients(path, members, masked):
    critics = wild(Ensemble(3, [7, 24, 16, 5], generator()))
    asked = members or [0, 1, 2]
    x = torch.randn(9, 5, generator=generator(1), requires_grad=True)
    action = torch.randn(9, 2, generator=generator(6), requires_grad=True)
    mask = dropout_mask((len(asked), 9, 24), 0.3, generator(2)) if masked else None
    chosen = None if members is None else torch.tensor(members)
    out = critics(x, action, members=chosen, mask=mask)
    joined = torch.cat([x, action], 1)
    want = torch.stack(
        [member(critics, k)(joined, None if mask is None else mask[i]) for i, k in enumerate(asked)]
    )
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    inputs = [x, action, *critics.parameters()]
    weight = torch.randn(out.shape, generator=generator(3))
    got = torch.autograd.grad((out * weight).sum(), inputs)
    want = torch.autograd.grad((want * weight).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_frozen_ensemble_passes_a_gradient_to_its_input_alone(path):
    critics = wild(Ensemble(3, [7, 24, 16, 5], generator()))
    x, two = torch.randn(9, 7, generator=generator(1), requires_grad=True), torch.tensor([1, 2])
    (want,) = torch.autograd.grad(critics(x, members=two).square().sum(), x)
    critics(x, members=two, frozen=True).square().sum().backward()
    torch.testing.assert_close(x.grad, want)
    assert all(p.grad is None for p in critics.parameters())


def test_an_ensemble_can_be_differentiated_twice(path):
    critics = wild(Ensemble(3, [7, 24, 16, 5], generator())).double()
    x = torch.randn(2, 7, dtype=torch.float64, generator=generator(1), requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: critics(x).sin(), x, fast_mode=True)
    critics = critics.float()
    loss = critics(x.float()).square().sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    plain = torch.stack([member(critics, k)(x.float()) for k in range(3)]).square().sum()
    (want,) = torch.autograd.grad(plain, x, create_graph=True)
    (want,) = torch.autograd.grad(want.square().sum(), x)
    torch.testing.assert_close(second, want, rtol=1e-3, atol=1e-3)


def test_rows_that_share_a_first_part_are_as_if_repeated():
    net = MLP([7, 24, 16], generator())
    z = torch.randn(4, 5, generator=generator(1))
    action = torch.randn(12, 2, generator=generator(2))
    want = net(z.repeat_interleave(3, 0), action)
    torch.testing.assert_close(net(z, action), want)
    torch.testing.assert_close(net(torch.cat([z.repeat_interleave(3, 0), action], 1)), want)
    assert not torch.allclose(net(z.repeat(3, 1), action), want)


def test_repeated_rows_are_found_and_nothing_else_is():
    z = torch.randn(4, 5, generator=generator())
    for count in (2, 3):
        assert torch.equal(distinct_rows(z.repeat_interleave(count, 0)), z)
    assert torch.equal(distinct_rows(z[:1].expand(6, 5)), z[:1])
    odd = z.repeat_interleave(3, 0)
    odd[7, 2] += 1e-6
    uneven = torch.cat([z[:1], z[:1], z[1:2], z[1:2], z[2:3]])
    late = torch.cat([z[:1], z[:1], z[1:3]])
    for x in (z, z.repeat(2, 1), odd, uneven, late, z[:1], z[:0]):
        assert distinct_rows(x) is x


def test_dropout_masks_have_the_share_and_the_mean_asked():
    mask = dropout_mask((5, 400, 500), 0.01, generator())
    values = np.unique(mask.numpy())
    np.testing.assert_allclose(values, [0, 1 / 0.99], rtol=1e-6)
    share = float((mask == 0).double().mean())
    assert abs(share - 0.01) < 5 * np.sqrt(0.01 * 0.99 / mask.numel())
    dropped = (mask == 0).double()
    near = float((dropped[..., 1:] * dropped[..., :-1]).mean())  # neighbours are independent
    assert abs(near - 1e-4) < 5 * np.sqrt(1e-4 / mask.numel())
    assert torch.equal(mask, dropout_mask((5, 400, 500), 0.01, generator()))
    assert not torch.equal(mask, dropout_mask((5, 400, 500), 0.01, generator(1)))


def test_squashed_gaussians_have_the_density_of_their_normal():
    rng = np.random.default_rng(0)
    mean, raw, noise = rng.normal(size=(3, 50, 4))
    action, density = squashed_gaussian(*(torch.tensor(v) for v in (mean, raw, noise)))
    log_std = -10 + 6 * (np.tanh(raw) + 1)
    x = mean + noise * np.exp(log_std)
    np.testing.assert_allclose(action, np.tanh(x), rtol=1e-9)
    z = (x - mean) / np.exp(log_std)
    want = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(density, want, rtol=1e-6)


def test_weights_cost_nothing_where_only_the_gradient_of_inputs_is_asked(monkeypatch):
    layer, seen = Linear(32, 32, generator()), []
    x = torch.randn(32, 32, requires_grad=True)
    product = kernels.product
    monkeypatch.setattr(kernels, "product", lambda *a: seen.append(a) or product(*a))
    for asked, count in (([x], 2), ([x, layer.weight], 3), ([layer.weight], 2)):
        seen.clear()
        found = torch.autograd.grad(layer(x).sum(), asked)
        assert len(seen) == count and all(g is not None and g.any() for g in found)
    seen.clear()
    layer(x).sum().backward()
    assert len(seen) == 3 and layer.weight.grad.any() and x.grad.any()
