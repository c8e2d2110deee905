"""Panda: Franka Emika's seven-joint arm with its hand."""

from __future__ import annotations

import mujoco
import numpy as np

from . import franka
from .chain import Drive

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
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)  # rad
VELOCITY = (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61)  # rad/s
EFFORT = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # Nm
MOUNT = (-0.05, 0.0, 0.0)  # m: where its base stands on a table

# kg: base, then the links. Source: franka_description, after Gaz et al. 2019,
# "Dynamic identification of the Franka Emika Panda robot"; the base is an assumption.
MASSES = (2.9, 4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522)


def spec() -> mujoco.MjSpec:
    """Returns the arm, base at the origin, facing +x; see `chain.parallel` for its hand."""
    drive = Drive(JOINTS, LIMITS, VELOCITY, EFFORT, franka.STIFFNESS, franka.ARMATURE)
    return franka.arm(MASSES, franka.WHITE, franka.WHITE, drive)


def home() -> np.ndarray:
    """Returns the joint positions `(9,)` of the home pose, jaws open (rad, then m)."""
    return np.array([*HOME, JAWS[1], JAWS[1]])
