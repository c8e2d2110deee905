"""On a GPU, said without one: nothing mixes places, waits where it must not, or computes otherwise.

`Elsewhere` makes tensors that say they lie on a GPU. Numbers lie and are computed here,
so what comes out is held to what the host alone gets. What a GPU refuses is refused (operands of
two places, a look at its memory), and, where asked, what its host would wait for. Streams of work,
pinned memory and the kernels of CUDA are not in it.
"""

import contextlib
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from umwelten import parallel
from umwelten.agents import limits, planners
from umwelten.agents.cloning import BC
from umwelten.agents.limits import Limits
from umwelten.agents.search import Planner
from umwelten.episodes import Episodes, Recorder
from umwelten.replay import Replay
from umwelten.stream import Stream
from umwelten.world_models import foresight
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.tasks import TaskSpec
from umwelten.world_models.tdmpc2 import TDMPC2

HOST, GPU = torch.device("cpu"), torch.device("cuda", 0)
WAITS = (
    "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "_unique", "equal",
    "bincount", "repeat_interleave",
)  # fmt: skip
PEEKS = (torch.quantile, torch.nn.functional.one_hot)  # at their values, on the CPU alone
BRINGS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)  # numbers of the host
HIDDEN = (Tensor.numpy, Tensor.data_ptr, Tensor.tolist, Tensor.__array__)
_DEVICE, _IS_CPU, _IS_CUDA = (getattr(Tensor, k).__get__ for k in ("device", "is_cpu", "is_cuda"))


class Waits(RuntimeError):
    """The host would have waited for the device."""


def there(x: object) -> bool:
    """Returns whether x is a tensor that lies on the GPU."""
    return isinstance(x, Tensor) and hasattr(x.untyped_storage(), "there")


class Generator(torch.Generator):
    """A generator of a place; on the GPU it draws what one on the host would."""

    device = HOST

    def __new__(cls, device: torch.device | str = "cpu"):
        return super().__new__(cls)

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = GPU if torch.device(device).type == "cuda" else HOST


class Elsewhere(TorchFunctionMode):
    """The mode in which there is a GPU."""

    def __init__(self):
        super().__init__()
        self.frames: list[bool] = []  # whether what is made inside a function lies there
        self.hurried, self.peeking = False, False
        self._below = _Below(self)
        self._grouped = torch._C._group_tensors_by_device_and_dtype

    def __enter__(self):
        self._below.__enter__()
        torch._C._group_tensors_by_device_and_dtype = self._group
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch._C._group_tensors_by_device_and_dtype = self._grouped
        self._below.__exit__(*error)

    def _group(self, lists, with_indices=False):
        """Returns what torch finds of lists of tensors, by the places that they say."""
        found = self._grouped(lists, with_indices)
        return {
            (GPU if there(group[0][0][0]) else device, dtype): group
            for (device, dtype), group in found.items()
        }

    @contextlib.contextmanager
    def hurry(self):
        """Refuses all that the host would have to wait for."""
        before, self.hurried = self.hurried, True
        try:
            yield
        finally:
            self.hurried = before

    def wait(self, what: str) -> None:
        if self.hurried and not self.peeking:
            raise Waits(f"{what} waits for the device")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (_DEVICE, _IS_CPU, _IS_CUDA):
            if not there(args[0]):
                return func(*args, **kwargs)
            return {_DEVICE: GPU, _IS_CPU: False, _IS_CUDA: True}[func]
        if func in HIDDEN and there(args[0]):
            raise TypeError(f"{func.__name__} of a tensor that is not on the host")
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(func, args, kwargs)
        if func is Tensor.pin_memory:
            return Tensor.clone(args[0])
        device = kwargs.get("device")
        on = any(there(x) for x in tree_leaves((args, kwargs)))
        if device is not None:
            on = torch.device(device).type == "cuda"
            kwargs["device"] = HOST
        stream = kwargs.get("generator")
        if stream is not None and (stream.device.type == "cuda") != on:
            raise RuntimeError(f"a generator of {stream.device} draws for the other place")
        given = func is not Tensor.new_tensor and args and there(args[0])
        if func in BRINGS and on and not given:
            return self._brought(func, args, kwargs)
        return self._framed(on, func, args, kwargs)

    def _framed(self, on: bool, func, args, kwargs):
        peeked, self.peeking = self.peeking, self.peeking or func in PEEKS
        self.frames.append(on)
        try:
            return func(*args, **kwargs)
        finally:
            self.frames.pop()
            self.peeking = peeked

    def _brought(self, func, args, kwargs) -> Tensor:
        self.wait(func.__name__)
        found = self._framed(False, func, args, kwargs).clone()
        if not there(found):
            found.untyped_storage().there = True
        return found

    def _moved(self, func, args, kwargs) -> Tensor:
        x, pinned = args[0], kwargs.get("non_blocking", False)
        if func is Tensor.cpu:
            device, dtype, form = HOST, None, None
        elif len(args) > 1 and isinstance(args[1], Tensor):
            device, dtype, form = GPU if there(args[1]) else HOST, args[1].dtype, None
        else:
            told = {k: v for k, v in kwargs.items() if k != "copy"}
            device, dtype, _, form = torch._C._nn._parse_to(*args[1:], **told)
        on = there(x) if device is None else device.type == "cuda"
        changed = {"dtype": dtype or x.dtype, "copy": kwargs.get("copy", False) or on != there(x)}
        if form is not None:
            changed["memory_format"] = form
        if on == there(x):
            return self._framed(on, Tensor.to, (x,), changed)
        if not (on and pinned):
            self.wait(f"a copy to {device}")
        found = self._framed(False, Tensor.to, (x,), changed)
        storage = found.untyped_storage()
        if on:
            storage.there = True
        elif hasattr(storage, "there"):
            del storage.there
        return found


