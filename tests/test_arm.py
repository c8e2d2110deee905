"""The arm: seven actuators in order, home looks down, servos hold and arrive."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import scene
from umwelten.robots import arm
from umwelten.robots import body as bodies


@pytest.fixture
def model():
    body = bodies.find("arm")
    return scene.finish(scene.tabletop(body, memory=1), body).compile()


def at_home(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    return data


def settle(model, data, seconds):
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)


def test_it_has_the_joints_and_actuators_it_says(model):
    names = [model.actuator(i).name for i in range(model.nu)]
    assert names == list(arm.ACTUATORS) and len(names) == 7
    joints = [model.joint(i).name for i in range(model.njnt)]
    assert joints == [*arm.JOINTS, "left", "right"]
    assert arm.home().shape == (8,) and model.nq == 8
    for name in arm.JOINTS:  # a servo's range is its joint's, and its force is limited
        assert np.array_equal(model.actuator(name).ctrlrange, model.joint(name).range)
        assert model.actuator(name).forcelimited[0]


def test_it_is_made_of_primitives_alone_and_compiles_by_itself():
    model = arm.spec().compile()
    assert model.nmesh == 0 and model.nhfield == 0 and model.nu == 7
    assert (model.body_mass[1:] > 0).all()
    assert model.site("tcp").id >= 0


def test_home_points_down_over_the_table_within_limits(model):
    data = at_home(model)
    turned = data.site("tcp").xmat.reshape(3, 3)
    np.testing.assert_allclose(turned[:, 2], [0, 0, -1], atol=1e-4)
    np.testing.assert_allclose(turned[:, 1], [0, 1, 0], atol=1e-4)  # the jaws open along y
    assert sum(arm.HOME[k] for k in (1, 2, 4)) == pytest.approx(np.pi, abs=1e-4)
    tip = data.site("tcp").xpos
    assert (np.array(scene.LOW) < tip).all() and (tip < np.array(scene.HIGH)).all()
    low, high = model.jnt_range[:6].T
    assert (low < arm.HOME).all() and (arm.HOME < high).all()
    assert data.ncon == 0


def test_servos_hold_home(model):
    data = at_home(model)
    before = data.qpos.copy()
    settle(model, data, 3)
    assert np.abs(data.qpos - before).max() < 1e-3 and np.abs(data.qvel).max() < 1e-3


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("turn", [0.2, -0.2])
def test_servos_arrive_and_settle(model, joint, turn):
    data = at_home(model)
    data.ctrl[joint] += turn
    settle(model, data, 0.6)
    assert abs(data.qpos[joint] - arm.HOME[joint] - turn) < 0.01
    settle(model, data, 1.4)
    goal = np.array(arm.HOME)
    goal[joint] += turn
    np.testing.assert_allclose(data.qpos[:6], goal, atol=2e-3)
    assert np.abs(data.qvel).max() < 1e-3


@pytest.mark.parametrize("travel", [0.0, 0.013, 0.04])
def test_the_jaws_open_to_what_is_commanded_both_alike(model, travel):
    data = at_home(model)
    data.ctrl[6] = travel
    settle(model, data, 1)
    np.testing.assert_allclose(data.qpos[6:8], travel, atol=1e-3)
    gap = data.geom("left").xpos[1] - data.geom("right").xpos[1]
    thick = model.geom("left").size[1]
    assert gap - 2 * thick == pytest.approx(2 * travel + 0.002, abs=2e-3)


def test_gravity_is_carried(model):
    """No actuator works at home: gravity compensation holds every link."""
    data = at_home(model)
    np.testing.assert_allclose(data.qfrc_gravcomp[:8], data.qfrc_bias[:8], atol=1e-9)
    assert np.abs(data.qfrc_bias[1]) > 1  # there is something to hold
