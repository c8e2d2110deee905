"""Two processes that learn from halves of each batch learn what one learns from the whole."""

import inspect
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from safetensors.torch import load_file

from umwelten.parallel import ALONE, Share
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.tdmpc2 import TDMPC2


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def model(kind):
    vector = Dict({"proprio": Box(-np.inf, np.inf, (24,), np.float32)})
    image = Dict({"rgb/a": Box(0, 255, (64, 64, 3), np.uint8)})
    if kind in ("tdmpc2", "compiled"):
        return TDMPC2(vector, 6, 1, batch_size=8, episodic=True, compile=kind == "compiled")
    if kind == "pixels":
        return TDMPC2(image, 2, size=1, batch_size=2, keys=["rgb/a"])
    told = {"batch_size": 4, "batch_length": 4, "horizon": 3, "warmup": 0, "lr": 1e-3}
    return DreamerV3(vector, 3, size=1, **told)


def windows(model, seed):
    g, b, t = torch.Generator().manual_seed(seed), model.batch_size, model.window
    first = torch.zeros(b, t, dtype=torch.bool)
    first[::3, 0] = True
    batch = {
        "place": torch.arange(b)[:, None] + torch.arange(-1, t),
        "action": torch.rand(b, t, model.nu, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g) * 20,
        "terminal": torch.rand(b, t, generator=g) > 0.8,
        "last": torch.zeros(b, t, dtype=torch.bool),
        "first": first,
    }
    for key in model.keys:
        if key.startswith("rgb/"):
            shape = (b, t, 64, 64, 3)
            batch[key] = torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
        else:
            batch[key] = torch.randn(b, t, 24, generator=g)
    return batch


KINDS, UPDATES = ("tdmpc2", "pixels", "dreamer"), 3

SCRIPT = """
import sys
import numpy as np, torch
from gymnasium.spaces import Box, Dict
from safetensors.torch import save_file
from umwelten.learn import follow
from umwelten.parallel import Share
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.tdmpc2 import TDMPC2

torch.set_num_threads(1)
real = torch.compile
torch.compile = lambda f, mode=None: real(f, backend="aot_eager", fullgraph=True)

{sources}

share = Share.join("cpu")
for kind in {kinds}:
    one = model(kind)
    if share.leads:
        one.update(windows(one, 100))  # as one that was resumed: the other begins with nothing
    share.adopt(one)
    if share.leads:
        share.agree(one)
        found = {}
        for seed in range({updates}):
            metrics = one.update(share.hand_out(windows(one, seed)))
            found |= {f"{seed}/{k}": v for k, v in metrics.items()}
            if not seed:
                save_file(one.checkpoint(), f"{sys.argv[1]}/{kind}-first")
        share.dismiss()
        save_file(found, f"{sys.argv[1]}/{kind}-metrics")
    else:
        follow(one)
    save_file(one.checkpoint(), f"{sys.argv[1]}/{kind}-{share.rank}")
"""


def learnt(folder, kinds):
    """Returns the folder of what two processes have learnt, each on a half of every batch."""
    sources = "\n\n".join(inspect.getsource(f) for f in (model, windows))
    script = SCRIPT.replace("{sources}", sources).replace("{kinds}", repr(kinds))
    command = [sys.executable, "-c", script.replace("{updates}", str(UPDATES)), str(folder)]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port()), "WORLD_SIZE": "2"}
    told |= {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command, env=os.environ | told | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE, text=True,
        ) for r in (0, 1)
    ]  # fmt: skip
    errors = [process.communicate(timeout=400)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return learnt(tmp_path_factory.mktemp("pair"), KINDS)


@pytest.mark.slow
def test_two_processes_learn_as_one_where_updates_are_compiled(tmp_path):
    learnt(tmp_path, ("compiled",))
    ours, theirs = (load_file(tmp_path / f"compiled-{rank}") for rank in (0, 1))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours | theirs)
    alone, found = model("tdmpc2"), load_file(tmp_path / "compiled-metrics")
    alone.update(windows(alone, 100))
    for seed in range(UPDATES):
        for key, value in alone.update(windows(alone, seed)).items():
            torch.testing.assert_close(found[f"{seed}/{key}"], value, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_as_one_and_stay_equal(pair, kind):
    ours, theirs = (load_file(pair / f"{kind}-{rank}") for rank in (0, 1))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours | theirs)
    alone, halves = model(kind), model(kind)
    for m in (alone, halves):
        m.update(windows(m, 100))
    begun = alone.checkpoint()
    for seed in range(UPDATES):
        metrics = alone.update(windows(alone, seed))
        halves.update({k: v[: len(v) // 2] for k, v in windows(halves, seed).items()})
        found = load_file(pair / f"{kind}-metrics")
        for key, value in metrics.items():
            torch.testing.assert_close(found[f"{seed}/{key}"], value, rtol=2e-3, atol=1e-5)
        if seed == 0:  # an optimiser's moments are then sums of gradients alone
            first, found = alone.checkpoint(), load_file(pair / f"{kind}-first")
            for key in (k for k in first if k.endswith(("exp_avg", "/square"))):
                error, size = (first[key] - found[key]).norm(), first[key].norm()
                assert error <= 1e-3 * size + 1e-9, (key, float(error), float(size))
    # A step divides by the gradient's size: where that is rounding, so is the step's sign.
    after = {k: v for k, v in alone.checkpoint().items() if k.startswith("model/")}
    moved = sum(float((v - begun[k]).square().sum()) for k, v in after.items())
    error = sum(float((v - ours[k]).square().sum()) for k, v in after.items())
    assert error**0.5 <= 0.02 * moved**0.5
    # a half alone, or halves that draw on their own, would be seen
    weight = next(k for k in begun if k.endswith("policy.layers.0.weight") or "actor.mlp" in k)
    apart = (halves.checkpoint()[weight] - alone.checkpoint()[weight]).norm()
    assert apart > 0.1 * (alone.checkpoint()[weight] - begun[weight]).norm()


def test_alone_nothing_is_exchanged_and_nothing_copied():
    x = torch.rand(4, 3)
    assert ALONE.gather(x) is x and ALONE.leads
    batch = {"x": x}
    assert ALONE.hand_out(batch) is batch
    assert ALONE.part(lambda shape: torch.zeros(shape), (2, 3), 1).shape == (2, 3)


def test_a_part_is_a_slice_of_what_is_drawn_for_all():
    def draw(shape):
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    whole = draw((2, 6, 3))
    parts = [Share(rank, 3).part(draw, (2, 2, 3), 1) for rank in range(3)]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_a_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(ValueError, match="8 windows is not parted equally among 3 processes"):
        Share(0, 3).adopt(model("tdmpc2"))
