"""The rover: it stands still, drives and turns as commanded, and only by its wheels' grip."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import scene
from umwelten.envs.drive import Drive
from umwelten.envs.env import BatchEnv
from umwelten.robots import rover, wheels


def built(friction=1.0):
    s = rover.spec()
    scene.stage(s, 1, 0.0, (0, 0, 3), (0, 0, -1))
    for name in ("floor", *wheels.NAMES):
        s.geom(name).friction = (friction, 0.005, 0.0001)
    model = s.compile()
    return model, mujoco.MjData(model)


def steps(model, data, seconds):
    """Yields after every step."""
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)
        yield


def settle(model, data, seconds=0.5):
    for _ in steps(model, data, seconds):
        pass


def command(data, v, w):
    lever = wheels.SEPARATION / 2
    data.ctrl[:] = (v - w * lever) / wheels.RADIUS, (v + w * lever) / wheels.RADIUS


def yaw(data):
    return 2 * np.arctan2(data.qpos[6], data.qpos[3])


def driven(model, data, v, w, seconds):
    """Returns the way's length and the angle turned, at the base, once it has sped up."""
    command(data, v, w)
    settle(model, data, 1.0)
    long = turned = 0.0
    place, angle = data.qpos[:2].copy(), yaw(data)
    for _ in steps(model, data, seconds):
        long += np.linalg.norm(data.qpos[:2] - place)
        turned += (yaw(data) - angle + np.pi) % (2 * np.pi) - np.pi
        place, angle = data.qpos[:2].copy(), yaw(data)
    return long, turned


def test_it_has_the_parts_it_says():
    model = rover.spec().compile()
    assert [model.actuator(i).name for i in range(model.nu)] == list(rover.ACTUATORS)
    assert [model.joint(i).name for i in range(model.njnt)] == ["base", *rover.JOINTS]
    assert rover.home().shape == (model.nq,) and model.nmesh == 0
    assert model.body_subtreemass[model.body("base").id] == pytest.approx(15.0, abs=0.01)
    assert {model.site(i).name for i in range(model.nsite)} == {"imu", "lidar", "ears"}
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for frame in (data.site("ears").xmat, data.cam("head").xmat):
        right, _, back = frame.reshape(3, 3).T
        np.testing.assert_allclose((right, back), ((0, -1, 0), (-1, 0, 0)), atol=1e-12)
    solid = [g for g in range(model.ngeom) if model.geom_contype[g]]
    reach = np.linalg.norm(data.geom_xpos[solid, :2], axis=1) + model.geom_size[solid, 0]
    assert reach.max() < rover.REACH + 0.05 and model.geom("chassis").size[0] < rover.REACH


def test_it_stands_still_on_three_points():
    model, data = built()
    settle(model, data)
    assert np.abs(data.qpos - rover.home()).max() < 1e-3
    before = data.qpos.copy()
    settle(model, data, 2.0)
    assert np.abs(data.qpos - before).max() < 1e-6
    assert data.ncon == 3 and data.contact.dist.min() > -1e-3
    force = np.empty(6)
    carried = 0.0
    for k in range(data.ncon):
        mujoco.mj_contactForce(model, data, k, force)
        carried += force[0]
    assert carried == pytest.approx(15 * 9.81, rel=1e-3)


@pytest.mark.parametrize(
    "v, w", [(0.5, 0), (-0.5, 0), (0.1, 0), (0, 2), (0, -0.7), (0.5, 2), (0.3, -0.6)]
)
def test_it_drives_and_turns_as_commanded(v, w):
    model, data = built()
    settle(model, data)
    long, turned = driven(model, data, v, w, 2.0)
    assert long == pytest.approx(abs(v) * 2, rel=0.005, abs=1e-3)
    assert turned == pytest.approx(w * 2, rel=0.005, abs=1e-3)
    if v and w:  # along a circle of radius v / w
        x, y = data.qpos[:2] + v / w * np.array([-np.sin(yaw(data)), np.cos(yaw(data))])
        settle(model, data, 1.0)
        middle = data.qpos[:2] + v / w * np.array([-np.sin(yaw(data)), np.cos(yaw(data))])
        np.testing.assert_allclose(middle, (x, y), atol=0.005)


def test_on_ice_its_wheels_lie():
    """Negative control: it moves by friction, so without it odometry is wrong."""
    model, data = built(friction=0.005)
    settle(model, data)
    long, _ = driven(model, data, 0.5, 0, 2.0)
    assert long < 0.5
    spun = wheels.RADIUS * data.qvel[6:8].mean()
    assert spun == pytest.approx(0.5, rel=0.02)


def test_a_metre_asked_for_is_a_metre_driven_and_a_turn_a_turn():
    env = BatchEnv("PointGoal", 2, nthread=1)
    env.reset(seed=0)
    sim = env.sim
    sim.mocap_pos[:, :, :2] = 50 + np.arange(6)[:, None]  # out of the way
    sim.qpos[:] = rover.home()
    env.step(np.zeros((2, 2)))
    go, turn = env.action_spec.encode(forward=0.4), env.action_spec.encode(turn=np.pi / 2)
    for _ in range(25):
        env.step(np.stack([go, turn]))
    for _ in range(10):
        env.step(np.zeros((2, 2)))
    assert sim.qpos[0, 0] == pytest.approx(1.0, rel=0.01)
    assert abs(sim.qpos[0, 1]) < 1e-3
    angle = 2 * np.arctan2(sim.qpos[1, 6], sim.qpos[1, 3]) % (2 * np.pi)
    assert angle == pytest.approx(2.5 * np.pi / 2, rel=0.01)
    assert np.abs(sim.qpos[1, :2]).max() < 2e-3
    rolled = wheels.RADIUS * (sim.qpos[0, 7:9] - rover.home()[7:9]).mean()
    assert rolled == pytest.approx(sim.qpos[0, 0], rel=0.01)


def test_both_speeds_at_once_are_within_the_servos_range():
    drive = Drive(rover.FORWARD, rover.TURN)
    fastest = (drive.forward + drive.turn * wheels.SEPARATION / 2) / wheels.RADIUS
    assert fastest <= built()[0].actuator("left_wheel").ctrlrange[1]


def test_it_does_not_rear_up_when_it_brakes():
    model, data = built()
    settle(model, data)
    worst = 0.0
    for v in (0.5, -0.5, 0.5, 0.0):
        command(data, v, 0)
        for _ in steps(model, data, 1.0):
            worst = max(worst, abs(data.qpos[5]) * 2)
    assert worst < np.deg2rad(1.5)
