"""Snapshot: everything that a row of a world needs to go on exactly; a value, plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import mujoco
import numpy as np


def fingerprint(model: mujoco.MjModel, task: str, *drawn: Iterable[str]) -> str:
    """Returns a hash of a compiled model, its task and what is drawn and sensed in it."""
    blob = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, blob)
    words = " ".join(word for words in drawn for word in words)
    kind = f"{task} {mujoco.__version__} {words}".encode()
    return hashlib.sha256(kind + blob.tobytes()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """Rows of a world at one moment, to be loaded into any world of the same model.

    arrays: `physics` (n, nphysics) float64 (state, variation and age), `seed` and `episode` (n,)
    int64, `done` and `fault` (n,) bool, the last observation under `last/<key>`, and what senses
    remember under `sense/<key>/...`.
    """

    fingerprint: str
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["seed"])

    def rows(self, index) -> Snapshot:
        """Returns the rows that a numpy index (ints or mask) selects, as a Snapshot."""
        return Snapshot(self.fingerprint, {k: v[index].copy() for k, v in self.arrays.items()})
