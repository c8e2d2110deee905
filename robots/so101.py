"""SO-101: the five-joint open hobby arm of printed parts and bus servos, with one moving jaw.

Source: TheRobotStudio/SO-ARM100, `so101_new_calib` (zero at mid range): where joints are, limits,
masses; the servos as identified there (stiffness, rotor inertia, viscous and dry friction, torque)
and the STS3215's datasheet at 12 V (speed). The shapes, and how masses are shared among a link's
parts, are ours.
"""

from __future__ import annotations

import mujoco
import numpy as np

from .chain import (
    BLACK,
    PAD,
    Drive,
    Link,
    Shape,
    block,
    drum,
    grips,
    rod,
    serial,
    servo,
    shape,
    tool,
)

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
HOME = (-0.0966, 0.0243, 0.5527, 0.9938, -1.6674)  # rad: the tool down over the work area
JAWS = (-0.1745, 1.0)  # rad: the jaw closed, and as far open as tasks ask (it goes on to 1.745)
WIDTH = 0.0825  # m between the fingertips, open
LIMITS = ((-1.92, 1.92), (-1.745, 1.745), (-1.69, 1.69), (-1.658, 1.658), (-2.744, 2.841))  # rad
VELOCITY = (4.71, 4.71, 4.71, 4.71, 4.71)  # rad/s
EFFORT = (2.94, 2.94, 2.94, 2.94, 2.94)  # Nm
MOUNT = (0.185, 0.0, 0.12)  # m: where its base stands at a table, on a block
PACE = 0.6  # of other arms' speed under a script: in 30 ms it is where it is told to be, and hits

STIFFNESS, ARMATURE, FRICTION = 998.2, 0.028, 0.052  # Nm/rad, kg m^2, Nm
_JAW = (-0.1745, 1.745)  # rad
_PRINT = (0.98, 0.72, 0.12, 1)
# In the world at joint angles 0, when all frames are the base's: m.
_PLACES = (
    (0.0388, 0.0, 0.0624),
    (0.0692, -0.0183, 0.1166),
    (0.0972, -0.0183, 0.2292),
    (0.2321, -0.0183, 0.2344),
    (0.2932, 0.0, 0.2344),
)
_AXES = ((0, 0, -1), (0, 1, 0), (0, 1, 0), (0, 1, 0), (-1, 0, 0))
# In the palm's frame: the makers' gripper frame, at the fixed jaw's tip, and the jaw's pivot.
_TIP, _PIVOT = (0.0, 0.00793, 0.09816), (-0.0176, -0.0211, 0.0234)
_MASSES = (0.147, 0.100, 0.103, 0.104, 0.079, 0.060)  # kg; the last link's palm has 0.027 more
_GRASP = 0.025  # m from the fixed jaw to `tcp`: room for a thing 4 cm wide, a little askew


def spec() -> mujoco.MjSpec:
    """Returns the arm, base at the origin, facing +x; joints are `JOINTS`, then `jaw` (rad).

    `flange` is the makers' gripper frame, at the fixed jaw's tip; `tcp` is 2.5 cm from it, towards
    the moving jaw, where things are held. The geoms `left` and `right` are the fixed and the moving
    tip.
    From `MOUNT` it reaches all of the work area within 45 degrees of straight down, but not what is
    over 0.15 m high and less than 0.1 m ahead of its first joint.
    """
    drive = Drive(JOINTS, LIMITS, VELOCITY, EFFORT, (STIFFNESS,) * 5, (ARMATURE,) * 5, FRICTION)
    shapes, before = _shapes(), ((0.0, 0.0, 0.0), *_PLACES[:-1])
    links = [
        Link(mass, parts, tuple(p - q for p, q in zip(place, last, strict=True)), axis=axis)
        for mass, parts, place, last, axis in zip(
            _MASSES[1:], shapes[1:], _PLACES, before, _AXES, strict=True
        )
    ]
    s, hand = serial(Link(_MASSES[0], shapes[0]), links, drive)
    _jaws(s, hand)
    return s


def home() -> np.ndarray:
    """Returns the joint positions `(6,)` of the home pose, the jaw open (rad)."""
    return np.array([*HOME, JAWS[1]])


