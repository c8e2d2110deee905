"""The verify verb trains or takes runs, holds them to the gates, keeps evidence, and goes on."""

import json
import shutil

import pytest
import torch

from umwelten import cli, config, pictures, published, suites, tiers, trials, verify
from umwelten.episodes import Episodes

LITTLE = ["threads=1", "model.batch_size=8"]
SEARCH = [f"planner.{k}" for k in ("samples=12", "iterations=1", "elites=4", "proposals=2")]


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """Little of everything: it is the same code."""
    patch = pytest.MonkeyPatch()
    patch.setattr(trials, "EPISODES", {"expert": 2, "disturbed": 3, "random": 2})
    patch.setattr(trials, "UNSEEN", 3)
    patch.setattr(tiers, "KEPT", tmp_path_factory.mktemp("kept"))
    code = tiers.fingerprint("tdmpc2")
    patch.setattr(tiers, "fingerprint", lambda model: code)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    patch.undo()


def run(folder, *arguments):
    told = ["verify", "tdmpc2", "episodes=2", *LITTLE, *SEARCH, f"out={folder}", *arguments]
    return cli.main(told)


def evidence(folder):
    return json.loads((folder / "evidence.json").read_text())


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    assert run(folder, "steps=2", "seeds=2", "promote=true") == 1
    return folder


def test_what_hardly_learnt_is_sound_and_fails(judged, capsys):
    found = evidence(judged)
    verdicts = {g["gate"]: g["passed"] for g in found["gates"]}
    assert verdicts.keys() == {
        "finite", "save and load", "loss falls", "reward accuracy", "alignment", "real return",
        "seeds", "seed spread",
    }  # fmt: skip
    assert verdicts["finite"] and verdicts["save and load"]
    assert not verdicts["reward accuracy"] and not verdicts["seeds"] and not found["passed"]
    assert tiers.kept("tdmpc2") == {}  # promote=true kept nothing of it


def test_the_evidence_says_how_and_where_it_came_to_be(judged):
    found = evidence(judged)
    assert found["model"] == "tdmpc2" and found["task"] == "reach" and found["control"] == ""
    assert found["command"][:4] == ["umwelten", "verify", "tdmpc2", "task=reach"]
    assert found["machine"]["cores"] >= 1 and found["versions"]["torch"] == torch.__version__
    assert found["code"] == tiers.fingerprint("tdmpc2") and "revision" in found
    assert [r["seed"] for r in found["runs"]] == [0, 1]
    for shown in found["runs"]:
        assert shown["updates"] == 2 and len(shown["fingerprint"]) == 64
        assert shown["score"]["policy"] == "MPPI" and shown["score"]["episodes"] == 2
    assert found["anchors"]["expert"]["return"] > found["anchors"]["random"]["return"]
    assert found["official"] == {} and "out" not in str(found["command"])


def test_nothing_is_judged_on_what_was_learnt_from(judged):
    ours = Episodes([judged / "episodes" / b for b in trials.EPISODES]).column("episode/id")
    unseen = Episodes([judged / "unseen" / b for b in ("random", "disturbed")]).column("episode/id")
    assert len(ours) == 7 and len(unseen) == 6 and not set(ours.tolist()) & set(unseen.tolist())


def test_the_same_command_does_only_what_is_left(judged, monkeypatch):
    before = evidence(judged)
    path = judged / "found" / "seed-1.json"
    path.unlink()
    seen, whole = [], trials.examine
    watch = lambda folder, run, *rest: seen.append(run.name) or whole(folder, run, *rest)  # noqa: E731
    monkeypatch.setattr(trials, "examine", watch)
    assert run(judged, "steps=2", "seeds=2") == 1
    assert seen == ["seed-1"] and path.exists()
    after = evidence(judged)
    assert after["gates"] == before["gates"] and after["runs"] == before["runs"]


