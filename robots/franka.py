"""Franka: what Franka's seven-joint arms share: kinematics, drives, silhouette and hand.

Source: modified Denavit-Hartenberg table, frankaemika/docs (control_parameters.rst); rotor inertia,
masses and hand, franka_description. The Panda's rotor inertia is taken to be the FR3's; servo
stiffness (full torque at 0.04 rad, 0.08 rad in the wrist), the grip (30 N of the hand's 70) and the
radii are assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco

from .chain import BLACK, Drive, Gripper, Link, block, drum, modified, parallel, rod, serial

WHITE = (0.92, 0.92, 0.91, 1)
STIFFNESS = (2175.0, 2175.0, 2175.0, 2175.0, 150.0, 150.0, 150.0)  # Nm/rad
ARMATURE = (0.195, 0.195, 0.195, 0.195, 0.074, 0.074, 0.074)  # kg m^2
_Q = math.pi / 2
TABLE = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -_Q),
    (0.0, 0.316, _Q),
    (0.0825, 0.0, _Q),
    (-0.0825, 0.384, -_Q),
    (0.0, 0.0, _Q),
    (0.088, 0.0, _Q),
    (0.0, 0.107, 0.0),
)  # a (m), d (m), alpha (rad) of the joints, then of the flange
HAND = Gripper(
    masses=(0.73, 0.015),
    palm=(
        drum((0, 0, 0), (0, 0, 0.01), 0.03, BLACK),
        block((0, 0, 0.037), (0.026, 0.1, 0.027), WHITE),
        drum((0, -0.08, 0.045), (0, 0.08, 0.045), 0.03, WHITE),
    ),
    reach=0.1034, finger=0.0564, travel=0.04, speed=0.05, grip=30.0, camera=(0.07, 0, 0.0),
)  # fmt: skip


def arm(masses: Sequence[float], colour, joint, drive: Drive) -> mujoco.MjSpec:
    """Returns the arm with its hand; masses of base and links (8) in kg, two colours (rgba)."""
    frames = [modified(*row) for row in TABLE]
    shapes = _shapes(colour, joint)
    links = [
        Link(mass, parts, *frame)
        for mass, parts, frame in zip(masses[1:], shapes[1:], frames[:-1], strict=True)
    ]
    s, last = serial(Link(masses[0], shapes[0]), links, drive)
    pos, quat = frames[-1]
    last.add_site(name="flange", pos=pos, quat=quat, size=(0.004,) * 3, group=4)
    # The hand is mounted an eighth of a turn back; it is the same turned by half a turn more, as
    # here, so that its y axis is the world's at home.
    parallel(s, last, HAND, pos, (math.sin(math.pi / 8), 0, 0, math.cos(math.pi / 8)))
    return s


def _shapes(colour, joint) -> list[list]:
    """Returns the shapes of base and links, in the joints' frames: z along the joint's axis."""
    return [
        [
            block((-0.05, 0, 0.02), (0.09, 0.08, 0.02), colour),
            rod((-0.06, 0, 0.06), (0, 0, 0.08), 0.055, colour),
            drum((0, 0, 0.02), (0, 0, 0.14), 0.062, colour),
        ],
        [
            drum((0, 0, -0.193), (0, 0, -0.185), 0.058, joint),
            drum((0, 0, -0.185), (0, 0, -0.02), 0.06, colour),
            rod((0, -0.05, 0), (0, 0.05, 0), 0.06, colour),
        ],
        [
            drum((0, 0, 0.07), (0, 0, 0.108), 0.05, joint),
            drum((0, 0, -0.108), (0, 0, -0.07), 0.05, joint),
            rod((0, -0.05, 0), (0, -0.12, 0), 0.06, colour),
            drum((0, -0.12, 0), (0, -0.19, 0), 0.06, colour),
        ],
        [
            drum((0, 0, -0.126), (0, 0, -0.118), 0.058, joint),
            drum((0, 0, -0.118), (0, 0, -0.05), 0.058, colour),
            rod((0, 0, -0.05), (0.075, 0, -0.005), 0.055, colour),
            rod((0.0825, -0.04, 0), (0.0825, 0.04, 0), 0.055, colour),
        ],
        [
            drum((0, 0, -0.1), (0, 0, 0.1), 0.048, joint),
            rod((0, 0, 0), (-0.0825, 0.065, 0), 0.052, colour),
            drum((-0.0825, 0.06, 0), (-0.0825, 0.125, 0), 0.055, colour),
        ],
        [
            drum((0, 0, -0.259), (0, 0, -0.251), 0.053, joint),
            drum((0, 0, -0.251), (0, 0, -0.2), 0.055, colour),
            rod((0, 0.01, -0.2), (0, 0.065, -0.06), 0.045, colour),
            rod((0, 0.07, -0.06), (0, 0.05, 0), 0.042, colour),
        ],
        [
            drum((0, 0, -0.06), (0, 0, 0.06), 0.052, colour),
            drum((0, 0, 0.06), (0, 0, 0.066), 0.046, joint),
            rod((0, 0, 0), (0.075, 0, 0), 0.05, colour),
            rod((0.088, -0.02, 0), (0.088, 0.02, 0), 0.05, colour),
        ],
        [
            drum((0, 0, 0.045), (0, 0, 0.09), 0.048, colour),
            drum((0, 0, 0.09), (0, 0, 0.107), 0.044, joint),
        ],
    ]
