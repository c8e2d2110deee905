"""Carry: what tasks that move things by hand share: how they are seen, a script's next move.

Knows no task: which thing is moved and where to, and when it is there, are given.
"""

from __future__ import annotations

import numpy as np

from ..robots.body import Body
from . import scene
from .rewards import distance, tolerance
from .sim import Sim

HOVER = 0.13  # m above the table: what is held there is clear of everything on it


def things(sim: Sim) -> np.ndarray:
    """Returns the free objects as observations tell of them, `(n, objects, 15)`.

    Place, place seen from the tool (m), two axes, velocity (m/s).
    """
    places, axes, speeds = scene.objects(sim)
    return np.concatenate([places, places - sim.site("tcp")[:, None], axes, speeds], 2)


def held(touch: np.ndarray) -> np.ndarray:
    """Returns `(..., )` bool: both fingers touch, of touches `(..., 2)`."""
    return touch[..., 0] & touch[..., 1]


def still(sim: Sim, which: np.ndarray, limit: float = 0.03) -> np.ndarray:
    """Returns `(n,)` bool: object which[i] moves by less than `limit` m/s."""
    speed = scene.pick(sim, scene.objects(sim)[2], which)
    return distance(speed, np.zeros(3)) < limit


def terms(sim: Sim, thing, gap, grasp, lifted, placed) -> dict[str, np.ndarray]:
    """Returns the terms of a reward for putting down one thing (n, 3), `gap` m from its goal.

    `near`: the tool is at the thing, `there`: the thing at its goal, in [0, 1]; `grasp`, `lifted`,
    `placed`: 0 or 1. All (n,).
    """
    there = tolerance(gap, high=0.02, margin=0.3, shape="long_tail")
    near = scene.nearness(sim, thing)
    return {"near": near, "there": there, "grasp": grasp, "lifted": lifted, "placed": placed}


def pay(near, there, grasp, lifted, placed) -> np.ndarray:
    """Returns the reward `(n,)` of those terms."""
    paid = 0.2 * near + grasp * (0.1 + 0.1 * lifted + 0.5 * there)
    return np.where(placed, 1.0, paid)


def move(
    sim: Sim,
    body: Body,
    thing: np.ndarray,
    grasp: np.ndarray,
    goal: np.ndarray,
    there: np.ndarray,
    wide: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the hand goes next `(n, 3)` in m, and its jaws `(n,)`, to put a thing down.

    Hovers, descends, grasps, lifts, carries, lowers and lets go, by what it sees now. thing: where
    it is (n, 3) m. grasp: both fingers touch it (n,). goal: where its centre is let go (n, 3) m.
    there: it is where it shall be (n,), so that the hand lets go, and leaves. wide: -1 to 1, as
    far as the jaws open.
    """
    tip, high = sim.site("tcp"), thing[:, 2]
    aside = distance(tip[:, :2], thing[:, :2])
    lifted = high > HOVER - 0.04
    # once it is being lowered it may stray as it is led on, without being lifted again
    gap = distance(goal[:, :2], thing[:, :2])
    over = gap < np.where(lifted, 0.012, 0.03)
    # what a leaning hand sets down stands on an edge until it is let go
    lean = np.sqrt(np.maximum(1 - sim.turn("tcp")[:, 8] ** 2, 0))
    edge = np.where(lean > 0.15, 0.02 * lean, 0.0)
    down = there | ((gap < 0.015) & (high < goal[:, 2] + 0.004 + edge))
    case = [
        down & grasp | there & (aside < 0.03) & (scene.opening(sim, body) < 0.375 * (1 + wide)),
        there,
        grasp & over,
        grasp,
        (aside < 0.012) & (tip[:, 2] < high + 0.008),
        aside < 0.012,
        tip[:, 2] < HOVER - 0.03,
    ]
    here, above = tip[:, :2], thing[:, :2]
    along = here + goal[:, :2] - above
    carry = np.where(lifted[:, None], along, here)
    xy = np.select(
        [c[:, None] for c in case], [here, here, along, carry, above, above, here], above
    )
    lower = tip[:, 2] + goal[:, 2] - high
    z = np.select(case, [tip[:, 2], HOVER, lower, HOVER, high, high, HOVER], HOVER)
    jaws = np.select(case, [wide, wide, -1.0, -1.0, -1.0, wide, wide], wide)
    return np.concatenate([xy, z[:, None]], 1), jaws
