"""Moment: what is remembered from step to step, by value, and whose chances a row draws."""

import io

import numpy as np
import pytest
import torch

from umwelten.agents.moment import begin, decide
from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, Prior, RandomShooting
from umwelten.world_models.model import WorldModel


class Tilted(WorldModel):
    """Pays for actions near x, a fading memory of the steps; forgets nothing by itself."""

    nu, discount, device, differentiable = 2, 0.9, torch.device("cpu"), True

    def start(self, n):
        return {"x": torch.zeros(n, 3), "last": torch.zeros(n, 2)}

    def observe(self, belief, action, step, rng):
        return {"x": step["x"] + 0.5 * belief["x"], "last": action}

    def imagine(self, belief, action, rng):
        pay = -5.0 * (action - belief["x"][:, :2]).square().sum(1)
        return belief, pay, torch.ones(len(action))

    def propose(self, belief, rng):
        mode = belief["x"][:, :2].tanh()
        return mode if rng is None else mode + torch.rand(mode.shape, generator=rng)

    def update(self, batch):
        return {}


AGENTS = {
    "mppi": MPPI(Tilted(), horizon=2, iterations=3, samples=32, proposals=4, elites=6),
    "cem": CEM(Tilted(), horizon=2, iterations=3, samples=32, elites=6),
    "icem": ICEM(Tilted(), horizon=2, iterations=3, samples=32, elites=6),
    "gradient": Gradient(Tilted(), horizon=2, iterations=3, samples=8),
    "shooting": RandomShooting(Tilted(), horizon=2, samples=32),
    "prior": Prior(Tilted()),
}
ALL = pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)


def steps(x, first=True):
    x = np.asarray(x, np.float32)
    return {"x": x, "first": np.full(len(x), first)}


@pytest.mark.parametrize("name", sorted(AGENTS.keys() - {"prior"}))
def test_a_seed_names_the_actions(name):
    agent = AGENTS[name]
    x = np.full((2, 3), 0.7)
    one, carry = agent.act(steps(x), agent.start(np.array([1, 2])))
    same, _ = agent.act(steps(x), agent.start(np.array([1, 2])))
    other, _ = agent.act(steps(x), agent.start(np.array([3, 2])))
    assert np.array_equal(one, same)
    assert not np.array_equal(one[0], other[0]) and not np.array_equal(one[0], one[1])
    later, _ = agent.act(steps(x), carry)  # an episode that begins anew, not one that repeats
    assert not np.array_equal(one, later)


def test_the_prior_acts_by_its_mode_whatever_the_seed():
    x = np.array([[0.3, -0.2, 0.0], [0.1, 0.0, 0.5]])
    ours, _ = AGENTS["prior"].act(steps(x), AGENTS["prior"].start(np.array([1, 2])))
    theirs, _ = AGENTS["prior"].act(steps(x), AGENTS["prior"].start(np.array([3, 4])))
    assert np.array_equal(ours, theirs)
    assert np.allclose(ours, np.tanh(x[:, :2]), atol=1e-6)


@ALL
def test_a_carry_survives_the_disk_and_leaves_the_old_one_alone(agent):
    x = np.full((2, 3), 0.3)
    _, carry = agent.act(steps(x), agent.start(np.array([1, 2**62])))
    before = {key: value.copy() for key, value in carry.items()}
    file = io.BytesIO()
    np.savez(file, **carry)
    file.seek(0)
    loaded = dict(np.load(file, allow_pickle=False))
    ours, kept = agent.act(steps(x, False), carry)
    theirs, theirs_kept = agent.act(steps(x, False), loaded)
    assert np.array_equal(ours, theirs)
    assert all(np.array_equal(kept[key], theirs_kept[key]) for key in kept)
    assert all(np.array_equal(carry[key], before[key]) for key in carry)
    assert kept["count"].tolist() == [2, 2]


@ALL
def test_a_first_step_forgets_all_but_the_stream(agent):
    x = np.full((2, 3), 0.3)
    clean = agent.start(np.array([1, 2]))
    dirty = {key: value.copy() for key, value in clean.items()}
    for key in ("mean", "action", "belief/x", "belief/last"):
        dirty[key][:] = np.nan
    expected, kept = agent.act(steps(x), clean)
    action, dirty_kept = agent.act(steps(x), dirty)
    assert np.array_equal(action, expected)
    assert all(np.array_equal(kept[key], dirty_kept[key]) for key in kept)


def test_the_plan_moves_on_by_one_step_and_the_last_action_is_observed():
    model, held = Tilted(), []

    def plan(moment):
        held.append(moment)
        return torch.tensor([[0.5, 3.0], [-3.0, 0.25]]), torch.arange(12.0).view(2, 3, 2)

    action, carry = decide(model, plan, steps(np.zeros((2, 3))), begin(model, [8, 9], 3))
    assert action.tolist() == [[0.5, 1.0], [-1.0, 0.25]]
    step = steps(np.zeros((2, 3)), False)
    decide(model, plan, step, carry)
    step["first"][0] = True
    decide(model, plan, step, carry)
    assert not held[0].mean.any()
    moved = [[[2, 3], [4, 5], [0, 0]], [[8, 9], [10, 11], [0, 0]]]
    assert held[1].mean.tolist() == moved
    assert torch.equal(held[1].belief["last"], torch.from_numpy(action))
    assert held[2].mean.tolist() == [[[0, 0]] * 3, moved[1]]  # row 0 began anew, row 1 goes on
    assert held[2].belief["last"].tolist() == [[0.0, 0.0], [-1.0, 0.25]]


def test_seeds_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match="one integer per row"):
        MPPI(Tilted()).start(np.zeros(3))
