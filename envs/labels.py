"""Labels: ground truth that every task has in common, from the simulator; knows no one task.

A thing is a named body that is seen and belongs to no robot: free, hinged, a goal or a fixture.
"""

from __future__ import annotations

import mujoco
import numpy as np

from .control import HIGH, LOW
from .perturb import driven
from .relations import Scene, extent, matrix
from .sim import Sim
from .task import Task

_TOUCH, _ROBOT = "labels/{}/{}", "labels/{}/robot"  # names of the sensors that `prepare` adds
_FINGERS = ("left", "right")
_CLOSE = 0.03  # m from where the tool may go: within its grasp
_SEEN_GROUPS = 3  # geom groups below it are drawn
_CLOSED_FORM = {
    int(kind)
    for kind in (
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_BOX,
    )
}


def things(model: mujoco.MjModel) -> list[str]:
    """Returns the names of the things of a model, in the order that the labels have them."""
    robots = driven(model)
    return [
        model.body(b).name
        for b in range(1, model.nbody)
        if model.body(b).name and int(model.body_rootid[b]) not in robots and _geoms(model, b)
    ]


def _geoms(model, body: int) -> list[int]:
    """Returns the geoms of a body that are seen."""
    seen = (model.geom_group < _SEEN_GROUPS) & (model.geom_rgba[:, 3] > 0)
    return np.flatnonzero(seen & (model.geom_bodyid == body)).tolist()


def prepare(spec: mujoco.MjSpec) -> None:
    """Adds sensors of which things touch which, and a robot. The physics stays bit for bit."""
    model = spec.compile()
    names, contact = things(model), mujoco.mjtSensor.mjSENS_CONTACT
    body, whole = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY
    # found (the number of contacts), the first one's, as they come
    form = {"type": contact, "objtype": body, "intprm": (1, 0, 1)}
    for k, name in enumerate(names):
        for other in names[k + 1 :]:
            if _meet(model, name, other):
                spec.add_sensor(
                    name=_TOUCH.format(name, other),
                    objname=name,
                    reftype=body,
                    refname=other,
                    **form,
                )
        collides = (model.geom_contype | model.geom_conaffinity) > 0
        solid = collides[model.geom_bodyid == model.body(name).id].any()
        for root in sorted(driven(model)) if solid else ():
            spec.add_sensor(
                name=_ROBOT.format(name) + f"/{root}",
                objname=name,
                reftype=whole,
                refname=model.body(root).name,
                **form,
            )


def _meet(model, one: str, two: str) -> bool:
    """Whether two bodies can touch: some of their geoms collide, and one of them moves."""
    a, b = model.body(one).id, model.body(two).id
    if model.body_weldid[a] == model.body_weldid[b] or (model.body_treeid[[a, b]] < 0).all():
        return False
    g, h = (np.flatnonzero(model.geom_bodyid == body) for body in (a, b))
    kinds, meets = model.geom_contype, model.geom_conaffinity
    either = kinds[g][:, None] & meets[h] | (kinds[h][:, None] & meets[g]).T
    return bool(either.any())


class _Index:
    """Where the things are in a Sim's fields."""

    def __init__(self, sim: Sim):
        model = sim.model
        names = things(model)
        self.bodies = [model.body(name).id for name in names]
        self.geoms = [_geoms(model, b) for b in self.bodies]
        sensors = {model.sensor(s).name: int(model.sensor_adr[s]) for s in range(model.nsensor)}
        self.touch = [
            (a, b, sensors[_TOUCH.format(names[a], names[b])])
            for a in range(len(names))
            for b in range(a + 1, len(names))
            if _TOUCH.format(names[a], names[b]) in sensors
        ]
        self.robot = [
            [at for key, at in sensors.items() if key.startswith(_ROBOT.format(name) + "/")]
            for name in names
        ]
        self.fingers = [
            [sensors[f"{finger}-{model.geom(g).name}"] for finger in _FINGERS]
            if f"left-{model.geom(g).name}" in sensors
            else None
            for g in (geoms[0] for geoms in self.geoms)
        ]


