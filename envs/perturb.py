"""Perturb: the things of a scene that can vary from row to row, and what a drawn value does there.

Each kind draws values from one range for each of its parts (a body, a lamp, a camera) and writes
them into one row: factors multiply what the model and the task say, offsets are added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mujoco
import numpy as np

from .relations import extent
from .sim import PATTERN, Sim

LATEST = 10  # control steps: the longest latency
_PLAIN = np.array([0.5, 0.5, 0.5, 1], np.float32)  # a geom's colour that yields to its material
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_SINGLE = {int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)}
_JOINT = {int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)}


class Part(NamedTuple):
    """One thing of the model that a kind of variation draws for."""

    name: str
    index: int
    more: tuple[int, ...] = ()


class Kind(NamedTuple):
    """A way in which rows differ: its unit, ranges, and what it does to a row.

    parts: (model) -> what it draws for. put: (sim, i, parts, values (parts, width), rng) writes
    row i; it may lessen the values to what was possible. fields: the model fields that it writes.
    """

    unit: str
    default: tuple[float, float]
    bounds: tuple[float, float]
    parts: Callable[[mujoco.MjModel], list[Part]]
    put: Callable[[Sim, int, list[Part], np.ndarray, np.random.Generator], None]
    fields: tuple[str, ...] = ()
    width: int = 1
    whole: bool = False  # whole numbers only


def driven(model) -> set[int]:
    """Returns the root bodies of what actuators move."""
    roots = set()
    for a in range(model.nu):
        target, kind = int(model.actuator_trnid[a, 0]), int(model.actuator_trntype[a])
        bodies = []
        if kind in _JOINT:
            bodies = [model.jnt_bodyid[target]]
        elif kind == int(mujoco.mjtTrn.mjTRN_SITE):
            bodies = [model.site_bodyid[target]]
        elif kind == int(mujoco.mjtTrn.mjTRN_TENDON):
            start, count = model.tendon_adr[target], model.tendon_num[target]
            for w in range(start, start + count):
                of, wrap = int(model.wrap_objid[w]), int(model.wrap_type[w])
                if wrap == int(mujoco.mjtWrap.mjWRAP_JOINT):
                    bodies.append(model.jnt_bodyid[of])
                elif wrap == int(mujoco.mjtWrap.mjWRAP_SITE):
                    bodies.append(model.site_bodyid[of])
        roots |= {int(model.body_rootid[b]) for b in bodies}
    return roots


def _things(model) -> list[Part]:
    """Returns the free bodies that no actuator moves: (name, body, (its joint,))."""
    robots = driven(model)
    return [
        Part(model.body(b).name, b, (int(model.body_jntadr[b]),))
        for b in range(1, model.nbody)
        if model.body_jntnum[b] == 1
        and int(model.jnt_type[model.body_jntadr[b]]) == _FREE
        and int(model.body_rootid[b]) not in robots
    ]


def _weights(model) -> list[Part]:
    """Returns the moving bodies that no actuator moves, or all moving ones if there are none."""
    heavy = (model.body_weldid > 0) & (model.body_mass > 0) & (model.body_mocapid < 0)
    moving = np.flatnonzero(heavy).tolist()
    robots = driven(model)
    loose = [b for b in moving if int(model.body_rootid[b]) not in robots]
    return [Part(model.body(b).name or str(b), b) for b in loose or moving]


def _weigh(sim, i, parts, values, rng) -> None:
    for part, v in zip(parts, values[:, 0], strict=True):
        sim.vary("body_mass")[i, part.index] *= v
        sim.vary("body_inertia")[i, part.index] *= v


def _sized(model) -> list[Part]:
    meshes = {int(mujoco.mjtGeom.mjGEOM_MESH), int(mujoco.mjtGeom.mjGEOM_SDF)}
    found = []
    for thing in _things(model):
        geoms = tuple(np.flatnonzero(model.geom_bodyid == thing.index).tolist())
        if geoms and not any(int(model.geom_type[g]) in meshes for g in geoms):
            found.append(Part(thing.name, thing.index, (*thing.more, *geoms)))
    return found


def _resize(sim, i, parts, values, rng) -> None:
    """Scales a body about its lowest point; its mass stays."""
    model = sim.model
    for part, v in zip(parts, values[:, 0], strict=True):
        joint, *geoms = part.more
        pose = sim.qpos[i, model.jnt_qposadr[joint] : model.jnt_qposadr[joint] + 7]
        pose[2] += (v - 1) * _depth(sim, i, geoms, pose[3:])
        for name in ("geom_size", "geom_pos"):
            sim.vary(name)[i, geoms] *= v
        sim.vary("body_ipos")[i, part.index] *= v
        sim.vary("body_inertia")[i, part.index] *= v**2


def _depth(sim, i, geoms, quat) -> float:
    """Returns how far a body's lowest point is below its frame, in m, turned by `quat`."""
    turn, place, out = np.empty(4), np.empty(3), np.empty(9)
    lowest = -np.inf
    for g in geoms:
        mujoco.mju_mulQuat(turn, quat, sim.model_field("geom_quat")[i, g])
        mujoco.mju_rotVecQuat(place, sim.model_field("geom_pos")[i, g], quat)
        mujoco.mju_quat2Mat(out, turn)
        size = sim.model_field("geom_size")[i, g][None, None]
        half = extent(sim.model.geom_type[[g]], size, out[None, None])[0, 0, 2]
        lowest = max(lowest, half - place[2])
    return lowest


