"""Unitree's G1, the humanoid of 29 joints (33 kg, 1.3 m), of primitive geoms; `spec()`.

Frames, limits, torques, speeds, masses and inertias are the maker's: unitree_ros,
g1_29dof_rev_1_0 (its torso includes the head). Stiffnesses are LeRobot's; dampings, rotor inertias
and the shapes are assumptions. The feet touch the ground with the maker's contact patch.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from .chain import BLACK, block, drum, rod, shape

_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_ARM = (
    "shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow",
    "wrist_roll", "wrist_pitch", "wrist_yaw",
)  # fmt: skip
WAIST = ("waist_yaw", "waist_roll", "waist_pitch")
LEFT_LEG, RIGHT_LEG = (tuple(f"{side}_{j}" for j in _LEG) for side in ("left", "right"))
LEFT_ARM, RIGHT_ARM = (tuple(f"{side}_{j}" for j in _ARM) for side in ("left", "right"))
JOINTS = (*LEFT_LEG, *RIGHT_LEG, *WAIST, *LEFT_ARM, *RIGHT_ARM)  # as the maker numbers them
ACTUATORS = JOINTS

# Of each joint: limits (rad; those of the left side), Nm, rad/s, Nm/rad, Nms/rad, kg m^2, home
_DRIVES = {
    "hip_pitch": ((-2.5307, 2.8798), 88, 32, 150, 4.0, 0.0102, -0.28),
    "hip_roll": ((-0.5236, 2.9671), 139, 20, 150, 4.0, 0.0251, 0.0),
    "hip_yaw": ((-2.7576, 2.7576), 88, 32, 150, 3.0, 0.0102, 0.0),
    "knee": ((-0.0873, 2.8798), 139, 20, 300, 5.0, 0.0251, 0.56),
    "ankle_pitch": ((-0.8727, 0.5236), 35, 30, 40, 2.0, 0.0072, -0.28),
    "ankle_roll": ((-0.2618, 0.2618), 35, 30, 40, 2.0, 0.0072, 0.0),
    "waist_yaw": ((-2.618, 2.618), 88, 32, 250, 5.0, 0.0102, 0.0),
    "waist_roll": ((-0.52, 0.52), 35, 30, 250, 5.0, 0.0072, 0.0),
    "waist_pitch": ((-0.52, 0.52), 35, 30, 250, 5.0, 0.0072, 0.0),
    "shoulder_pitch": ((-3.0892, 2.6704), 25, 37, 50, 2.0, 0.0036, 0.20),
    "shoulder_roll": ((-1.5882, 2.2515), 25, 37, 50, 2.0, 0.0036, 0.15),
    "shoulder_yaw": ((-2.618, 2.618), 25, 37, 80, 2.0, 0.0036, 0.0),
    "elbow": ((-1.0472, 2.0944), 25, 37, 80, 2.0, 0.0036, 0.90),
    "wrist_roll": ((-1.9722, 1.9722), 25, 37, 40, 1.0, 0.0036, 0.0),
    "wrist_pitch": ((-1.6144, 1.6144), 5, 22, 40, 1.0, 0.0043, 0.0),
    "wrist_yaw": ((-1.6144, 1.6144), 5, 22, 40, 1.0, 0.0043, 0.0),
}
_MIRRORED = ("roll", "yaw")  # whose angles change sign from side to side
_AXES = {"pitch": (0, 1, 0), "knee": (0, 1, 0), "elbow": (0, 1, 0)}
_AXES |= {"roll": (1, 0, 0), "yaw": (0, 0, 1)}

_SHELL, _TRIM = (0.80, 0.81, 0.83, 1), (0.27, 0.28, 0.31, 1)
_TILT = 0.1749  # rad: the thigh's frame leans, the knee's stands upright again
_SPREAD = 0.2793  # rad: so does the shoulder's, outwards
# Of each left link: its frame in the one before (m), a lean about x and y (rad), mass (kg), centre
# of mass (m), principal inertias in g m^2 along its own axes, and what it looks like.
_LINKS = {
    "hip_pitch": (
        (0, 0.064452, -0.1027), (0, 0), 1.35, (0.0027, 0.0478, -0.0261), (1.82, 1.53, 1.16),
        [drum((0, 0.01, -0.01), (0, 0.07, -0.03), 0.045, _TRIM)],
    ),
    "hip_roll": (
        (0, 0.052, -0.030465), (0, -_TILT), 1.52, (0.0298, -0.001, -0.0879), (2.55, 2.41, 1.49),
        [rod((0, 0, 0), (0.025, 0, -0.10), 0.050, _SHELL)],
    ),
    "hip_yaw": (
        (0.025001, 0, -0.12412), (0, 0), 1.702, (-0.0577, -0.011, -0.1508), (7.76, 7.18, 1.60),
        [rod((0, 0, -0.02), (-0.06, 0, -0.15), 0.052, _SHELL)],
    ),
    "knee": (
        (-0.078273, 0.0021489, -0.17734), (0, _TILT), 1.932, (0.0055, 0.004, -0.1207),
        (11.38, 11.28, 1.46),
        [rod((0.01, 0, -0.06), (0.01, 0, -0.24), 0.040, _SHELL),
         drum((0, -0.045, 0), (0, 0.045, 0), 0.050, _TRIM)],
    ),
    "ankle_pitch": (
        (0, -0.000094, -0.30001), (0, 0), 0.074, (-0.0073, 0, 0.0111), (0.02, 0.02, 0.02),
        [drum((0, -0.03, 0), (0, 0.03, 0), 0.026, _TRIM)],
    ),
    "ankle_roll": (
        (0, 0, -0.017558), (0, 0), 0.608, (0.0265, 0, -0.0164), (0.22, 1.67, 1.62),
        [block((0.035, 0, -0.0275), (0.085, 0.03, 0.0075), BLACK)],
    ),
    "shoulder_pitch": (
        (0.0039563, 0.10022, 0.24778), (_SPREAD, 0), 0.718, (0, 0.0359, -0.0116),
        (0.47, 0.43, 0.41), [drum((0, 0.0, 0), (0, 0.06, -0.015), 0.040, _TRIM)],
    ),
    "shoulder_roll": (
        (0, 0.038, -0.013831), (-_SPREAD, 0), 0.643, (-0.0002, 0.0073, -0.0632),
        (0.69, 0.62, 0.39), [rod((0, 0.005, -0.01), (0, 0.006, -0.09), 0.036, _SHELL)],
    ),
    "shoulder_yaw": (
        (0, 0.00624, -0.1032), (0, 0), 0.734, (0.0108, -0.0029, -0.072), (1.06, 1.03, 0.40),
        [rod((0, 0, -0.01), (0.010, 0, -0.075), 0.034, _SHELL)],
    ),
    "elbow": (
        (0.015783, 0, -0.080518), (0, 0), 0.6, (0.065, 0.0045, -0.0101), (0.26, 0.44, 0.42),
        [drum((0, -0.034, 0), (0, 0.034, 0), 0.034, _TRIM),
         rod((0.02, 0, -0.005), (0.09, 0, -0.01), 0.030, _SHELL)],
    ),
    "wrist_roll": (
        (0.1, 0.001888, -0.01), (0, 0), 0.085445, (0.0171, 0.0005, 0), (0.04, 0.05, 0.05),
        [rod((0.0, 0, 0), (0.03, 0, 0), 0.028, _TRIM)],
    ),
    "wrist_pitch": (
        (0.038, 0, 0), (0, 0), 0.48405, (0.023, -0.0011, -0.0011), (0.16, 0.43, 0.43),
        [rod((0.0, 0, 0), (0.035, 0, 0), 0.030, _SHELL)],
    ),
    "wrist_yaw": (
        (0.046, 0, 0), (0, 0), 0.254576, (0.0708, 0.0002, 0.0016), (0.15, 0.65, 0.56),
        [block((0.055, 0, 0), (0.035, 0.014, 0.028), BLACK),
         rod((0.09, 0, 0.015), (0.12, 0, 0.012), 0.012, BLACK),
         rod((0.09, 0, -0.015), (0.12, 0, -0.012), 0.012, BLACK)],
    ),
    "waist_yaw": (
        (0, 0, 0), (0, 0), 0.214, (0.0035, 0.0002, 0.018), (0.16, 0.11, 0.10),
        [drum((0, 0, 0), (0, 0, 0.04), 0.045, _TRIM)],
    ),
    "waist_roll": (
        (-0.0039635, 0, 0.044), (0, 0), 0.086, (0, 0, 0), (0.01, 0.01, 0.01),
        [rod((0, -0.03, 0), (0, 0.03, 0), 0.035, _TRIM)],
    ),
    "waist_pitch": (
        (0, 0, 0), (0, 0), 7.818, (0.002, 0.0003, 0.1846), (121.8, 109.8, 27.4),
        [block((0, 0, 0.19), (0.062, 0.092, 0.105), _SHELL),
         block((0.064, 0, 0.21), (0.004, 0.060, 0.055), _TRIM),
         rod((0, 0, 0.05), (0, 0, 0.09), 0.060, _TRIM),
         drum((0, 0, 0.29), (0, 0, 0.34), 0.035, _TRIM),
         rod((0.005, 0, 0.385), (0.01, 0, 0.42), 0.066, _SHELL),
         rod((0.035, -0.02, 0.405), (0.035, 0.02, 0.405), 0.045, BLACK)],
    ),
}  # fmt: skip


def _of(joint: str) -> str:
    """Returns a joint's name without its side."""
    return joint.removeprefix("left_").removeprefix("right_")


