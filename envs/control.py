"""Control: how an action in [-1, 1] moves a simulated body. Keeps nothing outside the state row."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod

import mujoco
import numpy as np

from ..robots.action import ActionSpec, Component
from ..robots.body import Body
from .dynamics import torque
from .ik import Ik, Tool, product, quaternion, rotation, turning
from .sim import Sim

_ALOFT = 0.06  # m: over what lies on a table
LOW, HIGH = (0.22, -0.29, 0.018), (0.60, 0.29, 0.30)  # m: where a tool may go over a table


class Control(ABC):
    """Writes `sim.ctrl` from actions; whatever it must remember lives in the state row."""

    @abstractmethod
    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        """Returns what each action component means on this model at `rate` Hz."""

    def prepare(self, spec: mujoco.MjSpec) -> None:  # noqa: B027 (most take the body as it is)
        """Changes the actuators of a scene that is not compiled yet."""

    def start(self, sim: Sim, rows: np.ndarray) -> None:  # noqa: B027 (most have nothing to start)
        """Prepares the rows (sorted ints) after a reset, when their derived fields are fresh."""

    @abstractmethod
    def apply(self, sim: Sim, action: np.ndarray) -> None:
        """Turns actions `(n, nu)` in [-1, 1] into the rows' controls; derived fields are fresh."""

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray | None:
        """Returns actions `(n, nu)` that lead the tool towards `goal` (n, 3) in m, or None.

        jaws: -1 closed to 1 open, a number or `(n,)`; speed: the share of the fastest that is used,
        a number or `(n, 1)`.
        What a scripted expert is made of; None where this control cannot say.
        """
        return None

    def aim_pose(
        self, sim: Sim, goal: np.ndarray, frame: np.ndarray, jaws, speed: float = 1.0
    ) -> np.ndarray | None:
        """Returns actions as `aim`, that turn the tool towards the rotation `frame` (n, 3, 3) too.

        Straight down, with the jaws along y, is diag(-1, 1, -1).
        """
        return None


class Direct(Control):
    """Each action component is one actuator's control, scaled to its range."""

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        low, high = model.actuator_ctrlrange.T
        return ActionSpec(
            tuple(
                Component(model.actuator(i).name, "actuator", "1", (h - lo) / 2, (h + lo) / 2)
                for i, (lo, h) in enumerate(zip(low, high, strict=True))
            ),
            rate,
        )

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        np.multiply(sim.ctrl_half, action, sim.ctrl)
        np.add(sim.ctrl, sim.ctrl_middle, sim.ctrl)


