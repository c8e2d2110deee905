"""A clone does what was recorded, on Reach better than chance; what was never done it leaves."""

import json

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten import build, checkpoint, cli, config, score
from umwelten import train as verb
from umwelten.agents.cloning import BC
from umwelten.agents.policy import Expert, Random
from umwelten.collect import one_each
from umwelten.episodes import Episodes, Recorder
from umwelten.learn import ALWAYS
from umwelten.replay import Replay
from umwelten.world_models.contract import ContractError

GAIN = np.array([[0.5, -1.0, 0.0, 0.3], [0.0, 0.4, -0.6, 0.2]], np.float32)
SPACE = Dict({"x": Box(-np.inf, np.inf, (4,), np.float32), "words": Box(0, 255, (8,), np.uint8)})
SMALL = {"hidden": 64, "layers": 1, "horizon": 3, "batch_size": 128, "warmup": 10}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The verb sets torch's threads; others shall not find them changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(x):
    """Returns the analytic expert's actions: linear feedback."""
    return 0.5 * x @ GAIN.T


def write(folder, sights, actions, info=None):
    """Records E episodes of sights (E, t, 4) and actions (E, t, 2)."""
    many, steps = sights.shape[:2]
    with Recorder(folder, info) as recorder:
        for t in range(steps):
            flags = {"first": t == 0, "last": t == steps - 1, "terminal": False, "valid": True}
            step = {k: np.full(many, v) for k, v in flags.items()}
            step |= {"reward": np.zeros(many), "time": np.full(many, 0.1 * t)}
            recorder.add(step | {"x": sights[:, t], "action": actions[:, t]})
    return folder


def sights(seed, many=40, steps=12):
    return np.random.default_rng(seed).uniform(-1, 1, (many, steps, 4)).astype(np.float32)


def learnt(folder, updates, space=SPACE, nu=2, **options):
    """Returns a clone of a folder's episodes, as the train verb makes one."""
    clone = BC(space, nu, cosine=updates, **SMALL | {"learning_rate": 3e-3} | options)
    episodes = Episodes(folder, (*clone.keys, *ALWAYS), across=clone.across)
    clone.fit(episodes.stats()["keys"])
    replay, rng = Replay(episodes, "cpu"), np.random.default_rng(0)
    for _ in range(updates):
        told = clone.update(replay.sample(rng, clone.batch_size, clone.window))
    assert all(torch.isfinite(v) for v in told.values())
    return clone


def error(clone, seed=9):
    """Returns the mean error of first actions at sights that were not recorded."""
    x = sights(seed, 400, 1)[:, 0]
    action, _ = clone.act({"x": x, "first": np.ones(400, bool)}, clone.start(np.arange(400)))
    return np.abs(action - linear(x)).mean()


def test_it_learns_an_analytic_expert_and_nothing_of_shuffled_actions(tmp_path):
    x = sights(0)
    clone = learnt(write(tmp_path / "a", x, linear(x)), 300)
    chance = np.abs(linear(sights(9, 400, 1)[:, 0])).mean()  # of always acting by the median
    assert error(clone) < 0.1 * chance
    shuffled = np.random.default_rng(1).permutation(linear(x).reshape(-1, 2)).reshape(40, 12, 2)
    assert error(learnt(write(tmp_path / "b", x, shuffled), 100)) > 0.9 * chance


def test_a_chunk_foretells_and_is_executed_in_part(tmp_path):
    """x stands still, the expert counts: action[t + k] is x + k / 10, and needs no new look."""
    x = np.repeat(sights(0, 60, 1), 8, 1) / 2
    ramp = x[..., :2] + np.arange(8)[:, None].astype(np.float32) / 100
    clone = learnt(write(tmp_path, x, ramp), 300, execute=2)
    seen = {"x": x[:5, 0], "first": np.ones(5, bool)}
    first, carry = clone.act(seen, clone.start(np.arange(5)))
    other = {"x": -x[:5, 0], "first": np.zeros(5, bool)}
    second, carry = clone.act(other, carry)
    assert np.allclose(second - first, 0.01, atol=0.02) and not np.array_equal(first, second)
    third, _ = clone.act(other, carry)
    again, _ = clone.act(other | {"first": np.ones(5, bool)}, carry)
    assert np.array_equal(third, again)  # two of three were due; a new episode looks anew as well
    assert np.abs(third - first).max() > 0.1


