"""Policies: what they remember is a value, a row's chance is its own, replay is exact."""

import copy

import gymnasium as gym
import numpy as np
import pytest

from umwelten.agents import policy as policies
from umwelten.agents.policy import Chunked, Disturbed, Expert, Policy, Random, Replay, Timed, Warmup
from umwelten.envs.env import BatchEnv
from umwelten.envs.single import Env
from umwelten.rollout import rollout


def step(*first, **more):
    return {"first": np.array(first, bool), "last": np.zeros(len(first), bool)} | more


def drawn(policy, seeds, steps=5, first=None):
    carry, out = policy.start(np.array(seeds)), []
    for t in range(steps):
        action, carry = policy.act(step(*([t == 0] * len(seeds))), carry)
        out.append(action)
    return np.stack(out)


# ---- Random


def test_a_rows_chance_depends_on_its_seed_alone():
    many = drawn(Random(3), [4, 9, 2, 9])
    assert many.shape == (5, 4, 3) and many.dtype == np.float32
    assert np.array_equal(many[:, 1], many[:, 3])
    for i, seed in enumerate([4, 9, 2]):
        assert np.array_equal(drawn(Random(3), [seed])[:, 0], many[:, i])
    assert len({row.tobytes() for row in many[:, :3].reshape(-1, 3)}) == 15


def test_no_number_is_drawn_twice():
    """However many a step takes: the streams of a row's steps do not overlap."""
    a = drawn(Random(24), [0, 1], steps=20)
    assert len(np.unique(a)) == a.size


