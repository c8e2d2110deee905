"""Rays: numba kernels that meet pixels with primitive geoms; know no simulation and no colour.

Every kernel handles m rows, one picture each, and releases the GIL; rows never mix, so a picture
has the same bits whatever m, its place and the number of threads. Model arrays have a leading
axis of m (one entry per row) or of 1 (shared by all rows). Shapes use g geoms and an (h, w) image.

Pixel (i, j) looks along (x, y, -1) in the camera's frame, so that a ray's parameter is the depth
along the optical axis; x = left + (j + 0.5) dx and y = top - (i + 0.5) dy, and `window` holds
(left, top, dx, dy). Intersections are those of MuJoCo's mj_ray: a plane is met from its front
only, a solid from outside at its entry and from inside at its exit.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numba import njit

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX = 0, 2, 3, 4, 5, 6  # as mujoco.mjtGeom
PRIMITIVES = (PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX)
FRAME = 25  # floats a geom takes in `frames`: see `place`

f32 = np.float32
_MISS = f32(np.inf)
_TINY = f32(1e-20)  # keeps a ray along an axis finite without touching any other


def kernel(function):
    """Compiles a function that releases the GIL, kept on disk for later processes.

    Warns where no folder can be written: then every process compiles anew, for some twenty seconds.
    """
    compiled = njit(nogil=True, error_model="numpy")(function)
    try:
        compiled.enable_caching()
    except RuntimeError as error:
        warnings.warn(f"{error}; set NUMBA_CACHE_DIR to a folder to write", stacklevel=2)
    return compiled


@kernel
def place(kind, size, xpos, xmat, eye, look, frames):
    """Writes each geom as a camera sees it into `frames`, (m, g, FRAME) float32.

    Of a geom: [0:3] the camera's place in the geom's frame, [3:12] the rotation camera -> geom,
    [12:21] the rotation geom -> world, [21:24] the geom's centre in the camera's frame, [24] the
    radius of its bounding sphere (0: unbounded). Takes `kind` (1|m, g) int32, `size` (1|m, g, 3),
    `xpos` (m, g, 3), `xmat` (m, g, 9), `eye` (m, 3), `look` (m, 9), all float64 in m.
    """
    for s in range(frames.shape[0]):
        for g in range(frames.shape[1]):
            out, r, c = frames[s, g], xmat[s, g], look[s]
            x, y, z = (
                xpos[s, g, 0] - eye[s, 0],
                xpos[s, g, 1] - eye[s, 1],
                xpos[s, g, 2] - eye[s, 2],
            )
            for k in range(3):
                out[k] = -(r[k] * x + r[3 + k] * y + r[6 + k] * z)
                out[21 + k] = c[k] * x + c[3 + k] * y + c[6 + k] * z
                for q in range(3):
                    out[3 + 3 * k + q] = r[k] * c[q] + r[3 + k] * c[3 + q] + r[6 + k] * c[6 + q]
            for k in range(9):
                out[12 + k] = r[k]
            row = size[min(s, size.shape[0] - 1), g]
            out[24] = _bound(kind[min(s, kind.shape[0] - 1), g], row[0], row[1], row[2])


@kernel
def cast(kind, size, skip, window, frames, depth, geom):
    """Writes the nearest hit of every pixel: `depth` (m, h, w) float32 and `geom` (m, h, w) int32.

    Draws over what is there: what is as near as that and of a lower number wins, so that geoms
    leave the same picture in any order. `skip`, (1|m, g) bool, names the geoms that are not
    there; `window` is (1|m, 4).
    """
    height, width = depth.shape[1], depth.shape[2]
    xs = np.empty(width, np.float32)
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        for j in range(width):
            xs[j] = left + (j + 0.5) * dx
        for g in range(frames.shape[1]):
            k = kind[min(s, kind.shape[0] - 1), g]
            if skip[min(s, skip.shape[0] - 1), g]:
                continue
            size_g, frame = size[min(s, size.shape[0] - 1), g], frames[s, g]
            box = rectangle(frame, left, top, dx, dy, height, width)
            if k == PLANE:
                _sweep(_plane, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])
            elif k == SPHERE:
                _sweep(_sphere, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])
            elif k == CAPSULE:
                _sweep(_capsule, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])
            elif k == ELLIPSOID:
                _sweep(_ellipsoid, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])
            elif k == CYLINDER:
                _sweep(_cylinder, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])
            elif k == BOX:
                _sweep(_box, g, size_g, frame, box, top, dy, xs, depth[s], geom[s])


@kernel
def normals(kind, size, skip, known, window, frames, depth, geom, normal):
    """Writes the outward unit normal of every hit, world frame, (m, h, w, 3) float32; 0 for sky.

    Where `known`, (m,) bool, those of the sky and of the geoms of `skip` are there already.
    """
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        kinds, sizes = kind[min(s, kind.shape[0] - 1)], size[min(s, size.shape[0] - 1)]
        own, out = frames[s], normal[s]
        for i in range(depth.shape[1]):
            y = f32(top - (i + 0.5) * dy)
            for j in range(depth.shape[2]):
                g, a, b, c = geom[s, i, j], f32(0), f32(0), f32(0)
                if known[s] and (g < 0 or skip[s, g]):
                    continue
                if g < 0:
                    out[i, j, 0], out[i, j, 1], out[i, j, 2] = a, b, c
                    continue
                a, b, c = local_point(own[g], f32(left + (j + 0.5) * dx), y, depth[s, i, j])
                s0, s1, s2 = f32(sizes[g, 0]), f32(sizes[g, 1]), f32(sizes[g, 2])
                a, b, c = facing(kinds[g], s0, s1, s2, a, b, c)
                for k in range(3):
                    out[i, j, k] = (
                        own[g, 12 + 3 * k] * a + own[g, 13 + 3 * k] * b + own[g, 14 + 3 * k] * c
                    )


@kernel
def occlude(kind, size, skip, window, frames, depth, geom, look, lamps, casts, lit):
    """Writes whether each hit sees each lamp, `lit` (m, h, w, l) bool.

    `lamps` (m, l, 14) is as in `shading.shade`; `casts`, (l,) bool, tells which cast shadows.
    """
    for s in range(depth.shape[0]):
        left, top, dx, dy = window[min(s, window.shape[0] - 1)]
        kinds, sizes = kind[min(s, kind.shape[0] - 1)], size[min(s, size.shape[0] - 1)]
        absent, frame, c = skip[min(s, skip.shape[0] - 1)], frames[s], look[s]
        for k in range(casts.shape[0]):
            if not casts[k]:
                lit[s, :, :, k] = True
                continue
            a, b, d = lamps[s, k, 0], lamps[s, k, 1], lamps[s, k, 2]
            u = f32(c[0] * a + c[3] * b + c[6] * d)
            v = f32(c[1] * a + c[4] * b + c[7] * d)
            w = f32(c[2] * a + c[5] * b + c[8] * d)
            far_off = lamps[s, k, 13] < f32(0)
            limit, near = (_MISS, f32(0)) if far_off else (f32(1), f32(1))
            for i in range(depth.shape[1]):
                y = f32(top - (i + 0.5) * dy)
                for j in range(depth.shape[2]):
                    t, g = depth[s, i, j], geom[s, i, j]
                    x = f32(left + (j + 0.5) * dx)
                    hx, hy, hz = t * x, t * y, -t
                    lu, lv, lw = u - near * hx, v - near * hy, w - near * hz
                    lit[s, i, j, k] = g < 0 or not _blocked(
                        kinds, sizes, absent, frame, g, hx, hy, hz, lu, lv, lw, limit
                    )


@njit(inline="always")
def local_point(frame, x, y, t):
    """Returns the point at depth t of the pixel direction (x, y, -1), in the geom's frame."""
    return (
        frame[0] + t * (frame[3] * x + frame[4] * y - frame[5]),
        frame[1] + t * (frame[6] * x + frame[7] * y - frame[8]),
        frame[2] + t * (frame[9] * x + frame[10] * y - frame[11]),
    )


