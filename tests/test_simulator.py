"""SimulatorModel: what it imagines is what happens, and a planner that uses it solves the task."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from umwelten import registry
from umwelten.agents.planners import CEM, ICEM, MPPI, RandomShooting
from umwelten.agents.search import evaluate
from umwelten.envs.env import BatchEnv
from umwelten.world_models.simulator import SimulatorModel

DT = 0.05


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pendulum:
    """A weak pendulum in numpy: rows (angle from upright, rate, seconds); ends when it races."""

    single_action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, num_envs):
        self.num_envs, self.sizes = num_envs, []

    def physics(self):
        return np.zeros((self.num_envs, 3))

    def branch(self, physics, action):
        assert physics.dtype == np.float64 and len(physics) == len(action) <= self.num_envs
        self.sizes.append(len(physics))
        angle, rate, time = physics.T
        rate = rate + DT * (5.0 * np.sin(angle) + 3.0 * action[:, 0])
        angle = angle + DT * rate
        after = np.stack([angle, rate, time + DT], 1)
        return after, (1 + np.cos(angle)) / 2, np.abs(rate) > 12.0

    def look(self, physics):
        assert len(physics) <= self.num_envs
        return {"tip": np.stack([np.sin(physics[:, 0]), np.cos(physics[:, 0])], 1)}


def beliefs(n, seed=0):
    rng = np.random.default_rng(seed)
    physics = torch.tensor(rng.uniform(-3, 3, (n, 3)) * [1, 5, 1])
    return {"physics": physics}, torch.tensor(rng.uniform(-1, 1, (n, 1)), dtype=torch.float32)


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (4, [4]), (3, [3]), (10, [4, 4, 2])])
def test_imagines_any_number_of_rows_in_chunks_that_fit(n, sizes):
    env = Pendulum(4)
    belief, action = beliefs(n)
    after, reward, alive = SimulatorModel(env).imagine(belief, action, None)
    assert env.sizes == sizes
    expected, paid, ended = Pendulum(n).branch(belief["physics"].numpy(), action.numpy())
    assert np.array_equal(after["physics"].numpy(), expected)
    assert after["physics"].dtype == torch.float64
    assert reward.dtype == alive.dtype == torch.float32
    np.testing.assert_allclose(reward.numpy(), paid, rtol=1e-6)
    assert np.array_equal(alive.numpy(), 1.0 - ended)


def test_an_end_is_seen():
    belief = {"physics": torch.tensor([[0.0, 20.0, 0.0], [0.0, 0.0, 0.0]]).double()}
    _, _, alive = SimulatorModel(Pendulum(2)).imagine(belief, torch.zeros(2, 1), None)
    assert alive.tolist() == [0.0, 1.0]


def test_a_belief_is_the_steps_physics_whatever_was_believed_before():
    model = SimulatorModel(Pendulum(2), discount=0.9)
    assert model.nu == 1 and model.discount == 0.9
    start = model.start(5)
    assert start["physics"].shape == (5, 3) and start["physics"].dtype == torch.float64
    step = {"physics": torch.rand(5, 3).double(), "first": torch.zeros(5, dtype=torch.bool)}
    assert torch.equal(
        model.observe(start, torch.ones(5, 1), step, None)["physics"], step["physics"]
    )
    assert model.value(start, None).tolist() == [0.0] * 5
    assert model.propose(start, None) is None and model.update({}) == {}


@pytest.mark.parametrize("n", [1, 4, 10])
def test_decodes_any_number_of_rows_to_what_is_observed_there(n):
    belief, _ = beliefs(n)
    seen = SimulatorModel(Pendulum(4)).decode(belief)
    angle = belief["physics"][:, 0]
    assert torch.equal(seen["tip"], torch.stack([angle.sin(), angle.cos()], 1))
    assert torch.equal(seen["physics"], belief["physics"])


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"discount 1.5 is outside \(0, 1\]"):
        SimulatorModel(Pendulum(1), discount=1.5)
    model = SimulatorModel(Pendulum(1))
    with pytest.raises(ValueError, match="build its env with physics=True"):
        model.observe(model.start(1), torch.zeros(1, 1), {}, None)


def swing(env, horizon=15):
    """Mean reward over the last second of 5 s from hanging, two rows, planned through `env`."""
    world, physics = Pendulum(2), np.array([[np.pi, 0.0, 0.0], [np.pi - 0.3, 0.0, 0.0]])
    agent = MPPI(SimulatorModel(env), horizon, iterations=2, samples=64, elites=8, temperature=5.0)
    carry, rewards = agent.start(np.arange(2)), []
    for t in range(100):
        step = {"physics": physics, "first": np.full(2, t == 0)}
        action, carry = agent.act(step, carry)
        assert np.array_equal(carry["belief/physics"], physics)
        physics, reward, _ = world.branch(physics, action)
        rewards.append(reward)
    return np.mean(rewards[-20:])


class Unpaid(Pendulum):
    def branch(self, physics, action):
        after, reward, ended = super().branch(physics, action)
        return after, 0 * reward, ended


def test_a_weak_pendulum_swings_up_only_if_its_reward_is_seen():
    assert swing(Pendulum(100)) > 0.9
    assert swing(Unpaid(100), horizon=2) < 0.7


# ---- real worlds


@pytest.mark.parametrize("task", sorted(registry.members("envs")))
def test_what_is_imagined_is_what_happens_to_the_bit(task):
    n = 5
    world = BatchEnv(task, n, action_repeat=2, physics=True, nthread=1)
    model = SimulatorModel(BatchEnv(task, 2, action_repeat=2, max_episode_steps=-1, nthread=1))
    rng = np.random.default_rng(0)
    _, info = world.reset(seed=3)
    belief = {"physics": torch.from_numpy(info["physics"])}
    for _ in range(6):
        action = rng.uniform(-1, 1, (n, model.nu)).astype(np.float32)
        belief, paid, alive = model.imagine(belief, torch.from_numpy(action), None)
        _, reward, terminated, _, info = world.step(action)
        assert np.array_equal(belief["physics"].numpy(), info["physics"])
        assert np.array_equal(paid.numpy(), reward.astype(np.float32))
        assert np.array_equal(alive.numpy(), 1.0 - terminated)


@pytest.mark.parametrize("task", ["CartpoleSwingup", "Reach", "Push"])
def test_what_is_decoded_is_what_is_observed(task):
    world = BatchEnv(task, 3, physics=True, nthread=1)
    model = SimulatorModel(BatchEnv(task, 2, max_episode_steps=-1, nthread=1))
    world.reset(seed=3)
    for _ in range(3):
        seen, *_, info = world.step(world.action_space.sample() * 0 + 0.3)
    decoded = model.decode({"physics": torch.from_numpy(info["physics"])})
    for key in decoded.keys() - {"physics"}:
        np.testing.assert_allclose(decoded[key].numpy(), seen[key], atol=1e-6)
    assert decoded.keys() - {"physics"} == seen.keys() - {"instruction"}


PLANNERS = {
    MPPI: {"elites": 6, "proposals": 0, "temperature": 30.0},
    CEM: {"elites": 6},
    ICEM: {"elites": 6},
    RandomShooting: {},
}
H, ROWS = 5, 2
TASKS = [  # control steps of an action; the most that a planner, and that shooting, may regret
    ("CartpoleSwingup", 10, 0.5, 0.8),
    ("CartpoleBalance", 10, 0.5, 0.8),
    ("CheetahRun", 4, 0.5, 0.8),
    ("Reach", 1, 0.5, 0.8),
    ("PointMassEasy", 25, 0.8, 0.95),  # what pays is small, and far away
    pytest.param("Push", 1, 0.6, 0.8, marks=pytest.mark.slow),
    pytest.param("WalkerStand", 4, 0.5, 0.8, marks=pytest.mark.slow),
    pytest.param("PointGoal", 4, 0.5, 0.8, marks=pytest.mark.slow),
]


def earns(kind, model, truth, physics, iterations=4, samples=48, **size):
    """The return in truth (ROWS,) of what a planner plans at first sight of the physics."""
    agent = kind(model, horizon=H, iterations=iterations, samples=samples, **size)
    step = {"first": np.ones(ROWS, bool), "physics": physics}
    _, carry = agent.act(step, agent.start(np.arange(ROWS)))
    plan = torch.from_numpy(carry["mean"]).view(ROWS, -1, H, model.nu)
    belief = {"physics": torch.from_numpy(physics)}
    return evaluate(truth, belief, plan, torch.Generator()).amax(1)


def scripted(world, discount):
    """The return (ROWS,) of the task's own script over as many actions; -inf where it has none."""
    if world.task.expert(world.sim) is None:
        return torch.full((ROWS,), -torch.inf)
    paid = [world.step(world.expert())[1] * discount**t for t in range(H)]
    return torch.from_numpy(np.sum(paid, 0)).float()