def of(task: Task, sim: Sim) -> dict[str, np.ndarray]:
    """Returns the labels of n rows: the task's own, and those that all tasks have.

    What the task's `label` says itself is kept. Of every task: `reward/dense`, `reward/sparse` and
    `reward/<term>` of each of the reward's terms, (n,) float32; `subtask` and `next_subtask` (n,)
    int32, the last one's own at the end (without subtasks, 1 is success), and `progress` (n,)
    float32, the share of the subtasks done. With k things: `pose` (n, k, 7) place in m and
    quaternion, `relations` (n, k, k, 7) bool as `relations.BINARY` names them, `contacts`
    (n, k, k) and `robot_contact` (n, k) bool by `prepare`'s sensors, with fingers that sense them
    `grasp` (n, k) bool, and for an arm `reachable` (n, k) bool: the place is where its tool may go,
    or less than 3 cm from there.
    """
    own, terms, success = task.label(sim), task.terms(sim), task.success(sim)
    paid = {"dense": task.pay(**terms), "sparse": success} | terms
    found = {f"reward/{k}": v.astype(np.float32) for k, v in paid.items()}
    stage, last = own.get("subtask", success.astype(np.int32)), max(len(task.subtasks) - 1, 1)
    found["subtask"], found["next_subtask"] = stage, np.minimum(stage + 1, last).astype(np.int32)
    found["progress"] = (stage / last).astype(np.float32)
    index = sim.once("labels", lambda: _Index(sim))
    if index.bodies:
        found |= _seen(sim, index) | _felt(sim, index)
        if task.robots:
            low, high = getattr(task.control, "low", LOW), getattr(task.control, "high", HIGH)
            place = found["pose"][..., :3]
            outside = np.maximum(np.maximum(low - place, place - high), 0)
            found["reachable"] = (outside**2).sum(-1) < _CLOSE**2
    return found | own


def _seen(sim: Sim, index: _Index) -> dict[str, np.ndarray]:
    place, turn = sim.xpos[:, index.bodies], sim.xquat[:, index.bodies]
    boxes = [_box(sim, geoms) for geoms in index.geoms]
    centre, half = (np.stack(part, 1) for part in zip(*boxes, strict=True))
    blank = np.zeros(centre.shape[:2], int)
    scene = Scene(centre, half, blank, blank, centre[:, 0])
    return {"pose": np.concatenate([place, turn], -1), "relations": matrix(scene)}


def _box(sim: Sim, geoms: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre and half of the upright box around geoms, (n, 3) each in m."""
    kind, turn = sim.model.geom_type[geoms].copy(), sim.geom_xmat[:, geoms]
    size, centre = sim.model_field("geom_size")[:, geoms], sim.geom_xpos[:, geoms]
    odd = np.array([int(k) not in _CLOSED_FORM for k in kind])
    if odd.any():  # a mesh: the engine's own box, which turns with it
        box = sim.model_field("geom_aabb")[:, geoms]
        frame = turn.reshape(*turn.shape[:2], 3, 3)
        moved = centre + (frame @ box[..., :3, None])[..., 0]
        centre, size = (
            np.where(odd[:, None], moved, centre),
            np.where(odd[:, None], box[..., 3:], size),
        )
        kind[odd] = int(mujoco.mjtGeom.mjGEOM_BOX)
    half = extent(kind, size, turn)
    low, high = (centre - half).min(1), (centre + half).max(1)
    return (low + high) / 2, (high - low) / 2


def _felt(sim: Sim, index: _Index) -> dict[str, np.ndarray]:
    k, on = len(index.bodies), sim.sensordata > 0
    contacts = np.zeros((sim.n, k, k), bool)
    for a, b, at in index.touch:
        contacts[:, a, b] = contacts[:, b, a] = on[:, at]
    robot = np.stack([on[:, at].any(1) for at in index.robot], 1)
    found = {"contacts": contacts, "robot_contact": robot}
    if any(index.fingers):
        none = np.zeros(sim.n, bool)
        found["grasp"] = np.stack(
            [none if at is None else on[:, at].all(1) for at in index.fingers], 1
        )
    return found
