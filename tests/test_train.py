"""The train verb trains: what it learnt differs, passes what chance fails, and goes on exactly."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from umwelten import build, checkpoint, cli, config
from umwelten.episodes import Episodes
from umwelten.run import Run
from umwelten.train import differing

# ten control steps a decision: an episode of Reach has five
TINY = [
    "task=reach", "action_repeat=10", "n=2", "device=cpu", "threads=1", "ratio=0.5",
    "seed_steps=20", "pretrain=4", "evaluate_every=30", "episodes=2", "save_every=5",
    "model.size=1", "model.batch_size=8",
    "planner.samples=12", "planner.iterations=1", "planner.elites=4", "planner.proposals=2",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The verb sets torch's threads; others shall not find them changed."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def train(folder, *arguments):
    return cli.main(["train", *TINY, f"out={folder}", *arguments])


def outcome(folder):
    tensors, arrays, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    values = {k: v.numpy().tobytes() for k, v in tensors.items()}
    values |= {k: v.tobytes() for k, v in arrays.items()}
    episodes = Episodes(folder / "episodes").column("episode/id").tolist()
    return values, state, episodes, (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "reach"
    assert train(folder, "steps=60") == 0
    return folder


def test_a_run_is_a_folder_that_a_stranger_can_read(trained):
    told = config.load(trained / "config.yaml")
    assert told["task"] == "reach" and told["steps"] == 60 and told["seed"] == 0
    assert told["model"] == {"name": "tdmpc2", "size": 1, "batch_size": 8}
    assert told["planner"]["name"] == "mppi" and told["planner"]["samples"] == 12
    (where,) = map(json.loads, (trained / "environment.jsonl").read_text().splitlines())
    assert where["machine"]["cores"] >= 1 and where["versions"]["torch"] == torch.__version__
    assert "revision" in where
    with Run(trained) as run:
        kinds = [m["kind"] for m in run.metrics()]
        scores = [m for m in run.metrics() if m["kind"] == "score"]
    assert kinds.count("episode") >= 5 and [m["env_steps"] for m in scores] == [30, 60]
    assert all(m["policy"] == "MPPI" and m["episodes"] == 2 for m in scores)
    assert len(Episodes(trained / "episodes")) >= 10
    assert list((trained / "tensorboard").iterdir())
    assert "reach" in (trained / "RUN.md").read_text()


def test_what_was_learnt_is_not_what_it_began_with(trained):
    """A command that trains changes every parameter that it says it learns."""
    told = config.load(trained / "config.yaml")
    env = build.make_env("reach", 1, action_repeat=10)
    fresh = build.make_model(told["model"], env, seed=told["seed"]).checkpoint()
    learnt, _, state = checkpoint.load(checkpoint.latest(trained / "checkpoints"))
    assert state["progress"]["updates"] == 4 + (60 - 20) // 2
    assert fresh.keys() == learnt.keys()
    weights = [k for k in fresh if k.startswith("model/") and k.endswith("weight")]
    assert len(weights) > 10
    assert not any(torch.equal(fresh[k], learnt[k]) for k in weights)
    again = build.make_model(told["model"], env, seed=told["seed"]).checkpoint()
    assert all(torch.equal(fresh[k], again[k]) for k in fresh)  # what it began with is its seed's


def test_the_same_command_goes_on_and_ends_the_same(trained, tmp_path):
    for steps in (25, 40, 60):
        assert train(tmp_path / "parts", f"steps={steps}") == 0
        told = config.load(tmp_path / "parts" / "config.yaml")
        older = {k: v for k, v in told.items() if k not in ("launcher", "collectors", "learner")}
        config.save(tmp_path / "parts" / "config.yaml", older)  # of before there were such keys
    whole, parts = outcome(trained), outcome(tmp_path / "parts")
    assert whole[0].keys() == parts[0].keys()
    assert [k for k in whole[0] if whole[0][k] != parts[0][k]] == []
    assert whole[1:3] == parts[1:3]
    assert len((tmp_path / "parts" / "environment.jsonl").read_text().splitlines()) == 3


def test_any_planner_collects_with_noise_and_is_judged_without(tmp_path, monkeypatch):
    made, make = [], build.make_planner

    def noted(*given, **named):
        made.append(make(*given, **named))
        return made[-1]

    monkeypatch.setattr(build, "make_planner", noted)
    ours = [a for a in TINY if "planner" not in a] + ["steps=24", "evaluate_every=24"]
    ours += ["planner.name=cem", "planner.samples=8", "planner.elites=2", "planner.horizon=2"]
    assert cli.main(["train", *ours, f"out={tmp_path / 'cem'}"]) == 0
    assert [p.explore for p in made] == [0.3, 0.0]
    with Run(tmp_path / "cem") as run:
        assert [m["policy"] for m in run.metrics() if m["kind"] == "score"] == ["CEM"]
    model = made[0].model
    assert make({"name": "icem", "explore": 0.1}, model, explore=True).explore == 0.1
    assert make(build.calm({"name": "icem", "explore": 0.1}), model).explore == 0
    assert make({"name": "mppi"}, model, explore=True).refitted


def test_ctrl_c_ends_with_130_and_the_same_command_ends_the_same(trained, tmp_path):
    folder = tmp_path / "parts"
    command = [sys.executable, "-m", "umwelten", "train", *TINY, "steps=60", f"out={folder}"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, **pipes)
    try:
        while process.poll() is None and not list(folder.glob("episodes/shard-*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and error.strip() == "umwelten: interrupted"
    state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))[2]
    assert 0 < state["progress"]["env_steps"] < 60
    assert train(folder, "steps=60") == 0
    assert outcome(folder) == outcome(trained)


def test_another_config_is_refused_with_the_key_named(trained, capsys):
    before = outcome(trained)
    for change, key in (
        ("seed=1", "seed"), ("ratio=2", "ratio"), ("model.size=5", "model"), ("n=1", "n"),
        ("planner.samples=13", "planner"), ("task=push", "task"),
    ):  # fmt: skip
        assert train(trained, "steps=90", change) == 2
        error = capsys.readouterr().err
        assert f"was trained with another {key}; choose another out=" in error
        assert error.count("\n") == 1
    assert outcome(trained) == before


def test_what_is_not_learnt_from_may_change_on_the_way(trained, tmp_path):
    folder = tmp_path / "run"
    for words in (
        ["steps=36"],
        ["steps=48", "evaluate_every=10", "episodes=3", "save_every=2"],
        ["steps=60", "evaluate_every=24", "episodes=1", "save_every=1000"],
    ):
        assert train(folder, *words) == 0
    told = config.load(folder / "config.yaml")
    free = {"evaluate_every": 24, "episodes": 1, "save_every": 1000, "steps": 60}
    assert {k: told[k] for k in free} == free
    with Run(folder) as run:
        scored = [(m["env_steps"], m["episodes"]) for m in run.metrics() if m["kind"] == "score"]
    assert scored == [(30, 2), (40, 3), (50, 1)]  # 48 was passed without one
    whole, parts = outcome(trained), outcome(folder)
    assert whole[0].keys() == parts[0].keys() and whole[2] == parts[2]
    assert [k for k in whole[0] if whole[0][k] != parts[0][k]] == []
    assert whole[1]["progress"] == parts[1]["progress"] and whole[1]["rng"] == parts[1]["rng"]


def test_another_launcher_is_another_config_both_ways(trained):
    told = config.load(trained / "config.yaml")
    elsewhere = told | {"launcher": "ray", "collectors": 2}
    assert differing(told, elsewhere) == differing(elsewhere, told) == ["launcher"]
    assert differing(told, told | {"launcher": "local", "collectors": 2}) == []


def test_a_run_in_use_is_refused(trained, capsys):
    with Run(trained):
        assert train(trained, "steps=90") == 2
    error = capsys.readouterr().err
    assert f"is in use by process {os.getpid()}" in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments, says", [
    (["task=reech"], "did you mean 'reach'"),
    (["agent=tdmpc"], "did you mean 'tdmpc2'"),
    (["stepps=3"], "did you mean 'steps'"),
    (["steps=many"], "steps=many of train must be int"),
    (["model.sise=5"], "did you mean 'size'"),
    (["model.name=tdmpc3"], "did you mean 'tdmpc2'"),
    (["model.size=2"], "size 2 is not one of"),
    (["planner.sample=5"], "did you mean 'samples'"),
    (["planner.elites=5000"], "elites 5000 is outside"),
    (["device=gpu"], "no device 'gpu'; there are auto, cpu, cuda"),
    (["offline=true"], "offline=true learns from sources alone"),
    (["offline=true", "sources=[nowhere]"], "no folder nowhere to learn from"),
    (["cameras=[frnt]"], "front"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_is_in_nobodys_way(arguments, says, tmp_path, capsys):
    assert train(tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_after_a_mistake_the_right_command_works(tmp_path):
    assert train(tmp_path, "steps=4", "model.sise=5") == 2
    assert train(tmp_path, "steps=4", "evaluate_every=0") == 0


# ---- from episodes


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("train", 0), ("test", 500)):
        arguments = ["task=reach", "episodes=24", "n=24", "video=0", f"seed={seed}"]
        assert cli.main(["collect", *arguments, f"out={folder / name}"]) == 0
    return folder


def offline(folder, source, *arguments):
    told = ["task=reach", "offline=true", f"sources=[{source}]", "device=cpu", "threads=1"]
    told += ["model.size=1", "model.batch_size=32", "model.lr=1e-3", "evaluate_every=0"]
    return cli.main(["train", *told, f"out={folder}", *arguments])


@torch.no_grad()
def explained(model, data, order=slice(None)):
    """The share of the rewards' variance that a model explains, three steps ahead."""
    batch = data.sample(np.random.default_rng(0), 500, 4)
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    first = {k: v[:, 0] for k, v in tensors.items()}
    belief = model.observe(model.start(500), torch.zeros(500, 4), first, None)
    paid = []
    for t in range(3):
        belief, reward, _ = model.imagine(belief, tensors["action"][:, t], None)
        paid.append(reward)
    found, truth = torch.stack(paid, 1), tensors["reward"][order, 1:]
    return 1 - float((found - truth).square().mean() / truth.var())


