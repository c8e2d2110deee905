"""Shading: the numba kernel that colours hits, and a model's textures as arrays for it.

The light is MuJoCo's: ambient, emission and Lambert's diffuse term of the headlight and of every
lamp, with cones and attenuation, times colour and texture. Highlights, reflections, haze and
translucency are left out: a translucent geom is drawn opaque, as mj_ray sees it. Without a skybox
texture the sky is black. Row axes are as in `rays`: m, or 1 where all rows share.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mujoco
import numpy as np
from numba import njit

from . import patterns
from .rays import (
    BOX,
    CAPSULE,
    CYLINDER,
    PLANE,
    SPHERE,
    facing,
    kernel,
    local_point,
    rectangle,
)

SPOT, DIRECTIONAL, POINT = 0, 1, 2  # as mujoco.mjtLightType

f32 = np.float32
_TURN = f32(0.5 / math.pi)
_TINY = f32(1e-12)
_COVERS = int(f32(1.4142).view(np.int32))  # texels a pixel may cover, as bits
PAINT = 7  # numbers of a geom's paint before those of its pattern
_BLOCK = 512  # pixels that are coloured at a time: what they need stays in the nearest cache
# Where in `work` and `at` what pixels need lies, of up to _BLOCK each. One array at fixed distances
# and not many: so the compiler sees that they do not overlap, and does eight or sixteen at a time.
X, Y, T, N0, N1, N2, U, V, W, R, G, B, P, Q, D = (k * _BLOCK for k in range(15))
ROW, COL, FACE, A, F, C, E = (k * _BLOCK for k in range(7))


class Textures(NamedTuple):
    """The textures of a model with their halvings (mip levels), flat in one array."""

    texels: np.ndarray  # (texels,) int32: red, green, blue in its lower bytes
    start: np.ndarray  # (textures, levels) int32, where a level begins
    shape: np.ndarray  # (textures, 4) int32: width, height of a face, levels, 1 if a cube map
    sky: int  # the skybox, or -1


@kernel
def shade(
    kind, size, skip, known, window, look, frames, depth, geom, normal,
    lamps, lit, glow, paint, texture, textures, rgb,
):  # fmt: skip
    """Writes the picture `rgb`, (m, h, w, 3) uint8, of what `rays.cast` found.

    Of a lamp, `lamps` (m, l, 14) float32 holds [0:3] its place relative to the camera, or where
    it is directional the way to it, [3:6] its aim, [6:9] its colour, [9:12] its attenuation, [12]
    the cosine of its cutoff (-2: shines to all sides) and [13] its exponent (-1: directional);
    `glow` (m, 6) holds ambient and headlight; `lit` is `rays.occlude`'s, or (m, h, w, 0) where
    nothing casts a shadow. Of a geom, `paint` (m, g, 7) float32 holds red, green, blue,
    emission, texture repeats along both axes and whether these count per two metres, and may hold
    a pattern (see `patterns`); `texture`
    (g,) int32 is -1 for none. `normal` is (m, h, w, 3), or (m, 0, 0, 3) for primitives, whose
    normals follow from the hits. Where `known`, (m,) bool, the sky and the geoms of `skip` are in
    the picture already.

    Pixels are gathered by geom, so that all that a geom decides is decided once, and all else is
    a straight line through short arrays.
    """
    height, width = depth.shape[1], depth.shape[2]
    at, work = np.empty(7 * _BLOCK, np.int32), np.empty(15 * _BLOCK, np.float32)
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        kinds, sizes = kind[min(s, kind.shape[0] - 1)], size[min(s, size.shape[0] - 1)]
        for g in range(-1, skip.shape[1]):
            if (g < 0 and known[s]) or (g >= 0 and skip[s, g]):
                continue
            i0, i1, j0, j1 = 0, height, 0, width
            if g >= 0:
                i0, i1, j0, j1 = rectangle(frames[s, g], left, top, dx, dy, height, width)
            count, i, j = np.int64(0), i0, j0  # typed: from a literal all would be compiled twice
            while i < i1 and j0 < j1:
                until = min(j1, j + _BLOCK)
                y, who, far = f32(top - (i + 0.5) * dy), geom[s, i], depth[s, i]
                for k in range(j, until):
                    if who[k] == g:
                        at[ROW + count], at[COL + count] = i, k
                        work[X + count], work[Y + count] = left + (k + 0.5) * dx, y
                        work[T + count] = far[k]
                        count += 1
                i, j = (i, until) if until < j1 else (i + 1, j0)
                if count and (i == i1 or count + min(j1 - j, _BLOCK) > _BLOCK):
                    if g < 0:
                        _paint_sky(count, textures, look[s], f32(dy), at, work, rgb[s])
                    else:
                        _paint_geom(
                            count, kinds[g], sizes[g], look[s], f32(dy), frames[s, g], normal[s],
                            lamps[s], lit[s], glow[s], paint[s, g], texture[g], textures,
                            at, work, rgb[s],
                        )  # fmt: skip
                    count = np.int64(0)


@njit
def _paint_sky(count, textures, look, dy, at, work, rgb):
    """Colours so many pixels of the sky."""
    c0, c1, c2 = f32(look[0]), f32(look[1]), f32(look[2])
    c3, c4, c5 = f32(look[3]), f32(look[4]), f32(look[5])
    c6, c7, c8 = f32(look[6]), f32(look[7]), f32(look[8])
    for q in range(count):
        work[R + q] = work[G + q] = work[B + q] = f32(1 if textures.sky >= 0 else 0)
    if textures.sky >= 0:
        spread = f32(0.5) * dy * f32(textures.shape[textures.sky, 0])
        for q in range(count):
            x, y = work[X + q], work[Y + q]
            u, v = c0 * x + (c1 * y - c2), c3 * x + (c4 * y - c5)
            w = c6 * x + (c7 * y - c8)
            at[FACE + q], work[N0 + q], work[N1 + q] = _face(u, w, -v)
            work[N2 + q] = spread
        _lay(count, textures, np.int32(textures.sky), at, work)
    _put(count, at, work, rgb)


@njit
def _paint_geom(
    count, kind, size, look, dy, frame, normal, lamps, lit, glow, paint, texture, textures,
    at, work, rgb,
):  # fmt: skip
    """Colours so many pixels of a geom."""
    if normal.shape[0] > 0:
        for q in range(count):
            own = normal[at[ROW + q], at[COL + q]]
            work[N0 + q], work[N1 + q], work[N2 + q] = own[0], own[1], own[2]
    elif kind == PLANE:
        _face_out(count, PLANE, size, frame, work)
    elif kind == BOX:
        _face_out(count, BOX, size, frame, work)
    elif kind == CAPSULE:
        _face_out(count, CAPSULE, size, frame, work)
    else:
        _face_out(count, kind, size, frame, work)
    c0, c1, c2 = f32(look[0]), f32(look[1]), f32(look[2])
    c3, c4, c5 = f32(look[3]), f32(look[4]), f32(look[5])
    c6, c7, c8 = f32(look[6]), f32(look[7]), f32(look[8])
    g0, g1, g2, h0, h1, h2 = glow[0], glow[1], glow[2], glow[3], glow[4], glow[5]
    for q in range(count):
        x, y = work[X + q], work[Y + q]
        work[U + q] = c0 * x + (c1 * y - c2)
        work[V + q] = c3 * x + (c4 * y - c5)
        work[W + q] = c6 * x + (c7 * y - c8)
        head = max(work[N0 + q] * c2 + work[N1 + q] * c5 + work[N2 + q] * c8, f32(0))
        work[R + q], work[G + q], work[B + q] = g0 + head * h0, g1 + head * h1, g2 + head * h2
    for k in range(lamps.shape[0]):
        _light(count, lamps[k], work)
        if lit.shape[2] > 0:
            for q in range(count):
                work[P + q] = work[P + q] if lit[at[ROW + q], at[COL + q], k] else f32(0)
        h0, h1, h2 = lamps[k, 6], lamps[k, 7], lamps[k, 8]
        for q in range(count):
            work[R + q] += work[P + q] * h0
            work[G + q] += work[P + q] * h1
            work[B + q] += work[P + q] * h2
    r, g, b, glowing = paint[0], paint[1], paint[2], paint[3]
    if paint.shape[0] > PAINT and paint[PAINT] != patterns.NONE:
        _cover(count, paint, frame, dy, work)
    else:
        for q in range(count):
            work[R + q] = min(r * (work[R + q] + glowing), f32(1))
            work[G + q] = min(g * (work[G + q] + glowing), f32(1))
            work[B + q] = min(b * (work[B + q] + glowing), f32(1))
    if texture >= 0:
        _unroll(count, textures, texture, paint, kind, size, frame, dy, at, work)
        _lay(count, textures, texture, at, work)
    _put(count, at, work, rgb)


@njit(inline="always")
def _face_out(count, kind, size, frame, work):
    """Writes the unit normals, world frame, of hits on a geom."""
    s0, s1, s2 = f32(size[0]), f32(size[1]), f32(size[2])
    p0, p1, p2 = frame[0], frame[1], frame[2]
    a0, a1, a2, b0, b1, b2 = frame[3], frame[6], frame[9], frame[4], frame[7], frame[10]
    c0, c1, c2 = frame[5], frame[8], frame[11]
    f0, f1, f2, f3, f4, f5 = frame[12], frame[13], frame[14], frame[15], frame[16], frame[17]
    f6, f7, f8 = frame[18], frame[19], frame[20]
    for q in range(count):
        x, y, t = work[X + q], work[Y + q], work[T + q]
        a, b, c = facing(
            kind, s0, s1, s2,
            p0 + t * (a0 * x + b0 * y - c0),
            p1 + t * (a1 * x + b1 * y - c1),
            p2 + t * (a2 * x + b2 * y - c2),
        )  # fmt: skip
        work[N0 + q] = f0 * a + f1 * b + f2 * c
        work[N1 + q] = f3 * a + f4 * b + f5 * c
        work[N2 + q] = f6 * a + f7 * b + f8 * c


@njit
def _put(count, at, work, rgb):
    """Writes the colours where they belong."""
    for q in range(count):
        work[R + q] = f32(255) * work[R + q] + f32(0.5)
        work[G + q] = f32(255) * work[G + q] + f32(0.5)
        work[B + q] = f32(255) * work[B + q] + f32(0.5)
    for q in range(count):
        i, j = at[ROW + q], at[COL + q]
        rgb[i, j, 0] = np.uint8(work[R + q])
        rgb[i, j, 1] = np.uint8(work[G + q])
        rgb[i, j, 2] = np.uint8(work[B + q])


@njit
def _light(count, lamp, work):
    """Writes how much of a lamp's colour the hits send back, `P`."""
    none = f32(0)
    l0, l1, l2, a0, a1, a2 = lamp[0], lamp[1], lamp[2], lamp[3], lamp[4], lamp[5]
    fade0, fade1, fade2, edge = lamp[9], lamp[10], lamp[11], lamp[12]
    if lamp[13] < none:
        distance = math.sqrt(l0 * l0 + l1 * l1 + l2 * l2)
        for q in range(count):
            cosine = work[N0 + q] * l0 + work[N1 + q] * l1 + work[N2 + q] * l2
            work[P + q] = cosine / distance if cosine > none else none
        return
    for q in range(count):
        t = work[T + q]
        u, v, w = l0 - t * work[U + q], l1 - t * work[V + q], l2 - t * work[W + q]
        cosine = work[N0 + q] * u + work[N1 + q] * v + work[N2 + q] * w
        distance = math.sqrt(u * u + v * v + w * w)
        power = cosine / distance / (fade0 + distance * (fade1 + distance * fade2))
        toward = -(u * a0 + v * a1 + w * a2) / distance
        dark = (cosine <= none) | ((toward < edge) | (toward <= none)) & (edge > f32(-2))
        work[P + q], work[Q + q] = none if dark else power, max(toward, none)
    if edge > f32(-2):
        _raise(count, lamp[13], work)