@njit
def _bound(kind, a, b, c):
    if kind == PLANE:
        return 0.0
    if kind == SPHERE:
        return a
    if kind == CAPSULE:
        return a + b
    if kind == CYLINDER:
        return math.sqrt(a * a + b * b)
    return max(a, b, c) if kind == ELLIPSOID else math.sqrt(a * a + b * b + c * c)


@njit
def rectangle(frame, left, top, dx, dy, height, width):
    """Returns the rows and columns (i0, i1, j0, j1) that the bounding sphere can cover."""
    u, v, w, r = float(frame[21]), float(frame[22]), -float(frame[23]), float(frame[24])
    if r > 0 and w < -r:
        return 0, 0, 0, 0
    if r == 0 or w < 1.001 * r:
        return 0, height, 0, width
    square = w * w - r * r
    across = r * math.sqrt(max(u * u + square, 0.0))
    along = r * math.sqrt(max(v * v + square, 0.0))
    j0 = ((u * w - across) / square - left) / dx - 1.0
    j1 = ((u * w + across) / square - left) / dx + 1.0
    i0 = (top - (v * w + along) / square) / dy - 1.0
    i1 = (top - (v * w - along) / square) / dy + 1.0
    j0, j1 = min(max(j0, 0.0), float(width)), min(max(j1, 0.0), float(width))
    i0, i1 = min(max(i0, 0.0), float(height)), min(max(i1, 0.0), float(height))
    return int(i0), math.ceil(i1), int(j0), math.ceil(j1)


