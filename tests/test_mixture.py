"""Windows of several tasks: padded, named and drawn alike often; learnt from, online and off."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from umwelten import build, config
from umwelten.agents.planners import MPPI
from umwelten.agents.policy import Random
from umwelten.collect import collect
from umwelten.envs.env import BatchEnv
from umwelten.envs.several import Several
from umwelten.episodes import Recorder
from umwelten.learn import train
from umwelten.mixture import Mixture
from umwelten.registry import UnknownName
from umwelten.rollout import rollout
from umwelten.run import Run
from umwelten.score import score
from umwelten.train import train as train_verb

Side = namedtuple("Side", "name keys width nu")
SIDES = (Side("Narrow", ("b", "a"), 3, 1), Side("Wide", ("x",), 4, 2))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone, and then nothing depends on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def record(path, info, lengths, nu, **shapes):
    """Records episodes whose numbers count on: what a window holds says where it is from."""
    with Recorder(path, info) as recorder:
        count = 0
        for length in lengths:
            for t in range(length):
                count += 1
                numbers = {k: 1 if k == "task" else count for k in shapes}
                step = {k: np.full((1, *s), numbers[k], d) for k, (s, d) in shapes.items()}
                step |= {"action": np.full((1, nu), count / 100, np.float32)}
                step |= {"reward": np.full(1, count, np.float32), "valid": np.ones(1, bool)}
                step |= {"first": np.array([t == 0]), "last": np.array([t == length - 1])}
                recorder.add(step | {"terminal": np.zeros(1, bool)})
    return path


def narrow(path, lengths=(6, 5)):
    shapes = {"a": ((1,), np.float32), "b": ((2,), np.float32), "extra": ((2, 2), np.uint8)}
    return record(path / "narrow", {"task": "Narrow"}, lengths, 1, **shapes)


def wide(path, lengths=(9,)):
    return record(path / "wide", {"task": "Wide"}, lengths, 2, x=((4,), np.float32))


def test_windows_are_padded_named_and_drawn_alike_often(tmp_path):
    both = {"vector": ((4,), np.float32), "task": ((), np.int64)}
    third = record(tmp_path / "both", {"tasks": ["Narrow", "Wide"]}, (4,), 2, **both)
    mixture = Mixture([narrow(tmp_path), wide(tmp_path), third], SIDES)
    batch = mixture.sample(np.random.default_rng(0), 4000, 4)
    assert {k: tuple(v.shape[2:]) for k, v in batch.items()} == {
        "vector": (4,), "task": (), "action": (2,), "reward": (), "first": (), "last": (),
        "terminal": (), "valid": (),
    }  # fmt: skip
    assert batch["task"].dtype == torch.int64
    assert (batch["task"] == batch["task"][:, :1]).all()
    assert (batch["reward"].diff(dim=1) == 1).all() and not batch["last"][:, :-1].any()
    first = batch["task"][:, 0] == 0
    seen, done = batch["vector"][first], batch["action"][first]
    assert not seen[..., 3].any() and (seen[..., :3] == batch["reward"][first][..., None]).all()
    assert not done[..., 1].any() and torch.equal(done[..., 0], batch["reward"][first] / 100)
    # 3 + 2 windows of the first task, 6 of the second, 1 of the world of both
    shares = [float((batch["reward"][first, 0] == k).float().mean()) for k in (1, 2, 3, 7, 8)]
    assert all(abs(share - 0.2) < 0.03 for share in shares)
    assert abs(float(first.float().mean()) - 5 / 12) < 0.03
    again = mixture.sample(np.random.default_rng(0), 4000, 4)
    assert all(torch.equal(again[k], v) for k, v in batch.items())
    with pytest.raises(ValueError, match="no window of 10"):
        mixture.sample(np.random.default_rng(0), 1, 10)
    wide(tmp_path, (5,))
    assert mixture.refresh() == 1


def test_folders_of_other_tasks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of the task 'Wide', learnt are"):
        Mixture([wide(tmp_path)], SIDES[:1])
    record(tmp_path / "none", {}, (4,), 2, x=((4,), np.float32))
    with pytest.raises(ValueError, match="of the task None"):
        Mixture([tmp_path / "none"], SIDES)
    other = record(tmp_path / "other", {"tasks": ["Wide", "Narrow"]}, (4,), 2)
    with pytest.raises(ValueError, match=r"of the tasks \['Wide', 'Narrow'\], learnt are"):
        Mixture([other], SIDES)
    mixture = Mixture([wide(tmp_path)], (SIDES[0], Side("Wide", ("x",), 4, 3)))
    with pytest.raises(ValueError, match=r"show and take \(4, 2\) .* its world \(4, 3\)"):
        mixture.sample(np.random.default_rng(0), 2, 4)


def pair():
    return Several([BatchEnv(t, 1, action_repeat=50) for t in ("CartpoleBalance", "CupCatch")])


def learnt(folder, *steps, sources=()):
    """Trains on two tasks, once for each number of steps, as if killed in between."""
    for count in steps:
        env = pair()
        model = build.make_model({"size": 1, "batch_size": 8}, env)
        planner = MPPI(model, samples=8, elites=2, proposals=2, iterations=1, explore=True)
        train(
            model, Run(folder), sources=sources, env=env, policy=planner, steps=count, ratio=0.25,
            seed_steps=20, pretrain=1, read=lambda paths, e=env: Mixture(paths, e.sides),
        )  # fmt: skip
    return model.checkpoint()


def test_two_tasks_learnt_at_once_go_on_to_the_bit(tmp_path):
    whole, parts = learnt(tmp_path / "a", 40), learnt(tmp_path / "b", 26, 40)
    assert whole["chance"][1] > 3
    assert all(torch.equal(parts[k], v) for k, v in whole.items())


def test_what_single_worlds_recorded_teaches_a_model_of_several(tmp_path, capsys):
    for task in ("cartpole_balance", "cup_catch"):
        collect(task, "random", 2, str(tmp_path / task), n=2, video=0, action_repeat=50)
    names = "cartpole_balance+cup_catch"
    code = train_verb(
        names, out=str(tmp_path / "run"), steps=2, action_repeat=50, threads=1, offline=True,
        sources=(str(tmp_path / "cartpole_balance"), str(tmp_path / "cup_catch")),
        evaluate_every=2, episodes=1, model={"name": "tdmpc2", "size": 1, "batch_size": 8},
        planner={"name": "mppi", "samples": 8, "elites": 2, "proposals": 2, "iterations": 1},
    )  # fmt: skip
    assert code == 0
    (logged,) = [m for m in Run(tmp_path / "run").metrics() if m["kind"] == "score"]
    assert {"return/CartpoleBalance", "return/CupCatch", "success/CupCatch"} <= logged.keys()
    assert "CupCatch: x" in (tmp_path / "run" / "RUN.md").read_text()
    score(names, "prior", str(tmp_path / "run"), 2, 2)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told if "Prior" in line] == [*names.split("+")]
    score("cup_catch", "prior", str(tmp_path / "run"), 2, 2)  # one of those learnt
    with pytest.raises(config.ConfigError, match="reach is not among the tasks learnt"):
        score("reach", "prior", str(tmp_path / "run"), 2, 2)
    with pytest.raises(config.ConfigError, match=r"learnt cartpole_balance[+]cup_catch, not"):
        build.restore(tmp_path / "run", build.make_env("cup_catch"))


def test_the_command_line_takes_several_tasks_where_a_verb_can():
    given = config.compose(train_verb, ["task=reach+push", "agent=tdmpc2"])
    assert given["task"] == "reach+push"
    with pytest.raises(UnknownName, match="no task 'pusj'; did you mean 'push'"):
        config.compose(train_verb, ["task=reach+pusj"])
    with pytest.raises(config.ConfigError, match=r"collect takes one task, not reach[+]push"):
        config.compose(collect, ["task=reach+push"])
    env = pair()
    with pytest.raises(config.ConfigError, match="dreamer_v3 learns one task at a time"):
        build.make_model({"name": "dreamer_v3"}, env)
    with pytest.raises(config.ConfigError, match="the simulator plans for one task"):
        build.make_policy("mppi", env)
    with pytest.raises(config.ConfigError, match="has no scripted expert"):
        build.make_policy("expert", env)
    model = build.make_model({"size": 1}, env)
    assert model.tasks.names == ("CartpoleBalance", "CupCatch") and model.nu == 2
    step = next(rollout(env, Random(2), 0))
    assert step["task"].tolist() == [0, 1]
