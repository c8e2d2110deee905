"""Stretch: its tool is where its joints say, its base carries it, its telescopes move alike."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import scene, yard
from umwelten.robots import stretch, wheels


@pytest.fixture(scope="module")
def model():
    s = stretch.spec()
    scene.stage(s, 1, 0.0, (0, 0, 3), (0, 0, -1))
    return yard.settle(s, stretch.home(), stretch.hold()).compile()


def at_home(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    return data


def settle(model, data, seconds):
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)


def tool(lift, arm, yaw, pitch, down=-1):
    """Where the tool is in the base's frame, in closed form, and the direction of its fingers."""
    wrist = np.array(stretch.LIFT) + stretch.YAW + (0, -arm, lift)
    c, s = np.cos(yaw), np.sin(yaw)
    along = np.array([s * np.cos(pitch), -c * np.cos(pitch), -down * np.sin(pitch)])
    return wrist + stretch.REACH * along, along


def off(model, down=-1):
    """Returns the closed form's largest error over random joints, m."""
    data, rng, worst = mujoco.MjData(model), np.random.default_rng(0), 0.0
    for _ in range(30):
        lift, arm, *wrist = (
            rng.uniform(*stretch.LIMITS[k]) for k in ("lift", "arm", *stretch.WRIST)
        )
        data.qpos[:] = 0
        data.qpos[3] = 1
        for name, q in zip(
            ("lift", *stretch.ARM, *stretch.WRIST), (lift, *[arm / 4] * 4, *wrist), strict=True
        ):
            data.joint(name).qpos = q
        mujoco.mj_kinematics(model, data)
        place, along = tool(lift, arm, wrist[0], wrist[1], down)
        worst = max(worst, np.abs(data.site("tcp").xpos - place).max())
        worst = max(worst, np.abs(data.site("tcp").xmat.reshape(3, 3)[:, 2] - along).max())
    return worst


def test_it_has_the_joints_actuators_and_limits_it_says(model):
    assert [model.actuator(i).name for i in range(model.nu)] == list(stretch.ACTUATORS)
    joints = [model.joint(i).name for i in range(model.njnt)]
    assert joints == ["base", *stretch.JOINTS, "left", "right"]
    assert stretch.home().shape == (model.nq,) and stretch.hold().shape == (model.nu,)
    assert model.nmesh == 0 and (model.body_gravcomp == 0).all()
    for name, limits in stretch.LIMITS.items():
        np.testing.assert_allclose(model.actuator(name).ctrlrange, limits)
        if name != "arm":
            np.testing.assert_allclose(model.joint(name).range, limits)
    # The maker's figures: ranges in m, the wheels' track, a head higher than 1.3 m
    assert stretch.LIMITS["lift"] == (0, 1.10) and stretch.LIMITS["arm"] == (0, 0.52)
    assert wheels.SEPARATION == 0.3153 and wheels.RADIUS == 0.1016 / 2
    data = at_home(model)
    assert data.cam("head").xpos[2] == pytest.approx(1.36, abs=0.03)


def test_the_tool_is_where_the_joints_say(model):
    assert off(model) < 1e-9


def test_a_wrong_sign_of_the_pitch_is_seen(model):
    assert off(model, down=1) > 0.1


def test_it_rests_at_home_gripper_down_and_open(model):
    data = at_home(model)
    before = data.qpos.copy()
    settle(model, data, 1.0)
    assert np.abs(data.qpos - before).max() < 1e-4
    turned = data.site("tcp").xmat.reshape(3, 3)
    np.testing.assert_allclose(turned[:, 2], (0, 0, -1), atol=0.01)
    np.testing.assert_allclose(np.abs(turned[:, 1]), (1, 0, 0), atol=0.01)  # closes along x
    gap = abs(data.geom("left").xpos[0] - data.geom("right").xpos[0])
    assert gap == pytest.approx(2 * stretch.OPENING + 2 * model.geom("left").size[1], abs=2e-3)


def test_its_base_carries_all_of_it(model):
    data = at_home(model)
    settle(model, data, 0.5)
    force, carried = np.empty(6), 0.0
    for k in range(data.ncon):
        mujoco.mj_contactForce(model, data, k, force)
        carried += force[0]
    weight = model.body_subtreemass[model.body("base").id] * 9.81
    assert carried == pytest.approx(weight, rel=1e-3) and 20 < weight / 9.81 < 25


def test_arm_and_lift_reach_their_ends_alike_and_it_does_not_tip(model):
    data = at_home(model)
    for lift, arm in ((1.1, 0.52), (0.1, 0.52), (1.1, 0.0)):  # lower, the fingers meet the ground
        data.actuator("lift").ctrl, data.actuator("arm").ctrl = lift, arm
        settle(model, data, 3.0)
        assert data.joint("lift").qpos[0] == pytest.approx(lift, abs=5e-3)
        extended = np.array([data.joint(name).qpos[0] for name in stretch.ARM])
        np.testing.assert_allclose(extended, arm / 4, atol=2e-3)
        assert data.body("base").xmat[8] > np.cos(np.deg2rad(0.5))


def test_weight_far_out_tips_it_over(model):
    """Negative control: it stands by its balance alone."""
    data = at_home(model)
    data.actuator("arm").ctrl = 0.52
    settle(model, data, 2.0)
    data.xfrc_applied[model.body("palm").id, 2] = -60  # N
    settle(model, data, 1.5)
    assert data.body("base").xmat[8] < np.cos(np.deg2rad(10))


@pytest.mark.parametrize("v, w", [(0.3, 0), (-0.3, 0), (0, 1), (0.2, -0.8)])
def test_it_drives_as_commanded(model, v, w):
    data, lever = at_home(model), wheels.SEPARATION / 2
    data.ctrl[:2] = (v - w * lever) / wheels.RADIUS, (v + w * lever) / wheels.RADIUS
    settle(model, data, 1.0)
    long, turned = 0.0, 0.0
    for _ in range(200):
        before = data.qpos[:7].copy()
        mujoco.mj_step(model, data)
        long += np.linalg.norm(data.qpos[:2] - before[:2])
        now, was = (2 * np.arctan2(q[6], q[3]) for q in (data.qpos, before))
        turned += (now - was + np.pi) % (2 * np.pi) - np.pi
    assert long == pytest.approx(abs(v), rel=0.01, abs=2e-3)
    assert turned == pytest.approx(w, rel=0.01, abs=2e-3)
