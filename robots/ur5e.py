"""UR5e: Universal Robots' six-joint arm of 0.85 m reach, with a parallel gripper."""

from __future__ import annotations

import mujoco
import numpy as np

from . import ur
from .chain import Drive

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
HOME = (
    2.8338,
    -1.6853,
    2.037,
    -1.9225,
    -1.5708,
    1.263,
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
VELOCITY = (3.1416, 3.1416, 3.1416, 3.1416, 3.1416, 3.1416)  # rad/s
EFFORT = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)  # Nm
MOUNT = (-0.04, 0.0, 0.0)  # m: where its base stands at a table

A = (0.0, -0.425, -0.3922, 0.0, 0.0, 0.0)  # m
D = (0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996)  # m
MASSES = (4.0, 3.761, 8.058, 2.846, 1.37, 1.3, 0.365)  # kg: base (an assumption), then the links
SIZE = ur.Size(
    base=0.075,
    shoulder=0.06,
    elbow=0.054,
    wrist=0.042,
    upper=0.048,
    fore=0.04,
    aside=0.138,
    back=0.007,
)  # m
STIFFNESS = (3750.0, 3750.0, 3750.0, 350.0, 350.0, 350.0)  # Nm/rad
ARMATURE = (0.5, 0.5, 0.5, 0.1, 0.1, 0.1)  # kg m^2


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
