"""The verb says where time goes: stages are parts of a round, and nothing stays wrapped."""

import json

import numpy as np
import pytest
import torch

from umwelten import cli, profiling
from umwelten.agents.planners import CEM
from umwelten.agents.policy import Policy
from umwelten.envs.env import BatchEnv
from umwelten.rollout import rollout
from umwelten.world_models.simulator import SimulatorModel

SMALL = ["model.size=1", "model.latent=32", "model.batch_size=4", "planner.samples=8"]
SMALL += ["planner.elites=2", "planner.proposals=2", "planner.iterations=3"]
SHORT = ["rounds=4", "warmup=1", "updates=2"]
RATES = ("control_period_ms", "env_steps_per_s", "decisions_per_s", "real_time_factor")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def profiled(folder, *arguments):
    assert cli.main(["profile", *SHORT, *arguments, f"out={folder}"]) == 0
    return json.loads((folder / "profile.json").read_text())


def assert_parts(rows, whole):
    """Every row is ordered percentiles of time, and the rows but the whole sum to it."""
    for row in rows.values():
        assert 0 <= row["p50"] <= row["p95"] <= row["p99"] and row["mean"] > 0
    parts = [row["mean"] for name, row in rows.items() if name != whole]
    assert sum(parts) <= rows[whole]["mean"] * (1 + 1e-9)
    assert sum(parts) == pytest.approx(rows[whole]["mean"])
    assert sum(row["share"] for row in rows.values()) == pytest.approx(2)


def test_an_agent_is_measured_by_stage_iteration_and_update(tmp_path, capsys):
    found = profiled(tmp_path, "task=reach", "agent=tdmpc2", *SMALL, "n=2", "trace=true")
    stages = set(profiling.STAGES)
    assert found["stages"].keys() == stages - {"rendering"}
    assert_parts(found["stages"], "round")
    assert found["update"].keys() == {"sampling", "gradients", "optimiser", "update"}
    assert_parts(found["update"], "update")
    assert found["iterations"]["per_decision"] == 3 and len(found["iterations"]["ms"]) == 3
    laps = sum(lap["mean"] for lap in found["iterations"]["ms"])
    assert 0 < laps <= found["stages"]["planning"]["mean"]
    assert found["control_period_ms"] == 100 and found["updates_per_s"] > 0
    assert all(found[rate] > 0 for rate in RATES) and 0 <= found["late"] <= 1
    assert found["rows"] == 2 and found["policy"] == "MPPI" and found["environment"]["machine"]
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in trace}
    assert {"round", "planning", "iteration 2", "observation", "optimiser"} <= names
    shown = capsys.readouterr().out
    assert "the control period is 100 ms" in shown and "planning by iteration" in shown


@pytest.mark.parametrize(
    "arguments, stages",
    [
        (["policy=expert", "cameras=[front]"], {"rendering"}),
        (["policy=cem", "planner.horizon=2", "planner.iterations=1"], {"observation", "planning"}),
        (["agent=sac"], set()),
        (["agent=bc", "updates=0"], set()),
    ],
)
def test_whoever_acts_is_measured_without_what_it_lacks(arguments, stages, tmp_path):
    found = profiled(tmp_path, "task=reach", *arguments)
    always = {"world", "rest of the decision", "loop", "round"}
    assert found["stages"].keys() == always | stages
    assert_parts(found["stages"], "round")
    assert found["updates_per_s"] is None and "update" not in found
    assert ("iterations" in found) == ("planning" in stages)


@pytest.mark.parametrize(
    "arguments",
    [
        ["agent=dreamer", "model.batch_size=2", "model.batch_length=4", "model.horizon=2"],
        ["agent=bc", "learner.hidden=16", "learner.batch_size=4"],
    ],
)
def test_every_kind_of_agent_is_measured_as_it_learns(arguments, tmp_path):
    found = profiled(tmp_path, "task=reach", *arguments, "rounds=2", "updates=1")
    assert found["updates_per_s"] > 0 and found["updates"] == 1
    assert found["update"]["sampling"]["mean"] > 0 and found["update"]["gradients"]["mean"] > 0


