"""Worlds: a seed's episode comes to what was recorded of it, to the bit where that can be."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from umwelten import registry

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RECORD = json.loads((BENCHMARKS / "results" / "worlds.json").read_text())["results"]
AGAIN = "if that is meant, run python benchmarks/worlds.py"


@pytest.fixture
def worlds(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import worlds

    yield worlds
    sys.modules.pop("worlds"), sys.modules.pop("record", None)


def test_every_task_is_recorded():
    assert RECORD["tasks"].keys() == registry.members("envs").keys(), AGAIN


@pytest.mark.parametrize("name", RECORD["tasks"])
def test_a_seeds_episode_is_what_was_recorded(worlds, name):
    made, here = RECORD["makers"], worlds.makers()
    if made["mujoco"] != here["mujoco"]:
        pytest.skip(f"recorded with MuJoCo {made['mujoco']}, this is {here['mujoco']}")
    then, now = RECORD["tasks"][name], worlds.outcome(name)
    if made == here:
        assert now["sha256"] == then["sha256"], f"{name} has other bits than {made}; {AGAIN}"
    np.testing.assert_allclose(now["figures"], then["figures"], rtol=1e-5, atol=1e-6)


def test_another_seed_or_a_changed_world_would_be_seen(worlds, monkeypatch):
    task = registry.load("envs", "Reach")
    before = task.reset
    monkeypatch.setattr(
        task, "reset", lambda self, sim, i, rng: before(self, sim, i, rng) or put(sim)
    )

    def put(sim):
        sim.qpos[:, 0] += 1e-12

    now, then = worlds.outcome("Reach"), RECORD["tasks"]["Reach"]
    assert now["sha256"] != then["sha256"]
    np.testing.assert_allclose(now["figures"], then["figures"], rtol=1e-5)
