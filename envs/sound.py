"""Sound: the compiled loops of modal synthesis and of tones, for ears at a distance.

It knows no simulation. Rows never mix and draw their noise from their own key, so a row's sound
has the same bits whatever the number of rows and its place among them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .rays import kernel

_FLOOR = 1e-8  # of full scale at 1 m: a thing that rings less is at rest
_STEP, _MIX1, _MIX2 = (
    np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_S30, _S27, _S31, _S11 = (np.uint64(x) for x in (30, 27, 31, 11))


@njit
def _noise(key, t):
    """Returns the key's number t, evenly spread over [-1, 1). Source: SplitMix64, see `sense`."""
    x = key + np.uint64(t + 1) * _STEP
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    x ^= x >> _S31
    return np.float64(x >> _S11) * 2.0**-52 - 1.0


@njit(error_model="numpy")
def _ring(start, count, length, strike, shake, key, modes, motion, way, then, air):
    """Adds `count` samples of one source, from `start` of `length` on, to what is in the air."""
    last = air.shape[0] - length - 2.0
    for t in range(start, start + count):
        push = strike if t == start else 0.0
        if shake > 0:
            push += shake * _noise(key, t)
        tone = 0.0
        for q in range(modes.shape[0]):
            now = modes[q, 0] * motion[q, 0] + modes[q, 1] * motion[q, 1] + modes[q, 2] * push
            motion[q, 1] = motion[q, 0]
            motion[q, 0] = now
            tone += now
        _send(tone, t, (t + 1) / length, way, then, last, air)


@njit(error_model="numpy", forceinline=True)
def _send(tone, t, share, way, then, last, air):
    """Puts what sounds at t into the air, where it comes to each ear."""
    for ear in range(2):
        gain = way[ear, 0] + (then[ear, 0] - way[ear, 0]) * share
        delay = way[ear, 1] + (then[ear, 1] - way[ear, 1]) * share
        if not 0 <= delay <= last:  # also where it is no number
            delay = last
        whole = int(delay)
        part = delay - whole
        air[t + whole, ear] += gain * (1 - part) * tone
        air[t + whole + 1, ear] += gain * part * tone


@kernel
def press(data, slip, force, power):
    """Writes normal forces in N and friction's power in W, (m, r, s) each, of s bodies.

    data (m, r, 6 c s): of each body c contacts' force and velocity, along the normal and two
    tangents. Contacts slower than `slip` m/s have no power.
    """
    rows, parts, bodies = force.shape
    slots = data.shape[2] // (6 * bodies)
    for i in range(rows):
        for p in range(parts):
            for s in range(bodies):
                total, friction = 0.0, 0.0
                for k in range(6 * slots * s, 6 * slots * (s + 1), 6):
                    total += data[i, p, k]
                    slow = data[i, p, k + 4] ** 2 + data[i, p, k + 5] ** 2 - slip * slip
                    if slow > 0:
                        pull = data[i, p, k + 1] ** 2 + data[i, p, k + 2] ** 2
                        friction += np.sqrt(pull * slow)
                force[i, p, s], power[i, p, s] = total, friction


@kernel
def sing(rows, strike, shake, keys, modes, motion, way, then, echo, out):
    """Writes the sound of m rows' sources into `out` (m, p k, 2), and goes on with their memory.

    The time of `out` is p equal parts of k samples. rows: (m,) int64, where a row is in what is
    remembered of all n: `modes` (n, s, q, 3), q resonators of s sources, each two factors of its
    last values and a gain; `motion` (n, s, q, 2), their last two values; `way` (n, s, 2, 2), to
    each ear the gain and the delay in samples; `echo` (n, d, 2), what is still under way. Of the
    rows: `strike` (m, p, s), momentum that comes as a part begins, in N s; `shake` (m, p, s), the
    greatest of noise's momentum at every sample; keys (m,) uint64; `then` (m, s, 2, 2), `way` at
    the end. Delays are at most d - 2.
    """
    parts, sources = strike.shape[1:]
    length, late, resonators = out.shape[1], echo.shape[1], modes.shape[2]
    per = length // parts
    air = np.zeros((length + late, 2))
    for i in range(len(rows)):
        row = rows[i]
        loud = False
        for t in range(late):
            loud |= echo[row, t, 0] != 0 or echo[row, t, 1] != 0
        if loud:
            air[:late], air[late:] = echo[row], 0
        for s in range(sources):
            rings = False
            for q in range(resonators):
                rings |= motion[row, s, q, 0] != 0 or motion[row, s, q, 1] != 0
            for p in range(parts):
                if not (rings or strike[i, p, s] > 0 or shake[i, p, s] > 0):
                    continue
                if not loud:
                    air[:], loud = 0, True
                _ring(
                    p * per, per, length, strike[i, p, s], shake[i, p, s],
                    keys[i] + np.uint64(s) * _MIX1, modes[row, s], motion[row, s], way[row, s],
                    then[i, s], air,
                )  # fmt: skip
                rings = False
                for q in range(resonators):
                    rings |= abs(motion[row, s, q, 0]) > _FLOOR
                    rings |= abs(motion[row, s, q, 1]) > _FLOOR
                if not rings:
                    motion[row, s] = 0
            way[row, s] = then[i, s]
        if loud:
            out[i] = air[:length]
            echo[row] = air[length:]
        else:
            out[i] = 0


@kernel
def play(rows, cycles, now, loud, phase, way, then, echo, out):
    """Adds the tones of m rows' speakers to `out` (m, k, 2), and goes on with their memory.

    Of the rows: cycles (m, s) a sample; `now` (m, s), amplitudes at the end, to which they change
    evenly. Of all n: `loud` (n, s), the last ones; `phase` (n, s) in cycles; all else as in `sing`.
    """
    length, late = out.shape[1], echo.shape[1]
    air = np.zeros((length + late, 2))
    for i in range(len(rows)):
        row = rows[i]
        air[:length], air[length:] = out[i], echo[row]
        for s in range(now.shape[1]):
            first, last, at = loud[row, s], now[i, s], phase[row, s]
            if first == 0 and last == 0:
                at = 0.0
            else:
                for t in range(length):
                    share = (t + 1) / length
                    at += cycles[i, s]
                    at -= np.floor(at)
                    tone = (first + (last - first) * share) * np.sin(2 * np.pi * at)
                    _send(tone, t, share, way[row, s], then[i, s], late - 2.0, air)
            loud[row, s], phase[row, s], way[row, s] = last, at, then[i, s]
        out[i], echo[row] = air[:length], air[length:]