def _rub(sim, i, parts, values, rng) -> None:
    for name in ("geom_friction", "pair_friction")[: 1 + bool(sim.model.npair)]:
        sim.vary(name)[i] *= values[0, 0]


def _damped(model) -> list[Part]:
    return [
        Part(model.joint(j).name or str(j), int(model.jnt_dofadr[j]))
        for j in range(model.njnt)
        if int(model.jnt_type[j]) in _SINGLE and model.dof_damping[model.jnt_dofadr[j]] > 0
    ]


def _damp(sim, i, parts, values, rng) -> None:
    sim.vary("dof_damping")[i, [p.index for p in parts]] *= values[:, 0]


def _motors(model) -> list[Part]:
    linear = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)
    return [
        Part(model.actuator(a).name or str(a), a)
        for a in range(model.nu)
        if int(model.actuator_gaintype[a]) in linear
    ]


def _strengthen(sim, i, parts, values, rng) -> None:
    index = [p.index for p in parts]
    for name in ("actuator_gainprm", "actuator_biasprm"):
        sim.vary(name)[i, index] *= values


def _paint(model, geom: int) -> tuple[str, int]:
    """Returns the model field and index where a geom's colour is: its own or its material's."""
    matter = int(model.geom_matid[geom])
    plain = matter >= 0 and (model.geom_rgba[geom] == _PLAIN).all()
    return ("mat_rgba", matter) if plain else ("geom_rgba", geom)


def _shown(model, things: bool) -> list[int]:
    """Returns the visible geoms of things, or of all else: the robots and the world.

    Things are the bodies that belong to no robot: words may call them by their colour.
    """
    robots, of = driven(model), model.geom_bodyid
    return [
        g
        for g in np.flatnonzero(model.geom_rgba[:, 3] > 0).tolist()
        if (of[g] > 0 and int(model.body_rootid[of[g]]) not in robots) == things
    ]


def _things_seen(model) -> list[Part]:
    geoms: dict[int, list[int]] = {}
    for g in _shown(model, True):
        geoms.setdefault(int(model.geom_bodyid[g]), []).append(g)
    return [Part(model.body(b).name or str(b), b, tuple(own)) for b, own in geoms.items()]


def _tint(sim, i, parts, values, rng) -> None:
    for part, v in zip(parts, values, strict=True):
        for field, k in sorted({_paint(sim.model, g) for g in part.more}):
            rgb = sim.vary(field)[i, k, :3]
            rgb[:] = np.clip(rgb + v, 0, 1)


def _surfaces(model) -> list[Part]:
    parts = {}
    for g in _shown(model, False):
        field, k = _paint(model, g)
        name = model.geom(g).name if field == "geom_rgba" else model.mat(k).name
        geoms = parts[field, k].more if (field, k) in parts else ()
        parts[field, k] = Part(name or str(k), g, (*geoms, g))
    return list(parts.values())


def _repaint(sim, i, parts, values, rng) -> None:
    """Mixes surfaces with a colour, then draws checks, stripes or clouds of another over them."""
    for part, v in zip(parts, values[:, 0], strict=True):
        field, k = _paint(sim.model, part.index)
        rgb = sim.vary(field)[i, k, :3]
        rgb[:] = (1 - v) * rgb + v * rng.random(3)
    for part, v in zip(parts, values[:, 0], strict=True):
        style, fine, *rest = rng.random(PATTERN)
        field, k = _paint(sim.model, part.index)
        colour = (1 - v) * sim.vary(field)[i, k, :3] + v * np.array(rest[:3])
        way = 2 * np.array(rest[3:]) - 1
        pattern = [1 + int(3 * style), (2 + 6 * fine) / _long(sim.model, part.index), *colour]
        sim.vary("pattern")[i, part.more] = [*pattern, *way / np.sqrt((way**2).sum())] if v else 0


