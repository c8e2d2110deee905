"""Actions mean what their spec says: units, bounds, a tool that looks down, a true Jacobian."""

import numpy as np
import pytest

from umwelten import registry
from umwelten.envs import scene
from umwelten.envs.env import BatchEnv
from umwelten.robots.action import ActionSpec, Component

TABLETOP = ["Reach", "Push", "PickPlace"]
LOW, HIGH = np.array(scene.LOW), np.array(scene.HIGH)


def repeat(env, **values):
    return np.tile(env.action_spec.encode(**values), (env.num_envs, 1))


def tilt(env):
    """Degrees between the tool's axis and straight down, (n,)."""
    turned = env.sim.site_xmat[:, env.model.site("tcp").id]
    return np.degrees(np.arccos(np.clip(-turned[:, 8], -1, 1)))


@pytest.mark.parametrize("name", TABLETOP)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("axis", range(3))
def test_a_command_of_one_centimetre_moves_the_tool_one_centimetre(name, axis, sign):
    env = BatchEnv(name, 4)
    env.reset(seed=0)
    still = repeat(env, gripper=0.04)
    for _ in range(3):
        env.step(still)
    before = env.sim.site("tcp").copy()
    env.step(repeat(env, **{"xyz"[axis]: sign * 0.01, "gripper": 0.04}))
    for _ in range(3):
        env.step(still)
    wanted = np.zeros(3)
    wanted[axis] = sign * 0.01
    moved = env.sim.site("tcp") - before
    np.testing.assert_allclose(moved, np.tile(wanted, (4, 1)), atol=3e-4)
    assert tilt(env).max() < 0.5


def test_commands_of_many_steps_add_up_and_end_at_the_bounds():
    env = BatchEnv("Reach", 1)
    env.reset(seed=0)
    before = env.sim.site("tcp")[0].copy()
    for _ in range(5):
        env.step(repeat(env, x=0.02, y=-0.01, gripper=0.04))
    for _ in range(3):
        env.step(repeat(env, gripper=0.04))
    moved = env.sim.site("tcp")[0] - before
    np.testing.assert_allclose(moved, [0.1, -0.05, 0], atol=1e-3)
    for direction, end in ((0.04, HIGH), (-0.04, LOW)):
        for _ in range(40):
            env.step(repeat(env, y=direction, gripper=0.04))
        assert env.sim.site("tcp")[0, 1] == pytest.approx(end[1], abs=1e-3)


@pytest.mark.parametrize("travel", [0.0, 0.01, 0.04])
def test_the_gripper_takes_metres_of_finger_travel(travel):
    env = BatchEnv("Reach", 2)
    env.reset(seed=0)
    for _ in range(8):
        env.step(repeat(env, gripper=travel))
    np.testing.assert_allclose(env.sim.qpos[:, 6:8], travel, atol=1e-3)


def hard_actions(rng, t, action):
    """Every fifth step a corner of the box, held; noise in between now and then."""
    n = len(action)
    if t % 5 == 0:
        return np.sign(rng.uniform(-1, 1, (n, 4)))
    return np.where(rng.random((n, 1)) < 0.2, rng.uniform(-1, 1, (n, 4)), action)


def commanded(env):
    return env.sim.mocap_pos[:, 0]


@pytest.mark.parametrize("name", TABLETOP)
def test_the_tool_stays_in_its_bounds_and_looks_down_whatever_is_done(name):
    env = BatchEnv(name, 64)
    env.reset(seed=0)
    rng, action = np.random.default_rng(0), np.zeros((64, 4))
    outside, tilted = [], []
    for t in range(50):
        action = hard_actions(rng, t, action)
        env.step(action)
        tip = env.sim.site("tcp")
        outside.append(np.maximum(LOW - tip, tip - HIGH).max())
        tilted.append(tilt(env).max())
        goal = commanded(env)
        assert (goal >= LOW - 1e-12).all() and (goal <= HIGH + 1e-12).all()
        assert np.isfinite(env.sim.ctrl).all()
        low, high = env.model.actuator_ctrlrange.T
        assert (env.sim.ctrl >= low).all() and (env.sim.ctrl <= high).all()
    assert np.max(outside) < 0.02
    assert np.max(outside) > 0  # bounds were reached: this could have failed
    assert np.max(tilted) < (3 if name == "Reach" else 20)  # objects can be leant upon


def test_a_slow_tool_does_not_leave_its_bounds():
    """At a quarter of the largest step momentum carries the tool less than 4 mm too far."""
    env = BatchEnv("Reach", 26)
    env.reset(seed=0)
    corners = [c for c in np.ndindex(3, 3, 3) if c != (1, 1, 1)]
    action = np.zeros((26, 4))
    action[:, :3] = 0.25 * (np.array(corners) - 1)
    for _ in range(49):
        env.step(action)
        tip = env.sim.site("tcp")
        assert np.maximum(LOW - tip, tip - HIGH).max() < 0.004
    reached = np.abs(tip - np.where(action[:, :3] > 0, HIGH, LOW))[action[:, :3] != 0]
    assert reached.max() < 2e-3


