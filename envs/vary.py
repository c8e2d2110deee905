"""Vary: worlds whose masses, light, cameras, latency and so on differ from episode to episode.

A row's values are drawn from its own (seed, episode), in a stream that is apart from the task's:
what the task draws stays the same. They live in the row (`BatchEnv.physics`), so that replay,
branching and loading need nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from ..registry import nearest
from .paraphrase import paraphrase
from .perturb import KINDS, LATEST
from .rows import Streams
from .sense import keyed, normal
from .sim import Sim

Ranges = Mapping[str, tuple[float, float]]


def _both(*most: float) -> tuple[tuple[float, float], ...]:
    return tuple((-x, x) for x in (0.0, *most))


def _times(*most: float) -> tuple[tuple[float, float], ...]:
    return tuple((1 / x, x) for x in (1.0, *most))


def _upto(*most: float) -> tuple[tuple[float, float], ...]:
    return tuple((0.0, x) for x in (0.0, *most))


# Seven ways in which a trained policy is put to the test, and the body's own dynamics; 0 to 5.
# Source of the seven: Fei et al. 2025, "LIBERO-Plus"; the sizes are ours.
LEVELS: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "camera": {
        "camera": _both(0.02, 0.04, 0.07, 0.10, 0.15),
        "aim": _both(0.02, 0.04, 0.06, 0.08, 0.10),
        "fov": _times(1.03, 1.06, 1.1, 1.15, 1.2),
    },
    "start": {"start": _both(0.03, 0.06, 0.10, 0.15, 0.20)},
    "light": {
        "light": _times(1.2, 1.5, 2.0, 2.5, 3.0),
        "lamp": _both(0.2, 0.4, 0.6, 0.8, 1.0),
    },
    "texture": {
        "texture": _upto(0.1, 0.25, 0.4, 0.6, 0.8),
        "colour": _both(0.01, 0.02, 0.03, 0.04, 0.045),
    },
    "noise": {"noise": _upto(0.002, 0.005, 0.01, 0.02, 0.04)},
    "layout": {"layout": _both(0.01, 0.02, 0.03, 0.045, 0.06)},
    "language": {"language": tuple((float(k), float(k)) for k in range(6))},
    "dynamics": {
        "mass": _times(1.2, 1.5, 2.0, 3.0, 4.0),
        "friction": _times(1.1, 1.25, 1.5, 1.75, 2.0),
        "gain": _times(1.05, 1.1, 1.2, 1.35, 1.5),
        "latency": _upto(0, 1, 1, 2, 3),
    },
}


def level(name: str, number: int) -> dict[str, tuple[float, float]]:
    """Returns the ranges of level 0 (nothing varies) to 5 of a row of `LEVELS`, for `vary=`.

    Raises ValueError for another name or number.
    """
    if name not in LEVELS:
        raise ValueError(f"no levels of {name!r}{nearest(name, LEVELS)}")
    if number not in range(6):
        raise ValueError(f"a level is 0 to 5, got {number}")
    return {kind: steps[number] for kind, steps in LEVELS[name].items()}


def checked(vary: Ranges | Sequence[str]) -> dict[str, tuple[float, float]]:
    """Returns ranges in the order of KINDS; names alone take their default ranges.

    Raises ValueError for an unknown name and for a range out of order or out of bounds.
    """
    if isinstance(vary, str):
        raise ValueError(f"vary takes names in a tuple or their ranges, got {vary!r}; ({vary!r},)")
    given = dict(vary) if isinstance(vary, Mapping) else {k: None for k in vary}
    for name in given:
        if name not in KINDS:
            raise ValueError(f"no variation {name!r}{nearest(str(name), KINDS)}")
    return {
        name: kind.default if given[name] is None else _range(name, given[name])
        for name, kind in KINDS.items()
        if name in given
    }


def _range(name: str, given) -> tuple[float, float]:
    kind = KINDS[name]
    least, most = kind.bounds
    pair = isinstance(given, Sequence) and len(given) == 2
    low, high = (float(x) for x in given) if pair else (np.nan, np.nan)
    if not least <= low <= high <= most:
        raise ValueError(
            f"{name} varies from low to high within [{least:g}, {most:g}] ({kind.unit}), "
            f"got {given!r}"
        )
    if kind.whole and (low % 1 or high % 1):
        raise ValueError(f"{name} takes whole numbers ({kind.unit}), got {given!r}")
    return low, high


class Variation:
    """What varies in the rows of a Sim, and between which values.

    `memory` (n, m) float64 is a part of the row: the drawn values, a key for noise and words, and
    the last actions where there is latency. `columns` names the values. Surfaces whose colours mean
    something, `named`, keep them. Build it before the first reset. Raises ValueError where
    `checked` does, and for a model that has nothing of the kind.
    """

    def __init__(
        self, sim: Sim, vary: Ranges | Sequence[str], width: int, named: Sequence[str] = ()
    ):
        self.sim, self.ranges, self._streams = sim, checked(vary), Streams()
        self._parts = {
            name: [
                p for p in KINDS[name].parts(sim.model) if name != "texture" or p.name not in named
            ]
            for name in self.ranges
        }
        self.columns: list[str] = []
        self._at: dict[str, slice] = {}
        for name, parts in self._parts.items():
            if not parts:
                raise ValueError(f"{name} cannot vary: this model has nothing that it changes")
            kind, start = KINDS[name], len(self.columns)
            axes = ("rgb" if kind.unit == "rgb" else "xyz")[: kind.width]
            self.columns += [
                f"{name}/{p.name}" + (f"/{axis}" if len(axes) > 1 else "")
                for p in parts
                for axis in axes
            ]
            self._at[name] = slice(start, len(self.columns))
        ring = (LATEST + 1) * width if "latency" in self.ranges else 0
        # Values, a key and the ring; nothing at all where nothing varies.
        self.memory = np.zeros((sim.n, len(self.columns) + 1 + ring if self.ranges else 0))
        self._key = self.memory[:, len(self.columns) :][:, :1]
        self._ring = self.memory[:, len(self.columns) + 1 :].reshape(sim.n, -1, width)
        self._nominal = {
            field: sim.model_field(field)[0].copy()
            for name in self.ranges
            for field in KINDS[name].fields
            if sim.model_field(field).size
        }
        for field in self._nominal:
            sim.vary(field)

    @property
    def values(self) -> np.ndarray:
        """Returns the drawn values, `(n, len(columns))`, in the units of KINDS."""
        return self.memory[:, : len(self.columns)]

    def narrow(self, vary: Ranges) -> None:
        """Draws from other ranges of the same kinds, row by row from its next episode on.

        Raises ValueError for other kinds: they change what a row holds.
        """
        ranges = checked(vary)
        if ranges.keys() != self.ranges.keys():
            raise ValueError(
                f"{', '.join(self.ranges) or 'nothing'} varies here, got {', '.join(ranges)}; "
                "for other kinds build another world"
            )
        self.ranges = ranges

    def clear(self, rows: np.ndarray) -> None:
        """Puts what varies back to the model's values, before the task writes its own."""
        for field, value in self._nominal.items():
            self.sim.varied[field][rows] = value
        self.memory[rows] = 0

    def draw(self, i: int, key: np.ndarray) -> None:
        """Draws row i's values from the episode's key (2,) uint64 and writes them."""
        for name, parts in self._parts.items():
            kind, (low, high) = KINDS[name], self.ranges[name]
            # A stream of its own: what else varies changes nothing here.
            counter = np.array([0, 0, zlib.crc32(name.encode()), 1], np.uint64)
            rng = self._streams.at(key, counter)
            u = rng.random((len(parts), kind.width))
            if kind.whole:
                values = low + np.floor((high - low + 1) * u)
            elif kind.unit == "factor":
                values = np.clip(low * (high / low) ** u, low, high)
            else:
                values = low + (high - low) * u
            kind.put(self.sim, i, parts, values, rng)
            self.memory[i, self._at[name]] = values.ravel()
        if self.ranges:
            rng = self._streams.at(key, np.array([0, 0, 0, 1], np.uint64))
            self._key[i] = float(rng.integers(2**53))

    @property
    def late(self) -> np.ndarray:
        """Returns by how many control steps each row's actions arrive late, `(n,)`."""
        if "latency" not in self.ranges:
            return np.zeros(self.sim.n, int)
        return self.memory[:, self._at["latency"]][:, 0].astype(int)

    def delayed(self, action: np.ndarray, run: np.ndarray) -> np.ndarray:
        """Returns the actions `(n, nu)` that arrive now; those of the rows in `run` are sent now.

        Before the first has arrived it is 0.
        """
        if "latency" not in self.ranges:
            return action
        ring = self._ring
        ring[run, 1:] = ring[run, :-1]
        ring[run, 0] = action[run]
        return ring[self.sim.rows, self.late].astype(action.dtype)

    def noisy(self, obs: dict[str, np.ndarray], age: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the float32 observations with normal noise; age (n,) in control steps.

        The noise is a function of the row and its age: asked twice, it is the same.
        """
        if "noise" not in self.ranges:
            return obs
        std = self.memory[:, self._at["noise"]].astype(np.float32)
        out = {}
        for key, value in obs.items():
            flat = value.reshape(len(value), -1)
            drawn = normal(keyed(self._key[:, 0], age, zlib.crc32(key.encode())), flat.shape[1])
            out[key] = (flat + std * drawn.astype(np.float32)).reshape(value.shape)
        return out

    def reworded(self, i: int, text: str) -> str:
        """Returns row i's instruction as it is said in this episode."""
        if "language" not in self.ranges:
            return text
        rng = np.random.Generator(np.random.Philox(key=int(self._key[i, 0])))
        return paraphrase(text, int(self.memory[i, self._at["language"]][0]), rng)


class Curriculum:
    """Moves a level of `LEVELS` by success: up where the last `window` episodes went well, down
    where they went badly; then it counts anew.

    up, down: the shares of success at and above, and below which it moves. `log` holds
    (episodes so far, level) at the start and at each move. Hand `ranges` to `env.variation.narrow`.
    Raises ValueError for unknown names and for numbers out of order.
    """

    def __init__(self, name: str, start=0, top=5, window=50, up=0.8, down=0.3):
        level(name, top), level(name, start)
        if not (start <= top and window >= 1 and 0 <= down < up <= 1):
            raise ValueError(
                "a curriculum takes start <= top, window >= 1 and 0 <= down < up <= 1, got "
                f"{start}, {top}, {window}, {down} and {up}"
            )
        self.name, self.top, self.window, self.up, self.down = name, top, window, up, down
        self.level, self.episodes = start, 0
        self.log: list[tuple[int, int]] = [(0, start)]
        self._last: list[bool] = []

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Returns the present level's ranges."""
        return level(self.name, self.level)

    def count(self, success: Sequence[bool]) -> bool:
        """Takes the outcomes of episodes that ended, in order; returns whether the level moved."""
        before = self.level
        for done in success:
            self.episodes += 1
            self._last = [*self._last, bool(done)][-self.window :]
            share = sum(self._last) / self.window
            if len(self._last) < self.window:
                continue
            step = 1 if share >= self.up else -1 if share < self.down else 0
            new = min(max(self.level + step, 0), self.top)
            if new != self.level:
                self.level, self._last = new, []
                self.log.append((self.episodes, new))
        return self.level != before

    def state(self) -> dict:
        """Returns all that it must remember, as JSON holds it."""
        return {
            "name": self.name,
            "level": self.level,
            "episodes": self.episodes,
            "last": [int(x) for x in self._last],
            "log": [list(entry) for entry in self.log],
        }

    def restore(self, state: Mapping) -> None:
        """Goes on from a `state`. Raises ValueError for that of another row of `LEVELS`."""
        if state["name"] != self.name:
            raise ValueError(f"the state is of {state['name']!r}, this curriculum of {self.name!r}")
        self.level, self.episodes = state["level"], state["episodes"]
        self._last = [bool(x) for x in state["last"]]
        self.log = [tuple(entry) for entry in state["log"]]
