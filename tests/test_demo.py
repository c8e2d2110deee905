"""The demo runs the whole loop, resumes where it was interrupted, and reports the truth."""

import contextlib
import json
import signal

import imageio.v3 as iio
import pytest
import torch

from umwelten import checkpoint, cli, demo, train
from umwelten.envs import env as worlds
from umwelten.episodes import Episodes
from umwelten.world_models.tdmpc2 import TDMPC2

TINY = {
    "n": 4, "steps": 320, "seed_steps": 210, "pretrain": 6, "ratio": 0.1, "save_every": 4,
    "evaluate_every": 220, "episodes": 4,
    "model": {"name": "tdmpc2", "size": 1, "batch_size": 8},
    "planner": {"name": "mppi", "samples": 12, "iterations": 1, "elites": 4, "proposals": 2},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small():
    """The demo with little of everything: it is the same code."""
    patch, whole = pytest.MonkeyPatch(), demo._training
    patch.setattr(demo, "EPISODES", 4)
    patch.setattr(demo, "HELD_OUT", 4)
    patch.setattr(demo, "TRUTH", {**demo.TRUTH, "samples": 12, "iterations": 2, "horizon": 3})
    patch.setattr(demo, "_training", lambda folder: whole(folder) | TINY)
    patch.setattr(worlds, "PICTURE", (48, 64))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo")
    assert run(path) == 0
    return path


def run(folder):
    return cli.main(["demo", f"out={folder}", "threads=1"])


def parameters(folder):
    tensors = checkpoint.load(checkpoint.latest(folder / "train" / "checkpoints"))[0]
    return {k: v.numpy().tobytes() for k, v in tensors.items()}


def scores(folder):
    files = (folder / "scores").glob("*.json")
    return {s["name"]: s for s in (json.loads(f.read_text()) for f in files)}


def test_every_stage_leaves_what_it_promises(folder):
    assert len(Episodes(folder / "expert")) == 4
    for name in ("expert.mp4", "learned.mp4"):
        assert iio.imread(folder / name).shape == (3 * 51, 48, 64, 3)
    curve = iio.imread(folder / "curve.png")
    assert curve.shape[0] > 300 and curve.std() > 10
    state = checkpoint.load(checkpoint.latest(folder / "train" / "checkpoints"))[2]
    assert state["progress"]["env_steps"] == 320
    assert (folder / "report.md").exists() and (folder / "train" / "metrics.jsonl").exists()


def test_every_policy_is_scored_by_what_acted_over_the_same_seeds(folder):
    found = scores(folder)
    assert {name: s["policy"] for name, s in found.items()} == {
        "random": "Random",
        "expert": "Expert",
        "MPPI through the simulator": "MPPI",
        "policy prior alone": "Prior",
        "MPPI through the learned model": "MPPI",
    }
    assert all(s["episodes"] == 4 for s in found.values())
    assert len({s["return"] for s in found.values()}) == 5  # five policies, five returns
    assert found["expert"]["success"] == 1 and found["random"]["success"] < 1
    for better in ("expert", "MPPI through the simulator"):
        assert found[better]["return"] > found["random"]["return"]


def test_the_report_says_what_was_measured(folder):
    text = (folder / "report.md").read_text()
    for name, s in scores(folder).items():
        low, high = s["success_interval"]
        row = f"| {name} | {s['success']:.2f} | {low:.2f} - {high:.2f} | {s['return']:.1f} |"
        assert row in text
    learned, expert = (scores(folder)[n] for n in ("MPPI through the learned model", "expert"))
    share = learned["success"] / expert["success"]
    assert f"succeeds {share:.2f} times as often as the expert" in text
    apart = learned["success_interval"][0] > scores(folder)["random"]["success_interval"][1]
    assert f"interval is {'above' if apart else 'NOT above'} random's" in text
    updates = checkpoint.load(checkpoint.latest(folder / "train" / "checkpoints"))[2]["progress"]
    assert f"{updates['updates']} updates in all" in text and "same 4 held-out seeds" in text
    assert "(curve.png)" in text


def test_a_second_demo_reuses_everything(folder, monkeypatch, capsys):
    def never(*arguments, **keywords):
        raise AssertionError("done again")

    monkeypatch.setattr(TDMPC2, "update", never)
    monkeypatch.setattr("umwelten.score.judge", never)
    monkeypatch.setattr("umwelten.collect.film", never)
    monkeypatch.setattr("umwelten.rollout.Rollout.__next__", never)
    before, text = parameters(folder), (folder / "report.md").read_text()
    (folder / "report.md").unlink()
    assert run(folder) == 0
    assert parameters(folder) == before and (folder / "report.md").read_text() == text
    assert "policy prior alone" in capsys.readouterr().out


def test_a_demo_that_is_interrupted_goes_on_and_ends_the_same(folder, tmp_path, monkeypatch):
    whole = train.bar

    @contextlib.contextmanager
    def pressed(console, steps, offline):
        with whole(console, steps, offline) as show:

            def watch(progress, metrics):
                show(progress, metrics)
                if progress.updates == 9:
                    signal.raise_signal(signal.SIGINT)

            yield watch

    monkeypatch.setattr(train, "bar", pressed)
    assert run(tmp_path) == 130
    assert (tmp_path / "expert.mp4").exists() and not (tmp_path / "scores").exists()
    state = checkpoint.load(checkpoint.latest(tmp_path / "train" / "checkpoints"))[2]
    assert state["progress"]["updates"] == 9
    filmed = (tmp_path / "expert.mp4").stat().st_mtime_ns
    monkeypatch.setattr(train, "bar", whole)
    assert run(tmp_path) == 0
    assert (tmp_path / "expert.mp4").stat().st_mtime_ns == filmed
    assert parameters(tmp_path) == parameters(folder)
    timeless = [{**s, "seconds": 0} for s in scores(tmp_path).values()]
    assert sorted(timeless, key=str) == sorted(
        [{**s, "seconds": 0} for s in scores(folder).values()], key=str
    )


def test_the_recipe_is_one_that_the_verb_takes_and_that_its_budget_allows():
    told = demo.TRUTH
    assert told["samples"] * told["iterations"] * told["horizon"] <= 600  # env steps a plan
    from umwelten import config

    recipe = config.compose(train.train, ["experiment=demo"])
    assert recipe["task"] == "reach" and recipe["model"]["size"] == 1
    assert recipe["steps"] >= recipe["seed_steps"] >= 0
