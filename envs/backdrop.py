"""Backdrop: what a camera has seen before and need not draw again; it knows no simulation.

A camera that keeps its direction sees the same sky in every picture, and one that stands still the
same floor, table and walls. That part is drawn once; of a row whose view of it has not changed by
a single bit it is copied, and only what can move is drawn over it. No pixel differs for that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from .rays import kernel
from .sight import View


class Backdrop:
    """One camera's backdrop: sky and the geoms that are `still`, (g,) bool, as last drawn."""

    def __init__(self, still: np.ndarray, far: float):
        self.still, self.far = still, np.float32(far)
        self.images = None
        self._key = self._offered = None

    def begin(self, view: View, images: dict[str, np.ndarray]) -> np.ndarray:
        """Begins m pictures: known ones as the backdrop, the others far and empty everywhere.

        images: some of "rgb", "depth", "segmentation" and "normal", (m, h, w, ...). Returns the
        rows that are known, (m,) bool; in those `view.skip` comes to name the still geoms too.
        """
        known = np.zeros(len(view.look), bool)
        if self._key is not None:
            _recognise(self.still, *self._key, *view, known)
        depth, geom = images["depth"], images["segmentation"]
        if not known.any():
            depth[:], geom[:] = self.far, -1
            return known
        everyone = known.all()
        for name, image in images.items():
            if everyone:
                image[:] = self.images[name]
            else:
                image[known] = self.images[name]
        if not everyone:
            depth[~known], geom[~known] = self.far, -1
        return known

    def offer(self, view: View, draw: Callable[[View], dict[str, np.ndarray]]) -> None:
        """Takes the first row of a view that was not known; if it comes twice, has it drawn.

        draw: returns all four kinds of pictures of a view.
        """
        view = View(*(array[:1].copy() for array in view))
        last, self._offered = self._offered, view
        if last is None:
            return
        known = np.zeros(1, bool)
        skip = view.skip.copy()
        _recognise(self.still, *last, *view, known)
        if known[0]:
            view = view._replace(skip=skip)
            self.images = draw(view._replace(skip=skip | ~self.still))
            self._key, self._offered = view, None


@kernel
def _recognise(
    still,
    kind, size, skip, window, eye, look, frames, paint, lamps, glow,
    kinds, sizes, skips, windows, eyes, looks, framess, paints, lampss, glows, known,
):  # fmt: skip
    """Writes whether rows, the second View, see of the still geoms what the first's only row sees.

    Adds the still geoms to the rows' `skips` where they do.
    """
    any_still = still.any()
    for s in range(known.shape[0]):
        same = _equal(window[0], windows[min(s, windows.shape[0] - 1)]) and _equal(
            look[0], looks[s]
        )
        if same and any_still:
            same = _equal(glow[0], glows[s]) and _equal(lamps[0].ravel(), lampss[s].ravel())
            a, b = min(s, kinds.shape[0] - 1), min(s, sizes.shape[0] - 1)
            for g in range(still.shape[0]):
                if same and still[g]:
                    same = (
                        kind[0, g] == kinds[a, g]
                        and skip[0, g] == skips[s, g]
                        and _equal(size[0, g], sizes[b, g])
                        and _equal(frames[0, g], framess[s, g])
                        and _equal(paint[0, g], paints[s, g])
                    )
        known[s] = same
        if same:
            for g in range(still.shape[0]):
                skips[s, g] |= still[g]


@njit
def _equal(a, b):
    for k in range(a.shape[0]):
        if a[k] != b[k]:
            return False
    return True
