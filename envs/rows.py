"""Rows: how single rows are put into, and taken out of, dictionaries of `(n, ...)` arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


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
    everyone = mask.all()
    out: dict[str, Any] = {}
    for key, value in info.items():
        if not everyone:
            value = value.copy()
            value[~mask] = None if value.dtype == object else 0
        out[key], out[f"_{key}"] = value, mask.copy()
    return out


def single(value: np.ndarray) -> Any:
    """Returns row 0 of `(1, ...)`: a Python number, bool or str where it is one, else an array."""
    first = value[0]
    return first.item() if isinstance(first, (np.bool_, np.float64)) else first
