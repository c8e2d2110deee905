"""Worlds: a seed's episode comes to what was recorded of it; nothing makes what is no number."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from umwelten import registry
from umwelten.envs.env import BatchEnv

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


@pytest.mark.parametrize("name", RECORD["tasks"])
def test_neither_actions_nor_a_divergence_make_what_is_no_number(name):
    env = BatchEnv(name, 2, nthread=1)
    rng, steps = np.random.default_rng(0), []
    env.reset(seed=1)
    for _ in range(6):
        steps.append(env.step(rng.choice([-1e30, -1, 1, 1e30], env.action_space.shape)))
    env.reset(seed=1)
    bad = np.zeros(env.action_space.shape)
    bad[1, -1] = np.nan
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN"):
        env.step(bad)
    env.sim.qvel[1, 0] = np.nan
    steps.append(env.step(0 * env.action_space.sample()))
    *_, (_, reward, ended, _, info) = steps
    assert ended.tolist() == [False, True] and reward[1] == 0
    assert info["fault"].tolist() == ["", "physics"]
    for obs, reward, *_ in steps:
        assert env.observation_space.contains(obs)
        assert all(np.isfinite(v).all() for v in obs.values())
        assert (reward >= 0).all() and (reward <= 1).all()
