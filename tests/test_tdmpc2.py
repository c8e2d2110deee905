"""TD-MPC2: sizes, losses by hand, what each loss may touch, alignment in time, resumption."""

import shutil

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten import kernels
from umwelten.nets import Ensemble, TwoHot
from umwelten.world_models.encoders import stack_frames
from umwelten.world_models.tdmpc2 import TDMPC2, heuristic_discount


def vectors(**widths):
    return Dict({k: Box(-np.inf, np.inf, (d,), np.float32) for k, d in widths.items()})


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone, and then nothing depends on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


STATE = vectors(proprio=24)
IMAGE = Box(0, 255, (64, 64, 3), np.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**changes):
    return TDMPC2(**({"observation": STATE, "nu": 6, "size": 1, "batch_size": 16} | changes))


def windows(model, b=16, seed=0, pixels=False, **replaced):
    g, t = generator(seed), model.window
    batch = {
        "action": torch.rand(b, t, model.nu, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g),
        "terminal": torch.zeros(b, t, dtype=torch.bool),
        "last": torch.zeros(b, t, dtype=torch.bool),
        "first": torch.zeros(b, t, dtype=torch.bool),
    }
    for key in model.keys:
        if pixels:
            shape = (b, t, 64, 64, 3)
            batch[key] = torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
        else:
            batch[key] = torch.randn(b, t, 24, generator=g)
    return batch | replaced


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# ---- architecture


@pytest.mark.parametrize("size, millions", [(1, 1.2147), (5, 4.9606), (19, 18.0624)])
def test_sizes_have_the_published_number_of_parameters(size, millions):
    assert abs(TDMPC2(STATE, 6, size, device="meta").parameter_count() / 1e6 - millions) < 1e-4


def by_hand(size, obs, nu):
    """Counts weights, biases and norms from the published table."""
    wide, layers, z, h, critics = {
        48: (1792, 4, 768, 1792, 5),
        317: (4096, 5, 1376, 4096, 8),
    }[size]

    def normed(i, o):
        return i * o + 3 * o

    def net(i, o):
        return normed(i, h) + normed(h, h) + h * o + o

    inner = sum(normed(wide, wide) for _ in range(layers - 2))
    encoder = normed(obs, wide) + inner + normed(wide, z)
    dynamics = normed(z + nu, h) + normed(h, h) + normed(h, z)
    return encoder + dynamics + (1 + critics) * net(z + nu, 101) + net(z, 2 * nu)


@pytest.mark.parametrize("size", [48, 317])
def test_large_sizes_follow_the_published_table(size):
    model = TDMPC2(STATE, 6, size, device="meta")
    assert model.parameter_count() == by_hand(size, 24, 6)


def test_hidden_layers_begin_at_002_and_the_heads_of_reward_and_critics_at_zero():
    model = TDMPC2(STATE, 6, size=5)
    heads = {"reward.layers.2.weight", "critics.weight.2", "target.weight.2"}
    seen = set()
    for name, p in model.named_parameters():
        p = p.detach()
        if "weight" not in name:
            continue
        if name in heads:
            assert not p.any()
            seen.add(name)
        else:
            assert abs(float(p.std()) / 0.02 - 1) < 0.05, name
    assert seen == heads
    for ours, theirs in zip(model.critics.parameters(), model.target.parameters(), strict=True):
        assert torch.equal(ours, theirs) and not theirs.requires_grad


def test_the_discount_follows_the_length_of_an_episode():
    lengths = {10: 0.95, 100: 0.95, 200: 0.975, 500: 0.99, 1000: 0.995, 5000: 0.995}
    for length, discount in lengths.items():
        assert abs(heuristic_discount(length) - discount) < 1e-12
    assert small(episode_length=200).discount == heuristic_discount(200)
    assert small(discount=0.9).discount == 0.9


def test_unknown_sizes_and_useless_precision_are_refused():
    with pytest.raises(ValueError, match="size 2 is not one of"):
        small(size=2)
    with pytest.raises(ValueError, match="bf16"):
        small(bf16=True)


# ---- the belief


