"""Collectors of their own: steps come in order, the ratio is kept, and a killed one is replaced."""

import json
import sys

import numpy as np
import pytest

from umwelten import build, cli, learn
from umwelten.config import ConfigError
from umwelten.episodes import Episodes
from umwelten.fleet import STRIDE, Fleet
from umwelten.run import Run

TOLD = {
    "task": "reach", "action_repeat": 5, "cameras": (), "world": {}, "seed": 3,
    "model": {"name": "tdmpc2", "size": 1, "batch_size": 8},
    "planner": {"name": "mppi", "iterations": 1, "samples": 8, "elites": 2, "proposals": 2},
}  # fmt: skip


def test_without_ray_it_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"launcher=ray needs Ray; pip install 'umwelten\[ray\]'"):
        Fleet(TOLD, None, [1, 2], 2)


def test_another_launcher_and_what_it_cannot_do_are_refused(tmp_path, capsys):
    told = [f"out={tmp_path}", "task=reach", "model.size=1", "steps=10"]
    assert cli.main(["train", *told, "launcher=slurm"]) == 2
    assert "no launcher 'slurm'; there are local, ray" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_rows_that_cannot_be_parted_and_missing_processors_are_refused(ray):
    with pytest.raises(ConfigError, match="n=3 rows are not parted by collectors=2"):
        Fleet(TOLD, None, [1, 2, 3], 2)
    with pytest.raises(ConfigError, match="collectors=4 want a processor each; Ray has 2"):
        Fleet(TOLD, None, [1, 2, 3, 4], 4)


@pytest.mark.slow
def test_training_goes_on_when_a_collector_is_killed_and_keeps_every_step(ray, tmp_path):
    options = {k: TOLD[k] for k in ("action_repeat", "cameras", "world")}
    env = build.make_env("reach", 4, **options)
    model = build.make_model(TOLD["model"], env, seed=3)
    fleets, kills, before = [], [140], model.state_dict()["policy.layers.0.weight"].clone()

    def act(env, policy, seeds):
        fleets.append(Fleet(TOLD, model, seeds, 2, warm=10))
        return fleets[-1]

    def watch(progress, metrics):
        if kills and progress.env_steps >= kills[0]:
            ray.kill(fleets[-1].actors[1])
            kills.clear()

    told = {"ratio": 0.25, "seed_steps": 40, "pretrain": 4, "seed": 3, "watch": watch}
    with Run(tmp_path) as run:
        progress = learn.train(model, run, env=env, policy=None, steps=360, act=act, **told)
    assert fleets[0]._lives.tolist() == [0, 1]
    # updates per decision are those asked for, at every moment after the seed steps
    assert progress.updates == 4 + (progress.env_steps - 40) // 4
    assert not (model.state_dict()["policy.layers.0.weight"] == before).all()
    data = Episodes(tmp_path / "episodes")
    whole = [data.episode(i) for i in range(len(data))]
    cut = [e for e in whole if not e["valid"].all()]
    assert len(cut) == 2  # of the rows of the one that was killed
    for e in whole:
        assert e["first"][0] and e["last"][-1] and e["valid"][:-1].all()
        np.testing.assert_allclose(np.diff(e["time"][e["valid"]]), 0.5, atol=1e-6)
    # what was handed over before the kill is there: no decision is missing
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(x["kind"] == "episode" for x in lines) >= 2
    state = learn.checkpoint.load(learn.checkpoint.latest(tmp_path / "checkpoints"))
    hand = int((~state[1]["hand/first"]).sum()) if "hand/first" in state[1] else 0
    assert int((data.lengths - 1).sum()) + hand == progress.env_steps
    # and the same call goes on from the checkpoint
    fleets.clear()  # its collectors end with it
    with Run(tmp_path) as run:
        again = learn.train(model, run, env=env, policy=None, steps=440, act=act, **told)
    assert again.env_steps >= 440 and again.updates == 4 + (again.env_steps - 40) // 4
    assert len(Episodes(tmp_path / "episodes")) > len(data)


@pytest.mark.slow
def test_collectors_act_by_the_weights_that_are_sent(ray):
    env = build.make_env("reach", 2, action_repeat=5)
    model = build.make_model(TOLD["model"], env, seed=3)
    told = TOLD | {"planner": {"name": "prior"}}
    fleet = Fleet(told, model, [1, 2], 1)
    early = [next(fleet) for _ in range(2 * STRIDE)]
    model.policy.layers[-1].bias.data[:4] = 5.0
    later = [next(fleet) for _ in range(2 * STRIDE)]
    mean = [np.mean([s["action"] for s in steps]) for steps in (early, later[STRIDE:])]
    assert mean[0] < 0.5 and mean[1] > 0.9
