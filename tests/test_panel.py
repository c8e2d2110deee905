"""Button and Dial: a press lasts and lets the others up; a dial points where the words say."""

import math

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import furniture
from umwelten.envs.env import BatchEnv
from umwelten.envs.panel import Button
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

BUTTONS, DIALS = ("button", "button2", "button3"), ("dial", "dial2")
MARKS = {"left": (0, 1), "back": (1, 0), "right": (0, -1)}  # as `language` means them


def run(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


@pytest.mark.parametrize("name", ["Button", "Dial"])
def test_the_script_does_it_and_chance_does_not(name):
    env = BatchEnv(name, 40, labels=True)
    assert run(env, Expert(env))["label/success"][-1].mean() >= 0.95
    chance = Random(env.single_action_space.shape[0])
    assert run(env, chance)["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("name, names", [("Button", BUTTONS), ("Dial", DIALS)])
def test_parts_left_alone_stay_where_they_are(name, names):
    env = BatchEnv(name, 10)
    env.reset(seed=0)
    env.sim.joint(names[0])[5:] = 0.01  # a button half down stays half down
    before = furniture.joints(env.sim, names)[0].copy()
    for _ in range(30):
        env.step(np.zeros(env.action_space.shape))
    assert np.abs(furniture.joints(env.sim, names)[0] - before).max() < 1e-5


def press(env, steps=25):
    for _ in range(steps):
        env.step(env.expert())
    return furniture.joints(env.sim, BUTTONS)[0].copy()


def test_a_wrong_button_is_no_success_and_the_right_one_lets_it_up_again():
    env = BatchEnv("Button", 20, max_episode_steps=-1)
    env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, 0].astype(int)
    for wrong in ((asked + 1) % 3, (asked + 2) % 3):
        env.sim.userdata[:, 0] = wrong
        down = press(env)
        env.sim.userdata[:, 0] = asked
        assert (down[env.sim.rows, wrong] > 0.9 * furniture.TRAVEL).all()
        assert not env.task.success(env.sim).any()
    down = press(env)
    assert env.task.success(env.sim).all()
    assert (down[env.sim.rows, asked] > 0.9 * furniture.TRAVEL).all()
    # at most one is down, whatever was pressed before
    assert (down.sum(1) < 1.2 * furniture.TRAVEL).all()


class Loose(Button):
    """The same, its buttons not tied to each other."""

    def spec(self):
        spec = super().spec()
        spec.tendon("interlock").limited = 0
        return spec


def test_without_the_interlock_all_buttons_can_be_down_at_once():
    env = BatchEnv(Loose(), 4, max_episode_steps=-1)
    env.reset(seed=HELD_OUT)
    for which in range(3):
        env.sim.userdata[:, 0] = which
        down = press(env)
    assert (down > 0.9 * furniture.TRAVEL).all()


def test_a_touch_is_not_a_press():
    env = BatchEnv("Button", 1)
    env.reset(seed=0)
    sim = env.sim
    joint = sim.joint(BUTTONS[int(sim.userdata[0, 0])])
    for share, done in ((0.5, False), (0.75, False), (0.85, True), (1.0, True)):
        joint[:] = share * furniture.TRAVEL
        sim.forward(np.arange(1))
        assert env.task.success(sim)[0] == done


def test_a_dial_turned_as_asked_points_there_as_the_robot_sees_it():
    env = BatchEnv("Dial", 30)
    _, info = env.reset(seed=HELD_OUT)
    assert not env.task.success(env.sim).any()
    for _ in range(99):
        env.step(env.expert())
    sim, seen = env.sim, set()
    which = sim.userdata[:, 0].astype(int)
    for i in np.flatnonzero(env.task.success(sim)):
        name = DIALS[which[i]]
        points = (sim.site(name) - sim.body(name))[i, :2]
        mark = info["instruction"][i].rpartition(" ")[2]
        angle = math.acos(np.clip(points @ MARKS[mark] / np.linalg.norm(points), -1, 1))
        assert angle < 0.15 + 1e-9
        seen.add(mark)
    assert seen == set(MARKS)


@pytest.mark.parametrize("column, count", [(0, 2), (1, 3)])
def test_another_dial_or_another_mark_is_no_success(column, count):
    env = BatchEnv("Dial", 20)
    env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, column].copy()
    env.sim.userdata[:, column] = (asked + 1) % count
    for _ in range(99):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.95
    env.sim.userdata[:, column] = asked
    assert not env.task.success(env.sim).any()


def test_the_dials_marks_are_where_they_count():
    env = BatchEnv("Dial", 1)
    env.reset(seed=0)
    sim, model = env.sim, env.model
    stand = model.body("dial-stand").id
    boxes = [
        g
        for g in range(model.ngeom)
        if model.geom_bodyid[g] == stand and model.geom_contype[g] == 0
        if model.geom_conaffinity[g] == 0
    ]
    sim.userdata[:, 0] = 0
    for mark, (geom, way) in enumerate(zip(boxes, MARKS.values(), strict=True)):
        sim.userdata[:, 1] = mark
        sim.joint("dial")[:] = math.atan2(way[1], way[0])
        sim.forward(np.arange(1))
        assert env.task.success(sim)[0]
        painted = model.geom_pos[geom, :2]  # the stand itself is not turned
        np.testing.assert_allclose(painted / 0.07, way, atol=1e-6)
