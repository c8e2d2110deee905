"""ICEM and Gradient: what sets them apart, held to the papers they are from and to calculus."""

import gymnasium
import numpy as np
import pytest
import torch

from umwelten.agents.moment import Clock, Moment, Noise
from umwelten.agents.planners import ICEM, Gradient
from umwelten.agents.search import evaluate
from umwelten.world_models.model import WorldModel
from umwelten.world_models.tdmpc2 import TDMPC2


class Bowl(WorldModel):
    """Pays for actions near the target that the belief holds; keeps what it was asked."""

    nu, discount, device, differentiable = 2, 0.9, torch.device("cpu"), True

    def __init__(self):
        super().__init__()
        self.asked = []

    def start(self, n):
        return {"target": torch.zeros(n, 2)}

    def observe(self, belief, action, step, rng):
        return {"target": step["target"]}

    def imagine(self, belief, action, rng):
        self.asked.append(action.detach())
        pay = -(action - belief["target"]).square().sum(1)
        return belief, pay, torch.ones(len(action))

    def update(self, batch):
        return {}


def moment(memory, target, seed=0):
    n = len(memory)
    belief = {"target": torch.tensor([target] * n)}
    noise = Noise(np.arange(n) + seed, np.zeros(n, int), torch.device("cpu"))
    return Moment(belief, memory, noise, torch.Generator(), torch.zeros(n, 2), Clock())


SIZE = {"horizon": 4, "iterations": 3, "samples": 40, "elites": 5, "keep": 0.6, "decay": 2.0}


def test_icem_asks_of_fewer_samples_the_shifted_elites_and_at_last_the_mean():
    model = Bowl()
    agent = ICEM(model, **SIZE)
    memory = torch.rand(1, 4, 4, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    agent.plan(moment(memory, [0.3, -0.3]))
    asked = [torch.stack(model.asked[i : i + 4], 1) for i in (0, 4, 8)]  # (k, h, nu) each
    assert [len(plans) for plans in asked] == [40 + 3, 20, 10]
    assert torch.equal(asked[0][40:, :3], memory[0, 1:, :3])  # the last action is drawn anew
    assert not torch.isclose(asked[0][40:, 3], memory[0, 1:, 3]).any()
    # what the mean was after two iterations, from what was asked in them
    mean, std, pool = memory[0, 0].clone(), 0.5, torch.zeros(0, 4, 2)
    mean[3] = mean[2]
    for plans in asked[:2]:
        plans = torch.cat((plans, pool))
        gain = 0.9 ** torch.arange(4.0)
        worth = -((plans - torch.tensor([0.3, -0.3])).square().sum(2) * gain).sum(1)
        elite = plans[worth.argsort(descending=True)[:5]]
        pool, mean = elite[:3], 0.9 * elite.mean(0) + 0.1 * mean
        std = 0.9 * elite.std(0, correction=0) + 0.1 * std
    torch.testing.assert_close(asked[2][0], mean)
    spread = (asked[2][1:] - mean).square().mean((0, 2)).sqrt() / std.mean(1)
    assert (spread - 1).abs().max() < 0.7  # ten draws


def test_icem_draws_noise_that_lasts_over_the_horizon():
    kept = {}
    for beta in (0.0, 2.0):
        model = Bowl()
        size = {"horizon": 12, "iterations": 1, "samples": 400, "elites": 5, "keep": 0.0}
        agent = ICEM(model, **size, beta=beta)
        agent.plan(moment(torch.zeros(1, 1, 12, 2), [0.0, 0.0]))
        plans = torch.stack(model.asked, 1)[1:]  # (399, h, nu); the first is the mean
        kept[beta] = float((plans[:, 1:] * plans[:, :-1]).mean() / plans.square().mean())
    assert abs(kept[0.0]) < 0.05 and kept[2.0] > 0.5, kept


def test_icem_acts_with_the_best_plan_it_met_and_remembers_its_elites():
    model = Bowl()
    agent = ICEM(model, **SIZE)
    action, memory = agent.plan(moment(torch.zeros(1, 4, 4, 2), [0.3, -0.3]))
    worth, best = -torch.inf, None
    for i in range(0, 12, 4):
        plans = torch.stack(model.asked[i : i + 4], 1)
        rng = torch.Generator()
        belief = {"target": torch.tensor([[0.3, -0.3]])}
        values = evaluate(model, belief, plans[None], rng)[0]
        if values.max() > worth:
            worth, best = values.max(), plans[values.argmax()]
    assert torch.equal(action[0], best[0]) and torch.equal(memory[0, 1], best)
    assert memory.shape == (1, 1 + 3, 4, 2)


def test_icem_remembers_across_decisions_by_its_carry():
    agent = ICEM(Bowl(), **SIZE)
    step = {"target": np.array([[0.5, 0.5], [-0.5, 0.0]], np.float32), "first": np.ones(2, bool)}
    _, carry = agent.act(step, agent.start(np.arange(2)))
    assert carry["mean"].shape == (2, 4, 4, 2)
    agent.model.asked.clear()
    agent.act(step | {"first": np.array([False, True])}, carry)
    first = torch.stack(agent.model.asked[:4], 1).view(2, 43, 4, 2)
    np.testing.assert_array_equal(first[0, 40:, :3], carry["mean"][0, 1:, 1:])
    assert not first[1, 40:, :3].any()  # an episode that began remembers nothing


# ---- gradients


class Ridge(Bowl):
    """A quadratic over the whole plan whose optimum is a linear equation's solution."""

    hessian = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 0.5]])
    slope = torch.tensor([0.4, -0.2, 0.15])
    nu, discount = 3, 1.0

    def imagine(self, belief, action, rng):
        pay = action @ self.slope - 0.5 * ((action @ self.hessian) * action).sum(1)
        return belief, pay, torch.ones(len(action))

    def start(self, n):
        return {"target": torch.zeros(n, 3)}