class DeltaPosition(Control):
    """Moves a tool that points straight down: (x, y, z) steps in the base frame, and the jaws.

    The commanded tool position is a mocap body, `command`, that each action moves by up to
    `step` m; joint targets follow it by inverse kinematics, closed on the measured pose. Actions
    that lead out of `[low, high]`, or further than `lead` m ahead of the tool, stop there. An arm
    of five joints points down as well as it can.
    """

    def __init__(self, body: Body, prefix="", low=LOW, high=HIGH, step=0.04, lead=0.08):
        self.ik = Ik(body, prefix)
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.step, self.lead = step, lead

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        axes = tuple(Component(axis, "base", "m", self.step) for axis in "xyz")
        return ActionSpec((*axes, _jaws(self.ik, model)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        _hold(self.ik, sim, rows)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        ahead = _clip(tool.goal - tool.tip + self.step * action[:, :3], -self.lead, self.lead)
        goal = _clip(tool.tip + ahead, self.low, self.high)
        tool.goal[:] = goal
        tool.ctrl[:] = self.ik.solve(tool, goal)
        _grip(self.ik.body, tool, action[:, 3])

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray:
        out = np.empty((sim.n, 4))
        out[:, :3] = _led(self.ik, sim, goal, self.step, speed)
        out[:, 3] = jaws
        return out


class DeltaPose(Control):
    """Moves and turns a tool: steps (x, y, z) in m and a rotation vector in rad, base frame; jaws.

    Commanded place and direction are the mocap body `command`; the direction may lead the tool's
    by up to `lead_turn` rad. Otherwise as DeltaPosition.
    """

    def __init__(self, body: Body, prefix="", low=LOW, high=HIGH, step=0.04, lead=0.08, turn=0.2):
        self.ik = Ik(body, prefix)
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.step, self.lead, self.turn, self.lead_turn = step, lead, turn, 2 * turn

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        axes = tuple(Component(axis, "base", "m", self.step) for axis in "xyz")
        turns = tuple(Component(f"turn_{axis}", "base", "rad", self.turn) for axis in "xyz")
        return ActionSpec((*axes, *turns, _jaws(self.ik, model)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        _hold(self.ik, sim, rows)
        tool = self.ik.tool(sim)
        for i in rows.tolist():
            mujoco.mju_mat2Quat(out := np.empty(4), tool.turn[i])
            tool.heading[i] = out

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        ahead = _clip(tool.goal - tool.tip + self.step * action[:, :3], -self.lead, self.lead)
        goal = _clip(tool.tip + ahead, self.low, self.high)
        heading = product(quaternion(self.turn * action[:, 3:6]), tool.heading)
        heading /= np.sqrt(np.einsum("ij,ij->i", heading, heading))[:, None]
        gap = turning(tool.turn.reshape(-1, 3, 3), rotation(heading))
        far = np.einsum("ij,ij->i", gap, gap) > np.sin(self.lead_turn) ** 2
        tool.heading[:] = np.where(far[:, None], tool.heading, heading)
        tool.goal[:] = goal
        tool.ctrl[:] = self.ik.solve(tool, goal, rotation(tool.heading))
        _grip(self.ik.body, tool, action[:, 6])

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray:
        out = np.zeros((sim.n, 7))
        out[:, :3] = _led(self.ik, sim, goal, self.step, speed)
        out[:, 6] = jaws
        return out

    def aim_pose(
        self, sim: Sim, goal: np.ndarray, frame: np.ndarray, jaws, speed: float = 1.0
    ) -> np.ndarray:
        out = self.aim(sim, goal, jaws, speed)
        gap = turning(rotation(self.ik.tool(sim).heading), frame) / self.turn
        size = np.sqrt(np.einsum("ij,ij->i", gap, gap))[:, None]
        out[:, 3:6] = gap * np.minimum(1, speed / np.maximum(size, 1e-9))  # about one axis
        return out


class JointPosition(Control):
    """Each component is a joint's target position, scaled to the joint's range; then the jaws."""

    def __init__(self, body: Body, prefix="", lead=0.08):
        self.ik, self.lead = Ik(body, prefix), lead

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        out = []
        for name in self.ik.body.joints:
            low, high = model.actuator(self.ik.prefix + name).ctrlrange
            out.append(Component(name, "joint", "rad", (high - low) / 2, (high + low) / 2))
        return ActionSpec((*out, _jaws(self.ik, model)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        _hold(self.ik, sim, rows)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        tool.goal[:] = tool.tip
        tool.ctrl[:] = (tool.high + tool.low) / 2 + (tool.high - tool.low) / 2 * action[:, :-1]
        _grip(self.ik.body, tool, action[:, -1])

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray:
        target = _towards(self.ik, sim, goal, speed * self.lead)
        tool = self.ik.tool(sim)
        out = np.empty((sim.n, target.shape[1] + 1))
        out[:, :-1] = (target - (tool.high + tool.low) / 2) / ((tool.high - tool.low) / 2)
        out[:, -1] = jaws
        return out


class JointVelocity(Control):
    """Each component is a joint's velocity, up to `share` of its limit; then the jaws.

    The servos' targets move at these velocities, no further than `lead` rad ahead of the joints.
    """

    def __init__(self, body: Body, dt: float, prefix="", share=0.5, lead=0.25):
        self.ik, self.dt, self.lead = Ik(body, prefix), dt, lead
        self.velocity = share * np.array(body.velocity)

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        joints = zip(self.ik.body.joints, self.velocity.tolist(), strict=True)
        out = tuple(Component(name, "joint", "rad/s", limit) for name, limit in joints)
        return ActionSpec((*out, _jaws(self.ik, model)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        _hold(self.ik, sim, rows)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        tool.goal[:] = tool.tip
        target = tool.ctrl + self.dt * self.velocity * action[:, :-1]
        target = _clip(target, tool.q - self.lead, tool.q + self.lead)
        tool.ctrl[:] = _clip(target, tool.low, tool.high)
        _grip(self.ik.body, tool, action[:, -1])

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray:
        target = _towards(self.ik, sim, goal, 0.08 * speed)
        out = np.empty((sim.n, target.shape[1] + 1))
        rate = (target - self.ik.tool(sim).ctrl) / (self.dt * self.velocity)
        # one factor for all joints: the tool keeps its direction
        out[:, :-1] = rate / np.maximum(np.abs(rate).max(1, keepdims=True), 1.0)
        out[:, -1] = jaws
        return out


class Torque(Control):
    """Each component is a joint's torque, up to its limit, beside gravity's; then the jaws."""

    def __init__(self, body: Body, dt: float, prefix="", lead=0.08):
        self.ik, self.dt, self.lead = Ik(body, prefix), dt, lead
        self.effort = np.array(body.effort)

    def prepare(self, spec: mujoco.MjSpec) -> None:
        for name, limit in zip(self.ik.body.joints, self.effort.tolist(), strict=True):
            actuator = spec.actuator(self.ik.prefix + name)
            actuator.set_to_motor()
            actuator.ctrlrange = actuator.forcerange = (-limit, limit)

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        joints = zip(self.ik.body.joints, self.effort.tolist(), strict=True)
        out = tuple(Component(name, "joint", "Nm", limit) for name, limit in joints)
        return ActionSpec((*out, _jaws(self.ik, model)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        tool.goal[rows], tool.ctrl[rows] = tool.tip[rows], 0
        tool.jaws[rows] = self.ik.body.jaws[1]

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        tool = self.ik.tool(sim)
        tool.goal[:] = tool.tip
        tool.ctrl[:] = self.effort * action[:, :-1]
        _grip(self.ik.body, tool, action[:, -1])

    def aim(self, sim: Sim, goal: np.ndarray, jaws, speed: float = 1.0) -> np.ndarray:
        target = _towards(self.ik, sim, goal, speed * self.lead)
        out = np.empty((sim.n, target.shape[1] + 1))
        out[:, :-1] = _clip(torque(self.ik, sim, target, self.dt) / self.effort, -1, 1)
        out[:, -1] = jaws
        return out


CONTROLS = ("delta_position", "delta_pose", "joint_position", "joint_velocity", "torque")


def make(name: str, body: Body, dt: float, prefix: str = "", low=LOW, high=HIGH) -> Control:
    """Returns the control of an arm called `name`, for actions every `dt` s.

    low, high: where its tool may go (m), of the controls that say where. Raises ValueError with
    the nearest name if there is none.
    """
    match name:
        case "delta_position":
            return DeltaPosition(body, prefix, low, high)
        case "delta_pose":
            return DeltaPose(body, prefix, low, high)
        case "joint_position":
            return JointPosition(body, prefix)
        case "joint_velocity":
            return JointVelocity(body, dt, prefix)
        case "torque":
            return Torque(body, dt, prefix)
    near = difflib.get_close_matches(str(name), CONTROLS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CONTROLS)}"
    raise ValueError(f"no control {name!r}; {hint}")


def _led(ik: Ik, sim: Sim, goal: np.ndarray, step: float, speed: float) -> np.ndarray:
    """Returns the share of a step `(n, 3)` that leads the commanded place to goal, at the body's
    pace where it is so low that it can hit what lies about."""
    tool = ik.tool(sim)
    most = speed * np.where(tool.tip[:, 2:] > _ALOFT, 1.0, ik.body.pace)
    return _clip((goal - tool.goal) / step, -most, most)


def _towards(ik: Ik, sim: Sim, goal: np.ndarray, reach: float) -> np.ndarray:
    """Returns joint targets `(n, k)` for a place at most `reach` m from the tool, towards goal."""
    tool = ik.tool(sim)
    return ik.solve(tool, tool.tip + np.clip(goal - tool.tip, -reach, reach))


def _hold(ik: Ik, sim: Sim, rows: np.ndarray) -> None:
    """Tells the servos to stay where the joints are, jaws open."""
    tool = ik.tool(sim)
    tool.goal[rows] = tool.tip[rows]
    tool.ctrl[rows] = tool.q[rows]
    tool.jaws[rows] = tool.finger[rows]


def _jaws(ik: Ik, model: mujoco.MjModel) -> Component:
    closed, opened = ik.body.jaws
    joint = model.actuator(ik.prefix + "gripper").trnid[0]
    unit = "m" if int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_SLIDE) else "rad"
    return Component("gripper", "tool", unit, (opened - closed) / 2, (opened + closed) / 2)


def _grip(body: Body, tool: Tool, action: np.ndarray) -> None:
    closed, opened = body.jaws
    tool.jaws[:] = (opened - closed) / 2 * (1 + action) + closed


def _clip(x: np.ndarray, low, high) -> np.ndarray:
    # np.clip costs three times as much on the few numbers of a single row
    return np.minimum(np.maximum(x, low), high)
