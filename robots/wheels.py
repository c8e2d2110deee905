"""Wheels: a base on two driven wheels and casters, free on the ground; shared by what drives on it.

The numbers are Stretch 3's. Source: its robot_params_SE3 (wheel diameter, separation) and hardware
guide. Assumptions: the casters slide without friction, and a tyre is an ellipsoid, which meets the
ground in one point, so that turning scrubs nothing.
"""

from __future__ import annotations

import mujoco

RADIUS = 0.0508  # m, of the driven wheels
SEPARATION = 0.3153  # m, between their planes
NAMES = ("left_wheel", "right_wheel")
_CASTER = 0.025  # m, radius
_G = mujoco.mjtGeom
BLACK, GREY, WHITE = (0.09, 0.09, 0.1, 1), (0.30, 0.31, 0.33, 1), (0.85, 0.86, 0.88, 1)
AHEAD = (0.5, 0.5, -0.5, -0.5)  # quaternion of what looks along +x as cameras do: x right, y up


def add_base(s: mujoco.MjSpec, effort: float, speed: float, casters) -> mujoco.MjsBody:
    """Adds the body `base` with its wheels, at the origin, facing +x; returns it.

    Its frame is on the ground, midway between the wheels; its free joint is called `base`.
    Actuators `NAMES` hold wheel speeds up to `speed` rad/s with at most `effort` Nm. casters: where
    they are: (x, y, height over the ground), m.
    """
    s.compiler.degree = False
    body = s.worldbody.add_body(name="base")
    body.add_freejoint(name="base")
    for name, side in zip(NAMES, (1, -1), strict=True):
        wheel = body.add_body(name=name, pos=(0, side * SEPARATION / 2, RADIUS))
        wheel.add_joint(name=name, axis=(0, 1, 0), armature=0.005)
        tyre = add_geom(wheel, name, _G.mjGEOM_ELLIPSOID, (RADIUS, 0.012, RADIUS), (0, 0, 0), 0.6)
        tyre.rgba, tyre.friction = BLACK, (1.0, 0.005, 0.0001)
        tyre.solref = (0.01, 1)  # stiff: what it sinks in, it rolls short by
        a = s.add_actuator(
            name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=(-speed, speed),
            forcerange=(-effort, effort), ctrllimited=1, forcelimited=1,
        )  # fmt: skip
        a.set_to_velocity(kv=10 * effort)
    for k, (x, y, height) in enumerate(casters):
        at = (x, y, _CASTER + height)
        ball = add_geom(body, f"caster{k}", _G.mjGEOM_SPHERE, (_CASTER, 0, 0), at, 0.2)
        ball.rgba, ball.condim, ball.priority = BLACK, 1, 1
    return body


def add_geom(body, name: str, kind, size, pos, mass: float) -> mujoco.MjsGeom:
    """Adds a geom that meets the world, but never the robot itself; size, pos in m, mass in kg."""
    return body.add_geom(
        name=name, type=kind, size=size, pos=pos, mass=mass, rgba=GREY, contype=2, conaffinity=1
    )
