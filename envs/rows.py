"""Rows: how single rows are put into, and taken out of, `(n, ...)` arrays, and asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

_ZEROS = np.zeros(4, np.uint64)
_LOW, _HIGH = np.array(-1, np.float32), np.array(1, np.float32)


class Streams:
    """One generator that is put at the beginning of any Philox stream, again and again.

    A new one takes 50 us: numpy has the system draw it a seed, which a key then replaces.
    """

    def __init__(self):
        self._bits = np.random.Philox(key=0)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, key: np.ndarray, counter: np.ndarray = _ZEROS) -> np.random.Generator:
        """Returns the generator, as Philox(key=key (2,), counter=counter (4,)) begins."""
        self._start["state"] = {"counter": counter, "key": key}
        self._bits.state = self._start
        return self._generator


def some(mask: np.ndarray) -> bool:
    """Returns mask.any() of a bool array; numpy's own costs twenty times as much for few rows."""
    return 1 in mask.tobytes()


def every(mask: np.ndarray) -> bool:
    """Returns mask.all() of a bool array, see `some`."""
    return 0 not in mask.tobytes()


def where(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns a's rows where mask (n,) is True and b's elsewhere."""
    return np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def spread(part: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Returns `(n, ...)` zeros with `part` (m, ...) at `rows` (m,)."""
    out = np.zeros((n, *part.shape[1:]), part.dtype)
    out[rows] = part
    return out


def masked(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Returns a vector info as Gymnasium lays it out: each key, blank outside mask, and `_key`."""
    everyone = every(mask)
    out: dict[str, Any] = {}
    for key, value in info.items():
        if not everyone:
            value = value.copy()
            value[~mask] = None if value.dtype == object else 0
        out[key], out[f"_{key}"] = value, mask.copy()
    return out


def single(value: np.ndarray) -> Any:
    """Returns row 0 of `(1, ...)`: a Python number, bool or str where it is one, else an array."""
    return value.item() if value.ndim == 1 and value.dtype.char in "?dO" else value[0]


def accepted(actions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns actions (n, nu) float32, clipped to [-1, 1].

    Raises ValueError for those of another shape or not finite.
    """
    action = np.asarray(actions, np.float32)
    if action.shape != shape:
        raise ValueError(f"actions have shape {shape}, got {action.shape}")
    finite = np.isfinite(action)
    if not every(finite):
        bad = np.flatnonzero(~finite.all(1))[:8].tolist()
        raise ValueError(f"actions are finite numbers in [-1, 1]; rows {bad} hold NaN or inf")
    return np.minimum(np.maximum(action, _LOW), _HIGH)


def asked_rows(options: dict | None, n: int) -> np.ndarray:
    """Returns options["reset_mask"], (n,) bool, all True without; ValueError for another thing."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return np.ones(n, bool)
    mask = np.asarray(mask)
    if mask.shape != (n,) or mask.dtype != bool or not mask.any():
        raise ValueError(
            f"options['reset_mask'] is a bool array of shape ({n},) with a True, "
            f"got {mask.dtype} of shape {mask.shape} with {int(np.count_nonzero(mask))} true"
        )
    return mask


def row_seeds(seed: int | list[int | None] | None, n: int) -> list[int | None]:
    """Returns a seed for each of n rows: seed + i, or the list's own; None goes on without one."""
    if seed is None:
        return [None] * n
    if isinstance(seed, (int, np.integer)):
        seed = [int(seed) + i for i in range(n)]
    seeds = [None if s is None else int(s) for s in seed]
    if len(seeds) != n or any(s is not None and s < 0 for s in seeds):
        raise ValueError(f"seed is an int >= 0 or a list of {n} of them (or None), got {seed!r}")
    return seeds