def test_the_gradient_finds_the_analytic_optimum_where_samples_stay_coarse():
    exact = torch.linalg.solve(Ridge.hessian, Ridge.slope).numpy()
    assert np.abs(exact).max() < 1
    step = {"target": np.zeros((2, 3), np.float32), "first": np.ones(2, bool)}
    fine = Gradient(Ridge(), horizon=3, iterations=150, samples=8, lr=0.03)
    action, _ = fine.act(step, fine.start(np.arange(2)))
    np.testing.assert_allclose(action, [exact, exact], atol=0.01)
    still = Gradient(Ridge(), horizon=3, iterations=1, samples=8)
    action, _ = still.act(step, still.start(np.arange(2)))
    assert np.abs(action - exact).max() > 0.1


def test_the_gradient_starts_from_the_plan_of_before():
    agent = Gradient(Bowl(), horizon=3, iterations=2, samples=1, proposals=0, lr=0.01)
    step = {"target": np.array([[0.9, 0.9]], np.float32), "first": np.array([True])}
    carry, reached = agent.start(np.array([0])), []
    for _ in range(3):
        action, carry = agent.act(step, carry)
        step["first"] = np.array([False])
        reached.append(action[0, 0])
    np.testing.assert_allclose(reached, [0.01, 0.02, 0.03], atol=1e-4)


def test_a_model_without_gradients_is_refused():
    class Opaque(Bowl):
        differentiable = False

    with pytest.raises(ValueError, match="Opaque gives no gradients to climb; plan with MPPI"):
        Gradient(Opaque())
    with pytest.raises(ValueError, match=r"lr 0\.0"):
        Gradient(Bowl(), lr=0.0)
    for wrong in ({"keep": 1.5}, {"momentum": 1.0}, {"beta": -1.0}, {"max_std": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ICEM(Bowl(), **wrong)
    with pytest.raises(ValueError, match=r"decay 0.5 is below 1"):
        ICEM(Bowl(), decay=0.5)


def tdmpc2():
    box = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    model = TDMPC2(gymnasium.spaces.Dict(proprio=box), 2, size=1, episodic=True)
    with torch.no_grad():
        for p in (model.reward.layers[-1].weight, model.critics.weight[-1]):
            p.normal_(0, 0.5, generator=torch.Generator().manual_seed(p.numel()))
    return model


def test_the_return_through_tdmpc2_has_the_slope_of_finite_differences():
    model = tdmpc2().double()
    z = model.encoder(torch.randn(2, 3, dtype=torch.float64)).detach()
    plans = torch.rand(2, 4, 3, 2, dtype=torch.float64) - 0.5
    plans[:, 1] = plans[:, 0]  # equal candidates have equal slopes, each its own

    def worth(p):
        # in float64 up to the last step: evaluate itself answers in float32
        total, belief = 0.0, {"z": z.repeat_interleave(4, 0)}
        for t in range(3):
            belief, reward, alive = model.imagine(belief, p[:, :, t].reshape(8, 2), None)
            total = total + reward * alive
        return total.view(2, 4)

    plans.requires_grad_()
    (slope,) = torch.autograd.grad(worth(plans).sum(), plans)
    assert torch.allclose(slope[:, 0], slope[:, 1]) and (slope.abs() > 1e-9).all()
    with torch.no_grad():
        for index in [(0, 0, 0, 1), (1, 2, 1, 0), (0, 3, 2, 1), (1, 1, 0, 0)]:
            nudge = torch.zeros_like(plans)
            nudge[index] = 1e-5
            ascent = (worth(plans + nudge) - worth(plans - nudge)).sum() / 2e-5
            torch.testing.assert_close(slope[index], ascent, rtol=1e-4, atol=1e-9)


def test_climbing_through_tdmpc2_betters_its_own_return():
    model, worths = tdmpc2(), []
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    belief = {"z": model.encoder(z).detach()}
    for iterations in (1, 12):
        agent = Gradient(model, horizon=3, iterations=iterations, samples=8, proposals=2)
        step = {"proprio": z.numpy(), "first": np.ones(4, bool)}
        _, carry = agent.act(step, agent.start(np.arange(4)))
        plan = torch.from_numpy(carry["mean"])[:, None].expand(-1, 16, -1, -1)
        with torch.no_grad():
            worths.append(evaluate(model, belief, plan, torch.Generator().manual_seed(0)).mean())
    assert worths[1] > worths[0] + 0.05 * abs(worths[0])
    assert all(p.grad is None for p in model.parameters())
