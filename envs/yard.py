"""Yard: a walled floor for what drives, and the things that tasks put on it; knows no task."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import drive, scene
from .rewards import tolerance
from .sim import Sim

_G = mujoco.mjtGeom
_SHAPE = {"ball": _G.mjGEOM_SPHERE, "cube": _G.mjGEOM_BOX, "cylinder": _G.mjGEOM_CYLINDER}
_WALL, _STONE = (0.80, 0.76, 0.68, 1), (0.52, 0.54, 0.57, 1)
HEIGHT, THICK = 0.45, 0.05  # m, of walls


def enclose(s: mujoco.MjSpec, memory: int, half: float) -> None:
    """Puts a base (added already) into a square yard from -half to half m, inside its walls.

    memory: userdata numbers. The camera `yard` looks from above, over the wall at -x.
    """
    scene.stage(s, memory, 0.0, (-0.3 * half, -0.6 * half, 1.8 * half), (0.15, 0.3, -0.9))
    for name, x, y in (("west", -1, 0), ("east", 1, 0), ("south", 0, -1), ("north", 0, 1)):
        at, long = half + THICK / 2, half + THICK
        s.worldbody.add_geom(
            name=name, type=_G.mjGEOM_BOX, pos=(x * at, y * at, HEIGHT / 2), rgba=_WALL,
            size=(THICK / 2 if x else long, long if x else THICK / 2, HEIGHT / 2),
            contype=1, conaffinity=3,
        )  # fmt: skip
    eye = np.array([-1.15 * half, 0, 2.0 * half])
    s.worldbody.add_camera(
        name="yard", pos=eye, quat=gaze(eye, np.array([-0.08 * half, 0, 0])), fovy=58
    )


def settle(s: mujoco.MjSpec, home: np.ndarray, hold: np.ndarray) -> mujoco.MjSpec:
    """Returns the spec with its first keyframe: the robot at `home`, held by the controls `hold`,
    as it is when all has come to rest; what is there beside it stays where it was put."""
    model = s.compile()
    data = mujoco.MjData(model)
    data.qpos[: len(home)] = home
    data.ctrl[: len(hold)] = hold
    for _ in range(round(2 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    s.add_key(
        name="home", qpos=data.qpos, ctrl=data.ctrl, mpos=data.mocap_pos.ravel(),
        mquat=data.mocap_quat.ravel(),
    )  # fmt: skip
    return s


def gaze(eye: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the quaternion of a camera at `eye` that looks at `at` (m), upright."""
    back = (eye - at) / np.linalg.norm(eye - at)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(back, right), back], 1)
    mujoco.mju_mat2Quat(out := np.empty(4), turn.ravel())
    return out


def add_thing(s: mujoco.MjSpec, name: str, shape: str, size: tuple, rgba=_STONE) -> None:
    """Adds a solid shape that nothing moves, on the ground, as a mocap body; size: MuJoCo's, m."""
    high = size[1] if shape == "cylinder" else size[0] if shape == "ball" else size[2]
    body = s.worldbody.add_body(name=name, mocap=True, pos=(0, 0, high))
    body.add_geom(name=name, type=_SHAPE[shape], size=size, rgba=rgba, contype=1, conaffinity=3)


def add_wall(s: mujoco.MjSpec, name: str, length: float) -> None:
    """Adds a wall as long as that in y, m, as a mocap body."""
    add_thing(s, name, "cube", (THICK / 2, length / 2, HEIGHT / 2), _WALL)


def terms(gap: np.ndarray, done: np.ndarray, span: float) -> dict[str, np.ndarray]:
    """Returns the reward's terms: `near`, less the more is to go, of which `span` pays nothing (m),
    and `done`."""
    return {"near": tolerance(gap, margin=span, shape="linear", at_margin=0), "done": done}


def pay(near: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Returns the reward `(n,)`: 1 where done, else up to 0.95."""
    return np.where(done, 1.0, 0.95 * near)


def facing(sim: Sim, goal: np.ndarray, within: float) -> np.ndarray:
    """Returns `(n,)` bool: the base stands within so many m of `goal` (n, 2) and faces it."""
    x, y = drive.seen(sim, goal - drive.place(sim)).T
    far = np.sqrt(x * x + y * y)
    return (far < within) & (x > far * math.cos(math.radians(25))) & drive.resting(sim)


def approach(sim: Sim, control: drive.Drive, which, count: int, clear: float, stop: float):
    """Returns actions `(n, 2)` that lead to `stop` m before thing `which` (n,), past the others.

    The things are the first `count` mocap bodies; the way keeps `clear` m from them.
    """
    spots = sim.mocap_pos[:, :count, :2]
    others = np.arange(count - 1) + (np.arange(count - 1) >= which[:, None])
    goal = scene.pick(sim, spots, which)
    way = drive.detour(drive.place(sim), goal, spots[sim.rows[:, None], others], clear)
    aside = (way != goal).any(1)
    return np.where(
        aside[:, None], control.go(sim, way, through=aside), control.go(sim, goal, close=stop)
    )
