"""Ik: joint targets that bring an arm's tool where it should be; damped least squares, batched."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from ..robots.body import Body
from .sim import Sim

# An arm a joint short of six is led to the place, then turned by what leaves it there. Damping of
# its way there, of what counts as leaving it there (m), and of its turns (rad), each squared.
_THERE, _KEPT, _TURNS = 4e-4, 1e-6, 0.09
# Rad that a joint goes a step at most, for the place and for a turn: by longer steps a short arm
# does not go where the Jacobian says.
_GONE, _TURNED = 0.15, 0.1
_MOTOR = int(mujoco.mjtBias.mjBIAS_NONE)
_PULL = 0.1  # of the way home a step, in what the tool does not feel of a seventh joint


@dataclass(frozen=True)
class Tool:
    """Where one arm is in a simulation: live views of its n rows."""

    q: np.ndarray  # (n, k) joint positions, rad
    dq: np.ndarray  # (n, k) rad/s
    ctrl: np.ndarray  # (n, k) its servos' targets
    jaws: np.ndarray  # (n,) its gripper's target
    finger: np.ndarray  # (n,) the first jaw joint's position
    tip: np.ndarray  # (n, 3) m, between the fingertips
    turn: np.ndarray  # (n, 9) the tool's rotation matrix, row by row
    axis: np.ndarray  # (n, k, 3) of the joints, in the world
    anchor: np.ndarray  # (n, k, 3) m
    low: np.ndarray  # (k,) of the servos, or of the joints that motors turn; rad
    high: np.ndarray
    goal: np.ndarray  # (n, 3) m, the commanded place: a mocap body
    heading: np.ndarray  # (n, 4) the commanded direction, a quaternion
    down: np.ndarray | None  # (3, 3) the tool looking down, of an arm whose base is turned


class Ik:
    """One damped step from where the joints are towards where the tool should be.

    Source: damped least squares, Buss 2004, "Introduction to inverse kinematics", eq. 11.
    """

    def __init__(self, body: Body, prefix: str = "", damping: float = 0.02):
        self.body, self.prefix = body, prefix
        self._ridge = damping**2 * np.eye(6)

    def tool(self, sim: Sim) -> Tool:
        """Returns the views of this arm in `sim`."""
        return sim.once(("tool", self.prefix), lambda: self._views(sim))

    def _views(self, sim: Sim) -> Tool:
        m, name, k = sim.model, self.prefix, len(self.body.joints)
        first = m.joint(name + self.body.joints[0])
        a, j = m.actuator(name + self.body.joints[0]).id, first.id
        q, v = int(first.qposadr[0]), int(first.dofadr[0])
        command = int(m.body(name + "command").mocapid[0])
        low, high = sim.ctrl_low[a : a + k], sim.ctrl_high[a : a + k]
        if int(m.actuator_biastype[a]) == _MOTOR:
            low, high = m.jnt_range[j : j + k].T
        return Tool(
            sim.qpos[:, q : q + k], sim.qvel[:, v : v + k], sim.ctrl[:, a : a + k],
            sim.ctrl[:, a + k], sim.qpos[:, q + k], sim.site(name + "tcp"),
            sim.turn(name + "tcp"), sim.xaxis[:, j : j + k], sim.xanchor[:, j : j + k],
            low, high, sim.mocap_pos[:, command], sim.mocap_quat[:, command], self._down(m),
        )  # fmt: skip

    def _down(self, model: mujoco.MjModel) -> np.ndarray | None:
        turned = model.body(self.prefix + "base").quat
        if turned[0] == 1:
            return None
        return rotation(turned[None])[0] @ np.diag([-1.0, 1.0, -1.0])

    def solve(self, tool: Tool, goal: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
        """Returns joint targets `(n, k)` in rad, within the servos' range, one step nearer.

        goal: `(n, 3)` m. frame: the tool's wanted rotation `(n, 3, 3)`, default straight down with
        the jaws along the base's y.
        """
        jacobian = self.jacobian(tool)
        error = np.empty((len(goal), 6))
        error[:, :3] = goal - tool.tip
        if frame is None and tool.down is not None:
            frame = np.broadcast_to(tool.down, (len(goal), 3, 3))
        if frame is None:
            tilt(tool.turn, error[:, 3:])
        else:
            error[:, 3:] = turning(tool.turn.reshape(-1, 3, 3), frame)
        if tool.q.shape[1] < 6:
            return self._ordered(tool, jacobian, error)
        square = jacobian.transpose(0, 2, 1) @ jacobian + self._ridge  # rows are joints: J^T
        if tool.q.shape[1] > 6:  # what the tool does not feel goes towards home
            rest = _PULL * (np.array(self.body.home[: tool.q.shape[1]]) - tool.q)
            error -= (jacobian.transpose(0, 2, 1) @ rest[..., None])[..., 0]
        push = np.linalg.solve(square, error[..., None])
        target = tool.q + (jacobian @ push)[..., 0]
        if tool.q.shape[1] > 6:
            target += rest
        return np.minimum(np.maximum(target, tool.low), tool.high)

    def _ordered(self, tool: Tool, jacobian: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Returns targets `(n, k)` in rad for the place, turned as far as that leaves it alone.

        Joints that would go beyond their range stop, and the others do their part.
        Source: task priority, Nakamura, Hanafusa and Yoshikawa 1987, "Task-priority based
        redundancy control of robot manipulators"; here both inverses are damped.
        """
        free = np.ones((*tool.q.shape, 1), bool)
        for _ in range(2):
            there = jacobian[..., :3] * free
            square = there.transpose(0, 2, 1) @ there + _THERE * np.eye(3)
            step = (there @ np.linalg.solve(square, error[:, :3, None]))[..., 0]
            wanted = tool.q + _short(step, _GONE)
            start = np.minimum(np.maximum(wanted, tool.low), tool.high)
            free = free & (start == wanted)[..., None]
        moved = jacobian[..., 3:].transpose(0, 2, 1) @ (start - tool.q)[..., None]
        left = error[:, 3:, None] - moved
        for _ in range(3):
            there, turns = jacobian[..., :3] * free, jacobian[..., 3:] * free
            back = there.transpose(0, 2, 1)
            held = there @ np.linalg.inv(back @ there + _KEPT * np.eye(3))
            turns = turns - held @ (back @ turns)  # what turns the tool and does not move it
            square = turns.transpose(0, 2, 1) @ turns + _TURNS * np.eye(3)
            step = (turns @ np.linalg.solve(square, left))[..., 0]
            wanted = start + _short(step, _TURNED)
            target = np.minimum(np.maximum(wanted, tool.low), tool.high)
            free = free & (target == wanted)[..., None]
        return target

    def jacobian(self, tool: Tool) -> np.ndarray:
        """Returns d(position, rotation)/d(joint) of the tool, `(n, joints, 6)`, hinges only."""
        axis = tool.axis
        arm = tool.tip[:, None] - tool.anchor
        out = np.empty((*axis.shape[:2], 6))
        a0, a1, a2 = axis[..., 0], axis[..., 1], axis[..., 2]
        r0, r1, r2 = arm[..., 0], arm[..., 1], arm[..., 2]
        out[..., 0] = a1 * r2 - a2 * r1
        out[..., 1] = a2 * r0 - a0 * r2
        out[..., 2] = a0 * r1 - a1 * r0
        out[..., 3:] = axis
        return out


