"""Drawer and Door: what moves is moved by its handle, and only as the words ask."""

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import furniture
from umwelten.envs.cabinet import Door, Drawer
from umwelten.envs.env import BatchEnv
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

NAMES = {"Drawer": ("drawer", "drawer2", "drawer3"), "Door": ("door", "door2")}


class GhostDrawer(Drawer):
    """The same, with handles that nothing touches."""

    def spec(self):
        return ghost(super().spec(), NAMES["Drawer"])


class GhostDoor(Door):
    """The same, with handles that nothing touches."""

    def spec(self):
        return ghost(super().spec(), NAMES["Door"])


def ghost(spec, names):
    for name in names:
        spec.geom(f"{name}-handle").conaffinity = 0
    return spec


def run(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


@pytest.mark.parametrize("name", NAMES)
def test_the_script_does_it_and_chance_does_not(name):
    env = BatchEnv(name, 40, labels=True)
    assert run(env, Expert(env))["label/success"][-1].mean() >= 0.95
    chance = Random(env.single_action_space.shape[0])
    assert run(env, chance)["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("name", NAMES)
def test_parts_move_where_fingers_are_on_the_handle_and_nowhere_else(name):
    env = BatchEnv(name, 20, labels=True)
    env.reset(seed=HELD_OUT)
    which = env.sim.userdata[:, 0].astype(int)
    moved = np.zeros(20)
    for _ in range(30):
        before = furniture.joints(env.sim, NAMES[name])[0].copy()
        touched = env.task.label(env.sim)["contact"].any(1)
        env.step(env.expert())
        now = furniture.joints(env.sim, NAMES[name])[0]
        touched |= env.task.label(env.sim)["contact"].any(1)
        step = np.abs(now - before)
        # a door let go of swings on for a moment
        assert step[env.sim.rows, which][~touched].max(initial=0) < 5e-3
        moved += step[env.sim.rows, which]
        step[env.sim.rows, which] = 0
        assert step.max() < 1e-3  # the others stay
    assert moved.min() > 0.02


@pytest.mark.parametrize("task", [GhostDrawer, GhostDoor])
def test_without_a_handle_to_touch_the_script_fails(task):
    env = BatchEnv(task(), 20)
    env.reset(seed=HELD_OUT)
    for _ in range(40):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() == 0


@pytest.mark.parametrize("name", NAMES)
def test_parts_left_alone_stay_where_they_are(name):
    env = BatchEnv(name, 10)
    env.reset(seed=0)
    before = furniture.joints(env.sim, NAMES[name])[0].copy()
    for _ in range(30):
        env.step(np.zeros(env.action_space.shape))
    assert np.abs(furniture.joints(env.sim, NAMES[name])[0] - before).max() < 1e-6


@pytest.mark.parametrize("verb", [0, 1])
def test_every_drawer_can_be_asked_for_either_way_in_every_scene(verb):
    """All begin ajar: the same scene takes six instructions, none of them done."""
    env = BatchEnv("Drawer", 30)
    env.reset(seed=HELD_OUT)
    for which in range(3):
        env.sim.userdata[:, :2] = which, verb
        assert not env.task.success(env.sim).any()
    asked = env.sim.userdata[:, 0].copy()
    for _ in range(59):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.95
    env.sim.userdata[:, 1] = 1 - verb
    assert not env.task.success(env.sim).any()
    env.sim.userdata[:, 0], env.sim.userdata[:, 1] = (asked + 1) % 3, verb
    assert not env.task.success(env.sim).any()


def test_the_other_door_opened_is_no_success():
    env = BatchEnv("Door", 20)
    env.reset(seed=HELD_OUT)
    env.sim.userdata[:, 0] = 1 - env.sim.userdata[:, 0]
    for _ in range(79):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.95
    env.sim.userdata[:, 0] = 1 - env.sim.userdata[:, 0]
    assert not env.task.success(env.sim).any()


@pytest.mark.parametrize(
    "name, verb, at, done",
    [
        ("Drawer", 0, 0.095, True),
        ("Drawer", 0, 0.085, False),
        ("Drawer", 1, 0.005, True),
        ("Drawer", 1, 0.015, False),
        ("Door", 0, 1.01, True),
        ("Door", 0, 0.99, False),
    ],
)
def test_where_open_and_shut_begin(name, verb, at, done):
    env = BatchEnv(name, 1)
    env.reset(seed=0)
    sim, which = env.sim, int(env.sim.userdata[0, 0])
    if name == "Drawer":
        sim.userdata[:, 1] = verb
    sim.joint(NAMES[name][which])[:] = at
    sim.forward(np.arange(1))
    assert env.task.success(sim)[0] == done
    assert (env.task.reward(sim)[0] == 1) == done


@pytest.mark.parametrize("which, sign", [(0, -1), (1, 1)])
def test_a_handle_swings_about_its_hinge_as_the_engine_says(which, sign):
    env = BatchEnv("Door", 5)
    env.reset(seed=0)
    sim, name = env.sim, NAMES["Door"][which]
    start = sim.site(name).copy()
    turn = np.linspace(0.2, 1.4, 5)
    sim.joint(name)[:, 0] += turn
    sim.forward(np.arange(5))
    swung = furniture.swung(start, sim.body(name), sign * turn)
    np.testing.assert_allclose(swung, sim.site(name), atol=1e-12)
    assert (sim.site(name)[:, 0] < start[:, 0]).all()  # towards the robot