def batch(b=6, t=3, seed=0):
    rng = np.random.default_rng(seed)
    flags = {k: torch.zeros(b, t, dtype=torch.bool) for k in ("first", "last", "terminal")}
    numbers = {"x": rng.normal(size=(b, t, 4)), "action": rng.uniform(-1, 1, (b, t, 2))}
    numbers |= {"reward": np.zeros((b, t))}
    return flags | {k: torch.from_numpy(v).float() for k, v in numbers.items()}


def test_what_was_never_done_teaches_nothing():
    """An action chosen at a last step, and the next episode's, change no bit of the weights."""
    ends = []
    for last, odd in ((1, False), (1, True), (None, True)):
        clone, given = BC(SPACE, 2, **SMALL), batch()
        if last is not None:
            given["last"][2:, last] = True
        if odd:
            given["action"][2:, 1:] *= -0.5
            given["x"][2:, 1:] += 3
        for _ in range(3):
            clone.update(given)
        ends.append(clone.checkpoint())
    plain, poisoned, unmarked = ends
    assert all(torch.equal(plain[k], poisoned[k]) for k in plain)
    assert any(not torch.equal(plain[k], unmarked[k]) for k in plain)
    clone, given = BC(SPACE, 2, **SMALL), batch()
    given["last"][:, 0] = True
    assert float(clone.update(given)["loss"]) == 0  # a batch of ends has nothing to learn


def test_every_step_opens_a_window(tmp_path):
    """Nothing but the folder's very end is too near to an end for a chunk to begin there."""
    write(tmp_path, sights(0, 5), linear(sights(0, 5)))
    found = Episodes(tmp_path, ("x", *ALWAYS), across=BC.across)
    assert found.count(3) == 5 * 12 - 2


def test_normalisation_is_the_datas_and_is_kept(tmp_path):
    x = sights(0)
    scale, shift = np.array([100, 0.1, 1, 1], np.float32), np.array([50, 0, -3, 0], np.float32)
    clone = learnt(write(tmp_path, scale * x + shift, linear(x)), 20)
    saved = clone.checkpoint()
    flat = (scale * x + shift)[:, :].reshape(-1, 4).astype(float)
    assert np.allclose(saved["model/mean"], flat.mean(0), rtol=1e-5)
    assert np.allclose(saved["model/std"], flat.std(0), rtol=1e-5)
    other = BC(SPACE, 2, **SMALL, seed=1)
    other.restore(saved)
    step = {"x": flat[:5].astype(np.float32), "first": np.ones(5, bool)}
    acts = [c.act(step, c.start(np.arange(5)))[0] for c in (clone, other)]
    assert np.array_equal(*acts)
    still = np.ones((2, 4, 4), np.float32)
    flat_clone = learnt(write(tmp_path / "b", still, linear(still)), 1)
    assert flat_clone.checkpoint()["model/std"].tolist() == pytest.approx([0.01] * 4)


def test_parts_of_a_batch_teach_what_the_batch_does(tmp_path):
    folder = write(tmp_path, sights(0), linear(sights(0)))
    whole, parts = (learnt(folder, 5, accumulate=k).checkpoint() for k in (1, 2))
    weights = [k for k in whole if k.startswith(("model/mlp", "average/"))]
    assert all(torch.allclose(whole[k], parts[k], rtol=0, atol=1e-6) for k in weights)


