"""Control: how an action in [-1, 1] moves a simulated body. Keeps nothing outside the state row."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mujoco
import numpy as np

from ..robots.action import ActionSpec, Component
from .sim import Sim


class Control(ABC):
    """Writes `sim.ctrl` from actions; whatever it must remember lives in the state row."""

    @abstractmethod
    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        """Returns what each action component means on this model at `rate` Hz."""

    def start(self, sim: Sim, rows: np.ndarray) -> None:  # noqa: B027 (most have nothing to start)
        """Prepares the rows (sorted ints) after a reset, when their derived fields are fresh."""

    @abstractmethod
    def apply(self, sim: Sim, action: np.ndarray) -> None:
        """Turns actions `(n, nu)` in [-1, 1] into the rows' controls; derived fields are fresh."""


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
        low, high = sim.ctrl_low, sim.ctrl_high
        sim.ctrl[:] = (high + low) / 2 + (high - low) / 2 * action


class DeltaPosition(Control):
    """Moves a tool that points straight down: (x, y, z) steps in the base frame, and the jaws.

    The commanded tool position is a mocap body, `command`, that each action moves by up to
    `step` m; joint targets follow it by damped least squares on the tool's Jacobian, one step a
    call, closed on the measured pose. Actions that lead out of `[low, high]`, or further than
    `lead` m ahead of the tool, stop there.

    Source: damped least squares, Buss 2004, "Introduction to inverse kinematics", eq. 11.
    """

    def __init__(self, joints, gripper, opening, low, high, step=0.04, lead=0.08, damping=0.02):
        self.joints, self.gripper, self.opening = tuple(joints), gripper, opening
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.step, self.lead = step, lead
        self._ridge = damping**2 * np.eye(6)

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        half = self.opening / 2
        axes = tuple(Component(axis, "base", "m", self.step) for axis in "xyz")
        return ActionSpec((*axes, Component("gripper", "tool", "m", half, half)), rate)

    def start(self, sim: Sim, rows: np.ndarray) -> None:
        sim.mocap_pos[rows, 0] = sim.site("tcp")[rows]
        sim.ctrl[rows, : len(self.joints)] = sim.qpos[rows, : len(self.joints)]
        sim.ctrl[rows, len(self.joints)] = sim.qpos[rows, len(self.joints)]

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        k = len(self.joints)
        tip, command = sim.site("tcp"), sim.mocap_pos[:, 0]
        ahead = _clip(command - tip + self.step * action[:, :3], -self.lead, self.lead)
        goal = _clip(tip + ahead, self.low, self.high)
        command[:] = goal
        jacobian = self._jacobian(sim, tip)
        error = np.empty((sim.n, 6))
        error[:, :3] = goal - tip
        self._tilt(sim, error[:, 3:])
        square = jacobian.transpose(0, 2, 1) @ jacobian + self._ridge  # rows are joints: J^T
        push = np.linalg.solve(square, error[..., None])
        target = sim.qpos[:, :k] + (jacobian @ push)[..., 0]
        sim.ctrl[:, :k] = _clip(target, sim.ctrl_low[:k], sim.ctrl_high[:k])
        sim.ctrl[:, k] = self.opening / 2 * (1 + action[:, 3])

    def _jacobian(self, sim: Sim, tip: np.ndarray) -> np.ndarray:
        """Returns d(position, rotation)/d(joint) of the tool, `(n, joints, 6)`, hinges only."""
        k = len(self.joints)
        axis = sim.xaxis[:, :k]
        arm = tip[:, None] - sim.xanchor[:, :k]
        out = np.empty((sim.n, k, 6))
        a0, a1, a2 = axis[..., 0], axis[..., 1], axis[..., 2]
        r0, r1, r2 = arm[..., 0], arm[..., 1], arm[..., 2]
        out[..., 0] = a1 * r2 - a2 * r1
        out[..., 1] = a2 * r0 - a0 * r2
        out[..., 2] = a0 * r1 - a1 * r0
        out[..., 3:] = axis
        return out

    def _tilt(self, sim: Sim, out: np.ndarray) -> None:
        """Writes the small rotation `(n, 3)` in rad that turns the tool to down, jaws along y."""
        # Half the sum of (axis now x axis wanted); wanted columns are (-1,0,0), (0,1,0), (0,0,-1).
        now = sim.turn("tcp")
        out[:, 0] = -now[:, 7] - now[:, 5]
        out[:, 1] = -now[:, 6] + now[:, 2]
        out[:, 2] = now[:, 3] + now[:, 1]
        out *= 0.5


def _clip(x: np.ndarray, low, high) -> np.ndarray:
    # np.clip costs three times as much on the few numbers of a single row
    return np.minimum(np.maximum(x, low), high)
