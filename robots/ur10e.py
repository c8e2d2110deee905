"""UR10e: Universal Robots' six-joint arm of 1.3 m reach, with a parallel gripper."""

from __future__ import annotations

import mujoco
import numpy as np

from . import ur
from .chain import Drive

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
HOME = (
    2.8902,
    -1.4313,
    2.0275,
    -2.1669,
    -1.5708,
    1.3194,
)  # rad: the tool down over the middle of the work area
JAWS = (0.0, 0.04)  # m: what the gripper's servo is told to close and to open
WIDTH = 0.08  # m between the fingers, open
LIMITS = (
    (-6.283185, 6.283185),
    (-6.283185, 6.283185),
    (-3.141592, 3.141592),
    (-6.283185, 6.283185),
    (-6.283185, 6.283185),
    (-6.283185, 6.283185),
)  # rad
VELOCITY = (2.0944, 2.0944, 3.1416, 3.1416, 3.1416, 3.1416)  # rad/s
EFFORT = (330.0, 330.0, 150.0, 56.0, 56.0, 56.0)  # Nm
MOUNT = (-0.3, 0.0, 0.0)  # m: where its base stands at a table

A = (0.0, -0.6127, -0.57155, 0.0, 0.0, 0.0)  # m
D = (0.1807, 0.0, 0.0, 0.17415, 0.11985, 0.11655)  # m
MASSES = (4.0, 7.369, 13.051, 3.989, 2.1, 1.98, 0.615)  # kg: base (an assumption), then the links
SIZE = ur.Size(
    base=0.095,
    shoulder=0.075,
    elbow=0.06,
    wrist=0.05,
    upper=0.06,
    fore=0.047,
    aside=0.1762,
    back=0.0393,
)  # m
STIFFNESS = (8250.0, 8250.0, 3750.0, 700.0, 700.0, 700.0)  # Nm/rad
ARMATURE = (1.0, 1.0, 0.5, 0.1, 0.1, 0.1)  # kg m^2


def spec() -> mujoco.MjSpec:
    """Returns the arm, base at the origin, in the frame of its Denavit-Hartenberg table.

    At joint angles 0 it lies stretched along -x; at `HOME` it faces +x. See `chain.parallel` for
    the gripper.
    """
    drive = Drive(JOINTS, LIMITS, VELOCITY, EFFORT, STIFFNESS, ARMATURE)
    return ur.arm(A, D, MASSES, SIZE, drive)


def home() -> np.ndarray:
    """Returns the joint positions `(8,)` of the home pose, jaws open (rad, then m)."""
    return np.array([*HOME, JAWS[1], JAWS[1]])
