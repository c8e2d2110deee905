"""Arrange: the side that the words say is decided by where things are, seen from the robot."""

import re

import numpy as np

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.envs.language import RELATIONS as WORDS
from umwelten.score import HELD_OUT

THINGS = ("cube", "cylinder", "cube2", "cylinder2")
SIDES = ("left of", "right of", "in front of", "behind")


def looks(env, i):
    """Colours of row i's things, as one sees them."""
    rgba = env.sim.model_field("geom_rgba")[i]
    near = [np.abs(RGBA - rgba[env.model.geom(name).id]).max(1) for name in THINGS]
    return [NAMES[int(d.argmin())] for d in near]


def meant(env, i, text):
    """(thing, side, landmark) of the words, by nothing but colours and one word list."""
    (side,) = (s for s in SIDES if any(f" {w} the " in text for w in WORDS[s]))
    thing, mark = (looks(env, i).index(c) for c in re.findall("|".join(NAMES), text))
    return thing, side, mark


def where(dx, dy):
    """The side of a landmark that (dx, dy) m from it is; x is ahead of the robot, y to its left."""
    if abs(dy) >= abs(dx):
        return "left of" if dy > 0 else "right of"
    return "behind" if dx > 0 else "in front of"


def test_success_is_what_the_words_say_wherever_the_thing_is():
    n = 24
    env = BatchEnv("Arrange", n)
    _, info = env.reset(seed=5)
    rng, held, seen = np.random.default_rng(0), 0, set()
    for _ in range(60):
        truth = []
        for i, text in enumerate(info["instruction"]):
            thing, side, mark = meant(env, i, text)
            angle, far = rng.uniform(-np.pi, np.pi), rng.uniform(0.05, 0.19)
            gap = far * np.array([np.cos(angle), np.sin(angle)])
            mid = env.sim.joint(THINGS[mark])[i, :2]
            env.sim.joint(THINGS[thing])[i, :3] = [*(mid + gap), 0.02]
            truth.append(where(*gap) == side and far < 0.14)
            seen.add((thing, side, mark))
        env.sim.forward(np.arange(n))
        assert env.task.success(env.sim).tolist() == truth
        assert ((env.task.reward(env.sim) > 0.99) == truth).all()
        held += sum(truth)
    assert 0.1 < held / (60 * n) < 0.25 and {s for _, s, _ in seen} == set(SIDES)


def test_held_there_or_above_there_is_not_put_there():
    env = BatchEnv("Arrange", 12, labels=True)
    env.reset(seed=HELD_OUT)
    seen = set()
    for _ in range(45):
        *_, info = env.step(env.expert())
        assert not (info["success"] & info["label/contact"].any(1)).any()
        seen |= set(info["label/subtask"].tolist())
    assert seen == {0, 1, 2, 3} and info["success"].all()
    which = env.sim.userdata[:, 0].astype(int)
    for i, k in enumerate(which):
        env.sim.joint(THINGS[k])[i, 2] += 0.05
    env.sim.forward(np.arange(12))
    assert not env.task.success(env.sim).any()


def test_every_other_side_and_landmark_and_thing_is_another_job():
    n = 12
    env = BatchEnv("Arrange", n)
    _, info = env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, :3].copy()
    for column, count in ((0, 2), (1, 2), (2, 4)):
        env.reset(seed=HELD_OUT)
        env.sim.userdata[:, column] = (asked[:, column] + 1) % count
        said = [env.task.instruction(env.sim, i) for i in range(n)]
        assert not any(a == b for a, b in zip(said, info["instruction"], strict=True))
        for _ in range(60):
            env.step(env.expert())
        assert env.task.success(env.sim).all()
        env.sim.userdata[:, column] = asked[:, column]
        assert not env.task.success(env.sim).any()


def test_no_episode_begins_done_and_all_sides_are_asked_for():
    env = BatchEnv("Arrange", 200)
    env.reset(seed=0)
    assert not env.task.success(env.sim).any()
    counts = np.bincount(env.sim.userdata[:, 2].astype(int), minlength=4)
    assert counts.min() > 20
    assert len({tuple(row) for row in env.sim.userdata[:, :5].astype(int).tolist()}) > 60
