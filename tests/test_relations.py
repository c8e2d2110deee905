"""Relations are what the simulator and plain geometry say, from the robot's own point of view."""

import itertools

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.envs.relations import (
    BINARY,
    HOLDS,
    MARGIN,
    NEAR,
    behind,
    between,
    extent,
    in_front_of,
    inside,
    left_of,
    matrix,
    near,
    observed,
    on,
    right_of,
    scene,
)

SIDES = (left_of, right_of, in_front_of, behind)
POINT = st.tuples(*[st.floats(-0.5, 0.5)] * 3).map(np.array)


def at(*place, half=0.02):
    return np.array(place, float), np.broadcast_to(np.asarray(half, float), 3)


def test_left_is_where_the_arm_turns_to_the_left_and_behind_is_where_it_reaches():
    env = BatchEnv("Reach", 1, cameras=("front",), size=(2, 2))
    env.reset(seed=0)

    def tool(waist, elbow):
        env.sim.qpos[0, 0], env.sim.qpos[0, 2] = waist, elbow
        env.sim.forward(np.array([0]))
        return env.sim.site("tcp")[0].copy(), np.full(3, 0.02)

    middle = tool(0, 1.98)
    assert left_of(tool(0.3, 1.98), middle) and right_of(tool(-0.3, 1.98), middle)
    assert behind(tool(0, 1.6), middle) and in_front_of(middle, tool(0, 1.6))
    # the camera `front` looks back at the robot: what it shows on its right is the robot's left
    camera = env.sim.model.camera("front").id
    right = env.sim.cam_xmat[0, camera].reshape(3, 3)[:, 0]
    assert left_of((middle[0] + 0.1 * right, middle[1]), middle)


@given(POINT, POINT)
def test_just_one_side_holds_of_things_that_are_apart_and_none_of_others(a, b):
    a, b = (a, np.full(3, 0.02)), (b, np.full(3, 0.02))
    apart = np.abs(a[0] - b[0])[:2].max() > MARGIN
    assert sum(bool(side(a, b)) for side in SIDES) == apart
    assert left_of(a, b) == right_of(b, a) and behind(a, b) == in_front_of(b, a)


@given(POINT, POINT)
def test_near_is_symmetric_and_the_distance_of_boxes(a, b):
    assert near((a, np.full(3, 0.02)), (b, np.full(3, 0.03))) == near(
        (b, np.full(3, 0.03)), (a, np.full(3, 0.02))
    )
    assert not near(at(0, 0, 0), at(0.04 + NEAR + 1e-6, 0, 0))
    assert near(at(0, 0, 0), at(0.04 + NEAR - 1e-6, 0, 0))


def test_on_is_at_the_height_of_the_top_and_over_it():
    disc = at(0.4, 0, 0.001, half=(0.045, 0.045, 0.001))
    assert on(at(0.4, 0.03, 0.022), disc)
    assert not on(at(0.4, 0.05, 0.022), disc)  # beside
    assert not on(at(0.4, 0, 0.06), disc)  # held above
    assert not on(disc, at(0.4, 0, 0.022))  # the other way round
    assert on(at(0, 0, 0.06), at(0, 0, 0.02))  # a stack


def test_in_is_within_the_box():
    bowl = at(0, 0, 0.04, half=(0.06, 0.06, 0.04))
    assert inside(at(0.02, 0, 0.03), bowl)
    assert not inside(at(0.02, 0, 0.09), bowl) and not inside(at(0.07, 0, 0.03), bowl)


def test_between_is_in_the_middle_of_the_line_and_not_off_it():
    b, c = at(0.3, -0.1, 0), at(0.3, 0.1, 0)
    assert between(at(0.3, 0, 0), b, c) and between(at(0.33, 0.04, 0.2), c, b)
    assert not between(at(0.3, 0.08, 0), b, c) and not between(at(0.36, 0, 0), b, c)
    assert not between(at(0.3, 0.2, 0), b, c) and not between(b, b, c)


