"""Body: what tasks and controls need to know of an arm beside its MuJoCo spec; knows no task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

from .. import registry


@dataclass(frozen=True)
class Body:
    """An arm with a gripper, as its module in `robots/` states it, or as a user's own.

    spec: builds it, base at the origin, facing +x, with the site `tcp` between its fingertips (z
    along the fingers, y along their closing), geoms `left` and `right` on the fingers, and
    position servos named as `joints`, then `gripper`. joints: of the arm, first in qpos. home:
    coordinates of all its joints (rad, m), jaws open, the tool straight down. jaws: what the
    gripper's servo is told to close and to open. velocity (rad/s) and effort (Nm): the joints'
    limits. mount: where the base stands on a table (m) whose work area begins 0.28 m ahead. pace:
    the share of other arms' speed at which scripts lead it; stiff servos of a light arm would jump.
    """

    name: str
    spec: Callable[[], mujoco.MjSpec]
    joints: tuple[str, ...]
    home: tuple[float, ...]
    jaws: tuple[float, float]
    velocity: tuple[float, ...]
    effort: tuple[float, ...]
    mount: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pace: float = 1.0


def arms() -> list[str]:
    """Returns the names of the bodies that are arms with grippers: their files state `JAWS`."""
    return [m.name for m in registry.members("robots").values() if "JAWS" in m.constants]


def find(robot: str | Body) -> Body:
    """Returns the Body called `robot`, or `robot` itself if it is one.

    Raises UnknownName with the nearest name, and ValueError for a body that is no arm.
    """
    if isinstance(robot, Body):
        return robot
    module = registry.load("robots", robot)
    if not hasattr(module, "JAWS"):
        raise ValueError(f"robot {robot!r} is no arm with a gripper; there are {', '.join(arms())}")
    return Body(
        module.__name__.rpartition(".")[2],
        module.spec,
        tuple(module.JOINTS),
        tuple(float(q) for q in module.home()),
        tuple(module.JAWS),
        tuple(module.VELOCITY),
        tuple(module.EFFORT),
        tuple(module.MOUNT),
        getattr(module, "PACE", 1.0),
    )
