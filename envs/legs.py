"""Legs: how the G1 is held up and made to step by the forces of its feet; knows no task.

Joint targets are computed as torques, which the servos' known stiffness turns into angles: the
legs' from the forces that the ground should exert, the others' from gravity. Everything is a
function of the present state. Sources: the linear inverted pendulum and its capture point, Kajita
et al. 2001 and Pratt et al. 2006; steps placed by the divergent component of motion, Englsberger
et al. 2015; forces through the transposed Jacobian, Pratt et al. 2001 (virtual model control).
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from ..robots import g1
from .sim import Sim

GRAVITY = 9.81  # m/s^2
STIFFNESS = np.array(g1.STIFFNESS)
HOME = np.array(g1.HOME)
_LOW, _HIGH = np.array(g1.SOLE[0]), np.array(g1.SOLE[1])
_EDGE = 0.015  # m that the centre of pressure keeps from a foot's edge


class Views(NamedTuple):
    """Live views of the G1 in a Sim, of n rows."""

    q: np.ndarray  # (n, 29) rad
    dq: np.ndarray  # (n, 29) rad/s
    axis: np.ndarray  # (n, 29, 3) of the joints, in the world
    anchor: np.ndarray  # (n, 29, 3) m
    bias: np.ndarray  # (n, 29) Nm that gravity and motion ask of the joints
    com: np.ndarray  # (n, 3) m
    drift: np.ndarray  # (n, 3) m/s, of the centre of mass
    feet: np.ndarray  # (n, 2, 3) m, the soles under the ankles
    soles: np.ndarray  # (n, 2, 9) their rotation matrices
    pelvis: np.ndarray  # (n, 9) its rotation matrix
    spin: np.ndarray  # (n, 3) rad/s of the pelvis, in its own frame
    mass: float


def views(sim: Sim) -> Views:
    """Returns the views; a spec that is compiled after `sense`."""
    return sim.once("legs", lambda: _views(sim))


def _views(sim: Sim) -> Views:
    m, k = sim.model, len(g1.JOINTS)
    first = m.joint(g1.JOINTS[0])
    q, v, j = int(first.qposadr[0]), int(first.dofadr[0]), first.id
    feet = [m.site(f"{side}_foot").id for side in ("left", "right")]
    base = m.body("base").id
    return Views(
        sim.qpos[:, q : q + k], sim.qvel[:, v : v + k], sim.xaxis[:, j : j + k],
        sim.xanchor[:, j : j + k], sim.qfrc_bias[:, v : v + k], sim.subtree_com[:, base],
        sim.sensor("drift"), sim.site_xpos[:, feet[0] : feet[1] + 1],
        sim.site_xmat[:, feet[0] : feet[1] + 1], sim.xmat[:, base], sim.qvel[:, v - 3 : v],
        float(m.body_subtreemass[base]),
    )  # fmt: skip


def sense(s: mujoco.MjSpec) -> None:
    """Adds to a spec the sensor that `views` reads: the velocity of the centre of mass."""
    s.add_sensor(
        name="drift", type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL,
        objtype=mujoco.mjtObj.mjOBJ_BODY, objname="base",
    )  # fmt: skip


def heading(v: Views) -> np.ndarray:
    """Returns where the pelvis faces, `(n, 2)`, of length 1."""
    ahead = v.pelvis[:, [0, 3]]
    return ahead / np.sqrt((ahead**2).sum(1))[:, None]


def capture(v: Views) -> tuple[np.ndarray, np.ndarray]:
    """Returns the capture point `(n, 2)` in m and the pendulum's rate `(n,)` in 1/s."""
    high = np.maximum(v.com[:, 2] - v.feet[:, :, 2].min(1), 0.3)
    rate = np.sqrt(GRAVITY / high)
    return v.com[:, :2] + v.drift[:, :2] / rate[:, None], rate


def turned(x: np.ndarray, ahead: np.ndarray, back: bool = False) -> np.ndarray:
    """Returns vectors `(n, 2)` of the frame that looks along `ahead` in the world's (or back)."""
    c, s = ahead[:, 0], -ahead[:, 1] if back else ahead[:, 1]
    return np.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], 1)


