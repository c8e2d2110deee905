"""DreamerV3 learns to act in a world of one line, seen as a number or in pictures; and why it does.

The world: x in [-1, 1] moves by half the action and pays x on arrival, ten steps an episode. By
chance that comes to about 0, going right at once to more than 7.
"""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten.world_models import dreamer
from umwelten.world_models.dreamer import DreamerV3

STEPS, BATCH = 10, 16
NUMBER = Dict({"x": Box(-1, 1, (1,), np.float32)})
PICTURE = Dict({"rgb/front": Box(0, 255, (64, 64, 3), np.uint8)})

MORE = partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seen(x, space):
    """Returns what shows x (n, 1): itself, or a bright bar at its place in a picture."""
    if "x" in space.spaces:
        return {"x": x}
    columns = torch.linspace(-1, 1, 64)
    bar = 255 * (1 - 4 * (columns - x).abs()).clamp(min=0)
    return {"rgb/front": bar.to(torch.uint8)[:, None, :, None].expand(-1, 64, -1, 3).contiguous()}


def play(model, space, n, g, chance=False):
    """Returns the windows of n episodes, acted by the model's policy, or by chance."""
    x, belief, action = torch.rand(n, 1, generator=g) * 2 - 1, model.start(n), torch.zeros(n, 1)
    steps, reward = [], torch.zeros(n)
    for t in range(STEPS):
        step = seen(x, space)
        belief = model.observe(belief, action, step | {"first": torch.full((n,), t == 0)}, g)
        if chance:
            action = torch.rand(n, 1, generator=g) * 2 - 1
        else:
            action = model.propose(belief, g)
        steps.append(step | {"action": action, "reward": reward})
        x = (x + 0.5 * action).clamp(-1, 1)
        reward = x[:, 0]
    episodes = {k: torch.stack([s[k] for s in steps], 1) for k in steps[0]}
    marks = {k: torch.zeros(n, STEPS, dtype=torch.bool) for k in ("first", "last", "terminal")}
    marks["first"][:, 0] = marks["last"][:, -1] = True
    return episodes | marks | {"valid": torch.ones(n, STEPS, dtype=torch.bool)}


def learnt(monkeypatch, space, seed, updates, told=lambda reward: reward):
    """Returns the mean return of 64 episodes after so many updates, learning from `told` rewards.

    Four episodes are played for every two updates; the first 32 by chance.
    """
    monkeypatch.setitem(dreamer.SIZES, 1, (64, 16, 4, 4, 32))
    model = DreamerV3(
        space, 1, 1, seed=seed, batch_size=BATCH, batch_length=STEPS, horizon=5, lr=2e-3,
        warmup=0, discount=0.9,
    )  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    data = play(model, space, 32, g, chance=True)
    for i in range(updates):
        if i % 2 == 0:
            new = play(model, space, 4, g)
            data = {k: torch.cat([data[k], new[k]]) for k in data}
        rows = torch.randint(0, len(data["reward"]), (BATCH,), generator=g)
        batch = {k: v[rows] for k, v in data.items()}
        model.update(batch | {"reward": told(batch["reward"])})
    judged = torch.Generator().manual_seed(99)
    return float(play(model, space, 64, judged)["reward"].sum(1).mean())


@pytest.mark.parametrize("seed, sign", [(0, 1), (0, -1), MORE(1, 1), MORE(2, 1)])
def test_it_learns_to_go_where_it_pays(seed, sign, monkeypatch):
    """Of the opposite rewards, the opposite: nothing but the reward decides where it goes.

    Shuffled ones would not do as a control: without a signal the policy drifts to either side.
    """
    assert sign * learnt(monkeypatch, NUMBER, seed, 120, lambda reward: sign * reward) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_from_pictures(seed, monkeypatch):
    assert learnt(monkeypatch, PICTURE, seed, 120) > 5
