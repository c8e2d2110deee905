"""Sort and Tidy: what is said, read from the words and the looks, is what success is."""

import itertools
import re

import numpy as np
import pytest

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA, decode
from umwelten.score import HELD_OUT

SORTED, BINS = ("cube", "cylinder", "cube2"), ("bin", "bin2")
TIDIED = ("cylinder2", "cube", "cylinder", "cube2")
AWAY = np.array([[0.30, 0.0, 0.02], [0.40, 0.0, 0.02], [0.50, 0.0, 0.02], [0.36, -0.12, 0.02]])
SLOT = (-0.045, 0.0, 0.045)


def colour(env, i, body):
    """The colour that all geoms of a body in row i have, by name."""
    b = env.model.body(body)
    rgba = env.sim.model_field("geom_rgba")[i, b.geomadr[0] : b.geomadr[0] + b.geomnum[0]]
    near = np.abs(RGBA[:, None] - rgba).max((1, 2))
    return NAMES[int(near.argmin())] if near.min() < 1e-6 else ""


def put(env, i, name, xyz):
    """Puts a thing of row i somewhere (m), upright."""
    env.sim.joint(name)[i] = [*xyz, 1, 0, 0, 0]


def meant(env, i, text):
    """The bin that each thing of Sort belongs in, by what one reads and sees in row i."""
    bins = [colour(env, i, b) for b in BINS]
    own = [bins.index(colour(env, i, name)) for name in SORTED]
    said = re.findall(r"(cubes?|cylinders?).*?(?:to|into) the (\w+) bin", text)
    if said:
        where = {noun.rstrip("s"): bins.index(c) for noun, c in said}
        return [where[name.rstrip("2")] for name in SORTED]
    return [1 - k for k in own] if "other" in text or "against" in text else own


def test_sorted_is_what_the_words_say_for_every_way_to_fill_the_bins():
    n = 12
    env = BatchEnv("Sort", n)
    _, info = env.reset(seed=2)
    box = env.sim.mocap_pos[:, 1:3].copy()
    right = 0
    for bins in itertools.product((0, 1, None), repeat=3):
        for i, (k, name) in itertools.product(range(n), enumerate(SORTED)):
            spot = AWAY[k] if bins[k] is None else box[i, bins[k]] + [SLOT[k], 0, 0.026]
            put(env, i, name, spot)
        env.sim.forward(np.arange(n))
        success, reward = env.task.success(env.sim), env.task.reward(env.sim)
        truth = [meant(env, i, text) == list(bins) for i, text in enumerate(info["instruction"])]
        assert success.tolist() == truth
        assert (success == (reward > 0.99)).all()
        right += sum(truth)
    assert right == n  # each row's words mean one way of all


def test_all_four_rules_mean_different_things_in_every_scene():
    env = BatchEnv("Sort", 30)
    env.reset(seed=0)
    ways = []
    for rule in range(4):
        env.sim.userdata[:, 0] = rule
        ways.append([meant(env, i, env.task.instruction(env.sim, i)) for i in range(30)])
    assert all(len({tuple(way[i]) for way in ways}) == 4 for i in range(30))
    said = {
        re.sub("|".join(NAMES), "", decode(env.reset()[0]["instruction"][i])) for i in range(30)
    }
    assert len(said) == 6


def test_a_thing_that_is_held_in_its_bin_is_not_sorted_yet():
    env = BatchEnv("Sort", 8, labels=True)
    env.reset(seed=HELD_OUT)
    seen, before = set(), np.zeros(8, int)
    for _ in range(130):
        *_, info = env.step(env.expert())
        assert not (info["success"] & info["label/contact"].any(1)).any()
        assert (info["label/subtask"] >= before).all()  # nothing sorted is lost again
        before = info["label/subtask"]
        seen |= set(before.tolist())
    assert seen == {0, 1, 2, 3} and info["success"].all()


def wanted(env, i, text):
    """Which of Tidy's things shall be in the bin, by what one reads and sees in row i."""
    looks = [(colour(env, i, name), name.rstrip("2")) for name in TIDIED]
    fits = np.zeros(4, bool)
    for hue, noun in re.findall(r"the (?:(\w+) )?(cube|cylinder|one)\b", text):
        (k,) = (k for k, (c, s) in enumerate(looks) if hue in ("", c) and noun in ("one", s))
        fits[k] = True
    return fits.tolist()


def test_tidy_is_what_the_words_say_for_every_way_to_fill_the_bin():
    n = 12
    env = BatchEnv("Tidy", n)
    _, info = env.reset(seed=2)
    box, right = env.sim.mocap_pos[:, 1].copy(), 0
    side = np.sign(box[:, 1])
    for inside in itertools.product((False, True), repeat=4):
        for i, (k, name) in itertools.product(range(n), enumerate(TIDIED)):
            away = AWAY[k] * [1, side[i] if k == 3 else 1, 1]
            slot = (0.025 - 0.05 * (k % 2), 0.025 - 0.05 * (k // 2), 0.026)
            put(env, i, name, box[i] + slot if inside[k] else away)
        env.sim.forward(np.arange(n))
        truth = [wanted(env, i, text) == list(inside) for i, text in enumerate(info["instruction"])]
        assert env.task.success(env.sim).tolist() == truth
        assert ((env.task.reward(env.sim) > 0.99) == truth).all()
        right += sum(truth)
    assert right == n


@pytest.mark.parametrize("out", range(3))
def test_another_pair_of_names_is_another_job(out):
    env = BatchEnv("Tidy", 10)
    env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, 0].copy()
    env.sim.userdata[:, 0] = out
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        env.step(env.expert())
    assert env.task.success(env.sim).all()
    env.sim.userdata[:, 0] = asked
    assert (env.task.success(env.sim) == (asked == out)).all()


def test_the_bin_must_be_emptied_first():
    """The bin holds one thing at the start, and that is what the expert takes first."""
    env = BatchEnv("Tidy", 10, labels=True)
    env.reset(seed=0)
    lies = env.sim.joint("cylinder2")[:, :3]
    assert (np.abs(lies - env.sim.mocap_pos[:, 1])[:, :2] < 0.02).all()
    taken = np.zeros((10, 4), bool)
    for _ in range(60):
        env.step(env.expert())
        now = np.array([env.sim.joint(name)[:, 2] > 0.05 for name in TIDIED]).T
        assert not (now[:, 1:] & ~taken[:, :1]).any()
        taken |= now
    assert taken[:, 0].all() and taken[:, 1:].any()