@pytest.mark.parametrize("options, says", [
    ({"keys": ["y"]}, "the key 'y' is not observed; there are x"),
    ({"keys": ["words"]}, "the key 'words' is no vector"),
    ({"keys": []}, "no vector to learn from"),
    ({"horizon": 0}, "horizon=0 of bc must be a whole number of at least 1"),
    ({"horizon": 2.5}, "horizon=2.5 of bc must be a whole number"),
    ({"hidden": True}, "hidden=True of bc must be a whole number"),
    ({"learning_rate": "high"}, "learning_rate=high of bc must be a number"),
    ({"ema": 1.0}, "0 <= ema < 1"),
    ({"execute": 9}, "execute is 1 to the horizon 3"),
    ({"accumulate": 999}, "parts of batch_size=128 are empty"),
])  # fmt: skip
def test_what_it_is_not_built_with(options, says):
    with pytest.raises(ValueError, match=says):
        BC(SPACE, 2, **SMALL | options)


def test_a_batch_or_checkpoint_of_another_shape_is_refused():
    clone = BC(SPACE, 2, **SMALL)
    with pytest.raises(ContractError, match="'x' of the batch"):
        clone.update(batch() | {"x": torch.zeros(6, 3, 5)})
    with pytest.raises(ContractError, match="sample t=3"):
        clone.update(batch(t=4))
    with pytest.raises(ValueError, match="is not of this network"):
        clone.restore(BC(SPACE, 2, **SMALL | {"hidden": 32}).checkpoint())


# ---- on Reach, by the verbs

TINY = ["task=reach", "agent=bc", "device=cpu", "threads=1", "episodes=10", "evaluate_every=0"]
TINY += ["steps=9"]
TINY += [f"learner.{k}={v}" for k, v in SMALL.items()]


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    """A folder of 40 expert episodes of Reach, and one where each state has another's action."""
    env, room = build.make_env("reach", 40), tmp_path_factory.mktemp("reach")
    steps = list(one_each(env, Expert(env), range(40)))
    rng = np.random.default_rng(0)
    for name in ("expert", "shuffled"):
        with Recorder(room / name, {"task": "Reach", "world": {}}) as recorder:
            for step in steps:
                order = rng.permutation(40) if name == "shuffled" else np.arange(40)
                other = steps[rng.integers(len(steps))] if name == "shuffled" else step
                recorder.add(step | {"action": other["action"][order]})
    return room


def train(sources, out, *arguments):
    return cli.main(["train", *TINY, f"sources=[{sources}]", f"out={out}", *arguments])


@pytest.fixture(scope="module")
def trained(reach, tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("run") / name for name in ("expert", "shuffled")}
    for name, folder in folders.items():
        told = ["steps=200", "learner.learning_rate=3e-3", "evaluate_every=200"]
        assert train(reach / name, folder, *told) == 0
    return folders


def test_on_reach_it_beats_chance_and_shuffled_actions_do_not(trained):
    env = build.make_env("reach", 20)
    policies = {k: build.make_policy("bc", env, str(run)) for k, run in trained.items()}
    policies |= {"random": Random(4)}
    found = {k: score.judge(env, p, 20).summary() for k, p in policies.items()}
    assert found["expert"]["success_interval"][0] > found["random"]["success_interval"][1]
    assert found["expert"]["return_interval"][0] > found["random"]["return_interval"][1] + 20
    assert found["shuffled"]["success"] <= found["random"]["success_interval"][1]


def test_its_folder_is_a_runs(trained, capsys):
    folder = trained["expert"]
    told = config.load(folder / "config.yaml")
    assert told["agent"] == told["learner"]["name"] == "bc" and told["offline"] is True
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {m["kind"] for m in lines} == {"score"}
    assert lines[-1]["policy"] == "BC" and lines[-1]["updates"] == 200
    assert "200 updates" in (folder / "RUN.md").read_text()
    assert cli.main(["score", "task=reach", "policy=bc", f"run={folder}", "episodes=2"]) == 0
    assert "BC" in capsys.readouterr().out


def outcome(folder):
    tensors, _, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    return {k: v.numpy().tobytes() for k, v in tensors.items()}, state


