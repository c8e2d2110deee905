"""Vessels: what things are put into: zones and bins, of primitive geoms; knows no task."""

from __future__ import annotations

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


def within(
    places: np.ndarray, box: np.ndarray, half: tuple[float, float], height: float
) -> np.ndarray:
    """Returns `(...)` bool: points `(..., 3)` m are over a bin or zone at `box`, below height."""
    gap = np.abs(places - box)
    return (gap[..., 0] < half[0]) & (gap[..., 1] < half[1]) & (places[..., 2] < height)
