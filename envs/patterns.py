"""Patterns: checks, stripes and clouds that cameras by rays draw over geoms; solid, in metres.

A pattern says at every point of a geom's own frame which share of its second colour shows there.
It knows no simulation and no picture. Numbers of a pattern, `WIDTH`: its style, cells per metre,
the second colour, and where it begins or, of stripes, which way they follow one another.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

WIDTH = 8
NONE, CHECKS, STRIPES, CLOUDS = range(4)  # styles

f32 = np.float32
_ODD = f32(17.31)  # cells: how far a pattern is shifted, so that no face lies between two cells
_X, _Y, _Z, _MIX = 0x27D4EB2F, 0x165667B1, 0x1B873593, 0x45D9F3B  # odd numbers that spread bits
_LOW32, _LOW16 = 0xFFFFFFFF, 0xFFFF


@njit(forceinline=True)
def share(pattern, x, y, z, spread):
    """Returns the share in [0, 1] of the second colour at a point, of a pixel `spread` m wide.

    What is too fine to be seen is grey.
    """
    cells = pattern[1]
    x, y, z, d0, d1, d2 = x * cells, y * cells, z * cells, pattern[5], pattern[6], pattern[7]
    sharp = min(max(f32(1.5) - spread * cells, f32(0)), f32(1))
    if pattern[0] == CHECKS:
        i, j, k = _whole(x + _ODD * d0), _whole(y + _ODD * d1), _whole(z + _ODD * d2)
        value = f32((i + j + k) & 1)
    elif pattern[0] == STRIPES:
        value = f32(_whole(x * d0 + y * d1 + z * d2 + _ODD * d0) & 1)
    else:
        x, y, z = x + _ODD * d0, y + _ODD * d1, z + _ODD * d2
        coarse, fine = _cloud(x, y, z), _cloud(f32(2) * x, f32(2) * y, f32(2) * z)
        value = min(max(f32(2) * (f32(0.7) * coarse + f32(0.3) * fine) - f32(0.5), f32(0)), f32(1))
    return f32(0.5) + sharp * (value - f32(0.5))


@njit(forceinline=True)
def _cloud(x, y, z):
    """Returns a smooth field in [0, 1] with a random number at each whole point."""
    i, j, k = _whole(x), _whole(y), _whole(z)
    u, v, w = _smooth(x - f32(i)), _smooth(y - f32(j)), _smooth(z - f32(k))
    value = f32(0)
    for a in range(2):
        for b in range(2):
            for c in range(2):
                p, q = u if a else f32(1) - u, v if b else f32(1) - v
                value += p * q * (w if c else f32(1) - w) * _random(i + a, j + b, k + c)
    return value


@njit(forceinline=True)
def _whole(x):
    return math.floor(x)


@njit(forceinline=True)
def _smooth(t):
    return t * t * (f32(3) - f32(2) * t)


@njit(forceinline=True)
def _random(i, j, k):
    """Returns the number in [0, 1] of a whole point."""
    h = ((i * _X) ^ (j * _Y) ^ (k * _Z)) & _LOW32
    h = ((h ^ (h >> 16)) * _MIX) & _LOW32
    h = ((h ^ (h >> 16)) * _MIX) & _LOW32
    return f32((h ^ (h >> 16)) & _LOW16) / f32(_LOW16)
