"""Senses: a world's senses with their faults and memory, row by row; knows no task and no clock."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np
from gymnasium.spaces import Box

from .audio import Audio, Speaker
from .ranges import Lidar, Points
from .rows import every
from .sense import Moment, Sense, columns, keyed, make, uniform
from .signals import Contacts, Imu, Joints, Pose, Touch, Wrench
from .sim import Sim

MEMBERS: dict[str, type[Sense]] = {
    kind.__name__.lower(): kind
    for kind in (Joints, Pose, Wrench, Imu, Touch, Contacts, Lidar, Points, Audio)
}
_NOISE, _LOSS = 1, 2  # what a key is drawn for


class Senses:
    """The senses of n rows: built before the model is compiled, `start`ed on its Sim.

    What they remember (samples on their way, the last one delivered, what still rings) is in
    arrays that `save` gives and `load` takes. Faults are drawn from a row's seed, episode and age,
    so that a row's are the same whatever n and its place.
    """

    def __init__(
        self,
        senses: tuple[Sense | str, ...],
        spec: mujoco.MjSpec,
        speakers: Callable[[Sim], tuple[Speaker, ...]],
    ):
        """Adds the senses to a scene; ValueError for one that cannot be, or is there twice.

        speakers: what sounds by itself in a world.
        """
        if isinstance(senses, str):
            raise ValueError(f"senses {senses!r}; name them in a tuple")
        made = [make(sense, MEMBERS) for sense in senses]
        own = Audio.speakers
        self.all = tuple(
            replace(s, speakers=speakers) if getattr(s, "speakers", None) is own else s
            for s in made
        )
        keys = [sense.key for sense in self.all]
        if len(set(keys)) < len(keys):
            raise ValueError(f"the senses {', '.join(keys)} are not all different; tell their `at`")
        for sense in self.all:
            sense.prepare(spec)

    def __bool__(self) -> bool:
        return bool(self.all)

    def start(self, sim: Sim, dt: float, repeat: int) -> dict[str, Box]:
        """Binds them to a Sim, before it is sealed; returns the space of one row's observations.

        dt: the control step in s. repeat: control steps between two observations.
        """
        self.sim, self.substeps = sim, sim.substeps(dt)
        if self.all:
            sim.sensordata  # noqa: B018 (bound when named)
        self._streams = [_Stream(s, sim, dt, self.substeps, repeat) for s in self.all]
        self._within = [s for s in self._streams if s.readings > 1]
        return {s.sense.key: s.space for s in self._streams}

    def begin(self, rows: np.ndarray, seed: np.ndarray, episode: np.ndarray) -> None:
        """Begins an episode in rows (m,), whose derived fields are fresh; seed, episode: (n,)."""
        if self.all:
            self._sense(rows, keyed(seed[rows], episode[rows], 0), {}, True)

    def step(self, run: np.ndarray, seed: np.ndarray, episode: np.ndarray, age: np.ndarray) -> None:
        """Advances the rows in `run` (n,) bool by a control step and senses them.

        seed, episode, age (n,): the rows' own, the age in control steps at the end of this one.
        """
        mask, within = None if every(run) else run, {}
        if self._within:
            data = self.sim.record(self.substeps, mask, [s.at for s in self._within])
            within = dict(zip([s.sense.key for s in self._within], data, strict=True))
        else:
            self.sim.step(self.substeps, mask)
        if self.all:
            rows = np.flatnonzero(run)
            self._sense(rows, keyed(seed[rows], episode[rows], age[rows]), within, False)

    def _sense(self, rows: np.ndarray, keys: np.ndarray, within: dict, begins: bool) -> None:
        """Lets every sense take in the rows' readings: those within the step, or the last."""
        with np.errstate(all="ignore"):  # a row that diverged tells nonsense; it is not shown
            for s in self._streams:
                data = within.get(s.sense.key)
                if data is None:
                    data = self.sim.sensordata[:, None, s.at]
                    data = data if len(rows) == self.sim.n else data[rows]
                s.take(self.sim, Moment(rows, data, keyed(keys, s.salt), begins))

    def observe(self) -> dict[str, np.ndarray]:
        """Returns the observations of all rows, float32, fresh arrays."""
        return {s.sense.key: s.now.reshape(-1, *s.space.shape).copy() for s in self._streams}

    def save(self) -> dict[str, np.ndarray]:
        """Returns copies of all that is remembered of each row, `{key: (n, ...)}`."""
        return {f"{s.sense.key}/{k}": v.copy() for s in self._streams for k, v in s.memory.items()}

    def load(self, arrays: dict[str, np.ndarray], last: dict[str, np.ndarray]) -> None:
        """Goes on from what `save` returned, and the observations (n, ...) of then."""
        for s in self._streams:
            s.now[:] = last[s.sense.key].reshape(s.now.shape)
            for k, v in s.memory.items():
                v[:] = arrays[f"{s.sense.key}/{k}"]