def test_a_control_learns_from_spoiled_episodes(tmp_path):
    assert run(tmp_path, "steps=1", "seeds=1", "control=shuffled_rewards") == 1
    told = config.load(tmp_path / "seed-0" / "config.yaml")
    assert told["sources"] == [str(tmp_path / "episodes" / "shuffled_rewards")]
    assert evidence(tmp_path)["control"] == "shuffled_rewards"


def test_an_untrained_model_fails_in_more_than_one_way(tmp_path):
    assert run(tmp_path, "seeds=1", "control=untrained") == 1
    found = evidence(tmp_path)
    failed = {g["gate"] for g in found["gates"] if g["passed"] is False}
    assert {"loss falls", "reward accuracy", "alignment", "seeds"} <= failed
    assert found["runs"][0]["updates"] == 0


# ---- suites


def test_a_quick_look_says_smoke_and_no_verdict(judged, tmp_path, capsys):
    shutil.copytree(judged / "unseen", tmp_path / "unseen")
    runs = f"runs=[{judged / 'seed-0'}]"
    assert run(tmp_path, runs, "suite=quick") == 1
    found, whole = evidence(tmp_path), evidence(judged)
    assert "smoke, FAILED; a verdict needs worlds" in capsys.readouterr().out
    assert found["suite"] == "quick" and whole["suite"] == "standard"
    assert found["anchors"] == {} == found["official"] and "score" not in found["runs"][0]
    in_worlds = {"real return", "seed spread"}
    assert {g["gate"] for g in found["gates"]} == {g["gate"] for g in whole["gates"]} - in_worlds
    told = {
        "promote": "suite=quick sees no world; nothing of it is promoted",
        "suite": "no suite 'slow'; there are quick",
    }
    for wrong, says in (("promote=true", told["promote"]), ("suite=slow", told["suite"])):
        assert run(tmp_path, runs, "suite=quick", wrong) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match="a smoke is no evidence"):
        tiers.promote("tdmpc2", found | {"passed": True})


def test_a_comprehensive_look_asks_the_probe_too(judged, tmp_path, monkeypatch, capsys):
    shutil.copytree(judged / "unseen", tmp_path / "unseen")
    monkeypatch.setattr(trials, "UNSEEN", 12)
    monkeypatch.setattr(pictures, "draw", lambda *given: [])
    runs = f"runs=[{judged / 'seed-0'}]"
    assert run(tmp_path, runs, "suite=comprehensive") == 1
    found = evidence(tmp_path)
    more = ["reconstruction", "consistency", "coherence", "utilisation"]
    assert [f["gate"] for f in found["runs"][0]["findings"]][-5:] == ["real return", *more]
    probed = json.loads((tmp_path / "probe" / "seed-0" / "probe.json").read_text())
    assert sum(probed["episodes"].values()) == 24 and probed["mode"] == "dataset replay"
    used = next(f for f in found["runs"][0]["findings"] if f["gate"] == "utilisation")
    assert used["figure"] == probed["belief"]["dimensions"]


def curve(*values):
    return {
        "mean": list(values),
        "low": [v - 0.1 for v in values],
        "high": [v + 0.1 for v in values],
    }


@pytest.mark.parametrize(
    "odd, failed",
    [
        ({}, []),
        ({"errors": {"a": {"observed": curve(0.1, 0.1, 0.1)},
                     "b": {"observed": curve(0.9, 0.95, 1)}}}, ["reconstruction"]),
        ({"errors": {}}, ["reconstruction"]),
        ({"errors": {"a": {"observed": {"mean": [0.1], "high": [None]}},
                     "b": {"observed": curve(0.1)}}}, ["reconstruction"]),
        ({"better": [2]}, []),
        ({"better": []}, ["consistency"]),
        ({"order": curve(0.5, 0.7, 0.49)}, ["coherence"]),
        ({"order": {"mean": [None] * 3, "low": [None] * 3}}, ["coherence"]),
        ({"dimensions": 1.3}, ["utilisation"]),
        ({"dimensions": float("nan")}, ["utilisation"]),
    ],
)  # fmt: skip
def test_each_aspect_of_a_probe_can_fail(odd, failed):
    belief = {"imagined": curve(0.1, 0.2, 0.3), "better": [1, 2], "order": curve(0.5, 0.9, 0.8)}
    belief |= {"dimensions": 7.0, "size": 128} | {k: v for k, v in odd.items() if k != "errors"}
    errors = odd.get("errors", {"a": {"observed": curve(0.2, 0.3, 0.4)}})
    findings = suites.aspects({"errors": errors, "belief": belief})
    assert [f.gate for f in findings if not f.passed] == failed


