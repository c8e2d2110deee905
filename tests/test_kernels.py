"""Fused kernels: their formulas in float64, NaN, and the same bits for any number of threads."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umwelten import kernels, nets

# Rows that do not fill the last task, widths that do not fill the last vector.
SHAPES = pytest.mark.parametrize("shape", [(1, 3, 8), (2, 37, 104), (3, 5, 384), (1, 64, 40)])


def draws(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def example(shape):
    g, _, d = shape
    return (
        draws(*shape, scale=3.0) + 0.5,
        draws(g, d, seed=5),
        1 + draws(g, d, seed=1, scale=0.5),
        draws(g, d, seed=2),
        draws(*shape, seed=3),
    )


def truth(activation, x, bias, gain, shift, grad):
    """Returns the value and the gradients of x, bias, gain and shift in float64, by autograd."""
    parts = [p.double().requires_grad_() for p in (x, bias, gain, shift)]
    inner = F.layer_norm(parts[0] + parts[1][:, None], x.shape[-1:])
    inner = inner * parts[2][:, None] + parts[3][:, None]
    y = activation(inner)
    return y.detach(), torch.autograd.grad((y * grad.double()).sum(), parts)


def mish(x):
    return x * torch.tanh(torch.log1p(torch.exp(x)))


def simnorm(x):
    return torch.softmax(x.unflatten(-1, (-1, 8)), -1).flatten(-2)


def near(got, want, share=2e-6):
    """Asserts that float32 results differ by a few roundings of the largest number."""
    got, want = got.detach().double(), want.detach()
    scale = float(want.abs().max()) + 1e-12
    assert float((got - want).abs().max()) / scale < share


@SHAPES
def test_norm_mish_and_its_gradients_are_those_of_the_formula(shape):
    x, bias, gain, shift, grad = example(shape)
    want, gradients = truth(mish, x, bias, gain, shift, grad)
    near(kernels.norm_mish(x, bias, gain, shift), want)
    found = kernels.norm_mish_backward(x, bias, gain, shift, grad)
    for got, expected in zip(found, gradients, strict=True):
        near(got, expected)


@SHAPES
def test_norm_simnorm_and_its_gradients_are_those_of_the_formula(shape):
    x, bias, gain, shift, grad = example(shape)
    want, gradients = truth(simnorm, x, bias, gain, shift, grad)
    y = kernels.norm_simnorm(x, bias, gain, shift)
    near(y, want)
    found = kernels.norm_simnorm_backward(x, bias, gain, y, grad)
    for got, expected in zip(found, gradients, strict=True):
        near(got, expected)


def test_two_hot_decode_is_its_formula():
    x, bins = draws(19, 7, 101, scale=30.0), torch.linspace(-10, 10, 101)
    mean = (x.double().softmax(-1) * bins.double()).sum(-1)
    got = kernels.two_hot_decode(x, bins)
    near(got.sign() * got.abs().log1p(), mean)
    assert got.shape == (19, 7) and kernels.two_hot_decode(x * 0, bins).abs().max() < 1e-5


@pytest.mark.parametrize("low, high", [(-86, -20), (-20, -1), (-1, 1), (1, 19), (19, 300)])
def test_mish_is_precise_at_every_magnitude(low, high):
    u = torch.linspace(low, high, 512)
    y = kernels.norm_mish(torch.zeros(1, 1, 512), *torch.zeros(2, 1, 512), u[None])
    want = F.mish(u.double())
    error = (y[0, 0].double() - want).abs() / want.abs().clamp(min=1e-35)
    assert float(error.max()) < 1e-6


def test_a_nan_is_not_hidden():
    for kernel in (kernels.norm_mish, kernels.norm_simnorm):
        x, *rest, _ = example((1, 4, 16))
        x[0, 2, 3] = float("nan")
        y = kernel(x, *rest)
        assert y[0, 2].isnan().all() and y[0, [0, 1, 3]].isfinite().all()
    y = kernels.two_hot_decode(x[0], torch.linspace(-1, 1, 16))
    assert y[2].isnan() and y[[0, 1, 3]].isfinite().all()


def everything(x, bias, gain, shift, grad):
    y = kernels.norm_simnorm(x, bias, gain, shift)
    return [
        kernels.norm_mish(x, bias, gain, shift),
        *kernels.norm_mish_backward(x, bias, gain, shift, grad),
        y,
        *kernels.norm_simnorm_backward(x, bias, gain, y, grad),
        kernels.two_hot_decode(x, bias[0]),
    ]


def test_bits_do_not_depend_on_the_threads(monkeypatch):
    parts = example((3, 203, 128))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(everything(*parts))
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(kernels, "_pool", lambda: None)  # where torch has no OpenMP to enter
    found.append(everything(*parts))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_only_plain_float32_on_the_cpu_fits():
    x = torch.zeros(2)
    assert kernels.fits(x)
    assert not kernels.fits(x.double())
    assert not kernels.fits(x.bfloat16())
    assert not kernels.fits(x.to("meta"))


@pytest.mark.parametrize("name", ["norm_mish", "norm_simnorm"])
@pytest.mark.parametrize("grouped", [False, True])
def test_fused_and_plain_paths_agree(monkeypatch, name, grouped):
    shape = (3, 21, 64)
    x = draws(*shape, scale=2.0).requires_grad_()
    parts = [(draws(*((3, 64) if grouped else (64,)), seed=s) + 1) for s in (1, 2, 3)]
    inputs = [x, *(p.requires_grad_() for p in parts)]
    weight, found = draws(*shape, seed=4), []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(kernels, "fits", lambda *_: False)
        y = getattr(nets, name)(*inputs)
        found.append([y, *torch.autograd.grad((y * weight).sum(), inputs)])
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        near(a, b.double(), share=4e-6)


@pytest.mark.parametrize("name", ["norm_mish", "norm_simnorm"])
def test_fused_and_plain_paths_agree_in_the_second_derivative(monkeypatch, name):
    inputs, found = [p[0].requires_grad_() for p in example((1, 5, 16))], []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(kernels, "fits", lambda *_: False)
        y = getattr(nets, name)(*inputs[:4])
        first = torch.autograd.grad((y * inputs[4]).sum(), inputs[:4], create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for a, b in zip(*found, strict=True):
        near(a, b.double(), share=1e-5)


def test_memory_that_a_kernel_would_misread_is_refused():
    x, bias, gain, shift, _ = example((2, 16, 8))
    with pytest.raises(ValueError, match="not contiguous"):
        kernels.norm_mish(x.transpose(0, 1), bias, gain, shift)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.norm_mish(x, bias, gain[0], shift)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.norm_simnorm(x[:1, :3], bias, gain, shift)


def test_rows_of_strided_memory_are_read_right():
    x = draws(16, 6).T
    got = nets.norm_simnorm(x, torch.zeros(16), torch.ones(16), torch.zeros(16))
    near(got, simnorm(F.layer_norm(x.double(), (16,))))
    np.testing.assert_allclose(got.reshape(6, 2, 8).sum(-1), 1, rtol=1e-5)


LAID = {  # the same matrix in other memory
    "by rows": lambda m: m.contiguous(),
    "by columns": lambda m: m.t().contiguous().t(),
    "a part of a wider one": lambda m: F.pad(m, (3, 5))[:, 3:-5],
    "a part of a taller one": lambda m: F.pad(m.t(), (2, 1)).t()[2:-1],
}


@pytest.mark.parametrize("x_laid", LAID)
@pytest.mark.parametrize("weight_laid", LAID)
@pytest.mark.parametrize("m, k, o", [(1, 40, 24), (37, 6, 24), (64, 134, 101), (48, 24, 2)])
def test_products_are_those_of_float64(m, k, o, x_laid, weight_laid):
    x, weight = draws(m, k), draws(o, k, seed=1)
    want = (x.double() @ weight.double().t()).float()
    got = kernels.product(LAID[x_laid](x), LAID[weight_laid](weight))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_product_hides_no_nan_and_is_the_same_without_onednn(monkeypatch):
    x, weight = draws(20, 32), draws(24, 32, seed=1)
    x[3, 5] = torch.nan
    got = kernels.product(x, weight)
    assert got[3].isnan().all() and got[:3].isfinite().all() and got[4:].isfinite().all()
    monkeypatch.setattr(kernels, "_onednn", None)
    torch.testing.assert_close(
        kernels.product(x, weight), got, rtol=1e-5, atol=1e-5, equal_nan=True
    )


def test_a_linear_layer_has_torchs_gradients_also_of_the_second_order():
    x, weight = draws(4, 9, 32).requires_grad_(), draws(24, 32, seed=1).requires_grad_()
    found = []
    for call in (nets.linear, F.linear):
        first = torch.autograd.grad(call(x, weight).sin().sum(), (x, weight), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))
        found.append([*first, *second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