class _Stream:
    """One sense's samples on their way: measured, disturbed, lost, late, seen."""

    def __init__(self, sense: Sense, sim: Sim, dt: float, substeps: int, repeat: int):
        self.sense, n = sense, sim.n
        self.memory = sense.bind(sim, dt, substeps)
        self.rate, self.readings = sense.samples(dt, substeps), sense.readings(dt, substeps)
        self.at = columns(sim, sense.key)
        self.salt = zlib.crc32(sense.key.encode())
        shape, low, high = sense.form(sim)
        period = dt / self.rate
        self.late = round(sense.delay / period)
        if abs(self.late * period - sense.delay) > 1e-6 * period:
            raise ValueError(
                f"{sense.key}: delay {sense.delay:g} s is not a whole number of its sample "
                f"periods of {period:g} s"
            )
        window = self.rate * (repeat if sense.rate is not None else 1)
        self.now = np.zeros((n, window, *shape), np.float32)
        if self.late:
            self.memory["late"] = np.zeros((n, self.late, *shape), np.float32)
        if sense.dropout and not sense.blocks:
            self.memory["held"] = np.zeros((n, *shape), np.float32)
        self.low, self.high = (np.broadcast_to(np.float32(x), shape) for x in (low, high))
        whole = shape if sense.rate is None else (window, *shape)
        self.space = Box(
            np.broadcast_to(self.low, whole), np.broadcast_to(self.high, whole), dtype=np.float32
        )

    def take(self, sim: Sim, now: Moment) -> None:
        """Takes in what rows sense; a moment that begins is as if it had been so for ever."""
        sense, memory, (rows, data, keys, begins) = self.sense, self.memory, now
        if data.shape[1] > self.readings:  # the last of each of equal parts
            each = data.shape[1] // self.readings
            now = now._replace(data=data[:, each - 1 :: each])
        if begins:
            sense.begin(sim, now, memory)
        sample = sense.measure(sim, now, memory)
        sample = np.broadcast_to(sample, (len(rows), self.rate, *self.now.shape[2:]))
        sample = sense.disturb(sample, keyed(keys, _NOISE))
        sample = np.minimum(np.maximum(sample.astype(np.float32), self.low), self.high)
        if sense.dropout:
            sample = self._lose(sample, rows, keyed(keys, _LOSS), begins)
        if self.late:
            if begins:
                memory["late"][rows] = sample[:, :1]
            line = np.concatenate([memory["late"][rows], sample], 1)
            sample, memory["late"][rows] = line[:, : self.rate], line[:, self.rate :]
        if begins:
            self.now[rows] = sample[:, :1]
        elif len(rows) == sim.n and self.rate == self.now.shape[1]:
            self.now = sample
        else:
            line = np.concatenate([self.now[rows], sample], 1)
            self.now[rows] = line[:, self.rate :]

    def _lose(self, sample, rows: np.ndarray, keys: np.ndarray, begins: bool) -> np.ndarray:
        """Loses samples by chance, but none where episodes begin."""
        if self.sense.blocks:
            lost = (uniform(keys, 1)[:, 0] <= self.sense.dropout) & (not begins)
            return np.where(lost.reshape(-1, *[1] * (sample.ndim - 1)), np.float32(0), sample)
        held = self.memory["held"]
        if begins:
            held[rows] = sample[:, 0]
            return sample
        lost = uniform(keys, self.rate) <= self.sense.dropout
        line = np.concatenate([held[rows][:, None], sample], 1)
        kept = np.maximum.accumulate(np.where(lost, 0, np.arange(1, self.rate + 1)), 1)
        sample = line[np.arange(len(rows))[:, None], kept]
        held[rows] = sample[:, -1]
        return sample