def _long(model, geom: int) -> float:
    """Returns how long a geom is, in m, or a piece of it if it is longer than 2 m."""
    endless = int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_PLANE)
    return 2.0 if endless else min(max(2 * float(model.geom_aabb[geom, 3:].max()), 0.01), 2.0)


def _lamps(model) -> list[Part]:
    return [Part(model.light(k).name or str(k), k) for k in np.flatnonzero(model.light_active)]


def _lights(model) -> list[Part]:
    return _lamps(model) and [*_lamps(model), Part("ambient", 0), Part("headlight", 0)]


def _shine(sim, i, parts, values, rng) -> None:
    head, model = sim.model.vis.headlight, sim.model
    ambient = sim.vary("light_ambient")[i]
    whole = (ambient * model.light_active[:, None].astype(bool)).sum(0)
    whole = whole + (head.ambient if head.active else 0)
    k = len(parts) - 2
    sim.vary("light_diffuse")[i, [p.index for p in parts[:k]]] *= values[:k]
    # The headlight's ambient light is all rows' own; a lamp's makes up for what it shall be.
    on = np.flatnonzero(model.light_active)[0]
    ambient[on] += (values[k, 0] - 1) * whole
    sim.vary("headlight")[i] *= values[k + 1, 0]


def _hang(sim, i, parts, values, rng) -> None:
    directional = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    for part, v in zip(parts, values, strict=True):
        sim.vary("light_pos")[i, part.index] += v
        if int(sim.model.light_type[part.index]) == directional:  # its place says nothing
            way = sim.vary("light_dir")[i, part.index]
            way += v
            way /= np.sqrt((way**2).sum())


def _cameras(model) -> list[Part]:
    return [Part(model.camera(c).name or str(c), c) for c in range(model.ncam)]


def _aimed(model) -> list[Part]:
    """Returns the cameras that do not look at a body whatever their own direction."""
    mode = mujoco.mjtCamLight
    free = {
        int(m) for m in (mode.mjCAMLIGHT_FIXED, mode.mjCAMLIGHT_TRACK, mode.mjCAMLIGHT_TRACKCOM)
    }
    return [part for part in _cameras(model) if int(model.cam_mode[part.index]) in free]


def _carry(sim, i, parts, values, rng) -> None:
    sim.vary("cam_pos")[i, [p.index for p in parts]] += values


def _turn(sim, i, parts, values, rng) -> None:
    for part, v in zip(parts, values, strict=True):
        quat = sim.vary("cam_quat")[i, part.index]
        # The engine's own product rounds to what it keeps: doubles.
        turned = quat.astype(float)
        mujoco.mju_quatIntegrate(turned, v, 1.0)
        quat[:] = turned


def _zoom(sim, i, parts, values, rng) -> None:
    fovy = sim.vary("cam_fovy")
    for part, v in zip(parts, values[:, 0], strict=True):
        fovy[i, part.index] = min(fovy[i, part.index] * v, 170)


def _posed(model) -> list[Part]:
    """Returns the actuated single joints that no equality ties to another."""
    tied = {
        int(j)
        for e in range(model.neq)
        if int(model.eq_type[e]) == int(mujoco.mjtEq.mjEQ_JOINT)
        for j in (model.eq_obj1id[e], model.eq_obj2id[e])
    }
    joints = {
        int(model.actuator_trnid[a, 0])
        for a in range(model.nu)
        if int(model.actuator_trntype[a]) in _JOINT
    }
    return [
        Part(model.joint(j).name or str(j), j)
        for j in sorted(joints - tied)
        if int(model.jnt_type[j]) in _SINGLE
    ]


def _pose(sim, i, parts, values, rng) -> None:
    model = sim.model
    for part, v in zip(parts, values, strict=True):
        at = model.jnt_qposadr[part.index]
        low, high = model.jnt_range[part.index] if model.jnt_limited[part.index] else (-9, 9)
        start = sim.qpos[i, at]
        v[0] = min(max(start + v[0], min(low, start)), max(high, start)) - start
        sim.qpos[i, at] = start + v[0]


