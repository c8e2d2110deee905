"""Scores are of the policy that acted, over seeds that nobody trained on, with true intervals."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

import umwelten
from umwelten import cli
from umwelten.agents.policy import Expert, Policy, Random
from umwelten.envs.env import BatchEnv
from umwelten.score import HELD_OUT, Score, judge, rows_for, student, table, wilson

# Student's quantiles t(0.975, v), as any table has them
QUANTILES = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 10: 2.228, 19: 2.093,
    29: 2.045, 49: 2.010, 99: 1.984, 999: 1.962,
}  # fmt: skip
# Wilson's interval: (successes, n): (low, high), to four digits (R's binom.confint)
WILSON = {
    (0, 10): (0.0, 0.2775), (1, 10): (0.0179, 0.4042), (5, 10): (0.2366, 0.7634),
    (10, 10): (0.7225, 1.0), (20, 20): (0.8389, 1.0), (19, 20): (0.7639, 0.9911),
    (95, 100): (0.8882, 0.9785), (0, 1): (0.0, 0.7935), (500, 1000): (0.4691, 0.5309),
}  # fmt: skip


@pytest.mark.parametrize("v", QUANTILES)
def test_intervals_of_means_are_students(v):
    rng = np.random.default_rng(v)
    values = rng.normal(size=v + 1)
    low, high = student(values)
    half = QUANTILES[v] * values.std(ddof=1) / math.sqrt(v + 1)
    assert low == pytest.approx(values.mean() - half, abs=6e-4 * half)
    assert high == pytest.approx(values.mean() + half, abs=6e-4 * half)


def test_one_value_bounds_nothing_and_equal_ones_do():
    assert student(np.array([3.0])) == (-math.inf, math.inf)
    assert student(np.array([3.0, 3.0])) == (3.0, 3.0)


@pytest.mark.parametrize("case", WILSON)
def test_intervals_of_proportions_are_wilsons(case):
    assert wilson(*case) == pytest.approx(WILSON[case], abs=5e-5)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    spans = np.array([student(x) for x in rng.normal(2.0, 3.0, size=(4000, 5))])
    assert ((spans[:, 0] <= 2) & (2 <= spans[:, 1])).mean() == pytest.approx(0.95, abs=0.012)
    rates = rng.uniform(size=4000)
    spans = np.array([wilson(int(rng.binomial(20, p)), 20) for p in rates])
    hits = (spans[:, 0] <= rates) & (rates <= spans[:, 1])
    assert hits.mean() == pytest.approx(0.95, abs=0.012)


def test_intervals_tell_thirty_successes_from_twenty():
    assert wilson(28, 30)[0] > wilson(12, 30)[1]
    assert not wilson(16, 30)[0] > wilson(12, 30)[1]


@pytest.mark.parametrize(
    "episodes, most, rows", [(20, 20, 20), (20, 16, 10), (7, 5, 1), (50, 16, 10), (1, 9, 1)]
)
def test_rows_share_the_episodes_evenly(episodes, most, rows):
    assert rows_for(episodes, most) == rows


# ---- judge


class Watching(Policy):
    """Acts at random; notes the seeds it is given and the starts that it sees."""

    def __init__(self, nu):
        self.seeds, self.starts, self._random = [], [], Random(nu)

    def start(self, seeds):
        self.seeds += seeds.tolist()
        return self._random.start(seeds)

    def act(self, step, carry):
        self.starts += [row.tobytes() for row in step["objects"][step["first"]]]
        return self._random.act(step, carry)


def world(n=4, steps=12):
    return BatchEnv("Reach", n, max_episode_steps=steps)


def test_each_held_out_seed_is_judged_once_and_no_other():
    policy = Watching(4)
    found = judge(world(), policy, 12, seed=3)
    assert policy.seeds == list(range(HELD_OUT + 3, HELD_OUT + 15)) and HELD_OUT == 2**31
    assert len(found.returns) == len(found.success) == 12
    assert len(policy.starts) == len(set(policy.starts)) == 12
    fresh = world(12)
    fresh.reset(seed=HELD_OUT + 3)
    starts = fresh.task.observe(fresh.sim)["objects"].astype(np.float32)
    assert policy.starts == [row.tobytes() for row in starts]


def test_seeds_of_trainings_are_below_those_of_scores():
    from umwelten.learn import _row_seeds

    for run in range(50):
        seeds = _row_seeds(np.random.SeedSequence(run), 40)
        assert 0 <= min(seeds) and max(seeds) < HELD_OUT and len(set(seeds)) == 40


def test_a_score_does_not_depend_on_the_rows_at_a_time():
    whole, parts = (judge(world(n, 50), Follower(n), 12) for n in (12, 3))
    assert whole.success.all()
    assert np.array_equal(whole.success, parts.success)
    np.testing.assert_allclose(whole.returns, parts.returns, rtol=1e-12)


class Follower(Policy):
    """Goes where the observation says that the target is."""

    def __init__(self, n):
        self.n = n

    def start(self, seeds):
        return {}

    def act(self, step, carry):
        away = step["objects"][:, 3:6] / 0.04
        action = np.concatenate([np.clip(away, -1, 1), np.ones((self.n, 1))], 1)
        return action.astype(np.float32), carry


def test_success_is_that_of_the_last_step_and_returns_are_sums():
    env = world(2, 50)

    class Leaver(Policy):
        """Row 0 gets there and stays, row 1 gets there and goes away again."""

        def start(self, seeds):
            self.seen, self.total = [], 0.0
            return {}

        def act(self, step, carry):
            self.seen.append(step["label/success"].copy())
            self.total = self.total + step["reward"].astype(np.float64)
            action = env.expert()
            if step["time"][0] > 2.5:
                action[1] = (-1, 0, 1, 1)
            return action, carry

    policy = Leaver()
    found = judge(env, policy, 2)
    assert np.any(policy.seen, 0).all() and found.success.tolist() == [True, False]
    np.testing.assert_allclose(found.returns, policy.total, rtol=1e-6)


def test_the_name_is_that_of_the_object_that_acted():
    for policy in (Random(4), Watching(4)):
        assert judge(world(), policy, 4).summary()["policy"] == type(policy).__name__
    env = world()
    assert judge(env, Expert(env), 4).policy == "Expert"


def test_different_policies_get_different_scores_and_the_same_one_the_same():
    env = world(4, 50)
    random, again, expert = (judge(env, p, 8) for p in (Random(4), Random(4), Expert(env)))
    assert np.array_equal(random.returns, again.returns)
    assert expert.success.all() and not random.success.any()
    assert expert.summary()["return_interval"][0] > random.summary()["return_interval"][1]
    assert expert.summary()["success_interval"][0] > random.summary()["success_interval"][1]


def test_episodes_that_rows_cannot_share_are_refused():
    with pytest.raises(ValueError, match="10 episodes cannot be shared by 4 rows"):
        judge(world(4), Random(4), 10)


def test_a_watcher_hears_of_every_step():
    heard = []
    judge(world(2, 5), Random(4), 4, watch=lambda k, t: heard.append((k, t)))
    assert heard == [(k, t) for k in range(2) for t in range(6)]


def test_nothing_in_scoring_draws_by_chance():
    tree = ast.parse((Path(umwelten.__file__).parent / "score.py").read_bytes())
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    names |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert not names & {"random", "default_rng", "Generator", "rand", "randn", "uniform", "normal"}


def test_summaries_are_plain_numbers_and_a_table_shows_them():
    from rich.console import Console

    summary = Score("Random", np.array([True, False]), np.array([1.5, 2.5])).summary()
    assert json.loads(json.dumps(summary)) == {
        **summary, "success_interval": list(summary["success_interval"]),
        "return_interval": list(summary["return_interval"]),
    }  # fmt: skip
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table([summary]))
    assert "Random" in capture.get() and "2.0" in capture.get() and "0.50" in capture.get()


# ---- the verb


def scored(tmp_path, *arguments):
    out = tmp_path / "score.json"
    assert cli.main(["score", *arguments, f"out={out}"]) == 0
    return json.loads(out.read_text())


def test_the_verb_scores_and_writes(tmp_path, capsys):
    found = scored(tmp_path, "task=reach", "policy=expert", "episodes=6", "n=4")
    assert found["task"] == "reach" and found["policy"] == "Expert" and found["episodes"] == 6
    assert found["success"] == 1 and found["seed"] == 0
    assert "Expert" in capsys.readouterr().out
    other = scored(tmp_path, "task=reach", "policy=random", "episodes=6", "n=4", "seed=5")
    assert other["success"] == 0 and other["policy"] == "Random" and other["seed"] == 5


def test_the_verb_plans_through_the_simulator_where_no_run_is_given(tmp_path):
    small = ["planner.samples=12", "planner.iterations=1", "planner.horizon=2"]
    small += ["planner.elites=4", "planner.proposals=0"]
    found = scored(tmp_path, "task=reach", "policy=mppi", "episodes=2", *small)
    assert found["policy"] == "MPPI" and found["return"] > 15
    assert found["rows"] == 2 and found["latency"]["iterations"] == 1
    assert 0 < found["latency"]["p50_ms"] <= found["latency"]["p99_ms"]


def test_the_verb_takes_limits_and_a_deadline(tmp_path, capsys):
    asked = ["planner.horizon=2", "planner.samples=8", "planner.elites=3", "planner.iterations=4"]
    asked += [
        "planner.deadline_ms=0.01",
        "planner.limits.rate=0.05",
        "planner.limits.high=[1,1,1,0]",
    ]
    found = scored(tmp_path, "task=reach", "policy=icem", "episodes=1", *asked)
    assert found["policy"] == "ICEM" and found["latency"]["iterations"] == 1
    assert "a decision for 1 rows: p50" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["task=reech"], "did you mean 'reach'"),
        (["task=cartpole_balance", "policy=expert"], "CartpoleBalance has no scripted expert"),
        (["task=reach", "policy=prior"], "policy=prior is a trained model's"),
        (["task=reach", "policy=expart"], "did you mean"),
        (["task=reach", "policy=mppi", "run=nowhere"], "nowhere holds no run"),
        (["task=reach", "policy=mppi", "planner.sampels=3"], "did you mean 'samples'"),
        (["task=reach", "policy=gradient"], "SimulatorModel gives no gradients"),
        (["task=reach", "policy=icem", "planner.limits.rte=1"], "did you mean 'rate'"),
        (["task=reach", "policy=cem", "planner.limits.rate=0"], "rate 0 is not > 0"),
        (["task=reach", "policy=cem", "planner.limits.rate=[1]"], "rate has 1 components"),
        (["task=reach", "policy=cem", "planner.deadline_ms=0"], "deadline_ms 0 is not > 0"),
        (["task=reach", "episodes=0"], "episodes"),
    ],
)
def test_what_cannot_be_scored_is_one_line(arguments, says, capsys):
    assert cli.main(["score", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
