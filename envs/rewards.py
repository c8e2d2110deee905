"""Reward shapes: numbers in [0, 1] from distances and other measures, batched."""

from __future__ import annotations

import math

import numpy as np


def _gaussian(x, at_margin):
    return np.exp(math.log(at_margin) * x**2)


def _long_tail(x, at_margin):
    return 1 / (x**2 * (1 / at_margin - 1) + 1)


def _quadratic(x, at_margin):
    return np.maximum(1 - x**2 * (1 - at_margin), 0.0)


def _linear(x, at_margin):
    return np.maximum(1 - x * (1 - at_margin), 0.0)


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
    if low > high or margin < 0:
        raise ValueError(
            f"tolerance takes low <= high and margin >= 0, got {low}, {high}, {margin}"
        )
    if shape not in SHAPES:
        raise ValueError(f"no reward shape {shape!r}; there are {', '.join(SHAPES)}")
    if not (0 < at_margin < 1 or (at_margin == 0 and shape in ("quadratic", "linear"))):
        raise ValueError(f"at_margin {at_margin} of a {shape} shape is not between 0 and 1")
    outside = np.maximum(np.maximum(low - x, x - high), 0.0)
    if margin == 0:
        return (outside == 0).astype(float)
    return SHAPES[shape](outside / margin, at_margin)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance between points `(n, d)`, as `(n,)`."""
    d = a - b
    return np.sqrt(np.einsum("ij,ij->i", d, d))
