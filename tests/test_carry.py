"""Carry: what a scripted hand does next, by the present alone; its tasks meet their gates."""

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import carry, scene
from umwelten.envs.env import BatchEnv
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

TASKS = ("Lift", "Stack", "Sort", "Tidy", "Arrange", "Sweep")
ROWS = 40


def episode(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


@pytest.mark.parametrize("name", TASKS)
def test_the_expert_does_it_step_by_step_and_is_paid_for_it(name):
    env = BatchEnv(name, ROWS, labels=True)
    seen = episode(env, Expert(env))
    done, reward = seen["label/success"][1:], seen["reward"][1:]
    assert done[-1].mean() >= 0.95
    assert reward[done].min() > 0.99 and reward[~done].max() < 0.96 and reward.min() >= 0
    subtask, last = seen["label/subtask"], len(env.task.subtasks) - 1
    assert (subtask[0] == 0).all() and set(np.unique(subtask)) == set(range(last + 1))
    assert np.array_equal(subtask == last, seen["label/success"])
    # who is further is paid more: on the way, too, the mean reward rises with the subtask
    paid = [reward[subtask[1:] == k].mean() for k in range(last + 1)]
    assert (np.diff(paid) > 0).all()


@pytest.mark.parametrize("name", TASKS)
def test_chance_does_not_do_it(name):
    env = BatchEnv(name, ROWS, labels=True)
    seen = episode(env, Random(env.single_action_space.shape[0]))
    assert seen["label/success"][-1].mean() <= 0.1 and seen["reward"].max() < 0.96


@pytest.mark.parametrize("name", TASKS)
def test_a_sparse_reward_is_success(name):
    env = BatchEnv(name, 4, reward="sparse")
    env.reset(seed=HELD_OUT)
    paid = set()
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        _, reward, _, _, info = env.step(env.expert())
        assert np.array_equal(reward, info["success"])
        paid |= set(reward.tolist())
    assert paid == {0.0, 1.0}


def lying(n):
    """A world of Lift at its start, and where its cubes lie."""
    env = BatchEnv("Lift", n)
    env.reset(seed=0)
    return env, env.sim.joint("cube")[:, :3].copy()


def test_what_a_hand_does_next():
    env, thing = lying(6)
    sim, body, no = env.sim, env.task.body, np.zeros(6, bool)
    goal = thing + np.array([0.05, 0.05, 0])
    place, jaws = carry.move(sim, body, thing, no, goal, no)  # over it, open
    np.testing.assert_allclose(place[:, :2], thing[:, :2])
    assert (place[:, 2] == carry.HOVER).all() and (jaws == 1).all()
    tip = sim.site("tcp").copy()
    for held_at, expected in ((tip, carry.HOVER), (tip - [0, 0, 0.1], None)):
        place, jaws = carry.move(sim, body, held_at, ~no, goal, no)  # in the hand: up, and closed
        assert (jaws == -1).all() and (place[:, 2] >= tip[:, 2] - 0.05).all()
        if expected:
            np.testing.assert_allclose(place[:, :2] - tip[:, :2], goal[:, :2] - held_at[:, :2])
        else:  # not yet high enough to go aside
            np.testing.assert_allclose(place[:, :2], tip[:, :2])
    place, jaws = carry.move(sim, body, goal, ~no, goal, ~no)  # where it shall be: let go
    assert (jaws == 1).all()
    np.testing.assert_allclose(place, tip)


def test_held_is_by_both_fingers_and_still_is_by_speed():
    touch = np.array([[False, False], [True, False], [False, True], [True, True]])
    assert carry.held(touch).tolist() == [False, False, False, True]
    env, _ = lying(3)
    which = np.array([0, 1, 2])
    assert carry.still(env.sim, which).all()
    env.sim.qvel[:, scene._free(env.sim)[1]] = 0.05
    assert not carry.still(env.sim, which).any() and carry.still(env.sim, which, 0.1).all()


def test_things_are_seen_from_the_tool():
    env, thing = lying(3)
    seen = carry.things(env.sim)
    assert seen.shape == (3, 3, 15)
    np.testing.assert_allclose(seen[:, 0, :3], thing)
    np.testing.assert_allclose(seen[:, 0, 3:6], thing - env.sim.site("tcp"))