def _shift(sim, i, parts, values, rng) -> None:
    """Moves things by the values, or by a half of them and so on where others are in the way."""
    model = sim.model
    radius = np.zeros(model.nbody)
    np.maximum.at(radius, model.geom_bodyid, model.geom_rbound)
    mocap = [b for b in np.flatnonzero(model.body_mocapid >= 0) if radius[b] > 0]
    places = {b: sim.mocap_pos[i, model.body_mocapid[b], :2] for b in mocap}
    for part in parts:
        at = model.jnt_qposadr[part.more[0]]
        places[part.index] = sim.qpos[i, at : at + 2]
    for part, v in zip(parts, values, strict=True):
        here = places[part.index]
        rest = [b for b in places if b != part.index]
        gap = np.array([radius[part.index] + radius[b] for b in rest])
        others = np.array([places[b] for b in rest]).reshape(-1, 2)
        now = np.sqrt(((here - others) ** 2).sum(1))
        for _ in range(8):
            far = np.sqrt(((here + v - others) ** 2).sum(1))
            if (far >= np.minimum(gap, now)).all():
                break
            v /= 2
        else:
            v[:] = 0
        here += v


def _bases(model) -> list[Part]:
    """Returns the fixed feet of what is actuated, where the model has a table."""
    if not any(model.geom(g).name == "table" for g in range(model.ngeom)):
        return []
    return [Part("table", b) for b in sorted(driven(model)) if model.body_jntnum[b] == 0]


def _lower(sim, i, parts, values, rng) -> None:
    """Lowers the robot: tasks call the table's top z = 0, so it is the robot that moves."""
    values[1:] = values[0]
    sim.vary("body_pos")[i, [p.index for p in parts], 2] -= values[:, 0]


def _nothing(sim, i, parts, values, rng) -> None:
    """Leaves the row's physics: what this draws is applied to actions, observations or words."""


def _one(name: str) -> Callable[[mujoco.MjModel], list[Part]]:
    return lambda model: [Part(name, 0)]


KINDS = {
    "mass": Kind("factor", (0.5, 2), (0.01, 100), _weights, _weigh, ("body_mass", "body_inertia")),
    "size": Kind(
        "factor", (0.9, 1.1), (0.2, 5), _sized, _resize,
        ("geom_size", "geom_pos", "body_ipos", "body_inertia"),
    ),
    "friction": Kind(
        "factor", (0.5, 1.5), (0.01, 100), _one("all"), _rub, ("geom_friction", "pair_friction")
    ),
    "damping": Kind("factor", (0.5, 2), (0.01, 100), _damped, _damp, ("dof_damping",)),
    "gain": Kind(
        "factor", (0.8, 1.25), (0.05, 20), _motors, _strengthen,
        ("actuator_gainprm", "actuator_biasprm"),
    ),
    # A palette colour stays the nearest one, so words that name it stay true.
    "colour": Kind(
        "rgb", (-0.04, 0.04), (-0.045, 0.045), _things_seen, _tint,
        ("geom_rgba", "mat_rgba"), 3,
    ),
    "texture": Kind(
        "share", (0, 0.5), (0, 1), _surfaces, _repaint, ("geom_rgba", "mat_rgba", "pattern")
    ),
    "light": Kind(
        "factor", (0.6, 1.5), (0.05, 20), _lights, _shine,
        ("light_diffuse", "light_ambient", "headlight"),
    ),
    "lamp": Kind("m", (-0.5, 0.5), (-5, 5), _lamps, _hang, ("light_pos", "light_dir"), 3),
    "camera": Kind("m", (-0.05, 0.05), (-1, 1), _cameras, _carry, ("cam_pos",), 3),
    "aim": Kind("rad", (-0.05, 0.05), (-1, 1), _aimed, _turn, ("cam_quat",), 3),
    "fov": Kind("factor", (0.9, 1.1), (0.2, 3), _cameras, _zoom, ("cam_fovy",)),
    "start": Kind("rad or m", (-0.1, 0.1), (-1, 1), _posed, _pose),
    "layout": Kind("m", (-0.03, 0.03), (-0.3, 0.3), _things, _shift, (), 2),
    "table": Kind("m", (-0.03, 0.03), (-0.2, 0.2), _bases, _lower, ("body_pos",)),
    "latency": Kind("control steps", (0, 3), (0, LATEST), _one("action"), _nothing, whole=True),
    "noise": Kind("standard deviation", (0, 0.01), (0, 10), _one("std"), _nothing),
    "language": Kind("level", (0, 5), (0, 5), _one("level"), _nothing, whole=True),
}  # fmt: skip