@pytest.mark.parametrize("task, repeat, most, floor", TASKS)
def test_planners_regret_little_in_the_truth_and_the_misled_much(task, repeat, most, floor):
    """Regret of a plan: what the best known one earns more, of what that earns over chance.

    Known are all plans here, those of a far longer search, and what the task's script does.
    """
    world = BatchEnv(task, ROWS, action_repeat=repeat, physics=True, nthread=1)
    mind = BatchEnv(task, 64, action_repeat=repeat, max_episode_steps=-1, nthread=1)
    model, (_, info) = SimulatorModel(mind), world.reset(seed=5)
    physics, rng = info["physics"], np.random.default_rng(0)
    earned = {k: earns(k, model, model, physics, **size) for k, size in PLANNERS.items()}
    ways = {"blind": lambda r: 0 * r, "shuffled": rng.permutation, "opposite": lambda r: 1 - r}
    for name, way in ways.items():
        misled = SimulatorModel(Repaid(mind, way))
        earned[name] = earns(CEM, misled, model, physics, **PLANNERS[CEM])
    long = earns(CEM, model, model, physics, iterations=6, samples=160, elites=12)
    best = torch.stack([long, scripted(world, model.discount), *earned.values()]).amax(0)
    draws = torch.rand(ROWS, 32, H, model.nu, generator=torch.Generator().manual_seed(0)) * 2 - 1
    belief = {"physics": torch.from_numpy(physics)}
    chance = evaluate(model, belief, draws, torch.Generator()).mean(1)
    assert (best - chance > 0.3).all(), "there is too little to gain for a regret to mean much"
    regret = {k: ((best - v) / (best - chance)).mean().item() for k, v in earned.items()}
    for kind in PLANNERS:
        assert regret[kind] < (floor if kind is RandomShooting else most), (kind, regret)
    for name in ways:
        calm = task == "CartpoleBalance" and name != "opposite"  # to know nothing is to do little
        assert regret[name] > (0.4 if calm else 0.7), (name, regret)
        assert regret[name] > regret[CEM] + 0.3, (name, regret)


