"""Search: what plans are worth, what is kept out of, the colour of noise, and the time there is."""

import numpy as np
import pytest
import torch

from umwelten.agents import moment
from umwelten.agents.limits import Limits
from umwelten.agents.moment import Clock
from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, RandomShooting
from umwelten.agents.search import coloured, evaluate
from umwelten.world_models.model import WorldModel

SMALL = {
    MPPI: {"horizon": 2, "iterations": 5, "samples": 16, "proposals": 0, "elites": 4},
    CEM: {"horizon": 2, "iterations": 5, "samples": 16, "elites": 4},
    ICEM: {"horizon": 2, "iterations": 5, "samples": 16, "elites": 4},
    Gradient: {"horizon": 2, "iterations": 5, "samples": 4, "proposals": 0},
    RandomShooting: {"horizon": 2, "iterations": 5, "samples": 16},
}
ALL = pytest.mark.parametrize("planner", list(SMALL), ids=lambda p: p.__name__)


class Toy(WorldModel):
    """Follows `step["x"]` (n, 2) exactly; imagined, x moves by a third of the action."""

    nu, discount, device, differentiable = 2, 0.9, torch.device("cpu"), True

    def __init__(self, pay=lambda x, a: a.sum(1), speed=1 / 3, alive=1.0):
        super().__init__()
        self.pay, self.speed, self.alive, self.asked = pay, speed, alive, []

    def start(self, n):
        return {"x": torch.zeros(n, 2)}

    def observe(self, belief, action, step, rng):
        return {"x": step["x"]}

    def imagine(self, belief, action, rng):
        self.asked.append((belief["x"], action))
        alive = torch.full((len(action),), self.alive)
        return {"x": belief["x"] + self.speed * action}, self.pay(belief["x"], action), alive

    def decode(self, belief):
        return {"place": belief["x"]}

    def update(self, batch):
        return {}


def steps(x, first=True):
    x = np.asarray(x, np.float32)
    return {"x": x, "first": np.full(len(x), first)}


# ---- the worth of a plan


class Table(WorldModel):
    """Three steps known by heart: step t pays 10^t * (action's first component), lives by p[t]."""

    nu, discount, device = 1, 0.5, torch.device("cpu")
    p = torch.tensor([1.0, 0.5, 0.25])

    def start(self, n):
        return {"t": torch.zeros(n, dtype=torch.int64)}

    def observe(self, belief, action, step, rng):
        return belief

    def imagine(self, belief, action, rng):
        t = belief["t"]
        return {"t": t + 1}, 10.0**t * action[:, 0], self.p[t]

    def value(self, belief, rng):
        return 1000.0 * belief["t"]

    def update(self, batch):
        return {}


def test_a_plan_is_worth_what_is_computed_by_hand():
    plans = torch.tensor([[[1.0, 1.0, 1.0], [0.5, -1.0, 0.2]]])[..., None]
    worth = evaluate(Table(), Table().start(1), plans, torch.Generator())
    # reward 1, then 10 after discount 0.5 and survival 1, then 100 after 0.25 and 0.5;
    # then the value 3000 after 0.125 and 0.125
    last = 0.125 * 0.125 * 3000
    expected = [1 + 0.5 * 10 + 0.25 * 0.5 * 100 + last, 0.5 - 0.5 * 10 + 0.125 * 20 + last]
    np.testing.assert_allclose(worth.numpy(), [expected], rtol=1e-6)


