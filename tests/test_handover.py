"""Handover and its two arms: each its own half of action and senses; only together they do it."""

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import pair, scene
from umwelten.envs.env import BatchEnv
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

STEPS = 149


def run(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def test_the_script_does_it_and_chance_does_not():
    env = BatchEnv("Handover", 40, labels=True)
    episode = run(env, Expert(env))
    assert episode["label/success"][-1].mean() >= 0.95
    assert set(np.unique(episode["label/subtask"])) == set(range(5))
    chance = Random(env.single_action_space.shape[0])
    assert run(env, chance)["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("still", [0, 1])
def test_one_arm_alone_does_not_do_it(still):
    env = BatchEnv("Handover", 10)
    env.reset(seed=HELD_OUT)
    half = env.action_space.shape[1] // 2
    for _ in range(STEPS):
        action = env.expert()
        action[:, still * half : (still + 1) * half - 1] = 0
        env.step(action)
    assert not env.task.success(env.sim).any()


def test_bars_and_discs_are_out_of_the_other_arms_reach():
    env = BatchEnv("Handover", 100)
    env.reset(seed=0)
    (left, _), (_, right) = pair.bounds(0), pair.bounds(1)
    bars, discs = scene.objects(env.sim)[0], env.sim.mocap_pos[:, 2:4]
    assert (bars[:, :, 1] - 0.055 > right[1] + 0.03).all()  # where the right arm would hold it
    assert (discs[:, :, 1] < left[1] - 0.03).all()


def test_the_bar_changes_hands_in_the_air():
    env = BatchEnv("Handover", 10, labels=True)
    env.reset(seed=HELD_OUT)
    both = np.zeros(10, bool)
    for _ in range(STEPS):
        env.step(env.expert())
        bar, _, _, touch, *_ = env.task._judge(env.sim)
        both |= touch.all((1, 2)) & (bar[:, 2] > 0.1)
    assert both[env.task.success(env.sim)].all() and both.mean() >= 0.9


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("axis", range(3))
def test_a_step_moves_one_arms_tool_along_the_worlds_axis(side, axis):
    env = BatchEnv("Handover", 2)
    env.reset(seed=0)
    prefix = pair.ARMS[side]
    still = env.action_spec.encode(**{"gripper": 0.04, "b/gripper": 0.04})
    move = env.action_spec.encode(
        **{"gripper": 0.04, "b/gripper": 0.04, prefix + "xyz"[axis]: 0.01}
    )
    for _ in range(3):
        env.step(np.tile(still, (2, 1)))
    before = pair.tools(env.sim).copy()
    for action in (move, still, still, still):
        env.step(np.tile(action, (2, 1)))
    wanted = np.zeros((2, 2, 3))
    wanted[:, side, axis] = 0.01
    np.testing.assert_allclose(pair.tools(env.sim) - before, wanted, atol=3e-4)


def test_tools_look_down_with_jaws_across_the_way_their_arms_look():
    env = BatchEnv("Handover", 4)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(10):
        env.step(rng.uniform(-1, 1, env.action_space.shape))
    for _ in range(5):
        env.step(np.zeros(env.action_space.shape))
    for prefix, y in zip(pair.ARMS, (1, -1), strict=True):
        turn = env.sim.turn(prefix + "tcp").reshape(-1, 3, 3)
        assert (turn[:, 2, 2] < -0.999).all()
        np.testing.assert_allclose(turn[:, 0, 1], y, atol=2e-3)  # the bases' y, along the world's x


def test_senses_and_actions_are_two_equal_halves():
    env = BatchEnv("Handover", 3)
    obs, _ = env.reset(seed=0)
    names = [c.name for c in env.action_spec.components]
    half = len(names) // 2
    assert [f"b/{n}" for n in names[:half]] == names[half:]
    assert {c.frame for c in env.action_spec.components} == {"world", "tool"}
    for k, prefix in enumerate(pair.ARMS):
        own = scene.proprio(env.sim, env.task.body, prefix)
        width = own.shape[1]
        np.testing.assert_allclose(
            obs["proprio"][:, k * width : (k + 1) * width], own.astype(np.float32)
        )
        seen = obs["objects"][:, 33 + 6 * k : 39 + 6 * k].reshape(3, 2, 3)
        bars = obs["objects"][:, :24].reshape(3, 2, 12)[..., :3]
        tip = env.sim.site(prefix + "tcp")[:, None]
        np.testing.assert_allclose(seen, bars - tip, atol=1e-6)
    assert obs["proprio"].shape[1] == 2 * width and obs["objects"].shape[1] == 45


def test_arms_meet_each_other_and_neither_meets_itself():
    model = BatchEnv("Handover", 1).model
    sides = ([], [])
    for g in range(model.ngeom):
        root = model.body(model.body_rootid[model.geom_bodyid[g]]).name
        if root in ("base", "b/base") and model.geom_contype[g]:
            sides[root == "b/base"].append((model.geom_contype[g], model.geom_conaffinity[g]))
    assert all(sides)
    for one in (0, 1):
        for other in (0, 1):
            meet = {bool(a[0] & b[1] | b[0] & a[1]) for a in sides[one] for b in sides[other]}
            assert meet == {one != other}


@pytest.mark.parametrize("column", [0, 1])
def test_the_other_bar_or_the_other_disc_is_no_success(column):
    env = BatchEnv("Handover", 10)
    env.reset(seed=HELD_OUT)
    env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
    for _ in range(STEPS):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.9
    env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
    assert not env.task.success(env.sim).any()