def episode_return(agent, world, seed):
    """The return of one episode, rewards summed over control steps."""
    _, info = world.reset(seed=seed)
    carry, total, first, ended = agent.start(np.array([seed])), 0.0, True, False
    while not ended:
        step = {"physics": info["physics"], "first": np.array([first])}
        action, carry = agent.act(step, carry)
        _, reward, terminated, truncated, info = world.step(action)
        total, first, ended = total + reward[0], False, terminated[0] or truncated[0]
    return total


class Repaid:
    """A world whose rewards (m,) are paid in another way."""

    def __init__(self, env, way):
        self.env, self.num_envs, self.way = env, env.num_envs, way
        self.single_action_space, self.physics = env.single_action_space, env.physics
        self.look = env.look

    def branch(self, physics, action):
        after, reward, ended = self.env.branch(physics, action)
        return after, self.way(reward), ended


def test_mppi_through_the_simulator_swings_the_cartpole_up():
    """1000 control steps in 100 decisions; the pole hangs at first, upright earns 1 a step."""
    world = BatchEnv("CartpoleSwingup", 1, action_repeat=10, physics=True, nthread=1)
    mind = BatchEnv("CartpoleSwingup", 64, action_repeat=10, max_episode_steps=-1)
    size = {"iterations": 2, "samples": 64, "elites": 8, "proposals": 0, "temperature": 1.0}
    assert episode_return(MPPI(SimulatorModel(mind), horizon=10, **size), world, 0) > 600
    blind = MPPI(SimulatorModel(Repaid(mind, lambda r: 0 * r)), horizon=1, **size)
    assert episode_return(blind, world, 0) < 300


@pytest.mark.slow
def test_cem_through_the_simulator_swings_the_cartpole_up():
    world = BatchEnv("CartpoleSwingup", 1, action_repeat=5, physics=True, nthread=1)
    mind = BatchEnv("CartpoleSwingup", 64, action_repeat=5, max_episode_steps=-1)
    agent = CEM(SimulatorModel(mind), horizon=20, iterations=3, samples=64, elites=8)
    assert episode_return(agent, world, 0) > 600