def test_the_model_is_asked_about_each_candidates_own_action_and_row():
    model = Toy(speed=0.0)
    belief = {"x": torch.tensor([[10.0, 0.0], [20.0, 0.0]])}
    plans = torch.rand(2, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    worth = evaluate(model, belief, plans, torch.Generator())
    assert len(model.asked) == 3
    for t, (x, action) in enumerate(model.asked):
        torch.testing.assert_close(action.view(2, 5, 2), plans[:, :, t])
        assert x[:, 0].view(2, 5).tolist() == [[10.0] * 5, [20.0] * 5]
    pay = plans.sum(3) * torch.tensor([1.0, 0.9, 0.81])
    torch.testing.assert_close(worth, pay.sum(2))


def test_the_order_of_candidates_does_not_matter():
    model = Toy(lambda x, a: (a * x).sum(1))
    belief = {"x": torch.randn(3, 2)}
    plans = torch.rand(3, 9, 4, 2)
    order = torch.randperm(9)
    worth = evaluate(model, belief, plans, torch.Generator())
    shuffled = evaluate(model, belief, plans[:, order], torch.Generator())
    assert torch.equal(worth[:, order], shuffled)


@ALL
def test_a_model_that_ignores_actions_leaves_planners_indifferent(planner):
    """Of what such a model says of the world, nothing reaches the action; else it does."""
    acts = {}
    for name, pay in {
        "deaf": lambda x, a: 7.0 * x[:, 0] + 0.0 * a.sum(1),
        "hearing": lambda x, a: 7.0 * x[:, 0] * a[:, 0],
    }.items():
        agent = planner(Toy(pay, speed=0.0), **SMALL[planner])
        for x in (-1.0, 1.0):
            acts[name, x], _ = agent.act(steps([[x, 0]] * 3), agent.start(np.arange(3)))
    assert np.array_equal(acts["deaf", -1.0], acts["deaf", 1.0])
    assert (acts["hearing", 1.0][:, 0] > acts["hearing", -1.0][:, 0] + 0.3).all()


# ---- several rollouts


class Gamble(Toy):
    """Pays the action's first component and a throw of the dice."""

    def imagine(self, belief, action, rng):
        belief, reward, alive = super().imagine(belief, action, rng)
        return belief, reward + torch.randn(len(reward), generator=rng), alive


def test_several_rollouts_average_chance_away():
    model, plans = Gamble(), torch.zeros(2, 4000, 1, 2)
    plans[1] = 0.5
    spread = []
    for rollouts in (1, 4, 16):
        rng = torch.Generator().manual_seed(0)
        worth = evaluate(model, model.start(2), plans, rng, rollouts=rollouts)
        assert worth.shape == (2, 4000)
        np.testing.assert_allclose(worth.mean(1), [0.0, 1.0], atol=0.06)
        spread.append(worth.std(1).mean().item())
    np.testing.assert_allclose(spread, [1, 1 / 2, 1 / 4], rtol=0.05)
    rows = [len(action) for _, action in model.asked]
    assert sum(rows) == 2 * 4000 * (1 + 4 + 16)


# ---- what is kept out of


def right(seen):
    return seen["place"][:, 0] > 0.5


def test_every_step_inside_costs_more_than_any_return_brings():
    model = Toy(lambda x, a: 1e6 * a[:, 0])
    plans = torch.rand(3, 400, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    belief, rng = {"x": torch.tensor([[-0.2, 0.0], [0.0, 0.0], [0.4, 0.0]])}, torch.Generator()
    free = evaluate(model, belief, plans, rng)
    worth = evaluate(model, belief, plans, rng, keep_out=right)
    place = belief["x"][:, None, :1] + plans[..., 0].cumsum(2) / 3
    inside = (place > 0.5).sum(2)
    assert torch.equal(worth[inside == 0], free[inside == 0])
    for row in range(3):
        steps_inside = inside[row][worth[row].argsort(descending=True)]
        assert 0 in steps_inside and (steps_inside.diff() >= 0).all()
        entered = inside[row] > 0
        assert free[row][entered].mean() > free[row][~entered].mean()  # it is what pays


def test_one_rollout_inside_is_enough_and_what_follows_a_likely_end_is_not():
    class Drift(Toy):
        def imagine(self, belief, action, rng):
            belief, reward, alive = super().imagine(belief, action, rng)
            return {"x": belief["x"] + torch.randn(len(action), 2, generator=rng)}, reward, alive

    rng, plan = torch.Generator().manual_seed(0), torch.zeros(1, 1, 1, 2)
    model = Drift()
    assert evaluate(model, model.start(1), plan, rng, rollouts=64, keep_out=right) < -1e20
    plan = torch.ones(1, 1, 2, 2)  # arrives at 1/3, then at 2/3
    for alive, inside in ((0.9, True), (0.1, False)):
        model = Toy(alive=alive)
        worth = evaluate(model, model.start(1), plan, rng, keep_out=right)
        assert (worth < -1e20).item() == inside
    model = Toy(alive=0.0)
    worth = evaluate(model, model.start(1) | {"x": torch.ones(1, 2)}, plan, rng, keep_out=right)
    assert worth < -1e20  # where the end is reached is reached


def test_a_keep_out_that_cannot_be_judged_is_refused():
    class Blank(Toy):
        def decode(self, belief):
            return {}

    plan, rng = torch.zeros(1, 3, 1, 2), torch.Generator()
    with pytest.raises(ValueError, match="Blank decodes nothing"):
        evaluate(Blank(), Blank().start(1), plan, rng, keep_out=right)
    with pytest.raises(ValueError, match=r"return bool \(3,\)"):
        evaluate(Toy(), Toy().start(1), plan, rng, keep_out=lambda seen: seen["place"] > 0)


@ALL
def test_no_planner_acts_into_the_keep_out_that_its_model_sees(planner):
    size = SMALL[planner] | ({"samples": 64} if planner is not Gradient else {"samples": 16})
    entered = []
    for limits in (Limits(keep_out=right), Limits()):
        agent, x = planner(Toy(lambda x, a: 9 * a[:, 0]), **size, limits=limits), np.zeros((3, 2))
        carry, places = agent.start(np.arange(3)), []
        for t in range(8):
            action, carry = agent.act(steps(x, t == 0), carry)
            x = x + action / 3
            places.append(x[:, 0])
        entered.append((np.array(places) > 0.5 + 1e-6).any())
    assert entered == [False, True]


def test_cem_acts_beside_a_keep_out_that_the_mean_of_its_elites_lies_in():
    model = Toy(lambda x, a: a[:, 0].abs())  # both sides pay alike, the middle is kept out of
    limits = Limits(keep_out=lambda seen: seen["place"][:, 0].abs() < 0.1)
    size = {"horizon": 1, "iterations": 1, "samples": 64, "elites": 16}
    acted = {}
    for name, given in (("free", None), ("kept", limits)):
        agent = CEM(model, **size, limits=given)
        acted[name], _ = agent.act(steps(np.zeros((20, 2))), agent.start(np.arange(20)))
    inside = {k: (np.abs(v[:, 0] / 3) < 0.1).mean() for k, v in acted.items()}
    assert inside["free"] > 0.3 and inside["kept"] == 0, inside


# ---- coloured noise


@pytest.mark.parametrize("h", [3, 12, 31])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.5])
def test_noise_has_the_spectrum_that_is_stated(h, beta):
    white = torch.randn(20000, h, 2, generator=torch.Generator().manual_seed(0))
    noise = coloured(white, beta)
    np.testing.assert_allclose(noise.var(0), 1.0, rtol=0.06)
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2)).numpy()[1:]
    law = np.arange(1, h // 2 + 1) ** -beta
    np.testing.assert_allclose(power / power[0], law, rtol=0.06)
    flat = torch.fft.rfft(white, dim=1).abs().square().mean((0, 2)).numpy()[1:]
    if h > 3:  # the check sees noise without colour
        assert np.abs(flat / flat[0] - law).max() > 0.2


def test_no_colour_leaves_the_draws_alone():
    white = torch.randn(3, 5, 2)
    assert coloured(white, 0.0) is white
    assert torch.equal(coloured(white[:, :1], 2.0), white[:, :1])
    assert coloured(white[:0], 2.0).shape == (0, 5, 2)


# ---- the time there is


@pytest.fixture
def ticking(monkeypatch):
    """Returns a clock whose time passes only where it is told to, in ms."""
    now = [0.0]
    monkeypatch.setattr(moment, "perf_counter", lambda: now[0] / 1000)
    return now


@pytest.mark.parametrize(
    ("deadline", "cost", "done"),
    [(100, [10] * 9, 9), (35, [10] * 9, 3), (5, [10] * 9, 1), (60, [5, 30, 5, 1, 1], 2)],
)
def test_iterations_end_before_one_would_pass_the_deadline(ticking, deadline, cost, done):
    clock = Clock(deadline)
    for i in clock.iterations(len(cost)):
        ticking[0] += cost[i]
    assert clock.done == done
    assert ticking[0] <= deadline or done == 1


@ALL
def test_planners_keep_a_deadline_and_act_by_what_they_have(ticking, planner):
    class Slow(Toy):
        def imagine(self, belief, action, rng):
            ticking[0] += 2.0
            return super().imagine(belief, action, rng)

    x = steps(np.zeros((2, 2)))
    for deadline, done in ((None, 5), (13.0, 3), (1.0, 1)):
        agent = planner(Slow(), **SMALL[planner], deadline_ms=deadline)  # 4 ms an iteration
        ticking[0] = 0.0
        action, carry = agent.act(x, agent.start(np.arange(2)))
        assert carry["iterations"].tolist() == [done] * 2
        assert action.shape == (2, 2) and np.isfinite(action).all()
    if planner is not ICEM:  # whose mean competes in what is meant to be the last iteration
        short = planner(Toy(), **SMALL[planner] | {"iterations": 1})
        assert np.array_equal(short.act(x, short.start(np.arange(2)))[0], action)


def test_without_a_deadline_no_time_is_looked_at(monkeypatch):
    def refuse():
        raise AssertionError("the clock was read")

    monkeypatch.setattr(moment, "perf_counter", refuse)
    agent = CEM(Toy(), **SMALL[CEM])
    agent.act(steps(np.zeros((1, 2))), agent.start(np.arange(1)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"deadline_ms": 0.0}, "deadline_ms 0.0 is not > 0"),
        ({"rollouts": 0}, "rollouts 0 is below 1"),
        ({"iterations": 0}, "iterations 0 is below 1"),
        ({"limits": Limits(rate=(0.1, 0.1, 0.1))}, "rate has 3 components, an action 2"),
    ],
)
@ALL
def test_what_no_planner_can_do_is_refused(planner, wrong, says):
    with pytest.raises(ValueError, match=says):
        planner(Toy(), **SMALL[planner] | wrong)