@njit
def _raise(count, exponent, work):
    """Multiplies `P` by `Q` to an exponent >= 0, by squaring where that is whole: mostly it is."""
    whole = int(exponent)
    if f32(whole) != exponent:
        for q in range(count):
            work[P + q] *= math.exp(exponent * math.log(work[Q + q]))
        return
    for q in range(count):
        work[D + q] = f32(1)
    while whole > 0:
        if whole & 1:
            for q in range(count):
                work[D + q] *= work[Q + q]
        for q in range(count):
            work[Q + q] *= work[Q + q]
        whole >>= 1
    for q in range(count):
        work[P + q] *= work[D + q]


@njit
def _spread(count, dy, work):
    """Writes how much of a surface pixels cover, `P`, in m."""
    for q in range(count):
        u, v, w = work[U + q], work[V + q], work[W + q]
        slope = abs(work[N0 + q] * u + work[N1 + q] * v + work[N2 + q] * w)
        work[P + q] = work[T + q] * dy * (u * u + v * v + w * w) / max(slope, f32(1e-3))


@njit
def _cover(count, paint, frame, dy, work):
    """Gives hits what they send back of two colours that a pattern mixes."""
    _spread(count, dy, work)
    pattern, glowing = paint[PAINT:], paint[3]
    r, g, b, r1, g1, b1 = paint[0], paint[1], paint[2], pattern[2], pattern[3], pattern[4]
    for q in range(count):
        x, y, z = local_point(frame, work[X + q], work[Y + q], work[T + q])
        share = patterns.share(pattern, x, y, z, work[P + q])
        work[R + q] = min((r + share * (r1 - r)) * (work[R + q] + glowing), f32(1))
        work[G + q] = min((g + share * (g1 - g)) * (work[G + q] + glowing), f32(1))
        work[B + q] = min((b + share * (b1 - b)) * (work[B + q] + glowing), f32(1))


