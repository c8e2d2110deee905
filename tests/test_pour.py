"""Pour: grains fall by gravity, none is lost, and those in the named bowl are counted."""

import re

import mujoco
import numpy as np
import pytest

from umwelten.envs import pour
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.score import HELD_OUT

BOWLS = ("bowl", "bowl2")
BESIDE = np.array([0.30, 0.0, 0.005])


@pytest.fixture(scope="module")
def poured():
    """A world whose expert has poured, and the grains' places `(t, n, grains, 3)` meanwhile."""
    env = BatchEnv("Pour", 6, labels=True)
    env.reset(seed=HELD_OUT)
    way, labels = [], []
    for _ in range(60):
        *_, info = env.step(env.expert())
        way.append(grains(env).copy())
        labels.append(info["label/subtask"])
    return env, np.array(way), np.array(labels)


def grains(env):
    return pour._grains(env.sim)


def drop(env, i, places):
    """Puts row i's grains at places (m)."""
    first = int(env.model.joint(env.model.body("grain0").jntadr[0]).qposadr[0])
    env.sim.qpos[i, first : first + 3 * pour._GRAINS] = np.broadcast_to(places, (20, 3)).ravel()


def test_the_coordinates_of_grains_are_their_places():
    env = BatchEnv("Pour", 2)
    env.reset(seed=0)
    for i in range(2):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(env.sim.batch.get_model(i), data)
        truth = [data.body(f"grain{k}").xpos for k in range(20)]
        np.testing.assert_allclose(grains(env)[i], truth, atol=1e-12)
    inside = grains(env) - env.sim.joint("cup")[:, None, :3]
    assert np.hypot(inside[..., 0], inside[..., 1]).max() < pour._CUP - pour._GRAIN
    assert np.abs(inside[..., 2]).max() < pour._TALL / 2  # below the rim


def test_pouring_loses_no_grain_and_moves_none_into_another(poured):
    env, way, _ = poured
    assert np.isfinite(way).all() and way.shape[2] == 20
    assert env.task.success(env.sim).all()
    end = way[-1]
    gaps = np.linalg.norm(end[:, :, None] - end[:, None], axis=3) + np.eye(20)
    assert gaps.min() > 1.6 * pour._GRAIN  # round and hard
    on_table = (end[..., 2] > 0.003) & (end[..., 2] < 0.05)
    assert on_table.mean() > 0.97 and (np.ptp(way[-1] - way[-2], axis=(1, 2)) < 0.05).all()


def test_grains_fall_from_the_tilted_cup_and_not_before(poured):
    env, way, labels = poured
    assert {0, 1, 2, 3, 4} == set(labels.ravel().tolist())
    for i in range(6):
        first = int(np.argmax(labels[:, i] == 3))
        up = way[first - 3 : first, i, :, 2]
        assert (labels[:first, i] < 3).all() and (up > 0.06).sum(1).min() >= 17
    assert np.degrees(np.arccos(-env.sim.turn("tcp")[:, 8])).min() > 95
    seen = np.diff(way[..., 2], axis=0) / 0.1
    assert seen.min() > -np.sqrt(2 * 9.81 * 0.3)  # free fall from where cups are, at most


@pytest.mark.parametrize("robot", pour.Pour.robots[1:])
def test_every_arm_pours_and_does_not_come_back_upright_before(robot):
    env = BatchEnv("Pour", 4, robot=robot)
    env.reset(seed=HELD_OUT)
    lean = []
    for _ in range(95 if robot == "so101" else 65):
        env.step(env.expert())
        lean.append(np.arccos(np.clip(-env.sim.turn("tcp")[:, 8], -1, 1)))
    assert env.task.success(env.sim).mean() >= 0.75
    lean = np.array(lean)
    begun = np.maximum.accumulate(lean > 0.5)
    assert begun[-1].all() and lean[begun].min() > 0.4


def test_the_speed_of_a_falling_grain_is_gravitys_with_a_little_drag():
    env = BatchEnv("Pour", 1)
    env.reset(seed=0)
    model, data = env.sim.batch.get_model(0), env.sim.batch.get_data(0)
    joint = model.joint(model.body("grain0").jntadr[0] + 2)
    data.qpos[joint.qposadr[0] - 2 : joint.qposadr[0] + 1] = 0.55, 0.35, 0.4
    for _ in range(40):
        mujoco.mj_step(model, data)
    t, rate = 40 * model.opt.timestep, 0.003 / 0.001  # 1/s
    assert data.qvel[joint.dofadr[0]] == pytest.approx(-9.81 / rate * (1 - np.exp(-rate * t)), 0.02)


def test_success_counts_the_grains_in_the_named_bowl():
    n = 10
    env = BatchEnv("Pour", n)
    _, info = env.reset(seed=3)
    rng, rgba = np.random.default_rng(0), env.sim.model_field("geom_rgba")
    true = 0
    for _ in range(20):
        truth = []
        for i, text in enumerate(info["instruction"]):
            colour = re.search(r"the (\w+) (?:bowl|one)", text).group(1)
            looks = [np.abs(RGBA - rgba[i, env.model.geom(b).id]).max(1).argmin() for b in BOWLS]
            named = [NAMES[k] for k in looks].index(colour)
            count, which = int(rng.integers(14, 21)), int(rng.integers(2))
            gap = np.zeros((20, 3))
            gap[:, 2], gap[:, :2] = 0.02, rng.uniform(-0.035, 0.035, (20, 2))
            places = env.sim.mocap_pos[i, 1 + which] + gap
            places[count:] = BESIDE
            drop(env, i, places)
            truth.append(which == named and count >= 18)
        env.sim.forward(np.arange(n))
        assert env.task.success(env.sim).tolist() == truth
        reward = env.task.reward(env.sim)
        assert ((reward > 0.99) == truth).all() and reward.min() >= 0
        true += sum(truth)
    assert 20 < true < 180


def test_grains_above_the_bowl_or_in_a_cup_that_stands_in_it_are_not_poured():
    env = BatchEnv("Pour", 4)
    env.reset(seed=3)
    named = env.sim.userdata[:, 0].astype(int)
    for i, k in enumerate(named):
        drop(env, i, env.sim.mocap_pos[i, 1 + k] + [0, 0, 0.1])
    env.sim.forward(np.arange(4))
    assert not env.task.success(env.sim).any()
    for i, k in enumerate(named):
        env.sim.joint("cup")[i, :3] = env.sim.mocap_pos[i, 1 + k] + [0, 0, 0.036]
        drop(env, i, env.sim.joint("cup")[i, :3] + pour._settled())
    env.sim.forward(np.arange(4))
    assert not env.task.success(env.sim).any()


def test_the_other_bowl_is_another_job():
    env = BatchEnv("Pour", 5)
    _, info = env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, 0].copy()
    env.sim.userdata[:, 0] = 1 - asked
    said = [env.task.instruction(env.sim, i) for i in range(5)]
    assert not any(a == b for a, b in zip(said, info["instruction"], strict=True))
    for _ in range(60):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.8
    env.sim.userdata[:, 0] = asked
    assert not env.task.success(env.sim).any()


def test_a_tool_that_cannot_tilt_has_no_expert():
    env = BatchEnv("Pour", 1, control="delta_position")
    env.reset(seed=0)
    assert env.task.expert(env.sim) is None
    assert len(BatchEnv("Pour", 1).action_spec) == 7
