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

from .rays import BOX, CAPSULE, CYLINDER, PLANE, SPHERE, kernel, local_point

SPOT, DIRECTIONAL, POINT = 0, 1, 2  # as mujoco.mjtLightType

f32 = np.float32
_TURN = f32(0.5 / math.pi)
_TINY = f32(1e-12)


class Textures(NamedTuple):
    """The textures of a model with their halvings (mip levels), flat in one array."""

    texels: np.ndarray  # (bytes,) uint8
    start: np.ndarray  # (textures, levels) int64, where a level begins
    shape: np.ndarray  # (textures, 4) int64: width, height of a face, levels, 1 if a cube map
    sky: int  # the skybox, or -1


@kernel
def shade(
    kind, size, window, look, frames, depth, geom, normal,
    lamps, lit, glow, paint, texture, textures, rgb,
):  # fmt: skip
    """Writes the picture `rgb`, (m, h, w, 3) uint8, of what `rays.cast` found.

    Of a lamp, `lamps` (m, l, 14) float32 holds [0:3] its place relative to the camera, or where
    it is directional the way to it, [3:6] its aim, [6:9] its colour, [9:12] its attenuation, [12]
    the cosine of its cutoff (-2: shines to all sides) and [13] its exponent (-1: directional);
    `glow` (1|m, 6) holds ambient and headlight; `lit` is `rays.occlude`'s, or (m, h, w, 0) where
    nothing casts a shadow. Of a geom, `paint` (1|m, g, 7) float32 holds red, green, blue,
    emission, texture repeats along both axes and whether these count per two metres; `texture`
    (g,) int32 is -1 for none.
    """
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        kinds, sizes = kind[min(s, kind.shape[0] - 1)], size[min(s, size.shape[0] - 1)]
        colours, glows = paint[min(s, paint.shape[0] - 1)], glow[min(s, glow.shape[0] - 1)]
        frame, own, out, c = frames[s], lamps[s], rgb[s], look[s]
        c0, c3, c6 = f32(c[0]), f32(c[3]), f32(c[6])
        c2, c5, c8 = f32(c[2]), f32(c[5]), f32(c[8])
        for i in range(depth.shape[1]):
            y = f32(top - (i + 0.5) * dy)
            b0, b1, b2 = f32(c[1]) * y - c2, f32(c[4]) * y - c5, f32(c[7]) * y - c8
            for j in range(depth.shape[2]):
                x, g = f32(left + (j + 0.5) * dx), geom[s, i, j]
                u, v, w = c0 * x + b0, c3 * x + b1, c6 * x + b2
                if g < 0:
                    r, q, b = _sky(textures, u, v, w, f32(dy))
                else:
                    t, a = depth[s, i, j], colours[g, 3]
                    n0, n1, n2 = normal[s, i, j, 0], normal[s, i, j, 1], normal[s, i, j, 2]
                    head = max(n0 * c2 + n1 * c5 + n2 * c8, f32(0))
                    r, q, b = glows[0], glows[1], glows[2]
                    r, q, b = r + head * glows[3], q + head * glows[4], b + head * glows[5]
                    for k in range(own.shape[0]):
                        if lit.shape[3] == 0 or lit[s, i, j, k]:
                            power = _power(own, k, t * u, t * v, t * w, n0, n1, n2)
                            r, q, b = (
                                r + power * own[k, 6],
                                q + power * own[k, 7],
                                b + power * own[k, 8],
                            )
                    r = min(colours[g, 0] * (r + a), f32(1))
                    q = min(colours[g, 1] * (q + a), f32(1))
                    b = min(colours[g, 2] * (b + a), f32(1))
                    if texture[g] >= 0:
                        slope = max(abs(n0 * u + n1 * v + n2 * w), f32(1e-3))
                        grain = t * f32(dy) * (u * u + v * v + w * w) / slope
                        p0, p1, p2 = local_point(frame[g], x, y, t)
                        tr, tq, tb = _skin(
                            textures, texture[g], colours, g, kinds[g], sizes, p0, p1, p2, grain
                        )
                        r, q, b = r * tr, q * tq, b * tb
                out[i, j, 0] = np.uint8(f32(255) * r + f32(0.5))
                out[i, j, 1] = np.uint8(f32(255) * q + f32(0.5))
                out[i, j, 2] = np.uint8(f32(255) * b + f32(0.5))


@njit(forceinline=True)
def _power(lamps, k, x, y, z, n0, n1, n2):
    """Returns how much of a lamp's colour a point sends back that is at (x, y, z) of the camera."""
    u, v, w = lamps[k, 0], lamps[k, 1], lamps[k, 2]
    if lamps[k, 13] >= f32(0):
        u, v, w = u - x, v - y, w - z
    cosine = n0 * u + n1 * v + n2 * w
    if cosine <= f32(0):
        return f32(0)
    distance = math.sqrt(u * u + v * v + w * w)
    power = cosine / distance
    if lamps[k, 13] < f32(0):
        return power
    power /= lamps[k, 9] + distance * (lamps[k, 10] + distance * lamps[k, 11])
    if lamps[k, 12] > f32(-2):
        toward = -(u * lamps[k, 3] + v * lamps[k, 4] + w * lamps[k, 5]) / distance
        if toward < lamps[k, 12] or toward <= f32(0):
            return f32(0)
        power *= _raised(toward, lamps[k, 13])
    return power


