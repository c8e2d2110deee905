"""A wheel loader of the 15 t class that steers by bending in its middle; primitive geoms; `spec()`.

Mass, bucket volume, wheels and speed are those of the class. No maker's table of the rest was at
hand: that it bends by 40 degrees, where its axles and pins are, and what its cylinders can do are
assumptions. The Z-bar of the bucket is a hinge: what matters of it is the bucket's direction.
"""

from __future__ import annotations

import mujoco
import numpy as np

from .chain import BLACK, DARK, block, drum, rod, shape

WHEELS = ("front_left", "front_right", "rear_left", "rear_right")
JOINTS = ("steer", "lift", "tilt", *WHEELS)
ACTUATORS = ("steer", "drive", "lift", "tilt")  # rad/s, m/s, rad/s, rad/s
HOME = (0.0, -0.53, 0.53, 0.0, 0.0, 0.0, 0.0)  # rad: the bucket level, 3 cm above the ground
LIMITS = ((-0.698, 0.698), (-0.56, 0.75), (-1.60, 1.45))  # rad: of steer, lift and tilt
VELOCITY = (0.40, 3.0, 0.35, 0.70)  # of the ACTUATORS
EFFORT = (150e3, 80e3, 320e3, 150e3)  # Nm, N at the wheels' rims, Nm, Nm
AXLE = 1.5  # m of either axle from the hinge that it steers by
RADIUS = 0.6  # m, of the wheels
TRACK = 2.0  # m between the wheels of an axle
PIVOT, BOOM = (1.0, 0.0, 1.75), 2.75  # m: the boom's hinge ahead of the steering's, its length
LOW, HIGH = (-0.15, -1.23, -0.26), (1.20, 1.23, 0.75)  # m: the inside of the bucket, in its frame

_YELLOW, _STEEL, _GLASS = (0.93, 0.69, 0.10, 1), (0.36, 0.36, 0.38, 1), (0.45, 0.60, 0.70, 1)
_LOOK_AHEAD = (0.561, 0.430, -0.430, -0.561)  # 15 degrees down
_STIFFNESS = (3e6, 0.0, 6e6, 2e6)  # Nm/rad: oil hardly gives
_PUSH = 22e3  # N per m/s short of the speed asked for


def spec() -> mujoco.MjSpec:
    """Returns the loader on z = 0, facing +x, the hinge it steers by above the origin.

    Coordinates are those of the free body `base` (its rear half), then `JOINTS`. Levers command
    rates, as in a cab: `steer` bends it to the left, `drive` is the wheels' mean speed (through
    open differentials), `lift` and `tilt` turn boom and bucket up; let go, it stays as it is. Site
    `tcp` is the middle of the bucket's edge, `bucket` its frame, x along its floor to the edge.
    """
    s = mujoco.MjSpec()
    s.compiler.degree = False
    base = s.worldbody.add_body(name="base")
    base.add_freejoint(name="base")
    shape(base, [block((-1.75, 0, 1.25), (1.05, 0.75, 0.50), _YELLOW)], 5000)
    shape(base, [block((-2.85, 0, 0.95), (0.15, 1.10, 0.35), BLACK)], 2300)
    shape(base, [block((-0.45, 0, 1.0), (0.35, 0.45, 0.25), DARK)], 400)
    shape(base, [block((-0.55, 0, 1.75), (0.5, 0.70, 0.20), _YELLOW)], 100)
    shape(base, [block((-0.55, 0, 2.30), (0.45, 0.62, 0.40), _GLASS)], 100)
    shape(base, [block((-0.55, 0, 2.75), (0.55, 0.75, 0.06), _YELLOW)], 100)
    base.add_site(name="imu", pos=(-0.55, 0, 1.5), size=(0.05,) * 3, group=4)
    base.add_camera(name="cab", pos=(-0.15, 0, 2.5), fovy=75, quat=_LOOK_AHEAD)
    front = base.add_body(name="front")
    _joint(front, "steer", (0, 0, 1))
    shape(front, [block((1.1, 0, 0.95), (0.80, 0.40, 0.30), DARK)], 1900)
    shape(front, [block((1.1, y, 1.5), (0.35, 0.06, 0.35), _YELLOW) for y in (-0.5, 0.5)], 700)
    _implement(front)
    for name in WHEELS:
        near = name.startswith("front")
        place = AXLE if near else -AXLE, TRACK / 2 if name.endswith("left") else -TRACK / 2
        _wheel(front if near else base, name, *place)
    _actuators(s)
    return s