def _short(step: np.ndarray, most: float) -> np.ndarray:
    """Returns the steps `(n, k)`, shortened so that no joint goes farther than `most`."""
    return most / np.maximum(np.abs(step).max(1, keepdims=True), most) * step


def tilt(turn: np.ndarray, out: np.ndarray) -> None:
    """Writes the small rotation `(n, 3)` in rad that turns `turn` (n, 9) down, jaws along y."""
    # Half the sum of (axis now x axis wanted); wanted columns are (-1,0,0), (0,1,0), (0,0,-1).
    out[:, 0] = -turn[:, 7] - turn[:, 5]
    out[:, 1] = -turn[:, 6] + turn[:, 2]
    out[:, 2] = turn[:, 3] + turn[:, 1]
    out *= 0.5


def turning(now: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the small rotation `(n, 3)` in rad, in the world, from now to wanted `(n, 3, 3)`."""
    return 0.5 * np.cross(now, wanted, axisa=1, axisb=1, axisc=1).sum(2)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Returns the rotation matrices `(n, 3, 3)` of unit quaternions `(n, 4)`, w first."""
    w, x, y, z = quaternion.T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], 1)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the quaternions `(n, 4)` of turning by b `(n, 4)`, then by a, w first."""
    aw, ax, ay, az = a.T
    bw, bx, by, bz = b.T
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        1,
    )


def quaternion(vector: np.ndarray) -> np.ndarray:
    """Returns the unit quaternions `(n, 4)` of rotation vectors `(n, 3)` in rad."""
    angle = np.sqrt(np.einsum("ij,ij->i", vector, vector))
    half = 0.5 * angle[:, None]
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * vector], 1)