@njit
def _unroll(count, textures, tex, paint, kind, size, frame, dy, at, work):
    """Writes where on a texture hits lie, `FACE`, `N0`, `N1`, and a pixel's spread there, `N2`."""
    _spread(count, dy, work)
    if kind == PLANE and textures.shape[tex, 3] == 0:
        _skins(count, PLANE, False, textures, tex, paint, size, frame, at, work)
    else:
        cube = textures.shape[tex, 3] == 1
        _skins(count, kind, cube, textures, tex, paint, size, frame, at, work)


@njit(inline="always")
def _skins(count, kind, cube, textures, tex, paint, size, frame, at, work):
    width, height = f32(textures.shape[tex, 0]), f32(textures.shape[tex, 1])
    for q in range(count):
        p0, p1, p2 = local_point(frame, work[X + q], work[Y + q], work[T + q])
        at[FACE + q], work[N0 + q], work[N1 + q], per_metre = _skin(
            cube, width, height, paint, kind, size, p0, p1, p2
        )
        work[N2 + q] = f32(0.5) * work[P + q] * per_metre


@njit(forceinline=True)
def _skin(cube, width, height, paint, kind, size, p0, p1, p2):
    """Returns where on a texture a point p of a geom's surface lies, and its texels per metre."""
    a, b, c = f32(size[0]), f32(size[1]), f32(size[2])
    if kind == CYLINDER or kind == CAPSULE:
        b, c = a, b
    elif kind == SPHERE:
        b, c = a, a
    x, y, z = p0 / max(a, _TINY), p1 / max(b, _TINY), p2 / max(c, _TINY)
    if kind == CAPSULE and abs(z) > f32(1):
        z = math.copysign(f32(1) + (abs(p2) - c) / a, z)
    face, u, v = 0, f32(0), f32(0)
    if cube:
        per_metre = width / max(a, b, c)
        if kind == PLANE:
            x, y = p0, p1
        if paint[6] > f32(0):
            x, y, z = x * a, y * b, z * c
        face, u, v = _face(x, y, z)
    else:
        su = paint[4] if paint[4] > f32(0) else f32(1)
        sv = paint[5] if paint[5] > f32(0) else f32(1)
        endless = kind == PLANE and (a <= f32(0) or b <= f32(0))
        if paint[6] > f32(0):
            su, sv = su * (a if a > f32(0) else f32(1)), sv * (b if b > f32(0) else f32(1))
        if endless:  # along an endless axis, a repeat is two metres
            x = x if a > f32(0) else p0 - f32(1)
            y = y if b > f32(0) else p1 + f32(1)
        u, v = _unwrap(kind, x, y, z)
        u, v = u * su, v * sv
        if endless:
            u, v = u - f32(0.5), v - f32(0.5)
        a, b = (a if a > f32(0) else f32(1)), (b if b > f32(0) else f32(1))
        per_metre = max(su * width / a, sv * height / b)
    return face, u, v, per_metre