# ---- finished runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two short trainings of a suite task, as `umwelten train` leaves them."""
    root = tmp_path_factory.mktemp("runs")
    told = ["task=cartpole_balance", "action_repeat=50", "steps=40", "seed_steps=20", "pretrain=1"]
    told += ["evaluate_every=0", "model.size=1", "ratio=0.1", "device=cpu", *LITTLE, *SEARCH]
    for seed in (1, 2):
        out = root / f"cartpole_balance-{seed}"
        assert cli.main(["train", *told, f"seed={seed}", f"out={out}"]) == 0
    return [root / f"cartpole_balance-{seed}" for seed in (1, 2)]


def test_finished_runs_are_held_beside_official_figures(finished, tmp_path):
    runs = f"runs=[{','.join(map(str, finished))}]"
    assert run(tmp_path, runs) == 1
    found = evidence(tmp_path)
    assert found["task"] == "cartpole_balance" and [r["seed"] for r in found["runs"]] == [1, 2]
    assert [r["env_steps"] for r in found["runs"]] == [40 * 50] * 2
    assert found["official"]["verdict"] == "no official figure at this budget"
    assert "expert" not in found["anchors"] and str(finished[0].parent) not in str(found["runs"])
    (gate,) = [g for g in found["gates"] if g["gate"] == "official figures"]
    assert gate["passed"] is None


@pytest.mark.parametrize(
    "value, verdict, passed", [(990, "match", True), (960, "pass", True), (900, "below", False)]
)
def test_the_official_verdict_is_of_the_same_env_steps(value, verdict, passed):
    runs = [{"seed": s, "keys": ["proprio"], "env_steps": 100_000, "findings": [],
             "score": {"return": value + s}} for s in (-1, 1)]  # fmt: skip
    told = {"control": "", "seeds": 2, "suite": "standard"}
    found = verify._evidence({"runs": runs}, "tdmpc2", "cartpole_balance", "", told)
    (gate,) = [g for g in found["gates"] if g["gate"] == "official figures"]
    assert found["official"]["verdict"] == verdict and gate["passed"] is passed
    assert gate["figures"] == [value] and gate["bound"] == pytest.approx(985.4)
    assert found["return"] == value


# ---- a run of DreamerV3, beside returns of training


@pytest.fixture(scope="module")
def dreamt(tmp_path_factory):
    """A short training whose episodes earn, as its metrics say, what each of two copies is told."""
    root = tmp_path_factory.mktemp("dreamt")
    told = "train task=cartpole_swingup agent=dreamer action_repeat=100 steps=104 seed_steps=90 "
    told += "ratio=0.1 evaluate_every=0 device=cpu threads=1 model.batch_size=4 model.horizon=2"
    assert cli.main([*told.split(), f"out={root / 'run'}"]) == 0
    for name, value in (("like", 60.0), ("unlike", 3.0)):
        shutil.copytree(root / "run", root / name)
        path = root / name / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [m | {"return": value} if m["kind"] == "episode" else m for m in lines]
        path.write_text("".join(json.dumps(m) + "\n" for m in lines))
    return root


@pytest.mark.parametrize("name, verdict, passed", [("like", "match", True),
                                                   ("unlike", "below", False)])  # fmt: skip
