"""Shards: whole episodes as files, many files as one run of steps; knows no rows, no splits."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

VERSION = 1
FLAGS = ("first", "last", "terminal", "valid")
OWN = ("episode/length", "episode/id")  # columns that are written here, from the steps
_FORMAT = "umwelten episodes"
_ALWAYS = (*FLAGS, "reward")  # in memory, whatever keys are asked for
_CODES = {"BOOL": "|b1", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_CODES |= {f"{kind}{8 * b}": f"<{kind.lower()}{b}" for kind in "UI" for b in (1, 2, 4, 8)}
DTYPES = {code: np.dtype(name) for code, name in _CODES.items()}
CODE_OF = {dtype: code for code, dtype in DTYPES.items()}
_NAME = re.compile(r"shard-\d{6}\.safetensors")
_HEADER_LIMIT = 16 << 20  # bytes
_SMALL_SHARD, _SMALL_STEP = 1 << 20, 4096  # bytes of one key that are kept in memory, not mapped
_MAPS = 200  # files mapped at once: each holds a file descriptor
_CHUNK = 1 << 22  # values turned into float64 at a time

Schema = dict[str, tuple[np.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Shard:
    """The checked header of a shard file, with its per-episode columns."""

    path: Path
    tensors: dict[str, tuple[np.dtype, tuple[int, ...], int]]  # dtype, shape, first byte
    columns: dict[str, np.ndarray]
    info: dict
    steps: int

    @property
    def schema(self) -> Schema:
        """dtype and shape of one step's (or episode's) value, of every key that was recorded."""
        return {k: (d, shape[1:]) for k, (d, shape, _) in self.tensors.items() if k not in OWN}

    @property
    def step_schema(self) -> Schema:
        """The schema without the per-episode columns."""
        return {k: kind for k, kind in self.schema.items() if k not in self.columns}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Reads the keys of `arrays` (steps or more, ...) into them; checks flags and lengths."""
        with self.path.open("rb") as file:
            for key, array in arrays.items():
                target = array[: self.steps]
                file.seek(self.tensors[key][2])
                if target.size and file.readinto(target) != target.nbytes:
                    raise broken(self.path, f"{key!r} ends early")
                if target.dtype == bool and target.view(np.uint8).max(initial=0) > 1:
                    raise broken(self.path, f"{key!r} holds bytes that are neither 0 nor 1")
        stop = np.cumsum(self.columns["episode/length"])
        for key, at in (("first", np.append(0, stop[:-1])), ("last", stop - 1)):
            if not np.array_equal(np.flatnonzero(arrays[key][: self.steps]), at):
                raise broken(self.path, f"its {key!r} flags do not match its episode lengths")

    def map(self) -> mmap.mmap:
        """Maps the file, read-only."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def view(self, mapped: mmap.mmap, key: str) -> np.ndarray:
        """Returns a key `(steps, ...)` of the mapped file, read-only, without reading it."""
        dtype, shape, start = self.tensors[key]
        return np.ndarray(shape, dtype, mapped, start)

    def verify(self) -> None:
        """Reads every step; raises ValueError if one is not what was recorded."""
        mapped = self.map()
        views = {key: self.view(mapped, key) for key in self.step_schema}
        length, ids = self.columns["episode/length"].tolist(), self.columns["episode/id"].tolist()
        start = 0
        for i, (steps, expected) in enumerate(zip(length, ids, strict=True)):
            if _identity({k: v[start : start + steps] for k, v in views.items()}) != expected:
                raise broken(self.path, f"its episode {i} is not what was recorded")
            start += steps


def shard_names(path: Path) -> list[str]:
    """Returns the names of a folder's shards, sorted; raises FileNotFoundError without one."""
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}; a Recorder makes one")
    return sorted(file.name for file in path.iterdir() if _NAME.fullmatch(file.name))