@njit(forceinline=True)
def _unwrap(kind, x, y, z):
    """Returns the texture coordinates that MuJoCo gives a point of a unit-sized primitive."""
    half = f32(0.5)
    if kind == PLANE:
        return half + half * x, half - half * y
    if kind == BOX:
        if abs(z) >= abs(x) and abs(z) >= abs(y):
            return half + half * x, half - half * y
        return half + half * (y if abs(x) >= abs(y) else x), half - half * z
    if kind == CYLINDER and abs(z) > f32(0.9999) and x * x + y * y < f32(0.9998):
        return half + half * x, half + half * y
    u = math.atan2(y, x) * _TURN
    u = u if u >= f32(0) else u + f32(1)
    if kind == CYLINDER or (kind == CAPSULE and abs(z) <= f32(1)):
        return u, half - half * z
    if kind == CAPSULE:
        rise = f32(4) * _TURN * math.asin(min(abs(z) - f32(1), f32(1)))
        return u, f32(1) - rise if z > f32(0) else rise
    return u, half - f32(2) * _TURN * math.asin(min(max(z, f32(-1)), f32(1)))


@njit(forceinline=True)
def _face(x, y, z):
    """Returns the face of a cube map that a direction meets, and where on it (OpenGL's order)."""
    a, b, c = abs(x), abs(y), abs(z)
    half = f32(0.5)
    if a >= b and a >= c:
        s = half / max(a, _TINY)
        return (0, half - z * s, half - y * s) if x > f32(0) else (1, half + z * s, half - y * s)
    if b >= c:
        s = half / b
        return (2, half + x * s, half + z * s) if y > f32(0) else (3, half + x * s, half - z * s)
    s = half / c
    return (4, half + x * s, half - y * s) if z > f32(0) else (5, half - x * s, half - y * s)


