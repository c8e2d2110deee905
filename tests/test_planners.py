"""Planners: what a plan is worth, what is found, what is remembered, and the published MPPI."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umwelten.agents.moment import Clock, Moment, Noise
from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, Prior, RandomShooting
from umwelten.world_models.contract import ContractError
from umwelten.world_models.model import WorldModel

SMALL = {
    MPPI: {"horizon": 2, "iterations": 3, "samples": 32, "proposals": 4, "elites": 6},
    CEM: {"horizon": 2, "iterations": 3, "samples": 32, "elites": 6},
    ICEM: {"horizon": 4, "iterations": 3, "samples": 32, "elites": 6},
    Gradient: {"horizon": 2, "iterations": 3, "samples": 8},
    RandomShooting: {"horizon": 2, "samples": 32},
}
ALL = pytest.mark.parametrize("planner", list(SMALL), ids=lambda p: p.__name__)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Toy(WorldModel):
    """Follows `step["x"]` exactly; imagined, x stays and `pay(x, action)` is earned."""

    differentiable = True

    def __init__(self, pay=lambda x, a: a.sum(1), nu=2, size=3, discount=0.9, proposal=None):
        super().__init__()
        self.nu, self.size, self.discount = nu, size, discount
        self.device = torch.device("cpu")
        self.pay, self.proposal, self.asked = pay, proposal, []

    def start(self, n):
        return {"x": torch.zeros(n, self.size)}

    def observe(self, belief, action, step, rng):
        return {"x": step["x"]}

    def imagine(self, belief, action, rng):
        self.asked.append((belief["x"], action))
        return belief, self.pay(belief["x"], action), torch.ones(len(action))

    def propose(self, belief, rng):
        return None if self.proposal is None else self.proposal(belief["x"])

    def update(self, batch):
        return {}


def steps(x, first=True):
    x = np.asarray(x, np.float32)
    return {"x": x, "first": np.full(len(x), first)}


class Levels(Noise):
    """Draws these four numbers, in every row, as the normal noise of four one-step plans."""

    values = torch.tensor([-1.0, -0.4, 0.2, 0.8])

    def normal(self, *shape):
        return self.values.view(1, 4, 1, 1).expand(len(self.streams), *shape).clone()


def moment(model, n):
    noise = Levels(np.arange(n), np.zeros(n, int), model.device)
    mean, last = torch.zeros(n, 1, model.nu), torch.zeros(n, model.nu)
    return Moment(model.start(n), mean, noise, torch.Generator(), last, Clock())


# ---- what is found


@ALL
def test_finds_the_optimum_of_a_quadratic(planner):
    def pay(x, a):
        return -30.0 * (a - x[:, :2]).square().sum(1)

    model = Toy(pay, nu=2, size=2)
    size = {"horizon": 2, "samples": {RandomShooting: 4096, Gradient: 16}.get(planner, 512)}
    agent = planner(model, **size)
    best = np.array([[0.4, -0.3], [-0.8, 0.1], [0.0, 0.95]], np.float32)
    action, _ = agent.act(steps(best), agent.start(np.arange(3)))
    np.testing.assert_allclose(action, best, atol=0.15)
    blind = planner(Toy(lambda x, a: 0 * a.sum(1), nu=2, size=2), **size)
    away, _ = blind.act(steps(best), blind.start(np.arange(3)))
    assert np.abs(away - best).max() > 0.3  # the tolerance is one that blindness fails


A = np.array([[1.0, 0.2], [0.0, 1.0]])
B = np.array([[0.02], [0.2]])
Q, R, GAMMA, SCALE = np.diag([1.0, 0.1]), np.array([[0.1]]), 0.97, 20.0


def riccati(rounds=2000):
    p = Q
    for _ in range(rounds):
        gain = np.linalg.solve(R + GAMMA * B.T @ p @ B, GAMMA * B.T @ p @ A)
        p = Q + GAMMA * A.T @ p @ (A - B @ gain)
    return p, gain


class LQ(WorldModel):
    """A cart on a line, cost x'Qx + u'Ru a step; `sees` False makes it blind to the cost."""

    nu, discount, device, differentiable = 1, GAMMA, torch.device("cpu"), True

    def __init__(self, bounded_by=None, sees=True):
        super().__init__()
        self.cost_to_go, self.sees = bounded_by, sees
        self.a, self.b = torch.tensor(A).float(), torch.tensor(B).float()

    def start(self, n):
        return {"x": torch.zeros(n, 2)}

    def observe(self, belief, action, step, rng):
        return {"x": step["x"]}

    def imagine(self, belief, action, rng):
        x = belief["x"]
        cost = x.square() @ torch.tensor(np.diag(Q)).float() + R.item() * action[:, 0] ** 2
        return {"x": x @ self.a.T + action @ self.b.T}, -SCALE * self.sees * cost, cost * 0 + 1

    def value(self, belief, rng):
        x = belief["x"]
        p = torch.tensor(self.cost_to_go if self.cost_to_go is not None else 0 * Q).float()
        return -SCALE * self.sees * ((x @ p) * x).sum(1)

    def update(self, batch):
        return {}


def cost_ratio(agent, decisions=60):
    """Closed-loop discounted cost of the agent over 4 starts, divided by the Riccati optimum."""
    x = np.array([[0.5, 0.0], [-0.4, 0.2], [0.3, 0.3], [0.0, -0.5]])
    p, _ = riccati()
    optimum = np.einsum("ni,ij,nj->", x, p, x)
    carry, total = agent.start(np.arange(4)), 0.0
    for t in range(decisions):
        u, carry = agent.act(steps(x, first=t == 0), carry)
        cost = np.einsum("ni,ij,nj->", x, Q, x) + np.einsum("ni,ij,nj->", u, R, u)
        total += GAMMA**t * cost
        x = x @ A.T + u @ B.T
    return total / optimum


LQR = [
    (MPPI, {"horizon": 3, "samples": 256, "elites": 32}),
    (CEM, {"horizon": 3, "samples": 256, "elites": 32}),
    (ICEM, {"horizon": 3, "samples": 128}),
    (Gradient, {"horizon": 3, "lr": 0.05}),
    (RandomShooting, {"horizon": 3, "samples": 2048}),
]
GATE = 1.1


@pytest.mark.parametrize(("planner", "size"), LQR, ids=lambda v: getattr(v, "__name__", ""))
def test_closed_loop_cost_is_near_the_riccati_optimum(planner, size):
    assert 0.999 < cost_ratio(planner(LQ(riccati()[0]), **size)) < GATE


@pytest.mark.parametrize(("planner", "size"), LQR, ids=lambda v: getattr(v, "__name__", ""))
def test_a_blind_model_fails_the_same_gate(planner, size):
    assert cost_ratio(planner(LQ(riccati()[0], sees=False), **size)) > 2 * GATE


def test_a_plan_too_short_to_see_the_goal_needs_the_terminal_value():
    size = {"horizon": 1, "samples": 128, "elites": 16}
    assert cost_ratio(MPPI(LQ(None), **size)) > 2 * GATE
    assert cost_ratio(MPPI(LQ(riccati()[0]), **size)) < GATE


def test_a_long_plan_needs_no_value():
    assert cost_ratio(CEM(LQ(None), horizon=25, iterations=10)) < GATE


@settings(max_examples=25, deadline=None)
@given(
    planner=st.sampled_from(list(SMALL)),
    n=st.integers(1, 4),
    nu=st.integers(1, 5),
    horizon=st.integers(1, 4),
    gain=st.floats(-1e4, 1e4),
    seed=st.integers(0, 2**63 - 1),
)
def test_actions_never_leave_the_bounds(planner, n, nu, horizon, gain, seed):
    model = Toy(
        lambda x, a: gain * a.sum(1), nu=nu, proposal=lambda x: 5.0 * x.new_ones(len(x), nu)
    )
    size = SMALL[planner] | {"horizon": horizon}
    agent = planner(model, **size, explore=True)
    carry = agent.start(np.full(n, seed))
    for first in (True, False):
        action, carry = agent.act(steps(np.zeros((n, 3)), first), carry)
        assert action.shape == (n, nu) and action.dtype == np.float32
        assert np.all(np.abs(action) <= 1.0)
        assert np.all(np.abs(carry["mean"]) <= 1.0 + 1e-6)


@ALL
def test_a_nan_does_not_poison_the_plan(planner):
    def pay(x, a):
        return torch.where(a[:, 0] > 0.2, torch.nan, 50 * (1 - (a[:, 0] + 0.5).abs()))

    size = SMALL[planner] | {"samples": 512, "horizon": 1}
    agent = planner(Toy(pay, nu=1), **size)
    action, carry = agent.act(steps(np.zeros((2, 3))), agent.start(np.arange(2)))
    np.testing.assert_allclose(action, -0.5, atol=0.15)
    assert all(np.isfinite(value).all() for value in carry.values())


@ALL
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_seen_and_is_no_number_is_refused_by_name(planner, value):
    model = Toy(proposal=lambda x: x[:, :2])
    model.observation = {"x": None}
    for agent in (planner(model, **SMALL[planner]), Prior(model)):
        step = steps(np.zeros((3, 3))) | {"unread": np.full(3, value)}
        agent.act(step, agent.start(np.arange(3)))
        step["x"][1, 2] = value
        with pytest.raises(ContractError, match=r"'x' of the step is not finite in rows \[1\]"):
            agent.act(step, agent.start(np.arange(3)))


# ---- rows


def tilted(**more):
    return Toy(lambda x, a: -5.0 * (a - x[:, :2]).square().sum(1), **more)


@ALL
def test_rows_do_not_know_of_each_other(planner):
    agent = planner(tilted(), **SMALL[planner])
    x, seeds = np.random.default_rng(0).uniform(-1, 1, (3, 3)), np.array([5, 6, 7])
    together, _ = agent.act(steps(x), agent.start(seeds))
    for i in range(3):
        alone, _ = agent.act(steps(x[i : i + 1]), agent.start(seeds[i : i + 1]))
        np.testing.assert_allclose(together[i], alone[0], atol=1e-6)
    x[2] = 100.0
    changed, _ = agent.act(steps(x), agent.start(seeds))
    assert np.array_equal(changed[:2], together[:2])
    assert not np.array_equal(changed[2], together[2])


# ---- proposals and exploration


def corner(x):
    return torch.full((len(x), 12), 0.77)


def needle(x, a):
    return 100.0 * ((a - 0.77).abs() < 0.01).all(1)


def test_a_proposal_that_samples_cannot_reach_is_taken():
    x = steps(np.zeros((2, 3)))
    told = MPPI(Toy(needle, nu=12, proposal=corner))
    action, _ = told.act(x, told.start(np.arange(2)))
    np.testing.assert_allclose(action, 0.77, atol=0.01)
    for model, proposals in ((Toy(needle, nu=12), 24), (Toy(needle, nu=12, proposal=corner), 0)):
        untold = MPPI(model, proposals=proposals)
        action, _ = untold.act(x, untold.start(np.arange(2)))
        assert np.abs(action - 0.77).max() > 0.1


class Counting(Toy):
    """x counts imagined steps; the policy proposes (x + 1) / 10."""

    def imagine(self, belief, action, rng):
        _, reward, alive = super().imagine(belief, action, rng)
        return belief | {"x": belief["x"] + 1}, reward, alive


def test_proposals_are_rolled_through_the_model_once_and_compete_in_every_iteration():
    model = Counting(nu=1, size=1, proposal=lambda x: (x + 1) / 10)
    agent = MPPI(model, horizon=3, iterations=4, samples=20, proposals=5, elites=3)
    agent.act(steps(np.zeros((2, 1))), agent.start(np.arange(2)))
    assert [len(action) for _, action in model.asked] == [10] * 2 + [40] * 12
    for i, (_, action) in enumerate(model.asked[2:]):
        np.testing.assert_allclose(action.view(2, 20)[:, :5], (i % 3 + 1) / 10)
    silent = Counting(nu=1, size=1)
    agent = MPPI(silent, horizon=3, iterations=4, samples=20, proposals=5, elites=3)
    agent.act(steps(np.zeros((2, 1))), agent.start(np.arange(2)))
    assert [len(action) for _, action in silent.asked] == [40] * 12  # samples take their place


@ALL
def test_who_collects_is_noisy_and_plans_as_before(planner):
    size, step = SMALL[planner] | {"horizon": 2}, steps(np.zeros((400, 3)))
    never, calm, keen = (planner(tilted(), **size, **e) for e in ({}, {"explore": 0.0},
                                                                  {"explore": 0.2}))  # fmt: skip
    acted = [agent.act(step, agent.start(np.arange(400))) for agent in (never, calm, keen)]
    (quiet, kept), (same, _), (noisy, keen_kept) = acted
    assert np.array_equal(quiet, same) and np.array_equal(kept["mean"], keen_kept["mean"])
    noise = (noisy - quiet)[(np.abs(quiet) < 0.3).all(1)]
    assert noise.size > 200
    assert noise.std() == pytest.approx(0.2, rel=0.15) and abs(noise.mean()) < 0.05
    alone, _ = keen.act(steps(np.zeros((1, 3))), keen.start(np.array([7])))
    np.testing.assert_allclose(alone[0], noisy[7], atol=1e-6)  # by the row's own stream
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="is no std >= 0"):
            planner(tilted(), **size, explore=wrong)


def test_noise_is_added_only_to_explore():
    size = SMALL[MPPI] | {"min_std": 0.3}
    calm, keen = MPPI(tilted(), **size), MPPI(tilted(), **size, explore=True)
    step = steps(np.zeros((400, 3)))
    quiet, kept = calm.act(step, calm.start(np.arange(400)))
    noisy, keen_kept = keen.act(step, keen.start(np.arange(400)))
    assert np.array_equal(kept["mean"], keen_kept["mean"])
    inside = np.abs(noisy) < 1
    spread = (noisy - quiet)[inside].std()
    assert 0.25 < spread < 0.8 and abs((noisy - quiet)[inside].mean()) < 0.05


def test_the_elite_is_drawn_by_its_score():
    model = Toy(lambda x, a: 2.0 * a[:, 0], nu=1)
    agent = MPPI(model, horizon=1, iterations=1, samples=4, proposals=0, elites=3, max_std=1.0)
    action, mean = agent.plan(moment(model, 4000))
    levels = Levels.values.numpy()
    score = np.exp(0.5 * 2.0 * levels[1:]) / np.exp(0.5 * 2.0 * levels[1:]).sum()
    share = [(action[:, 0] - level).abs().lt(1e-6).float().mean().item() for level in levels]
    np.testing.assert_allclose(share, [0.0, *score], atol=0.03)
    np.testing.assert_allclose(mean.flatten(), score @ levels[1:], rtol=1e-5)


def test_cem_refits_to_its_elites_alike_and_acts_with_their_mean():
    model = Toy(lambda x, a: 9.0 * a[:, 0], nu=1)
    agent = CEM(model, horizon=1, iterations=2, samples=4, elites=2, max_std=0.5)
    action, mean = agent.plan(moment(model, 1))
    # -0.5 -0.2 0.1 0.4: the best two have mean 0.25, std 0.15; then 0.1 0.19 0.28 0.37
    assert action.item() == mean.item() == pytest.approx(0.325)


def test_the_prior_acts_by_the_models_own_policy():
    prior = Prior(Toy(proposal=lambda x: 3.0 * x[:, :2]))
    action, carry = prior.act(steps([[0.1, -0.2, 0], [0.9, 0, 0]]), prior.start(np.arange(2)))
    np.testing.assert_allclose(action, [[0.3, -0.6], [1.0, 0.0]], rtol=1e-6)
    assert np.array_equal(carry["action"], action)
    with pytest.raises(ValueError, match="Toy proposes no actions"):
        Prior(Toy())


# ---- the published algorithm, written down a second time


class Curved(WorldModel):
    """A small random nonlinear model, written in operations that numpy can repeat."""

    nu, discount, device = 2, 0.95, torch.device("cpu")

    def __init__(self, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.w, self.u, self.k = (rng.normal(size=s) for s in ((4, 4), (2, 4), (4, 2)))
        self.z0 = rng.normal(size=(2, 4))

    def follow(self, z, a, tanh):
        after = tanh(z @ self._as(self.w, z) + a @ self._as(self.u, z))
        return after, 3 * after[:, 0] - a[:, 0] ** 2, 0.5 + 0.5 * after[:, 1] ** 2

    @staticmethod
    def _as(array, like):
        return array if isinstance(like, np.ndarray) else torch.tensor(array)

    def start(self, n):
        return {"z": torch.tensor(self.z0)}

    def observe(self, belief, action, step, rng):
        return belief

    def imagine(self, belief, action, rng):
        z, reward, alive = self.follow(belief["z"], action.double(), torch.tanh)
        return {"z": z}, reward, alive

    def value(self, belief, rng):
        return 2 * belief["z"][:, 2]

    def propose(self, belief, rng):
        return torch.tanh(belief["z"] @ torch.tensor(self.k))

    def update(self, batch):
        return {}


def published_mppi(model, row, mean, draws, gumbel, last, size):
    """MPPI for one row, loop by loop; `draws` (iterations, samples - proposals, h, nu)."""
    h, p, temperature = size["horizon"], size["proposals"], size["temperature"]
    plans = np.zeros((size["samples"], h, model.nu))
    z = model.z0[row : row + 1]
    for t in range(h):
        a = np.tanh(z @ model.k)
        plans[:p, t] = a
        z, _, _ = model.follow(z, a, np.tanh)
    mean, std = mean.copy(), np.full_like(mean, size["max_std"])
    for draw in draws:
        plans[p:] = np.clip(mean + std * draw, -1, 1)
        worth = np.zeros(len(plans))
        for k, plan in enumerate(plans):
            z, living = model.z0[row : row + 1], 1.0
            for t in range(h):
                z, reward, alive = model.follow(z, plan[t : t + 1], np.tanh)
                worth[k] += model.discount**t * living * reward[0]
                living *= alive[0]
            worth[k] += model.discount**h * living * 2 * z[0, 2]
        best = np.argsort(-worth)[: size["elites"]]
        score = np.exp(temperature * (worth[best] - worth[best].max()))
        score /= score.sum()
        mean = np.einsum("k,ktu->tu", score, plans[best])
        std = np.sqrt(np.einsum("k,ktu->tu", score, (plans[best] - mean) ** 2))
        std = np.clip(std, size["min_std"], size["max_std"])
    pick = best[np.argmax(np.log(score) + gumbel)]
    return np.clip(plans[pick, 0] + std[0] * last, -1, 1), mean


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_std", [2.0, 0.2])
@pytest.mark.parametrize("explore", [False, True])
def test_mppi_is_the_published_one(seed, max_std, explore):
    size = {"horizon": 3, "iterations": 4, "samples": 40, "proposals": 5, "elites": 8}
    size |= {"temperature": 0.5, "min_std": 0.05, "max_std": max_std}
    rng = np.random.default_rng(seed)
    draws, gumbel = rng.normal(size=(4, 2, 35, 3, 2)), rng.gumbel(size=(2, 8))
    last = explore * rng.normal(size=(2, 2))

    queue = [*draws, last]

    class Given:
        def normal(self, *shape):
            return torch.tensor(queue.pop(0)).view(2, *shape)

        def gumbel(self, *shape):
            return torch.tensor(gumbel).view(2, *shape)

    model, warm = Curved(seed), rng.uniform(-1, 1, (2, 3, 2))
    now = Moment(
        model.start(2), torch.tensor(warm), Given(), torch.Generator(), torch.zeros(2, 2), Clock()
    )
    action, mean = MPPI(model, **size, explore=explore).plan(now)
    for row in range(2):
        expected, refit = published_mppi(
            model, row, warm[row], draws[:, row], gumbel[row], last[row], size
        )
        np.testing.assert_allclose(mean[row], refit, atol=1e-5)
        np.testing.assert_allclose(action[row].clamp(-1, 1), expected, atol=1e-5)


# ---- what is refused


@pytest.mark.parametrize(
    ("planner", "wrong", "says"),
    [
        (MPPI, {"elites": 600}, r"elites 600 is outside \[1, 512\]"),
        (MPPI, {"elites": 0}, "elites 0"),
        (MPPI, {"proposals": 512}, r"proposals 512 is outside \[0, 511\]"),
        (MPPI, {"horizon": 0}, "horizon 0 is below 1"),
        (MPPI, {"min_std": 0.0}, "0 < min_std"),
        (MPPI, {"min_std": 3.0}, "0 < min_std <= max_std"),
        (MPPI, {"temperature": 0.0}, "temperature 0.0"),
        (CEM, {"samples": 0}, "samples 0"),
        (CEM, {"max_std": 0.01}, "min_std 0.05 and max_std 0.01"),
        (RandomShooting, {"horizon": -1}, "horizon -1"),
    ],
)
def test_sizes_that_make_no_plan_are_refused(planner, wrong, says):
    with pytest.raises(ValueError, match=says):
        planner(Toy(), **wrong)
