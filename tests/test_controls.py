"""Every arm under every control: units are kept, scripts follow, and what cannot be is refused."""

import numpy as np
import pytest

from umwelten.envs.control import CONTROLS
from umwelten.envs.dynamics import torque
from umwelten.envs.env import BatchEnv
from umwelten.envs.ik import product, quaternion, rotation, turning
from umwelten.envs.scene import ARMS
from umwelten.registry import UnknownName
from umwelten.robots import body as bodies
from umwelten.score import HELD_OUT

# The SO-101 has five joints: it points down as well as it can, and near its base not at all.
DONE = {"so101": 0.8}


def world(robot, control, n=2, task="Reach"):
    env = BatchEnv(task, n, nthread=1, robot=robot, control=control)
    env.reset(seed=HELD_OUT)
    return env


def still(env):
    """The action that holds where the servos are told to be, jaws open."""
    action = np.zeros(env.action_space.shape, np.float32)
    if isinstance(env.task.control, type(world("arm", "joint_position", 1).task.control)):
        tool = env.task.control.ik.tool(env.sim)
        action[:, :-1] = (tool.ctrl - (tool.high + tool.low) / 2) / ((tool.high - tool.low) / 2)
    action[:, -1] = 1
    return action


def test_every_arm_there_is_can_be_asked_for():
    assert set(ARMS) == set(bodies.arms())


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("robot", ARMS)
def test_components_are_named_have_units_and_holding_still_holds(robot, control):
    env = world(robot, control)
    components = env.action_spec.components
    k = len(env.task.body.joints)
    wanted = {"delta_position": 4, "delta_pose": 7}.get(control, k + 1)
    assert len(components) == wanted and components[-1].name == "gripper"
    unit = {"joint_position": "rad", "joint_velocity": "rad/s", "torque": "Nm"}.get(control, "m")
    assert components[0].unit == unit and all(c.scale > 0 for c in components)
    before = env.task.control.ik.tool(env.sim).tip.copy()
    for _ in range(10):
        env.step(still(env))
    moved = np.abs(env.task.control.ik.tool(env.sim).tip - before).max()
    assert moved < (0.02 if control == "torque" else 0.004)  # torque holds nothing but gravity


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("robot", ARMS)
def test_a_script_reaches_under_every_control(robot, control):
    env = world(robot, control, 40)
    for _ in range(49):
        info = env.step(env.expert())[4]
    assert info["success"].mean() >= DONE.get(robot, 0.95)


@pytest.mark.parametrize("robot", ["ur5e", "panda", "so101"])
def test_another_arm_picks_and_places(robot):
    env = world(robot, "delta_position", 20, "PickPlace")
    for _ in range(79):
        info = env.step(env.expert())[4]
    assert info["success"].mean() >= 0.95


@pytest.mark.parametrize("robot", ["panda", "so101"])
def test_another_arm_pushes(robot):
    env = world(robot, "delta_position", 20, "Push")
    for _ in range(99):
        info = env.step(env.expert())[4]
    assert info["success"].mean() >= 0.9


def test_an_arm_of_five_joints_is_at_the_place_and_turned_as_far_as_it_can():
    env = world("so101", "delta_position", 6)
    tool = env.task.control.ik.tool(env.sim)
    goals = np.array([[0.3, y, 0.06] for y in (-0.1, 0.1)] + [[0.4, -0.15, 0.1], [0.4, 0.15, 0.1]])
    goals = np.concatenate([goals, [[0.5, 0.0, 0.05], [0.52, 0.2, 0.05]]])
    for _ in range(48):
        env.step(env.task.control.aim(env.sim, goals, 1.0, 0.6))
    assert np.abs(tool.tip - goals).max() < 0.001
    lean = np.degrees(np.arccos(np.clip(-tool.turn[:, 8], -1, 1)))
    assert lean[:5].max() < 10 and 20 < lean[5] < 45  # the last is too far off to look down
    assert np.abs(tool.turn[:5, 1]).max() < 0.05  # and the jaws close along y


@pytest.mark.parametrize("robot", ["arm", "ur5e", "panda"])
@pytest.mark.parametrize("axis", range(3))
def test_a_command_of_a_tenth_of_a_radian_turns_the_tool_so_far(robot, axis):
    env = world(robot, "delta_pose")
    for _ in range(3):
        env.step(still(env))
    turn = env.sim.turn("tcp").copy().reshape(-1, 3, 3)
    place = env.sim.site("tcp").copy()
    action = still(env)
    action[:, 3 + axis] = 0.1 / env.action_spec.scale[3 + axis]
    env.step(action)
    for _ in range(6):
        env.step(still(env))
    found = turning(turn, env.sim.turn("tcp").reshape(-1, 3, 3))
    wanted = np.zeros(3)
    wanted[axis] = np.sin(0.1)
    np.testing.assert_allclose(found, np.tile(wanted, (2, 1)), atol=0.004)
    np.testing.assert_allclose(env.sim.site("tcp"), place, atol=0.002)


