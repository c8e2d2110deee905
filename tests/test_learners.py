"""PPO, SAC and TD3 learn through the train verb, go on exactly, act, and leave chance alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from umwelten import build, checkpoint, cli, config, score
from umwelten.agents.learners import PPO, SAC, TD3
from umwelten.agents.policy import Random
from umwelten.envs.env import BatchEnv
from umwelten.run import Run

# ten control steps a decision: an episode of Reach has five; the replay's end is soon reached
TINY = ["task=reach", "action_repeat=10", "n=2", "device=cpu", "threads=1", "episodes=2"]
TINY += ["evaluate_every=24", "save_every=8", "learner.policy_kwargs.net_arch=[6]"]
TINY += ["learner.batch_size=8"]
OFF = ["learner.learning_starts=8", "learner.buffer_size=32"]
OWN = {"ppo": ["learner.n_steps=4", "learner.n_epochs=2"], "sac": OFF, "td3": OFF}
LEARNERS = pytest.mark.parametrize("name", OWN)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The verb sets torch's threads; others shall not find them changed."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def train(folder, name, *arguments):
    return cli.main(["train", f"agent={name}", *TINY, *OWN[name], f"out={folder}", *arguments])


def outcome(folder):
    tensors, arrays, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    values = {k: v.numpy().tobytes() for k, v in tensors.items()}
    values |= {k: v.tobytes() for k, v in arrays.items()}
    return values, state, (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("run") / name for name in OWN}
    assert [train(folder, name, "steps=64") for name, folder in folders.items()] == [0, 0, 0]
    return folders


@LEARNERS
def test_a_run_is_the_same_folder_as_a_world_models(trained, name):
    folder = trained[name]
    told = config.load(folder / "config.yaml")
    assert told["agent"] == name == told["learner"]["name"] and told["model"] == {}
    with Run(folder) as run:
        lines = run.metrics()
    kinds = [m["kind"] for m in lines]
    assert kinds.count("episode") >= 4 and kinds.count("score") == 2
    assert all(m["policy"] == name.upper() and m["episodes"] == 2 for m in lines if "policy" in m)
    assert ("train" in kinds) == (name == "ppo")  # the others log every 250 updates
    assert f"# reach: {name}, seed 0" in (folder / "RUN.md").read_text()
    assert len((folder / "environment.jsonl").read_text().splitlines()) == 1
    kept = {path.name for path in folder.rglob("step-*/*")}
    whole = {"tensors.safetensors", "arrays.safetensors", "state.json", "manifest.json"}
    assert kept == whole  # and nothing that could execute


@LEARNERS
def test_what_was_learnt_is_not_what_it_began_with(trained, name):
    env = build.make_env("reach", 1, action_repeat=10)
    learnt = build.make_policy(name, env, str(trained[name])).checkpoint()
    told = config.load(trained[name] / "config.yaml")
    fresh, again = (build.make_learner(told["learner"], env, n=2).checkpoint() for _ in "ab")
    assert all(torch.equal(fresh[k], again[k]) for k in fresh)  # what it began with is its seed's
    weights = [k for k in fresh if k.startswith("policy/") and k.endswith("weight")]
    assert weights and not any(torch.equal(fresh[k], learnt[k]) for k in weights)
    moments = [k for k in learnt if "/state/" in k and k.endswith("exp_avg")]
    assert moments and all(learnt[k].any() for k in moments)


@LEARNERS
def test_the_same_command_goes_on_and_ends_the_same(trained, name, tmp_path):
    for steps in (24, 40, 64):
        assert train(tmp_path, name, f"steps={steps}") == 0
    whole, parts = outcome(trained[name]), outcome(tmp_path)
    assert whole[0].keys() == parts[0].keys()
    assert [k for k in whole[0] if whole[0][k] != parts[0][k]] == []
    assert whole[1:] == parts[1:]
    assert len((tmp_path / "environment.jsonl").read_text().splitlines()) == 3


@LEARNERS
def test_what_is_not_learnt_from_may_change_on_the_way(trained, name, tmp_path):
    for more in (["steps=24"], ["steps=64", "evaluate_every=40", "episodes=1", "save_every=60"]):
        assert train(tmp_path, name, *more) == 0
    whole, parts = outcome(trained[name]), outcome(tmp_path)
    assert [k for k in whole[0] if whole[0][k] != parts[0][k]] == []
    with Run(tmp_path) as run:
        scored = [(m["env_steps"], m["episodes"]) for m in run.metrics() if m["kind"] == "score"]
    assert scored == [(24, 2), (40, 1)]


def test_the_exactness_is_due_to_what_is_kept(trained):
    """Without the streams, or without the replay, the same parts end elsewhere."""
    told = config.load(trained["sac"] / "config.yaml")
    for lost in ("streams/numpy", "replay"):
        ends = []
        for keep in (True, False):
            env = build.make_env("reach", 2, action_repeat=10, autoreset_mode="SameStep")
            found = checkpoint.load(checkpoint.latest(trained["sac"] / "checkpoints"))
            learner = build.make_learner(told["learner"], env)
            learner.restore(found[0])
            arrays = {k: v // 2 if k.startswith(lost) else v for k, v in found[1].items()}
            learner.go_on(found[1] if keep else arrays, found[2]["learner"])
            learner.learn(72, lambda *step: None, lambda: None)
            ends.append(learner.checkpoint()["policy/actor.mu.weight"])
        assert not torch.equal(*ends), lost


def test_ctrl_c_ends_with_130_and_the_same_command_ends_the_same(tmp_path):
    more = ["steps=300", "save_every=300", "evaluate_every=0"]
    told = ["train", "agent=sac", *TINY, *OWN["sac"], *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "umwelten", *told, f"out={tmp_path / 'parts'}"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
    log = tmp_path / "parts" / "metrics.jsonl"
    try:
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, error.strip()) == (130, "umwelten: interrupted")
    state = checkpoint.load(checkpoint.latest(tmp_path / "parts" / "checkpoints"))[2]
    assert 0 < state["progress"]["updates"] and state["progress"]["env_steps"] < 300
    for part in ("parts", "whole"):
        assert cli.main([*told, f"out={tmp_path / part}"]) == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_run_is_scored_played_and_collected_by_what_learnt_it(trained, tmp_path):
    for name, folder in trained.items():
        out = tmp_path / f"{name}.json"
        told = ["task=reach", f"policy={name}", f"run={folder}"]
        assert cli.main(["score", *told, "episodes=2", f"out={out}"]) == 0
        found = json.loads(out.read_text())
        assert found["policy"] == name.upper() and 0 < found["return"] < 50
        last = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        at_48 = [m["return"] for m in last if m["kind"] == "score"][-1]
        assert found["return"] != at_48  # of the newest checkpoint, on the same seeds
    assert cli.main(["play", *told, f"out={tmp_path / 'a.mp4'}"]) == 0
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    assert cli.main(["collect", *told, "episodes=2", "video=0", f"out={tmp_path / 'd'}"]) == 0


@pytest.mark.parametrize("arguments, says", [
    (["agent=sak"], "did you mean 'sac'"),
    (["learner.gama=0.9"], "no key 'gama' for sac; did you mean 'gamma'"),
    (["learner.name=mppi"], "mppi does not learn by itself"),
    (["learner.batch_size=many"], "batch_size=many of sac must be a whole number"),
    (["learner.gamma=high"], "gamma=high of sac must be a number"),
    (["learner.use_sde=1"], "use_sde=1 of sac must be true or false"),
    (["learner.policy_kwargs.activation_fn=tanh"], "no key 'activation_fn' for policy_kwargs"),
    (["learner.replay_buffer_class=os.system"], "no key 'replay_buffer_class' for sac"),
    (["learner.n_steps=3"], "not supported for Dict"),
    (["learner.keys=[rgb/front]"], "'rgb/front' is not observed"),
    (["learner.keys=[instruction]"], "'instruction' is nothing that SB3 reads"),
    (["learner.keys=[]"], "no vector to learn from"),
    (["task=reach+push"], "sac learns one task at a time"),
    (["ratio=2"], "ratio is for world models; sac has a loop of its own"),
    (["model.size=1"], "model is for world models"),
    (["offline=true"], "offline is for world models"),
    (["world.autoreset_mode=NextStep"], "give it without the `world.`"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_is_in_nobodys_way(arguments, says, tmp_path, capsys):
    assert train(tmp_path / "run", "sac", *arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("arguments, says", [
    (["task=push", "policy=sac"], "learnt reach, not Push"),
    (["task=reach", "policy=ppo"], "was learnt by sac, not by ppo"),
    (["task=reach", "policy=mppi"], "was learnt by sac without a model; use policy=sac"),
    (["task=reach", "policy=sac", "planner.samples=3"], "policy=sac plans nothing"),
    (["task=reach", "policy=sac", "world.robot=panda"], "is not of this SAC"),
])  # fmt: skip
def test_a_run_is_not_used_for_what_it_did_not_learn(trained, arguments, says, capsys):
    assert cli.main(["score", *arguments, f"run={trained['sac']}", "episodes=2"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_learner_without_a_run_is_refused(capsys):
    assert cli.main(["score", "task=reach", "policy=td3"]) == 2
    assert "say where with run=FOLDER" in capsys.readouterr().err


def test_another_config_is_refused(trained, capsys):
    assert train(trained["sac"], "sac", "steps=90", "learner.gamma=0.9") == 2
    assert "was trained with another learner" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_with_1(tmp_path, capsys):
    assert train(tmp_path, "sac", "steps=64", "learner.learning_rate=1e30") == 1
    assert "not finite at update" in capsys.readouterr().out
    assert checkpoint.latest(tmp_path / "checkpoints") is not None  # from before it learnt


# ---- as objects


def world(n=2, kind=BatchEnv, **options):
    return kind("Reach", n, nthread=1, autoreset_mode=AutoresetMode.SAME_STEP, **options)


def quiet(*step):
    """Hears of a step and does nothing."""


def test_the_processs_own_chance_is_left_alone():
    draws = []
    for _ in range(2):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
        if draws:
            size = {"learning_starts": 4, "batch_size": 4, "policy_kwargs": {"net_arch": [4]}}
            SAC(world(), size, seed=1).learn(20, quiet, lambda: None)
        drawn = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
        draws.append(drawn)
    assert draws[0] == draws[1]


def test_learners_side_by_side_are_as_each_alone():
    size = {"learning_starts": 4, "batch_size": 4, "policy_kwargs": {"net_arch": [4]}}

    def make():
        return TD3(world(action_repeat=10), size | {"action_noise": 0.1}, seed=1)

    alone, a, b = make(), make(), make()
    alone.learn(20, quiet, lambda: None)
    for steps in (8, 12, 20):
        a.learn(steps, quiet, lambda: None), b.learn(steps, quiet, lambda: None)
    for one in (a, b):
        mine, other = alone.checkpoint(), one.checkpoint()
        assert all(torch.equal(mine[k], other[k]) for k in mine)


def test_another_seed_is_another_learner_in_other_episodes():
    one, two = (PPO(world(), {}, seed=s) for s in (0, 1))
    key = "policy/action_net.weight"
    assert not torch.equal(one.checkpoint()[key], two.checkpoint()[key])
    seeds = [learner._rows._seeds for learner in (one, two)]
    assert not set(seeds[0]) & set(seeds[1]) and max(map(max, seeds)) < score.HELD_OUT


SMALL = {"policy_kwargs": {"net_arch": [32, 32]}, "batch_size": 64, "gamma": 0.9}
SMALL |= {"n_steps": 32, "n_epochs": 5, "learning_rate": 2e-3}


class Flipped(BatchEnv):
    """Pays what is to be avoided."""

    def step(self, actions):
        obs, reward, *rest = super().step(actions)
        return obs, -reward, *rest


def test_ppo_learns_to_reach_and_the_other_way_round_with_the_reward_flipped():
    held_out, found = build.make_env("reach", 10), {}
    for kind, steps in ((BatchEnv, 8000), (Flipped, 4000)):
        learner = PPO(world(16, kind), SMALL)
        learner.learn(steps, quiet, lambda: None)
        found[kind] = score.judge(held_out, learner, 10).summary()["return_interval"]
    chance = score.judge(held_out, Random(4), 10).summary()["return_interval"]
    assert found[BatchEnv][0] > chance[1] + 10
    assert found[Flipped][1] < chance[1]
