"""FetchAndBring: the words decide what is brought where, and the robot does it by its hand."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import scene
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES
from umwelten.envs.splits import SPLITS, split_of
from umwelten.robots import stretch
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

N = 40
STEPS = 249
STILL = {"gripper": stretch.OPENING}


def run(env, policy):
    """The steps of one episode of each row, as `{key: (t, n, ...)}`."""
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def test_the_expert_brings_it_and_rewards_say_so():
    env = BatchEnv("FetchAndBring", N, labels=True)
    episode = run(env, Expert(env))
    success, reward, stage = (episode[k] for k in ("label/success", "reward", "label/subtask"))
    assert success[-1].mean() >= 0.95
    assert (reward[1:][success[1:]] == 1).all() and reward.min() >= 0
    assert reward[1:][~success[1:]].max() < 0.96
    assert np.array_equal(stage == 3, success) and (stage[0] == 0).all()
    assert set(np.unique(stage)) == {0, 1, 2, 3}


def test_chance_does_not_bring_it():
    env = BatchEnv("FetchAndBring", N, labels=True)
    episode = run(env, Random(8))
    assert episode["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("column", [0, 1])
def test_another_word_in_the_same_scene_is_another_deed(column):
    n = 12
    env = BatchEnv("FetchAndBring", n)
    _, info = env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, column].copy()
    before = env.task.observe(env.sim)["objects"].copy()
    env.sim.userdata[:, column] = 1 - asked
    now = [env.task.instruction(env.sim, i) for i in range(n)]
    assert all(a != b for a, b in zip(info["instruction"], now, strict=True))
    assert (env.task.observe(env.sim)["objects"] != before).any(1).all()
    for _ in range(STEPS):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.9
    env.sim.userdata[:, column] = asked
    assert env.task.success(env.sim).mean() <= 0.05


@pytest.mark.parametrize("split", SPLITS[1:])
def test_episodes_are_of_the_split_asked_for(split):
    env = BatchEnv("FetchAndBring", 40, split=split)
    env.reset(seed=0)
    for which, disc, phrase, form, *looks in env.sim.userdata.astype(int).tolist():
        nouns = ("cube", "cylinder", "disc", "disc")
        things = [(NAMES[c], noun) for c, noun in zip(looks, nouns, strict=True)]
        assert split_of(things, [which, 2 + disc], phrase, form) == split


def test_only_the_named_thing_is_moved():
    n = 12
    env = BatchEnv("FetchAndBring", n)
    env.reset(seed=HELD_OUT)
    before = scene.objects(env.sim)[0].copy()
    for _ in range(STEPS):
        env.step(env.expert())
    moved = np.linalg.norm(scene.objects(env.sim)[0] - before, axis=2)
    which = env.sim.userdata[:, 0].astype(int)
    assert moved[np.arange(n), which].min() > 0.5
    assert moved[np.arange(n), 1 - which].max() < 2e-3


def test_a_hand_that_stays_open_brings_nothing():
    """Negative control: it is the grasp that carries."""
    env = BatchEnv("FetchAndBring", 6)
    env.reset(seed=HELD_OUT)
    for _ in range(STEPS):
        action = env.expert()
        action[:, -1] = 1
        env.step(action)
    assert not env.task.success(env.sim).any()


def test_scenes_begin_at_rest_and_apart():
    env = BatchEnv("FetchAndBring", 20)
    env.reset(seed=HELD_OUT)
    sim, model = env.sim, env.model
    things = [model.geom(name).id for name in ("cube", "cylinder")]
    robot = [g for g in range(model.ngeom) if model.geom_contype[g] == 2]
    for i in range(10):
        data = sim.batch.get_data(i)
        mujoco.mj_forward(sim.batch.get_model(i), data)
        assert data.contact.dist.min(initial=0) > -1e-3
        for a in things:
            gaps = [mujoco.mj_geomDistance(model, data, a, b, 0.05, None) for b in robot]
            assert min(gaps) > 0.01
        assert mujoco.mj_geomDistance(model, data, *things, 0.5, None) > 0.2
    before = sim.qpos.copy()
    still = np.tile(env.action_spec.encode(**STILL), (20, 1))
    for _ in range(5):
        env.step(still)
    assert np.abs(sim.qpos - before).max() < 1e-3


def test_actions_are_the_velocities_they_say():
    env = BatchEnv("FetchAndBring", 1)
    names = [c.name for c in env.action_spec.components]
    assert names == ["forward", "turn", "lift", "arm", *stretch.WRIST, "gripper"]
    env.reset(seed=0)
    arm = env.task.control.arm(env.sim)
    start = env.sim.actuator_length[0].copy()
    asked = {"lift": 0.1, "arm": 0.2, "wrist_yaw": 0.5, "wrist_pitch": 0.6, "wrist_roll": -1.0}
    for _ in range(15):
        env.step(env.action_spec.encode(**asked, gripper=0.01)[None])
    for _ in range(10):
        env.step(env.action_spec.encode(gripper=0.01)[None])
    went = (env.sim.actuator_length[0] - start)[arm]
    np.testing.assert_allclose(went, 1.5 * np.array(list(asked.values())), rtol=0.02, atol=3e-3)
    assert env.sim.actuator_length[0, arm.stop] == pytest.approx(0.01, abs=1e-3)
    units = [c.unit for c in env.action_spec.components]
    assert units == ["m/s", "rad/s", "m/s", "m/s", "rad/s", "rad/s", "rad/s", "m"]


def test_what_is_seen_is_seen_from_the_base():
    env = BatchEnv("FetchAndBring", 4)
    obs, _ = env.reset(seed=1)
    for i in range(4):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(env.model, data)
        base = data.body("base")
        which, disc = env.sim.userdata[i, :2].astype(int)
        thing = data.body(("cube", "cylinder")[which]).xpos
        turn = base.xmat.reshape(3, 3)
        np.testing.assert_allclose(obs["objects"][i, :3], (thing - base.xpos) @ turn, atol=1e-3)
        off = (thing - data.site("tcp").xpos) @ turn
        np.testing.assert_allclose(obs["objects"][i, 3:6], off, atol=1e-3)
        spot = (env.sim.mocap_pos[i, disc] - base.xpos) @ turn
        np.testing.assert_allclose(obs["objects"][i, 16:18], spot[:2], atol=1e-3)
        tool = (data.site("tcp").xpos - base.xpos) @ turn
        np.testing.assert_allclose(obs["proprio"][i, -3:], tool, atol=1e-3)


def test_a_row_is_the_same_alone_and_among_others():
    many, one = BatchEnv("FetchAndBring", 5), BatchEnv("FetchAndBring", 1)
    many.reset(seed=[3, 1, 4, 15, 9])
    one.reset(seed=15)
    for _ in range(20):
        a, b = many.step(many.expert())[:2], one.step(one.expert())[:2]
        assert all(np.array_equal(a[0][k][3], b[0][k][0]) for k in b[0]) and a[1][3] == b[1][0]