def _mirror(joint: str) -> int:
    return -1 if joint.startswith("right") and _of(joint).endswith(_MIRRORED) else 1


def _limits(joint: str) -> tuple[float, float]:
    low, high = _DRIVES[_of(joint)][0]
    return (low, high) if _mirror(joint) > 0 else (-high, -low)


LIMITS = tuple(_limits(j) for j in JOINTS)  # rad
EFFORT = tuple(float(_DRIVES[_of(j)][1]) for j in JOINTS)  # Nm
VELOCITY = tuple(float(_DRIVES[_of(j)][2]) for j in JOINTS)  # rad/s
STIFFNESS = tuple(float(_DRIVES[_of(j)][3]) for j in JOINTS)  # Nm/rad
DAMPING = tuple(_DRIVES[_of(j)][4] for j in JOINTS)  # Nms/rad
HOME = tuple(_mirror(j) * _DRIVES[_of(j)][6] for j in JOINTS)  # rad: knees a little bent
SOLE = (-0.05, 0.12), (-0.03, 0.03), -0.035  # m: the feet's patch in the ankle's frame


def spec() -> mujoco.MjSpec:
    """Returns the G1 standing at home on z = 0, above the origin, facing +x.

    Coordinates are those of the free body `base` (the pelvis), then `JOINTS`, each with a position
    servo in rad. Sites: `imu` in the pelvis, `left_palm`, `right_palm`, `left_foot`, `right_foot`
    (the soles' middles under the ankles); a camera `head`.
    """
    s = mujoco.MjSpec()
    s.compiler.degree = False
    base = s.worldbody.add_body(name="base", pos=(0, 0, home()[2]))
    base.add_freejoint(name="base")
    _weigh(base, 3.813, (0, 0, -0.076), (10.55, 9.31, 7.92))
    hips = [block((0, 0, -0.055), (0.05, 0.055, 0.035), _SHELL)]
    shape(base, [*hips, rod((0, -0.06, -0.10), (0, 0.06, -0.10), 0.045, _TRIM)], 1)
    base.add_site(name="imu", pos=(0.04525, 0, -0.08339), size=(0.01,) * 3, group=4)
    last = base
    for k, joint in enumerate(JOINTS):
        first = _of(joint) in ("hip_pitch", "waist_yaw", "shoulder_pitch")
        root = s.body("waist_pitch") if _of(joint) == "shoulder_pitch" else base
        last = _link(s, root if first else last, k)
    chest = s.body("waist_pitch")
    chest.add_camera(name="head", pos=(0.08, 0, 0.41), fovy=80, quat=(0.579, 0.406, -0.406, -0.579))
    for side in ("left", "right"):
        palm, foot = s.body(f"{side}_wrist_yaw"), s.body(f"{side}_ankle_roll")
        palm.add_site(name=f"{side}_palm", pos=(0.09, 0, 0), size=(0.01,) * 3, group=4)
        foot.add_site(name=f"{side}_foot", pos=(0, 0, SOLE[2]), size=(0.01,) * 3, group=4)
    return s


