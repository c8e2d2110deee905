"""RSSM: unimix, divergences with free nats, resets, windows, imagination."""

import numpy as np
import torch

from umwelten import kernels
from umwelten.blocks import draw, mixed
from umwelten.world_models.rssm import RSSM, balanced, divergence, flat


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0):
    return RSSM(
        6, 2, deter=16, hidden=8, stoch=4, classes=5, rng=generator(seed), blocks=4
    ).requires_grad_(False)


def logs(seed, *shape, scale=1.0):
    return (scale * torch.randn(*shape, 4, 5, generator=generator(seed))).log_softmax(-1)


def test_probabilities_hold_a_uniform_share_of_one_hundredth():
    rssm = small()
    deter = torch.randn(3, 16, generator=generator())
    for log_p in (rssm.predict(deter), rssm.correct(deter, torch.ones(3, 6))):
        assert log_p.shape == (3, 4, 5) and float(log_p.exp().min()) >= 0.002 - 1e-6
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(3, 4))


def test_divergences_are_summed_then_held_above_the_free_nats():
    posterior, prior = logs(1, 6), logs(2, 6)
    prior[3:] = posterior[3:] + 0.01 * logs(3, 3)
    prior = prior.log_softmax(-1)
    p, q = posterior.double().numpy(), prior.double().numpy()
    want = (np.exp(p) * (p - q)).sum((1, 2))
    assert want[:3].min() > 1 and want[3:].max() < 1
    np.testing.assert_allclose(divergence(posterior, prior), want, rtol=1e-4, atol=1e-5)
    for loss in balanced(posterior, prior, 1.0):
        np.testing.assert_allclose(loss, np.maximum(want, 1), rtol=1e-4)


def test_each_of_the_two_losses_moves_one_side_and_none_below_the_free_nats():
    posterior, prior = logs(1, 2).requires_grad_(), logs(2, 2).requires_grad_()
    dynamics, representation = balanced(posterior, prior, 1.0)
    dynamics.sum().backward()
    assert posterior.grad is None and prior.grad.any()
    prior.grad = None
    representation.sum().backward()
    assert prior.grad is None and posterior.grad.any()
    near = (posterior.detach() + 0.01).requires_grad_()
    for loss in balanced(posterior, near, 1.0):
        loss.sum().backward()
    assert not near.grad.any()


def test_rows_at_first_forget_everything():
    rssm, g = small(), generator(3)
    tokens, action = torch.randn(3, 6, generator=g), torch.rand(3, 2, generator=g)
    belief = {
        "deter": torch.full((3, 16), float("nan")),
        "stoch": torch.full((3, 4, 5), float("nan")),
    }
    every = torch.ones(3, dtype=torch.bool)
    ours, _ = rssm.observe(belief, action, tokens, every, None)
    fresh, _ = rssm.observe(rssm.start(3), torch.zeros(3, 2), tokens, ~every, None)
    assert all(torch.equal(ours[k], fresh[k]) for k in ours)
    moved, _ = rssm.observe(rssm.start(3), action, tokens, ~every, None)
    assert not torch.equal(moved["deter"], fresh["deter"])


def test_a_window_is_followed_step_by_step():
    rssm, g = small(), generator(4)
    action, tokens = torch.rand(3, 7, 2, generator=g), torch.randn(3, 7, 6, generator=g)
    first = torch.zeros(3, 7, dtype=torch.bool)
    first[:, 0] = True
    first[1, 4] = True
    noise = rssm.noise((3, 7), g)
    beliefs, posterior = rssm.follow(action, tokens, first, noise, rssm.start(3))
    belief = rssm.start(3)
    for i in range(7):
        belief, logits = rssm.observe(belief, action[:, i], tokens[:, i], first[:, i], noise[:, i])
        torch.testing.assert_close(beliefs["deter"][:, i], belief["deter"])
        assert torch.equal(beliefs["stoch"][:, i], belief["stoch"])
        torch.testing.assert_close(posterior[:, i], mixed(logits, 0.01))
    assert flat(beliefs).shape == (3, 7, 16 + 20)
    alone, _ = rssm.follow(
        action[1:2, 4:], tokens[1:2, 4:], first[1:2, 4:], noise[1:2, 4:], rssm.start(1)
    )
    torch.testing.assert_close(alone["deter"][0], beliefs["deter"][1, 4:])


def test_actions_are_scaled_into_their_bounds():
    rssm, belief = small(), small().start(2)
    wide = torch.tensor([[3.0, -0.5], [0.2, -7.0]])
    assert torch.equal(rssm.move(belief, wide), rssm.move(belief, wide.clamp(-1, 1)))


def test_imagination_expects_by_the_prior_alone():
    rssm, g = small(), generator(5)
    belief = {"deter": torch.randn(3, 16, generator=g), "stoch": draw(logs(1, 3), None)}
    action, noise = torch.rand(3, 2, generator=g), rssm.noise((3,), g)
    then = rssm.imagine(belief, action, noise)
    assert torch.equal(then["deter"], rssm.move(belief, action))
    assert torch.equal(then["stoch"], draw(rssm._logits(rssm.prior(then["deter"])), noise, 0.01))


def test_the_scan_and_its_gradients_are_those_of_torchs_own_tape(monkeypatch):
    """Windows with episodes that begin inside, from beliefs that are not nothing."""
    g = generator(6)
    rssm = RSSM(24, 3, deter=64, hidden=16, stoch=4, classes=5, rng=g, blocks=4)
    with torch.no_grad():
        for p in rssm.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    action, tokens = 2 * torch.randn(5, 9, 3, generator=g), torch.randn(5, 9, 24, generator=g)
    tokens.requires_grad_()
    first = torch.zeros(5, 9, dtype=torch.bool)
    first[0, 0] = first[2, 4] = first[0, 6] = first[3, 6] = True
    noise = rssm.noise((5, 9), g)
    start = {"deter": torch.randn(5, 64, generator=g), "stoch": draw(logs(7, 5), None)}
    start["deter"][0] = float("nan")  # forgotten at once
    weights = [torch.randn(5, 9, *d, generator=g) for d in ((64,), (4, 5), (4, 5))]
    names, learned = zip(*(x for x in rssm.named_parameters() if x[0][:5] != "prior"), strict=True)

    def found():
        beliefs, log_p = rssm.follow(action, tokens, first, noise, start)
        parts = beliefs["deter"], beliefs["stoch"], log_p
        total = sum((w * x).sum() for w, x in zip(weights, parts, strict=True))
        return parts, torch.autograd.grad(total, [tokens, *learned])

    (ours, slopes), _ = found(), monkeypatch.setattr(kernels, "fits", lambda x: False)
    theirs, wanted = found()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for name, one, other in zip(("tokens", *names), slopes, wanted, strict=True):
        assert float((one - other).abs().max() / other.abs().max()) < 1e-5, name
