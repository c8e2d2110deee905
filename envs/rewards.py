"""Reward shapes: numbers in [0, 1] from distances and other measures, batched."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

# Of few rows numpy spends its time on turning Python's numbers into arrays: here they are arrays.
_ZERO, _ONE = np.array(0.0), np.array(1.0)


def _gaussian(at_margin):
    rate = np.array(math.log(at_margin))
    return lambda x: np.exp(rate * x**2)


def _long_tail(at_margin):
    rate = np.array(1 / at_margin - 1)
    return lambda x: _ONE / (x**2 * rate + _ONE)


def _quadratic(at_margin):
    drop = np.array(1 - at_margin)
    return lambda x: np.maximum(_ONE - x**2 * drop, _ZERO)


def _linear(at_margin):
    drop = np.array(1 - at_margin)
    return lambda x: np.maximum(_ONE - x * drop, _ZERO)


SHAPES = {
    "gaussian": _gaussian,
    "long_tail": _long_tail,
    "quadratic": _quadratic,
    "linear": _linear,
}


def tolerance(x, low=0.0, high=0.0, margin=0.0, shape="gaussian", at_margin=0.1) -> np.ndarray:
    """Returns 1 where low <= x <= high, falling to `at_margin` at `margin` outside, never negative.

    Works elementwise on arrays of any shape. Source: the reward language of Tassa et al. 2018,
    "DeepMind Control Suite", section 2. Raises ValueError for bounds or margins out of order, an
    unknown shape, and an `at_margin` outside (0, 1); quadratic and linear ones may end at 0.
    """
    return _tolerance(low, high, margin, shape, at_margin)(x)


@lru_cache(256)
def _tolerance(low, high, margin, shape, at_margin) -> Callable[[np.ndarray], np.ndarray]:
    if low > high or margin < 0:
        raise ValueError(
            f"tolerance takes low <= high and margin >= 0, got {low}, {high}, {margin}"
        )
    if shape not in SHAPES:
        raise ValueError(f"no reward shape {shape!r}; there are {', '.join(SHAPES)}")
    if not (0 < at_margin < 1 or (at_margin == 0 and shape in ("quadratic", "linear"))):
        raise ValueError(f"at_margin {at_margin} of a {shape} shape is not between 0 and 1")
    fall, below, above, width = SHAPES[shape](at_margin), *map(np.array, (low, high, margin))

    def outside(x):
        if high == math.inf:
            return np.maximum(below - x, _ZERO)
        return np.maximum(np.maximum(below - x, x - above), _ZERO)

    if margin == 0:
        return lambda x: (outside(x) == _ZERO).astype(float)
    return lambda x: fall(outside(x) / width)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance between points `(n, d)`, as `(n,)`."""
    d = a - b
    return np.sqrt(np.einsum("ij,ij->i", d, d))