def test_a_belief_reads_its_keys_in_order_and_needs_no_gradient():
    model = TDMPC2(vectors(proprio=3, objects=2), 2, size=1)
    step = {
        "proprio": torch.randn(4, 3, generator=generator()),
        "objects": torch.randn(4, 2, generator=generator(1)),
        "first": torch.tensor([True, False, True, False]),
    }
    belief = model.observe(model.start(4), torch.zeros(4, 2), step, None)
    want = model.encoder(torch.cat([step["objects"], step["proprio"]], 1))
    assert torch.equal(belief["z"], want) and not belief["z"].requires_grad
    torch.testing.assert_close(belief["z"].view(4, -1, 8).sum(-1), torch.ones(4, 16))
    belief, reward, alive = model.imagine(belief, torch.ones(4, 2), generator())
    assert belief["z"].shape == (4, 128) and reward.shape == alive.shape == (4,)
    assert (reward.abs() < 1e-5).all() and (alive == 1).all()  # the zero head says 0
    assert model.value(belief, generator()).shape == (4,)
    action = model.propose(belief, generator())
    assert action.shape == (4, 2) and (action.abs() <= 1).all()


def awake(model):
    """Gives the zero heads weights, so that they say something."""
    with torch.no_grad():
        for p in (
            model.reward.layers[-1].weight,
            model.critics.weight[-1],
            model.target.weight[-1],
        ):
            p.normal_(0, 0.5, generator=generator(p.numel()))
    return model


