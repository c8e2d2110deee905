"""A lean six-joint arm with a parallel gripper (7 actuators), primitive geoms only; `spec()`."""

from __future__ import annotations

import mujoco
import numpy as np

JOINTS = ("waist", "shoulder", "elbow", "forearm", "wrist", "tool")
ACTUATORS = (*JOINTS, "gripper")
HOME = (0.0, 0.30, 1.98, 0.0, 0.8616, 0.0)  # rad: shoulder + elbow + wrist = pi, the tool down
OPENING = 0.04  # m that each finger travels: the jaws open to twice that
JAWS = (0.0, 0.04)  # m: what the gripper's servo is told to close and to open
VELOCITY = (2.0, 2.0, 2.0, 3.0, 3.0, 3.0)  # rad/s
EFFORT = (90.0, 90.0, 60.0, 20.0, 20.0, 10.0)  # Nm
MOUNT = (0.0, 0.0, 0.0)  # m: where its base stands on a table

_LOOK_ALONG_FINGERS = (-0.147, 0.6916, -0.6916, 0.147)

_DARK, _LIGHT, _PAD = (0.22, 0.23, 0.26, 1), (0.82, 0.83, 0.85, 1), (0.1, 0.1, 0.11, 1)
# name, offset in the parent (m), axis, range (rad), force (Nm), stiffness (Nm/rad), link length (m)
_CHAIN = (
    ("waist", (0, 0, 0.16), (0, 0, 1), 2.9, 90.0, 800.0, 0.12),
    ("shoulder", (0, 0, 0.12), (0, 1, 0), 2.2, 90.0, 800.0, 0.36),
    ("elbow", (0, 0, 0.36), (0, 1, 0), 2.6, 60.0, 500.0, 0.18),
    ("forearm", (0, 0, 0.18), (0, 0, 1), 2.9, 20.0, 120.0, 0.18),
    ("wrist", (0, 0, 0.18), (0, 1, 0), 2.2, 20.0, 120.0, 0.08),
    ("tool", (0, 0, 0.08), (0, 0, 1), 2.9, 10.0, 60.0, 0.03),
)


def spec() -> mujoco.MjSpec:
    """Returns the arm, base at the origin, facing +x; site `tcp` lies between the fingertips.

    Joint order is `JOINTS`, then `left` and `right` (slides, m); actuators are `ACTUATORS`:
    joint position servos in rad, and the gripper's in m of finger travel (0 closed).
    """
    s = mujoco.MjSpec()
    s.compiler.degree = False
    body = s.worldbody.add_body(name="base")
    _geom(body, "base", mujoco.mjtGeom.mjGEOM_CYLINDER, (0.07, 0.08, 0), (0, 0, 0.08), 3.0, _DARK)
    for i, (name, pos, axis, limit, force, stiffness, length) in enumerate(_CHAIN):
        body = body.add_body(name=name, pos=pos, gravcomp=1)
        body.add_joint(
            name=name, axis=axis, range=(-limit, limit), armature=0.1 if i < 3 else 0.03, damping=1
        )
        radius = 0.05 - 0.005 * i
        _geom(
            body, name, mujoco.mjtGeom.mjGEOM_CAPSULE, (radius, length / 2, 0), (0, 0, length / 2),
            2.0 / (i + 1), _LIGHT if i % 2 == 0 else _DARK,
        )  # fmt: skip
        _servo(s, name, stiffness, (-limit, limit), force)
    _gripper(s, body)
    return s


def home() -> np.ndarray:
    """Returns the joint positions `(8,)` of the home pose, gripper open (rad, then m)."""
    return np.array([*HOME, OPENING, OPENING])


def _gripper(s: mujoco.MjSpec, wrist: mujoco.MjsBody) -> None:
    palm = wrist.add_body(name="palm", pos=(0, 0, 0.05), gravcomp=1)
    _geom(palm, "palm", mujoco.mjtGeom.mjGEOM_BOX, (0.025, 0.06, 0.02), (0, 0, 0), 0.3, _DARK)
    palm.add_site(name="tcp", pos=(0, 0, 0.105), size=(0.004,) * 3, group=4)
    # Looks along the fingers, tilted towards the point between their tips.
    palm.add_camera(name="wrist", pos=(0.08, 0, -0.02), fovy=70, quat=_LOOK_ALONG_FINGERS)
    for name, side in (("left", 1), ("right", -1)):
        finger = palm.add_body(name=name, pos=(0, side * 0.008, 0.02), gravcomp=1)
        finger.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, side, 0), range=(0, OPENING),
            armature=0.05, damping=2,
        )  # fmt: skip
        g = _geom(
            finger,
            name,
            mujoco.mjtGeom.mjGEOM_BOX,
            (0.012, 0.007, 0.045),
            (0, 0, 0.055),
            0.05,
            _PAD,
        )
        g.friction = (1.5, 0.02, 0.001)
        g.condim = 4
    s.add_equality(
        name="jaws", type=mujoco.mjtEq.mjEQ_JOINT, name1="left", name2="right",
        objtype=mujoco.mjtObj.mjOBJ_JOINT, data=[0.0, 1.0] + [0.0] * 10,
    )  # fmt: skip
    _servo(s, "gripper", 1500, (0, OPENING), 40, joint="left")


def _geom(body, name, kind, size, pos, mass, rgba):
    # The arm meets the world (contype 1) but never itself.
    return body.add_geom(
        name=name, type=kind, size=size, pos=pos, mass=mass, rgba=rgba, contype=2, conaffinity=1
    )


def _servo(s: mujoco.MjSpec, name, stiffness, limits, force, joint=None) -> None:
    a = s.add_actuator(
        name=name, target=joint or name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=limits,
        forcerange=(-force, force), ctrllimited=1, forcelimited=1,
    )  # fmt: skip
    a.set_to_position(kp=stiffness, dampratio=1.0)