def pressed(
    v: Views, share: np.ndarray, cop: np.ndarray, high, face: np.ndarray, twist=1.0
) -> np.ndarray:
    """Returns the joints' torques `(n, 29)` in Nm that press the feet on the ground as told.

    share: `(n, 2)` of the weight on each foot. cop: `(n, 2)` m, the centre of pressure wanted;
    each foot's stays inside it. high: m of the centre of mass above the soles. face: `(n, 2)`
    where the pelvis shall face. The pelvis is turned upright.
    """
    middle = (share[:, :, None] * v.feet[:, :, :2]).sum(1)
    own = turned(cop - middle, face, back=True)
    own = np.clip(own, (_LOW[0] + _EDGE, _HIGH[0] + _EDGE), (_LOW[1] - _EDGE, _HIGH[1] - _EDGE))
    off = turned(own, face)
    cop = middle + off
    ground = (share * v.feet[:, :, 2]).sum(1)
    tall = np.maximum(v.com[:, 2] - ground, 0.3)
    lift = 60 * (high - tall) - 10 * v.drift[:, 2]
    weight = v.mass * np.clip(GRAVITY + lift, 2, 20)
    # the moment that turns the pelvis upright and to where it shall face
    tilt = np.stack([v.pelvis[:, 5], -v.pelvis[:, 2]], 1)  # up x z
    spin = np.einsum("nij,nj->ni", v.pelvis.reshape(-1, 3, 3), v.spin)
    moment = 80 * tilt - 8 * spin[:, :2]
    ahead = heading(v)
    yaw = ahead[:, 0] * face[:, 1] - ahead[:, 1] * face[:, 0]
    turn = twist * np.clip(60 * yaw - 5 * spin[:, 2], -12, 12)
    gap = v.com[:, :2] - cop
    force = np.empty((len(tall), 3))
    force[:, 0] = (weight * gap[:, 0] - moment[:, 1]) / tall
    force[:, 1] = (weight * gap[:, 1] + moment[:, 0]) / tall
    force[:, 2] = weight
    torque = v.bias.copy()
    for k in range(2):
        leg = slice(6 * k, 6 * k + 6)
        at = v.feet[:, k].copy()
        at[:, :2] += off
        arm = at[:, None] - v.anchor[:, leg]
        push = np.cross(arm, force[:, None]) * share[:, k, None, None]
        push[..., 2] += (share[:, k] * turn)[:, None]
        torque[:, leg] -= (v.axis[:, leg] * push).sum(2)
    return torque


def standing(v: Views, high: float, ahead: float = 0.03, gain: float = 2.0) -> np.ndarray:
    """Returns joint targets `(n, 29)` in rad that keep both feet and the balance where they are.

    high: m of the centre of mass above the soles. ahead: m before the ankles where it is kept.
    gain: how far beyond the capture point the centre of pressure goes, 1 being just there.
    """
    point, _ = capture(v)
    face = v.feet[:, 0, :2] - v.feet[:, 1, :2]
    apart = np.sqrt((face**2).sum(1))
    face = np.stack([face[:, 1], -face[:, 0]], 1) / np.maximum(apart, 0.05)[:, None]
    middle = v.feet[:, :, :2].mean(1)
    rest = middle + ahead * face
    cop = rest + gain * (point - rest)
    aside = turned(cop - middle, face, back=True)[:, 1]
    left = np.clip(0.5 + aside / np.maximum(apart, 0.05), 0.05, 0.95)
    torque = pressed(v, np.stack([left, 1 - left], 1), cop, high, face)
    return HOME + torque / STIFFNESS


STEP = 0.32  # s
_START = 0.13  # s before the first step, in which the weight goes over to the left foot
_WIDE, _CLEAR, _TALL, _BOTH = 0.18, 0.06, 0.66, 0.12  # m, m, m; share of a step on both feet
_AHEAD = 0.03  # m before the ankle, where a foot is stood on
_LOOK = 0.06  # s that a swinging foot's goal is ahead of it
_NEAR, _FAR = (-0.35, 0.14), (0.45, 0.45)  # m ahead and aside of the other foot, where feet may go