def test_rows_are_judged_each_for_itself():
    rng = np.random.default_rng(0)
    places, halves = rng.uniform(-0.2, 0.2, (6, 4, 3)), rng.uniform(0.01, 0.05, (6, 4, 3))
    whole = scene(places[0], ["cube"] * 4, NAMES[:4])._replace(place=places, half=halves)
    said = matrix(whole)
    assert said.shape == (6, 4, 4, len(BINARY)) and said.dtype == bool
    for i, (r, name) in itertools.product(range(6), enumerate(BINARY)):
        for a, b in itertools.product(range(4), range(4)):
            one = HOLDS[name]((places[i, a], halves[i, a]), (places[i, b], halves[i, b]))
            assert said[i, a, b, r] == (one and a != b)
    assert said.any((0, 1, 2))[:4].all() and not said[:, range(4), range(4)].any()


KINDS = [
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_BOX,
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_around_a_turned_geom_is_where_the_engines_distance_says(kind):
    """A wall just outside the box does not touch the geom, one just inside it does."""
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(mocap=True)
    body.add_geom(name="thing", type=kind, size=(0.03, 0.05, 0.02))
    wall = spec.worldbody.add_body(mocap=True, name="wall")
    wall.add_geom(name="wall", type=mujoco.mjtGeom.mjGEOM_BOX, size=(1, 1, 1))
    model = spec.compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(1)
    for _ in range(10):
        turn = rng.standard_normal(4)
        data.mocap_quat[0] = turn / np.linalg.norm(turn)
        mujoco.mj_kinematics(model, data)
        half = extent(model.geom_type[:1], model.geom_size[None, :1], data.geom_xmat[None, :1])
        for axis, sign in itertools.product(range(3), (-1, 1)):
            for step, apart in ((1e-4, True), (-1e-3, False)):
                data.mocap_pos[1] = 0
                data.mocap_pos[1, axis] = sign * (1 + half[0, 0, axis] + step)
                mujoco.mj_kinematics(model, data)
                gap = mujoco.mj_geomDistance(model, data, 0, 1, 0.1, None)
                assert (gap > 0) == apart, (axis, sign, gap)


def test_a_mesh_has_no_such_box():
    with pytest.raises(ValueError, match="mjGEOM_MESH"):
        extent(np.array([int(mujoco.mjtGeom.mjGEOM_MESH)]), np.ones((1, 1, 3)), np.ones((1, 1, 9)))


def test_a_scene_is_what_the_simulator_holds():
    env = BatchEnv("PickPlace", 8, cameras=("front",), size=(2, 2))  # binds the geoms
    env.reset(seed=0)
    geoms, shapes = ("cube", "cylinder", "disc", "disc2"), ("cube", "cylinder", "disc", "disc")
    seen = observed(env.sim, geoms, shapes)
    colours = env.sim.userdata[:, 4:].astype(int)
    assert np.array_equal(seen.colour, colours)
    index = [env.model.geom(g).id for g in geoms]
    assert np.array_equal(
        RGBA[seen.colour].astype(np.float32), env.sim.varied["geom_rgba"][:, index]
    )
    np.testing.assert_allclose(seen.place[:, 0], env.sim.joint("cube")[:, :3])
    np.testing.assert_allclose(seen.half[:, 2], [[0.045, 0.045, 0.001]] * 8)
    assert (seen.half[:, 0, :2] >= 0.02 - 1e-12).all() and (seen.half[:, 0, :2] < 0.0283).all()
    assert not matrix(seen)[:, :2, 2:, BINARY.index("on")].any()
    for _ in range(80):
        *_, info = env.step(env.expert())
        which, disc = env.sim.userdata[:, 0].astype(int), 2 + env.sim.userdata[:, 1].astype(int)
        said = matrix(observed(env.sim, geoms, shapes))[np.arange(8), which, disc]
        assert said[info["success"], BINARY.index("on")].all()
        if info["success"].all():
            break
    assert said[:, BINARY.index("on")].mean() > 0.7
