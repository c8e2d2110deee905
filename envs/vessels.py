"""Vessels: what things are put into: zones, bins, bowls and cups; knows no task."""

from __future__ import annotations

import math

import mujoco
import numpy as np

WALL = 0.003  # m: half the thickness of walls and floors
_G = mujoco.mjtGeom


def _part(body: mujoco.MjsBody, kind, size, pos, turn=(1, 0, 0, 0), name="") -> mujoco.MjsGeom:
    return body.add_geom(
        name=name, type=kind, size=size, pos=pos, quat=turn, contype=1, conaffinity=3,
        friction=(0.6, 0.005, 0.001),
    )  # fmt: skip


def add_zone(s: mujoco.MjSpec, name: str, half: tuple[float, float]) -> None:
    """Adds a coloured rectangle on the table (m), a mocap body that nothing collides with."""
    body = s.worldbody.add_body(name=name, mocap=True)
    body.add_geom(
        name=name, type=_G.mjGEOM_BOX, size=(*half, 0.0005), pos=(0, 0, 0.0005), contype=0,
        conaffinity=0,
    )  # fmt: skip


def add_bin(s: mujoco.MjSpec, name: str, half: tuple[float, float], height: float) -> None:
    """Adds an open box, `half` wide inside (m, along x and y), a mocap body; its floor is `name`.

    Its origin is on the table, in the middle of the floor, whose top is at `2 * WALL`.
    """
    body = s.worldbody.add_body(name=name, mocap=True)
    x, y = (h + WALL for h in half)
    _part(body, _G.mjGEOM_BOX, (x, y, WALL), (0, 0, WALL), name=name)
    for side in (1, -1):
        _part(body, _G.mjGEOM_BOX, (WALL, y + WALL, height / 2), (side * x, 0, height / 2))
        _part(body, _G.mjGEOM_BOX, (x + WALL, WALL, height / 2), (0, side * y, height / 2))


def add_bowl(s: mujoco.MjSpec, name: str, radius: float, height: float) -> None:
    """Adds a round bowl of the given radius at its rim (m), a mocap body; its floor is `name`."""
    body, flare = s.worldbody.add_body(name=name, mocap=True), 0.6  # rad from upright
    foot = radius - height * math.tan(flare)
    # So thick, down into the table, that what is small and fast does not pass through in a step.
    _part(body, _G.mjGEOM_CYLINDER, (foot + WALL, 0.012, 0), (0, 0, 2 * WALL - 0.012), name=name)
    _ring(body, (foot + radius) / 2, height, WALL, flare, height / 2)


def add_cup(
    s: mujoco.MjSpec, name: str, radius: float, height: float, mass: float
) -> mujoco.MjsBody:
    """Returns a new cup of outer radius and height (m), whose origin is its middle; no joint.

    Fingers would pass through its thin walls: they meet an unseen solid block around it, `name`,
    whose flat sides do not roll in the grasp.
    """
    body, thin = s.worldbody.add_body(name=name, pos=(0.4, 0, height / 2)), WALL / 2
    floor = (0, 0, thin - height / 2)
    _part(body, _G.mjGEOM_CYLINDER, (radius - thin, thin, 0), floor)
    _ring(body, radius - thin, height - WALL, thin, 0.0, thin)  # the floor alone meets the table
    for geom in body.geoms:
        geom.mass, geom.conaffinity = mass / len(body.geoms), 1
    body.add_geom(
        name=name, type=_G.mjGEOM_BOX, size=(radius, radius, height / 2), mass=0, group=3,
        contype=0, conaffinity=2, condim=4, friction=(0.6, 0.005, 0.001),
        solmix=100, solref=(0.01, 1), solimp=(0.95, 0.99, 0.001, 0.5, 2),
    )  # fmt: skip  # stiff: fingers would sink into what is so light
    return body


def _ring(body: mujoco.MjsBody, radius, height, thin, flare, middle) -> None:
    """Adds a round wall of twelve plates, `2 * thin` thick, that leans outwards by `flare` rad."""
    wide = (radius + thin + height / 2 * math.tan(flare)) * math.tan(math.pi / 12)
    half = (thin, wide, height / 2 / math.cos(flare))
    c, d = math.cos(flare / 2), math.sin(flare / 2)
    for k in range(12):
        a = k * math.pi / 6
        p, q = math.cos(a / 2), math.sin(a / 2)
        pos = (radius * math.cos(a), radius * math.sin(a), middle)
        _part(body, _G.mjGEOM_BOX, half, pos, (p * c, -q * d, p * d, q * c))


def within(
    places: np.ndarray, box: np.ndarray, half: tuple[float, float], height: float
) -> np.ndarray:
    """Returns `(...)` bool: points `(..., 3)` m are over a bin or zone at `box`, below height."""
    gap = np.abs(places - box)
    return (gap[..., 0] < half[0]) & (gap[..., 1] < half[1]) & (places[..., 2] < height)
