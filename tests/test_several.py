"""Several worlds side by side: each row is that of its own world, padded; resumed and scored."""

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random, Replay
from umwelten.envs.env import BatchEnv
from umwelten.envs.several import Several
from umwelten.rollout import rollout
from umwelten.score import judge, judge_each, numbers

TASKS = ("CartpoleBalance", "CupCatch", "Reach")


def world(task, n=2, **more):
    return BatchEnv(task, n, **{"nthread": 1, "action_repeat": 5} | more)


def together(*rows, **more):
    return Several([world(task, n, **more) for task, n in zip(TASKS, rows, strict=False)])


def equal(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def test_a_row_is_bit_for_bit_that_of_its_own_world():
    """Episodes of 200, 200 and 10 decisions: the third world begins anew several times."""
    env, rng = together(1, 2, 2), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (25, 5, 4)).astype(np.float32)
    obs, info = env.reset(seed=[3, 4, 5, 6, 7])
    seen = [(obs, np.zeros(5), np.zeros(5, bool), np.zeros(5, bool), info)]
    seen += [env.step(a) for a in actions]
    assert sum(x[3].sum() for x in seen) > 2
    for k, (task, rows) in enumerate(zip(TASKS, ([0], [1, 2], [3, 4]), strict=True)):
        alone = world(task, len(rows))
        nu, keys = alone.single_action_space.shape[0], sorted(env.sides[k].keys)
        obs, info = alone.reset(seed=[3 + i for i in rows])
        own = [(obs, np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), info)]
        own += [alone.step(a[rows, :nu]) for a in actions]
        for ours, theirs in zip(seen, own, strict=True):
            vector = np.concatenate([theirs[0][key] for key in keys], 1)
            assert np.array_equal(ours[0]["vector"][rows, : vector.shape[1]], vector)
            assert not ours[0]["vector"][rows, vector.shape[1] :].any()
            assert (ours[0]["task"][rows] == k).all()
            words = theirs[0].get("instruction", np.zeros((len(rows), 128), np.uint8))
            assert np.array_equal(ours[0]["instruction"][rows], words)
            for a, b in zip(ours[1:4], theirs[1:4], strict=True):
                assert np.array_equal(a[rows], b[: len(rows)])
            assert np.array_equal(ours[4]["time"][rows], theirs[4]["time"])
            assert np.array_equal(ours[4]["success"][rows], theirs[4]["success"])
    assert env.observation_space.contains({k: seen[0][0][k] for k in env.observation_space.keys()})


def test_components_that_a_body_lacks_do_nothing_and_are_recorded_as_nothing():
    one, two = together(1, 1, 1), together(1, 1, 1)
    one.reset(seed=0)
    two.reset(seed=0)
    action = np.full((3, 4), 0.5, np.float32)
    wild = np.where(one.action_space.high > 0, 0.5, -1.0)
    assert equal(one.step(action)[0], two.step(wild)[0])
    real = action * np.array([[-1.0], [1.0], [1.0]])
    assert not equal(one.step(real)[0], two.step(action)[0])
    for step, _ in zip(rollout(one, Random(4), 0), range(3), strict=False):
        assert (step["action"] != 0).sum(1).tolist() == [1, 2, 4]


def test_a_loop_over_several_worlds_goes_on_where_it_was_saved():
    one = rollout(together(2, 1, 1), Random(4), 5)
    for _ in range(14):  # past an end of the third world
        next(one)
    saved = one.save()
    two = rollout(together(2, 1, 1), Random(4), 9)
    two.load(saved)
    for _ in range(12):
        assert equal(next(one), next(two))
    with pytest.raises(ValueError, match="of other tasks, models or rows"):
        rollout(together(1, 1, 1), Random(4), 5).load(saved)


def test_each_task_is_scored_as_it_would_be_alone():
    env, still = together(2, 2, action_repeat=50), np.zeros((1, 2), np.float32)
    found = judge_each(env, Replay(still), 4, seed=3)
    assert list(found) == ["CartpoleBalance", "CupCatch"]
    for task, score in found.items():
        alone = world(task, 2, action_repeat=50)
        own = judge(alone, Replay(still[:, : alone.single_action_space.shape[0]]), 4, seed=3)
        assert np.array_equal(own.returns, score.returns)
        assert np.array_equal(own.success, score.success)
    logged = numbers(found)
    means = {task: float(score.returns.mean()) for task, score in found.items()}
    assert logged["return"] == pytest.approx(sum(means.values()) / 2)
    assert {k: logged[f"return/{k}"] for k in means} == means and logged["episodes"] == 4
    one = numbers(judge_each(world("CupCatch", 2, action_repeat=50), Replay(still), 2))
    assert one.keys() == {"policy", "episodes", "success", "return"}


def test_the_world_of_one_task_keeps_its_id_its_padding_and_its_expert():
    env = Several([world("Push", 1, action_repeat=1), world("Reach", 2, action_repeat=1)])
    alone = env.alone("Reach")
    assert alone.single_observation_space == env.single_observation_space
    assert alone.single_action_space == env.single_action_space and alone.names == env.names
    assert alone.num_envs == 2 and alone.reset(seed=0)[0]["task"].tolist() == [1, 1]
    assert judge(alone, Expert(alone), 2).success.all()
    env.reset(seed=0)
    assert env.expert().shape == (3, env.single_action_space.shape[0])
    assert [bool(words) for words in env.words()] == [True] * 3


def test_what_cannot_be_side_by_side_is_refused():
    with pytest.raises(ValueError, match="none twice"):
        Several([world("Reach"), world("Reach")])
    with pytest.raises(ValueError, match="shows 'depth/front'"):
        Several([world("Reach", 1, cameras=("front",)), world("CupCatch")])
    with pytest.raises(ValueError, match="build it with NEXT_STEP"):
        Several([world("Reach", 1, autoreset_mode="SameStep")])
    with pytest.raises(ValueError, match="leave reset_mask out"):
        together(1, 1).reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ValueError, match="actions have shape"):
        together(1, 1).step(np.zeros((2, 1), np.float32))
    env = together(1, 1)
    with pytest.raises(ValueError, match="none of"):
        Several([world("Reach")], env.sides)
