"""The loop: steps line up with the actions that earned them, quotas end, all of it can go on."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from umwelten import checkpoint
from umwelten.agents.planners import MPPI
from umwelten.agents.policy import Policy, Random, Warmup
from umwelten.envs.env import BatchEnv
from umwelten.rollout import rollout
from umwelten.world_models.simulator import SimulatorModel


class Counting(gym.Env):
    """Counts its steps; pays for the action as sent; lasts as long as its seed says."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, lengths=(3,), terminal=True):
        self.lengths, self.terminal, self.episode = lengths, terminal, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.seed = self.seed if seed is None else seed
        self.t, self.heard = 0, 0.0
        return self._see(), {}

    def step(self, action):
        self.t, self.heard = self.t + 1, float(action[0])
        over = self.t == self.lengths[self.episode % len(self.lengths)]
        return self._see(), self.heard + 10 * self.t, over and self.terminal, over, {}

    def _see(self):
        return np.array([self.t, self.heard, self.episode], np.float32)


class Numbered(Policy):
    """Its k-th action is k/100, in all rows; it notes what it was shown."""

    def __init__(self, gain=0.01):
        self.gain, self.shown = gain, []

    def start(self, seeds):
        return {"k": np.zeros(len(seeds), np.int64), "seed": np.array(seeds)}

    def act(self, step, carry):
        self.shown.append({k: v.copy() for k, v in step.items()})
        k = carry["k"]
        return (self.gain * k[:, None]).astype(np.float32), carry | {"k": k + 1}


def make(*lengths, **options):
    return SyncVectorEnv([lambda x=x: Counting(x, **options) for x in lengths])


def stack(steps):
    return {k: np.stack([s[k] for s in steps]) for k in steps[0]}


def reward_answers_action(steps):
    """Whether each reward is that of the action of the step before, and 0 where there is none."""
    action, t = steps["action"][:-1, :, 0], steps["observation"][1:, :, 0]
    paid = np.where(steps["first"][1:], 0, action + 10 * t)
    idle = ~steps["valid"][1:]
    return np.allclose(np.where(idle, 0, steps["reward"][1:] - paid), 0, atol=1e-5)


# ---- the record


