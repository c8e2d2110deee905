"""Shading: the numba kernel that colours hits, and a model's lamps and textures as arrays.

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

from .rays import BOX, CAPSULE, CYLINDER, PLANE, local_point

SPOT, DIRECTIONAL, POINT = 0, 1, 2  # as mujoco.mjtLightType

f32 = np.float32
_TURN = f32(0.5 / math.pi)
_TINY = f32(1e-12)


class Lamps(NamedTuple):
    """The l lamps of a model beside the headlight; colours in [0, 1], float32."""

    kind: np.ndarray  # (l,) int32
    colour: np.ndarray  # (1|m, l, 3); 0 for a lamp that is out
    cone: np.ndarray  # (l, 2): cosine of the cutoff, exponent
    decay: np.ndarray  # (l, 3): constant, linear (1/m), quadratic (1/m^2)
    ambient: np.ndarray  # (1|m, 3) of everything
    headlight: np.ndarray  # (3,) diffuse


class Textures(NamedTuple):
    """The textures of a model with their halvings (mip levels), flat in one array."""

    texels: np.ndarray  # (bytes,) uint8
    start: np.ndarray  # (textures, levels) int64, where a level begins
    shape: np.ndarray  # (textures, 3) int64: width, height of a face, number of levels
    cube: np.ndarray  # (textures,) bool: six faces a level
    sky: int  # the skybox, or -1


class Paint(NamedTuple):
    """What the g geoms of a model look like."""

    rgba: np.ndarray  # (1|m, g, 4) float32
    emission: np.ndarray  # (g,) float32
    texture: np.ndarray  # (g,) int32, -1 for none
    repeat: np.ndarray  # (g, 2) float32
    uniform: np.ndarray  # (g,) bool: repeats count per two metres, not per face


@njit(cache=True, nogil=True, error_model="numpy")
def shade(
    kind,
    size,
    window,
    look,
    frames,
    depth,
    geom,
    normal,
    lamp,
    aim,
    lit,
    lamps,
    paint,
    textures,
    rgb,
):
    """Writes the picture `rgb`, (m, h, w, 3) uint8, of what `rays.cast` found.

    `lamp` (m, l, 3) is as in `rays.occlude`, `aim` (m, l, 3) the direction a lamp points to;
    `lit` is `rays.occlude`'s, or (m, h, w, 0) where nothing casts a shadow.
    """
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        kinds, sizes = kind[min(s, kind.shape[0] - 1)], size[min(s, size.shape[0] - 1)]
        rgba, c = paint.rgba[min(s, paint.rgba.shape[0] - 1)], look[s]
        front = (f32(c[2]), f32(c[5]), f32(c[8]))
        for i in range(depth.shape[1]):
            y = f32(top - (i + 0.5) * dy)
            for j in range(depth.shape[2]):
                x, g, out = f32(left + (j + 0.5) * dx), geom[s, i, j], rgb[s, i, j]
                u = f32(c[0]) * x + f32(c[1]) * y - front[0]
                v = f32(c[3]) * x + f32(c[4]) * y - front[1]
                w = f32(c[6]) * x + f32(c[7]) * y - front[2]
                if g < 0:
                    _write(out, _sky(textures, u, v, w, f32(dy)))
                    continue
                t, n = depth[s, i, j], normal[s, i, j]
                light = _light(
                    s, t * u, t * v, t * w, n, front, lamp[s], aim[s], lit[s, i, j], lamps
                )
                e, skin = paint.emission[g], (f32(1), f32(1), f32(1))
                if paint.texture[g] >= 0:
                    slope = abs(n[0] * u + n[1] * v + n[2] * w)
                    grain = t * f32(dy) * (u * u + v * v + w * w) / max(slope, f32(1e-3))
                    p = local_point(frames[s, g], x, y, t)
                    skin = _skin(textures, paint, g, kinds[g], sizes[g], p, grain)
                r = min(rgba[g, 0] * (light[0] + e), f32(1)) * skin[0]
                q = min(rgba[g, 1] * (light[1] + e), f32(1)) * skin[1]
                b = min(rgba[g, 2] * (light[2] + e), f32(1)) * skin[2]
                _write(out, (r, q, b))


@njit(inline="always")
def _write(out, colour):
    for k in range(3):
        out[k] = np.uint8(f32(255) * colour[k] + f32(0.5))


@njit
def _light(s, x, y, z, n, front, lamp, aim, lit, lamps):
    """Returns the light on a point (x, y, z), relative to the camera, with normal n."""
    row = min(s, lamps.ambient.shape[0] - 1)
    head = max(n[0] * front[0] + n[1] * front[1] + n[2] * front[2], f32(0))
    r = lamps.ambient[row, 0] + head * lamps.headlight[0]
    g = lamps.ambient[row, 1] + head * lamps.headlight[1]
    b = lamps.ambient[row, 2] + head * lamps.headlight[2]
    for k in range(lamps.kind.shape[0]):
        if lit.shape[0] > 0 and not lit[k]:
            continue
        u, v, w = f32(lamp[k, 0]), f32(lamp[k, 1]), f32(lamp[k, 2])
        if lamps.kind[k] != DIRECTIONAL:
            u, v, w = u - x, v - y, w - z
        cosine = n[0] * u + n[1] * v + n[2] * w
        if cosine <= f32(0):
            continue
        distance = math.sqrt(u * u + v * v + w * w)
        power = cosine / distance
        if lamps.kind[k] != DIRECTIONAL:
            decay = lamps.decay[k]
            power /= decay[0] + distance * (decay[1] + distance * decay[2])
        if lamps.kind[k] == SPOT:
            toward = -(u * f32(aim[k, 0]) + v * f32(aim[k, 1]) + w * f32(aim[k, 2])) / distance
            if toward < lamps.cone[k, 0]:
                continue
            power *= f32(max(toward, f32(0)) ** lamps.cone[k, 1])
        colour = lamps.colour[min(s, lamps.colour.shape[0] - 1), k]
        r, g, b = r + power * colour[0], g + power * colour[1], b + power * colour[2]
    return r, g, b


@njit
def _sky(textures, u, v, w, grain):
    if textures.sky < 0:
        return f32(0), f32(0), f32(0)
    face, a, b = _face(u, w, -v)
    return _texel(
        textures, textures.sky, face, a, b, f32(0.5) * grain * f32(textures.shape[textures.sky, 0])
    )


@njit
def _skin(textures, paint, g, kind, size, p, grain):
    """Returns the texture's colour at the point p of a geom's surface; `grain` is a pixel in m."""
    tex = paint.texture[g]
    a, b = f32(size[0]), f32(size[1])
    c = f32(size[2])
    if kind == CYLINDER or kind == CAPSULE:
        b, c = a, b
    elif kind != PLANE and kind != BOX and c == f32(0):
        b, c = a, a
    x, y, z = p[0] / max(a, _TINY), p[1] / max(b, _TINY), p[2] / max(c, _TINY)
    if kind == CAPSULE and abs(z) > f32(1):
        z = math.copysign(f32(1) + (abs(p[2]) - c) / a, z)
    width, height = f32(textures.shape[tex, 0]), f32(textures.shape[tex, 1])
    if textures.cube[tex]:
        if paint.uniform[g]:
            x, y, z = x * a, y * b, z * c
        face, u, v = _face(x, y, z)
        return _texel(textures, tex, face, u, v, f32(0.5) * width * grain / max(a, b, c))
    su, sv = max(paint.repeat[g, 0], f32(0)), max(paint.repeat[g, 1], f32(0))
    su, sv = (su if su > f32(0) else f32(1)), (sv if sv > f32(0) else f32(1))
    if kind == PLANE and (a <= f32(0) or b <= f32(0)):
        u = f32(0.5) * (p[0] if a <= f32(0) else x + f32(1)) * su - f32(0.5)
        v = f32(-0.5) * (p[1] if b <= f32(0) else y - f32(1)) * sv - f32(0.5)
        return _texel(textures, tex, 0, u, v, f32(0.5) * grain * max(su * width, sv * height))
    if paint.uniform[g]:
        su, sv = su * a, sv * b
    u, v = _unwrap(kind, x, y, z)
    return _texel(
        textures, tex, 0, u * su, v * sv, f32(0.5) * grain * max(su * width / a, sv * height / b)
    )


@njit
def _unwrap(kind, x, y, z):
    """Returns the texture coordinates that MuJoCo gives a point of a unit-sized primitive."""
    half = f32(0.5)
    if kind == PLANE:
        return half + half * x, half - half * y
    if kind == BOX:
        if abs(z) >= abs(x) and abs(z) >= abs(y):
            return half + half * x, half - half * y
        if abs(x) >= abs(y):
            return half + math.copysign(half, x) * y, half - half * z
        return half - math.copysign(half, y) * x, half - half * z
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


@njit
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
    if textures.cube[tex]:
        u, v = u * w - f32(0.5), v * h - f32(0.5)
    else:
        u, v = (u - math.floor(u)) * w - f32(0.5), (v - math.floor(v)) * h - f32(0.5)
    j, i = math.floor(u), math.floor(v)
    fu, fv = f32(u - j), f32(v - i)
    if textures.cube[tex]:
        j0, j1 = min(max(j, 0), w - 1), min(max(j + 1, 0), w - 1)
        i0, i1 = min(max(i, 0), h - 1), min(max(i + 1, 0), h - 1)
    else:
        j0, j1, i0, i1 = j % w, (j + 1) % w, i % h, (i + 1) % h
    a, b = start + 3 * (i0 * w + j0), start + 3 * (i0 * w + j1)
    c, d = start + 3 * (i1 * w + j0), start + 3 * (i1 * w + j1)
    pa, pb = (f32(1) - fu) * (f32(1) - fv), fu * (f32(1) - fv)
    pc, pd = (f32(1) - fu) * fv, fu * fv
    q = textures.texels
    return (
        (pa * q[a] + pb * q[b] + pc * q[c] + pd * q[d]) * f32(1 / 255),
        (pa * q[a + 1] + pb * q[b + 1] + pc * q[c + 1] + pd * q[d + 1]) * f32(1 / 255),
        (pa * q[a + 2] + pb * q[b + 2] + pc * q[c + 2] + pd * q[d + 2]) * f32(1 / 255),
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
        shapes.append((faces.shape[2], faces.shape[1], len(starts[-1])))
    deepest = max((len(row) for row in starts), default=1)
    kinds = [int(kind) for kind in model.tex_type]
    skybox = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    return Textures(
        texels=np.concatenate([*chunks, np.zeros(1, np.uint8)]),
        start=np.array([row + [0] * (deepest - len(row)) for row in starts] or [[0]], np.int64),
        shape=np.array(shapes or [(1, 1, 1)], np.int64),
        cube=np.array([kind != int(mujoco.mjtTexture.mjTEXTURE_2D) for kind in kinds] or [False]),
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