def home() -> np.ndarray:
    """Returns the coordinates `(36,)` at the origin: the free body's, then `HOME` (m, rad)."""
    thigh, shin, bend = 0.3366, 0.30001, HOME[JOINTS.index("left_ankle_pitch")]
    high = 0.1027 + (thigh + shin) * math.cos(bend) + 0.017558 - SOLE[2]
    return np.array([0, 0, high, 1, 0, 0, 0, *HOME], float)


def _weigh(body: mujoco.MjsBody, mass: float, centre, inertia) -> None:
    body.explicitinertial = True
    body.mass, body.ipos, body.inertia = mass, centre, np.array(inertia) * 1e-3


def _link(s: mujoco.MjSpec, parent: mujoco.MjsBody, k: int) -> mujoco.MjsBody:
    """Adds joint number k with its link and servo to the link before it."""
    joint = JOINTS[k]
    pos, (about_x, about_y), mass, centre, inertia, shapes = _LINKS[_of(joint)]
    side = -1 if joint.startswith("right") else 1
    lean = math.cos((about_x + about_y) / 2), side * math.sin(about_x / 2), math.sin(about_y / 2), 0
    flip = np.array([1, side, 1])
    body = parent.add_body(name=joint, pos=flip * pos, quat=lean)
    kind = next(word for word in _AXES if joint.endswith(word))
    body.add_joint(name=joint, axis=_AXES[kind], range=LIMITS[k], armature=_DRIVES[_of(joint)][5])
    _weigh(body, mass, flip * centre, inertia)
    for g in shape(body, shapes, 1):
        g.pos = flip * g.pos
        if not np.isnan(g.fromto[0]):
            g.fromto = np.tile(flip, 2) * g.fromto
    a = s.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=LIMITS[k],
        forcerange=(-EFFORT[k], EFFORT[k]), ctrllimited=1, forcelimited=1,
    )  # fmt: skip
    a.set_to_position(kp=STIFFNESS[k], kv=DAMPING[k])
    return body
