"""Audio: what two ears hear of contacts and of speakers; `sound` has the compiled loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import mujoco
import numpy as np

from .sense import EVERY, Form, Moment, Sense, add
from .sim import Sim

_O = mujoco.mjtObj


class Material(NamedTuple):
    """Young's modulus (Pa), density (kg/m^3) and loss factor of what a thing is made of."""

    stiffness: float
    density: float
    loss: float


class Speaker(NamedTuple):
    """What sounds by itself: a tone of `hertz` (n,) at `place` (n, 3), `loud` (n,) Pa 1 m away."""

    place: np.ndarray
    hertz: np.ndarray
    loud: np.ndarray


class _Source(NamedTuple):
    """A body that sounds, or the chain that hangs from it, with its longest geom, m long."""

    body: int
    geom: int
    length: float
    material: str
    whole: bool


# Source: Ashby, "Materials Selection in Mechanical Design", charts 1 and 8, round numbers.
MATERIALS = {
    "wood": Material(1.0e10, 700, 0.015),
    "plastic": Material(2.3e9, 1050, 0.03),
    "steel": Material(2.0e11, 7850, 0.002),
    "glass": Material(7.0e10, 2500, 0.002),
    "ceramic": Material(9.0e10, 2300, 0.004),
    "rubber": Material(5.0e7, 1100, 0.2),
}
# A free bar's bending modes, in ratio to the first, and the first's frequency as 1.028 c h / l^2.
# Source: Fletcher and Rossing, "The Physics of Musical Instruments", 2nd ed., section 2.15.
RATIOS = np.array([1.0, 2.757, 5.404, 8.933])
_BAR, _THICKNESS = 1.028, 0.03  # h / l: things are hollow, of thin walls
AIR, SPEED = 1.2, 343.0  # kg/m^3, m/s
FULL_SCALE = 20.0  # Pa that a sample of 1 stands for (120 dB): where a microphone clips
_RADIATED = 0.1  # of an area's motion, what becomes sound
_NEAR = 0.05  # m: nothing is heard from nearer
_ECHO = 512  # samples a sound can be under way
_SHADOW = 0.5  # what is lost of a sound from the head's other side
_REST = 2.0  # weights of a body that its support may come and go by without a sound
_STIR = 5.0  # N: but a greater jump of its force is heard of any body
_SLIP = 0.01  # m/s below which a contact sticks
_RUSTLE = 20.0  # s/m: momentum that friction's power shakes a thing with
SLOTS = 4  # contacts of a body that count, the strongest


def frequencies(material: str, length) -> np.ndarray:
    """Returns the modes (..., 4) in Hz of a thing `length` m long, a number or (..., 1)."""
    stiffness, density, _ = MATERIALS[material]
    return _BAR * _THICKNESS / length * math.sqrt(stiffness / density) * RATIOS


def decays(material: str, length) -> np.ndarray:
    """Returns by what factor e^-(d t) its modes die away: d (..., 4) in 1/s."""
    return math.pi * MATERIALS[material].loss * frequencies(material, length)


def ways(place: np.ndarray, turn: np.ndarray, points: np.ndarray, head: float):
    """Returns of sound from `points` (m, s, 3) its gain at both ears, and its way in m, (m, s, 2).

    place (m, 3), turn (m, 9): the middle between the ears, and its frame, x towards the right.
    head: m between the ears. The gain is 1 of a point 1 m away on the ear's own side.
    """
    side = turn.reshape(-1, 1, 3, 3)[..., 0]  # towards the right
    gain, far = np.empty((2, *points.shape[:2], 2))
    for ear, sign in enumerate((-1, 1)):
        way = points - (place[:, None] + sign * head / 2 * side)
        long = np.sqrt(way[..., 0] ** 2 + way[..., 1] ** 2 + way[..., 2] ** 2)
        far[..., ear] = long = np.maximum(long, _NEAR)
        along = way[..., 0] * side[..., 0] + way[..., 1] * side[..., 1]
        along = sign * (along + way[..., 2] * side[..., 2]) / long
        gain[..., ear] = (1 - _SHADOW * (1 - along) / 2) / long
    return gain, far


