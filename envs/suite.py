"""Suite: what the tasks of the DeepMind Control Suite share: model files, draws, frames.

The models are dm_control's own files, found in its folder; starts, observations and rewards are
written anew from what its sources and the paper say, batched. `proprio` is the concatenation of
the suite's observations in its order, in SI units. Source: dm_control 1.0.50; Tassa et al. 2018,
"DeepMind Control Suite", arXiv 1801.00690.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np

from .rewards import tolerance
from .sim import Sim

GOOD = 0.8  # the reward from which on a state counts as success where nothing else decides
_SKY = 256  # pixels of a side: a third of a degree each
_SKYBOX = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
_HINGE, _FREE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_FREE)


def load(domain: str) -> mujoco.MjSpec:
    """Returns dm_control's model `<domain>.xml`, under a coarser sky, to be edited and compiled."""
    # Found, not imported: the suite's package imports every domain it has.
    folder = importlib.util.find_spec("dm_control").submodule_search_locations[0]
    spec = mujoco.MjSpec.from_file(str(Path(folder) / "suite" / f"{domain}.xml"))
    for texture in spec.textures:
        if int(texture.type) == _SKYBOX:  # of 12 MB, which every copy of a model would have anew
            texture.width = texture.height = min(texture.width, _SKY)
    return spec


def draw_joints(sim: Sim, i: int, rng: np.random.Generator) -> None:
    """Draws row i's joints: within their limits, or all the way round; free bodies turn.

    Unlimited slides and the places of free bodies stay. A free body's quaternion is drawn from
    the positive orthant, as the suite does.
    """
    free, places, low, high = sim.once("joints to draw", lambda: _drawn(sim.model))
    for start in free:
        turn = rng.random(4)
        sim.qpos[i, start + 3 : start + 7] = turn / np.linalg.norm(turn)
    sim.qpos[i, places] = rng.uniform(low, high)


def _drawn(model: mujoco.MjModel) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Returns where in qpos free joints begin, and where others that are drawn are, low, high."""
    kind, limited = model.jnt_type, model.jnt_limited.astype(bool)
    low, high = np.where(limited[:, None], model.jnt_range, (-np.pi, np.pi)).T
    drawn = (limited | (kind == _HINGE)) & (kind != _FREE)
    free = model.jnt_qposadr[kind == _FREE].tolist()
    return free, model.jnt_qposadr[drawn], low[drawn], high[drawn]


def draw_turn(rng: np.random.Generator) -> np.ndarray:
    """Returns a unit quaternion `(4,)`, uniform over all rotations."""
    turn = rng.standard_normal(4)
    return turn / np.linalg.norm(turn)


def place_freely(sim: Sim, i: int, propose: Callable[[], None], tries: int) -> None:
    """Calls `propose`, which writes row i's qpos, until nothing touches anything there.

    Raises RuntimeError after so many tries.
    """
    data = scratch(sim)
    for _ in range(tries):
        propose()
        data.qpos[:] = sim.qpos[i]
        mujoco.mj_fwdPosition(sim.model, data)
        if not data.ncon:
            return
    raise RuntimeError(f"no start without a contact in {tries} tries; is the model another?")


def scratch(sim: Sim) -> mujoco.MjData:
    """Returns a simulation to try starts in; reset it where its past would matter."""
    return sim.once("scratch", lambda: mujoco.MjData(sim.model))


def turn(sim: Sim, body: str) -> np.ndarray:
    """Returns the rotation matrix of a body, `(n, 9)`, row by row, live: 2 is xz, 8 is zz."""
    return sim.once(("turn", body), lambda: sim.xmat[:, sim.model.body(body).id])


def local(vector: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Returns world vectors `(n, 3)` as seen in frames `(n, 9)`."""
    x, y, z = vector[:, :1], vector[:, 1:2], vector[:, 2:3]
    return x * frame[:, :3] + y * frame[:, 3:6] + z * frame[:, 6:]


def sensors(sim: Sim, *names: str) -> np.ndarray:
    """Returns the readings of sensors side by side, `(n, sum of their sizes)`."""
    return np.concatenate([sim.sensor(name) for name in names], 1)


def hinges(sim: Sim) -> list[np.ndarray]:
    """Returns the angles (rad) and the speeds (rad/s) of all hinges, `(n, hinges)` each."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        hinge = sim.model.jnt_type == _HINGE
        return sim.model.jnt_qposadr[hinge], sim.model.jnt_dofadr[hinge]

    q, v = sim.once("hinges", make)
    return [sim.qpos[:, q], sim.qvel[:, v]]


def calm(sim: Sim) -> np.ndarray:
    """Returns the factor `(n,)` for small controls: 1 for none, 0.8 for the largest."""
    little = tolerance(sim.ctrl, margin=1, at_margin=0, shape="quadratic")
    return (4 + little.mean(1)) / 5
