"""Sense: one thing a body can sense, its place, rate and faults. Holds no state, knows no task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import mujoco
import numpy as np

from .sim import Sim

EVERY = 0  # as a rate: a sample at the end of every physics step


class Form(NamedTuple):
    """One sample: its shape, and the float32 bounds that hold for all its numbers or each."""

    shape: tuple[int, ...]
    low: float | np.ndarray = -np.inf
    high: float | np.ndarray = np.inf


class Moment(NamedTuple):
    """What there is to sense in m rows after a control step, or when an episode begins.

    rows: (m,) sorted ints. data: what the sense's own sensors read (m, r, k), as `Sim.record`
    tells; r is 1 when episodes begin. keys: (m,) uint64, to draw from, of this moment alone.
    """

    rows: np.ndarray
    data: np.ndarray
    keys: np.ndarray
    begins: bool = False


@dataclass(frozen=True, kw_only=True)
class Sense(ABC):
    """What is sensed, where, how often, and what befalls a sample on its way.

    rate: samples in a control step, the last at its end; they then have an axis of their own,
    `(n, rate, ...)`. EVERY is a sample a physics step, None one a control step without that axis.
    delay: s until a sample arrives, whole sample periods (control step / rate).
    noise: standard deviation of what is added to each number, in its unit; one, or one each.
    dropout: probability that a sample is lost: the one before it stays.
    """

    rate: int | None = None
    delay: float = 0.0
    noise: float | tuple[float, ...] = 0.0
    dropout: float = 0.0

    unit: ClassVar[str]  # of what is sensed
    blocks: ClassVar[bool] = False  # whether a step's samples get lost together, and leave zeros

    def __post_init__(self):
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"{self.key}: dropout is a probability, got {self.dropout}")
        if self.delay < 0 or np.min(self.noise) < 0:
            raise ValueError(
                f"{self.key}: delay (s) and noise (std) are not negative, "
                f"got {self.delay} and {self.noise}"
            )
        if self.rate is not None and self.rate < 0:
            raise ValueError(f"{self.key}: rate is a number of samples a step, got {self.rate}")

    @property
    def key(self) -> str:
        """The observation's key: the sense's name, `name/place` where it was told a place."""
        place = getattr(self, "at", None)
        name = type(self).__name__.lower()
        return f"{name}/{place}" if place else name

    def samples(self, dt: float, substeps: int) -> int:
        """Returns how many samples a control step of dt s has; ValueError if they are not whole."""
        rate = 1 if self.rate is None else self.rate or substeps
        if substeps % rate:
            allowed = [k for k in range(1, substeps + 1) if substeps % k == 0]
            raise ValueError(
                f"{self.key}: rate {rate} does not divide the control step's {substeps} physics "
                f"steps; choose one of {allowed}, or EVERY"
            )
        return rate

    def readings(self, dt: float, substeps: int) -> int:
        """Returns how many readings of the sensors within a control step `measure` takes."""
        return self.samples(dt, substeps)

    @abstractmethod
    def prepare(self, spec: mujoco.MjSpec) -> None:
        """Adds its sensors to a scene; ValueError, with what there is, if it has no place there."""

    def bind(self, sim: Sim, dt: float, substeps: int) -> dict[str, np.ndarray]:
        """Names the fields it reads; returns what it must remember of each row, `(n, ...)`."""
        return {}

    @abstractmethod
    def form(self, sim: Sim) -> Form:
        """Returns the form of one sample."""

    def begin(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> None:  # noqa: B027
        """Makes the rows' memory that of an episode that begins."""

    @abstractmethod
    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        """Returns samples (m, samples or 1, *shape) of the rows, without faults."""

    def disturb(self, sample: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Returns the samples (m, r, *shape) with noise on them, drawn from the keys (m,)."""
        if not np.any(self.noise):
            return sample
        drawn = normal(keys, sample[0].size).reshape(sample.shape)
        return sample + np.asarray(self.noise) * drawn


def make(sense: Sense | str, members: dict[str, type[Sense]]) -> Sense:
    """Returns the sense called `name` or `name/place`, or `sense` itself if it is one.

    Raises ValueError with what there is for an unknown name or a place that it does not take.
    """
    if isinstance(sense, Sense):
        return sense
    name, _, place = str(sense).partition("/")
    if name not in members:
        raise ValueError(f"no sense {name!r}; there are {', '.join(members)}")
    if not place:
        return members[name]()
    if "at" not in members[name].__dataclass_fields__:
        raise ValueError(f"the sense {name!r} takes no place, got {sense!r}")
    return members[name](at=place)


def columns(sim: Sim, key: str) -> slice:
    """Returns where a sense's own sensors are in the readings: those called `<key>:...`."""

    def find() -> slice:
        m = sim.model
        own = [i for i in range(m.nsensor) if m.sensor(i).name.startswith(f"{key}:")]
        if not own:
            return slice(0, 0)
        first, last = own[0], own[-1]
        return slice(int(m.sensor_adr[first]), int(m.sensor_adr[last] + m.sensor_dim[last]))

    return sim.once(("columns", key), find)


def site(spec: mujoco.MjSpec, key: str, *names: str) -> str:
    """Returns the first of `names` that is a site of the scene, or raises ValueError."""
    for name in names:
        if spec.site(name) is not None:
            return name
    there = ", ".join(s.name for s in spec.sites if s.name) or "none"
    raise ValueError(f"{key} needs a site {' or '.join(map(repr, names))}; the scene has {there}")


def mount(spec: mujoco.MjSpec, key: str, at: str | None, names, body: str, height=0.0) -> str:
    """Returns the site `at`, or the first of `names` there is, or one added to the body called so.

    Raises ValueError, with what there is, where none of them is.
    """
    if at or any(spec.site(name) is not None for name in names):
        return site(spec, key, *([at] if at else names))
    if spec.body(body) is None:
        there = ", ".join(s.name for s in spec.sites if s.name) or "no site"
        raise ValueError(
            f"{key} needs a site {' or '.join(map(repr, names))} or a body {body!r}; "
            f"the scene has {there}"
        )
    return spec.body(body).add_site(name=f"{key}:mount", pos=(0, 0, height), group=5).name


def add(spec: mujoco.MjSpec, key: str, name: str, kind, objtype, objname: str, *numbers: int):
    """Adds one sensor of a sense, called `<key>:<name>`, and returns it."""
    sensor = spec.add_sensor(name=f"{key}:{name}", type=kind, objtype=objtype, objname=objname)
    if numbers:
        sensor.intprm[: len(numbers)] = numbers
    return sensor


_M64 = (1 << 64) - 1
_STEP, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _scrambled(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX2)
    return x ^ (x >> np.uint64(31))


def keyed(*parts: np.ndarray | int) -> np.ndarray:
    """Returns (m,) uint64 numbers that depend on every part, each (m,) ints or one int.

    Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators", chained over the parts.
    """
    out = np.zeros(1, np.uint64)
    for part in parts:
        part = np.asarray(part & _M64 if isinstance(part, int) else part).astype(np.uint64)
        out = _scrambled((out ^ part) + np.uint64(_STEP))
    return out


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
    """Returns numbers in (0, 1], (m, count), that depend on their row's key alone."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
    bits = _scrambled(keys[:, None] + steps)
    return ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53


def normal(keys: np.ndarray, count: int) -> np.ndarray:
    """Returns standard normal numbers, (m, count), by Box and Muller's transform."""
    half = -(-count // 2)
    u = uniform(keys, 2 * half)
    radius, angle = np.sqrt(-2 * np.log(u[:, :half])), 2 * math.pi * u[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]
