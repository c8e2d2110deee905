"""FR3: Franka Research 3, the Panda's successor: other limits, masses and colours."""

from __future__ import annotations

import mujoco
import numpy as np

from . import franka
from .chain import DARK, Drive

JOINTS = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "joint7")
HOME = (
    0.0,
    -0.0871,
    0.0,
    -2.5418,
    0.0,
    2.4547,
    0.7854,
)  # rad: the tool down over the middle of the work area
JAWS = (0.0, 0.04)  # m: what the gripper's servo is told to close and to open
WIDTH = 0.08  # m between the fingers, open
LIMITS = (
    (-2.7437, 2.7437),
    (-1.7837, 1.7837),
    (-2.9007, 2.9007),
    (-3.0421, -0.1518),
    (-2.8065, 2.8065),
    (0.5445, 4.5169),
    (-3.0159, 3.0159),
)  # rad
VELOCITY = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)  # rad/s
EFFORT = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # Nm
MOUNT = (-0.05, 0.0, 0.0)  # m: where its base stands on a table

# kg: base (an assumption), then the links. Source: frankarobotics/franka_description.
MASSES = (2.9, 2.927, 2.936, 2.245, 2.616, 2.327, 1.817, 0.627)


def spec() -> mujoco.MjSpec:
    """Returns the arm, base at the origin, facing +x; see `chain.parallel` for its hand."""
    drive = Drive(JOINTS, LIMITS, VELOCITY, EFFORT, franka.STIFFNESS, franka.ARMATURE)
    return franka.arm(MASSES, franka.WHITE, DARK, drive)


def home() -> np.ndarray:
    """Returns the joint positions `(9,)` of the home pose, jaws open (rad, then m)."""
    return np.array([*HOME, JAWS[1], JAWS[1]])