@njit(inline="always")
def _sweep(meet, g, size, frame, box, top, dy, xs, depth, geom):
    """Draws one geom into a picture; straight-line code, so that the compiler can vectorise it."""
    i0, i1, j0, j1 = box
    s0, s1, s2 = f32(size[0]), f32(size[1]), f32(size[2])
    p0, p1, p2 = frame[0], frame[1], frame[2]
    a0, a1, a2 = frame[3], frame[6], frame[9]
    name, cols = np.int32(g), xs[j0:j1]
    for i in range(i0, i1):
        y = f32(top - (i + 0.5) * dy)
        b0 = frame[4] * y - frame[5]
        b1 = frame[7] * y - frame[8]
        b2 = frame[10] * y - frame[11]
        near, who = depth[i, j0:j1], geom[i, j0:j1]
        for j in range(cols.shape[0]):
            x = cols[j]
            t = meet(s0, s1, s2, p0, p1, p2, a0 * x + b0, a1 * x + b1, a2 * x + b2)
            old, other = near[j], who[j]
            wins = (t < old) | ((t == old) & (name < other))
            near[j] = t if wins else old
            who[j] = name if wins else other


@njit(forceinline=True)
def _plane(s0, s1, s2, px, py, pz, vx, vy, vz):
    t = -pz / vz
    a, b = abs(px + t * vx), abs(py + t * vy)
    inside = ((s0 <= f32(0)) | (a <= s0)) & ((s1 <= f32(0)) | (b <= s1))
    return t if inside & (vz < -_TINY) & (t >= f32(0)) else _MISS


@njit(forceinline=True)
def _first(enter, leave, hit):
    t = enter if enter >= f32(0) else leave
    return t if hit & (enter <= leave) & (t >= f32(0)) else _MISS


@njit(forceinline=True)
def _ball(r, px, py, pz, vx, vy, vz):
    """Returns entry, exit and whether the ball is met; from the closest point, which is stable."""
    a = f32(1) / (vx * vx + vy * vy + vz * vz)
    t = -(px * vx + py * vy + pz * vz) * a
    qx, qy, qz = px + t * vx, py + t * vy, pz + t * vz
    h = (r * r - (qx * qx + qy * qy + qz * qz)) * a
    half = math.sqrt(max(h, f32(0)))
    return t - half, t + half, h >= f32(0)


@njit(forceinline=True)
def _tube(r, px, py, vx, vy):
    """Returns entry, exit and whether the infinite cylinder about z is met."""
    a = f32(1) / max(vx * vx + vy * vy, _TINY)
    t = -(px * vx + py * vy) * a
    qx, qy = px + t * vx, py + t * vy
    h = (r * r - (qx * qx + qy * qy)) * a
    half = math.sqrt(max(h, f32(0)))
    return t - half, t + half, h >= f32(0)


@njit(forceinline=True)
def _sphere(s0, s1, s2, px, py, pz, vx, vy, vz):
    enter, leave, hit = _ball(s0, px, py, pz, vx, vy, vz)
    return _first(enter, leave, hit)


@njit(forceinline=True)
def _ellipsoid(s0, s1, s2, px, py, pz, vx, vy, vz):
    a, b, c = f32(1) / s0, f32(1) / s1, f32(1) / s2
    enter, leave, hit = _ball(f32(1), px * a, py * b, pz * c, vx * a, vy * b, vz * c)
    return _first(enter, leave, hit)


@njit(forceinline=True)
def _capsule(s0, s1, s2, px, py, pz, vx, vy, vz):
    # Where the ray enters the tube, the ball inside the tube at that height is entered too; its
    # height clamped to the segment, it is the ball whose entry is the capsule's: no branches.
    enter, leave, hit = _tube(s0, px, py, vx, vy)
    za = min(max(pz + enter * vz, -s1), s1)
    zb = min(max(pz + leave * vz, -s1), s1)
    enter, _, entered = _ball(s0, px, py, pz - za, vx, vy, vz)
    _, leave, _ = _ball(s0, px, py, pz - zb, vx, vy, vz)
    return _first(enter, leave, hit & entered)


