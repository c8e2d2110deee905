"""A round rover on two driven wheels (15 kg), with ears, a lidar and a camera on its head."""

from __future__ import annotations

import mujoco
import numpy as np

from .wheels import AHEAD, NAMES, WHITE, add_base, add_geom

JOINTS = NAMES
ACTUATORS = NAMES
HOME = (0.0, 0.0)  # rad: of the wheels
REACH = 0.18  # m: nothing of it is farther from the middle between its wheels
FORWARD, TURN = 0.5, 2.0  # m/s, rad/s: what it is asked for at most
_EFFORT, _SPEED = 0.8, 17.0  # Nm, rad/s: 2 m/s^2, and both at once
_G = mujoco.mjtGeom


def spec() -> mujoco.MjSpec:
    """Returns the rover on the ground at the origin, facing +x.

    Sites `imu`, `lidar` and `ears` (x right, y up, looking along -z as cameras do), camera `head`;
    actuators are `ACTUATORS`: wheel speed servos, in rad/s.
    """
    s = mujoco.MjSpec()
    # Its weight is a little behind the axle, and the front caster only meets the ground in braking.
    body = add_base(s, _EFFORT, _SPEED, casters=((-0.14, 0, 0), (0.14, 0, 0.001)))
    add_geom(body, "chassis", _G.mjGEOM_CYLINDER, (0.175, 0.05, 0), (0, 0, 0.085), 9.9)
    add_geom(body, "battery", _G.mjGEOM_BOX, (0.06, 0.09, 0.03), (-0.08, 0, 0.07), 3.0)
    add_geom(body, "mast", _G.mjGEOM_CAPSULE, (0.014, 0.11, 0), (-0.03, 0, 0.24), 0.2)
    head = add_geom(body, "head", _G.mjGEOM_BOX, (0.025, 0.05, 0.025), (-0.03, 0, 0.37), 0.3)
    nose = add_geom(body, "nose", _G.mjGEOM_BOX, (0.03, 0.02, 0.006), (0.12, 0, 0.138), 0.0)
    head.rgba = nose.rgba = WHITE
    body.add_site(name="imu", pos=(0, 0, 0.08), size=(0.004,) * 3, group=4)
    body.add_site(name="lidar", pos=(0, 0, 0.18), size=(0.004,) * 3, group=4)
    body.add_site(name="ears", pos=(-0.03, 0, 0.37), quat=AHEAD, size=(0.004,) * 3, group=4)
    body.add_camera(name="head", pos=(0.0, 0, 0.38), quat=AHEAD, fovy=75)
    return s


def home() -> np.ndarray:
    """Returns the coordinates `(9,)` of the home pose: place (m), quaternion, wheels (rad)."""
    return np.array([0.0, 0, 0, 1, 0, 0, 0, *HOME])
