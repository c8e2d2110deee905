"""Ur: what Universal Robots' e-Series arms share: tubes between offset joints, and their gripper.

Source: Denavit-Hartenberg tables and masses, universal-robots.com (DH page); joint limits and
lateral offsets of the links, Universal_Robots_ROS2_Description. Servo stiffness (full torque at
0.04 rad, 0.08 rad in the wrist), rotor inertia and the gripper (about a Robotiq 2F-85's size and
mass) are assumptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco

from .chain import BLACK, DARK, Drive, Gripper, Link, block, drum, parallel, rod, serial, standard

_GREY, _BLUE, _STEEL = (0.72, 0.73, 0.75, 1), (0.33, 0.60, 0.80, 1), (0.45, 0.46, 0.48, 1)
ALPHA = (1.5707963267948966, 0.0, 0.0, 1.5707963267948966, -1.5707963267948966, 0.0)  # rad
GRIPPER = Gripper(
    masses=(0.81, 0.05),
    palm=(
        drum((0, 0, 0), (0, 0, 0.02), 0.037, BLACK),
        block((0, 0, 0.055), (0.03, 0.05, 0.035), DARK),
    ),
    reach=0.15, finger=0.07, travel=0.04, speed=0.075, grip=30.0, camera=(0.08, 0, 0.02),
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How thick an arm of the family is (m): its radii, and how far aside its tubes run."""

    base: float
    shoulder: float
    elbow: float
    wrist: float
    upper: float
    fore: float
    aside: float  # of the upper arm, along the shoulder's axis
    back: float  # of the forearm, along the same


def arm(
    a: Sequence[float], d: Sequence[float], masses: Sequence[float], size: Size, drive: Drive
) -> mujoco.MjSpec:
    """Returns the arm with its gripper; a, d in m, masses of base and links in kg (7)."""
    frames = [standard(*row) for row in zip(a, d, ALPHA, strict=True)]
    shapes = _shapes(a, d, size)
    base = Link(masses[0], shapes[0])
    links = [
        Link(mass, parts, *frame)
        for mass, parts, frame in zip(
            masses[1:], shapes[1:], [((0, 0, 0), (1, 0, 0, 0)), *frames[:-1]], strict=True
        )
    ]
    s, hand = serial(base, links, drive)
    pos, quat = frames[-1]
    hand.add_site(name="flange", pos=pos, quat=quat, size=(0.004,) * 3, group=4)
    parallel(s, hand, GRIPPER, pos, quat)
    return s


def _shapes(a: Sequence[float], d: Sequence[float], size: Size) -> list[list]:
    """Returns the shapes of base and links, in the joints' frames: z along the joint's axis."""
    big, mid, small = size.shoulder, size.elbow, size.wrist
    side, near = size.aside, size.back
    return [
        [
            drum((0, 0, 0), (0, 0, 0.025), size.base, _STEEL),
            drum((0, 0, 0.025), (0, 0, d[0] - big - 0.02), big, _GREY),
        ],
        [
            drum((0, 0, d[0] - big - 0.02), (0, 0, d[0]), big, _GREY),
            drum((0, big + 0.005, d[0]), (0, -(side - big), d[0]), big, _GREY),
            drum((0, big + 0.005, d[0]), (0, big + 0.018, d[0]), 0.9 * big, _BLUE),
        ],
        [
            drum((0, 0, side - big), (0, 0, side + big), big, _GREY),
            drum((0, 0, side + big), (0, 0, side + big + 0.013), 0.9 * big, _BLUE),
            drum((0, 0, side), (a[1], 0, side), size.upper, _STEEL),
            drum((a[1], 0, side - mid), (a[1], 0, side + mid), mid, _GREY),
            drum((a[1], 0, side + mid), (a[1], 0, side + mid + 0.012), 0.9 * mid, _BLUE),
        ],
        [
            drum((0, 0, near - mid), (0, 0, side - mid), mid, _GREY),
            drum((0, 0, near - mid - 0.012), (0, 0, near - mid), 0.9 * mid, _BLUE),
            drum((0, 0, near), (a[2], 0, near), size.fore, _STEEL),
            drum((a[2], 0, near - small), (a[2], 0, d[3] - small), small, _GREY),
            drum((a[2], 0, near - small - 0.01), (a[2], 0, near - small), 0.9 * small, _BLUE),
        ],
        [
            rod((0, 0, d[3] - small / 2), (0, 0, d[3]), small, _GREY),
            drum((0, 0, d[3]), (0, -(d[4] - small), d[3]), small, _GREY),
            drum((0, small, d[3]), (0, small + 0.01, d[3]), 0.9 * small, _BLUE),
        ],
        [
            rod((0, 0, d[4] - small / 2), (0, 0, d[4]), small, _GREY),
            drum((0, 0, d[4]), (0, d[5] - 0.035, d[4]), small, _GREY),
            drum((0, -small, d[4]), (0, -small - 0.01, d[4]), 0.9 * small, _BLUE),
        ],
        [drum((0, 0, d[5] - 0.035), (0, 0, d[5]), 0.9 * small, _STEEL)],
    ]
