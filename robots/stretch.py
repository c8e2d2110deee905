"""Stretch 3 (Hello Robot): a base on wheels, a lift, a telescoping arm to its right, a wrist.

Source: Hello Robot's robot_params_SE3 and MuJoCo Menagerie's description of its kinematics: wheels,
ranges, the lift's and the head's places, the masses of base and mast. Assumptions: the other
masses, the shapes, the gripper's two straight fingers, and efforts that let it speed up by 1 m/s^2.
"""

from __future__ import annotations

import mujoco
import numpy as np

from .chain import DARK, Gripper, block, drum, parallel, servo, shape
from .wheels import AHEAD, GREY, WHITE, add_base, add_geom

ARM = ("arm_l3", "arm_l2", "arm_l1", "arm_l0")  # telescopes, which move alike
WRIST = ("wrist_yaw", "wrist_pitch", "wrist_roll")
HEAD = ("head_pan", "head_tilt")
JOINTS = ("left_wheel", "right_wheel", *HEAD, "lift", *ARM, *WRIST)
ACTUATORS = ("left_wheel", "right_wheel", *HEAD, "lift", "arm", *WRIST, "gripper")
LIMITS = {  # m, rad
    "lift": (0.0, 1.10),
    "arm": (0.0, 0.52),
    "wrist_yaw": (-1.39, 4.42),
    "wrist_pitch": (-1.57, 0.56),
    "wrist_roll": (-3.14, 3.14),
    "head_pan": (-4.04, 1.73),
    "head_tilt": (-1.53, 0.79),
}
EFFORT = {  # N, Nm
    "lift": 80.0,
    "arm": 40.0,
    "wrist_yaw": 4.0,
    "wrist_pitch": 4.0,
    "wrist_roll": 2.0,
    "head_pan": 2.0,
    "head_tilt": 2.0,
}
VELOCITY = {"lift": 0.15, "arm": 0.4, "wrist_yaw": 2.0, "wrist_pitch": 2.0, "wrist_roll": 2.0}
FORWARD, TURN = 0.3, 1.0  # m/s, rad/s: what it is asked for at most
HOME = {"lift": 0.35, "arm": 0.04, "wrist_pitch": -1.57, "head_pan": -1.1, "head_tilt": -0.85}
OPENING = 0.045  # m that each finger travels
LIFT = (-0.104, 0.135, 0.20)  # m: the lift's lowest, in the base
YAW = (0.083, -0.345, 0.0)  # m: the yaw axis, from the lift, arm retracted
REACH = 0.24  # m: from the pitch axis to between the fingertips
_STIFFNESS = {
    "lift": 2e4, "arm": 4e3, "wrist_yaw": 60.0, "wrist_pitch": 100.0, "wrist_roll": 30.0,
    "head_pan": 20.0, "head_tilt": 20.0,
}  # fmt: skip
_AXIS = {
    "lift": (0, 0, 1), "wrist_yaw": (0, 0, 1), "wrist_pitch": (-1, 0, 0),
    "wrist_roll": (0, -1, 0), "head_pan": (0, 0, 1), "head_tilt": (0, -1, 0),
}  # fmt: skip
_SLIDE = mujoco.mjtJoint.mjJNT_SLIDE
_G = mujoco.mjtGeom


def spec() -> mujoco.MjSpec:
    """Returns the robot on the ground at the origin, facing +x; its arm reaches towards -y.

    Sites `imu`, `lidar`, `ears` and `tcp` (between the fingertips, z along the fingers, y along
    their closing), cameras `head` and `wrist`; actuators are `ACTUATORS`: wheel speeds in rad/s,
    and position servos in m and rad, `arm` of the whole extension.
    """
    s = mujoco.MjSpec()
    base = add_base(s, effort=0.6, speed=9.0, casters=((-0.245, 0, 0),))
    add_geom(base, "chassis", _G.mjGEOM_BOX, (0.165, 0.15, 0.05), (-0.115, 0, 0.095), 13.6)
    base.add_site(name="imu", pos=(-0.1, 0, 0.1), size=(0.004,) * 3, group=4)
    base.add_site(name="lidar", pos=(0, 0, 0.17), size=(0.004,) * 3, group=4)
    mast = base.add_body(name="mast", pos=(-0.067, 0.135, 0.05))
    shape(mast, [drum((0, 0, 0), (0, 0, 1.25), 0.034, GREY)], 1.83)
    _head(s, mast)
    lift = _hinge(s, base, "lift", LIFT)
    shape(lift, [block((0.037, 0, 0), (0.06, 0.055, 0.065), DARK)], 2.0)
    shape(lift, [block((0.083, -0.155, 0.0), (0.026, 0.15, 0.026), GREY)], 0.6)
    _wrist(s, _arm(s, lift))
    for body in s.bodies:
        body.gravcomp = 0.0  # the base has to carry it, and can tip over
    return s


