"""Chain: an arm as a row of links of primitive geoms with position servos, and a parallel gripper.

Shared by the arms' files, which give the tables; knows no particular robot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco

Vector = tuple[float, float, float]
BLACK, DARK, PAD = (0.09, 0.09, 0.1, 1), (0.24, 0.25, 0.27, 1), (0.1, 0.1, 0.11, 1)
_CAPSULE, _CYLINDER = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER
_BOX, _SLIDE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtJoint.mjJNT_SLIDE
_JOINT = mujoco.mjtTrn.mjTRN_JOINT
# kg: of the motor behind its gears, as a finger feels it (an assumption). Much less than damping by
# simulation step, and fingers would rattle on what they hold.
_GEARED = 1.0
_LOOK_ALONG_FINGERS = (-0.147, 0.6916, -0.6916, 0.147)


@dataclass(frozen=True)
class Shape:
    """One geom in its link's frame (m): a rod between two points, or a box about its middle."""

    kind: mujoco.mjtGeom
    size: Vector
    rgba: tuple
    pos: Vector = (0, 0, 0)
    fromto: tuple[float, ...] | None = None

    @property
    def volume(self) -> float:
        """Returns m^3."""
        if self.fromto is None:
            return 8 * math.prod(self.size)
        r, length = self.size[0], math.dist(self.fromto[:3], self.fromto[3:])
        ends = 4 / 3 * r if self.kind == _CAPSULE else 0
        return math.pi * r * r * (length + ends)


def rod(start: Vector, end: Vector, radius: float, rgba) -> Shape:
    """Returns a capsule whose round ends are about two points."""
    return Shape(_CAPSULE, (radius, 0, 0), rgba, fromto=(*start, *end))


def drum(start: Vector, end: Vector, radius: float, rgba) -> Shape:
    """Returns a cylinder that ends flat at two points."""
    return Shape(_CYLINDER, (radius, 0, 0), rgba, fromto=(*start, *end))


def block(middle: Vector, half: Vector, rgba) -> Shape:
    """Returns a box of half sizes `half`."""
    return Shape(_BOX, half, rgba, middle)


@dataclass(frozen=True)
class Link:
    """A link's mass (kg), its shapes, its frame in the link before it and its joint's axis."""

    mass: float
    shapes: Sequence[Shape]
    pos: Vector = (0, 0, 0)
    quat: tuple[float, float, float, float] = (1, 0, 0, 0)
    axis: Vector = (0, 0, 1)


def standard(a: float, d: float, alpha: float) -> tuple[Vector, tuple]:
    """Returns where the next joint's frame is (m, quaternion), by Denavit and Hartenberg's a, d,
    alpha: the joint turns about z, then a shift d along z and a along x, a turn alpha about x."""
    return (a, 0.0, d), (math.cos(alpha / 2), math.sin(alpha / 2), 0.0, 0.0)


def modified(a: float, d: float, alpha: float) -> tuple[Vector, tuple]:
    """Returns where a joint's frame is in the one before (m, quaternion), by Craig's a, d, alpha:
    a turn alpha about x and a shift a along x, then a shift d along the new z."""
    turned = (a, -d * math.sin(alpha), d * math.cos(alpha))
    return turned, (math.cos(alpha / 2), math.sin(alpha / 2), 0.0, 0.0)


@dataclass(frozen=True)
class Drive:
    """What turns the joints: limits (rad), speed (rad/s) and torque (Nm) limits, a row a joint.

    stiffness: of the servos, Nm/rad. armature: rotor inertia seen at the joint, kg m^2. friction:
    dry, Nm. A motor has no torque left at its fastest: damping is torque by speed limit. At steps
    of 5 ms stiffness should stay below (60 / s)^2 times the inertia: contacts do not foresee the
    servos' damping, and from stiffer ones a held thing creeps away as the arm speeds up.
    """

    names: tuple[str, ...]
    limits: Sequence[tuple[float, float]]
    velocity: Sequence[float]
    effort: Sequence[float]
    stiffness: Sequence[float]
    armature: Sequence[float]
    friction: float = 0.0


def serial(base: Link, links: Sequence[Link], drive: Drive) -> tuple[mujoco.MjSpec, mujoco.MjsBody]:
    """Returns a spec of the links one on another, and the body of the last.

    The body `base` is at the origin; each other body is named as its joint, as is its servo.
    """
    s = mujoco.MjSpec()
    s.compiler.degree = False
    body = s.worldbody.add_body(name="base")
    shape(body, base.shapes, base.mass)
    for i, link in enumerate(links):
        name, effort = drive.names[i], drive.effort[i]
        body = body.add_body(name=name, pos=link.pos, quat=link.quat, gravcomp=1)
        body.add_joint(
            name=name, axis=link.axis, range=drive.limits[i], armature=drive.armature[i],
            damping=effort / drive.velocity[i], frictionloss=drive.friction,
        )  # fmt: skip
        shape(body, link.shapes, link.mass)
        servo(s, name, name, drive.stiffness[i], drive.limits[i], effort)
    return s, body


