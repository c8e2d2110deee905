"""DreamerV3: sizes, losses by hand, what each may touch, windows against acting, resumption."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten import checkpoint, cli
from umwelten.agents.planners import CEM, MPPI, Prior
from umwelten.world_models.dreamer import SCALES, SIZES, DreamerV3
from umwelten.world_models.rssm import divergence, flat


def vectors(**widths):
    return Dict({k: Box(-np.inf, np.inf, (d,), np.float32) for k, d in widths.items()})


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone, and then nothing depends on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


STATE = vectors(proprio=5, objects=3)
IMAGE = Box(0, 255, (64, 64, 3), np.uint8)
PIXELS = Dict({"rgb/front": IMAGE})
TINY = {"batch_size": 3, "batch_length": 5, "horizon": 3, "warmup": 0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(observation=STATE, nu=2, **changes):
    return DreamerV3(observation, nu, **(TINY | changes))


def windows(model, seed=0, **replaced):
    g, b, t = generator(seed), model.batch_size, model.window
    marks = {k: torch.zeros(b, t, dtype=torch.bool) for k in ("first", "last", "terminal")}
    marks["first"][0, 0] = True
    batch = marks | {
        "action": torch.rand(b, t, model.nu, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g),
    }
    for key, width in (("objects", 3), ("proprio", 5)):
        batch[key] = torch.randn(b, t, width, generator=g)
    shape = (b, t, 64, 64, 3)
    if model.images:
        batch["rgb/front"] = torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
    return batch | replaced


def awake(model):
    """Gives the zero heads weights, so that they say something."""
    with torch.no_grad():
        for head in (model.reward, model.critic, model.slow_critic):
            weight = head[-1].weight
            weight.normal_(0, 0.3, generator=generator(weight.numel()))
    return model


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# ---- architecture


def by_hand(size, nu, vector=0, image=False):
    """Counts weights, biases and gains from the published table; (all, critic)."""
    deter, hidden, classes, depth, units = {
        1: (512, 64, 4, 4, 64),
        12: (2048, 256, 16, 16, 256),
        25: (3072, 384, 24, 24, 384),
        50: (4096, 512, 32, 32, 512),
        100: (6144, 768, 48, 48, 768),
        200: (8192, 1024, 64, 64, 1024),
        400: (12288, 1536, 96, 96, 1536),
    }[size]
    stoch = 32 * classes
    feature = deter + stoch

    def normed(i, o):
        return i * o + 2 * o

    def head(layers, outputs):
        hidden_layers = normed(feature, units) + (layers - 1) * normed(units, units)
        return hidden_layers + outputs * (units + 1)

    tokens = units * bool(vector) + 16 * 4 * depth * image
    core = normed(deter, hidden) + normed(stoch, hidden) + normed(nu, hidden)
    core += (deter + 8 * 3 * hidden) * deter // 8 + 2 * deter  # each block hears an eighth
    core += deter * 3 * deter // 8 + 3 * deter
    prior = normed(deter, hidden) + normed(hidden, hidden) + stoch * (hidden + 1)
    posterior = normed(deter + tokens, hidden) + stoch * (hidden + 1)
    total = core + prior + posterior
    if vector:
        total += normed(vector, units) + 2 * normed(units, units) + head(3, vector)
    if image:
        maps = [3, 2 * depth, 3 * depth, 4 * depth, 4 * depth]
        total += sum(25 * i * o + 2 * o for i, o in itertools.pairwise(maps))
        least = 16 * 4 * depth
        total += deter * least // 8 + least + normed(stoch, 2 * units)
        total += least * (2 * units + 1) + 4 * depth
        grown = [4 * depth, 4 * depth, 3 * depth, 2 * depth]
        total += sum(25 * i * o + 2 * o for i, o in itertools.pairwise(grown))
        total += 25 * grown[-1] * 3 + 3
    return total + head(1, 255) + head(1, 1) + head(3, 2 * nu) + head(3, 255), head(3, 255)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_the_parameters_of_the_published_table(size):
    both = Dict(PIXELS.spaces | vectors(proprio=24).spaces)
    cases = ((vectors(proprio=24), (24, False)), (PIXELS, (0, True)), (both, (24, True)))
    for space, told in cases:
        model = DreamerV3(space, 6, size, device="meta")
        assert model.parameter_count() == by_hand(size, 6, *told)[0]
    # The name counts all that a world of vectors and images takes, the slow critic with it.
    nominal = sum(by_hand(size, 6, 24, True)) / 1e6
    assert abs(nominal / size - 1) < (0.19 if size == 1 else 0.11)


def test_heads_begin_at_their_scales_and_the_slow_critic_as_the_critic():
    model = small()
    assert not model.reward[-1].weight.any() and not model.critic[-1].weight.any()
    assert model.goes_on[-1].weight.any()
    for layer in (model.actor.mean, model.actor.spread):
        assert abs(float(layer.weight.detach().std()) * 8 / 0.01 - 1) < 0.25
    pairs = zip(model.critic.parameters(), model.slow_critic.parameters(), strict=True)
    assert all(torch.equal(a, b) and not b.requires_grad for a, b in pairs)


def test_what_cannot_be_is_refused():
    for wrong, text in (
        ({"size": 3}, "size 3 is not one of"),
        ({"keys": ["touch"]}, "'touch' is no vector"),
        ({"bf16": True}, "use device='cuda'"),
        ({"batch_length": 1}, "windows of 1 steps"),
    ):
        with pytest.raises(ValueError, match=text):
            small(**wrong)
    assert small(episode_length=4, batch_length=64).window == 4


# ---- as a world model


@pytest.mark.parametrize("discrete", [False, True])
def test_beliefs_go_on_propose_and_decode(discrete):
    model, g = small(discrete=discrete), generator()
    step = {"proprio": torch.randn(4, 5), "objects": torch.randn(4, 3)}
    step["first"] = torch.tensor([True, False, False, True])
    belief = model.observe(model.start(4), torch.zeros(4, 2), step, g)
    assert belief["deter"].shape == (4, 512) and belief["stoch"].shape == (4, 32, 4)
    assert torch.equal(belief["stoch"].sum(-1), torch.ones(4, 32))
    then, reward, alive = model.imagine(belief, torch.ones(4, 2), g)
    assert {k: v.shape for k, v in then.items()} == {k: v.shape for k, v in belief.items()}
    assert reward.shape == alive.shape == (4,)
    assert not reward.any() and bool((alive > 0).all()) and bool((alive <= 1).all())
    assert not model.value(belief, g).any()
    action = model.propose(belief, g)
    assert action.shape == (4, 2) and bool((action.abs() <= 1).all())
    assert not action.requires_grad
    mode = model.propose(belief, None)
    assert torch.equal(mode, model.propose(belief, None))
    if discrete:
        assert torch.equal(action.sum(-1), torch.ones(4))
    said = model.decode(belief)
    assert {k: v.shape for k, v in said.items()} == {"objects": (4, 3), "proprio": (4, 5)}


def test_imagined_rewards_ends_and_values_are_the_decoded_heads():
    model, g = awake(small()), generator()
    belief = {"deter": torch.randn(6, 512, generator=g), "stoch": torch.zeros(6, 32, 4)}
    then, reward, alive = model.imagine(belief, torch.rand(6, 2, generator=g), g)
    x = flat(then)
    with torch.no_grad():
        p = model.reward(x).double().softmax(-1)
        even = torch.linspace(-20, 20, 255).double()
        bins = even.sign() * even.abs().expm1()
        torch.testing.assert_close(reward.double(), (p * bins).sum(-1), rtol=1e-3, atol=1e3)
        on = torch.sigmoid(model.goes_on(x))[:, 0]
    torch.testing.assert_close(alive * model.discount, on.clamp(max=1 - 1 / 333))
    assert abs(model.discount - (1 - 1 / 333)) < 1e-12


def test_actions_can_be_improved_by_the_gradient_of_what_they_are_worth():
    model, g = awake(small()), generator()
    belief = {"deter": torch.randn(6, 512, generator=g), "stoch": torch.zeros(6, 32, 4)}
    action = torch.zeros(6, 2, requires_grad=True)
    then, reward, _ = model.imagine(belief, action, g)
    for worth in (reward, model.value(then, g)):
        (slope,) = torch.autograd.grad(worth.sum(), action, retain_graph=True)
        assert slope.isfinite().all() and slope.abs().sum(1).min() > 0


def test_acting_follows_a_world_as_learning_does():
    """The action at a step leads to the next one, and a window may begin a new episode inside."""
    model, batch = small(), None
    batch = windows(model)
    batch["first"][1, 3] = True
    noise = model.rssm.noise(batch["first"].shape, model.generator)
    beliefs, _, _ = model._model_losses(batch, noise)
    belief, action = model.start(3), torch.zeros(3, 2)
    for i in range(model.window):
        model.rssm.noise = lambda shape, rng, i=i: noise[:, i]
        step = {k: v[:, i] for k, v in batch.items()}
        belief = model.observe(belief, action, step, generator())
        for key in belief:
            torch.testing.assert_close(belief[key], beliefs[key][:, i], rtol=1e-4, atol=1e-5)
        action = batch["action"][:, i]


@pytest.mark.parametrize("kind", [MPPI, CEM, Prior])
def test_planners_plan_in_it(kind):
    counts = {"horizon": 3, "iterations": 2, "samples": 30, "elites": 4}
    planner = kind(small(), **({} if kind is Prior else counts))
    carry = planner.start(np.array([1, 2]))
    for first in (True, False):
        step = {"proprio": np.ones((2, 5), np.float32), "objects": np.ones((2, 3), np.float32)}
        step["first"] = np.array([first, first])
        action, carry = planner.act(step, carry)
        assert action.shape == (2, 2) and np.isfinite(action).all() and np.abs(action).max() <= 1
    assert carry["belief/deter"].any()


def test_the_prior_explores_by_drawing():
    model = small()
    step = {"proprio": np.ones((2, 5), np.float32), "objects": np.ones((2, 3), np.float32)}
    step["first"] = np.array([True, True])

    def acts(explore, seeds):
        prior = Prior(model, explore=explore)
        return prior.act(step, prior.start(np.array(seeds)))[0]

    assert np.abs(acts(False, [1, 2])).max() < 0.2  # the mode is near the middle at first
    assert np.abs(acts(True, [1, 2])).max() > 0.2
    assert np.array_equal(acts(True, [1, 2]), acts(True, [1, 2]))
    assert not np.array_equal(acts(True, [1, 2]), acts(True, [3, 4]))


# ---- one update


def test_the_models_losses_are_those_of_the_formulas():
    model = awake(small())
    batch = windows(model)
    batch["terminal"][2, 4] = batch["last"][2, 4] = True
    noise = model.rssm.noise(batch["first"].shape, model.generator)
    beliefs, found, _ = model._model_losses(batch, noise)
    with torch.no_grad():
        x = flat(beliefs)
        prior = model.rssm.predict(beliefs["deter"])
        posterior = model.rssm.correct(beliefs["deter"], model.encoder(batch))
        kl = divergence(posterior, prior).clamp(min=1).mean()
        said = model.decoder(beliefs["deter"], beliefs["stoch"].flatten(-2))
        squares = 0.0
        for key in ("objects", "proprio"):
            seen = batch[key].double()
            squares += (said[key] - seen.sign() * seen.abs().log1p()).square().sum(-1).mean()
        paid = model.two_hot.encode(batch["reward"]).double()
        reward = -(paid * model.reward(x).double().log_softmax(-1)).sum(-1).mean()
        p = torch.sigmoid(model.goes_on(x))[..., 0].double()
        on = (1 - batch["terminal"].double()) * (332 / 333)
        goes_on = -(on * p.log() + (1 - on) * (1 - p).log()).mean()
    want = {"reconstruction": squares, "reward": reward, "continue": goes_on}
    for name, value in (want | {"dynamics": kl, "representation": kl}).items():
        assert abs(float(found[name].detach()) / float(value) - 1) < 1e-4, name


def test_the_total_weighs_the_losses_as_published():
    metrics = awake(small()).update(windows(small()))
    weights = {"reconstruction": 1, "reward": 1, "continue": 1, "dynamics": 1}
    weights |= {"representation": 0.1, "actor": 1, "critic": 1, "replay_critic": 0.3}
    assert weights == SCALES
    total = sum(w * float(metrics[f"{k}_loss"]) for k, w in weights.items())
    assert abs(float(metrics["total_loss"]) / total - 1) < 1e-5


def test_the_dream_begins_at_every_step_and_weighs_by_the_chance_of_being_there():
    model = awake(small())
    starts = {"deter": torch.randn(6, 512, generator=generator()), "stoch": torch.zeros(6, 32, 4)}
    x, action, reward, on = model._dream(starts, *model._chance(1, 6)[1:])
    assert torch.equal(x[0], flat(starts)) and x.shape == (4, 6, 512 + 128)
    assert action.shape == (4, 6, 2) and reward.shape == on.shape == (4, 6)
    assert action.abs().max() > 1  # drawn beyond the bounds, as densities need them
    reward, on = torch.rand(4, 6, generator=generator(1)), torch.rand(4, 6, generator=generator(2))
    losses, returns, metrics = model._behaviour_losses(x, action, reward, on)
    with torch.no_grad():
        value = model.two_hot.decode(model.critic(x))
        want = [value[3]]
        for i in (3, 2, 1):
            want.append(reward[i] + on[i] * (0.05 * value[i] + 0.95 * want[-1]))
        want = torch.stack(want[:0:-1])
        torch.testing.assert_close(returns, want)
        low, high = np.percentile(want, [5, 95])
        scale = max(1.0, 0.01 * (high - low))
        policy = model.actor(x[:3])
        normal = torch.distributions.Normal(policy.mean, policy.std)
        log_p, entropy = normal.log_prob(action[:3]).sum(-1), normal.entropy().sum(-1)
        weight = on.cumprod(0)[:3]
        actor = -(weight * (log_p * (want - value[:3]) / scale + 3e-4 * entropy)).mean()
        log_q = model.critic(x[:3]).log_softmax(-1)
        slow = model.two_hot.decode(model.slow_critic(x[:3]))
        aim = model.two_hot.encode(want) + model.two_hot.encode(slow)
        critic = -(weight * (aim * log_q).sum(-1)).mean()
    assert abs(float(metrics["return_scale"]) / scale - 1) < 1e-4
    torch.testing.assert_close(losses["actor"].detach(), actor, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses["critic"].detach(), critic, rtol=1e-4, atol=1e-4)


def test_the_critic_learns_from_what_was_seen_up_to_where_an_episode_ends():
    model = awake(small())
    batch = windows(model)
    batch["last"][0, 2] = batch["last"][1, 4] = True
    batch["terminal"][1, 4] = True
    batch["first"][0, 3] = True
    g = generator(4)
    x, boot = torch.randn(3, 5, 640, generator=g), torch.rand(3, 5, generator=g)
    found = model._replay_loss(batch, x, boot)
    total = 0.0
    with torch.no_grad():
        slow, log_p = model.two_hot.decode(model.slow_critic(x)), model.critic(x).log_softmax(-1)
        for row in range(3):
            beyond = boot[row, 4]
            for i in (3, 2, 1, 0):
                on = 332 / 333 * (1 - float(batch["terminal"][row, i + 1]))
                lam = 0.95 * (1 - float(batch["last"][row, i + 1]))
                mixed = (1 - lam) * boot[row, i + 1] + lam * beyond
                beyond = batch["reward"][row, i + 1] + on * mixed
                aim = model.two_hot.encode(beyond) + model.two_hot.encode(slow[row, i])
                total -= float((aim * log_p[row, i]).sum()) * (1 - float(batch["last"][row, i]))
    assert abs(float(found.detach()) / (total / 12) - 1) < 1e-4


def test_windows_are_valued_by_what_is_imagined_from_each_of_their_own_steps(monkeypatch):
    model, seen = awake(small()), {}
    judge, replay = model._behaviour_losses, model._replay_loss

    def judged(x, *rest):
        found = judge(x, *rest)
        seen["from"], seen["returns"] = x[0], found[1]
        return found

    def replayed(batch, x, boot):
        seen["at"], seen["boot"] = x, boot
        return replay(batch, x, boot)

    monkeypatch.setattr(model, "_behaviour_losses", judged)
    monkeypatch.setattr(model, "_replay_loss", replayed)
    model.update(windows(model))
    assert torch.equal(seen["from"].view(3, 5, -1), seen["at"])
    assert torch.equal(seen["returns"][0].view(3, 5), seen["boot"])
    assert not torch.equal(*seen["returns"][:2])


def test_each_loss_touches_its_own_parts_alone():
    model = awake(small())
    batch = windows(model)
    chance = model._chance(*batch["first"].shape)
    losses = model._losses(batch, model._before(batch), *chance)[2]
    learned = {k: p for k, p in model.named_parameters() if p.requires_grad}

    def touched(name):
        found = torch.autograd.grad(
            losses[name], learned.values(), retain_graph=True, allow_unused=True
        )
        hit = [k for k, g in zip(learned, found, strict=True) if g is not None and g.any()]
        return {".".join(k.split(".")[: 2 if k.startswith("rssm") else 1]) for k in hit}

    seen = {"encoder", "rssm.core", "rssm.posterior"}
    assert touched("actor") == {"actor"}
    assert touched("critic") == {"critic"}
    assert touched("replay_critic") == seen | {"critic"}
    assert touched("reconstruction") == seen | {"decoder"}
    assert touched("reward") == seen | {"reward"}
    assert touched("continue") == seen | {"goes_on"}
    assert touched("dynamics") == seen | {"rssm.prior"}
    assert touched("representation") == seen


def test_updates_move_everything_and_the_slow_critic_by_one_fiftieth():
    model = small(lr=1e-3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    metrics = model.update(windows(model))
    assert all(v.ndim == 0 and v.isfinite() and not v.requires_grad for v in metrics.values())
    after = model.state_dict()
    for name, p in after.items():
        if name.startswith("slow_critic."):
            online = after[name.replace("slow_critic", "critic")]
            torch.testing.assert_close(p, torch.lerp(before[name], online, 0.02))
    model.update(windows(model))  # behind zero heads no gradient flowed in the first
    assert not [k for k, p in model.state_dict().items() if torch.equal(p, before[k])]
    assert all(p.grad is None for p in model.parameters())


def test_another_seed_draws_otherwise():
    one, two = small(), small(seed=1)
    two.load_state_dict(one.state_dict())
    assert not equal(one.update(windows(one)), two.update(windows(two)))


# ---- what it learns


def test_it_learns_a_batch_by_heart():
    model = small(lr=2e-3)
    batch = windows(model)
    names = ("reconstruction_loss", "reward_loss", "continue_loss", "dynamics_loss")
    first, *_, last = (model.update(batch) for _ in range(40))
    assert all(float(last[k]) < float(first[k]) for k in names)
    assert float(last["reconstruction_loss"]) < 0.5 * float(first["reconstruction_loss"])
    assert float(last["reward_loss"]) < 0.6 * float(first["reward_loss"])


def world(model, g):
    """Returns windows of a world with x' = x + 0.7 a, x kept within [-1, 1]^3."""
    b, t = model.batch_size, model.window
    action = torch.rand(b, t, 3, generator=g) * 2 - 1
    xs = [torch.rand(b, 3, generator=g) * 2 - 1]
    for i in range(t - 1):
        xs.append((xs[-1] + 0.7 * action[:, i]).clamp(-1, 1))
    marks = {k: torch.zeros(b, t, dtype=torch.bool) for k in ("first", "last", "terminal")}
    marks["first"][:, 0] = True
    return marks | {"x": torch.stack(xs, 1), "action": action, "reward": torch.zeros(b, t)}


