"""Snapshot: everything that a row of a world needs to go on exactly; a value, plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