def shape(body: mujoco.MjsBody, shapes: Sequence[Shape], mass: float) -> list[mujoco.MjsGeom]:
    """Adds the shapes, which share the mass (kg) by volume; they meet the world, never the arm."""
    whole = sum(x.volume for x in shapes)
    geoms = []
    for x in shapes:
        g = body.add_geom(
            type=x.kind, size=x.size, pos=x.pos, rgba=x.rgba, mass=mass * x.volume / whole,
            contype=2, conaffinity=1,
        )  # fmt: skip
        if x.fromto is not None:
            g.fromto = x.fromto
        geoms.append(g)
    return geoms


def servo(
    s: mujoco.MjSpec, name: str, target: str, stiffness: float, limits, effort: float, kind=_JOINT
) -> None:
    """Adds a position servo, critically damped by itself, of at most `effort` (Nm, or N)."""
    a = s.add_actuator(
        name=name, target=target, trntype=kind, ctrlrange=limits,
        forcerange=(-effort, effort), ctrllimited=1, forcelimited=1,
    )  # fmt: skip
    a.set_to_position(kp=stiffness, dampratio=1.0)


def grips(geom: mujoco.MjsGeom, name: str) -> None:
    """Names a fingertip's geom and gives it the friction of rubber (an assumption).

    By default a contact is as stiff as the lighter body is heavy: a strong gripper would close
    through a light thing. A fingertip's contacts are stiff, whatever it touches.
    """
    geom.name, geom.friction, geom.condim = name, (1.5, 0.02, 0.001), 4
    geom.solmix, geom.solref, geom.solimp[:3] = 100, (0.01, 1), (0.95, 0.99, 0.001)


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper, z along its fingers and y along their closing, from its mounting face.

    masses: of the palm and of each finger, kg. reach: of the tips' middle from the face, m.
    travel (m), speed (m/s) and grip (N): of each finger, at most.
    """

    masses: tuple[float, float]
    palm: Sequence[Shape]
    reach: float
    finger: float  # m, its length
    travel: float
    speed: float
    grip: float
    camera: Vector = (0.08, 0, 0.0)
    rgba: tuple = PAD


def tool(palm: mujoco.MjsBody, tip: Vector, camera: Vector) -> None:
    """Adds to a palm, z along its fingers, the sites `wrist_ft` and `tcp` and the camera `wrist`.

    A force sensor at `wrist_ft` reads what the arm and all that is from the palm on exchange.
    """
    palm.add_site(name="wrist_ft", size=(0.004,) * 3, group=4)
    palm.add_site(name="tcp", pos=tip, size=(0.004,) * 3, group=4)
    # Looks along the fingers, tilted towards the point between their tips.
    palm.add_camera(name="wrist", pos=camera, fovy=70, quat=_LOOK_ALONG_FINGERS)


def parallel(s: mujoco.MjSpec, hand: mujoco.MjsBody, g: Gripper, pos: Vector, quat) -> None:
    """Adds the gripper to the body `hand`, its face at pos (m) and quat.

    Bodies `palm`, `left` and `right`; the sites `wrist_ft` in its face and `tcp`; slides `left` and
    `right` that move alike; the servo `gripper`, from 0 closed to `travel`, in m.
    """
    palm = hand.add_body(name="palm", pos=pos, quat=quat, gravcomp=1)
    shape(palm, g.palm, g.masses[0])
    tool(palm, (0, 0, g.reach), g.camera)
    for name, side in (("left", 1), ("right", -1)):
        finger = palm.add_body(name=name, pos=(0, 0, g.reach), gravcomp=1)
        finger.add_joint(
            name=name, type=_SLIDE, axis=(0, side, 0), range=(0, g.travel), armature=_GEARED,
            damping=g.grip / g.speed,
        )  # fmt: skip
        half = (0.011, 0.006, g.finger / 2)
        pad = block((0, side * half[1], 0.011 - half[2]), half, g.rgba)
        grips(shape(finger, [pad], g.masses[1])[0], name)
    s.add_equality(
        name="jaws", type=mujoco.mjtEq.mjEQ_JOINT, name1="left", name2="right",
        objtype=mujoco.mjtObj.mjOBJ_JOINT, data=[0.0, 1.0] + [0.0] * 10,
    )  # fmt: skip
    # One motor pushes both fingers alike, with all its force 4 mm short of where they should be.
    both = s.add_tendon(name="jaws")
    for name in ("left", "right"):
        both.wrap_joint(name, 0.5)
    kind = mujoco.mjtTrn.mjTRN_TENDON
    servo(s, "gripper", "jaws", 2 * g.grip / 0.004, (0, g.travel), 2 * g.grip, kind)