def home() -> np.ndarray:
    """Returns the coordinates `(14,)` at the origin: the free body's, then `HOME`."""
    return np.array([0, 0, 0, 1, 0, 0, 0, *HOME], float)


def _joint(body: mujoco.MjsBody, name: str, axis) -> None:
    limits = LIMITS[JOINTS.index(name)]
    body.add_joint(name=name, axis=axis, range=limits, armature=200, damping=5e3)


def _wheel(body: mujoco.MjsBody, name: str, x: float, y: float) -> None:
    """Adds a wheel that is seen as a drum and touches the ground with the belly of an ellipsoid."""
    wheel = body.add_body(name=name, pos=(x, y, RADIUS))
    wheel.add_joint(name=name, axis=(0, 1, 0), armature=40, damping=60)
    side = 0.25 if y > 0 else -0.25
    for g in shape(wheel, [drum((0, -0.25, 0), (0, 0.25, 0), RADIUS, BLACK)], 350):
        g.contype = g.conaffinity = 0
    rim = [drum((0, side * 0.8, 0), (0, side * 1.04, 0), 0.32, _YELLOW)]
    rim += [block((0.42, side * 1.02, 0), (0.10, 0.005, 0.03), _STEEL)]  # shows that it turns
    for g in shape(wheel, rim, 60):
        g.contype = g.conaffinity = 0
    wheel.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=(RADIUS, 0.28, RADIUS), mass=40,
        friction=(0.9, 0.005, 0.0001), contype=2, conaffinity=1, group=3,
    )  # fmt: skip


def _implement(front: mujoco.MjsBody) -> None:
    boom = front.add_body(name="boom", pos=PIVOT)
    _joint(boom, "lift", (0, -1, 0))
    arms = [rod((0, y, 0), (BOOM, y, 0), 0.11, _YELLOW) for y in (-0.45, 0.45)]
    shape(boom, [*arms, rod((1.7, -0.45, 0), (1.7, 0.45, 0), 0.10, _YELLOW)], 1300)
    bucket = boom.add_body(name="bucket", pos=(BOOM, 0, 0))
    _joint(bucket, "tilt", (0, -1, 0))
    plates = [
        block((0.50, 0, -0.28), (0.65, 1.25, 0.02), _STEEL),
        block((-0.17, 0, 0.20), (0.02, 1.25, 0.50), _STEEL),
        block((0.30, 1.25, 0.08), (0.49, 0.02, 0.38), _STEEL),
        block((0.30, -1.25, 0.08), (0.49, 0.02, 0.38), _STEEL),
    ]
    for g in shape(bucket, plates, 1300):
        g.contype, g.conaffinity = 8, 1
        # worn smooth, whatever it meets
        g.priority, g.friction = 1, (0.35, 0.005, 0.0001)
    bucket.add_site(name="bucket", size=(0.02,) * 3, group=4)
    bucket.add_site(name="tcp", pos=(1.15, 0, -0.28), size=(0.02,) * 3, group=4)


def _actuators(s: mujoco.MjSpec) -> None:
    rims = s.add_tendon(name="drive")
    for name in WHEELS:
        rims.wrap_joint(name, RADIUS / len(WHEELS))
    for name, rate, effort, stiffness in zip(ACTUATORS, VELOCITY, EFFORT, _STIFFNESS, strict=True):
        drive = name == "drive"
        a = s.add_actuator(
            name=name, target=name, ctrlrange=(-rate, rate), forcerange=(-effort, effort),
            ctrllimited=1, forcelimited=1,
            trntype=mujoco.mjtTrn.mjTRN_TENDON if drive else mujoco.mjtTrn.mjTRN_JOINT,
        )  # fmt: skip
        if drive:
            a.set_to_velocity(kv=_PUSH)
        else:
            a.set_to_intvelocity(kp=stiffness, dampratio=1.0)
            a.actlimited, a.actrange = 1, LIMITS[JOINTS.index(name)]
