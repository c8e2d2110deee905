"""Patterns: what vary=texture draws over surfaces, against numpy's; in pictures alone, as light."""

import numpy as np
import pytest

from umwelten.envs import patterns
from umwelten.envs.env import BatchEnv
from umwelten.envs.raycast import BatchRayCamera, RayCamera
from umwelten.envs.sim import PATTERN, Sim

SIZE = (48, 48)
LOOKS = ("texture", "light", "lamp", "colour")


def world(n=3, seeds=None, task="PickPlace", vary=("texture",), **options):
    env = BatchEnv(task, n, nthread=1, vary=vary, cameras=("front",), size=SIZE, **options)
    return env, env.reset(seed=list(range(n)) if seeds is None else seeds)[0]


@pytest.mark.parametrize("kind", LOOKS)
def test_pictures_change_and_nothing_else_does(kind):
    (plain, before), (env, now) = world(vary=()), world(vary=(kind,))
    for _ in range(3):
        for key in before:
            assert np.array_equal(before[key], now[key]) != key.startswith("rgb"), key
        assert np.array_equal(plain.sim.state, env.sim.state)
        act = np.full((3, 4), 0.3)
        before, now = plain.step(act)[0], env.step(act)[0]


def test_a_texture_is_more_than_a_tint_and_of_every_style():
    env, now = world(vary={"texture": (0.5, 0.5)})
    tinted = env.sim.varied["pattern"].copy()
    styles = set(np.unique(tinted[..., 0]))
    assert styles == {0, 1, 2, 3}
    env.sim.varied["pattern"][:] = 0
    off = np.abs(env._camera.render()["rgb/front"].astype(int) - now["rgb/front"])
    assert ((off.max(-1) > 8).mean((1, 2)) > 0.1).all()  # more than a tint


def test_a_share_of_nothing_is_no_pattern():
    (_, before), (env, now) = world(vary=()), world(vary={"texture": (0, 0)})
    assert np.array_equal(before["rgb/front"], now["rgb/front"])
    assert not env.sim.varied["pattern"].any()


def test_a_seed_has_its_pictures_whatever_n_and_comes_again_in_its_next_episode_anew():
    (env, many), (_, alone) = world(4, [7, 3, 9, 3], vary=LOOKS), world(1, [3], vary=LOOKS)
    one = many["rgb/front"]
    assert np.array_equal(one[1], alone["rgb/front"][0]) and np.array_equal(one[1], one[3])
    assert not np.array_equal(one[0], one[2])
    assert not np.array_equal(env.reset()[0]["rgb/front"][1], one[1])
    assert np.array_equal(env.reset(seed=[7, 3, 9, 3])[0]["rgb/front"], one)


def test_what_was_recorded_is_seen_again():
    env, obs = world(2, physics=True, vary=LOOKS)
    env.step(np.zeros((2, 4)))
    obs, *_, info = env.step(np.full((2, 4), 0.5))
    snapshot = env.save()
    other, _ = world(2, [50, 51], physics=True, vary=LOOKS)
    other.set_physics(np.arange(2), info["physics"])
    assert np.array_equal(other._camera.render()["rgb/front"], obs["rgb/front"])
    third, _ = world(2, [60, 61], vary=LOOKS)
    assert np.array_equal(third.load(snapshot)["rgb/front"], obs["rgb/front"])
    assert np.array_equal(third._camera.render()["rgb/front"], obs["rgb/front"])


def mixed(pattern, points):
    """The share of the second colour at points (k, 3), without a pixel's width."""
    style, cells, _, _, _, *way = pattern
    if style == patterns.CHECKS:
        return np.floor(points * cells + 17.31 * np.array(way)).sum(1) % 2
    return np.floor(points @ way * cells + 17.31 * way[0]) % 2


@pytest.mark.parametrize("style", [patterns.CHECKS, patterns.STRIPES])
def test_checks_and_stripes_lie_where_numpy_says(style):
    """Of the table: its picture without light's play, by depth and pinhole, in its own frame."""
    env, _ = world(1, vary={"texture": (0, 0)})
    model, g = env.model, env.model.geom("table").id
    way = np.array([0.48, 0.6, 0.64], np.float32)
    env.sim.varied["pattern"][0, g] = [style, 8.0, 0, 0, 0, *way]
    image = env._camera.render()["rgb/front"][0].astype(float)
    camera = RayCamera(Sim(model, 1, 1), ("front",), SIZE, ("depth", "segmentation"))
    camera.sim.state[:] = env.sim.state
    camera.sim.forward(np.array([0]))
    seen = camera.render()
    depth, geom = seen["depth/front"][0], seen["segmentation/front"][0]
    top = np.tan(np.deg2rad(model.cam_fovy[model.camera("front").id]) / 2)
    at = (np.arange(48) + 0.5) / 24 - 1
    ways = np.stack([*np.meshgrid(top * at, -top * at), -np.ones(SIZE)], -1) * depth[..., None]
    k = model.camera("front").id
    points = ways @ camera.sim.cam_xmat[0, k].reshape(3, 3).T + camera.sim.cam_xpos[0, k]
    points = (points - camera.sim.geom_xpos[0, g]) @ camera.sim.geom_xmat[0, g].reshape(3, 3)
    on = geom == g
    truth, dark = mixed(env.sim.varied["pattern"][0, g], points[on]), image[on].max(1)
    bright = dark > 0.5 * dark.max()
    assert on.sum() > 300 and 0.3 < truth.mean() < 0.7
    assert (bright == (truth == 0)).mean() > 0.9  # but where a pixel lies over an edge


def test_clouds_are_smooth_and_even_and_what_is_too_fine_is_grey():
    rng = np.random.default_rng(0)
    pattern = np.array([patterns.CLOUDS, 10, 0, 0, 0, 0.6, 0, 0.8], np.float32)
    points = rng.uniform(-3, 3, (4000, 3)).astype(np.float32)
    near = points + np.float32(1e-3)
    one, two = (
        np.array([patterns.share(pattern, *p, np.float32(0)) for p in x]) for x in (points, near)
    )
    assert 0 <= one.min() < 0.05 and 0.95 < one.max() <= 1
    assert abs(one.mean() - 0.5) < 0.05 and one.std() > 0.15
    assert np.abs(one - two).max() < 0.15
    for style in (patterns.CHECKS, patterns.STRIPES, patterns.CLOUDS):
        pattern[0] = style
        assert patterns.share(pattern, *points[0], np.float32(0.2)) == 0.5


def test_both_cameras_by_rays_draw_the_same_patterns():
    env, _ = world(2)
    pictures = []
    for kind in (RayCamera, BatchRayCamera):
        sim = Sim(env.model, 2, 1)
        camera = kind(sim, ("front",), SIZE, ("rgb",))
        for field, values in env.sim.varied.items():
            sim.vary(field)[:] = values
        sim.state[:] = env.sim.state
        sim.forward(np.arange(2))
        pictures.append(camera.render()["rgb/front"].astype(int))
    off = np.abs(pictures[0] - pictures[1]).max(-1)
    assert (off > 2).mean() < 0.01
    assert patterns.WIDTH == PATTERN