def _jaws(s: mujoco.MjSpec, hand: mujoco.MjsBody) -> None:
    """Adds the jaws to a palm with z along them, y from the moving to the fixed one."""
    x, y, z = _TIP
    palm = hand.add_body(name="palm", quat=(0.5, -0.5, 0.5, -0.5), gravcomp=1)
    wall = block((x, y + 0.012, 0.05), (0.014, 0.004, 0.05), _PRINT)
    pad = block((x, y + 0.004, z - 0.012), (0.011, 0.004, 0.022), PAD)
    grips(shape(palm, [wall, pad], 0.027)[1], "left")
    palm.add_site(name="flange", pos=_TIP, size=(0.004,) * 3, group=4)
    tool(palm, (x, y - _GRASP, z), (0.075, -0.02, -0.005))
    jaw = palm.add_body(name="jaw", pos=_PIVOT, gravcomp=1)
    jaw.add_joint(
        name="jaw", axis=(1, 0, 0), range=_JAW, ref=_JAW[0], armature=ARMATURE,
        damping=EFFORT[0] / VELOCITY[0], frictionloss=FRICTION,
    )  # fmt: skip
    grips(shape(jaw, _closed(), 0.012)[0], "right")
    # Half its torque, as the makers set it, so that it does not burn out.
    servo(s, "gripper", "jaw", STIFFNESS, JAWS, EFFORT[0] / 2)


def _closed() -> list[Shape]:
    """Returns the moving jaw's shapes as it touches the fixed pad with its round tip."""
    x, y, z = (t - p for t, p in zip(_TIP, _PIVOT, strict=True))
    r = 0.007
    return [
        rod((x - 0.007, y - r, z), (x + 0.007, y - r, z), r, PAD),
        rod((x, y - r - 0.004, z - 0.003), (x, y - 0.022, 0.04), 0.008, _PRINT),
        rod((x, y - 0.022, 0.04), (x, 0, 0), 0.01, _PRINT),
        drum((0.002, 0, 0), (0.036, 0, 0), 0.013, BLACK),
    ]


def _shapes() -> list[list[Shape]]:
    """Returns the shapes of base and links, as seen at joint angles 0: x ahead, z up."""
    return [
        [
            block((0.015, 0, 0.006), (0.06, 0.05, 0.006), _PRINT),
            block((0.03, 0, 0.03), (0.034, 0.03, 0.02), _PRINT),
            block((0.03, 0, 0.036), (0.025, 0.034, 0.012), BLACK),
        ],
        [
            drum((0, 0, -0.012), (0, 0, 0.004), 0.022, BLACK),
            block((0.005, 0, 0.018), (0.024, 0.022, 0.014), _PRINT),
            block((0.018, 0, 0.045), (0.024, 0.024, 0.014), BLACK),
            drum((0.0304, -0.032, 0.0542), (0.0304, 0.032, 0.0542), 0.014, _PRINT),
        ],
        [
            block((0.0, -0.012, 0.05), (0.013, 0.003, 0.05), _PRINT),
            block((0.0, 0.0486, 0.05), (0.013, 0.003, 0.05), _PRINT),
            block((0.012, 0.0183, 0.085), (0.012, 0.028, 0.022), _PRINT),
            block((0.014, 0.0183, 0.108), (0.023, 0.024, 0.012), BLACK),
        ],
        [
            drum((0, -0.012, 0), (0, 0.0486, 0), 0.014, _PRINT),
            block((0.055, 0.0183, 0.002), (0.05, 0.02, 0.011), _PRINT),
            block((0.112, 0.0183, 0.004), (0.023, 0.022, 0.013), BLACK),
        ],
        [
            drum((0, -0.012, 0), (0, 0.0486, 0), 0.014, _PRINT),
            block((0.016, 0.0183, 0), (0.016, 0.02, 0.012), _PRINT),
            block((0.038, 0.0183, 0), (0.012, 0.014, 0.02), BLACK),
        ],
        [
            drum((-0.012, 0, 0), (0.004, 0, 0), 0.018, BLACK),
            block((0.012, 0, 0.004), (0.012, 0.02, 0.022), _PRINT),
            block((0.022, 0.0, 0.018), (0.02, 0.016, 0.012), BLACK),
        ],
    ]