class _Below(TorchDispatchMode):
    """Sees every operation itself, those of a gradient's way back among them."""

    def __init__(self, mode: Elsewhere):
        super().__init__()
        self.mode = mode

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, mode, name = kwargs or {}, self.mode, func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on = [there(x) for x in given]
        if any(on):
            mixed = any(x.ndim and not o for x, o in zip(given, on, strict=True))
            if mixed and name != "copy_":
                raise RuntimeError(f"{name} has operands on the host and on the device")
            if mixed:
                mode.wait("a copy from or to the host")
            masks = [i for i in args[1] or () if i is not None] if name.startswith("index") else []
            masked = any(getattr(i, "dtype", None) in (torch.bool, torch.uint8) for i in masks)
            if name.startswith(WAITS) or masked:
                mode.wait(name)
        found = func(*args, **kwargs)
        anew = not given and bool(mode.frames) and mode.frames[-1]
        if (any(on) and name != "copy_") or anew:
            for x in (x for x in tree_leaves(found) if isinstance(x, Tensor)):
                x.untyped_storage().there = True
        return found


@pytest.fixture
def gpu(monkeypatch):
    """The mode in which there is a GPU; it holds throughout the test."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(limits, "_sent", functools.cache(limits._sent.__wrapped__))  # none stays
    with Elsewhere() as mode:
        yield mode


# ---- the mode itself


def test_what_a_gpu_refuses_is_refused(gpu):
    here, over = torch.ones(3), torch.ones(3, device="cuda")
    assert over.device == GPU and over.is_cuda and not over.is_cpu and here.device == HOST
    assert (over[:1] + 1).device == GPU and over.cpu().device == HOST
    for wrong in (
        lambda: over + here, lambda: torch.cat([here, over]), lambda: over[torch.tensor([0])],
        over.numpy, lambda: np.asarray(over),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: torch.rand(3, generator=torch.Generator("cuda")),
        lambda: torch.nn.Linear(3, 3)(over),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, TypeError)):
            wrong()
    assert float((over * 2).sum()) == 6 and (over + torch.tensor(1.0)).device == GPU


def test_what_would_wait_is_refused_in_a_hurry(gpu):
    here, over = torch.ones(3), torch.rand(3, device="cuda", requires_grad=True)
    for waits in (
        over.sum().item, lambda: bool(over.sum() > 0), lambda: over[over > 0.5], over.nonzero,
        over.cpu, lambda: here.to("cuda"), lambda: torch.tensor(1.0, device="cuda"),
        lambda: over.new_tensor(1.0), lambda: torch.as_tensor(np.ones(3), device="cuda"),
        lambda: torch.equal(over, over), lambda: over.detach().copy_(here), over.tolist,
    ):  # fmt: skip
        with pytest.raises((Waits, TypeError)), gpu.hurry():
            waits()
    with gpu.hurry():
        (over * 2).sum().backward()
        sent = here.pin_memory().to("cuda", non_blocking=True)
        torch.full((3,), 2.0, device="cuda").mul_(0.5).add_(sent)
    assert over.grad.device == GPU and over.grad.cpu().tolist() == [2, 2, 2]


# ---- models

VECTOR = Dict({"proprio": Box(-np.inf, np.inf, (6,), np.float32)})
IMAGE = Dict({"rgb/a": Box(0, 255, (64, 64, 3), np.uint8)})
SEVERAL = Dict({"vector": VECTOR["proprio"], "task": Discrete(2)})
BOTH = Dict({**VECTOR.spaces, **IMAGE.spaces})
TOLD = [TaskSpec("one", 1, 20), TaskSpec("two", 2, 50)]
DREAM = {"batch_size": 2, "batch_length": 3, "horizon": 2, "warmup": 0, "recall": 1 << 20}
KINDS = {
    "tdmpc2": (TDMPC2, VECTOR, {"size": 1, "batch_size": 8, "episodic": True, "dropout": 0}),
    "several": (TDMPC2, SEVERAL, {"size": 1, "batch_size": 8, "tasks": TOLD, "dropout": 0}),
    "pixels": (TDMPC2, IMAGE, {"size": 1, "batch_size": 2, "keys": "rgb/a", "dropout": 0}),
    "dreamer": (DreamerV3, BOTH, DREAM),
    "choices": (DreamerV3, VECTOR, DREAM | {"discrete": True}),
}


def make(kind, device="cpu", **more):
    built, space, told = KINDS[kind]
    return built(space, 2, device=device, **(told | more))


def shown(space, rng, task):
    """Returns what rows (n,) of some tasks observe, `{key: (n, ...)}`."""
    drawn = {
        "proprio": rng.normal(size=(len(task), 6)).astype(np.float32),
        "rgb/a": rng.integers(0, 255, (len(task), 64, 64, 3), np.uint8), "task": task,
    }  # fmt: skip
    return {k: drawn["proprio" if k == "vector" else k] for k in space}


def record(path, space, episodes=3, hear=lambda step: None):
    """Writes episodes of 20 steps that show all of a space, and tells them; returns the folder."""
    rng = np.random.default_rng(0)
    with Recorder(path) as recorder:
        for i in range(episodes * 20):
            step = shown(space, rng, np.array([i // 20 % 2]))
            action = rng.uniform(-1, 1, (1, 2)).astype(np.float32)
            ends = np.array([i % 20 == 19])
            step |= {
                "action": action, "reward": rng.random(1, np.float32), "last": ends,
                "first": np.array([i % 20 == 0]), "terminal": ends, "valid": np.ones(1, bool),
            }  # fmt: skip
            recorder.add(step)
            hear(step)
    return path


def brought(tensors):
    """Returns the tensors on the host, all of which lie on the GPU."""
    assert all(v.device == GPU for v in tensors.values())
    return {k: v.cpu() for k, v in tensors.items()}


def close(found, wanted, rtol=1e-3, atol=1e-4):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_learns_there_what_it_learns_here_and_waits_for_nothing(gpu, kind, tmp_path):
    here, over = make(kind), make(kind, "cuda")
    record(tmp_path, KINDS[kind][1])
    ours, theirs = (Replay(Episodes(tmp_path), model.device) for model in (here, over))
    for i in range(2):
        rngs = [np.random.default_rng(i) for _ in range(2)]
        wanted = here.update(ours.sample(rngs[0], here.batch_size, here.window))
        with gpu.hurry() if i else contextlib.nullcontext():  # what is made once may wait
            batch = theirs.sample(rngs[1], over.batch_size, over.window)
            assert all(v.device == GPU for v in batch.values())
            found = over.update(batch)
        close(brought(found), wanted)
    saved = over.checkpoint()
    assert all(v.device == HOST for v in saved.values())
    # What was saved there goes on here, and there again: in the tensors that are in use.
    own = {k: v.data_ptr() for k, v in here.state_dict().items()}
    here.restore(saved)
    assert own == {k: v.data_ptr() for k, v in here.state_dict().items()}
    back = make(kind, "cuda", seed=5)
    back.restore(saved)
    rngs = [np.random.default_rng(7) for _ in range(2)]
    wanted = here.update(ours.sample(rngs[0], here.batch_size, here.window))
    close(brought(back.update(theirs.sample(rngs[1], back.batch_size, back.window))), wanted)


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer"])
def test_a_wait_in_a_models_update_would_be_noticed(gpu, kind, tmp_path, monkeypatch):
    over = make(kind, "cuda")
    data = Replay(Episodes(record(tmp_path, KINDS[kind][1])), over.device)
    rng = np.random.default_rng(0)
    over.update(data.sample(rng, over.batch_size, over.window))
    encode = over.encoder.forward
    monkeypatch.setattr(
        over.encoder, "forward", lambda x: encode(x) * encode(x).sum().sign().item()
    )
    with pytest.raises(Waits, match="_local_scalar_dense"), gpu.hurry():
        over.update(data.sample(rng, over.batch_size, over.window))


@pytest.mark.parametrize("kind", ["pixels", "dreamer"])
def test_a_share_of_a_batch_is_learnt_from_there_as_here(gpu, kind, tmp_path, monkeypatch):
    """Of two processes the other, which is not there, has the same to tell."""
    sent = []
    monkeypatch.setattr(parallel, "dist", SimpleNamespace(
        all_reduce=lambda x: sent.append(x.device) or x.mul_(2),
        all_gather=lambda xs, x: sent.append(x.device) or [y.copy_(x) for y in xs],
        scatter=lambda x, xs, source: sent.append(x.device) or x.copy_(xs[0]),
        broadcast=lambda x, source: None,  # words, between the hosts
    ))  # fmt: skip
    data = Replay(Episodes(record(tmp_path, KINDS[kind][1])), "cpu")
    batches = [data.sample(np.random.default_rng(i), 2, make(kind).window) for i in range(2)]
    found = {}
    for device in ("cpu", "cuda"):
        model, share = make(kind, device), parallel.Share(0, 2, device)
        share.adopt(model)
        for batch in batches:
            told = {k: v.to(model.device) for k, v in batch.items()}
            with gpu.hurry() if GPU in sent else contextlib.nullcontext():
                found[device] = model.update(share.hand_out(told))
    close(brought(found["cuda"]), found["cpu"])
    assert sent == sorted(sent, key=str) and sent.count(GPU) == sent.count(HOST) > 4


# ---- what acts

SMALL = {"horizon": 3, "iterations": 2, "samples": 24}
BOUNDS, RATE = Limits((-0.5, -0.9), 0.7), Limits(-0.8, 0.9, (0.3, 0.5))
OUT = Limits(keep_out=lambda seen: seen["proprio"][:, 0] > 0.2)
SEARCHES = [
    ("MPPI", "tdmpc2", {"elites": 4, "proposals": 3, "explore": True}),
    ("MPPI", "dreamer", {"elites": 4, "proposals": 3, "rollouts": 2, "limits": RATE}),
    ("CEM", "tdmpc2", {"elites": 4, "limits": BOUNDS, "deadline_ms": 1e9}),
    ("CEM", "dreamer", {"elites": 4, "limits": OUT}),
    ("ICEM", "several", {"elites": 4, "limits": RATE}),
    ("Gradient", "tdmpc2", {"proposals": 2, "limits": RATE}),
    ("Gradient", "choices", {"proposals": 2}),
    ("RandomShooting", "tdmpc2", {"explore": 0.1, "limits": BOUNDS}),
]


def lively(kind, device):
    """Returns a model in which no two plans are worth the same."""
    model, rng = make(kind), torch.Generator().manual_seed(0)
    saved = model.checkpoint()
    for key in (k for k in saved if k.startswith("model/") and saved[k].ndim > 1):
        saved[key] += 0.05 * torch.randn(saved[key].shape, generator=rng)
    model = model if device == "cpu" else make(kind, device)
    model.restore(saved)
    return model


def acted(policy, space, n=3, steps=2):
    """Returns what a policy does in n rows, and the carry."""
    rng, carry = np.random.default_rng(0), policy.start(np.arange(n))
    for i in range(steps):
        step = shown(space, rng, np.arange(n) % 2)
        action, carry = policy.act(step | {"first": np.full(n, i == 0)}, carry)
    return {"action": torch.from_numpy(action)} | {
        k: torch.from_numpy(v) for k, v in carry.items() if v.dtype == np.float32
    }


@pytest.mark.parametrize(("name", "kind", "told"), SEARCHES)
def test_a_planner_decides_there_as_here_and_waits_for_nothing(gpu, monkeypatch, name, kind, told):
    here, over = (getattr(planners, name)(lively(kind, d), **SMALL | told) for d in ("cpu", "cuda"))
    wanted = acted(here, KINDS[kind][1])
    acted(over, KINDS[kind][1], steps=1)  # what is sent once may wait
    limited, plans = Planner._limited, []

    def plan(self, moment):
        plans.append(self)
        moment.noise.streams  # noqa: B018 (seeds of rows are sent; they are made when first asked for)
        with gpu.hurry():
            return limited(self, moment)

    monkeypatch.setattr(Planner, "_limited", plan)
    close(acted(over, KINDS[kind][1]), wanted, atol=2e-3)
    assert plans == [over, over]


@pytest.mark.parametrize("kind", ["several", "pixels", "choices"])
def test_a_models_own_policy_acts_there_as_here(gpu, kind):
    models = [lively(kind, device) for device in ("cpu", "cuda")]
    for explore in (False, True):
        here, over = (acted(planners.Prior(m, explore=explore), KINDS[kind][1]) for m in models)
        close(over, here)


# ---- data and what looks into a model


@pytest.mark.parametrize("room", [None, 1])
def test_windows_are_there_what_they_are_here(gpu, tmp_path, room):
    path = record(tmp_path, BOTH)
    here, over = Replay(Episodes(path), "cpu"), Replay(Episodes(path), "cuda", room)
    assert over.resident == (room is None)
    for i in range(2):
        ours, theirs = (np.random.default_rng(i) for _ in range(2))
        with gpu.hurry():
            found = over.sample(theirs, 5, 4)
        wanted, found = here.sample(ours, 5, 4), brought(found)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[k], v) for k, v in wanted.items())
        record(tmp_path, BOTH)
        assert here.refresh() == over.refresh() == 3


def test_steps_in_hand_are_there_what_they_are_here(gpu, tmp_path):
    here, over = (Stream(Replay(Episodes(tmp_path), d), 1) for d in ("cpu", "cuda"))

    def hear(step):
        assert here.add(step) == over.add(step)
        if over.count(4):
            wanted, rng = here.sample(np.random.default_rng(0), 3, 4), np.random.default_rng(0)
            with gpu.hurry():
                found = over.sample(rng, 3, 4)
            close(brought(found), wanted, 0, 0)

    record(tmp_path, VECTOR, 2, hear)


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer"])
def test_foresight_is_there_what_it_is_here(gpu, tmp_path, kind):
    windows = Replay(Episodes(record(tmp_path, KINDS[kind][1])), "cpu")
    windows = windows.sample(np.random.default_rng(0), 4, 5)
    found = []
    for device in ("cpu", "cuda"):
        model, rng = lively(kind, device), torch.Generator(device).manual_seed(0)
        seen = foresight.foresee(model, windows, 2, rng)
        told = foresight.decode(model, seen.dreamt)
        assert set(told) == (set(KINDS[kind][1]) if kind == "dreamer" else set())
        found.append(seen.dreamt | {"reward": seen.reward, "alive": seen.alive} | told)
    for k in (k for k in found[0] if found[0][k].dtype != torch.uint8):
        torch.testing.assert_close(found[1][k], found[0][k], rtol=1e-3, atol=1e-3)
    assert all(v.device == HOST for v in found[1].values())


def test_a_clone_learns_and_acts_there_as_here(gpu, tmp_path):
    path = record(tmp_path, VECTOR)
    told = {"hidden": 32, "batch_size": 8, "accumulate": 2}
    here, over = (BC(VECTOR, 2, device=d, **told) for d in ("cpu", "cuda"))
    for clone in (here, over):
        clone.fit(Episodes(path).stats()["keys"])
        data, rng = Replay(Episodes(path, across=True), clone.device), np.random.default_rng(0)
        for _ in range(3):
            metrics = clone.update(data.sample(rng, 8, clone.window))
    assert metrics["loss"].device == GPU
    close(over.checkpoint(), here.checkpoint())
    close(acted(over, VECTOR), acted(here, VECTOR))
