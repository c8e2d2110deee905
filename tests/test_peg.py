"""PegInsert: what fits goes in and is let go there; what is too wide by a millimetre does not."""

import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs.env import BatchEnv
from umwelten.envs.peg import PegInsert
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT


class Tight(PegInsert):
    """Sockets one millimetre narrower than a peg."""

    clearance = -0.001


class Snug(PegInsert):
    """Sockets a millimetre and a half wider than a peg."""

    clearance = 0.0015


def run(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def test_the_script_does_it_and_chance_does_not():
    env = BatchEnv("PegInsert", 40, labels=True)
    done = run(env, Expert(env))
    assert done["label/success"][-1].mean() >= 0.95
    # from above: never inside before it was carried
    stages = done["label/subtask"]
    assert (stages.max(0) == 4).mean() >= 0.95 and set(np.unique(stages)) == set(range(5))
    chance = Random(env.single_action_space.shape[0])
    assert run(env, chance)["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("task, rate", [(Snug, 0.8), (Tight, 0.0)])
def test_a_peg_goes_in_where_it_fits(task, rate):
    env = BatchEnv(task(), 20, labels=True)
    success = run(env, Expert(env))["label/success"]
    assert success.mean(1)[-1] >= rate
    assert success.any() == (rate > 0)


@pytest.mark.parametrize("task", [PegInsert, Snug, Tight])
def test_a_socket_is_wider_than_a_peg_by_its_clearance(task):
    env = BatchEnv(task(), 1)
    model = env.model
    body = model.body("socket")
    walls = range(int(body.geomadr[0]), int(body.geomadr[0] + body.geomnum[0]))
    for axis in (0, 1):
        faces = [
            np.sign(model.geom_pos[g, axis])
            * (abs(model.geom_pos[g, axis]) - model.geom_size[g, axis])
            for g in walls
            if model.geom_pos[g, axis]
        ]
        wide = max(faces) - min(faces)
        peg = 2 * model.geom_size[model.geom("peg").id, 0]
        assert wide - peg == pytest.approx(task.clearance, abs=1e-9)


def test_a_peg_that_is_in_stands_on_the_table_within_the_walls():
    env = BatchEnv("PegInsert", 20)
    env.reset(seed=HELD_OUT)
    for _ in range(119):
        env.step(env.expert())
    peg, socket, touch, _, _, done = env.task._judge(env.sim)
    assert done.mean() >= 0.95 and not touch[done].any()
    np.testing.assert_allclose(peg[done, 2], 0.04, atol=1e-3)
    assert (np.abs(peg - socket)[done, :2] <= PegInsert.clearance / 2 + 2e-4).all()


def test_held_inside_it_is_not_done_yet_and_pays_less():
    env = BatchEnv("PegInsert", 20, labels=True)
    env.reset(seed=HELD_OUT)
    met = 0
    for _ in range(60):
        env.step(env.expert())
        *_, touch, _, down, done = env.task._judge(env.sim)
        held = down & touch.all(1)
        assert not done[held].any() and (env.task.reward(env.sim)[held] < 0.95).all()
        met += held.sum()
    assert met > 10


@pytest.mark.parametrize("column", [0, 1])
def test_the_other_peg_or_the_other_socket_is_no_success(column):
    env = BatchEnv("PegInsert", 20)
    env.reset(seed=HELD_OUT)
    env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
    for _ in range(119):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.9
    env.sim.userdata[:, column] = 1 - env.sim.userdata[:, column]
    assert not env.task.success(env.sim).any()