def test_dreamers_runs_are_held_to_what_training_collected(dreamt, name, verdict, passed, tmp_path):
    told = ["verify", "dreamer_v3", "episodes=1", "threads=1", f"out={tmp_path}"]
    assert cli.main([*told, f"runs=[{dreamt / name}]"]) == 1  # it has hardly learnt
    found = evidence(tmp_path)
    (gate,) = [g for g in found["gates"] if g["gate"] == "official figures"]
    assert found["official"]["verdict"] == verdict and gate["passed"] is passed
    assert gate["figures"] == [60.0 if passed else 3.0] and gate["bound"] == 47.4
    assert "training episodes that ended within 5 % of it" in gate["reason"]
    assert found["official"]["budget"] == 10_000 and found["official"]["collected"] == [1]
    assert found["return"] == found["runs"][0]["score"]["return"] != gate["figures"][0]


# ---- what is refused


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["control=unttrained"], "no control 'unttrained'; controls to train with are untrained"),
        (["control=untrained", "promote=true"], "nothing of it is promoted"),
        (["runs=[nowhere]"], "nowhere holds no run"),
        (["seeds=0"], "seeds=0 is below 1"),
        (["task=cartpole_balance", "control=late_rewards"], "cartpole_balance has none to use"),
        (["task=raech"], "did you mean 'reach'?"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, tmp_path, capsys):
    assert run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_runs_that_do_not_belong_together_are_refused(judged, finished, tmp_path, capsys):
    for runs, says in (
        ([finished[0], finished[0]], "a seed came twice"),
        ([finished[0], judged / "seed-0"], "the runs have another task"),
    ):
        assert run(tmp_path, f"runs=[{','.join(map(str, runs))}]") == 2
        assert says in capsys.readouterr().err
    for key, value, says in (
        ("ratio", 0.2, "the runs have another ratio"),
        ("launcher", "ray", "the runs have another launcher"),
        ("planner", {"name": "cem"}, "the runs have another planner"),
        ("steps", 50, "the runs have another steps"),
    ):
        odd = tmp_path / key
        odd.mkdir()
        config.save(odd / "config.yaml", config.load(finished[1] / "config.yaml") | {key: value})
        assert run(tmp_path, f"runs=[{finished[0]},{odd}]") == 2
        assert says in capsys.readouterr().err
    short = shutil.copytree(judged / "seed-0", tmp_path / "short")
    config.save(short / "config.yaml", config.load(short / "config.yaml") | {"action_repeat": 10})
    assert run(tmp_path, f"runs=[{short}]") == 2
    assert "has episodes of fewer than the" in capsys.readouterr().err
    assert cli.main(["verify", "dreamer_v3", f"runs=[{finished[0]}]"]) == 2
    assert "the runs trained tdmpc2, not dreamer_v3" in capsys.readouterr().err
    assert cli.main(["verify", "simulator_model"]) == 2
    assert "there is nothing to learn" in capsys.readouterr().err


def test_a_task_with_official_figures_is_trained_as_their_authors_did(tmp_path):
    from rich.console import Console

    given = {"steps": -1, "device": "cpu", "model": {"size": 5}, "planner": {}}
    told = trials._config(tmp_path, "tdmpc2", "cup_catch", 3, "", given, Console())
    assert published.curve("tdmpc2", "cup_catch") and not told["offline"]
    assert told["action_repeat"] == 2 and told["steps"] == 50_000 and told["seed"] == 3
    assert told["model"] == {"name": "tdmpc2", "size": 5} and told["planner"] == {"name": "mppi"}
    dreamer = trials._config(tmp_path, "dreamer_v3", "cup_catch", 0, "", given, Console())
    assert dreamer["planner"]["name"] == "prior" and dreamer["agent"] == "dreamer"


@pytest.mark.slow
@pytest.mark.parametrize("control", ["", "untrained", "shuffled_rewards", "early_rewards",
                                     "late_rewards"])  # fmt: skip
def test_on_a_robot_the_model_passes_and_every_control_fails(control, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "EPISODES", {"expert": 30, "disturbed": 60, "random": 60})
    monkeypatch.setattr(trials, "UNSEEN", 20)
    told = ["verify", "tdmpc2", "seeds=1", "episodes=10", f"out={tmp_path}", f"control={control}"]
    assert cli.main(told) == (1 if control else 0)
