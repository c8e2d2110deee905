"""Lift and Stack: what counts is the named thing's height, and a tower that stands by itself."""

import numpy as np
import pytest

from umwelten.envs import scene
from umwelten.envs.env import BatchEnv
from umwelten.score import HELD_OUT

THINGS = ("cube", "cylinder", "ball")
CUBES = ("cube", "cube2", "cube3", "cube4")


def after(name, n, steps=None, seed=HELD_OUT):
    """A world in which the expert has acted for so many steps, by default all but the last."""
    env = BatchEnv(name, n, labels=True)
    env.reset(seed=seed)
    for _ in range(steps or round(env.task.time_limit / env.task.control_dt) - 1):
        env.step(env.expert())
    return env


def places(env):
    return scene.objects(env.sim)[0]


def moved(env, names, which, to):
    """Puts the object names[which[i]] of each row i elsewhere (m), by hand."""
    for i, k in enumerate(which):
        env.sim.joint(names[k])[i, :3] = to[i]
    env.sim.forward(np.arange(env.num_envs))


def test_lifted_is_ten_centimetres_up_between_the_fingers():
    env = BatchEnv("Lift", 12, labels=True)
    env.reset(seed=HELD_OUT)
    start = places(env).copy()
    which = env.sim.userdata[:, 0].astype(int)
    seen = set()
    for _ in range(40):
        _, reward, _, _, info = env.step(env.expert())
        rise = places(env)[np.arange(12), which, 2] - start[np.arange(12), which, 2]
        assert not info["success"][rise < 0.099].any()
        assert (info["success"] == (reward > 0.99)).all()
        seen |= set(info["success"].tolist())
    assert seen == {True, False} and (rise > 0.1).all()
    for _ in range(6):  # let go: it falls
        env.step(np.tile(env.action_spec.encode(gripper=0.04), (12, 1)))
    assert not env.task.success(env.sim).any()


def test_a_thing_in_the_air_that_nobody_holds_is_not_lifted():
    env = BatchEnv("Lift", 4)
    env.reset(seed=0)
    which = env.sim.userdata[:, 0].astype(int)
    moved(env, THINGS, which, places(env)[np.arange(4), which] + [0, 0, 0.2])
    assert not env.task.success(env.sim).any()
    assert env.task.reward(env.sim).max() < 0.5


def test_lifting_another_thing_is_not_what_was_asked():
    env = after("Lift", 12)
    assert env.task.success(env.sim).all()
    env.sim.userdata[:, 0] = (env.sim.userdata[:, 0] + 1) % 3
    assert not env.task.success(env.sim).any() and env.task.reward(env.sim).max() < 0.5


def test_a_tower_stands_by_itself_and_not_once_it_is_nudged():
    env = after("Stack", 12)
    assert env.task.success(env.sim).all()
    which, base = env.sim.userdata[:, :2].astype(int).T
    rows = np.arange(12)
    offset = places(env)[rows, which] - places(env)[rows, 2 + base]
    np.testing.assert_allclose(offset[:, 2], 0.04, atol=2e-3)
    assert np.hypot(*offset[:, :2].T).max() < 0.02
    still = np.tile(env.action_spec.encode(gripper=0.04), (12, 1))
    v = env.sim.once("free", lambda: None)[1]
    speed = np.zeros((12, 4, 6))
    speed[rows, which, 0] = 0.6  # m/s
    env.sim.qvel[:, v] = speed.reshape(12, -1)
    env.sim.forward(rows)
    assert not env.task.success(env.sim).any()  # it is not still, though where it was
    for _ in range(8):
        env.step(still)
    fell = places(env)[rows, which, 2] < 0.03
    assert fell.mean() > 0.8 and not env.task.success(env.sim)[fell].any()


@pytest.mark.parametrize(
    "offset, holds",
    [
        ((0.0, 0.0, 0.04), True),
        ((0.015, 0.0, 0.04), True),
        ((0.025, 0.0, 0.04), False),  # its middle is over the edge
        ((0.0, 0.0, 0.06), False),  # in the air
        ((0.0, 0.045, 0.0), False),  # beside it
    ],
)
def test_stacked_is_decided_by_where_the_cubes_are(offset, holds):
    env = BatchEnv("Stack", 6)
    env.reset(seed=1)
    which, base = env.sim.userdata[:, :2].astype(int).T
    moved(env, CUBES, which, places(env)[np.arange(6), 2 + base] + offset)
    assert (env.task.success(env.sim) == holds).all()
    if holds:  # a tower of the wrong cubes, or upside down, is none
        for column in (0, 1):
            env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
            assert not env.task.success(env.sim).any()
            env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