def test_the_same_command_goes_on_and_ends_the_same(reach, tmp_path):
    told = ["save_every=5", "learner.cosine=30", "learner.ema=0.9", "learner.accumulate=2"]
    assert train(reach / "expert", tmp_path / "whole", "steps=30", *told) == 0
    for steps in (7, 30):
        assert train(reach / "expert", tmp_path / "parts", f"steps={steps}", *told) == 0
    whole, parts = outcome(tmp_path / "whole"), outcome(tmp_path / "parts")
    assert [k for k in whole[0] if whole[0][k] != parts[0][k]] == [] and whole[1] == parts[1]
    assert any(k.startswith("moments/") and k.endswith("exp_avg_sq") for k in whole[0])
    assert any(k.startswith("average/") for k in whole[0])


def test_a_kill_between_two_checkpoints_changes_nothing(reach, tmp_path):
    """The rate falls over the run's own steps, and goes on where it stood."""

    def kill(progress, metrics):
        if progress.updates == 17:
            raise KeyboardInterrupt  # as a kill, it leaves no time for a checkpoint

    words = [*TINY, f"sources=[{reach / 'expert'}]", "steps=25", "save_every=5"]
    told = config.compose(verb.train, words)
    told = {k: v for k, v in told.items() if k not in ("out", "threads", "launcher", "collectors")}
    for watches in ([None], [kill, None]):
        for watch in watches:
            folder = tmp_path / f"{len(watches)}"
            with verb.open_run(folder, told) as run:
                if watch:
                    with pytest.raises(KeyboardInterrupt):
                        verb.run_training(run, told, 1, watch)
                    assert checkpoint.steps(folder / "checkpoints")[-1] == 15
                else:
                    verb.run_training(run, told, 1)
    assert outcome(tmp_path / "1") == outcome(tmp_path / "2")


@pytest.mark.parametrize("arguments, says", [
    (["learner.horizn=4"], "no key 'horizn' for learner bc; did you mean 'horizon'"),
    (["learner.nu=4"], "no key 'nu' for learner bc"),
    (["learner.horizon=many"], "horizon=many of learner bc must be int"),
    (["learner.horizon=9999"], "no 9999 valid steps in a row"),
    (["learner.keys=[instruction]"], "'instruction' is no vector"),
    (["sources=[]"], "learns from recorded episodes alone; give sources=[FOLDER]"),
    (["sources=[nowhere]"], "no folder nowhere to learn from"),
    (["offline=false"], "bc learns from recorded episodes alone; leave offline=true"),
    (["task=push"], "holds episodes of Reach, not of Push"),
    (["action_repeat=2"], "lasts 0.1 s, here 0.2 s; train with action_repeat=1"),
    (["world.control=torque"], "of control=delta_position, not of torque"),
    (["world.robot=so101"], "not of so101; train with world.robot="),
    (["n=4"], "n is for who acts as it learns"),
    (["model.size=1"], "model is for who acts"),
    (["task=reach+push"], "bc learns one task at a time"),
])  # fmt: skip
def test_a_mistake_is_one_line(arguments, says, reach, tmp_path, capsys):
    assert train(reach / "expert", tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_empty_folder_and_what_it_lacks_are_refused(reach, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert train(tmp_path / "empty", tmp_path / "run") == 2
    assert "0 episodes, no 3 valid steps in a row" in capsys.readouterr().err
    write(tmp_path / "others", sights(0), linear(sights(0)))
    assert train(tmp_path / "others", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "objects" in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments, says", [
    (["task=push", "policy=bc"], "learnt reach, not Push"),
    (["task=reach", "policy=sac"], "was learnt by bc, not by sac"),
    (["task=reach", "policy=bc", "world.robot=so101"], "is of another contract"),
])  # fmt: skip
def test_a_run_is_not_used_for_what_it_did_not_learn(trained, arguments, says, capsys):
    assert cli.main(["score", *arguments, f"run={trained['expert']}", "episodes=2"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