@pytest.mark.parametrize("robot", ["arm", "ur5e", "panda"])
def test_a_joint_moves_at_the_velocity_and_to_the_position_that_it_is_told(robot):
    env = world(robot, "joint_velocity")
    tool = env.task.control.ik.tool(env.sim)
    before, action = tool.q.copy(), still(env)
    action[:, 0] = 0.2 / env.action_spec.scale[0]  # rad/s
    for _ in range(10):
        env.step(action)
    for _ in range(5):
        env.step(still(env))
    moved = tool.q - before
    np.testing.assert_allclose(moved[:, 0], 0.2, atol=0.01)
    assert np.abs(moved[:, 1:]).max() < 0.02
    env = world(robot, "joint_position")
    tool = env.task.control.ik.tool(env.sim)
    wanted = tool.q.copy()
    wanted[:, 1] += 0.1
    action = still(env)
    action[:, :-1] = (wanted - (tool.high + tool.low) / 2) / ((tool.high - tool.low) / 2)
    for _ in range(15):
        env.step(action)
    np.testing.assert_allclose(tool.q, wanted, atol=0.005)


@pytest.mark.parametrize("robot", ARMS)
def test_a_torque_is_the_engines_and_turns_its_joint(robot):
    env = world(robot, "torque")
    tool = env.task.control.ik.tool(env.sim)
    before, action = tool.q.copy(), still(env)
    action[:, 0] = 0.05
    env.step(action)
    k = len(env.task.body.joints)
    np.testing.assert_allclose(env.sim.ctrl[:, 0], 0.05 * env.task.body.effort[0], rtol=1e-6)
    np.testing.assert_allclose(env.sim.ctrl[:, 1:k], 0, atol=1e-12)
    for _ in range(4):
        env.step(action)
    assert (tool.q[:, 0] - before[:, 0] > 1e-3).all()


@pytest.mark.parametrize("task", ["Push", "PickPlace"])
def test_torques_follow_the_scripts_of_the_table(task):
    env = world("arm", "torque", 20, task)
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        info = env.step(env.expert())[4]
    assert info["success"].mean() >= 0.9


@pytest.mark.parametrize("robot", ["arm", "panda", "ur5e"])
def test_computed_torques_move_joints_as_their_law_says(robot):
    env = world(robot, "torque")
    ik, k = env.task.control.ik, len(env.task.body.joints)
    tool = ik.tool(env.sim)
    target, action = tool.q + np.linspace(0.05, -0.05, k), still(env)
    for _ in range(4):
        gap = np.abs(target - tool.q)
        action[:, :-1] = torque(ik, env.sim, target, 0.1) / env.task.control.effort
        env.step(action)
        np.testing.assert_allclose(0.1 * tool.dq, target - tool.q, atol=0.006)
        assert (np.abs(target - tool.q) < 0.7 * gap + 0.002).all()
    np.testing.assert_allclose(tool.q, target, atol=0.005)


def test_what_a_task_has_no_choice_of_is_refused_with_what_there_is():
    with pytest.raises(UnknownName, match="no robot 'pandda'; did you mean 'panda'"):
        BatchEnv("Reach", 1, robot="pandda")
    with pytest.raises(ValueError, match="'rover' is no arm with a gripper; there are arm"):
        BatchEnv("Reach", 1, robot="rover")
    with pytest.raises(ValueError, match="no control 'torqe'; did you mean 'torque'"):
        BatchEnv("Reach", 1, control="torqe")
    with pytest.raises(ValueError, match="a body and a control of its own"):
        BatchEnv("CartpoleBalance", 1, robot="panda")
    task = BatchEnv("Reach", 1).task
    with pytest.raises(ValueError, match="go with a task's name"):
        BatchEnv(task, 1, robot="panda")


def test_rotations_are_those_of_their_quaternions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 3)) * 0.7
    qa, qb = quaternion(a), quaternion(b)
    np.testing.assert_allclose(rotation(product(qa, qb)), rotation(qa) @ rotation(qb), atol=1e-12)
    np.testing.assert_allclose(quaternion(np.zeros((1, 3))), [[1, 0, 0, 0]])
    small = 1e-4 * rng.normal(size=(20, 3))
    found = turning(rotation(qa), rotation(product(quaternion(small), qa)))
    np.testing.assert_allclose(found, small, atol=1e-9)
