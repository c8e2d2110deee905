"""The verb measures a model on what it never learned from, tells the truth of it, and draws it."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from umwelten import cli, pictures, probe
from umwelten.agents.policy import Random
from umwelten.envs.env import BatchEnv
from umwelten.envs.reach import Reach
from umwelten.episodes import Episodes
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT, student
from umwelten.world_models.measures import Views

FEW = ["context=3", "horizon=4", "windows=2", "episodes=20", "shown=1"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def undrawn(monkeypatch):
    """Numbers alone: pictures take longer than what they show."""
    monkeypatch.setattr(pictures, "draw", lambda *given: [])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Recorded episodes of a short world, with labels, none under a seed held out.

    So many that each part has several, whichever their hashes deal it.
    """
    folder = tmp_path_factory.mktemp("data")
    command = ["collect", "task=reach", "policy=random", "episodes=40", "n=20", "labels=true"]
    assert cli.main([*command, "video=0", f"out={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A run of a few updates on some of the same episodes."""
    folder, own = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("own")
    command = ["collect", "task=reach", "policy=random", "episodes=4", "n=4", "labels=true"]
    assert cli.main([*command, "video=0", f"out={own}"]) == 0  # seeds 0 ... 3: of `data` as well
    command = ["train", "task=reach", f"sources=[{own}]", "offline=true", "steps=3", "threads=1"]
    command += ["evaluate_every=0", "model.size=1", "model.batch_size=8", f"out={folder}"]
    assert cli.main(command) == 0
    return folder


@pytest.fixture(scope="module")
def probed(run):
    assert cli.main(["probe", f"run={run}", *FEW]) == 0
    return run / "probe"


def test_a_run_is_measured_on_fresh_held_out_episodes(probed):
    there = Episodes(probed / "episodes" / "stirred")
    seeds = there.column("episode/seed")
    assert len(there) == 20 and seeds.min() == HELD_OUT and seeds.max() == HELD_OUT + 19
    found = json.loads((probed / "probe.json").read_text())
    assert found["model"] == "TDMPC2" and found["task"] == "reach"
    assert sum(found["episodes"].values()) == 20 and min(found["episodes"].values()) >= 2
    assert found["windows"] == {k: 2 * v for k, v in found["episodes"].items()}
    assert found["errors"].keys() == {"objects", "proprio"}
    for error in found["errors"].values():
        assert error["by"] == "readout" and error["imagined"]["mean"][4] > 0.05
        assert error["persistence"]["mean"][0] == 0 and len(error["velocity"]["mean"]) == 5
    assert len(found["reward"]["imagined"]["mean"]) == 4
    ways = {"observed", "imagined", "held", "recorded", "untrained"}
    assert all(probes.keys() == ways for probes in found["probes"].values())
    assert found["probes"]["pose/place"]["recorded"]["measure"] == "R²"
    for name in ("curves.png", "probes.png", "strip.png"):
        picture = iio.imread(probed / name)
        assert min(picture.shape[:2]) > 200 and picture.std() > 10
    assert not (probed / "imagined.mp4").exists()


def test_the_same_command_records_nothing_again_and_finds_the_same(probed, run, undrawn, capsys):
    before = (probed / "probe.json").read_text()
    shards = sorted((probed / "episodes" / "stirred").glob("*.safetensors"))
    assert cli.main(["probe", f"run={run}", *FEW]) == 0
    assert (probed / "probe.json").read_text() == before
    assert sorted((probed / "episodes" / "stirred").glob("*.safetensors")) == shards
    out = capsys.readouterr().out
    assert "open-loop error" in out and "linear probes" in out and "dimensions in use" in out


def test_the_simulator_foresees_all_and_beats_the_baselines(tmp_path, undrawn, capsys):
    assert cli.main(["probe", "task=reach", *FEW, f"out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["model"] == "SimulatorModel"
    for key in ("objects", "proprio"):
        error = found["errors"][key]
        assert error["by"] == "decoder" and max(error["imagined"]["high"]) < 1e-4
        assert error["better"] == [1, 2, 3, 4]
        assert all(top < 0 for top in error["margins"]["velocity"]["high"][1:])
    assert found["reward"]["better"] == [1, 2, 3, 4]
    assert found["retrieval"]["mrr"]["imagined"]["mean"][4] == 1
    assert "untrained" not in found["probes"]["pose/place"]
    assert "1-4" in capsys.readouterr().out


def test_an_end_is_foreseen_by_the_simulator_and_told_of_in_probabilities(
    run, tmp_path, undrawn, monkeypatch, capsys
):
    """Reach that ends where the arm has swung out: the truth knows it, a model is held to it."""
    monkeypatch.setattr(Reach, "terminated", lambda self, sim: np.abs(sim.qpos[:, 0]) > 0.15)
    few = [*FEW[:-2], "horizon=3", "episodes=30", "policy=random", "seed=1"]
    assert cli.main(["probe", "task=reach", *few, f"out={tmp_path / 'truth'}"]) == 0
    ends = json.loads((tmp_path / "truth" / "probe.json").read_text())["ends"]
    assert ends["at"]["mean"] == [1] and ends["elsewhere"]["mean"] == [0]
    assert ends["error"]["mean"] == [0] and ends["rate"]["mean"][0] > 0.01
    assert "ends, as probabilities" in capsys.readouterr().out
    assert cli.main(["probe", f"run={run}", *few, f"out={tmp_path / 'model'}"]) == 0
    ends = json.loads((tmp_path / "model" / "probe.json").read_text())["ends"]
    assert ends["at"]["mean"] == [0]  # this one was never asked for ends
    assert ends["error"]["mean"][0] > ends["rate"]["mean"][0]


def test_a_model_of_several_tasks_is_measured_on_each(tmp_path, undrawn):
    run = tmp_path / "both"
    train = ["train", "task=reach+push", "action_repeat=10", "steps=24", "seed_steps=12", "n=2"]
    train += ["pretrain=2", "ratio=0.1", "evaluate_every=0", "threads=1", "model.size=1"]
    train += ["model.latent=32", "model.batch_size=4", "planner.samples=8", "planner.elites=2"]
    train += ["planner.proposals=2", "planner.iterations=1", f"out={run}"]
    assert cli.main(train) == 0
    few = ["context=2", "horizon=2", "windows=2", "episodes=20", "policy=random", "seed=1"]
    assert cli.main(["probe", f"run={run}", *few]) == 2  # of which?
    for task in ("reach", "push"):
        assert cli.main(["probe", f"run={run}", f"task={task}", *few, f"out={run / task}"]) == 0
        found = json.loads((run / task / "probe.json").read_text())
        assert found["task"] == task and found["model"] == "TDMPC2"
        assert sum(found["episodes"].values()) == 20
        assert found["errors"] and "untrained" in found["probes"]["pose/place"]
    assert cli.main(["probe", f"run={run}", "task=lift", *few]) == 2


def test_parts_share_no_episode_and_hold_none_that_was_learned(data, run, capsys):
    parts = probe._parts([str(data)], str(run), 8, 3, 0)
    whole = Episodes(data)
    learnt = {whole.column("episode/id")[i] for i in np.argsort(whole.column("episode/seed"))[:4]}
    assert len(probe._learnt(str(run))) == 4 and learnt == set(probe._learnt(str(run)))
    starts = [{p.windows["objects"][i, 0].numpy().tobytes() for i in range(len(p.episode))}
              for p in parts.values()]  # fmt: skip
    places = [{p.windows["objects"][i, 0, :3].numpy().tobytes() for i in range(len(p.episode))}
              for p in parts.values()]  # fmt: skip
    assert all(starts) and sum(map(len, places)) == len(set.union(*places)) == 36
    assert [int(p.episode.max()) + 1 for p in parts.values()] == [len(x) for x in places]
    seen = {whole.episode(i)["objects"][0, :3].tobytes() for i in range(40)
            if whole.column("episode/id")[i] in learnt}  # fmt: skip
    assert len(seen) == 4 and not seen & set.union(*places)


def test_sources_are_measured_where_they_are_given(data, run, undrawn, tmp_path):
    command = ["probe", f"run={run}", f"sources=[{data}]", *FEW, f"out={tmp_path}"]
    assert cli.main(command) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["mode"] == "dataset replay" and sum(found["episodes"].values()) == 36
    assert not (tmp_path / "episodes").exists()


def test_stretches_are_the_experts_or_of_chance():
    env = BatchEnv("Reach", 4, nthread=1, max_episode_steps=20)
    wild, calm = 0, 0
    random = Random(4)
    carry = random.start(np.arange(4))
    for step in rollout(env, probe.Stirred(env), 0, episodes_per_row=1):
        drawn, carry = random.act(step, carry)
        same = (step["action"] == drawn).all(1)
        expert = np.isclose(step["action"], env.expert()).all(1)
        assert (same | expert).all()
        wild, calm = wild + same.sum(), calm + (~same).sum()
    assert wild > 20 and calm > 20


def test_margins_are_of_the_same_episode():
    level = torch.linspace(0, 50, 8, dtype=torch.float64)[:, None]  # episodes differ a lot
    curves = {"imagined": level + torch.tensor([0.0, 1.0, 3.0]), "persistence": level + 2.0}
    curves["persistence"] = curves["persistence"].expand(8, 3)
    found = probe._margins(curves, 1)
    assert found["better"] == [1, 2]
    np.testing.assert_allclose(found["margins"]["persistence"]["mean"], [-2, -1, 1])
    noisy = curves["imagined"] + torch.tensor([5.0, -5.0] * 4, dtype=torch.float64)[:, None]
    assert probe._margins(curves | {"imagined": noisy}, 1)["better"] == []
    low, high = student(np.array([1.0, 2.0, 4.0]))
    shown = probe._interval(np.array([[1.0], [2.0], [4.0]]))
    assert shown == {"mean": [2.333333], "low": [round(low, 6)], "high": [round(high, 6)]}
    assert probe._interval(np.array([[np.nan], [1.0]]))["mean"] == [None]


def test_numbers_are_shown_as_ranges():
    assert [probe._spans(k) for k in ([], [3], [1, 2, 3, 7])] == ["none", "3", "1-3, 7"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "say of which task"),
        (["task=reach+push"], "probe takes one task"),
        (["run=nowhere"], "nowhere holds no run"),
        (["task=reach", "context=1"], "context is at least 2"),
        (["task=reach", "sources=[nowhere]"], "no folder nowhere to measure on"),
        (["task=reach", "horizn=3"], "did you mean 'horizon'"),
    ],
)
def test_what_cannot_be_probed_is_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["probe", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_too_few_episodes_are_refused(data, tmp_path, capsys):
    command = ["probe", "task=reach", f"sources=[{data}]", "horizon=60", f"out={tmp_path}"]
    assert cli.main(command) == 2
    assert "record more, or ask for a shorter" in capsys.readouterr().err


def test_images_are_filmed_beside_the_truth(tmp_path):
    rng = np.random.default_rng(0)
    real = rng.integers(0, 255, (4, 6, 16, 16, 3), dtype=np.uint8)
    told = real.copy()
    told[2:, :, :8] = 255 - told[2:, :, :8]  # from k = 2 on the upper half is wrong
    pair = [{"rgb/front": torch.from_numpy(x)} for x in (real, told)]
    views = Views(*pair, torch.arange(6) // 2)
    curve = {"mean": [0.0, 1.0], "low": [None, 0.5], "high": [None, 1.5]}
    found = {
        "model": "M", "task": "t", "episodes": {"test": 3}, "reward": {}, "probes": {},
        "errors": {}, "belief": {"imagined": curve, "held": curve},
        "retrieval": {"mrr": {"imagined": curve, "chance": 0.5}},
    }  # fmt: skip
    made = pictures.draw(tmp_path, found, views, 2)
    assert [p.name for p in made] == ["curves.png", "imagined.mp4", "imagined.png"]
    film = iio.imread(tmp_path / "imagined.mp4").astype(int)
    assert len(film) == 2 * 4 and film.shape[2] == 640
    gap = pictures._three(real[3, 0], told[3, 0])[2]
    assert (gap[8:] == 128).all() and gap[:8].std() > 20
    third = film[..., 2 * 640 // 3 + 20 : -20, :]  # the difference, on the right
    inner = third[:, third.shape[1] // 2 - 40 : third.shape[1] // 2]
    assert inner[3].std() > inner[0].std() + 5
