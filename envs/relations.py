"""Relations: what holds between things by their places and sizes, over n rows; knows no words' use.

The view is the robot's own, which stands at the origin and looks along +x: left is +y, right -y,
in front is nearer to it (-x), behind farther (+x). Of two things more than `MARGIN` apart exactly
one is said: along the axis on which they differ most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from .language import NAMES, RELATIONS, RGBA, SHAPES
from .sim import Sim

MARGIN = 0.02  # m: what is less far to a side than this is not said to be there
NEAR = 0.05  # m between the boxes around two things
REST = 0.008  # m between a thing's lowest point and what it is said to be on
BINARY = tuple(name for name in RELATIONS if name != "between")
_G = mujoco.mjtGeom


class Scene(NamedTuple):
    """k things in n rows: centres and halves of the boxes around them in m, and their looks."""

    place: np.ndarray  # (n, k, 3)
    half: np.ndarray  # (n, k, 3)
    shape: np.ndarray  # (n, k) int, of language.SHAPES
    colour: np.ndarray  # (n, k) int, of language.NAMES
    tool: np.ndarray  # (n, 3), where the robot's tool is

    def row(self, i: int) -> Scene:
        """Returns row i alone, as a Scene of one row."""
        return Scene(*(field[i : i + 1] for field in self))


def scene(
    places, shapes: Sequence[str], colours: Sequence[str], half=0.02, tool=(0.0, 0.0, 1.0)
) -> Scene:
    """Returns a Scene of one row: places (k, 3) in m, nouns, colours, and half sizes in m.

    `half` is a number, (k, 1) or (k, 3).
    """
    places = np.asarray(places, float)[None]
    return Scene(
        places,
        np.broadcast_to(np.asarray(half, float), places.shape[1:])[None],
        np.array([[SHAPES.index(s) for s in shapes]]),
        np.array([[NAMES.index(c) for c in colours]]),
        np.asarray(tool, float)[None],
    )


def observed(sim: Sim, geoms: Sequence[str], shapes: Sequence[str], tool: str = "tcp") -> Scene:
    """Returns the Scene of the geoms by name, called `shapes`, as they are in all rows.

    A thing has the palette's colour that is nearest to its own; `tool` is a site.
    """
    index = [sim.model.geom(name).id for name in geoms]
    rgb = sim.model_field("geom_rgba")[:, index, None, :3]
    colour = np.abs(rgb - RGBA[:, :3]).sum(-1).argmin(-1)
    half = extent(
        sim.model.geom_type[index], sim.model_field("geom_size")[:, index], sim.geom_xmat[:, index]
    )
    shape = np.broadcast_to([SHAPES.index(s) for s in shapes], colour.shape)
    return Scene(sim.geom_xpos[:, index], half, shape, colour, sim.site(tool))


def extent(kind: np.ndarray, size: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Returns half of the upright box around primitive geoms, `(n, k, 3)` in m, exactly.

    kind (k,) is mjtGeom, size (n, k, 3) MuJoCo's in m, turn (n, k, 9) rotation matrices. Raises
    ValueError for geoms that are no sphere, capsule, ellipsoid, cylinder or box.
    """
    m = turn.reshape(*turn.shape[:2], 3, 3)
    out = np.empty(size.shape)
    for j, k in enumerate(kind):
        s, r = size[:, j], m[:, j]
        up = np.abs(r[..., 2])
        if int(k) == int(_G.mjGEOM_SPHERE):
            out[:, j] = s[:, :1]
        elif int(k) == int(_G.mjGEOM_CAPSULE):
            out[:, j] = s[:, :1] + s[:, 1:2] * up
        elif int(k) == int(_G.mjGEOM_CYLINDER):
            out[:, j] = s[:, :1] * np.sqrt(np.maximum(1 - up**2, 0)) + s[:, 1:2] * up
        elif int(k) == int(_G.mjGEOM_ELLIPSOID):
            out[:, j] = np.sqrt(((r * s[:, None]) ** 2).sum(-1))
        elif int(k) == int(_G.mjGEOM_BOX):
            out[:, j] = (np.abs(r) * s[:, None]).sum(-1)
        else:
            raise ValueError(f"a geom of type {_G(int(k)).name} has no box in closed form")
    return out


def _beside(a, b, axis: int, sign: int) -> np.ndarray:
    gap = a[0] - b[0]
    along, across = sign * gap[..., axis], np.abs(gap[..., 1 - axis])
    # where both are the same, left and right are said, so that one of the four always holds
    return (along > MARGIN) & ((along >= across) if axis else (along > across))


def left_of(a, b) -> np.ndarray:
    """Whether a is left of b; each is (places, halves), arrays `(..., 3)` in m, as in all below."""
    return _beside(a, b, 1, 1)


def right_of(a, b) -> np.ndarray:
    """Whether a is right of b."""
    return _beside(a, b, 1, -1)


def in_front_of(a, b) -> np.ndarray:
    """Whether a is nearer to the robot than b."""
    return _beside(a, b, 0, -1)


def behind(a, b) -> np.ndarray:
    """Whether a is farther from the robot than b."""
    return _beside(a, b, 0, 1)


def on(a, b) -> np.ndarray:
    """Whether a rests at the height of b's top, its centre over the ellipse within b's box."""
    gap = a[0] - b[0]
    rise = gap[..., 2] - a[1][..., 2] - b[1][..., 2]
    aside = ((gap[..., :2] / np.maximum(b[1][..., :2], 1e-9)) ** 2).sum(-1)
    return (np.abs(rise) < REST) & (aside <= 1)


def inside(a, b) -> np.ndarray:
    """Whether a's centre is within b's box."""
    return (np.abs(a[0] - b[0]) < b[1]).all(-1)


def near(a, b) -> np.ndarray:
    """Whether less than `NEAR` lies between the boxes of a and b."""
    gap = np.maximum(np.abs(a[0] - b[0]) - a[1] - b[1], 0)
    return (gap**2).sum(-1) < NEAR**2


def between(a, b, c) -> np.ndarray:
    """Whether a is, seen from above, in the middle half of the line from b to c and near to it.

    Near is within a quarter of its length.
    """
    line, gap = (c[0] - b[0])[..., :2], (a[0] - b[0])[..., :2]
    length = np.maximum((line**2).sum(-1), 1e-12)
    share = (gap * line).sum(-1) / length
    off = np.abs(gap[..., 0] * line[..., 1] - gap[..., 1] * line[..., 0]) / length
    return (length > MARGIN**2) & (np.abs(share - 0.5) < 0.25) & (off < 0.25)


HOLDS = {
    "left of": left_of,
    "right of": right_of,
    "in front of": in_front_of,
    "behind": behind,
    "on": on,
    "in": inside,
    "near": near,
    "between": between,
}


def matrix(scene: Scene) -> np.ndarray:
    """Returns `(n, k, k, 7)` bool: whether [i, a, b, r] thing a is `BINARY[r]` b in row i."""
    a = scene.place[:, :, None], scene.half[:, :, None]
    b = scene.place[:, None], scene.half[:, None]
    holds = np.stack([HOLDS[name](a, b) for name in BINARY], -1)
    return holds & ~np.eye(scene.place.shape[1], dtype=bool)[..., None]
