"""Limits: bounds and rates that nothing exceeds, whoever plans and whatever is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umwelten.agents.limits import Limits
from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, RandomShooting
from umwelten.world_models.model import WorldModel

SMALL = {
    MPPI: {"horizon": 3, "iterations": 2, "samples": 16, "elites": 4},
    CEM: {"horizon": 3, "iterations": 2, "samples": 16, "elites": 4},
    ICEM: {"horizon": 3, "iterations": 2, "samples": 16, "elites": 4},
    Gradient: {"horizon": 3, "iterations": 2, "samples": 6},
    RandomShooting: {"horizon": 3, "samples": 16},
}
SMALL[MPPI] |= {"proposals": 4}
BOUND = st.floats(-1, 1, width=32)


class Greedy(WorldModel):
    """Pays for actions along `gain`, which changes its sign with every step seen."""

    discount, device, differentiable = 0.9, torch.device("cpu"), True

    def __init__(self, nu, gain):
        super().__init__()
        self.nu, self.gain = nu, gain

    def start(self, n):
        return {"sign": torch.ones(n)}

    def observe(self, belief, action, step, rng):
        return {"sign": -belief["sign"]}

    def imagine(self, belief, action, rng):
        return belief, self.gain * belief["sign"] * action.sum(1), torch.ones(len(action))

    def propose(self, belief, rng):
        return 5.0 * belief["sign"][:, None].expand(-1, self.nu)

    def update(self, batch):
        return {}


def closed_loop(planner, limits, nu, gain, n=2, seed=0, decisions=4):
    """Returns the actions (decisions, n, nu); row 0 begins a new episode at the third."""
    agent = planner(Greedy(nu, gain), **SMALL[planner], limits=limits, explore=True)
    carry, actions = agent.start(np.arange(n) + seed), []
    for t in range(decisions):
        first = np.full(n, t == 0)
        first[0] |= t == 2
        action, carry = agent.act({"first": first}, carry)
        actions.append(action.astype(np.float64))
    return np.array(actions)


@settings(max_examples=40, deadline=None)
@given(
    planner=st.sampled_from(list(SMALL)),
    bounds=st.lists(st.tuples(BOUND, BOUND).map(sorted), min_size=1, max_size=3),
    rate=st.floats(1e-3, 2.0) | st.none(),
    gain=st.floats(-1e4, 1e4),
    seed=st.integers(0, 2**40),
)
def test_no_action_leaves_its_bounds_or_outruns_its_rate(planner, bounds, rate, gain, seed):
    low, high = (tuple(side) for side in zip(*bounds, strict=True))
    actions = closed_loop(planner, Limits(low, high, rate), len(bounds), gain, seed=seed)
    assert (actions >= low).all() and (actions <= high).all()
    rest = np.clip(0, low, high)
    before = np.concatenate([np.broadcast_to(rest, actions[:1].shape), actions[:-1]])
    before[2, 0] = rest  # where an episode begins
    if rate is not None:
        assert (np.abs(actions - before) <= rate).all()


@pytest.mark.parametrize("planner", list(SMALL), ids=lambda p: p.__name__)
def test_without_limits_the_same_planner_jumps(planner):
    actions = closed_loop(planner, None, 2, 100.0)
    assert np.abs(np.diff(actions, axis=0)).max() > 0.5 and np.abs(actions).max() > 0.5


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.none() | st.floats(0.01, 2.0))
def test_plans_are_moved_no_further_than_they_must_be(seed, rate):
    rng = torch.Generator().manual_seed(seed)
    plans = torch.randn(2, 5, 4, 3, generator=rng)
    last = torch.rand(2, 3, generator=rng) * 2 - 1
    limits = Limits(-0.5, (0.2, 0.5, 1.0), rate)
    allowed = limits.project(plans, last)
    assert torch.equal(limits.project(allowed, last), allowed)
    whole = torch.cat((last.clamp(-0.5)[:, None, None].expand(2, 5, 1, 3), allowed), 2).double()
    whole[:, :, 0] = whole[:, :, 0].minimum(torch.tensor([0.2, 0.5, 1.0]))
    low, high = torch.tensor(-0.5), torch.tensor([0.2, 0.5, 1.0])
    if rate is not None:
        assert (whole.diff(dim=2).abs() <= rate).all()
        low = low.maximum(whole[:, :, :-1] - rate)
        high = high.minimum(whole[:, :, :-1] + rate)
    nearest = plans.double().clamp(low, high)
    assert (nearest - allowed).abs().max() < 1e-6
    one = limits.step(plans[:, 0, 0], last)
    assert torch.equal(one, allowed[:, 0, 0])


def test_a_gradient_passes_limits_that_were_first_met_without_one():
    limits = Limits((-0.31, -0.62), (0.41, 0.83), (0.53, 0.57))
    with torch.inference_mode():
        limits.project(limits.spread(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 2))
    plans = torch.zeros(1, 1, 2, 2, requires_grad=True)
    limits.project(limits.spread(plans), torch.zeros(1, 2)).sum().backward()
    assert torch.all(plans.grad > 0)


def test_uniform_draws_fill_the_bounds():
    limits = Limits((-0.1, 0.0), (0.3, 1.0))
    unit = torch.linspace(-1, 1, 5)[:, None].expand(5, 2)
    expected = [[-0.1, 0.0], [0.0, 0.25], [0.1, 0.5], [0.2, 0.75], [0.3, 1.0]]
    np.testing.assert_allclose(limits.spread(unit), expected, atol=1e-6)
    assert torch.equal(Limits().spread(unit), unit)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"low": 0.5, "high": 0.2}, "low 0.5 and high 0.2"),
        ({"low": -1.5}, "low -1.5 and high 1.0: choose -1 <= low"),
        ({"high": (0.5, 2.0)}, "high 2.0"),
        ({"low": (0.0, 0.0), "high": (1.0, 1.0, 1.0)}, "low has 2 components and high 3"),
        ({"rate": 0.0}, "rate 0.0 is not > 0"),
        ({"rate": [0.1, -0.1]}, r"rate \(0.1, -0.1\) is not > 0"),
    ],
)
def test_limits_that_allow_nothing_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Limits(**wrong)