@njit(forceinline=True)
def _raised(x, exponent):
    """Returns x to an exponent >= 0, by squaring where that is whole: it mostly is, and small."""
    whole = int(exponent)
    if f32(whole) != exponent:
        return math.exp(exponent * math.log(x))
    out = f32(1)
    while whole > 0:
        out = out * x if whole & 1 else out
        x, whole = x * x, whole >> 1
    return out


@njit(forceinline=True)
def _sky(textures, u, v, w, grain):
    sky = textures.sky
    if sky < 0:
        return f32(0), f32(0), f32(0)
    face, a, b = _face(u, w, -v)
    return _texel(textures, sky, face, a, b, f32(0.5) * grain * f32(textures.shape[sky, 0]))


@njit(forceinline=True)
def _skin(textures, tex, paint, g, kind, sizes, p0, p1, p2, grain):
    """Returns the texture's colour at a point p of a geom's surface; `grain` is a pixel in m."""
    a, b, c = f32(sizes[g, 0]), f32(sizes[g, 1]), f32(sizes[g, 2])
    if kind == CYLINDER or kind == CAPSULE:
        b, c = a, b
    elif kind == SPHERE:
        b, c = a, a
    x, y, z = p0 / max(a, _TINY), p1 / max(b, _TINY), p2 / max(c, _TINY)
    if kind == CAPSULE and abs(z) > f32(1):
        z = math.copysign(f32(1) + (abs(p2) - c) / a, z)
    width, height = f32(textures.shape[tex, 0]), f32(textures.shape[tex, 1])
    face, u, v = 0, f32(0), f32(0)
    if textures.shape[tex, 3] == 1:
        per_metre = width / max(a, b, c)
        if kind == PLANE:
            x, y = p0, p1
        if paint[g, 6] > f32(0):
            x, y, z = x * a, y * b, z * c
        face, u, v = _face(x, y, z)
    else:
        su = paint[g, 4] if paint[g, 4] > f32(0) else f32(1)
        sv = paint[g, 5] if paint[g, 5] > f32(0) else f32(1)
        endless = kind == PLANE and (a <= f32(0) or b <= f32(0))
        if paint[g, 6] > f32(0):
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
    return _texel(textures, tex, face, u, v, f32(0.5) * grain * per_metre)


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
def _texel(textures, tex, face, u, v, spread):
    """Returns the colour at (u, v), bilinear on the level where a pixel covers about one texel."""
    levels, level = textures.shape[tex, 2], 0
    while spread > f32(1.4142) and level < levels - 1:
        spread, level = spread * f32(0.5), level + 1
    w, h = max(textures.shape[tex, 0] >> level, 1), max(textures.shape[tex, 1] >> level, 1)
    start = textures.start[tex, level] + face * w * h * 3
    cube = textures.shape[tex, 3] == 1
    if not cube:
        u, v = u - np.floor(u), v - np.floor(v)
    u, v = u * f32(w) - f32(0.5), v * f32(h) - f32(0.5)
    j, i = int(np.floor(u)), int(np.floor(v))
    fu, fv = u - f32(j), v - f32(i)
    j1, i1 = j + 1, i + 1
    if j < 0:
        j = 0 if cube else w - 1
    if i < 0:
        i = 0 if cube else h - 1
    if j1 >= w:
        j1 = w - 1 if cube else 0
    if i1 >= h:
        i1 = h - 1 if cube else 0
    a, b = start + 3 * (i * w + j), start + 3 * (i * w + j1)
    c, d = start + 3 * (i1 * w + j), start + 3 * (i1 * w + j1)
    fv *= f32(1 / 255)
    gv = f32(1 / 255) - fv
    pa, pb, pc, pd = gv - fu * gv, fu * gv, fv - fu * fv, fu * fv
    q = textures.texels
    return (
        pa * f32(q[a]) + pb * f32(q[b]) + pc * f32(q[c]) + pd * f32(q[d]),
        pa * f32(q[a + 1]) + pb * f32(q[b + 1]) + pc * f32(q[c + 1]) + pd * f32(q[d + 1]),
        pa * f32(q[a + 2]) + pb * f32(q[b + 2]) + pc * f32(q[c + 2]) + pd * f32(q[d + 2]),
    )


def textures(model: mujoco.MjModel) -> Textures:
    """Returns the model's textures with their halvings."""
    chunks, starts, shapes, at = [], [], [], 0
    for tex in range(model.ntex):
        starts.append([])
        for level in _halvings(_faces(model, tex)):
            starts[-1].append(at)
            chunks.append(level.ravel())
            at += level.size
        faces = _faces(model, tex)
        shapes.append((faces.shape[2], faces.shape[1], len(starts[-1]), len(faces) == 6))
    deepest = max((len(row) for row in starts), default=1)
    kinds = [int(kind) for kind in model.tex_type]
    skybox = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    return Textures(
        texels=np.concatenate([*chunks, np.zeros(1, np.uint8)]),
        start=np.array([row + [0] * (deepest - len(row)) for row in starts] or [[0]], np.int64),
        shape=np.array(shapes or [(1, 1, 1, 0)], np.int64),
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