def test_it_learns_where_actions_lead_and_a_shuffled_action_surprises_it():
    changes = {"batch_size": 24, "batch_length": 4, "horizon": 1, "lr": 3e-3, "free_nats": 0.0}
    model, g = small(vectors(x=3), 3, **changes), generator()
    for _ in range(60):
        model.update(world(model, g))
    batch = world(model, g)

    def surprise(action):
        noise = model.rssm.noise(batch["first"].shape, generator())
        with torch.no_grad():
            return float(model._model_losses(batch | {"action": action}, noise)[1]["dynamics"])

    right = surprise(batch["action"])
    wrong = surprise(batch["action"][torch.randperm(24, generator=g)])
    assert wrong > 1.2 * right, (right, wrong)


# ---- as the recipe trains it


def test_its_recipe_trains_and_the_same_command_goes_on_the_same(tmp_path):
    given = (
        "train task=reach agent=dreamer action_repeat=10 device=cpu threads=1 seed_steps=10 n=2 "
        "ratio=0.5 evaluate_every=0 model.batch_size=2 model.batch_length=4 model.horizon=2"
    ).split()
    for folder, parts in (("whole", (30,)), ("parts", (16, 30))):
        for steps in parts:
            assert cli.main([*given, f"steps={steps}", f"out={tmp_path / folder}"]) == 0
    whole, parts = (
        checkpoint.load(checkpoint.latest(tmp_path / f / "checkpoints")) for f in ("whole", "parts")
    )
    assert equal(whole[0], parts[0]) and whole[2]["progress"] == parts[2]["progress"]
    assert whole[2]["progress"]["updates"] == 10


# ---- images


def test_it_learns_from_images_alone_and_with_vectors():
    for space in (PIXELS, Dict(PIXELS.spaces | STATE.spaces)):
        model = small(space, batch_size=2, batch_length=3)
        for seed in range(2):
            metrics = model.update(windows(model, seed))
        assert all(v.isfinite() for v in metrics.values())
        step = {k: v[:, 0] for k, v in windows(model).items()}
        belief = model.observe(model.start(2), torch.zeros(2, 2), step, generator())
        said = model.decode(belief)
        assert said["rgb/front"].shape == (2, 64, 64, 3)
        assert said["rgb/front"].dtype is torch.uint8 and said.keys() == set(model.keys)
