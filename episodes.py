"""Episodes: steps on disk, windows in memory; knows no world, model or policy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .shards import (
    CODE_OF,
    FLAGS,
    OWN,
    Schema,
    Store,
    difference,
    read_shard,
    shard_names,
    sync,
    uniform,
    write_shard,
)

_CAST = {"reward": "<f4", "action": "<f4", "time": "<f8", **dict.fromkeys(FLAGS, "|b1")}
_NEEDED = (*FLAGS, "reward", "action")
_BLOCK = 32  # steps that a recorder allocates at a time
_INFO_LIMIT = 1 << 20


class Recorder:
    """Writes steps to a folder as whole episodes.

    A shard is one safetensors file: every key of the step record concatenated over the time of its
    E episodes, `(steps, ...)`, and per-episode columns `(E, ...)`: `episode/length` int64,
    `episode/id` uint64 (the first bytes of a sha256 over the episode's steps) and whatever keys
    `episode/...` the first step of an episode came with. The reward stands with the step it was
    paid for arriving at: `reward[t]` answers `action[t - 1]`. `reward` and `action` are stored as
    float32, `time` as float64, flags as bool, all else as it comes (bool, ints, floats).

    A shard is written under a temporary name, synced, renamed, and never touched again, so a killed
    process loses at most the episodes in hand (and may leave a `.shard-*.tmp` that nobody reads).
    An existing folder is appended to. Use it in a `with` block, or call `close`.
    """

    def __init__(self, path: str | Path, info: dict | None = None):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._info = json.dumps(info or {}, sort_keys=True)
        if len(self._info) > _INFO_LIMIT:
            raise ValueError(
                f"info of {len(self._info)} characters; {_INFO_LIMIT} fit into a shard"
            )
        self._names = shard_names(self.path)
        self._schema: Schema = {}
        self._n = 0
        self._blocks: dict[int, dict[str, np.ndarray]] = {}  # from t // _BLOCK
        self._open: dict[int, int] = {}  # from row to the t of its first step
        self._finished: list[tuple[int, dict[str, np.ndarray]]] = []
        self._t = 0
        self._closed = False

    def add(self, step: dict[str, np.ndarray]) -> int:
        """Takes one step of n rows, `{key: (n, ...)}`, and returns how many episodes it finished.

        An episode lasts from `first` to `last`, both included; a row between episodes is ignored.
        Episodes that finish in one call are on disk, as one shard, when it returns. Raises
        ValueError, taking nothing, for a missing key, a changed key, shape, dtype or n, another
        schema than the folder's, or a `first` inside an open episode. Raises OSError if the shard
        cannot be written: the step is taken all the same, so call `flush` again, not `add`.
        """
        arrays = self._checked(step)
        block = self._blocks.get(self._t // _BLOCK)
        if block is None:
            block = self._blocks[self._t // _BLOCK] = {
                key: np.empty((_BLOCK, self._n, *shape), dtype)
                for key, (dtype, shape) in self._schema.items()
            }
        for key, array in arrays.items():
            block[key][self._t % _BLOCK] = array
        self._open |= dict.fromkeys(np.flatnonzero(arrays["first"]).tolist(), self._t)
        self._t += 1
        done = [row for row in np.flatnonzero(arrays["last"]).tolist() if row in self._open]
        for row in done:
            self._finished.append((row, self._gather(row, self._open.pop(row))))
        oldest = min(self._open.values(), default=self._t) // _BLOCK
        for index in [index for index in self._blocks if index < oldest]:
            del self._blocks[index]
        if done:
            self.flush()
        return len(done)

    def flush(self) -> None:
        """Writes finished episodes that an earlier failure left in hand; else does nothing."""
        if not self._finished:
            return
        number = int(self._names[-1][6:12]) + 1 if self._names else 0
        try:
            episodes = [arrays for _, arrays in self._finished]
            self._names.append(write_shard(self.path, number, self._info, episodes))
            self._finished.clear()
            sync(self.path)
        except OSError as error:
            rows = [row for row, _ in self._finished]
            raise OSError(
                error.errno,
                f"{error.strerror}: {len(rows)} finished episodes (rows {rows}) and "
                f"{len(self._open)} open ones are still in hand, earlier shards are whole; "
                "make room and call flush()",
                str(self.path),
            ) from error

    def close(self) -> None:
        """Writes what is finished and drops the unfinished episodes in hand."""
        if not self._closed:
            self.flush()
            self._closed = True
            self._open.clear()
            self._blocks.clear()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """Returns the folder's shard names: those found at the start and those written since."""
        return list(self._names)

    def in_hand(self) -> dict[str, np.ndarray]:
        """Returns the open episodes as arrays that `restore` takes; empty where none is open.

        Every key is concatenated over the open rows, `(steps, ...)`; `hand/row`, `hand/length`
        `(rows,)` and `hand/n` `(1,)`, int64, say whose steps they are.
        """
        self.flush()
        if not self._open:
            return {}
        rows = sorted(self._open)
        parts = [self._gather(row, self._open[row]) for row in rows]
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in self._schema}
        arrays["hand/row"] = np.array(rows, np.int64)
        arrays["hand/length"] = np.array([len(part["first"]) for part in parts], np.int64)
        arrays["hand/n"] = np.array([self._n], np.int64)
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes on where another recorder's `in_hand` was taken, to the bit.

        Raises ValueError for arrays that `in_hand` could not have returned, RuntimeError where
        episodes are in hand already.
        """
        if self._open or self._finished:
            raise RuntimeError("restore needs a recorder with nothing in hand; open a new one")
        if not arrays:
            return
        row, length, n = _hand(arrays)
        offset, longest = np.cumsum(length) - length, int(length.max())
        keys = [key for key in arrays if not key.startswith("hand/")]
        for t in range(longest):  # rows begin at different t so that all of them end now
            age = t - (longest - length)
            on = age >= 0
            step = {}
            for key in keys:
                step[key] = np.zeros((n, *arrays[key].shape[1:]), arrays[key].dtype)
                step[key][row[on]] = arrays[key][(offset + age)[on]]
            self.add(step)

    def _checked(self, step: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the step as arrays that fit the schema, which the first step of all defines."""
        if self._closed:
            raise ValueError("this recorder is closed; open a new one on the same folder")
        arrays = {key: np.asarray(value) for key, value in step.items()}
        schema = self._schema or self._begin(arrays)
        n = self._n or len(arrays["first"])
        if arrays.keys() != schema.keys():
            missing, extra = schema.keys() - arrays.keys(), arrays.keys() - schema.keys()
            raise ValueError(
                f"the step lacks keys {sorted(missing)} and adds {sorted(extra)}; every step needs "
                f"the keys of the first: {sorted(schema)}"
            )
        for key, array in arrays.items():
            dtype, shape = schema[key]
            rule = "same_kind" if key in _CAST else "equiv"
            if array.shape != (n, *shape) or not np.can_cast(array.dtype, dtype, rule):
                raise ValueError(
                    f"{key!r} is {array.dtype}{array.shape}, not {dtype}{(n, *shape)} as the first "
                    "step said; keys, dtypes, shapes and rows stay while a recorder is open"
                )
        again = [row for row in np.flatnonzero(arrays["first"]).tolist() if row in self._open]
        if again:
            raise ValueError(
                f"rows {again} open an episode inside an open one; set 'last' at the step before"
            )
        self._schema, self._n = schema, n
        return arrays

    def _begin(self, arrays: dict[str, np.ndarray]) -> Schema:
        """Returns the schema that the first step defines, if it is also the folder's."""
        schema = _schema_of(arrays)
        if self._names:
            shard = read_shard(self.path / self._names[-1])
            if shard.schema != schema:
                raise ValueError(
                    f"{self.path} holds other steps than these ({difference(shard.schema, schema)})"
                    "; record into another folder"
                )
        return schema

    def _gather(self, row: int, start: int) -> dict[str, np.ndarray]:
        parts = []
        for index in range(start // _BLOCK, (self._t - 1) // _BLOCK + 1):
            a, b = max(start - index * _BLOCK, 0), min(self._t - index * _BLOCK, _BLOCK)
            parts.append({key: array[a:b, row] for key, array in self._blocks[index].items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in self._schema}


def set_aside(path: str | Path, keep: list[str]) -> list[str]:
    """Moves every shard of the folder that `keep` does not name into `aside/<number>/`.

    Returns the names moved; deletes nothing and leaves `keep` as the folder's whole content, so a
    run that resumes from a checkpoint sees the shards that the checkpoint knew. No recorder may
    have the folder open. Raises FileNotFoundError, moving nothing, if a shard to keep is missing.
    """
    path = Path(path)
    names = shard_names(path)
    missing = sorted(set(keep) - set(names))
    if missing:
        raise FileNotFoundError(f"{path} lacks the shards {missing}; look in {path / 'aside'}")
    moved = [name for name in names if name not in set(keep)]
    litter = [file.name for file in path.glob(".shard-*.tmp")]  # of a killed recorder
    if moved or litter:
        aside = path / "aside"
        aside.mkdir(exist_ok=True)
        targets = (aside / f"{number:03d}" for number in itertools.count())
        target = next(folder for folder in targets if not folder.exists())
        target.mkdir()
        for name in moved + litter:
            (path / name).rename(target / name)
        for folder in (target, aside, path):
            sync(folder)
    return moved


class Episodes:
    """The episodes of one or more folders: windows, splits and statistics.

    Keys of a few bytes a step, and small shards, are read into memory (up to `memory` bytes); all
    else is memory-mapped. `keys` names the step keys to load; without it all of them, which every
    shard must then have. Folders are read in the order given, shards by name; what `refresh` finds
    comes after. With `across`, what is drawn may go on from an episode's last step to the first of
    the next one that is stored. Raises FileNotFoundError for a folder that is not there, ValueError
    with the file's name for a shard that is cut off, altered or of another schema.
    """

    def __init__(
        self,
        path: str | Path | list[str | Path],
        keys: tuple[str, ...] | None = None,
        memory: int = 2 << 30,
        across: bool = False,
    ):
        paths = [path] if isinstance(path, str | Path) else path
        self._store = Store([Path(p) for p in paths], keys, memory)
        self._filters: tuple[tuple[int, int, float, float], ...] = ()
        self._across = across
        self._store.refresh()
        self._tables()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def steps(self) -> int:
        """The number of steps in all episodes."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """The steps of each episode, `(len,)` int64."""
        return self._store.length[self._index]

    @property
    def keys(self) -> tuple[str, ...]:
        """The step keys that are loaded; empty as long as no shard has been seen."""
        return self._store.keys

    @property
    def info(self) -> dict:
        """What all shards were told alike (`Recorder(info=...)`); what differs is left out."""
        infos = [shard.info for shard in self._store.shards] or [{}]
        return {k: v for k, v in infos[0].items() if all(k in i and i[k] == v for i in infos)}

    def column(self, key: str) -> np.ndarray:
        """Returns a per-episode column such as `episode/id`, `(len, ...)`."""
        shards = self._store.shards
        lacking = [shard.path.name for shard in shards if key not in shard.columns]
        if lacking or not shards:
            raise ValueError(f"no column {key!r} in {lacking or 'an empty folder'}")
        return np.concatenate([shard.columns[key] for shard in shards])[self._index]

    def refresh(self) -> int:
        """Takes in shards that have appeared since; returns how many episodes came with them."""
        before = len(self)
        self._store.refresh()
        if self._seen != len(self._store.length):
            self._tables()
        return len(self) - before

    def episode(self, i: int) -> dict[str, np.ndarray]:
        """Returns episode i whole, `{key: (steps, ...)}`, as fresh arrays."""
        e = self._index[i]
        batch = self._store.read(self._store.start[e : e + 1], int(self._store.length[e]))
        return {key: value[0] for key, value in batch.items()}

    def sample(self, rng: np.random.Generator, b: int, t: int) -> dict[str, np.ndarray]:
        """Draws b windows of t consecutive steps, `{key: (b, t, ...)}`, as fresh arrays.

        Uniform over all windows that hold no invalid step and (without `across`) lie inside one
        episode; a function of the generator's state and of the episodes alone. Raises ValueError
        if there is no window.
        """
        return self.read(self.draw(rng, b, t), t)

    def draw(self, rng: np.random.Generator, b: int, t: int) -> np.ndarray:
        """Draws what `sample` would: the place, (b,) int64, where each window begins.

        A step's place is its number among the steps of all shards, in the order in which they were
        found; it never changes, and views of a split share it.
        """
        ends, total = self._ends(t), self.count(t)
        if total == 0:
            raise ValueError(
                f"no window of {t} valid steps in {len(self)} episodes (longest: "
                f"{self.lengths.max(initial=0)}); record longer episodes or ask for fewer steps"
            )
        draw = rng.integers(0, total, b)
        run = np.searchsorted(ends, draw, side="right")
        return self._run_stop[run] - t - (ends[run] - 1 - draw)

    def count(self, t: int) -> int:
        """Returns how many windows of t steps `draw` chooses from."""
        ends = self._ends(t)
        return int(ends[-1]) if len(ends) else 0

    def read(self, places: np.ndarray, t: int) -> dict[str, np.ndarray]:
        """Returns the windows of t steps that begin at places (b,), `{key: (b, t, ...)}`."""
        return self._store.read(places, t)

    def pieces(self, begin: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the steps of each shard from the `begin`-th on, `{key: (steps, ...)}`, uncopied.

        Laid end to end they are in the order of their places; those of other views are among them.
        """
        for s in range(begin, len(self._store.shards)):
            yield {key: self._store.shard(key, s) for key in self.keys}

    def windows(self, size: int, stride: int) -> np.ndarray:
        """Returns all windows in order, `(windows, 2)` int64: episode and first step.

        An episode of T steps has (T - size) // stride + 1 of them, less those with an invalid step.
        """
        if size < 1 or stride < 1:
            raise ValueError(f"size {size} and stride {stride} must be at least 1")
        count = np.maximum((self.lengths - size) // stride + 1, 0)
        episode = np.repeat(np.arange(len(self)), count)
        start = stride * (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count))
        at = self._store.start[self._index[episode]] + start
        run = np.searchsorted(self._run_stop, at, side="right")
        fits = run < len(self._run_stop)
        run = np.minimum(run, max(len(self._run_stop) - 1, 0))
        if fits.any():
            fits &= (self._run_start[run] <= at) & (at + size <= self._run_stop[run])
        return np.stack([episode, start], 1)[fits].astype(np.int64)

    def take(self, windows: np.ndarray, t: int) -> dict[str, np.ndarray]:
        """Returns b windows, named `(b, 2)` as `windows` does: `{key: (b, t, ...)}`."""
        episode, start = np.asarray(windows, np.int64).reshape(-1, 2).T
        outside = (start < 0) | (start + t > self.lengths[episode])
        if outside.any():
            raise ValueError(f"window {windows[outside.argmax()]} of {t} steps leaves its episode")
        return self._store.read(self._store.start[self._index[episode]] + start, t)

    def split(self, seed: int, fractions: tuple[float, ...] = (0.9, 0.1)) -> list[Episodes]:
        """Returns a view per fraction that share no episode; each follows the folder by `refresh`.

        An episode's part is a function of the seed and its content alone: later episodes move
        none, and two with equal steps never part. So parts are of the asked size on average only.
        """
        edges = np.concatenate([[0.0], np.cumsum(fractions)])
        if min(fractions) < 0 or edges[-1] > 1 + 1e-9:
            raise ValueError(f"fractions {fractions} must be at least 0 and sum to at most 1")
        edges[np.isclose(edges, 1)] = 1.0
        views = []
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            view = object.__new__(Episodes)
            view._store, view._across = self._store, self._across
            view._filters = (*self._filters, (int(seed), len(self._filters), low, high))
            view._tables()
            views.append(view)
        return views

    def stats(self) -> dict:
        """Returns `episodes`, `steps`, `return` (mean), `success` (rate) and `keys`.

        `keys` holds, for every float key, `mean`, `std`, `min` and `max` over the valid steps, in
        float64 with the shape of one step, and their `count`. `action` counts without last steps
        and `reward` without first ones, where they mean nothing. An episode's return is the sum of
        its rewards; it is a success if `label/success` (else None) is True at any of its steps.
        """
        store = self._store
        total = {"episodes": len(self), "steps": self.steps, "return": None, "success": None}
        for name, key, add in (
            ("return", "reward", np.add),
            ("success", "label/success", np.maximum),
        ):
            if len(self) and key in store.series:
                values = np.concatenate([store.shard(key, s) for s in range(len(store.shards))])
                values = add.reduceat(values.astype(np.float64), store.start)[self._index]
                total[name] = float(values.mean())
        members = np.zeros(len(store.length), bool)
        members[self._index] = True
        used = np.repeat(members, store.length) & store.all("valid")
        rules = {"action": ~store.all("last"), "reward": ~store.all("first")}
        floats = [key for key in self.keys if store.series[key].data.dtype.kind == "f"]
        total["keys"] = {key: store.moments(key, used & rules.get(key, True)) for key in floats}
        return total

    def verify(self) -> None:
        """Reads every step again; raises ValueError if one is not what was recorded."""
        for shard in self._store.shards:
            shard.verify()

    def _tables(self) -> None:
        """Builds what sampling needs: the view's episodes and its runs of valid steps."""
        store = self._store
        member = np.ones(len(store.length), bool)
        for seed, depth, low, high in self._filters:
            u = uniform(store.identity, seed, depth)
            member &= (low <= u) & (u < high)
        self._seen = len(store.length)
        self._index = np.flatnonzero(member)
        runs = member[store.run_episode]
        start, stop = store.run_start[runs], store.run_stop[runs]
        if self._across:
            apart = np.append(start[1:] != stop[:-1], True)
            start, stop = start[np.append(True, apart[:-1])[: len(start)]], stop[apart[: len(stop)]]
        self._run_start, self._run_stop = start, stop
        self._ends_of: dict[int, np.ndarray] = {}

    def _ends(self, t: int) -> np.ndarray:
        if t < 1:
            raise ValueError(f"a window of {t} steps; t must be at least 1")
        if t not in self._ends_of:
            count = np.maximum(self._run_stop - self._run_start - t + 1, 0)
            self._ends_of[t] = np.cumsum(count)
        return self._ends_of[t]


def _schema_of(arrays: dict[str, np.ndarray]) -> Schema:
    missing = [key for key in _NEEDED if key not in arrays]
    taken = [key for key in arrays if key in OWN or key.startswith(("hand/", "__"))]
    if missing or taken:
        raise ValueError(
            f"a step needs the keys {_NEEDED}: it lacks {missing}, may not use {taken}"
        )
    schema = {}
    for key, array in arrays.items():
        dtype = np.dtype(_CAST.get(key, array.dtype.newbyteorder("<")))
        if dtype not in CODE_OF or array.ndim == 0:
            raise ValueError(
                f"{key!r} is {array.dtype}{array.shape}; a key is (n, ...) of bool, int or float"
            )
        if array.ndim > 1 and key in (*FLAGS, "reward"):
            raise ValueError(f"{key!r} has shape {array.shape}; it is one value a row, (n,)")
        schema[key] = (dtype, array.shape[1:])
    return schema


def _hand(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns row, length and n of what `in_hand` returned, or raises ValueError."""
    steps = {len(array) for key, array in arrays.items() if not key.startswith("hand/")}
    hand = [np.asarray(arrays.get(f"hand/{key}", ()), np.int64) for key in ("row", "length", "n")]
    row, length, n = hand
    fits = row.shape == length.shape == (len(set(row.tolist())),) and n.shape == (1,)
    fits = fits and len(row) > 0 and length.min() > 0 and 0 <= row.min() and row.max() < n[0]
    if fits and steps == {int(length.sum())} and {"first", "last"} <= arrays.keys():
        opens = np.zeros(int(length.sum()), bool)
        opens[np.cumsum(length) - length] = True
        if np.array_equal(arrays["first"], opens) and not np.any(arrays["last"]):
            return row, length, int(n[0])
    raise ValueError("these are not open episodes as in_hand returns them; take them from there")