def _silence(sim: Sim) -> tuple[Speaker, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Audio(Sense):
    """Two ears' samples (r, 2), left and right, of contacts and of speakers; 1 is 20 Pa.

    Sources are the bodies that move and collide: things and fingers each by themselves, and the
    whole of a robot's chain. A jump of its normal forces strikes its damped
    modes, which its material and length give; friction's power shakes them with noise. Speakers
    sound by themselves, as the task says; they come up and die away within a control step. Sound
    reaches an ear after its way's time, fainter with 1 / distance and from the head's other side.
    At rest, and where all has died away, samples are exactly 0.

    at: a camera or site whose x axis leads from the left ear to the right and that looks along -z;
    by default the site `ears`, else the camera `front`, else the scene's first. hertz: samples a
    second. head: m between the ears. materials: (body, material) pairs; else a geom's material, if
    it bears such a name, else wood for free bodies and plastic for others. speakers: those of a
    world, by default the task's. Dropout is of a control step's samples together.
    """

    rate: int | None = EVERY
    at: str | None = None
    hertz: int = 16000
    head: float = 0.18
    materials: tuple[tuple[str, str], ...] = ()
    speakers: Callable[[Sim], tuple[Speaker, ...]] = field(
        default=_silence, repr=False, compare=False
    )

    unit = "20 Pa"
    blocks = True

    def samples(self, dt: float, substeps: int) -> int:
        each = self.hertz * dt / substeps
        if self.rate != EVERY or abs(each - round(each)) > 1e-6 or round(each) < 1:
            raise ValueError(
                f"{self.key}: hertz {self.hertz} must be a whole number of samples per physics "
                f"step of {dt / substeps:g} s, and rate be left as it is"
            )
        return round(each) * substeps

    def readings(self, dt: float, substeps: int) -> int:
        return substeps

    def prepare(self, spec: mujoco.MjSpec) -> None:
        self._ears(spec)
        things, trees = _sources(spec)
        if not things:
            raise ValueError(f"{self.key} needs a body that moves and collides; the scene has none")
        for body, material in self.materials:
            if body not in things + trees or material not in MATERIALS:
                raise ValueError(
                    f"{self.key}: no material {material!r} for {body!r}; there are "
                    f"{', '.join(MATERIALS)} for {', '.join(things + trees)}"
                )
        data, kind = mujoco.mjtConDataField, mujoco.mjtSensor.mjSENS_CONTACT
        fields = 1 << int(data.mjCONDATA_FORCE) | 1 << int(data.mjCONDATA_LINVEL)
        for names, what in ((things, _O.mjOBJ_BODY), (trees, _O.mjOBJ_XBODY)):
            for name in names:
                add(spec, self.key, name, kind, what, name, fields, 2, SLOTS)

    def _ears(self, spec: mujoco.MjSpec) -> None:
        cameras = [camera.name for camera in spec.cameras]
        if self.at is None and (cameras or spec.site("ears") is not None):
            return
        if self.at not in cameras and (self.at is None or spec.site(self.at) is None):
            there = ", ".join([*cameras, *(s.name for s in spec.sites)]) or "none"
            raise ValueError(
                f"{self.key} hears at a camera or site, {self.at or 'ears'!r} is none of the "
                f"scene's; there are {there}"
            )

    def bind(self, sim: Sim, dt: float, substeps: int) -> dict[str, np.ndarray]:
        sim.once((self.key, "ears"), lambda: self._listener(sim))
        sim.subtree_com  # noqa: B018 (bound when named)
        n, count = sim.n, len(sim.once((self.key, "sources"), lambda: self._told(sim)))
        loud = len(self.speakers(sim))
        speakers = {
            "loud": np.zeros((n, loud)),
            "phase": np.zeros((n, loud)),
            "path": np.zeros((n, loud, 2, 2)),
        }
        return (speakers if loud else {}) | {
            "force": np.zeros((n, count)),
            "modes": np.zeros((n, count, len(RATIOS), 3)),  # of a resonator: 2 factors and a gain
            "motion": np.zeros((n, count, len(RATIOS), 2)),
            "way": np.zeros((n, count, 2, 2)),  # to each ear: gain, delay in samples
            "echo": np.zeros((n, _ECHO, 2)),
        }

    def _told(self, sim: Sim) -> list[_Source]:
        """Returns the sources, in the order of their sensors."""
        m, told, out = sim.model, dict(self.materials), []
        solid = (m.geom_contype | m.geom_conaffinity) > 0
        for i in range(m.nsensor):
            if not m.sensor(i).name.startswith(f"{self.key}:"):
                continue
            body, whole = int(m.sensor_objid[i]), int(m.sensor_objtype[i]) == int(_O.mjOBJ_XBODY)
            mine = m.body_rootid == m.body_rootid[body] if whole else np.arange(m.nbody) == body
            own = np.flatnonzero(mine[m.geom_bodyid] & solid)
            geom = int(own[m.geom_aabb[own, 3:].max(1).argmax()])
            made = m.material(m.geom_matid[geom]).name if m.geom_matid[geom] >= 0 else ""
            joint = m.body_jntadr[body]
            free = joint >= 0 and int(m.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE)
            made = made if made in MATERIALS else "wood" if free and not whole else "plastic"
            made = told.get(m.body(body).name, made)
            out.append(_Source(body, geom, 2 * float(m.geom_aabb[geom, 3:].max()), made, whole))
        return out

    def _listener(self, sim: Sim):
        cameras = [sim.model.camera(i).name for i in range(sim.model.ncam)]
        sites = [sim.model.site(i).name for i in range(sim.model.nsite)]
        names = [self.at] if self.at else ["ears", "front", *cameras]
        name = next(name for name in names if name in cameras + sites)
        if name in cameras:
            k = cameras.index(name)
            return sim.cam_xpos[:, k], sim.cam_xmat[:, k]
        return sim.site(name), sim.turn(name)

    def form(self, sim: Sim) -> Form:
        return Form((2,), -1.0, 1.0)

    def begin(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> None:
        memory["modes"][now.rows] = self._modes(sim, now.rows)
        memory["motion"][now.rows] = memory["echo"][now.rows] = 0.0
        memory["force"][now.rows] = self._press(now.data)[0][:, -1]
        memory["way"][now.rows] = self._ways(sim, now.rows, self._bodies(sim)[now.rows])
        if "loud" in memory:
            memory["loud"][now.rows] = memory["phase"][now.rows] = 0.0
            memory["path"][now.rows] = self._ways(sim, now.rows, self._said(sim, now.rows)[0])

    def _modes(self, sim: Sim, rows: np.ndarray) -> np.ndarray:
        """Returns the sources' resonators (m, sources, modes, 3), by the rows' sizes and masses."""
        sources, size = sim.once((self.key, "sources"), list), sim.model_field("geom_size")
        weight = self._masses(sim, rows)
        out = np.zeros((len(rows), len(sources), len(RATIOS), 3))
        for k, (_, geom, length, made, _) in enumerate(sources):
            own = sim.model.geom_size[geom].max()
            grown = size[rows, geom].max(1) / own if own else np.ones(len(rows))
            long, heavy = length * grown[:, None], weight[:, k, None]
            f, d = frequencies(made, long), decays(made, long)
            turn, die = 2 * math.pi * f / self.hertz, np.exp(-d / self.hertz)
            # A sphere's far field: p = rho a dv/dt / (4 pi r); what is struck moves at J / m.
            loud = AIR * 2 * math.pi * f * _RADIATED * long**2 / (4 * math.pi * heavy)
            heard = (f < 0.45 * self.hertz) * loud * np.sin(turn) / (RATIOS**2 * FULL_SCALE)
            out[:, k] = np.stack([2 * die * np.cos(turn), -(die**2), heard], -1)
        return out

    def _masses(self, sim: Sim, rows: np.ndarray) -> np.ndarray:
        """Returns the sources' masses in kg, (m, sources)."""
        mass, tree = sim.model_field("body_mass"), sim.model_field("body_subtreemass")
        sources = sim.once((self.key, "sources"), list)
        return np.stack([(tree if s.whole else mass)[rows, s.body] for s in sources], 1)

    def _ways(self, sim: Sim, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Returns gain and delay (samples) from points (m, s, 3) to each ear, (m, s, 2, 2)."""
        place, turn = (x[rows] for x in sim.once((self.key, "ears"), lambda: None))
        gain, far = ways(place, turn, points, self.head)
        return np.stack([gain, np.minimum(far / SPEED * self.hertz, _ECHO - 2)], -1)

    def _bodies(self, sim: Sim) -> np.ndarray:
        """Returns where the sources are, (n, sources, 3)."""
        return sim.subtree_com[:, [s.body for s in sim.once((self.key, "sources"), list)]]

    def _said(self, sim: Sim, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the speakers' places (m, s, 3), cycles a sample and amplitudes (m, s)."""
        place, hertz, loud = (np.stack(x, 1)[rows] for x in zip(*self.speakers(sim), strict=True))
        return place, hertz / self.hertz, loud / FULL_SCALE

    def _press(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from .sound import press  # numba costs 0.5 s and 60 MB: only if needed

        count = data.shape[2] // (6 * SLOTS)
        force, power = np.empty((2, *data.shape[:2], count))
        press(data, _SLIP, force, power)
        return force, power

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        from .sound import play, sing

        dt = sim.model.opt.timestep
        out = np.zeros((len(now.rows), now.data.shape[1] * round(self.hertz * dt), 2))
        if now.begins:
            return out[:, :1]
        force, power = self._press(now.data)
        before = np.concatenate([memory["force"][now.rows][:, None], force[:, :-1]], 1)
        deaf = _REST * np.linalg.norm(sim.model.opt.gravity) * self._masses(sim, now.rows)
        deaf = np.minimum(deaf, _STIR)[:, None]
        strike = np.maximum(force - before - deaf, 0) * dt
        memory["force"][now.rows] = force[:, -1]
        sing(
            now.rows, strike, power * _RUSTLE / self.hertz, now.keys, memory["modes"],
            memory["motion"], memory["way"], self._ways(sim, now.rows, self._bodies(sim)[now.rows]),
            memory["echo"], out,
        )  # fmt: skip
        if "loud" in memory:
            place, cycles, loud = self._said(sim, now.rows)
            play(
                now.rows, cycles, loud, memory["loud"], memory["phase"], memory["path"],
                self._ways(sim, now.rows, place), memory["echo"], out,
            )  # fmt: skip
        return out


def _sources(spec: mujoco.MjSpec) -> tuple[list[str], list[str]]:
    """Returns the bodies that sound by themselves, and the first ones of chains that do as a whole.

    By themselves: what moves and collides and carries nothing that does, and fingers.
    """
    solid = [body for body in spec.bodies if _moves(body) and body.name and _collides(body)]
    carriers = {parent.name for body in solid for parent in _above(body)}
    fingers = {g.parent.name for g in (spec.geom("left"), spec.geom("right")) if g is not None}
    things = [b.name for b in solid if b.name not in carriers or b.name in fingers]
    chains = [_above(b)[-1].name for b in solid if b.name in carriers and _above(b)]
    chains += [b.name for b in solid if b.name in carriers and not _above(b)]
    return things, [name for name in dict.fromkeys(chains) if name]


def _collides(body: mujoco.MjsBody) -> bool:
    return any(geom.contype or geom.conaffinity for geom in body.geoms)


def _above(body: mujoco.MjsBody) -> list[mujoco.MjsBody]:
    """Returns the moving bodies that carry a body, the nearest first."""
    return [body.parent, *_above(body.parent)] if _moves(body.parent) else []


def _moves(body: mujoco.MjsBody) -> bool:
    return body.name != "world" and (bool(body.joints) or _moves(body.parent))
