"""TD-MPC2 of several tasks: what a task is told by, what its mask stops, its own discount, ends."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, Prior
from umwelten.agents.search import evaluate
from umwelten.episodes import Episodes, Recorder
from umwelten.world_models.tasks import TaskSpec, TaskTable
from umwelten.world_models.tdmpc2 import TDMPC2

SEEN, NU = 5, 3
TASKS = (TaskSpec("short", 1, 100), TaskSpec("long", 3, 1000), TaskSpec("other", 2, 300))
SPACE = Dict({"vector": Box(-np.inf, np.inf, (SEEN,), np.float32), "task": Discrete(3)})


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone, and then nothing depends on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def several(tasks=TASKS, **more):
    return TDMPC2(SPACE, NU, **({"size": 1, "batch_size": 24, "tasks": tasks} | more))


def windows(b=24, seed=0, **replaced):
    g = generator(seed)
    task = torch.arange(b)[:, None] % 3
    flags = {k: torch.zeros(b, 4, dtype=torch.bool) for k in ("first", "last", "terminal")}
    batch = {
        "vector": torch.randn(b, 4, SEEN, generator=g),
        "action": torch.rand(b, 4, NU, generator=g) * 2 - 1,
        "reward": torch.rand(b, 4, generator=g),
        "task": task.repeat(1, 4),
    }
    return batch | flags | replaced


def trained(**more):
    """A model whose heads say something."""
    model = several(**more)
    with torch.no_grad():
        for p in (model.reward.layers[-1].weight, *model.critics.weight, model.tasks.weight):
            p.add_(torch.randn(p.shape, generator=generator(p.numel())), alpha=0.1)
    return model


def belief_of(model, task, seed=1):
    task = torch.as_tensor(task)
    x = torch.randn(1, SEEN, generator=generator(seed)).expand(len(task), -1)
    step = {"vector": x, "task": task, "first": torch.ones(len(task), dtype=torch.bool)}
    return model.observe(model.start(len(task)), torch.zeros(len(task), NU), step, None)


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def count(size, obs, nu, told):
    """Parameters by the published table, `told` numbers behind what every network reads."""
    wide, layers, z, h, critics = {
        1: (256, 2, 128, 384, 2),
        5: (256, 2, 512, 512, 5),
        19: (1024, 3, 768, 1024, 5),
        317: (4096, 5, 1376, 4096, 8),
    }[size]

    def net(i, o, *hidden):
        sizes = (i, *hidden)
        return sum(a * b + 3 * b for a, b in itertools.pairwise(sizes)) + hidden[-1] * o

    encoder = net(obs + told, z, *[wide] * max(layers - 1, 1)) + 3 * z
    dynamics = net(z + told + nu, z, h, h) + 3 * z
    heads = (1 + critics) * (net(z + told + nu, 101, h, h) + 101)
    return encoder + dynamics + heads + net(z + told, 2 * nu, h, h) + 2 * nu


@pytest.mark.parametrize(
    "size, many, width", [(1, 80, 96), (5, 80, 96), (19, 30, 64), (317, 80, 96)]
)
def test_sizes_are_the_published_ones_with_the_embedding_behind_every_input(size, many, width):
    space = Dict({"vector": Box(-np.inf, np.inf, (39,), np.float32), "task": Discrete(many)})
    tasks = [TaskSpec(str(i), 6, 100) for i in range(many)]
    model = TDMPC2(space, 6, size, tasks=tasks, task_width=width, device="meta")
    assert model.parameter_count() == count(size, 39, 6, width) + many * width


# ---- what a task is told by


def test_the_embedding_alone_tells_tasks_apart():
    model = trained()
    belief = belief_of(model, [1, 2])
    action = torch.zeros(2, NU)
    after, reward, _ = model.imagine(belief, action, None)
    for x in (belief["z"], after["z"], reward):
        assert not torch.allclose(x[0], x[1], rtol=1e-3)
    with torch.no_grad():
        model.tasks.weight.zero_()
    belief = belief_of(model, [1, 2])
    after, reward, _ = model.imagine(belief, action, None)
    for x in (belief["z"], after["z"], reward):
        torch.testing.assert_close(x[0], x[1])
    assert after["task"].tolist() == [1, 2]


def test_rows_of_one_latent_keep_the_task_of_each():
    """Candidates of one row are multiplied once; equal latents of two tasks are not one row."""
    model = trained()
    z = belief_of(model, [1])["z"].repeat(4, 1)
    action = torch.rand(4, NU, generator=generator())
    task = torch.tensor([1, 1, 2, 2])
    _, together, _ = model.imagine({"z": z, "task": task}, action, None)
    for i in range(4):
        _, alone, _ = model.imagine({"z": z[:1], "task": task[i : i + 1]}, action[i : i + 1], None)
        torch.testing.assert_close(together[i], alone[0])


def test_embeddings_stay_in_the_unit_ball_and_the_policys_loss_moves_none():
    model = several(lr=0.5)
    assert float(model.tasks.weight.detach().abs().max()) <= 0.02
    for seed in range(3):
        model.update(windows(seed=seed))
    lengths = model.tasks.weight.norm(dim=1)
    assert (lengths <= 1 + 1e-6).all() and (lengths > 0.99).any()
    zs = torch.rand(4, 6, model.latent, generator=generator())
    told, noise = model._told({"task": torch.arange(6) % 3}), torch.zeros(4, 6, NU)
    loss, _, _ = model._policy_loss(zs, noise, torch.tensor([0, 1]), None, told.detach())
    loss.backward()
    assert model.tasks.weight.grad is None and model.policy.layers[0].weight.grad is not None


def test_masked_components_have_no_noise_and_no_share_in_the_entropy():
    table = TaskTable(TASKS, NU, 8, generator())
    told = table(torch.tensor([0, 1, 2]))
    assert told.mask.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]] and told.nu.tolist() == [1, 3, 2]
    model = several()
    zs, noise = torch.rand(2, 3, model.latent), torch.randn(2, 3, NU, generator=generator())
    with torch.no_grad():
        told = model._told({"task": torch.arange(3)})
        _, _, found = model._policy_loss(zs, noise, torch.tensor([0, 1]), None, told)
        e = told.embedding.expand(2, 3, -1)
        raw = model.policy(torch.cat([zs, e], -1))[..., NU:]
        std = torch.where(told.mask > 0, (-10 + 6 * (raw.tanh() + 1)).exp(), 1.0)
        density = torch.distributions.Normal(0, std).log_prob(std * noise * told.mask).sum(-1)
        want = -(torch.tensor([1.0, 3.0, 2.0]) * density).mean()
    torch.testing.assert_close(found["policy_entropy"], want, rtol=1e-4, atol=1e-4)


def test_a_masked_component_never_reaches_the_model():
    one, two, three = several(), several(), several()
    batch = windows()
    other, real = batch["action"].clone(), batch["action"].clone()
    other[0::3, :, 1:] = 7.0  # tasks 0 and 2 have one and two components
    other[2::3, :, 2:] = float("-0.3")
    other = other.clamp(-1, 1)
    real[1::3, :, 2] = 0.5
    first, second = one.update(batch), two.update(batch | {"action": other})
    assert equal(first, second) and equal(one.checkpoint(), two.checkpoint())
    assert not equal(first, three.update(batch | {"action": real}))
    model = trained()
    belief, action = belief_of(model, [0, 1, 2]), torch.rand(3, NU, generator=generator())
    _, reward, _ = model.imagine(belief, action, None)
    _, moved, _ = model.imagine(belief, action * torch.tensor([1.0, 1, -1]), None)
    assert (reward == moved).tolist() == [True, False, True]


PLANNERS = (MPPI, CEM, ICEM, Gradient, Prior)


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_know_nothing_of_tasks_and_serve_each_row_its_own(planner):
    model = trained()
    small = {"samples": 24, "iterations": 2} if planner is not Prior else {}
    small |= {"elites": 4} if planner in (MPPI, CEM, ICEM) else {}
    small |= {"proposals": 3} if planner in (MPPI, Gradient) else {}
    agent = planner(model, **small)
    step = {
        "vector": np.ones((3, SEEN), np.float32),
        "task": np.arange(3),
        "first": np.ones(3, bool),
    }
    actions, carry = agent.act(step, agent.start(np.zeros(3, np.int64)))
    assert carry["belief/task"].tolist() == [0, 1, 2]
    assert len({tuple(a) for a in actions.tolist()}) == 3
    again, _ = agent.act(step | {"task": np.array([2, 1, 0])}, agent.start(np.zeros(3, np.int64)))
    if planner is not MPPI:  # its critics are drawn for all rows at once
        np.testing.assert_allclose(again[1], actions[1], atol=1e-4)


def test_plans_are_discounted_as_the_task_of_each_row():
    model = trained(episodic=True)
    assert model.discount == 0.995
    belief = belief_of(model, [0, 1, 2])
    plans = torch.rand(3, 4, 3, NU, generator=generator()) * 2 - 1
    found = evaluate(model, belief, plans, generator(5))
    gamma = torch.tensor([0.95, 0.995, (60 - 1) / 60]).repeat_interleave(4)
    on = {k: v.repeat_interleave(4, 0) for k, v in belief.items()}
    total, living = torch.zeros(12), torch.ones(12)
    for t in range(3):
        on, reward, alive = model.imagine(on, plans[:, :, t].reshape(12, NU), None)
        total = total + gamma**t * living * reward
        living = living * alive
    total = total + gamma**3 * living * model.value(on, generator(5))
    torch.testing.assert_close(found.flatten(), total, rtol=1e-4, atol=1e-5)
    assert (living < 0.9).all()  # an untrained model expects an end: it does discount
    assert several(discount=0.9).discounts(belief).tolist() == pytest.approx([0.9] * 3)


def test_a_restored_model_of_several_tasks_goes_on_bit_for_bit():
    one, two = several(episodic=True), several(episodic=True, seed=9)
    one.update(windows())
    two.restore(one.checkpoint())
    assert equal(one.update(windows(seed=1)), two.update(windows(seed=1)))
    assert equal(one.checkpoint(), two.checkpoint())


def test_what_makes_no_several_tasks_is_refused():
    with pytest.raises(ValueError, match="none twice"):
        several([TASKS[0], TASKS[0]])
    with pytest.raises(ValueError, match="'big' has 4 of 3 action components"):
        several([TaskSpec("big", 4, 100)])
    with pytest.raises(ValueError, match="from vectors and 'task'"):
        TDMPC2(Dict({"vector": SPACE["vector"]}), NU, 1, tasks=TASKS)
    model, batch = several(), windows()
    with pytest.raises(ValueError, match="'task'"):
        model.update({k: v for k, v in batch.items() if k != "task"})
    with pytest.raises(ValueError, match="from 0 to 9; allowed"):
        model.update(batch | {"task": batch["task"].clamp(max=0) + torch.tensor([0, 0, 0, 9])})


# ---- what is learnt


def reward_error(shuffled):
    """Learns three tasks that pay for the same thing +1, 0 and -1; told apart or not."""
    model = several(batch_size=48, lr=1e-3)
    g = generator(2)
    for i in range(90):
        batch = windows(48, seed=i)
        sign = 1.0 - batch["task"].float()
        batch["vector"][..., 0] = batch["vector"][..., 0].clamp(-1, 1)
        batch["reward"][:, 1:] = (sign * batch["vector"][..., 0])[:, :-1]
        if shuffled:
            batch["task"] = batch["task"][torch.randperm(48, generator=g)]
        loss = model.update(batch)["reward_loss"]
    return float(loss)


def test_tasks_are_learnt_by_their_ids_and_not_where_these_are_shuffled():
    right, wrong = reward_error(False), reward_error(True)
    assert wrong > 1.15 * right, (right, wrong)


def ends_of(terminal, path):
    """Records x' = x + a until x > 0.5, by the task or by the clock, and learns from it."""
    rng = np.random.default_rng(0)
    with Recorder(path) as recorder:
        for _ in range(60):
            x, first, over = rng.uniform(-0.5, 0.4), True, False
            for t in range(12):
                a = rng.uniform(-0.3, 0.3)
                over = x > 0.5
                last = over or t == 11
                flags = {"first": first, "last": last, "terminal": over and terminal, "valid": True}
                step = {k: np.array([v]) for k, v in flags.items()}
                step["x"] = np.array([[x]], np.float32)
                step["action"] = np.array([[a / 0.3]], np.float32)
                step["reward"] = np.array([0.0 if first else 0.1], np.float32)
                recorder.add(step)
                if last:
                    break
                x, first = x + a, False
    model = TDMPC2(
        Dict({"x": Box(-np.inf, np.inf, (1,), np.float32)}), 1, 1,
        episodic=True, batch_size=64, lr=1e-3,
    )  # fmt: skip
    episodes = Episodes(path)
    for _ in range(120):
        batch = episodes.sample(rng, 64, 4)
        assert not batch["last"][:, :-1].any() and not batch["first"][:, 1:].any()
        model.update({k: torch.from_numpy(v) for k, v in batch.items()})
    step = {"x": torch.full((2, 1), 0.45), "first": torch.ones(2, dtype=torch.bool)}
    belief = model.observe(model.start(2), torch.zeros(2, 1), step, None)
    _, _, alive = model.imagine(belief, torch.tensor([[1.0], [-1.0]]), None)
    plans = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 1)
    worth = evaluate(model, {"z": belief["z"][:1]}, plans, generator())
    return alive.tolist(), worth[0].tolist()


def test_an_end_of_the_task_is_foreseen_and_shunned_a_time_limit_is_not(tmp_path):
    (over, on), (into, away) = ends_of(True, tmp_path / "task")
    assert over < 0.3 and on > 0.7 and away > into + 0.05, (over, on, into, away)
    alive, (into, away) = ends_of(False, tmp_path / "clock")
    assert min(alive) > 0.9 and abs(away - into) < 0.05, (alive, into, away)
