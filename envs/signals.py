"""Signals: joints, pose, wrench, imu, touch, contacts. What the engine's own sensors tell."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from .sense import EVERY, Form, Moment, Sense, add, columns, mount, site
from .sim import Sim

_S, _O = mujoco.mjtSensor, mujoco.mjtObj
_C = mujoco.mjtConDataField
_STRONGEST = 2  # a contact sensor's reduction: the contacts of largest force come first
SLOTS = 8  # contacts a sensor tells of: two boxes meet in at most eight


def _bits(*fields: mujoco.mjtConDataField) -> int:
    return sum(1 << int(field) for field in fields)


@dataclass(frozen=True, kw_only=True)
class Joints(Sense):
    """Positions, then velocities of the joints that actuators drive: rad, m; rad/s, m/s."""

    unit = "rad, m, rad/s, m/s"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        kind = mujoco.mjtTrn.mjTRN_JOINT
        names = list(dict.fromkeys(a.target for a in spec.actuators if a.trntype == kind))
        if not names:
            raise ValueError(f"{self.key} needs actuators that drive joints; the scene has none")
        for what, sensor in (("position", _S.mjSENS_JOINTPOS), ("velocity", _S.mjSENS_JOINTVEL)):
            for name in names:
                add(spec, self.key, f"{what}/{name}", sensor, _O.mjOBJ_JOINT, name)

    def form(self, sim: Sim) -> Form:
        at = columns(sim, self.key)
        return Form((at.stop - at.start,))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        return now.data


@dataclass(frozen=True, kw_only=True)
class Pose(Sense):
    """Place (3; m) and unit quaternion (4; w first, w >= 0) of a site, `tcp` by default."""

    at: str | None = None

    unit = "m, 1"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        name = site(spec, self.key, self.at or "tcp")
        add(spec, self.key, "place", _S.mjSENS_FRAMEPOS, _O.mjOBJ_SITE, name)
        add(spec, self.key, "turn", _S.mjSENS_FRAMEQUAT, _O.mjOBJ_SITE, name)

    def form(self, sim: Sim) -> Form:
        return Form((7,))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        value = now.data.copy()
        value[..., 3:] *= np.where(value[..., 3:4] < 0, -1, 1)
        return value


@dataclass(frozen=True, kw_only=True)
class Wrench(Sense):
    """Force (3; N) and torque (3; Nm) on what the wrist carries, in the sensor's frame.

    Between the site's body and its parent: at rest the force holds the weight of all that hangs
    from that body on. The site is `wrist_ft`, or one added at the origin of the body of `tcp`.
    """

    at: str | None = None

    unit = "N, Nm"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        tool = spec.site("tcp")
        hand = tool.parent.name if tool is not None else "palm"
        name = mount(spec, self.key, self.at, ("wrist_ft",), hand)
        if spec.site(name).parent.name == "world":
            raise ValueError(f"{self.key} is felt between bodies; the site {name!r} is the world's")
        add(spec, self.key, "force", _S.mjSENS_FORCE, _O.mjOBJ_SITE, name)
        add(spec, self.key, "torque", _S.mjSENS_TORQUE, _O.mjOBJ_SITE, name)

    def form(self, sim: Sim) -> Form:
        return Form((6,))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        return now.data


@dataclass(frozen=True, kw_only=True)
class Imu(Sense):
    """Accelerometer (3; m/s^2, gravity's reaction in it) and gyroscope (3; rad/s), site's frame.

    The site is `imu`, else `tcp`, else one at the foot of the body `base`. By default a sample
    every physics step, `(n, r, 6)`.
    """

    rate: int | None = EVERY
    at: str | None = None

    unit = "m/s^2, rad/s"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        name = mount(spec, self.key, self.at, ("imu", "tcp"), "base")
        add(spec, self.key, "acceleration", _S.mjSENS_ACCELEROMETER, _O.mjOBJ_SITE, name)
        add(spec, self.key, "rate", _S.mjSENS_GYRO, _O.mjOBJ_SITE, name)

    def form(self, sim: Sim) -> Form:
        return Form((6,))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        return now.data


@dataclass(frozen=True, kw_only=True)
class Contacts(Sense):
    """For pairs of geoms `(pairs, 2)`: 1 where they touch, else 0, and their normal force in N.

    By default the fingers `left` and `right` with every named geom of a free body: all of left's,
    then all of right's, in the order of the scene.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    unit = "1, N"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        free = mujoco.mjtJoint.mjJNT_FREE
        things = [
            geom.name
            for body in spec.bodies
            if any(joint.type == free for joint in body.joints)
            for geom in body.geoms
            if geom.name and (geom.contype or geom.conaffinity)
        ]
        pairs = self.pairs or [(f, t) for f in ("left", "right") for t in things]
        if not pairs:
            raise ValueError(
                f"{self.key} needs pairs of geoms; the scene has no free body, so name them"
            )
        for one, other in pairs:
            for name in (one, other):
                _geom(spec, self.key, name)
            numbers = _bits(_C.mjCONDATA_FORCE), _STRONGEST, SLOTS
            sensor = add(
                spec, self.key, f"{one}-{other}", _S.mjSENS_CONTACT, _O.mjOBJ_GEOM, one, *numbers
            )
            sensor.reftype, sensor.refname = _O.mjOBJ_GEOM, other

    def form(self, sim: Sim) -> Form:
        at = columns(sim, self.key)
        high = np.broadcast_to([1, np.inf], ((at.stop - at.start) // (3 * SLOTS), 2))
        return Form(high.shape, 0.0, high)

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        data = now.data.reshape(*now.data.shape[:2], -1, SLOTS, 3)
        force = np.zeros(data.shape[:3])
        for k in range(SLOTS):  # one after the other: the order of a sum must not depend on m
            force += data[..., k, 0]
        return np.stack([force > 0, force], -1)


@dataclass(frozen=True, kw_only=True)
class Touch(Sense):
    """Normal force (N) on k x k taxels of each finger's pad, `(2, k, k)`: left, then right.

    A pad is the face of the geoms `left` and `right` that looks at the other finger; rows of
    taxels run along the fingers to their tips, columns along the tool's x. A contact's pressure
    on the pad goes to the four taxels around it, nearer ones more: the taxels add up to the force.
    """

    taxels: int = 4

    unit = "N"

    def prepare(self, spec: mujoco.MjSpec) -> None:
        if self.taxels < 1:
            raise ValueError(f"{self.key} has at least one taxel, got {self.taxels}")
        site(spec, self.key, "tcp")
        fields = _bits(_C.mjCONDATA_FORCE, _C.mjCONDATA_POS, _C.mjCONDATA_NORMAL)
        for side in ("left", "right"):
            _geom(spec, self.key, side)
            numbers = fields, _STRONGEST, SLOTS
            add(spec, self.key, f"{side}/contact", _S.mjSENS_CONTACT, _O.mjOBJ_GEOM, side, *numbers)
            for name, kind in (
                ("place", _S.mjSENS_FRAMEPOS),
                ("x", _S.mjSENS_FRAMEXAXIS),
                ("y", _S.mjSENS_FRAMEYAXIS),
                ("z", _S.mjSENS_FRAMEZAXIS),
                ("speed", _S.mjSENS_FRAMELINVEL),
            ):
                add(spec, self.key, f"{side}/{name}", kind, _O.mjOBJ_GEOM, side)

    def bind(self, sim: Sim, dt: float, substeps: int) -> dict[str, np.ndarray]:
        sim.once((self.key, "pads"), lambda: np.stack([_pad(sim, s) for s in ("left", "right")]))
        return {}

    def form(self, sim: Sim) -> Form:
        return Form((2, self.taxels, self.taxels), 0.0)

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        data = now.data.reshape(*now.data.shape[:2], 2, -1)
        contact = data[..., :-15].reshape(*data.shape[:3], SLOTS, 9)
        frame = data[..., -12:-3].reshape(*data.shape[:3], 1, 3, 3)  # axes of the finger's geom
        # The contact's place is of the physics step's beginning, the finger's of its end.
        place = data[..., -15:-12] - sim.model.opt.timestep * data[..., -3:]
        away = contact[..., 3:6] - place[..., None, :]
        own = sim.once((self.key, "pads"), lambda: None)
        axes = own[:, :, :3]  # (2, 3, 3): pad's normal, along its columns, along its rows
        pads = np.zeros((*data.shape[:3], 3, 3))
        for k in range(3):
            pads += axes[..., k, None] * frame[..., 0, k, None, :]
        press = contact[..., 0] * np.maximum(_dot(contact[..., 6:9], pads[..., None, 0, :]), 0)
        grid = np.zeros((*data.shape[:3], self.taxels, self.taxels))
        where = [
            self._weights(_dot(away, pads[..., None, k, :]), own[:, None, k, 3], own[:, None, k, 4])
            for k in (2, 1)
        ]
        for k in range(SLOTS):
            along, across = where[0][..., k, :, None], where[1][..., k, None, :]
            grid += press[..., k, None, None] * along * across
        return grid

    def _weights(self, place: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
        """Returns each taxel's share (..., taxels) of what presses at `place` along one axis."""
        at = ((place - centre) / half + 1) / 2 * self.taxels - 0.5
        at = np.minimum(np.maximum(at, 0), self.taxels - 1)[..., None]
        return np.maximum(1 - np.abs(at - np.arange(self.taxels)), 0)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _geom(spec: mujoco.MjSpec, key: str, name: str) -> None:
    if spec.geom(name) is None:
        there = ", ".join(g.name for g in spec.geoms if g.name) or "none with a name"
        raise ValueError(f"{key} needs a geom {name!r}; the scene has {there}")


def _pad(sim: Sim, side: str) -> np.ndarray:
    """Returns a pad's frame in its geom's, (3, 5): an axis, where its middle is and half its size.

    Axes are the pad's normal (towards the tool), along its columns (the tool's x) and rows (z).
    """
    model = sim.model
    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    geom, tool = model.geom(side).id, data.site("tcp")
    turn = data.geom_xmat[geom].reshape(3, 3).T @ tool.xmat.reshape(3, 3)  # tool's axes, as seen
    middle, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    normal = int(np.abs(turn[:, 1]).argmax())
    rest = [k for k in range(3) if k != normal]
    rows = max(rest, key=lambda k: abs(turn[k, 2]))
    column = next(k for k in rest if k != rows)
    towards = data.geom_xmat[geom].reshape(3, 3).T @ (tool.xpos - data.geom_xpos[geom]) - middle
    out = np.zeros((3, 5))
    for line, (axis, sign) in zip(
        out,
        ((normal, towards[normal]), (column, turn[column, 0]), (rows, turn[rows, 2])),
        strict=True,
    ):
        line[axis] = 1.0 if sign >= 0 else -1.0
        line[3], line[4] = line[axis] * middle[axis], half[axis]
    return out
