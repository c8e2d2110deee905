"""Ray kernels: MuJoCo's mj_ray and closed forms are the truth."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import rays

SIZES = {
    "sphere": "0.3",
    "capsule": "0.15 0.3",
    "ellipsoid": "0.35 0.2 0.12",
    "cylinder": "0.25 0.2",
    "box": "0.3 0.2 0.1",
}
FAR = 60.0


def scene(rng, kinds=tuple(SIZES), copies=2):
    """Returns a model of primitives at random poses over finite and endless planes."""
    geoms = ""
    for kind in kinds:
        size = SIZES[kind]
        for _ in range(copies):
            pos, turn = rng.uniform(-1, 1, 3), rng.uniform(-180, 180, 3)
            text = " ".join(map(str, [*pos]))
            geoms += (
                f'<geom type="{kind}" size="{size}" pos="{text}" euler="{turn[0]} {turn[1]} 0"/>'
            )
    return mujoco.MjModel.from_xml_string(f"""<mujoco><worldbody>{geoms}
        <geom type="plane" size="0 0 1" pos="0 0 -1.4"/>
        <geom type="plane" size="0.5 0.3 1" pos="0 0 -1.2" euler="20 10 0"/>
        <geom type="plane" size="0 0.4 1" pos="0 2 0" euler="90 0 0"/>
        </worldbody></mujoco>""")


def looking(rng, at=(0, 0, 0), away=3.0):
    """Returns a camera's place and rotation (columns are its axes), gazing at a point."""
    back = rng.normal(size=3)
    back /= np.linalg.norm(back)
    side = np.cross([0.1, 0.2, 1.0], back)
    side /= np.linalg.norm(side)
    return np.asarray(at) + away * back, np.stack([side, np.cross(back, side), back], 1)


def picture(model, eye, look, size=(48, 64), fovy=60.0, unbounded=False, order=None):
    """Returns depth, geom ids and normals of one camera, by the kernels, and the pixels' rays.

    order: lists of the geoms that are drawn one after the other, default all at once.
    """
    order = [np.arange(model.ngeom)] if order is None else order
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    kind, sizes = model.geom_type.astype(np.int32)[None], model.geom_size[None].copy()
    frames = np.empty((1, model.ngeom, rays.FRAME), np.float32)
    poses = data.geom_xpos[None], data.geom_xmat[None]
    rays.place(kind, sizes, *poses, eye[None], look.reshape(1, 9), frames)
    if unbounded:
        frames[..., 24] = 0
    top = np.tan(np.deg2rad(fovy) / 2)
    pixel = 2 * top / size[0]
    window = np.array([[-size[1] / 2 * pixel, top, pixel, pixel]])
    depth, geom = np.full((1, *size), FAR, np.float32), np.full((1, *size), -1, np.int32)
    normal = np.empty((1, *size, 3), np.float32)
    absent, known = np.zeros((1, model.ngeom), bool), np.zeros(1, bool)
    for part in order:
        skip = ~np.isin(np.arange(model.ngeom), part)[None]
        rays.cast(kind, sizes, skip, window, frames, depth, geom)
    rays.normals(kind, sizes, absent, known, window, frames, depth, geom, normal)
    x = window[0, 0] + (np.arange(size[1]) + 0.5) * pixel
    y = top - (np.arange(size[0]) + 0.5) * pixel
    ways = np.stack([*np.meshgrid(x, y), np.full(size, -1.0)], -1) @ look.T
    return depth[0], geom[0], normal[0], ways


