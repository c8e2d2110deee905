"""Hand: what scripted experts do with a gripper that looks down, by the present state alone."""

from __future__ import annotations

import numpy as np

from ..robots.body import Body
from . import scene
from .control import Control
from .rewards import distance
from .sim import Sim

CLEAR = 0.165  # m above the table: over handles and pegs, fingers included
_AHEAD = 0.025  # m that the tool leads a post by: more, and the post slips out of the fingers
_LEAST = 0.012  # m that it does so until the post is there: less, and the two come to rest before
_AJAR = 0.0  # as open as jaws need be around a post: wider, and they push what is beside it
_YIELD = 0.006  # m a step towards the finger that touches first, until the other does


def terms(sim: Sim, post, touch, moved, done) -> dict[str, np.ndarray]:
    """Returns the terms of a reward for leading a post (n, 3), held by fingers (n, 2).

    `near`: the tool is at the post, `moved`: how much of its way it has come, in [0, 1]; `grasp`,
    `done`: 0 or 1. All (n,).
    """
    near, grasp = scene.nearness(sim, post, high=0.01), touch.all(1)
    return {"near": near, "grasp": grasp, "moved": np.clip(moved, 0, 1), "done": done}


def pay(near, grasp, moved, done) -> np.ndarray:
    """Returns the reward `(n,)` of those terms."""
    return np.where(done, 1.0, 0.2 * near + 0.1 * grasp + 0.6 * moved)


def lead(
    sim: Sim, body: Body, control: Control, post, touch, goal, done, speed: float = 0.6
) -> np.ndarray | None:
    """Returns actions that take a post by its top, lead it to a goal, let it go and rise.

    post, goal: (n, 3) in m, where the tool holds the post and where the post shall be; touch
    (n, 2): which fingers touch it; done (n,): the post may be let go.
    """
    tip = sim.site("tcp")
    aside = distance(tip[:, :2], post[:, :2])
    way = (goal - post)[:, :2]
    far = np.maximum(distance(way, 0), 1e-9)
    way *= (np.clip(far, _LEAST, _AHEAD) / far)[:, None]
    # The jaws close along y: there the post follows the fingers, along x it can slip.
    pull, give = way.copy(), np.zeros_like(way)
    pull[:, 0] += post[:, 0] - tip[:, 0]
    give[:, 1] = _YIELD * (touch[:, 0].astype(float) - touch[:, 1])
    shut = scene.opening(sim, body) < 0.4
    low = tip[:, 2] < post[:, 2] + 0.008
    case = [
        done & (touch.any(1) | (shut & (aside < 0.04))),
        done,
        touch.all(1),
        touch.any(1) & low & (aside < 0.025),
        (aside < 0.01) & low,
        aside < 0.01,
    ]
    flat = [c[:, None] for c in case]
    here, there = tip[:, :2], post[:, :2]
    xy = np.select(flat, [here + give, here, here + pull, here + give, here, there], there)
    at = post[:, 2]
    z = np.select(case, [tip[:, 2], np.full(sim.n, CLEAR), at, at, at, at], CLEAR)
    jaws = np.select(case, [_AJAR, _AJAR, -1.0, -1.0, -1.0, _AJAR], _AJAR)
    return control.aim(sim, np.concatenate([xy, z[:, None]], 1), jaws, speed)
