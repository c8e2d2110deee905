"""In bfloat16 it is the matrix products alone that are, by the rules of CUDA, and all still learns.

Without a GPU: the rules are asked with tensors that hold no numbers, what is learnt is the CPU's.
"""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from umwelten import kernels, nets
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.tdmpc2 import TDMPC2

GPU = torch.device("cuda", 0)
VECTOR = Dict({"proprio": Box(-np.inf, np.inf, (6,), np.float32)})
IMAGE = Dict({"rgb/a": Box(0, 255, (64, 64, 3), np.uint8)})
DREAM = {"batch_size": 2, "batch_length": 3, "horizon": 2, "warmup": 0, "recall": 1 << 16}
MAKE = {
    "tdmpc2": lambda: TDMPC2(VECTOR, 2, 1, batch_size=8, episodic=True),
    "pixels": lambda: TDMPC2(IMAGE, 2, 1, batch_size=2, keys="rgb/a"),
    "dreamer": lambda: DreamerV3(Dict({**VECTOR.spaces, **IMAGE.spaces}), 2, **DREAM),
}


def windows(model, fill):
    """Returns a batch as the model's contract says, of what `fill(shape, dtype)` gives."""
    rows = (model.batch_size, model.window)
    return {k: fill((*rows, *s.shape), s.dtype) for k, s in model.io_contract().batch.items()}


class On(torch.Generator):
    """A generator that says it is a GPU's."""

    device = GPU


class Products(TorchDispatchMode):
    """Notes of what kind the operands of matrix products are."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm", "convolution")

    def __init__(self):
        super().__init__()
        self.kinds = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.NAMES:
            self.kinds |= {x.dtype for x in tree_leaves(args) if isinstance(x, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cuda(monkeypatch):
    """Tensors without numbers that lie on a GPU for torch itself, by whose rules they are cast."""
    core = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    try:
        name = "_ZN3c104impl26device_guard_impl_registryE"
        guards = (ctypes.c_void_p * 2).in_dll(core, name)  # of the CPU and of CUDA
    except ValueError:
        pytest.skip("this torch hides where it keeps its guards of devices")
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    before, guards[1] = guards[1], guards[1] or guards[0]
    with torch.no_grad(), FakeTensorMode():
        yield
    guards[1] = before


def emptied(model):
    """Returns the model, all of it on a GPU and without numbers, to be cast to bfloat16."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, value in table.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device=GPU)
                    known = isinstance(value, torch.nn.Parameter)
                    table[key] = torch.nn.Parameter(empty, False) if known else empty
    model.device, model.bf16, model.generator = GPU, True, On()
    return model


@pytest.mark.parametrize("kind", MAKE)
def test_products_alone_are_in_bfloat16_by_the_rules_of_cuda(kind, request):
    model = MAKE[kind]()
    contract, rows = model.io_contract(), (model.batch_size, model.window)
    request.getfixturevalue("cuda")
    model = emptied(model)
    batch = windows(model, lambda shape, dtype: torch.zeros(shape, dtype=dtype, device=GPU))
    with Products() as products:
        if isinstance(model, TDMPC2):
            model._descend = lambda optimiser, loss, metrics, norm: metrics
            found = model.update(batch)
        else:
            with model._casting():
                found = model._losses(batch, model._before(batch), *model._chance(*rows))
    assert products.kinds == {torch.bfloat16}
    assert {(x.dtype, x.device) for x in tree_leaves(found)} == {(torch.float32, GPU)}
    if kind == "dreamer":  # the others act in float32
        step = {k: v[:, 0] for k, v in batch.items()}
        belief = model.observe(model.start(rows[0]), step["action"], step, None)
        after, reward, alive = model.imagine(belief, step["action"], None)
        assert {k: v.dtype for k, v in belief.items()} == {k: v.dtype for k, v in after.items()}
        told = {"reward": reward, "alive": alive, **model.decode(after)}
        assert {k: told[k].dtype for k in told} == {
            k: s.dtype for k, s in contract.prediction.items()
        }
        kinds = {belief["deter"].dtype, model.value(after, None).dtype}
        assert kinds == {torch.float32} == {model.propose(after, On()).dtype}


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer"])
def test_what_learns_in_float32_learns_much_the_same_in_bfloat16(kind, monkeypatch):
    monkeypatch.setattr(kernels, "fits", lambda x: False)
    models, rng = [MAKE[kind]() for _ in range(2)], torch.Generator().manual_seed(0)
    saved = models[0].checkpoint()
    for key in (k for k in saved if k.startswith("model/") and saved[k].ndim > 1):
        saved[key] += 0.05 * torch.randn(saved[key].shape, generator=rng)  # no head is 0

    def drawn(shape, dtype):
        x = torch.rand(shape, generator=rng)
        return (
            x > 0.9 if dtype is torch.bool else (x * (255 if dtype is torch.uint8 else 1)).to(dtype)
        )

    batch = windows(models[0], drawn)
    for model, bf16 in zip(models, (False, True), strict=True):
        model.restore(saved)
        model.bf16 = bf16  # the CPU casts by rules of its own
        model.update(dict(batch))
    plain, cast = (model.checkpoint() for model in models)
    # What the squares of all gradients are after the first update: none is lost.
    squares = [k for k in plain if k.endswith(("/exp_avg_sq", "/square"))]
    assert squares and any(not torch.equal(plain[k], cast[k]) for k in squares)
    for key in squares:
        a, b = plain[key].flatten().sqrt(), cast[key].flatten().sqrt()
        assert torch.dot(a, b) >= 0.8 * a.norm() * b.norm(), key
        assert 0.5 * a.norm() <= b.norm() <= 2 * a.norm(), key


def test_a_torch_that_loses_gradients_is_refused(monkeypatch):
    linear = torch.nn.functional.linear
    nets.check_bf16(GPU)
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *x: linear(*x).detach())
    with pytest.raises(ValueError, match="loses gradients"):
        nets.check_bf16(GPU)