def truth(model, eye, ways):
    """Returns the same by mj_ray."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    depth, geom = np.full(ways.shape[:2], FAR), np.full(ways.shape[:2], -1)
    normal, hit, out = np.zeros(ways.shape), np.zeros(1, np.int32), np.zeros((3, 1))
    for pixel in np.ndindex(ways.shape[:2]):
        t = mujoco.mj_ray(model, data, eye, ways[pixel], None, 1, -1, hit, out)
        if hit[0] >= 0 and t < FAR:
            depth[pixel], geom[pixel], normal[pixel] = t, hit[0], out[:, 0]
    return depth, geom, normal


def agreement(ours, theirs):
    """Returns the share of equal ids; where equal, the worst depth and share of equal normals."""
    same = ours[1] == theirs[1]
    error = np.abs(ours[0] - theirs[0])[same] / np.maximum(1, theirs[0][same])
    close = np.abs(ours[2] - theirs[2]).max(-1)[same] < 2e-3
    return same.mean(), error.max(), close.mean()


@pytest.mark.parametrize("seed", range(6))
def test_pixels_meet_what_mj_ray_meets(seed):
    rng = np.random.default_rng(seed)
    model = scene(rng)
    eye, look = looking(rng, away=rng.uniform(1.5, 8))
    *ours, ways = picture(model, eye, look)
    ids, depth, normal = agreement(ours, truth(model, eye, ways))
    assert len(np.unique(ours[1])) > 5
    assert ids >= 0.999
    assert depth < 1e-4
    assert normal >= 0.998  # an edge's pixel may take either face


@pytest.mark.parametrize("kind", SIZES)
def test_a_camera_inside_a_solid_sees_its_inner_side(kind):
    rng = np.random.default_rng(7)
    model = scene(rng, (kind,), copies=1)
    eye, look = looking(rng, model.geom_pos[0] + 0.02, away=0.05)
    *ours, ways = picture(model, eye, look, fovy=120)
    theirs = truth(model, eye, ways)
    assert (theirs[1] == 0).mean() > 0.9
    ids, depth, normal = agreement(ours, theirs)
    assert ids >= 0.999
    assert depth < 1e-4
    assert normal >= 0.99


def test_small_and_distant_geoms_keep_their_depth():
    xml = "<mujoco><worldbody>{}</worldbody></mujoco>"
    geoms = "".join(
        f'<geom type="{kind}" size="0.02 0.02 0.02" pos="{0.1 * i} 0 0" euler="10 20 30"/>'
        for i, kind in enumerate(SIZES)
    )
    model = mujoco.MjModel.from_xml_string(xml.format(geoms))
    eye, look = np.array([0.2, 0, 30.0]), np.eye(3)
    *ours, ways = picture(model, eye, look, size=(128, 128), fovy=1.2)
    ids, depth, _ = agreement(ours, truth(model, eye, ways))
    assert len(np.unique(ours[1])) == 6
    assert ids >= 0.999
    assert depth < 1e-5  # of the distance


def test_the_comparison_notices_a_geom_out_of_place():
    rng = np.random.default_rng(0)
    model = scene(rng)
    eye, look = looking(rng)
    *ours, ways = picture(model, eye, look)
    model.geom_pos[ours[1][24, 32]] += 0.05
    ids, depth, _ = agreement(ours, truth(model, eye, ways))
    assert ids < 0.999 or depth > 1e-3


def test_bounding_rectangles_change_no_bit():
    rng = np.random.default_rng(3)
    model = scene(rng)
    for away in (0.3, 1.0, 4.0):
        eye, look = looking(rng, away=away)
        bounded = picture(model, eye, look)
        free = picture(model, eye, look, unbounded=True)
        for a, b in zip(bounded[:3], free[:3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_geoms_leave_the_same_picture_in_any_order():
    rng = np.random.default_rng(5)
    model = scene(rng)
    geoms = [*range(model.ngeom)]
    model.geom_pos[1], model.geom_quat[1] = model.geom_pos[0], model.geom_quat[0]
    eye, look = looking(rng)
    once = picture(model, eye, look)
    assert not (once[1] == 1).any()  # of two that fill the same space the first is seen
    assert (once[1] == 0).any()
    for order in ([[g] for g in reversed(geoms)], [geoms[3:], geoms[:3]]):
        again = picture(model, eye, look, order=order)
        for a, b in zip(once[:3], again[:3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_planes_are_seen_from_their_front_within_their_size():
    xml = '<mujoco><worldbody><geom type="plane" size="{}"/></worldbody></mujoco>'
    endless = mujoco.MjModel.from_xml_string(xml.format("0 0 1"))
    finite = mujoco.MjModel.from_xml_string(xml.format("1 0.5 1"))
    down, up = np.eye(3), np.diag([1.0, -1, -1])
    above, below = np.array([0, 0, 2.0]), np.array([0, 0, -2.0])
    depth, geom, normal, _ = picture(endless, above, down, fovy=90)
    assert (geom == 0).all()
    np.testing.assert_allclose(depth, 2, rtol=1e-6)
    np.testing.assert_array_equal(normal[..., 2], 1)
    assert (picture(endless, below, up)[1] == -1).all()
    depth, geom, _, ways = picture(finite, above, down, size=(200, 200), fovy=90)
    x, y = 2 * ways[..., 0], 2 * ways[..., 1]
    np.testing.assert_array_equal(geom == 0, (abs(x) <= 1) & (abs(y) <= 0.5))
    assert (depth[geom < 0] == FAR).all()


def test_a_ball_shades_the_disc_of_its_projection():
    model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
        <geom type="plane" size="0 0 1"/><geom size="0.1" pos="0 0 1"/></worldbody></mujoco>""")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    eye, look = np.array([[0.0, 0, 6]]), np.eye(3).reshape(1, 9)
    kind, sizes = model.geom_type.astype(np.int32)[None], model.geom_size[None].copy()
    frames = np.empty((1, 2, rays.FRAME), np.float32)
    rays.place(kind, sizes, data.geom_xpos[None], data.geom_xmat[None], eye, look, frames)
    absent, side = np.zeros((1, 2), bool), 301
    window = np.array([[-0.1, 0.1, 0.2 / side, 0.2 / side]])
    depth, geom = np.full((1, side, side), FAR, np.float32), np.full((1, side, side), -1, np.int32)
    rays.cast(kind, sizes, absent, window, frames, depth, geom)
    lamps = np.zeros((1, 3, 14), np.float32)
    lamps[0, 0, :3] = lamps[0, 2, :3] = [0, 0, 2 - 6]  # a lamp at z = 2
    lamps[0, 1, :3], lamps[0, 1, 13] = [0, 0, 1], -1  # the zenith
    lit = np.empty((1, side, side, 3), bool)
    casts = np.array([True, True, False])
    rays.occlude(kind, sizes, absent, window, frames, depth, geom, look, lamps, casts, lit)
    x = 6 * (window[0, 0] + (np.arange(side) + 0.5) * window[0, 2])
    radius = np.hypot(*np.meshgrid(x, x))
    floor = geom[0] == 0
    shade = 2 * 0.1 / np.sqrt(1 - 0.1**2)  # tangent cone from the lamp, at twice the distance
    clear = abs(radius - shade) > 0.005
    np.testing.assert_array_equal(lit[0, ..., 0][floor & clear], (radius > shade)[floor & clear])
    clear = abs(radius - 0.1) > 0.005
    np.testing.assert_array_equal(lit[0, ..., 1][floor & clear], (radius > 0.1)[floor & clear])
    assert lit[0, ..., 2].all()
    assert lit[0, ..., 0][~floor].all()  # the ball's lit side


def test_kernels_work_where_nothing_can_be_written(monkeypatch):
    def refuse(self):
        raise RuntimeError("cannot cache")

    monkeypatch.setattr("numba.core.registry.CPUDispatcher.enable_caching", refuse)
    with pytest.warns(UserWarning, match="cannot cache; set NUMBA_CACHE_DIR"):
        double = rays.kernel(lambda x: 2 * x)
    assert double(4) == 8