def test_a_step_holds_what_arriving_there_paid_and_what_was_chosen_there():
    steps = stack(
        [s for s, _ in zip(rollout(Counting([3]), Numbered(), 0), range(9), strict=False)]
    )
    assert steps["observation"][:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert steps["first"][:, 0].tolist() == [True, False, False, False] * 2 + [True]
    assert steps["last"][:, 0].tolist() == [False, False, False, True] * 2 + [False]
    assert steps["terminal"][:, 0].tolist() == steps["last"][:, 0].tolist()
    assert steps["valid"].all()
    # The action at a last step (k = 3, 7) reaches no world.
    expected = [0, 10.00, 20.01, 30.02, 0, 10.04, 20.05, 30.06, 0]
    np.testing.assert_allclose(steps["reward"][:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(steps["action"][:, 0, 0], np.arange(9) / 100, rtol=1e-6)
    np.testing.assert_allclose(steps["observation"][1:4, 0, 1], [0, 0.01, 0.02], rtol=1e-6)
    assert steps["reward"].dtype == steps["action"].dtype == np.float32
    assert steps["time"].dtype == np.float64
    assert all(steps[k].dtype == bool for k in ("first", "last", "terminal", "valid"))
    assert reward_answers_action(steps)


def test_a_shift_by_one_would_be_seen():
    steps = stack(
        [s for s, _ in zip(rollout(make([3], [5]), Numbered(), 0), range(20), strict=False)]
    )
    assert reward_answers_action(steps)
    for key in ("reward", "action"):
        for shift in (1, -1):
            assert not reward_answers_action(steps | {key: np.roll(steps[key], shift, 0)})


class Generous(gym.vector.VectorWrapper):
    """Pays for the step that only begins an episode, as some worlds do."""

    def step(self, actions):
        obs, reward, *rest = self.env.step(actions)
        return obs, np.where(obs[:, 0] == 0, 99.0, reward), *rest


def test_what_a_world_pays_for_beginning_is_nobodys():
    loop = rollout(Generous(make([2], [3])), Numbered(), 0)
    steps = stack([s for s, _ in zip(loop, range(20), strict=False)])
    assert steps["first"].sum() > 8 and not steps["reward"][steps["first"]].any()
    assert reward_answers_action(steps)


def test_an_end_by_the_clock_is_last_and_not_terminal():
    world = gym.wrappers.TimeLimit(Counting([9]), 4)
    steps = stack([s for s, _ in zip(rollout(world, Numbered(), 0), range(11), strict=False)])
    assert np.flatnonzero(steps["last"][:, 0]).tolist() == [4, 9]
    assert not steps["terminal"].any() and steps["first"][5, 0]


def test_rows_end_each_in_their_own_time():
    steps = stack(
        [s for s, _ in zip(rollout(make([2], [3], [5]), Numbered(), 0), range(40), strict=False)]
    )
    for i, length in enumerate((2, 3, 5)):
        firsts = np.flatnonzero(steps["first"][:, i])
        assert np.diff(firsts).tolist() == [length + 1] * (len(firsts) - 1)
        assert np.array_equal(steps["last"][:-1, i], steps["first"][1:, i])
    assert reward_answers_action(steps)


def test_a_policy_sees_what_is_recorded_but_the_action():
    policy = Numbered()
    for step, _ in zip(rollout(make([2], [3]), policy, 0), range(9), strict=False):
        shown = policy.shown[-1]
        assert shown.keys() == step.keys() - {"action"}
        assert all(np.array_equal(shown[k], step[k]) for k in shown)


def test_the_action_recorded_is_the_one_applied():
    steps = stack(
        [s for s, _ in zip(rollout(Counting([9]), Numbered(0.4), 0), range(6), strict=False)]
    )
    np.testing.assert_allclose(steps["action"][:, 0, 0], [0, 0.4, 0.8, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(steps["observation"][1:, 0, 1], [0, 0.4, 0.8, 1, 1], rtol=1e-6)


def test_an_action_that_is_no_number_is_refused_before_it_is_applied():
    with pytest.raises(ValueError, match="Numbered chose an action that is not finite"):
        for _ in rollout(Counting([9]), Numbered(np.nan), 0):
            pass


def test_steps_that_were_given_out_do_not_change():
    loop = rollout(make([2], [3]), Numbered(), 0)
    kept = [next(loop) for _ in range(3)]
    copies = [{k: v.copy() for k, v in s.items()} for s in kept]
    for _ in range(6):
        next(loop)
    for a, b in zip(kept, copies, strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in b)


# ---- quotas


@pytest.mark.parametrize("quota", [1, 2, 3])
def test_every_row_gives_its_quota_and_is_idle_after_it(quota):
    lengths = ([2], [3, 6], [7])
    steps = stack(list(rollout(make(*lengths), Numbered(), 0, episodes_per_row=quota)))
    assert steps["last"].sum(0).tolist() == [quota] * 3
    assert steps["first"].sum(0).tolist() == [quota] * 3
    assert len(steps["last"]) == 8 * quota  # as long as the longest row takes, not longer
    for i in range(3):
        end = np.flatnonzero(steps["last"][:, i])[-1]
        assert steps["valid"][: end + 1, i].all() and not steps["valid"][end + 1 :, i].any()
        for key in ("first", "last", "terminal", "reward"):
            assert not steps[key][end + 1 :, i].any(), key
    assert reward_answers_action(steps)


def test_short_episodes_are_not_favoured():
    """With a quota per row, long episodes have their share; the first N finishers would not."""
    lengths = [[2], [20]]
    steps = stack(list(rollout(make(*lengths), Numbered(), 0, episodes_per_row=3)))
    assert steps["last"].sum(0).tolist() == [3, 3]


# ---- seeds


class Echo(Counting):
    """Shows its seed."""

    def _see(self):
        return np.array([self.seed, 0, self.episode], np.float32)


def seeds_seen(seed, n=3):
    step = next(rollout(SyncVectorEnv([lambda: Echo([3])] * n), Numbered(), seed))
    return step["observation"][:, 0].tolist()


def test_rows_have_the_seeds_that_are_asked_for():
    assert seeds_seen(7) == [7, 8, 9]
    assert seeds_seen([5, 1, 3]) == [5, 1, 3]
    policy = Numbered()
    loop = rollout(make([3], [3]), policy, 4)
    next(loop)
    assert loop.seeds.tolist() == [4, 5] and loop._carry["seed"].tolist() == [4, 5]


def test_without_a_seed_each_loop_has_others():
    loops = [rollout(make([3], [3]), Numbered()) for _ in range(2)]
    seeds = {s for loop in loops for s in loop.seeds.tolist()}
    assert len(seeds) == 4


@pytest.mark.parametrize("seed", [-1, [1, 2], [1, 2, -3], [[1, 2, 3]]])
def test_seeds_that_are_none_are_refused(seed):
    with pytest.raises(ValueError, match="seed is an int >= 0 or 3 of them"):
        rollout(make([3], [3], [3]), Numbered(), seed)


# ---- worlds of others


def test_a_world_of_gymnasiums_is_one_row():
    world = gym.make("Pendulum-v1", max_episode_steps=20)
    loop = rollout(world, Random(1), seed=3, episodes_per_row=2)
    steps = stack(list(loop))
    assert steps["observation"].shape == (42, 1, 3) and steps["observation"].dtype == np.float32
    assert steps["last"].sum() == 2 and not steps["terminal"].any()
    # the same by hand
    hand = gym.make("Pendulum-v1", max_episode_steps=20)
    obs, _ = hand.reset(seed=3)
    for t in range(20):
        assert np.array_equal(steps["observation"][t, 0], obs)
        obs, reward, *_ = hand.step(steps["action"][t, 0])
        assert steps["reward"][t + 1, 0] == np.float32(reward)
    assert np.array_equal(steps["observation"][20, 0], obs)
    np.testing.assert_allclose(np.diff(steps["time"][:21, 0]), 1 / world.metadata["render_fps"])


def test_our_env_of_one_row_gives_the_steps_of_the_batch():
    one = gym.make("umwelten/Reach-v0", labels=True, physics=True, max_episode_steps=9)
    many = BatchEnv("Reach", 1, labels=True, physics=True, max_episode_steps=9)
    pairs = zip(*(rollout(e, Random(4), 5, episodes_per_row=2) for e in (one, many)), strict=True)
    for a, b in pairs:
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode):
    with pytest.raises(ValueError, match="needs autoreset mode NEXT_STEP, the world has"):
        rollout(BatchEnv("Reach", 2, autoreset_mode=mode), Random(4))
    with pytest.raises(ValueError, match="NEXT_STEP"):
        rollout(SyncVectorEnv([Counting], autoreset_mode=mode), Random(1))


def test_actions_that_are_no_box_are_refused():
    class Buttons(Counting):
        action_space = Discrete(3)

    with pytest.raises(ValueError, match=r"Box.*Discrete"):
        rollout(Buttons(), Random(1))


# ---- faults, truths


def test_a_step_where_physics_failed_is_not_valid_and_closes_its_episode():
    env = BatchEnv("Reach", 3)
    loop = rollout(env, Random(4), 0)
    steps = [next(loop) for _ in range(4)]
    env.sim.qvel[1, 0] = np.nan
    steps = stack(steps + [next(loop) for _ in range(4)])
    assert np.argwhere(~steps["valid"]).tolist() == [[4, 1]]
    assert steps["last"][4].tolist() == [False, True, False] and steps["terminal"][4, 1]
    assert steps["reward"][4, 1] == 0 and steps["first"][5].tolist() == [False, True, False]
    assert all(np.isfinite(v).all() for v in steps.values())


def test_infos_that_are_truths_become_labels():
    env = BatchEnv("Push", 2, labels=True, physics=True)
    step = next(rollout(env, Random(4), 0))
    assert step["physics"].shape == (2, env.physics().shape[1])
    truths = {"label/subtask", "label/target", "label/contact", "label/success"}
    assert truths < {k for k in step if k.startswith("label/")}
    assert step["label/success"].dtype == bool
    plain = next(rollout(BatchEnv("Push", 2), Random(4), 0))
    assert "physics" not in plain and {k for k in plain if "label" in k} == {"label/success"}


# ---- going on


def policies(name):
    if name == "random":
        return Random(4)
    mind = BatchEnv("Reach", 8, max_episode_steps=-1, nthread=1)
    size = {"horizon": 3, "iterations": 1, "samples": 8, "elites": 4, "proposals": 0}
    planner = MPPI(SimulatorModel(mind), **size)
    return planner if name == "mppi" else Warmup(planner, 4, 9)


def world():
    return BatchEnv("Reach", 2, physics=True, labels=True, max_episode_steps=7)


@pytest.mark.parametrize("name", ["random", "mppi", "warmup"])
@pytest.mark.parametrize("after", [1, 6, 8, 11])
def test_a_saved_loop_goes_on_bit_for_bit_elsewhere(name, after, tmp_path):
    loop = rollout(world(), policies(name), 3, episodes_per_row=3)
    for _ in range(after):
        next(loop)
    path = checkpoint.save(tmp_path, 0, {}, loop.save(), {})
    expected = list(loop)
    assert expected
    other = rollout(world(), policies(name), 999, episodes_per_row=3)
    other.load(checkpoint.load(path)[1])
    found = list(other)
    assert len(found) == len(expected)
    for a, b in zip(expected, found, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype and a[key].tobytes() == b[key].tobytes(), key
    whole, parts = loop.save(), other.save()
    assert all(np.array_equal(whole[k], parts[k]) for k in whole) and whole.keys() == parts.keys()


def test_what_was_saved_does_not_follow_the_loop():
    loop = rollout(world(), Random(4), 3)
    for _ in range(5):
        next(loop)
    saved = loop.save()
    before = {k: v.copy() for k, v in saved.items()}
    for _ in range(9):
        next(loop)
    assert all(np.array_equal(saved[k], before[k]) for k in before)


def test_a_loop_that_has_not_begun_is_nothing_to_save():
    loop = rollout(world(), Random(4), 3)
    assert loop.save() == {}
    loop.load({})
    assert next(loop)["first"].all()


def test_a_loop_of_another_world_is_refused():
    loop = rollout(world(), Random(4), 3)
    next(loop)
    with pytest.raises(ValueError, match="another model"):
        rollout(BatchEnv("Push", 2), Random(4), 3).load(loop.save())


def test_a_world_that_cannot_be_saved_says_so():
    loop = rollout(Counting([3]), Numbered(), 0)
    next(loop)
    with pytest.raises(
        TypeError, match=r"SyncVectorEnv.* cannot be saved; loops over a BatchEnv can"
    ):
        loop.save()
