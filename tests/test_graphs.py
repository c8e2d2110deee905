"""An update is one graph between its optimisers, and never waits for the device to tell a value."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from gymnasium.spaces import Box, Dict
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from umwelten import kernels
from umwelten.world_models import contract, dreamer, tdmpc2

SPACE = Dict({"proprio": Box(-np.inf, np.inf, (12,), np.float32)})
DREAM = {"batch_size": 3, "batch_length": 3, "horizon": 2, "warmup": 0}
MODELS = {
    "tdmpc2": lambda **more: tdmpc2.TDMPC2(SPACE, 2, 1, batch_size=8, episodic=True, **more),
    "dreamer": lambda **more: dreamer.DreamerV3(SPACE, 2, 1, **DREAM, **more),
    "choices": lambda **more: dreamer.DreamerV3(SPACE, 2, 1, discrete=True, **DREAM, **more),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def windows(model, seed):
    g, b, t = torch.Generator().manual_seed(seed), model.batch_size, model.window
    no = torch.zeros(b, t, dtype=torch.bool)
    return {
        "place": torch.randint(0, 9, (b, 1), generator=g) + torch.arange(-1, t),
        "action": torch.rand(b, t, 2, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g),
        "proprio": torch.randn(b, t, 12, generator=g),
        "terminal": torch.rand(b, t, generator=g) > 0.8, "last": no, "first": no,
    }  # fmt: skip


class NoWaiting(TorchDispatchMode):
    """Refuses every operation for which the host would have to wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = [i for i in args[1] or () if i is not None] if name.startswith("index") else []
        masked = any(getattr(i, "dtype", None) in (torch.bool, torch.uint8) for i in masks)
        if name.startswith(self.WAITS) or masked:
            raise RuntimeError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


def as_on_a_gpu(patch):
    """Takes the ways that a GPU takes."""
    patch.setattr(kernels, "fits", lambda x: False)
    patch.setattr(contract.Contract, "check_batch", lambda self, batch: None)

    def mask(shape, share, rng):
        return torch.empty(shape).bernoulli_(1 - share, generator=rng) / (1 - share)

    patch.setattr(tdmpc2, "dropout_mask", mask)


class Looks(TorchFunctionMode):
    """Lets functions look at values that look at them on the CPU alone."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.quantile, torch.nn.functional.one_hot):
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", MODELS)
def test_an_update_waits_for_nothing(kind, monkeypatch):
    as_on_a_gpu(monkeypatch)
    model = MODELS[kind]()
    batches = [windows(model, seed) for seed in range(2)]
    model.update(batches[0])  # what is only made once may wait
    with NoWaiting(), Looks():
        metrics = model.update(batches[1])
    assert all(v.isfinite() for v in metrics.values())


def test_waiting_would_be_noticed():
    x = torch.rand(4)
    for waits in (lambda: float(x[0]), lambda: bool(x[0] > 0), lambda: x[x > 0.5], x.nonzero):
        with pytest.raises(RuntimeError, match="waits for the device"), NoWaiting():
            waits()


def same(one, two, updates):
    for seed in range(updates):
        plain, compiled = (m.update(windows(m, seed)) for m in (one, two))
        assert plain.keys() == compiled.keys()
        for key, value in plain.items():
            torch.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-4)


class Graphs:
    """Runs what is compiled as CUDA graphs are replayed: each one's memory is the next one's.

    A call after a gradient's way back is over takes the memory of all that was returned before it:
    here that is overwritten. Source: torch/_inductor/cudagraph_trees.py, `can_start_new_generation`
    and `dealloc_current_path_weakrefs`.
    """

    def __init__(self):
        self.calls = self.owner = 0
        self.live, self.pending, self.real = [], False, torch.compile

    def compile(self, fn, mode=None):
        if mode != "reduce-overhead":
            return fn
        kinds = ("fw_compiler", "forward"), ("bw_compiler", "back"), ("inference_compiler", "free")
        backend = aot_autograd(**{k: partial(self.graph, kind) for k, kind in kinds})
        traced = self.real(fn, backend=backend, fullgraph=True)

        def call(*args):
            self.calls += 1
            return traced(*args)

        return call

    def graph(self, kind, module, example):
        told = TracingContext.get().fw_metadata
        if kind != "back":  # what moves may not be written: torch then gives a graph up
            assert {*told.mutated_inp_runtime_indices} <= {*told.static_input_indices}

        def replay(*args):
            if kind != "back" and not self.pending and self.owner != self.calls:
                for x in self.live:
                    x.fill_(torch.nan if x.is_floating_point() else 0)
                self.live, self.owner = [], self.calls
            found = module(*args)
            # A view of a weight is kept for the way back: that memory is no graph's.
            tensors = [[x for x in xs if isinstance(x, torch.Tensor)] for xs in (args, found)]
            own = {x.untyped_storage().data_ptr() for x in tensors[0]}
            made = (x for x in tensors[1] if x.untyped_storage().data_ptr() not in own)
            self.live += [x.detach() for x in made]
            self.pending = kind == "forward"
            return found

        return make_boxed_func(replay)


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer"])
def test_what_is_compiled_is_one_graph_and_nothing_reads_its_memory_later(kind, monkeypatch):
    one, graphs = MODELS[kind](), Graphs()
    monkeypatch.setattr(torch, "compile", graphs.compile)
    two = MODELS[kind](compile=True)
    same(one, two, 2)
    assert graphs.calls == {"tdmpc2": 4, "dreamer": 2}[kind]
    torch._dynamo.reset()


def test_a_look_at_what_a_graph_returned_before_another_ran_would_be_noticed():
    graphs = Graphs()
    weight = torch.ones(3, requires_grad=True)
    double = graphs.compile(lambda x: (x * weight).sum(), mode="reduce-overhead")
    first = double(torch.ones(3))
    assert first == 3
    first.backward()
    double(torch.ones(3))
    assert first.isnan()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_dreamer_learns_the_same():
    same(MODELS["dreamer"](), MODELS["dreamer"](compile=True), 3)
    torch._dynamo.reset()
