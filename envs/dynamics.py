"""Dynamics: the torques under which an arm's joints go where they should; knows no task.

Source: computed torque control, Luh, Walker and Paul 1980, "Resolved-acceleration control of
mechanical manipulators", here for torques that stay the same between two actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ik import Ik
from .sim import Sim

_LOAD = 4.0  # N at the tool, of what it meets: more is a blow, and over by now
_HASTE = 1.0  # of the gap, that a joint would go in one action at the speed it shall have after it


@dataclass(frozen=True)
class _Joints:
    """What moves one arm's joints: live views of n rows."""

    mass: np.ndarray  # (n, nC) the engine's sparse mass matrix
    entry: np.ndarray  # (k, k) where the arm's own are in it
    bias: np.ndarray  # (n, k) Nm of gravity, Coriolis and centrifugal forces
    passive: np.ndarray  # (n, k) Nm of springs, dampers and what holds the links against gravity
    met: np.ndarray  # (n, k) Nm of contacts, dry friction and limits, a substep ago
    damping: np.ndarray  # (k,) Nm s/rad
    dry: np.ndarray  # (k,) Nm of dry friction


def torque(ik: Ik, sim: Sim, target: np.ndarray, dt: float) -> np.ndarray:
    """Returns torques `(n, k)` in Nm that, held for dt s, bring joints towards `target` (n, k) rad.

    After it a joint's speed is its remaining gap over dt, so that the next halves that gap or more;
    what touches the arm, or hangs from it, counts as pressing on as it does.
    """
    joints, tool = sim.once(("joints", ik.prefix), lambda: _joints(ik, sim)), ik.tool(sim)
    mass = joints.mass[:, joints.entry]
    # How much of a joint's mean speed is that which it ends with: a half, more where it is damped
    # so much that it soon has it. The gap after dt is that of now less dt times their mean.
    x = np.maximum(dt * joints.damping / np.diagonal(mass, axis1=1, axis2=2), 1e-3)
    last = 1 / -np.expm1(-x) - 1 / x
    rate, gap = _HASTE / dt, target - tool.q
    speed = rate * (gap - dt * (1 - last) * tool.dq) / (1 + rate * dt * last)
    change = speed - tool.dq
    push = (mass @ (change / dt)[..., None])[..., 0] + joints.damping * last * change
    most = joints.dry + _LOAD * np.sqrt((ik.jacobian(tool)[..., :3] ** 2).sum(2))
    met = np.minimum(np.maximum(joints.met, -most), most)
    return push + joints.bias - joints.passive - met


def _joints(ik: Ik, sim: Sim) -> _Joints:
    m, k = sim.model, len(ik.body.joints)
    first = int(m.joint(ik.prefix + ik.body.joints[0]).dofadr[0])
    own, entry = slice(first, first + k), np.zeros((k, k), int)
    for i in range(k):  # a row has the columns up to its own
        start = int(m.M_rowadr[first + i])
        for at in range(start, start + int(m.M_rownnz[first + i])):
            j = int(m.M_colind[at]) - first
            if j >= 0:
                entry[i, j] = entry[j, i] = at
    return _Joints(
        sim.M, entry, sim.qfrc_bias[:, own], sim.qfrc_passive[:, own], sim.qfrc_constraint[:, own],
        m.dof_damping[own].ravel(), m.dof_frictionloss[own].ravel(),
    )  # fmt: skip