def test_every_corner_of_the_bounds_is_in_reach():
    env = BatchEnv("Reach", 8)
    env.reset(seed=0)
    corners = np.array([np.where(c, HIGH, LOW) for c in np.ndindex(2, 2, 2)])
    for _ in range(45):
        action = env.task.control.aim(env.sim, corners, jaws=1.0, speed=0.5)
        env.step(action)
    np.testing.assert_allclose(env.sim.site("tcp"), corners, atol=1e-3)
    assert tilt(env).max() < 0.5


def test_the_lowest_command_leaves_the_fingers_above_the_table():
    env = BatchEnv("Reach", 1)
    env.reset(seed=0)
    for _ in range(20):
        env.step(repeat(env, z=-0.04, gripper=0.04))
    assert env.sim.site("tcp")[0, 2] == pytest.approx(LOW[2], abs=5e-4)
    assert tilt(env)[0] < 0.5


@pytest.mark.parametrize("name", TABLETOP)
def test_the_jacobian_is_the_engines(name):
    env = BatchEnv(name, 8)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(rng.uniform(-1, 1, (8, 4)))
    sim, ik = env.sim, env.task.control.ik
    tip = sim.site("tcp").copy()
    ours = ik.jacobian(ik.tool(sim))
    body = int(env.model.site("tcp").bodyid[0])
    theirs = np.concatenate(sim.batch.jac(body, tip), 1)[:, :, : len(ik.body.joints)]
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 1), atol=1e-12)


def test_a_stretched_arm_gets_finite_and_small_joint_steps():
    """At a singularity the undamped step would be without bound."""
    env = BatchEnv("Reach", 3)
    env.reset(seed=0)
    sim, control = env.sim, env.task.control
    sim.qpos[:, :6] = 0.0  # straight up: waist, forearm and tool are one line
    sim.qpos[1, :6] = (0, 0.8, 0, 0, 0, 0)
    sim.qpos[2, :6] = (0, 0.8, 1e-9, 0, 1e-9, 0)
    sim.qvel[:] = 0
    sim.forward(np.arange(3))
    assert np.linalg.cond(control.ik.jacobian(control.ik.tool(sim))[1]) > 1e6
    sim.mocap_pos[:, 0] = sim.site("tcp")
    control.apply(sim, np.tile([1.0, 1, -1, 0], (3, 1)))
    assert np.isfinite(sim.ctrl).all()
    assert np.abs(sim.ctrl[:, :6] - sim.qpos[:, :6]).max() < np.pi + 0.1


def test_direct_control_spans_the_actuators_range():
    env = BatchEnv("CartpoleBalance", 3)
    spec = env.action_spec
    assert len(spec) == 1 and spec.rate == 100 and spec.components[0].frame == "actuator"
    env.reset(seed=0)
    env.step(np.array([[-1], [0.25], [1]]))
    np.testing.assert_allclose(env.sim.ctrl[:, 0], [-1, 0.25, 1])


# ---- the spec itself

SPEC = ActionSpec(
    (Component("x", "base", "m", 0.05), Component("jaws", "tool", "m", 0.02, 0.02)), 10.0
)


def test_values_become_actions_and_what_is_not_named_stays_at_its_offset():
    assert SPEC.encode(x=0.01).tolist() == [np.float32(0.2), 0.0]
    assert SPEC.encode(jaws=0.04, x=-0.05).tolist() == [-1.0, 1.0]
    assert SPEC.encode().tolist() == [0, 0] and SPEC.encode().dtype == np.float32
    assert SPEC.scale.tolist() == [0.05, 0.02] and len(SPEC) == 2


def test_values_out_of_reach_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"x = 0.06 m is out of reach .* -0.05 to 0.05 m"):
        SPEC.encode(x=0.06)
    with pytest.raises(ValueError, match=r"jaws = -0.01 m .* takes 0 to 0.04 m"):
        SPEC.encode(jaws=-0.01)
    with pytest.raises(ValueError, match="out of reach"):
        SPEC.encode(x=float("nan"))
    with pytest.raises(ValueError, match="no action component 'gripper'; there are x, jaws"):
        SPEC.encode(gripper=0)


@pytest.mark.parametrize("name", list(registry.members("envs")))
def test_every_worlds_spec_says_what_its_actions_are(name):
    env = BatchEnv(name, 1)
    spec = env.action_spec
    assert (len(spec),) == env.single_action_space.shape
    assert spec.rate == pytest.approx(1 / env.task.control_dt)
    assert all(c.name and c.frame and c.unit and c.scale > 0 for c in spec.components)
    assert len({c.name for c in spec.components}) == len(spec)
