"""Actor and critic in imagination: returns, scales and losses against formulas written out."""

import math

import numpy as np
import pytest
import torch

from umwelten.blocks import SymexpTwoHot
from umwelten.world_models.imagination import (
    Actor,
    BoundedNormal,
    Choice,
    Head,
    ReturnScale,
    actor_loss,
    critic_loss,
    lambda_returns,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def returns_by_hand(reward, alive, boot, lam):
    """The mixture of all n-step returns: (1 - lam) sum lam^(n-1) R_n, the longest with the rest."""
    t, found = len(reward), []
    for i in range(t - 1):
        total, weight, paid, weighed = 0.0, 1.0, 0.0, 0.0
        for n in range(1, t - i):
            paid += weight * reward[i + n]
            weight *= alive[i + n]
            share = (1 - lam) * lam ** (n - 1) if n < t - 1 - i else lam ** (n - 1)
            total += share * (paid + weight * boot[i + n])
            weighed += share
        assert abs(weighed - 1) < 1e-12
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("lam", [0.0, 0.6, 0.95, 1.0])
def test_lambda_returns_mix_all_returns_of_n_steps(lam):
    reward, alive, boot = (torch.rand(7, 3, generator=generator(s)).double() for s in (1, 2, 3))
    found = lambda_returns(reward, alive, boot, lam)
    assert found.shape == (6, 3)
    for j in range(3):
        want = returns_by_hand(*(x[:, j].numpy() for x in (reward, alive, boot)), lam)
        np.testing.assert_allclose(found[:, j].numpy(), want, rtol=1e-12)


def test_a_cut_episode_bootstraps_where_it_is_cut():
    reward, alive, boot = (torch.rand(6, 1, generator=generator(s)) for s in (1, 2, 3))
    mixed = torch.full((6, 1), 0.95)
    mixed[3] = 0
    found = lambda_returns(reward, alive, boot, mixed)
    torch.testing.assert_close(found[2], reward[3] + alive[3] * boot[3])
    short = lambda_returns(reward[:4], alive[:4], boot[:4], 0.95)
    torch.testing.assert_close(found[:3], short)


def test_the_scale_follows_the_percentiles_and_is_at_least_one():
    scale, g = ReturnScale(), generator()
    low = high = 0.0
    for size in (0.1, 100.0, 900.0):
        returns = size * torch.randn(15, 40, generator=g)
        low += 0.01 * (np.percentile(returns, 5) - low)
        high += 0.01 * (np.percentile(returns, 95) - high)
        found = float(scale(returns))
        assert abs(found - max(1, high - low)) < 1e-3 * found
    assert found > 20


def test_the_actors_normal_is_bounded_and_begins_near_its_middle():
    actor = Actor(8, 16, 3, False, generator())
    policy = actor(torch.randn(50, 8, generator=generator(1)))
    assert float(policy.mean.detach().abs().max()) < 0.1
    want = 0.1 + 0.9 / (1 + math.exp(-2))
    torch.testing.assert_close(policy.std, torch.full((50, 3), want), rtol=0.02, atol=0)
    with torch.no_grad():
        actor.spread.bias.fill_(50.0)
        actor.mean.bias.fill_(50.0)
    policy = actor(torch.zeros(1, 8))
    assert bool((policy.std <= 1).all()) and bool((policy.mean <= 1).all())
    with torch.no_grad():
        actor.spread.bias.fill_(-50.0)
    assert abs(float(actor(torch.zeros(1, 8)).std.detach().max()) - 0.1) < 1e-6


def test_densities_and_entropies_are_torchs():
    mean, std = torch.randn(2, 5, 3, generator=generator()).unbind(0)
    std = std.abs() + 0.1
    ours, theirs = BoundedNormal(mean, std), torch.distributions.Normal(mean, std)
    action = ours.draw(torch.randn(5, 3, generator=generator(1)))
    torch.testing.assert_close(ours.density(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    logits = torch.randn(5, 4, generator=generator(2))
    ours, theirs = Choice(logits.log_softmax(-1)), torch.distributions.Categorical(logits=logits)
    action = ours.draw(torch.empty(5, 4).exponential_(generator=generator(3)))
    assert torch.equal(action.sum(-1), torch.ones(5))
    torch.testing.assert_close(ours.density(action), theirs.log_prob(action.argmax(-1)))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode().argmax(-1), logits.argmax(-1))


def test_choices_are_drawn_as_often_as_they_are_likely():
    p = torch.tensor([0.1, 0.2, 0.7])
    noise = Actor(2, 2, 3, True, generator()).noise((20_000,), generator())
    drawn = Choice(p.log().expand(20_000, 3)).draw(noise).mean(0)
    assert float((drawn - p).abs().max()) < 0.015


def test_the_actors_loss_is_reinforce_with_entropy_and_gives_nothing_else_a_gradient():
    mean = torch.randn(6, 2, generator=generator()).requires_grad_()
    std = torch.full((6, 2), 0.5, requires_grad=True)
    action, advantage, weight = (
        torch.rand(*s, generator=generator(1)).requires_grad_() for s in ((6, 2), (6,), (6,))
    )
    loss = actor_loss(BoundedNormal(mean, std), action, advantage, weight, 0.01)
    normal = torch.distributions.Normal(mean, std)
    log_p, entropy = normal.log_prob(action).sum(-1), normal.entropy().sum(-1)
    torch.testing.assert_close(loss, -weight * (log_p * advantage + 0.01 * entropy))
    loss.sum().backward()
    assert mean.grad.any() and std.grad.any()
    assert action.grad is advantage.grad is weight.grad is None
    # Where the advantage is positive, a step down the loss brings the mean nearer to the action.
    towards = (action - mean).detach() * advantage.detach()[:, None]
    assert bool(((-mean.grad * towards) > 0).all())


def test_the_critics_loss_is_two_cross_entropies():
    two_hot = SymexpTwoHot(41, 3.0)
    logits = torch.randn(6, 41, generator=generator()).requires_grad_()
    returns, slow, weight = (torch.rand(6, generator=generator(s)) * 9 for s in (1, 2, 3))
    loss = critic_loss(two_hot, logits, returns, slow, weight)
    log_p = logits.log_softmax(-1)
    aims = two_hot.encode(returns) + two_hot.encode(slow)
    torch.testing.assert_close(loss, -weight * (aims * log_p).sum(-1))


def test_a_head_of_scale_zero_says_zero():
    head = Head(4, 8, 2, 255, generator(), scale=0.0)
    assert not head(torch.randn(3, 4, generator=generator(1))).any()
    assert head(torch.ones(2, 3, 4)).shape == (2, 3, 255)