@njit
def _lay(count, textures, tex, at, work):
    """Multiplies the colours by a texture at `FACE`, `N0`, `N1` (u, v), of spread `N2`.

    Bilinear, on the level where a pixel covers about one texel: the halvings of its spread until
    it is no more than _COVERS are the difference of their exponents, rounded up.
    """
    levels, cube = textures.shape[tex, 2], textures.shape[tex, 3] == 1
    width, height = textures.shape[tex, 0], textures.shape[tex, 1]
    start, texels, bits = textures.start[tex], textures.texels, work.view(np.int32)
    for q in range(count):
        at[A + q] = min(max((bits[N2 + q] - _COVERS + 0x7FFFFF) >> 23, 0), levels - 1)
    for q in range(count):
        at[E + q] = start[at[A + q]]
    for q in range(count):
        level = at[A + q]
        w, h = np.int32(max(width >> level, 1)), np.int32(max(height >> level, 1))
        u, v = work[N0 + q], work[N1 + q]
        if not cube:
            u, v = u - np.floor(u), v - np.floor(v)
        u, v = u * f32(w) - f32(0.5), v * f32(h) - f32(0.5)
        j, i = np.int32(np.floor(u)), np.int32(np.floor(v))
        fu, fv = u - f32(j), v - f32(i)
        j1, i1 = np.int32(j + 1), np.int32(i + 1)
        low = j < 0, i < 0
        over = j1 >= w, i1 >= h
        j = np.int32((0 if cube else w - 1) if low[0] else j)
        i = np.int32((0 if cube else h - 1) if low[1] else i)
        j1 = np.int32((w - 1 if cube else 0) if over[0] else j1)
        i1 = np.int32((h - 1 if cube else 0) if over[1] else i1)
        base = np.int32(at[E + q] + at[FACE + q] * w * h)
        at[A + q], at[F + q] = base + i * w + j, base + i * w + j1
        at[C + q], at[E + q] = base + i1 * w + j, base + i1 * w + j1
        fv *= f32(1 / 255)
        gv = f32(1 / 255) - fv
        work[X + q], work[Y + q] = gv - fu * gv, fu * gv
        work[T + q], work[P + q] = fv - fu * fv, fu * fv
    for q in range(count):
        at[A + q], at[F + q] = texels[at[A + q]], texels[at[F + q]]
        at[C + q], at[E + q] = texels[at[C + q]], texels[at[E + q]]
    for q in range(count):
        a, b, c, d = at[A + q], at[F + q], at[C + q], at[E + q]
        pa, pb, pc, pd = work[X + q], work[Y + q], work[T + q], work[P + q]
        work[R + q] *= _mix(pa, pb, pc, pd, a, b, c, d)
        work[G + q] *= _mix(pa, pb, pc, pd, a >> 8, b >> 8, c >> 8, d >> 8)
        work[B + q] *= _mix(pa, pb, pc, pd, a >> 16, b >> 16, c >> 16, d >> 16)