def test_a_trained_model_foresees_rewards_and_an_untrained_or_misled_one_does_not(
    demonstrations, tmp_path
):
    env, held_out = build.make_env("reach", 1), Episodes(demonstrations / "test")
    assert offline(tmp_path, demonstrations / "train", "steps=300") == 0
    model, told = build.restore(tmp_path, env)
    assert explained(model, held_out) > 0.3
    assert explained(build.make_model(told["model"], env), held_out) < 0.05
    assert explained(model, held_out, np.random.default_rng(1).permutation(500)) < 0.05


def test_offline_training_of_the_same_seed_is_the_same(demonstrations, tmp_path):
    for name in "ab":
        assert offline(tmp_path / name, demonstrations / "train", "steps=3") == 0
    a, b = (checkpoint.load(checkpoint.latest(tmp_path / n / "checkpoints"))[0] for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_loss_that_is_no_number_ends_with_1_and_says_where_to_look(
    demonstrations, tmp_path, capsys
):
    arguments = ["steps=9", "save_every=1", "model.grad_clip=1e9", "model.lr=1e30"]
    assert offline(tmp_path, demonstrations / "train", *arguments) == 1
    out = capsys.readouterr().out
    assert "not finite at update" in out and str(tmp_path / "checkpoints") in out
    assert checkpoint.latest(tmp_path / "checkpoints") is None  # it was never good


# ---- a run that is used


def test_a_run_is_scored_by_what_acts_in_its_own_kind_of_world(trained, tmp_path):
    for policy, name in (("mppi", "MPPI"), ("prior", "Prior")):
        out = tmp_path / f"{policy}.json"
        arguments = ["task=reach", f"policy={policy}", f"run={trained}", "episodes=2"]
        assert cli.main(["score", *arguments, f"out={out}"]) == 0
        found = json.loads(out.read_text())
        assert found["policy"] == name and 0 < found["return"] < 50
    one, two = (json.loads((tmp_path / f"{p}.json").read_text()) for p in ("mppi", "prior"))
    assert one["return"] != two["return"]


def test_a_run_of_another_task_is_refused(trained, capsys):
    assert cli.main(["score", "task=push", "policy=mppi", f"run={trained}"]) == 2
    assert "learnt reach, not Push" in capsys.readouterr().err


def test_a_run_collects_and_plays_at_its_own_rate(trained, tmp_path):
    run = f"run={trained}"
    told = ["task=reach", "policy=mppi", run, "episodes=2", "video=0", f"out={tmp_path / 'd'}"]
    assert cli.main(["collect", *told]) == 0
    data = Episodes(tmp_path / "d")
    assert (data.lengths == 6).all() and data.info["action_repeat"] == 10
    import imageio.v3 as iio

    path = tmp_path / "a.mp4"
    assert cli.main(["play", "task=reach", "policy=prior", run, f"out={path}"]) == 0
    assert len(iio.imread(path)) == 6


def test_a_run_that_sees_pixels_is_scored_through_its_camera(tmp_path):
    seeing = ["cameras=[front]", "model.keys=[rgb/front]", "model.batch_size=2", "steps=30"]
    seeing += ["pretrain=1", "ratio=0", "evaluate_every=0"]
    assert train(tmp_path / "run", *seeing) == 0
    arguments = ["task=reach", "policy=prior", f"run={tmp_path / 'run'}", "episodes=1"]
    assert cli.main(["score", *arguments, f"out={tmp_path / 'score.json'}"]) == 0
    assert json.loads((tmp_path / "score.json").read_text())["policy"] == "Prior"


FAULTS = """
import resource, sys
from umwelten.train import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytes([1]) * (64 << 20)
before = used()
for _ in range(10):
    bytes([1]) * (64 << 20)
print(used() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_was_freed_is_not_asked_for_anew():
    faults = []
    for told in ("keep", "as usual"):
        call = [sys.executable, "-c", FAULTS, told]
        faults.append(int(subprocess.run(call, capture_output=True, check=True, text=True).stdout))
    if os.confstr("CS_GNU_LIBC_VERSION"):
        assert faults[0] < 100 and faults[1] > 300, faults