def test_a_run_is_measured_on_its_own_episodes_and_keeps_its_weights(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    collect = ["collect", "task=reach", "policy=random", "episodes=2", "n=2", "video=0"]
    assert cli.main([*collect, f"out={data}"]) == 0
    train = ["train", "task=reach", "agent=tdmpc2", f"sources=[{data}]", "offline=true", "steps=1"]
    train += ["evaluate_every=0", "threads=1", *SMALL, f"out={run}"]
    assert cli.main(train) == 0
    before = {p: p.read_bytes() for p in (run / "checkpoints").rglob("*") if p.is_file()}
    assert cli.main(["profile", f"run={run}", *SHORT]) == 0
    found = json.loads((run / "profile" / "profile.json").read_text())
    assert found["task"] == "reach" and found["updates"] == 2 and found["window"] == 4
    assert not (run / "profile" / "episodes").exists()
    assert before == {p: p.read_bytes() for p in (run / "checkpoints").rglob("*") if p.is_file()}


class Planned(Policy):
    """Takes known times by a clock of its own: 1 to observe, 4 + 3 to plan, 2 besides."""

    def __init__(self, clock, nu):
        self.clock, self.nu, self.model = clock, nu, self
        self.device = torch.device("cpu")

    def start(self, seeds):
        return {}

    def act(self, step, carry):
        self.clock[0] += 2e-3
        self.observe()
        self.plan(Told())
        return np.zeros((len(step["first"]), self.nu), np.float32), carry

    def observe(self):
        self.clock[0] += 1e-3

    def plan(self, moment):
        for i in moment.clock.iterations(2):
            self.clock[0] += (4 - i) * 1e-3


class Told:
    """A moment of which only the clock is asked."""

    class Clock:
        def iterations(self, count):
            yield from range(count)

    def __init__(self, clock=None):
        self.clock = clock or self.Clock()

    def _replace(self, clock):
        return Told(clock)


def test_known_times_are_found(monkeypatch):
    clock, step = [0.0], BatchEnv.step
    monkeypatch.setattr(profiling, "perf_counter", lambda: clock[0])

    def slow(env, action):
        clock[0] += 10e-3
        return step(env, action)

    monkeypatch.setattr(BatchEnv, "step", slow)
    env = BatchEnv("Reach", 3, nthread=1)
    actor = Planned(clock, env.single_action_space.shape[0])
    found = profiling._acting(env, actor, rounds=5, warmup=2, seed=0)
    times = {"world": 10, "observation": 1, "planning": 7, "rest of the decision": 2, "round": 20}
    for name, ms in times.items():
        assert found["stages"][name]["p99"] == pytest.approx(ms), name
    assert found["stages"]["loop"]["p99"] == pytest.approx(0, abs=1e-9)
    assert [lap["mean"] for lap in found["iterations"]["ms"]] == pytest.approx([4, 3])
    assert found["env_steps_per_s"] == pytest.approx(3 / 0.02)
    assert found["decisions_per_s"] == pytest.approx(1 / 0.01) and found["late"] == 0
    assert found["real_time_factor"] == pytest.approx(100 / 20)


def test_nothing_stays_wrapped_and_no_action_changes():
    env = BatchEnv("Reach", 2, physics=True, nthread=1)
    model = SimulatorModel(BatchEnv("Reach", 16, max_episode_steps=-1, nthread=1))
    actor = CEM(model, horizon=2, iterations=2, samples=8, elites=2)

    def acted():
        steps = rollout(env, actor, 3)
        return [next(steps)["action"] for _ in range(3)]

    alone, kept = acted(), [set(vars(x)) for x in (env, actor, model)]
    with profiling._watched(profiling.Stopwatch(), env, actor):
        assert all(np.array_equal(*pair) for pair in zip(acted(), alone, strict=True))
        assert "act" in vars(actor)
    with pytest.raises(ZeroDivisionError):
        with profiling._watched(profiling.Stopwatch(), env, actor):
            _ = 1 / 0
    assert kept == [set(vars(x)) for x in (env, actor, model)]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["task=reach"], "say who acts"),
        (["task=reach", "policy=random", "agent=sac"], "say who acts"),
        (["policy=random"], "say of which task"),
        (["task=reach+push", "policy=random"], "profile takes one task"),
        (["task=reach", "policy=random", "rounds=0"], "rounds and n are at least 1"),
        (["task=reach", "policy=random", "model.size=1"], "that has learnt nothing"),
        (["task=reach", "policy=wizard"], "no"),
        (["task=rech", "policy=random"], "did you mean 'reach'"),
        (["task=reach", "agent=tdmpc3"], "did you mean 'tdmpc2'"),
        (["run=nowhere"], "nowhere holds no run"),
        (["task=reach", "policy=random", "round=3"], "did you mean 'rounds'"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["profile", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not [*tmp_path.iterdir()]