@njit(forceinline=True)
def _cylinder(s0, s1, s2, px, py, pz, vx, vy, vz):
    enter, leave, hit = _tube(s0, px, py, vx, vy)
    inverse = f32(1) / vz
    a, b = (-s1 - pz) * inverse, (s1 - pz) * inverse
    return _first(max(enter, min(a, b)), min(leave, max(a, b)), hit)


@njit(forceinline=True)
def _box(s0, s1, s2, px, py, pz, vx, vy, vz):
    ix, iy, iz = f32(1) / vx, f32(1) / vy, f32(1) / vz
    a, b = (-s0 - px) * ix, (s0 - px) * ix
    c, d = (-s1 - py) * iy, (s1 - py) * iy
    e, f = (-s2 - pz) * iz, (s2 - pz) * iz
    enter = max(max(min(a, b), min(c, d)), min(e, f))
    leave = min(min(max(a, b), max(c, d)), max(e, f))
    return _first(enter, leave, True)


@njit
def _meet(kind, s0, s1, s2, px, py, pz, vx, vy, vz):
    if kind == PLANE:
        return _plane(s0, s1, s2, px, py, pz, vx, vy, vz)
    if kind == SPHERE:
        return _sphere(s0, s1, s2, px, py, pz, vx, vy, vz)
    if kind == CAPSULE:
        return _capsule(s0, s1, s2, px, py, pz, vx, vy, vz)
    if kind == ELLIPSOID:
        return _ellipsoid(s0, s1, s2, px, py, pz, vx, vy, vz)
    if kind == CYLINDER:
        return _cylinder(s0, s1, s2, px, py, pz, vx, vy, vz)
    return _box(s0, s1, s2, px, py, pz, vx, vy, vz)


@njit
def _blocked(kinds, sizes, absent, frames, own, hx, hy, hz, u, v, w, limit):
    """Tells whether another geom lies between a point and a lamp at (u, v, w), camera frame.

    A convex geom cannot shade its own lit side, so `own` is left out: no false self-shadow.
    """
    square = u * u + v * v + w * w
    for g in range(frames.shape[0]):
        if g == own or absent[g]:
            continue
        m = frames[g]
        r = m[24]
        dx, dy, dz = m[21] - hx, m[22] - hy, m[23] - hz
        if r > f32(0):
            forward, rr = dx * u + dy * v + dz * w, r * r
            d2 = dx * dx + dy * dy + dz * dz
            if (forward < f32(0) and d2 > rr) or (d2 - rr) * square > forward * forward:
                continue
        px = -(m[3] * dx + m[4] * dy + m[5] * dz)
        py = -(m[6] * dx + m[7] * dy + m[8] * dz)
        pz = -(m[9] * dx + m[10] * dy + m[11] * dz)
        vx = m[3] * u + m[4] * v + m[5] * w
        vy = m[6] * u + m[7] * v + m[8] * w
        vz = m[9] * u + m[10] * v + m[11] * w
        s0, s1, s2 = f32(sizes[g, 0]), f32(sizes[g, 1]), f32(sizes[g, 2])
        if _meet(kinds[g], s0, s1, s2, px, py, pz, vx, vy, vz) < limit:
            return True
    return False


@njit(forceinline=True)
def facing(kind, a, b, c, x, y, z):
    """Returns the unit normal at a surface point, both in the frame of a geom of size a, b, c."""
    if kind == PLANE:
        return f32(0), f32(0), f32(1)
    if kind == BOX:
        dx, dy, dz = a - abs(x), b - abs(y), c - abs(z)
        if dx <= dy and dx <= dz:
            return math.copysign(f32(1), x), f32(0), f32(0)
        if dy <= dz:
            return f32(0), math.copysign(f32(1), y), f32(0)
        return f32(0), f32(0), math.copysign(f32(1), z)
    if kind == CYLINDER:
        if b - abs(z) < a - math.sqrt(x * x + y * y):
            return f32(0), f32(0), math.copysign(f32(1), z)
        z = f32(0)
    elif kind == CAPSULE:
        z -= min(max(z, -b), b)
    elif kind == ELLIPSOID:
        x, y, z = x / (a * a), y / (b * b), z / (c * c)
    length = f32(1) / math.sqrt(max(x * x + y * y + z * z, _TINY))
    return x * length, y * length, z * length