@njit(forceinline=True)
def _mix(pa, pb, pc, pd, a, b, c, d):
    """Returns the mean of the lowest bytes of four texels, by their weights."""
    return (
        pa * f32(np.int32(a & 255))
        + pb * f32(np.int32(b & 255))
        + pc * f32(np.int32(c & 255))
        + pd * f32(np.int32(d & 255))
    )


def textures(model: mujoco.MjModel) -> Textures:
    """Returns the model's textures with their halvings."""
    chunks, starts, shapes, at = [], [], [], 0
    for tex in range(model.ntex):
        starts.append([])
        for level in _halvings(_faces(model, tex)):
            starts[-1].append(at)
            red, green, blue = level.reshape(-1, 3).T.astype(np.int32)
            chunks.append(red | green << 8 | blue << 16)
            at += len(red)
        faces = _faces(model, tex)
        shapes.append((faces.shape[2], faces.shape[1], len(starts[-1]), len(faces) == 6))
    deepest = max((len(row) for row in starts), default=1)
    kinds = [int(kind) for kind in model.tex_type]
    skybox = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    return Textures(
        texels=np.concatenate([*chunks, np.zeros(1, np.int32)]),
        start=np.array([row + [0] * (deepest - len(row)) for row in starts] or [[0]], np.int32),
        shape=np.array(shapes or [(1, 1, 1, 0)], np.int32),
        sky=kinds.index(skybox) if skybox in kinds else -1,
    )


def _faces(model: mujoco.MjModel, tex: int) -> np.ndarray:
    """Returns a texture's faces, (1, h, w, 3) or (6, w, w, 3) uint8, in linear colours."""
    h, w, c = model.tex_height[tex], model.tex_width[tex], model.tex_nchannel[tex]
    start = model.tex_adr[tex]
    image = model.tex_data[start : start + h * w * c].reshape(h, w, c)
    image = np.repeat(image[..., :1], 3, -1) if c < 3 else image[..., :3]
    if int(model.tex_colorspace[tex]) == int(mujoco.mjtColorSpace.mjCOLORSPACE_SRGB):
        x = image / 255.0
        x = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        image = np.round(255 * x).astype(np.uint8)
    if int(model.tex_type[tex]) == int(mujoco.mjtTexture.mjTEXTURE_2D):
        return image[None]
    return np.repeat(image[None], 6, 0) if h == w else image.reshape(6, w, w, 3)


def _halvings(faces: np.ndarray) -> list[np.ndarray]:
    """Returns the faces and their halvings down to one texel, each the mean of 2 x 2 texels."""
    levels = [np.ascontiguousarray(faces)]
    while max(levels[-1].shape[1:3]) > 1:
        x = levels[-1].astype(np.float32)
        h, w = max(x.shape[1] // 2, 1), max(x.shape[2] // 2, 1)
        x = x[:, : 2 * h].reshape(len(x), h, -1, x.shape[2], 3).mean(2)
        x = x[:, :, : 2 * w].reshape(len(x), h, w, -1, 3).mean(3)
        levels.append(np.round(x).astype(np.uint8))
    return levels


def mean_colour(model: mujoco.MjModel, tex: int) -> np.ndarray:
    """Returns a texture's mean colour, (3,) in [0, 1]: its stand-in where no mapping is known."""
    return _faces(model, tex).reshape(-1, 3).mean(0) / 255