def home() -> np.ndarray:
    """Returns the coordinates `(21,)` of the home pose, the gripper down and open.

    Place (m), quaternion, wheels (rad), head (rad), lift and the telescopes (m), wrist (rad),
    fingers (m): in the order of qpos.
    """
    head = [HOME[name] for name in HEAD]
    wrist = [HOME.get(name, 0.0) for name in WRIST]
    arm = [HOME["lift"], *[HOME["arm"] / 4] * 4]
    return np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, *head, *arm, *wrist, OPENING, OPENING])


def hold() -> np.ndarray:
    """Returns the controls `(10,)` that hold the home pose, but for what gives way to weight."""
    return np.array([0, 0, *[HOME.get(name, 0.0) for name in ACTUATORS[2:-1]], OPENING])


def _hinge(s: mujoco.MjSpec, parent, name: str, pos) -> mujoco.MjsBody:
    """Adds a body with a joint of its name, and a servo."""
    body = parent.add_body(name=name, pos=pos)
    kind = _SLIDE if name == "lift" else mujoco.mjtJoint.mjJNT_HINGE
    body.add_joint(name=name, type=kind, axis=_AXIS[name], range=LIMITS[name], armature=0.02)
    servo(s, name, name, _STIFFNESS[name], LIMITS[name], EFFORT[name])
    return body


def _arm(s: mujoco.MjSpec, lift: mujoco.MjsBody) -> mujoco.MjsBody:
    """Adds four telescopes, each within the one before; returns the last."""
    body, each = lift, LIMITS["arm"][1] / len(ARM)
    whole = s.add_tendon(name="arm")
    for k, name in enumerate(ARM):
        body = body.add_body(name=name)
        body.add_joint(
            name=name, type=_SLIDE, axis=(0, -1, 0), range=(0, each), armature=0.1, damping=2.0
        )
        half = 0.022 - 0.004 * k
        tube = block((YAW[0], -0.175, 0), (half, 0.14, half), WHITE if k % 2 else GREY)
        shape(body, [tube], 0.3)
        whole.wrap_joint(name, 1.0)
        if k:
            s.add_equality(
                name=name, type=mujoco.mjtEq.mjEQ_JOINT, name1=name, name2=ARM[0],
                objtype=mujoco.mjtObj.mjOBJ_JOINT, data=[0.0, 1.0] + [0.0] * 10,
            )  # fmt: skip
    tendon = mujoco.mjtTrn.mjTRN_TENDON
    servo(s, "arm", "arm", _STIFFNESS["arm"], LIMITS["arm"], EFFORT["arm"], tendon)
    return body


def _wrist(s: mujoco.MjSpec, arm: mujoco.MjsBody) -> None:
    yaw = _hinge(s, arm, "wrist_yaw", YAW)
    shape(yaw, [drum((0, 0, -0.025), (0, 0, 0.045), 0.024, DARK)], 0.25)
    pitch = _hinge(s, yaw, "wrist_pitch", (0, 0, 0))
    shape(pitch, [drum((-0.03, 0, 0), (0.03, 0, 0), 0.018, GREY)], 0.15)
    roll = _hinge(s, pitch, "wrist_roll", (0, 0, 0))
    shape(roll, [drum((0, -0.03, 0), (0, -0.07, 0), 0.02, DARK)], 0.15)
    palm = [block((0, 0, 0.03), (0.022, 0.055, 0.03), DARK)]
    # Fingers along -y, closing along x.
    jaws = Gripper((0.25, 0.04), palm, REACH - 0.07, 0.10, OPENING, 0.15, 20.0, (0.07, 0, 0.0))
    turn = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)
    mujoco.mju_mat2Quat(quat := np.empty(4), turn.ravel())
    parallel(s, roll, jaws, (0, -0.07, 0), quat)


def _head(s: mujoco.MjSpec, mast: mujoco.MjsBody) -> None:
    pan = _hinge(s, mast, "head_pan", (0.0, 0, 1.31 - 0.03))
    shape(pan, [drum((0, 0, -0.02), (0, 0, 0.03), 0.03, DARK)], 0.2)
    tilt = _hinge(s, pan, "head_tilt", (0, 0, 0.03))
    shape(tilt, [block((0.02, 0, 0.02), (0.02, 0.05, 0.02), WHITE)], 0.2)
    tilt.add_camera(name="head", pos=(0.045, 0, 0.02), quat=AHEAD, fovy=70)
    tilt.add_site(name="ears", pos=(0.02, 0, 0.02), quat=AHEAD, size=(0.004,) * 3, group=4)
