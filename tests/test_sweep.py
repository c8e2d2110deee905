"""Sweep: the cubes of one colour, all of them and no others, in one zone of two."""

import re

import numpy as np
import pytest

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.score import HELD_OUT

CUBES = ("cube", "cube2", "cube3", "cube4", "cube5", "cube6")
ZONES = ("zone", "zone2")


def colours(env, i, geoms):
    rgba = env.sim.model_field("geom_rgba")[i]
    return [NAMES[int(np.abs(RGBA - rgba[env.model.geom(g).id]).max(1).argmin())] for g in geoms]


def truth(env, i, text):
    """Whether row i is as the words say, by colours and the drawn rectangles alone."""
    colour, zone = re.findall("|".join(NAMES), text)
    k = colours(env, i, ZONES).index(zone)
    geom = env.model.geom(ZONES[k])
    gap = [
        np.abs(env.sim.joint(c)[i, :2] - env.sim.geom_xpos[i, geom.id, :2]) < geom.size[:2]
        for c in CUBES
    ]
    return [g.all() for g in gap] == [c == colour for c in colours(env, i, CUBES)]


def test_swept_is_what_the_words_say_wherever_the_cubes_are():
    n = 40
    env = BatchEnv("Sweep", n)
    _, info = env.reset(seed=4)
    rng, true = np.random.default_rng(0), 0
    for round_ in range(30):
        for i in range(n):
            in_zone = rng.integers(2)
            moves = rng.random(6) < 0.5
            if round_ % 2:  # the right ones, or the others, or all
                named = env.sim.userdata[i, 0] * 3 + np.arange(3)
                moves[:] = rng.random() < 0.3
                moves[named.astype(int)] = True
            for k, name in enumerate(CUBES):
                zone = env.sim.mocap_pos[i, 1 + in_zone]
                side = np.sign(zone[1])
                y = side * rng.uniform(0.155, 0.245) if moves[k] else rng.uniform(-0.14, 0.14)
                env.sim.joint(name)[i, :3] = 0.275 + 0.05 * k, y, 0.012
        env.sim.forward(np.arange(n))
        wanted = [truth(env, i, text) for i, text in enumerate(info["instruction"])]
        assert env.task.success(env.sim).tolist() == wanted
        reward = env.task.reward(env.sim)
        assert ((reward > 0.99) == wanted).all() and reward.max() <= 1 and reward.min() >= 0
        true += sum(wanted)
    assert 0.1 < true / (30 * n) < 0.5


@pytest.mark.parametrize("column", [0, 1])
def test_another_colour_or_zone_is_another_job(column):
    env = BatchEnv("Sweep", 10)
    _, info = env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, column].copy()
    env.sim.userdata[:, column] = 1 - asked
    said = [env.task.instruction(env.sim, i) for i in range(10)]
    assert not any(a == b for a, b in zip(said, info["instruction"], strict=True))
    for _ in range(110):
        env.step(env.expert())
    assert env.task.success(env.sim).all()
    assert all(truth(env, i, text) for i, text in enumerate(said))
    env.sim.userdata[:, column] = asked
    assert not env.task.success(env.sim).any()


def test_cubes_are_pushed_not_carried_and_the_others_stay_where_they_are():
    env = BatchEnv("Sweep", 10)
    env.reset(seed=HELD_OUT)
    start = env.sim.qpos.copy()
    others = (3 * (1 - env.sim.userdata[:, :1].astype(int)) + np.arange(3)).tolist()
    for _ in range(100):
        env.step(env.expert())
        heights = np.array([env.sim.joint(c)[:, 2] for c in CUBES])
        assert heights.max() < 0.03
    joints = [int(env.model.joint(c).qposadr[0]) for c in CUBES]
    moved = np.array([np.abs(env.sim.qpos - start)[:, q : q + 2].max(1) for q in joints]).T
    kept = np.array([moved[i, row].max() for i, row in enumerate(others)])
    assert np.median(kept) < 1e-3 and env.task.success(env.sim).all()


def test_an_arm_whose_tool_lags_keeps_the_cubes_from_drifting_out():
    env = BatchEnv("Sweep", 12, nthread=1, robot="ur5e")
    env.reset(seed=HELD_OUT)
    for _ in range(139):
        info = env.step(env.expert())[4]
    assert info["success"].mean() >= 0.9