def test_chance_is_uniform_over_the_whole_box_and_uncorrelated():
    a = drawn(Random(2), range(40), steps=250).reshape(-1, 2).astype(np.float64)
    assert a.min() >= -1 and a.max() <= 1 and a.min() < -0.999 and a.max() > 0.999
    np.testing.assert_allclose(a.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(a.var(0), 1 / 3, rtol=0.03)
    rows = drawn(Random(1), range(100, 140), steps=250)[:, :, 0]
    assert abs(np.corrcoef(a.T)[0, 1]) < 0.04
    assert np.abs(np.corrcoef(rows.T) - np.eye(40)).max() < 0.3  # neighbours share nothing
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize(
    "make",
    [
        lambda: Random(2),
        lambda: Warmup(Random(2), 2, 2),
        lambda: Disturbed(Random(2), 2, 2),
    ],
)
def test_the_carry_is_all_that_is_remembered(make):
    policy = make()
    carry = policy.start(np.array([1, 2]))
    before = copy.deepcopy(vars(policy))
    for t in range(4):
        kept = copy.deepcopy(carry)
        one, after = policy.act(step(t == 0, False), carry)
        two, _ = make().act(step(t == 0, False), kept)  # another object, the same carry
        assert np.array_equal(one, two)
        assert all(np.array_equal(carry[k], kept[k]) for k in kept)  # not written into
        carry = after
    assert vars(policy).keys() == before.keys()


# ---- Expert


def test_the_expert_acts_as_the_tasks_script_says():
    env = BatchEnv("Reach", 3)
    env.reset(seed=0)
    action, carry = Expert(env).act(step(True, True, True), {})
    assert np.array_equal(action, env.expert()) and action.shape == (3, 4) and carry == {}
    one = Env("Reach")
    one.reset(seed=0)
    assert np.array_equal(Expert(one).act(step(True), {})[0], action[:1])


def test_no_expert_is_said_so():
    for world in (BatchEnv("CartpoleBalance", 1), Env("CartpoleBalance")):
        world.reset(seed=0)
        with pytest.raises(ValueError, match="CartpoleBalance has no scripted expert"):
            Expert(world).act(step(True), {})
    with pytest.raises(AttributeError):
        Expert(gym.make("Pendulum-v1"))


# ---- Replay


def test_a_recorded_episode_comes_back_to_the_bit():
    n = 3
    env = BatchEnv("Push", n, physics=True, labels=True, max_episode_steps=30)
    told = list(rollout(env, Random(4), 5, episodes_per_row=2))
    first = [s for s in told if s["time"].max() <= 3][:31]
    actions = np.stack([s["action"] for s in first])
    again = BatchEnv("Push", n, physics=True, labels=True, max_episode_steps=30)
    for a, b in zip(first, rollout(again, Replay(actions), 5), strict=False):
        assert all(np.array_equal(a[k], b[k]) for k in a), "differs"
    # a row alone is the same, from its own seed
    lone = BatchEnv("Push", 1, physics=True, labels=True, max_episode_steps=30)
    for a, b in zip(first, rollout(lone, Replay(actions[:, 1]), 6), strict=False):
        assert all(np.array_equal(a[k][1], b[k][0]) for k in a)
    # and another seed or another action is seen
    for seed, change in ((7, 0), (6, 0.01)):
        other = rollout(lone, Replay(actions[:, 1] + np.float32(change)), seed)
        pairs = zip(first, other, strict=False)
        assert any(not np.array_equal(a["physics"][1], b["physics"][0]) for a, b in pairs)


def test_replay_begins_anew_with_each_episode_and_stays_with_the_last_action():
    actions = np.arange(6, dtype=np.float32).reshape(3, 2, 1) / 10
    policy = Replay(actions)
    carry = policy.start(np.array([0, 1]))
    got = []
    for first in ((1, 1), (0, 0), (0, 1), (0, 0), (0, 0)):
        action, carry = policy.act(step(*first), carry)
        got.append(action[:, 0])
    np.testing.assert_allclose(
        np.array(got).T, [[0, 0.2, 0.4, 0.4, 0.4], [0.1, 0.3, 0.1, 0.3, 0.5]]
    )


def test_actions_of_another_number_of_rows_are_refused():
    policy = Replay(np.zeros((5, 3, 1)))
    with pytest.raises(ValueError, match="actions of 3 rows cannot drive 2 rows"):
        policy.start(np.array([0, 1]))
    assert Replay(np.zeros((5, 1))).start(np.arange(7))  # of one row: any row does it


# ---- Chunked


class Asked:
    """Proposes chunks that say how often it was asked; keeps what it was asked with."""

    def __init__(self, n, h, nu=1):
        self.shape, self.steps = (n, h, nu), []

    def __call__(self, step):
        self.steps.append(step)
        count = 10.0 * len(self.steps) + np.arange(self.shape[1])
        return np.broadcast_to(count[None, :, None], self.shape)


@pytest.mark.parametrize("execute", [1, 2, 5])
def test_a_chunk_is_executed_in_part_and_then_asked_for_again(execute):
    ask = Asked(1, 5)
    policy = Chunked(ask, horizon=5, nu=1, execute=execute)
    carry, got = policy.start(np.array([0])), []
    for t in range(11):
        action, carry = policy.act(step(t == 0), carry)
        got.append(float(action[0, 0]))
    assert got == [10.0 * (t // execute + 1) + t % execute for t in range(11)]
    assert len(ask.steps) == -(-11 // execute)


def test_an_episode_never_executes_the_chunk_of_another():
    ask = Asked(2, 4)
    policy = Chunked(ask, horizon=4, nu=1, execute=4)
    carry, got = policy.start(np.array([0, 1])), []
    for first in ((1, 1), (0, 0), (0, 1), (0, 0), (0, 0), (0, 0)):
        action, carry = policy.act(step(*first), carry)
        got.append(action[:, 0].tolist())
    rows = np.array(got).T.tolist()
    assert rows == [[10, 11, 12, 13, 30, 31], [10, 11, 20, 21, 22, 23]]


def test_chunks_that_do_not_fit_are_refused():
    for execute in (0, 6):
        with pytest.raises(ValueError, match="execute is 1 to the horizon 5"):
            Chunked(Asked(1, 5), 5, 1, execute)
    policy = Chunked(Asked(1, 4), horizon=5, nu=1, execute=1)
    with pytest.raises(ValueError, match=r"propose returns shape \(1, 5, 1\), got \(1, 4, 1\)"):
        policy.act(step(True), policy.start(np.array([0])))


# ---- Warmup


class Marked(Policy):
    """Acts with 7; counts its own steps and notes which were first."""

    def __init__(self):
        self.firsts = []

    def start(self, seeds):
        return {"mine": np.zeros(len(seeds), np.int64)}

    def act(self, step, carry):
        self.firsts.append(step["first"].tolist())
        n = len(step["first"])
        return np.full((n, 2), 7, np.float32), {"mine": carry["mine"] + 1}


def test_warming_up_is_random_and_then_the_policy_begins_with_a_first_step():
    inner = Marked()
    policy = Warmup(inner, nu=2, steps=3)
    carry, got = policy.start(np.array([5, 6])), []
    for t in range(6):
        action, carry = policy.act(step(t == 0, t in (0, 4)), carry)
        got.append(action)
    assert np.array_equal(np.stack(got[:3]), drawn(Random(2), [5, 6], 3))
    assert all((a == 7).all() for a in got[3:])
    assert inner.firsts == [[True, True], [False, True], [False, False]]
    assert carry["mine"].tolist() == [3, 3]


def test_no_warming_up_leaves_the_policy_as_it_is():
    inner = Marked()
    policy = Warmup(inner, nu=2, steps=0)
    carry = policy.start(np.array([0]))
    action, carry = policy.act(step(True), carry)
    assert (action == 7).all() and inner.firsts == [[True]]
    assert policy.act(step(False), carry)[0][0, 0] == 7 and inner.firsts[-1] == [False]


def test_decisions_at_last_steps_are_none_and_do_not_count():
    """Seed steps are decisions; what is chosen where an episode is over reaches no world."""
    inner = Marked()
    policy = Warmup(inner, nu=2, steps=3)
    carry, got = policy.start(np.array([5])), []
    for t in range(5):
        now = step(t == 0, last=np.array([t == 1]))
        action, carry = policy.act(now, carry)
        got.append(bool((action == 7).all()))
    assert got == [False, False, False, False, True]


def test_rows_warm_up_each_for_themselves():
    """A row's actions do not depend on when the other one ended its episode."""

    def row(ends):
        policy = Warmup(Random(1), nu=1, steps=3)
        carry, out = policy.start(np.array([5, 6])), []
        for t in range(7):
            last = np.array([t in ends, False])
            first = np.array([t == 0 or t - 1 in ends, t == 0])
            action, carry = policy.act({"first": first, "last": last}, carry)
            out.append(action[1, 0])
        return out

    assert row([]) == row([0, 2]) == row([1])


# ---- Disturbed


def test_a_disturbance_is_held_and_then_the_policy_has_as_long_to_mend_it():
    inner = Marked()
    policy = Disturbed(inner, nu=2, hold=2)
    carry, got = policy.start(np.array([5, 6])), []
    for t in range(9):
        action, carry = policy.act(step(t == 0, t in (0, 5)), carry)
        got.append(action)
    a = np.stack(got)
    chance = drawn(Random(2), [5, 6], 3)
    for row, pushed in ((0, [0, 0, None, None, 1, 1, None, None, 2]),
                        (1, [0, 0, None, None, 1, 1, 1, None, None])):  # fmt: skip
        for t, draw in enumerate(pushed):
            assert np.array_equal(a[t, row], [7, 7] if draw is None else chance[draw, row])
    assert carry["mine"].tolist() == [9, 9]  # it has followed all along


# ---- Timed


class Counting(Policy):
    """Acts with zeros; its carry says how many iterations that took: 1, 2, 3, ..."""

    def start(self, seeds):
        return {"iterations": np.zeros(len(seeds), np.int64)}

    def act(self, step, carry):
        return np.zeros((len(step["first"]), 2), np.float32), {
            "iterations": carry["iterations"] + 1
        }


def test_the_time_of_every_decision_is_told_and_nothing_else_is_changed(monkeypatch):
    reads = iter(np.cumsum([[0.0, ms / 1000] for ms in range(1, 101)]))
    monkeypatch.setattr(policies, "perf_counter", lambda: next(reads))
    timed = Timed(Counting())
    carry = timed.start(np.arange(3))
    for t in range(100):
        action, carry = timed.act(step(*[t == 0] * 3), carry)
        assert action.shape == (3, 2) and carry["iterations"].tolist() == [t + 1] * 3
    told = timed.latency()
    assert told["decisions"] == 100 and told["iterations"] == 50.5
    assert told["p50_ms"] == pytest.approx(50.5) and told["p99_ms"] == pytest.approx(99.01)
    monkeypatch.undo()
    drawn_alike = Timed(Random(3))
    np.testing.assert_array_equal(drawn(drawn_alike, [4, 9]), drawn(Random(3), [4, 9]))
    assert drawn_alike.latency()["iterations"] is None
    with pytest.raises(ValueError, match="no decision was timed yet"):
        Timed(Random(3)).latency()
