"""Senses against the laws of physics: weight, free fall, distances, pressure, where things are."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import scene
from umwelten.envs.control import Direct
from umwelten.envs.env import BatchEnv
from umwelten.envs.ranges import Lidar, Points
from umwelten.envs.signals import Contacts, Imu, Touch
from umwelten.envs.task import Task
from umwelten.robots.body import arms

G = 9.81


class Scene(Task):
    """Test: a scene as it is written, and a motor that moves nothing in it."""

    control_dt = 0.02
    time_limit = 100.0
    control = Direct()
    camera = "eye"

    def __init__(self, world, gravity="0 0 -9.81"):
        self.xml = f"""<mujoco><option timestep="0.002" gravity="{gravity}"/><worldbody>
          <camera name="eye" pos="0 0 2" fovy="45"/>{world}
          <body pos="30 30 1"><joint name="idle"/><geom size=".01" mass=".01" contype="0"
            conaffinity="0"/></body></worldbody>
          <actuator><motor joint="idle" ctrlrange="-1 1"/></actuator></mujoco>"""

    def spec(self):
        return mujoco.MjSpec.from_string(self.xml)

    def reset(self, sim, i, rng):
        pass

    def observe(self, sim):
        return {"places": sim.qpos[:, :7]}

    def terms(self, sim):
        return {"none": np.zeros(sim.n)}

    def success(self, sim):
        return np.zeros(sim.n, bool)


def box(z=0.1, turn="1 0 0 0", more=""):
    """A box of 2 kg on or above a floor, with the sites that senses look for."""
    return f"""<geom name="floor" type="plane" size="5 5 .1"/>{more}
        <body name="base" pos="0 0 {z}" quat="{turn}"><freejoint/><site name="tcp"/>
        <geom name="box" type="box" size=".1 .1 .1" mass="2"/></body>"""


def after(steps, senses, *world):
    """What is sensed after so many control steps of 20 ms."""
    env = BatchEnv(Scene(*world), 1, nthread=1, senses=senses)
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        obs = env.step(np.zeros((1, 1), np.float32))[0]
    return {k: v[0] for k, v in obs.items()}


@pytest.mark.parametrize(
    "turn, up",
    [("1 0 0 0", (0, 0, 1)), ("1 1 0 0", (0, 1, 0)), ("1 0 1 0", (-1, 0, 0))],
)
def test_an_imu_at_rest_reads_the_reaction_to_gravity_alone(turn, up):
    imu = after(100, ("imu",), box(turn=turn))["imu"]
    assert imu.shape == (10, 6)
    np.testing.assert_allclose(imu[:, :3], np.tile(np.array(up) * G, (10, 1)), atol=2e-3)
    np.testing.assert_allclose(imu[:, 3:], 0, atol=1e-3)


def test_a_falling_imu_reads_nothing_and_a_spinning_one_its_spin():
    env = BatchEnv(Scene(box(z=4)), 1, nthread=1, senses=("imu",))
    assert np.abs(env.reset(seed=0)[0]["imu"]).max() < 1e-9
    env.sim.qvel[0, 3:6] = spin = (0.5, -2.0, 1.0)  # in the body's frame, as the engine has it
    for _ in range(10):
        imu = env.step(np.zeros((1, 1)))[0]["imu"][0]
        np.testing.assert_allclose(imu[:, :3], 0, atol=1e-6)
        np.testing.assert_allclose(imu[:, 3:], np.tile(spin, (10, 1)), rtol=1e-5)


def test_samples_within_a_step_are_in_their_order_and_evenly_apart():
    # A ball on an axle that a constant torque speeds up.
    wheel = """<body name="base"><joint name="axle" axis="0 0 1"/><site name="tcp"/>
        <geom size=".1" mass="1"/></body>"""
    env = BatchEnv(Scene(wheel), 1, nthread=1, senses=(Imu(rate=5),))
    env.reset(seed=0)
    inertia, torque = 0.4 * 0.1**2, 0.02
    seen = []
    for _ in range(4):
        env.sim.qfrc_applied[0, 0] = torque
        seen.append(env.step(np.zeros((1, 1)))[0]["imu"][0, :, 5])
    when = 0.004 * np.arange(1, 21)
    np.testing.assert_allclose(np.concatenate(seen), torque / inertia * when, rtol=1e-6)


@pytest.mark.parametrize("robot", arms())
def test_a_wrist_at_rest_feels_the_weight_of_the_hand(robot):
    env = BatchEnv("PickPlace", 1, robot=robot, nthread=1, senses=("wrench",))
    env.reset(seed=0)
    for _ in range(15):
        obs = env.step(np.array([[0, 0, 0, 1]], np.float32))[0]
    m = env.model
    where = int(m.sensor_objid[m.sensor("wrench:force").id])
    turn = env.sim.site_xmat[0, where].reshape(3, 3)
    weight = m.body_subtreemass[m.site_bodyid[where]] * G
    np.testing.assert_allclose(turn @ obs["wrench"][0, :3], (0, 0, weight), atol=0.02 * weight)
    # The torque is that of the hand's weight about the sensor.
    data = env.sim.batch.get_data(0)
    arm = data.subtree_com[m.site_bodyid[where]] - data.site_xpos[where]
    torque = np.cross(arm, (0, 0, weight))
    np.testing.assert_allclose(turn @ obs["wrench"][0, 3:], torque, atol=0.02 * weight * 0.1)


def test_a_held_object_adds_its_weight():
    env = BatchEnv("PickPlace", 4, nthread=1, senses=("wrench", "contacts", "touch"))
    obs, _ = env.reset(seed=0)
    hand = obs["wrench"][:, 2].copy()
    for _ in range(12):
        obs = env.step(env.expert())[0]
    up = np.tile(np.float32([0, 0, 1, -1]), (4, 1))
    for k in range(20):
        obs = env.step(up if k < 4 else up * (1, 1, 0, 1))[0]
    m = env.model
    named = env.sim.userdata[:, 0].astype(int)
    bodies = [m.body(("cube", "cylinder")[k]).id for k in named]
    held = scene.objects(env.sim)[0][np.arange(4), named, 2] > 0.1
    assert held.sum() >= 3
    weight = env.sim.varied["body_mass"][np.arange(4), bodies] * G
    np.testing.assert_allclose((hand - obs["wrench"][:, 2])[held], weight[held], rtol=0.03)
    # What the pads feel is what the fingers press with: from left and right alike.
    press = obs["contacts"].reshape(4, 2, 2, 2)[..., 1].sum(2)
    pads = obs["touch"].sum((2, 3))
    assert (pads[held] > 5).all()
    np.testing.assert_allclose(pads[held], press[held], rtol=0.01)
    assert not pads[~held].any() or (~held).sum() == 0


_PADS = """<site name="tcp"/><geom name="left" type="box" size=".012 .007 .045" pos="0 -.02 0"/>
    <geom name="right" type="box" size=".012 .007 .045" pos="0 .2 0"/>
    <body name="ball" pos="{} {} {}"><freejoint/><geom name="ball" size=".01" mass=".05"/></body>"""


@pytest.mark.parametrize("x, z, k", [(0.006, 0.03, 4), (-0.004, -0.02, 4), (0.0, 0.01, 6)])
def test_a_pad_feels_how_much_and_where(x, z, k):
    pads = after(100, (Touch(taxels=k),), _PADS.format(x, -0.003, z), "0 -9.81 0")["touch"]
    assert pads.shape == (2, k, k) and not pads[1].any()
    np.testing.assert_allclose(pads[0].sum(), 0.05 * G, rtol=1e-3)
    centres = (np.arange(k) + 0.5) / k * 2 - 1
    share = pads[0] / pads[0].sum()
    np.testing.assert_allclose((share.sum(0) * centres).sum() * 0.012, x, atol=1e-4)
    np.testing.assert_allclose((share.sum(1) * centres).sum() * 0.045, z, atol=1e-4)


def test_a_pad_feels_nothing_at_its_back_nor_without_contact():
    below = _PADS.format(0, -0.037, 0), "0 9.81 0"
    felt = after(50, ("touch", Contacts(pairs=(("left", "ball"),))), *below)
    np.testing.assert_allclose(felt["contacts"], [[1, 0.05 * G]], rtol=1e-3)
    assert not felt["touch"].any()
    assert not after(2, ("touch",), _PADS.format(0, 0.05, 0), "0 -9.81 0")["touch"].any()


def test_contacts_tell_which_pairs_touch_and_how_hard():
    pairs = (("box", "floor"), ("floor", "box"), ("box", "wall"))
    wall = '<geom name="wall" type="box" pos="1 0 0" size=".1 1 1"/>'
    felt = after(100, (Contacts(pairs=pairs),), box(more=wall))["contacts"]
    np.testing.assert_allclose(felt, [[1, 2 * G], [1, 2 * G], [0, 0]], rtol=1e-3)
    assert not after(1, (Contacts(pairs=pairs),), box(z=2, more=wall))["contacts"].any()


def test_pose_and_joints_are_the_engines():
    env = BatchEnv("PickPlace", 3, nthread=1, senses=("pose", "joints"))
    obs, _ = env.reset(seed=0)
    for _ in range(10):
        obs = env.step(env.expert())[0]
    sim = env.sim
    np.testing.assert_array_equal(obs["pose"][:, :3], sim.site("tcp").astype(np.float32))
    for quat, turn in zip(obs["pose"][:, 3:].astype(float), sim.turn("tcp"), strict=True):
        mujoco.mju_quat2Mat(out := np.empty(9), quat)
        np.testing.assert_allclose(out, turn, atol=1e-6)
    assert (obs["pose"][:, 3] >= 0).all()
    joints = np.concatenate([sim.qpos[:, :7], sim.qvel[:, :7]], 1)
    np.testing.assert_array_equal(obs["joints"], joints.astype(np.float32))


def test_a_lidar_tells_the_distance_to_a_wall_and_turns_with_its_body():
    wall = '<geom type="box" pos="1.5 0 1" size=".1 3 1"/>'
    got = after(0, (Lidar(reach=3.0),), box(more=wall))["lidar"]
    angle = 2 * np.pi * (np.arange(64) / 64 - 0.5)
    with np.errstate(divide="ignore"):
        way = np.where(np.cos(angle) > 1e-9, 1.4 / np.cos(angle), np.inf)
    np.testing.assert_allclose(got, np.minimum(way, 3.0), rtol=1e-6)
    assert 3 < (got < 3).sum() < 32
    turned = after(0, (Lidar(reach=3.0),), box(more=wall, turn="1 0 0 1"))["lidar"]
    np.testing.assert_allclose(turned, np.roll(got, -16), rtol=1e-6)
    narrow = after(0, (Lidar(reach=3.0, fov=90, beams=5),), box(more=wall))["lidar"]
    angle = np.deg2rad(90 * (np.arange(5) / 5 - 0.5))
    np.testing.assert_allclose(narrow, 1.4 / np.cos(angle), rtol=1e-6)


def test_points_lie_on_the_surfaces_that_the_pixels_see():
    sky = '<camera name="up" pos="0 0 1" zaxis="0 0 -1"/>'
    senses = (Points(at="eye", size=(24, 32)), Points(at="up", size=(4, 4)))
    seen = after(0, senses, box(more=sky))
    assert not seen["points/up"].any()  # where nothing is: exactly zero
    points = seen["points/eye"].reshape(24, 32, 3)
    pixel = 2 * np.tan(np.deg2rad(22.5)) / 24
    x = (np.arange(32) + 0.5 - 16) * pixel
    y = -(np.arange(24) + 0.5 - 12) * pixel
    ways = np.stack([*np.meshgrid(x, y), -np.ones((24, 32))], -1)
    top = (np.abs(1.8 * ways[..., :2]) < 0.1).all(-1)
    truth = np.array([0, 0, 2]) + np.where(top, 1.8, 2.0)[..., None] * ways
    assert 4 < top.sum() < 100
    np.testing.assert_allclose(points, truth, atol=1e-5)
    own = after(0, (Points(at="eye", size=(24, 32), frame="camera"),), box())["points/eye"]
    np.testing.assert_allclose(own.reshape(24, 32, 3), truth - (0, 0, 2), atol=1e-5)


def test_the_noise_of_points_is_along_their_rays_and_leaves_the_sky():
    sky = '<camera name="up" pos="0 0 1" zaxis="0 0 -1"/>'
    noisy = Points(at="eye", size=(48, 64), frame="camera", noise=0.02)
    seen = after(3, (noisy, Points(at="up", size=(4, 4), noise=0.02)), box(more=sky))
    clean = after(3, (Points(at="eye", size=(48, 64), frame="camera"),), box())["points/eye"]
    off = seen["points/eye"][:, 2] - clean[:, 2]
    assert abs(off.std() / 0.02 - 1) < 0.06
    np.testing.assert_allclose(
        np.cross(seen["points/eye"], clean), 0, atol=1e-5
    )  # on the pixel's own ray
    assert not seen["points/up"].any()


@pytest.mark.parametrize("robot", arms())
def test_every_arm_has_every_sense(robot):
    senses = ("joints", "pose", "wrench", "imu", "touch", "contacts", "lidar", "audio")
    env = BatchEnv("PickPlace", 2, robot=robot, nthread=1, senses=senses)
    env.reset(seed=0)
    pressed = np.zeros(2, bool)
    for _ in range(40):
        obs, *_ = env.step(env.expert())
        assert obs in env.observation_space
        pressed |= (obs["touch"].sum((2, 3)) > 1).all(1)
    assert pressed.all()
