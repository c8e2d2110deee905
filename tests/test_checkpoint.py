"""Checkpoints are whole or absent: what is altered, cut or half written is never what is loaded."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from umwelten import checkpoint

FILES = ("tensors.safetensors", "arrays.safetensors", "state.json", "manifest.json")


def save(folder, step):
    tensors = {"w": torch.full((3, 2), float(step)), "count": torch.tensor(step)}
    arrays = {
        "mask": np.array([True, False]),
        "seed": np.array([2**40 + step]),
        "wide": np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2],  # not contiguous
        "none": np.zeros((0, 3), np.float32),
        "one": np.float64(step) * np.ones(()),
    }
    return checkpoint.save(folder, step, tensors, arrays, {"at": step, "rng": {"big": 2**100}})


def loaded(path):
    tensors, arrays, state = checkpoint.load(path)
    return int(tensors["count"]), int(arrays["seed"][0] - 2**40), state["at"]


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    path = save(tmp_path, 7)
    tensors, arrays, state = checkpoint.load(path)
    assert torch.equal(tensors["w"], torch.full((3, 2), 7.0)) and tensors["count"].shape == ()
    assert arrays["mask"].dtype == bool and arrays["mask"].tolist() == [True, False]
    assert np.array_equal(arrays["wide"], np.arange(12).reshape(3, 4)[:, ::2])
    assert arrays["none"].shape == (0, 3) and arrays["one"].shape == ()
    assert state == {"at": 7, "rng": {"big": 2**100}}
    assert checkpoint.latest(tmp_path) == path


def test_tensors_that_share_memory_come_back_each(tmp_path):
    whole = torch.arange(6.0)
    checkpoint.save(tmp_path, 0, {"a": whole[:3].clone(), "b": whole.clone()}, {}, {})
    tensors = checkpoint.load(checkpoint.latest(tmp_path))[0]
    assert torch.equal(tensors["a"], whole[:3]) and torch.equal(tensors["b"], whole)


def test_the_newest_stay_and_steps_are_in_order(tmp_path):
    assert checkpoint.latest(tmp_path) is None and checkpoint.steps(tmp_path) == []
    for step in (5, 40, 300, 2000, 10**10):
        save(tmp_path, step)
        assert loaded(checkpoint.latest(tmp_path)) == (step, step, step)
    assert checkpoint.steps(tmp_path) == [2000, 10**10] and checkpoint.KEEP == 2
    assert loaded(checkpoint.latest(tmp_path))[0] == 10**10
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_saving_again_replaces(tmp_path):
    save(tmp_path, 3)
    checkpoint.save(tmp_path, 3, {"w": torch.zeros(1)}, {}, {"at": "new"})
    assert checkpoint.load(checkpoint.latest(tmp_path))[2] == {"at": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000003"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete", "grow"])
def test_a_damaged_checkpoint_is_refused_and_the_older_one_taken(tmp_path, name, damage):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    raw = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    else:
        raw[len(raw) // 2] ^= 1 << 3
        good = file.read_bytes()
        changed = {"flip": bytes(raw), "cut": good[:-1], "empty": b"", "grow": good + b"\0"}
        file.write_bytes(changed[damage])
    with pytest.raises(checkpoint.BrokenCheckpoint):
        checkpoint.load(tmp_path / "step-000000002")
    assert loaded(checkpoint.latest(tmp_path)) == (1, 1, 1)


@pytest.mark.parametrize("name", FILES[:3])
def test_every_bit_counts(tmp_path, name):
    path = save(tmp_path, 1)
    good = (path / name).read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(len(good) * 8, size=40).tolist():
        raw = bytearray(good)
        raw[at // 8] ^= 1 << at % 8
        (path / name).write_bytes(raw)
        with pytest.raises(checkpoint.BrokenCheckpoint, match=name):
            checkpoint.load(path)
    (path / name).write_bytes(good)
    assert loaded(path) == (1, 1, 1)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', '{"state.json": 3}'])
def test_a_manifest_of_another_kind_is_refused(tmp_path, text):
    path = save(tmp_path, 1)
    (path / "manifest.json").write_text(text)
    with pytest.raises(checkpoint.BrokenCheckpoint):
        checkpoint.load(path)
    assert checkpoint.latest(tmp_path) is None


def test_what_is_not_a_checkpoint_is_passed_by(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-000000009").write_text("a file")
    (tmp_path / "step-best").mkdir()
    (tmp_path / ".step-000000008.tmp").mkdir()
    assert loaded(checkpoint.latest(tmp_path))[0] == 1
    save(tmp_path, 10)  # and what is in the way of tidying up is no reason to fail
    assert loaded(checkpoint.latest(tmp_path))[0] == 10


KILLER = """
import os, pathlib, shutil, sys
import numpy as np, torch
from umwelten import checkpoint

folder, calls, stage = pathlib.Path(sys.argv[1]), 0, 0

def counted(function):
    def wrapper(*a, **k):
        global calls
        calls += 1
        if calls == stage:
            os.kill(os.getpid(), 9)
        return function(*a, **k)
    return wrapper

def save(folder, step):
    tensors = {"w": torch.ones(4) * step, "count": torch.tensor(step)}
    checkpoint.save(folder, step, tensors, {"seed": np.array([2**40 + step])}, {"at": step})

for step in (1, 2):
    save(folder / "prepared", step)
os.fsync, shutil.rmtree = counted(os.fsync), counted(shutil.rmtree)
for name in ("rename", "write_text", "mkdir", "open"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
ended = False
while not ended:
    stage += 1
    shutil.copytree(folder / "prepared", folder / f"at-{stage}")
    child = os.fork()
    if not child:
        calls = 0
        save(folder / f"at-{stage}", 3)
        os._exit(0)
    ended = os.waitpid(child, 0)[1] == 0
    calls = -1000000
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """Every call that touches the disk is a moment; 1 and 2 are there, then 3 is saved."""
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "1"})
    moments = len(list(tmp_path.glob("at-*")))
    assert moments > 10
    found = []
    for stage in range(1, moments + 1):
        parts = loaded(checkpoint.latest(tmp_path / f"at-{stage}"))
        assert len(set(parts)) == 1
        found.append(parts[0])
    assert found == sorted(found) and set(found) == {2, 3}
    assert found[-2:] == [3, 3]  # killed when it was in place, and not killed at all


def test_nothing_that_is_loaded_can_execute(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = save(tmp_path, 1)
    for name in FILES[:3]:
        good = (path / name).read_bytes()
        (path / name).write_bytes(pickle.dumps(Trap()))
        manifest = {n: checkpoint._digest(path / n) for n in FILES[:3]}
        (path / "manifest.json").write_text(json.dumps(manifest))  # even where it says all is well
        with pytest.raises(checkpoint.BrokenCheckpoint):
            checkpoint.load(path)
        assert checkpoint.latest(tmp_path) is None
        (path / name).write_bytes(good)
    with pytest.raises(SafetensorError, match="object"):
        checkpoint.save(tmp_path, 2, {}, {"o": np.array([Trap()], object)}, {})
    assert not (tmp_path / "sprung").exists()
    assert checkpoint.steps(tmp_path) == [1]