def read_shard(path: Path) -> Shard:
    """Reads a shard's header and per-episode columns; trusts nothing in the file.

    Raises ValueError, naming the file, if it is cut off, altered, or of another format.
    """
    with path.open("rb") as file:
        try:
            return _parse(file, path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise broken(path, f"{type(error).__name__}, {error}"[:300]) from error


def write_shard(folder: Path, number: int, info: str, episodes: list[dict[str, np.ndarray]]) -> str:
    """Writes episodes as one new shard, whole or not at all; returns its name."""
    keys = [key for key in episodes[0] if not key.startswith("episode/")]
    given = [key for key in episodes[0] if key.startswith("episode/")]
    columns = {key: np.stack([episode[key][0] for episode in episodes]) for key in given}
    columns["episode/length"] = np.array([len(e["first"]) for e in episodes], "<i8")
    ids = [_identity({key: episode[key] for key in keys}) for episode in episodes]
    columns["episode/id"] = np.array(ids, "<u8")
    pieces = {key: [episode[key] for episode in episodes] for key in keys}
    pieces |= {key: [column] for key, column in columns.items()}
    order = sorted(pieces, key=lambda key: (-pieces[key][0].itemsize, key))  # keeps all aligned
    header, stop = {}, 0
    for key in order:
        start, stop = stop, stop + sum(piece.nbytes for piece in pieces[key])
        shape = [sum(map(len, pieces[key])), *pieces[key][0].shape[1:]]
        code = CODE_OF[pieces[key][0].dtype]
        header[key] = {"dtype": code, "shape": shape, "data_offsets": [start, stop]}
    meta = {"format": _FORMAT, "version": str(VERSION), "info": info}
    meta["sha256"] = _digest(header, meta, columns)
    text = json.dumps({"__metadata__": meta, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temp, name = _claim(folder, number)
    try:
        with temp.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for key in order:
                for piece in pieces[key]:
                    file.write(piece.data if piece.size else b"")
            file.flush()
            os.fsync(file.fileno())
        temp.replace(folder / name)
    finally:
        temp.unlink(missing_ok=True)
    return name


def _claim(folder: Path, number: int) -> tuple[Path, str]:
    """Takes the next free number: whoever made its temporary file may rename to its name."""
    while True:
        name, temp = f"shard-{number:06d}.safetensors", folder / f".shard-{number:06d}.tmp"
        if not _NAME.fullmatch(name):
            raise OSError(errno.ENOSPC, "a folder holds a million shards; record into another one")
        number += 1
        try:
            temp.touch(exist_ok=False)
        except FileExistsError:
            continue
        if not (folder / name).exists():
            return temp, name
        temp.unlink()


def _digest(header: dict, meta: dict[str, str], columns: dict[str, np.ndarray]) -> str:
    """Returns the sha256 of a shard's header and per-episode columns, as hex."""
    rest = {key: value for key, value in meta.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps([header, rest], sort_keys=True).encode())
    for key in sorted(columns):
        digest.update(np.ascontiguousarray(columns[key]))
    return digest.hexdigest()


@dataclass
class Series:
    """One step key over all shards, in memory where it is small."""

    data: np.ndarray  # (capacity, ...)
    used: int
    at: list[int]  # per shard: the row of data where it begins, -1 where it is mapped

    def room(self, rows: int) -> np.ndarray:
        """Returns data with at least `rows` rows, the used ones kept."""
        if rows > len(self.data):
            data = np.empty((max(rows, 2 * self.used), *self.data.shape[1:]), self.data.dtype)
            data[: self.used] = self.data[: self.used]
            self.data = data
        return self.data


class Store:
    """The shards of some folders as one run of steps; shared by all views, it only ever grows."""

    def __init__(self, paths: list[Path], keys: tuple[str, ...] | None, memory: int):
        self.keys = self._asked = tuple(keys or ())
        self.shards: list[Shard] = []
        self.series: dict[str, Series] = {}
        self.begin = self.start = self.length = np.zeros(0, np.int64)  # begin: of each shard
        self.run_start = self.run_stop = self.run_episode = self.begin
        self.identity = np.zeros(0, np.uint64)
        self._memory = memory
        self._seen: dict[Path, set[str]] = {path: set() for path in paths}
        self._stamp: dict[Path, int] = {}
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()

    def refresh(self) -> None:
        """Appends the shards that are new; changes nothing if one of them is refused."""
        new, seen, stamps = [], {}, {}
        for path, known in self._seen.items():
            stamp, now = path.stat().st_mtime_ns, time.time_ns()
            if stamp == self._stamp.get(path):
                continue
            names = shard_names(path)
            gone = sorted(known.difference(names))
            if gone:
                raise ValueError(f"{path} lost {gone} while it was open; open the folder anew")
            new += [read_shard(path / name) for name in names if name not in known]
            seen[path] = set(names)
            # A change within the same tick of the clock leaves the same stamp: trust old ones only.
            stamps[path] = stamp if now - stamp > 2_000_000_000 else -1
        if new:
            self._append(new)
        self._seen |= seen
        self._stamp |= stamps

    def _append(self, new: list[Shard]) -> None:
        series = self.series or self._first(new[0])
        at = {key: list(one.at) for key, one in series.items()}
        used = {key: one.used for key, one in series.items()}
        left = self._memory - sum(one.data[: one.used].nbytes for one in series.values())
        for shard in new:
            self._check(shard, series)
            for key, one in series.items():
                size = one.data.itemsize * math.prod(one.data.shape[1:])
                small = size <= _SMALL_STEP or size * shard.steps < _SMALL_SHARD
                kept = key in _ALWAYS or (small and size * shard.steps <= left)
                at[key].append(used[key] if kept else -1)
                used[key] += shard.steps * kept
                left -= size * shard.steps * kept
        for i, shard in enumerate(new, len(self.shards)):
            kept = {key: at[key][i] for key in series if at[key][i] >= 0}
            shard.load({key: series[key].room(used[key])[row:] for key, row in kept.items()})
        for key, one in series.items():
            one.used, one.at = used[key], at[key]
        self.series, self.shards = series, self.shards + new
        self._index()

    def _index(self) -> None:
        columns = [shard.columns for shard in self.shards]
        self.identity = np.concatenate([column["episode/id"] for column in columns])
        self.length = np.concatenate([column["episode/length"] for column in columns])
        self.start = np.cumsum(self.length) - self.length
        sizes = np.array([shard.steps for shard in self.shards])
        self.begin = np.cumsum(sizes) - sizes
        valid = self.all("valid")
        opens, closes = valid.copy(), valid.copy()  # a run of valid steps inside an episode
        opens[1:] &= ~valid[:-1] | self.all("first")[1:]
        closes[:-1] &= ~valid[1:] | self.all("last")[:-1]
        self.run_start, self.run_stop = np.flatnonzero(opens), np.flatnonzero(closes) + 1
        self.run_episode = np.searchsorted(self.start, self.run_start, side="right") - 1
        self.keys = self._asked or tuple(sorted(self.series))

    def _first(self, shard: Shard) -> dict[str, Series]:
        known = shard.step_schema
        unknown = sorted(set(self._asked) - set(known))
        if unknown:
            raise ValueError(f"no keys {unknown} in {shard.path}; it has {sorted(known)}")
        wanted = dict.fromkeys((*(self._asked or known), *_ALWAYS))
        return {key: Series(np.empty((0, *known[key][1]), known[key][0]), 0, []) for key in wanted}

    def _check(self, shard: Shard, series: dict[str, Series]) -> None:
        asked = {key: (one.data.dtype, one.data.shape[1:]) for key, one in series.items()}
        known = shard.step_schema
        if self._asked:
            known = {key: known[key] for key in asked if key in known}
        if known != asked:
            raise ValueError(
                f"{shard.path} holds other steps than the shards before it "
                f"({difference(asked, known)}); open it apart, or name common keys by keys=(...)"
            )

    def all(self, key: str) -> np.ndarray:
        """Returns a key that is wholly in memory over all steps, as the flags and reward are."""
        one = self.series.get(key)
        return np.zeros(0, bool) if one is None else one.data[: one.used]

    def shard(self, key: str, s: int) -> np.ndarray:
        """Returns a key over the steps of shard s, without copying."""
        row = self.series[key].at[s]
        if row >= 0:
            return self.series[key].data[row : row + self.shards[s].steps]
        if s not in self._maps:
            self._maps[s] = self.shards[s].map()
            if len(self._maps) > _MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(s)
        return self.shards[s].view(self._maps[s], key)

    @property
    def steps(self) -> int:
        return len(self.all("valid"))

    def read(self, starts: np.ndarray, t: int) -> dict[str, np.ndarray]:
        """Returns the windows of t steps from the steps `starts` (b,), `{key: (b, t, ...)}`."""
        rows = starts[:, None] + np.arange(t)
        shard = np.searchsorted(self.begin, starts, side="right") - 1
        batch = {}
        for key in self.keys:
            one = self.series[key]
            if one.used == self.steps:  # all of it is in memory, in the order of the steps
                batch[key] = np.take(one.data, rows, axis=0)
                continue
            batch[key] = out = np.empty((*rows.shape, *one.data.shape[1:]), one.data.dtype)
            for i in np.argsort(shard, kind="stable").tolist():
                s, a, done = int(shard[i]), int(starts[i] - self.begin[shard[i]]), 0
                while done < t:  # a window may go on in the next shard
                    values = self.shard(key, s)[a : a + t - done]
                    # A byte of a mapped file that is neither 0 nor 1 must not become a bool.
                    raw = values.view(np.uint8) if values.dtype == bool else values
                    out[i, done : done + len(raw)] = raw
                    s, a, done = s + 1, 0, done + len(raw)
        return batch

    def _pieces(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        if self.series[key].used == self.steps:
            yield 0, self.all(key)
        else:
            yield from ((int(a), self.shard(key, s)) for s, a in enumerate(self.begin))

    def moments(self, key: str, used: np.ndarray) -> dict:
        """Returns mean, std, min and max of a key over the steps that `used` (steps,) marks."""
        shape = self.series[key].data.shape[1:]
        count, mean, square = 0, np.zeros(shape), np.zeros(shape)
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        chunk = max(1, _CHUNK // max(1, math.prod(shape)))
        for begin, array in self._pieces(key):
            rows = np.flatnonzero(used[begin : begin + len(array)])
            for i in range(0, len(rows), chunk):
                x = array[rows[i : i + chunk]].astype(np.float64)
                m, middle = len(x), x.mean(0)
                delta = middle - mean
                square += ((x - middle) ** 2).sum(0) + delta**2 * (count * m / (count + m))
                mean += delta * (m / (count + m))
                count += m
                low, high = np.minimum(low, x.min(0)), np.maximum(high, x.max(0))
        std = np.sqrt(square / max(count, 1))
        moments = {"mean": mean, "std": std, "min": low, "max": high}
        if count == 0:
            moments = dict.fromkeys(moments, np.nan * mean)
        return {"count": count, **{name: np.asarray(value) for name, value in moments.items()}}


def difference(old: dict, new: dict) -> str:
    """Says in a few words where two schemas differ."""
    parts = []
    for key in sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k)):
        kinds = [f"{d[key][0]}{list(d[key][1])}" if key in d else "absent" for d in (old, new)]
        parts.append(f"{key}: {kinds[0]}, now {kinds[1]}")
    return "; ".join(parts[:4]) + (" ..." if len(parts) > 4 else "")


def sync(folder: Path) -> None:
    """Makes the renames in a folder durable, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _identity(arrays: dict[str, np.ndarray]) -> int:
    """Returns 64 bits of a sha256 over an episode's steps."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key}{arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]))
    return int.from_bytes(digest.digest()[:8], "little")


def broken(path: Path, why: str) -> ValueError:
    """Returns the error for a shard that is refused."""
    return ValueError(f"{path} is no whole shard: {why}; restore it or move it out of the folder")


def _parse(file: BinaryIO, path: Path) -> Shard:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    meta = header.pop("__metadata__")
    if meta["format"] != _FORMAT or int(meta["version"]) > VERSION:
        raise ValueError(f"format {meta['format']!r} {meta['version']}, not {_FORMAT!r} {VERSION}")
    tensors = _table(header, size - 8 - length, 8 + length)
    columns = {}
    for key in (key for key in tensors if key.startswith("episode/")):
        dtype, shape, start = tensors[key]
        file.seek(start)
        data = file.read(dtype.itemsize * math.prod(shape))
        columns[key] = np.frombuffer(data, dtype).reshape(shape)
    if meta["sha256"] != _digest(header, meta, columns):
        raise ValueError("its header's checksum does not match")
    info, lengths = dict(json.loads(meta["info"])), columns["episode/length"]
    steps = tensors["first"][1][0]
    if lengths.min() < 1 or lengths.max() > steps or lengths.sum() != steps:
        raise ValueError(f"episodes of {lengths.sum()} steps in a shard of {steps}")
    for key, (_, shape, _) in tensors.items():
        if shape[0] != (len(lengths) if key in columns else steps):
            raise ValueError(
                f"{key!r} has shape {shape}, not {len(lengths)} episodes, {steps} steps"
            )
    return Shard(path, tensors, columns, info, steps)


def _table(header: dict, size: int, base: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """Returns the tensors that a header describes, if they fill `size` bytes without overlap."""
    tensors, stop = {}, 0
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, end]
        if not all(type(x) is int and 0 <= x <= size for x in numbers) or len(shape) not in range(
            1, 9
        ):
            raise ValueError(f"{key!r} with shape {shape} at {start} to {end} of {size} bytes")
        if start != stop or end - start != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{key!r} does not fill its bytes, or overlaps another key")
        tensors[key], stop = (dtype, tuple(shape), base + start), end
    if stop != size:
        raise ValueError(f"keys end at byte {stop} of {size}")
    fixed = (
        dict.fromkeys(FLAGS, "BOOL")
        | {"reward": "F32"}
        | dict(zip(OWN, ("I64", "U64"), strict=True))
    )
    for key, code in fixed.items():
        if tensors[key][0] != DTYPES[code] or len(tensors[key][1]) != 1:
            raise ValueError(f"{key!r} is not one {code} each")
    return tensors


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """Refuses a JSON object that names a key twice, of which readers see different ones."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def uniform(identity: np.ndarray, seed: int, depth: int) -> np.ndarray:
    """Returns a number in [0, 1) per episode, by the finaliser of SplitMix64.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
    """
    salt = hashlib.sha256(f"split {seed} {depth}".encode()).digest()[:8]
    x = identity + np.frombuffer(salt, "<u8")
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