def walking(v: Views, time: np.ndarray, speed: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Returns joint targets `(n, 29)` in rad of a walk, from standing at time 0 on.

    time: `(n,)` s, which of the steps, of `STEP` s, it is in. speed: `(n, 2)` m/s ahead and to the
    left. face: `(n, 2)` where to. Every step goes where the next leaves the capture point as the
    walk wants it; the sole that stands corrects what it can until then.
    """
    rows, count = np.arange(len(time)), len(time)
    number = (time + STEP - _START) / STEP
    stand = (np.floor(number).astype(int) + 1) % 2  # which foot stands, 0 left
    done, swing = number - np.floor(number), 1 - stand
    side = 1.0 - 2.0 * stand
    point, rate = capture(v)
    growth = np.exp(rate * STEP)
    foot, other = v.feet[rows, stand], v.feet[rows, swing]
    sole = foot[:, :2] + _AHEAD * face
    begin = (
        speed * (STEP / (growth - 1))[:, None]
    )  # the capture point from a sole, as a step begins
    wide = _WIDE / (1 + growth)
    now = (
        np.stack([begin[:, 0], begin[:, 1] - side * wide], 1) * np.exp(rate * done * STEP)[:, None]
    )
    cop = point - turned(now, face)
    both = 0.5 * np.clip(1 - done / _BOTH, 0, 1)
    share = np.empty((count, 2))
    share[rows, stand], share[rows, swing] = 1 - both, both
    torque = pressed(v, share, cop, _TALL, face)
    target = HOME + torque / STIFFNESS
    legs = slice(0, 12)
    target[:, legs] = v.q[:, legs] + torque[:, legs] / STIFFNESS[legs]
    end = sole + (point - sole) * np.exp(rate * (1 - done) * STEP)[:, None]
    after = np.stack([begin[:, 0], begin[:, 1] + side * wide], 1)
    place = turned(end - turned(after, face) - _AHEAD * face - foot[:, :2], face, back=True)
    aside = np.clip(-side * place[:, 1], _NEAR[1], _FAR[1])
    place = np.stack([np.clip(place[:, 0], _NEAR[0], _FAR[0]), -side * aside], 1)
    place = foot[:, :2] + turned(place, face)
    left = np.maximum((0.9 - done) * STEP, 0.02)
    goal = np.empty((count, 3))
    goal[:, :2] = other[:, :2] + (place - other[:, :2]) * np.minimum(_LOOK / left, 1)[:, None]
    soon = np.minimum(done + _LOOK / STEP, 1)
    goal[:, 2] = foot[:, 2] + _CLEAR * np.sin(np.pi * soon) - 0.01 * (done > 0.85)
    goal[:, :2] -= v.drift[:, :2] * _LOOK  # the pelvis goes on meanwhile
    lifted = np.where(time > _START, np.clip(done / _BOTH, 0, 1), 0.0)[:, None]
    for k in range(2):
        leg = slice(6 * k, 6 * k + 6)
        free = lifted * (swing == k)[:, None]
        target[:, leg] += free * (_swung(v, k, goal, face) - target[:, leg])
    return target


def _swung(v: Views, k: int, goal: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Returns the targets `(n, 6)` of leg k that lead its sole, kept level, to `goal` (n, 3)."""
    leg, turn = slice(6 * k, 6 * k + 6), v.soles[:, k].reshape(-1, 3, 3)
    want = np.zeros_like(turn)
    want[:, :2, 0], want[:, 0, 1], want[:, 1, 1], want[:, 2, 2] = face, -face[:, 1], face[:, 0], 1
    error = np.empty((len(goal), 6))
    error[:, :3] = goal - v.feet[:, k]
    error[:, 3:] = np.cross(turn, want, axis=1).sum(2) / 2
    arm = v.feet[:, k, None] - v.anchor[:, leg]
    jacobian = np.concatenate([np.cross(v.axis[:, leg], arm), v.axis[:, leg]], 2)  # (n, joint, 6)
    square = jacobian.transpose(0, 2, 1) @ jacobian + 1e-4 * np.eye(6)
    move = (jacobian @ np.linalg.solve(square, error[..., None]))[..., 0]
    hold = v.bias[:, leg] / STIFFNESS[leg]
    return v.q[:, leg] + 1.4 * np.clip(move, -0.8, 0.8) + hold