def test_imagined_rewards_and_values_are_the_decoded_heads():
    model = awake(TDMPC2(STATE, 6, size=5, episodic=True))
    with torch.no_grad():
        model.target.weight[-1].neg_()  # target critics may not matter
    z = model.encoder(torch.randn(7, 24, generator=generator())).detach()
    action = torch.rand(7, 6, generator=generator())
    za = torch.cat([z, action], 1)
    belief, reward, alive = model.imagine({"z": z}, action, generator())
    decode = TwoHot(-10, 10, 101).decode
    with torch.no_grad():
        torch.testing.assert_close(reward, decode(model.reward(za)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(belief["z"], model.dynamics(za), rtol=1e-5, atol=1e-6)
        ended = torch.sigmoid(model.terminal(belief["z"]))[:, 0]
        torch.testing.assert_close(alive, 1 - ended)
        action = model.propose({"z": z}, generator(3))
        every = decode(model.critics(torch.cat([z, action], 1)))
    pairs = {(i, j): (every[i] + every[j]) / 2 for i in range(5) for j in range(i)}
    g = generator(3)
    for _ in range(4):
        state = g.get_state()
        torch.randn(7, 6, generator=g)
        i, j = sorted(torch.randperm(5, generator=g)[:2].tolist(), reverse=True)
        g.set_state(state)
        with torch.no_grad():
            action = model.propose({"z": z}, g)
            every = decode(model.critics(torch.cat([z, action], 1)))
        pairs = {(i, j): (every[i] + every[j]) / 2 for i in range(5) for j in range(i)}
        g.set_state(state)
        value = model.value({"z": z}, g)
        near = [p for p, v in pairs.items() if torch.allclose(v, value, rtol=1e-3, atol=1e-4)]
        assert near == [(i, j)]


# ---- one update


def test_losses_are_those_computed_by_hand():
    model = awake(small(episodic=True, dropout=0.0, rho=0.5))
    batch = windows(model)
    batch["terminal"][3, 2] = True
    observed, action, reward, terminal = model._read(batch)
    assert torch.equal(action[1], batch["action"][:, 1])
    assert torch.equal(reward[1], batch["reward"][:, 2])
    goals = torch.rand(3, 16, 128, generator=generator(4))
    returns = torch.randn(3, 16, generator=generator(5))
    total, _, found = model._model_loss(observed[0], action, reward, terminal, goals, returns, None)
    two_hot, want = TwoHot(-10, 10, 101), {}
    with torch.no_grad():
        z = model.encoder(batch["proprio"][:, 0])
        sums = np.zeros(4)
        for t in range(3):
            za = torch.cat([z, batch["action"][:, t]], 1)
            chance = torch.log_softmax(model.reward(za).double(), -1)
            paid = two_hot.encode(batch["reward"][:, t + 1].double())
            sums[1] += 0.5**t * float(-(paid * chance).sum(-1).mean())
            for logits in model.critics(za).double():
                aim = two_hot.encode(returns[t].double())
                sums[2] += 0.5**t * float(-(aim * logits.log_softmax(-1)).sum(-1).mean())
            z = model.dynamics(za)
            sums[0] += 0.5**t * float((z - goals[t]).square().mean())
            p = torch.sigmoid(model.terminal(z)[:, 0])
            end = batch["terminal"][:, t + 1]
            sums[3] += float(-torch.where(end, p, 1 - p).log().mean())
    names = ("consistency_loss", "reward_loss", "value_loss", "terminal_loss")
    for name, value in zip(names, sums / [3, 3, 6, 3], strict=True):
        want[name] = value
        assert abs(found[name].item() / value - 1) < 1e-4, name
    coefs = dict(zip(names, (20, 0.1, 0.1, 1), strict=True))
    assert abs(total.item() / sum(coefs[k] * want[k] for k in names) - 1) < 1e-4


def test_the_policy_loss_is_the_published_one_and_leaves_no_gradient_in_the_critics():
    model = awake(TDMPC2(STATE, 6, size=5, dropout=0.0, entropy_coef=0.02))
    zs = model.encoder(torch.randn(4 * 8, 24, generator=generator())).detach().view(4, 8, -1)
    noise = torch.randn(4, 8, 6, generator=generator(1))
    loss, scale, _ = model._policy_loss(zs, noise, torch.tensor([4, 1]), None)
    loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moved and all(name.startswith("policy.") for name in moved)
    with torch.no_grad():
        mean, raw = model.policy(zs).chunk(2, -1)
        log_std = -10 + 6 * (torch.tanh(raw) + 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        x = mean + noise * log_std.exp()
        entropy = -6 * normal.log_prob(x).sum(-1)
        logits = model.critics(torch.cat([zs, x.tanh()], -1).flatten(0, 1))
        q = TwoHot().decode(logits)[[4, 1]].mean(0).view(4, 8)
        spread = np.percentile(q[0], 95) - np.percentile(q[0], 5)
        want = 0.99 + 0.01 * max(spread, 1)
        rows = (0.02 * entropy + q / want).mean(1)
        value = -sum(0.5**t * rows[t] for t in range(4)) / 4
    assert abs(scale.item() / want - 1) < 1e-5
    assert abs(loss.item() / float(value) - 1) < 1e-4


def test_targets_take_the_least_of_two_target_critics_and_stop_at_terminals_alone():
    model = awake(TDMPC2(STATE, 6, size=1, discount=0.9))  # two critics: the draw is known
    with torch.no_grad():
        for p in model.critics.parameters():
            p.add_(1.0)  # online critics may not matter
    g = generator(2)
    observed = torch.randn(3, 16, 24, generator=g)
    reward = torch.rand(3, 16, generator=g)
    ended = torch.zeros(3, 16)
    ended[1, 5] = 1
    state = model.generator.get_state()
    chance = model._noise((3, 16), model.generator), model._two(model.generator)
    goals, returns = (x.detach() for x in model._targets(observed, reward, ended, *chance))
    model.generator.set_state(state)
    with torch.no_grad():
        z = model.encoder(observed.flatten(0, 1))
        action = model.propose({"z": z}, model.generator)
        q = TwoHot().decode(model.target(torch.cat([z, action], 1))).amin(0).view(3, 16)
    torch.testing.assert_close(goals.flatten(0, 1), z)
    torch.testing.assert_close(returns, reward + 0.9 * (1 - ended) * q, rtol=1e-4, atol=1e-5)
    assert float(returns[1, 5]) == float(reward[1, 5])


def test_what_learns_drops_out_and_neither_targets_nor_acting_do(monkeypatch):
    model, seen, whole = small(dropout=0.25), [], Ensemble.forward

    def watch(self, *parts, members=None, mask=None, frozen=False):
        who = "target" if self is model.target else "policy" if frozen else "critics"
        seen.append((who, mask))
        return whole(self, *parts, members=members, mask=mask, frozen=frozen)

    monkeypatch.setattr(Ensemble, "forward", watch)
    model.update(windows(model))
    masks = dict(seen)
    assert [who for who, _ in seen] == ["target", "critics", "policy"] and masks["target"] is None
    rows = {"critics": (2, 3 * 16, 384), "policy": (2, 4 * 16, 384)}
    for who, shape in rows.items():
        assert masks[who].shape == shape
        assert abs(float((masks[who] == 0).double().mean()) - 0.25) < 0.02
    seen.clear()
    model.value({"z": torch.rand(5, 128)}, generator())
    assert seen == [("critics", None)]


def test_critics_are_drawn_two_at_a_time_and_all_alike():
    model, g = TDMPC2(STATE, 6, size=5), generator()
    drawn = [tuple(sorted(model._two(g).tolist())) for _ in range(2000)]
    counts = {pair: drawn.count(pair) for pair in set(drawn)}
    assert counts.keys() == {(i, j) for j in range(5) for i in range(j)}
    assert max(abs(n - 200) for n in counts.values()) < 5 * (200 * 0.9) ** 0.5


def test_a_time_limit_is_not_an_end_but_a_terminal_is():
    def after(**changes):
        model = awake(small())
        return {k: float(v) for k, v in model.update(windows(model, **changes)).items()}

    mark = torch.zeros(16, 4, dtype=torch.bool)
    mark[:, 3] = True
    assert after(last=mark) == after()
    assert after(last=mark, terminal=mark)["value_loss"] != after()["value_loss"]


def test_one_update_moves_everything_and_the_target_by_one_hundredth():
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    metrics = model.update(windows(model))
    assert all(v.ndim == 0 and v.isfinite() and not v.requires_grad for v in metrics.values())
    for name, p in model.state_dict().items():
        if name.startswith("target."):
            online = model.state_dict()[name.replace("target", "critics")]
            torch.testing.assert_close(p, torch.lerp(before[name], online, 0.01))
    still = {k for k, p in model.named_parameters() if torch.equal(p, before[k])}
    # Behind zero heads no gradient flows back in the first update.
    heads = ("reward.layers.0", "reward.layers.1", "critics.", "target.", "policy.")
    assert all(name.startswith(heads) for name in still)
    metrics = model.update(windows(model))
    still = {k for k, p in model.named_parameters() if torch.equal(p, before[k])}
    assert not {k for k in still if not k.startswith("target.")}
    assert all(p.grad is None for p in model.parameters())


def test_another_seed_draws_otherwise():
    one, two = small(), small(seed=1)
    two.load_state_dict(one.state_dict())
    assert not equal(one.update(windows(one)), two.update(windows(two)))


# ---- what it learns


def world(g, b, t):
    """Returns windows of a world with x' = x + 0.3 a and a reward that only (x, a) decide."""
    x = torch.rand(b, 1, generator=g) * 2 - 1
    steps = {"x": [x], "action": [], "reward": [torch.zeros(b)]}
    for _ in range(t):
        action = torch.rand(b, 1, generator=g) * 2 - 1
        steps["action"].append(action)
        steps["reward"].append(pay(x, action))
        x = x + 0.3 * action
        steps["x"].append(x)
    steps["action"].append(torch.zeros(b, 1))
    batch = {k: torch.stack(v, 1) for k, v in steps.items()}
    flags = torch.zeros(b, t + 1, dtype=torch.bool)
    return batch | {"terminal": flags, "first": flags, "last": flags}


def pay(x, action):
    return (0.5 + 0.5 * torch.tanh(3 * action + 1.5 * x))[:, 0]


def reward_error(shift):
    """Returns the mean error of imagined rewards after learning from rewards moved by `shift`."""
    model = TDMPC2(vectors(x=1), 1, size=1, lr=1e-3)
    g = generator()
    for _ in range(60):
        batch = world(g, 64, 3)
        batch["reward"] = batch["reward"].roll(shift, 1)
        model.update(batch)
    x, action = torch.rand(2, 400, 1, generator=g) * 2 - 1
    step = {"x": x, "first": torch.ones(400, dtype=torch.bool)}
    belief = model.observe(model.start(400), torch.zeros(400, 1), step, g)
    _, reward, _ = model.imagine(belief, action, g)
    return float((reward - pay(x, action)).abs().mean().detach())


def test_rewards_are_those_of_the_action_that_earned_them():
    right, wrong = reward_error(0), reward_error(1)
    assert right < 0.1 and wrong > 0.3, (right, wrong)


# ---- images


def test_a_belief_keeps_three_frames_and_learning_reads_the_same_stacks():
    space = Dict({"rgb/front": IMAGE, **vectors(proprio=3).spaces})
    model = TDMPC2(space, 2, size=1, keys=["rgb/front"], batch_size=4)
    assert model.window == 6
    images = torch.randint(0, 256, (4, 2, 64, 64, 3), generator=generator(), dtype=torch.uint8)
    belief, first = model.start(2), torch.tensor([True, True])
    for image in images[:3]:
        belief = model.observe(
            belief, torch.zeros(2, 2), {"rgb/front": image, "first": first}, None
        )
        first = torch.tensor([False, False])
    assert torch.equal(belief["frames"], torch.cat(list(images[:3]), -1))
    step = {"rgb/front": images[3], "first": torch.tensor([False, True])}
    belief = model.observe(belief, torch.zeros(2, 2), step, None)
    assert torch.equal(belief["frames"][0], torch.cat(list(images[1:, 0]), -1))
    assert torch.equal(belief["frames"][1], images[3, 1].repeat(1, 1, 3))
    stacks = stack_frames(images.transpose(0, 1), torch.tensor([[3], [3]]))
    assert torch.equal(stacks[0, 0], belief["frames"][0])
    assert belief["z"].shape == (2, 128)
    metrics = model.update(windows(model, b=4, pixels=True))
    assert all(v.isfinite() for v in metrics.values())
    assert TDMPC2(space, 2, size=5, keys=["rgb/front"]).encoder.convolutions[0].out_channels == 32


def test_it_learns_from_images_each_shifted_by_up_to_three_pixels_and_acts_on_them_as_they_are():
    space = Dict({"rgb/front": IMAGE})
    calm, moved = (TDMPC2(space, 2, size=1, keys=["rgb/front"], shift=s) for s in (0, 3))
    batch = windows(calm, b=4, pixels=True)
    still, shaken = (m._read(batch)[0] for m in (calm, moved))
    stacks = stack_frames(batch["rgb/front"], torch.arange(2, 6).expand(4, -1))
    assert torch.equal(still, stacks.transpose(0, 1))
    found = []
    for before, after in zip(still.flatten(0, 1), shaken.flatten(0, 1), strict=True):
        middle = after[3:-3, 3:-3]
        by = [(y, x) for y in range(7) for x in range(7)
              if torch.equal(before[y : y + 58, x : x + 58], middle)]  # fmt: skip
        assert len(by) == 1
        found += by
    assert len(set(found)) > 4
    step = {"rgb/front": batch["rgb/front"][:, 0], "first": torch.ones(4, dtype=torch.bool)}
    moved.load_state_dict(calm.state_dict())
    seen = [m.observe(m.start(4), torch.zeros(4, 2), step, None)["z"] for m in (calm, moved)]
    assert torch.equal(*seen)


# ---- other paths


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_learns_and_imagines_the_same():
    one, two = small(), small(compile=True)
    for seed in range(3):
        plain, compiled = (m.update(windows(m, seed=seed)) for m in (one, two))
        for key, value in plain.items():
            torch.testing.assert_close(compiled[key], value, rtol=1e-4, atol=1e-5)
    z, action = torch.rand(8, 128, generator=generator()), torch.rand(8, 6)
    for latents in (z, z[:1].expand(8, -1)):
        (plain, pay, _), (compiled, paid, _) = (
            m.imagine({"z": latents}, action, None) for m in (one, two)
        )
        torch.testing.assert_close(compiled["z"], plain["z"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(paid, pay, rtol=1e-4, atol=1e-5)


def test_fused_and_plain_paths_learn_the_same(monkeypatch):
    """Every device but the CPU takes the plain path."""
    one, two = small(episodic=True), small(episodic=True)
    for seed in range(3):
        fused = one.update(windows(one, seed=seed))
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "fits", lambda _: False)
            plain = two.update(windows(two, seed=seed))
        for key, value in fused.items():
            torch.testing.assert_close(plain[key], value, rtol=2e-4, atol=1e-5)


def test_without_a_stream_the_policy_proposes_its_mode():
    model = small()
    belief = {"z": torch.softmax(torch.randn(5, model.latent, generator=generator()), -1)}
    mode = model.propose(belief, None)
    assert torch.equal(mode, model.propose(belief, None))
    mean = model.policy(belief["z"]).chunk(2, -1)[0]
    torch.testing.assert_close(mode, mean.tanh().detach())
    assert not torch.equal(mode, model.propose(belief, generator()))
