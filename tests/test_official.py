"""Official weights: both layouts arrive where they belong, and nothing but weights is read."""

import itertools
import pickle

import gymnasium
import numpy as np
import pytest
import torch

from umwelten.world_models import official
from umwelten.world_models.tasks import TaskSpec
from umwelten.world_models.tdmpc2 import TDMPC2

SEEN, NU = 11, 3
WIDE, LATENT, HIDDEN, COUNT = 256, 128, 384, 2  # size 1


def model(nu=NU, pixels=False, **more):
    box = gymnasium.spaces.Box
    key = ("rgb/front", box(0, 255, (64, 64, 3), np.uint8))
    key = key if pixels else ("proprio", box(-np.inf, np.inf, (SEEN,), np.float32))
    more |= {"keys": [key[0]]} if pixels else {}
    return TDMPC2(gymnasium.spaces.Dict(dict([key])), nu, 1, **more)


def mlp(rng, name, sizes, lead=(), act=False):
    """A stack as the authors' code names it: a LayerNorm after each layer but a plain last."""
    tensors, last = {}, len(sizes) - 2
    for k, (i, o) in enumerate(itertools.pairwise(sizes)):
        tensors[f"{name}.{k}.weight"] = torch.randn(*lead, o, i, generator=rng)
        tensors[f"{name}.{k}.bias"] = torch.randn(*lead, o, generator=rng)
        if k < last or act:
            tensors[f"{name}.{k}.ln.weight"] = torch.randn(*lead, o, generator=rng)
            tensors[f"{name}.{k}.ln.bias"] = torch.randn(*lead, o, generator=rng)
    return tensors


def state_dict(old=False):
    rng, za = torch.Generator().manual_seed(0), LATENT + NU
    found = mlp(rng, "_encoder.state", [SEEN, WIDE, LATENT], act=True)
    found |= mlp(rng, "_dynamics", [za, HIDDEN, HIDDEN, LATENT], act=True)
    found |= mlp(rng, "_reward", [za, HIDDEN, HIDDEN, 101])
    found |= mlp(rng, "_pi", [LATENT, HIDDEN, HIDDEN, 2 * NU])
    for name in ("_Qs.params", "_target_Qs_params"):
        critics = mlp(rng, name, [za, HIDDEN, HIDDEN, 101], (COUNT,))
        if old:  # weight, bias, and the norm's two, layer after layer, under plain numbers
            name = name.replace("_Qs_", "_Qs.")
            critics = {f"{name}.{k}": v for k, v in enumerate(critics.values())}
        found |= critics
    if not old:
        found |= {"_detach_Qs_params.2.bias": found["_Qs.params.2.bias"]}
        found |= {"_Qs.params.__batch_size": torch.Size([2])}
    return found | {"log_std_min": torch.tensor(-10.0), "log_std_dif": torch.tensor(12.0)}


def forward(tensors, name, x, act=None, k=None):
    """The authors' network from its tensors: linear, LayerNorm, Mish; `act` in the last layer."""
    layer = 0
    at = (lambda t: t) if k is None else (lambda t: t[k])
    while f"{name}.{layer}.weight" in tensors:
        part = {p: tensors.get(f"{name}.{layer}.{p}") for p in ("weight", "bias", "ln.weight")}
        x = x @ at(part["weight"]).T + at(part["bias"])
        last = f"{name}.{layer + 1}.weight" not in tensors
        if part["ln.weight"] is not None:
            shift = at(tensors[f"{name}.{layer}.ln.bias"])
            x = torch.nn.functional.layer_norm(x, x.shape[-1:]) * at(part["ln.weight"]) + shift
            x = act(x) if last and act else torch.nn.functional.mish(x)
        layer += 1
    return x


def simnorm(x):
    return torch.softmax(x.view(*x.shape[:-1], -1, 8), -1).view(x.shape)


@pytest.mark.parametrize("old", [False, True])
def test_outputs_are_those_of_the_official_layout(old, tmp_path):
    torch.save({"model": state_dict(old)}, tmp_path / "step.pt")
    ours, new = model(), state_dict()
    ours.load_official(tmp_path / "step.pt")
    x, a = torch.randn(5, SEEN), torch.rand(5, NU)
    z = simnorm(torch.randn(5, LATENT))
    za = torch.cat([z, a], -1)
    close = {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encoder(x), forward(new, "_encoder.state", x, simnorm), **close
        )
        torch.testing.assert_close(
            ours.dynamics(z, a), forward(new, "_dynamics", za, simnorm), **close
        )
        torch.testing.assert_close(ours.reward(z, a), forward(new, "_reward", za), **close)
        torch.testing.assert_close(ours.policy(z), forward(new, "_pi", z), **close)
        for critics, name in ((ours.critics, "_Qs.params"), (ours.target, "_target_Qs_params")):
            for k in range(COUNT):
                want = forward(new, name, za, k=k)
                torch.testing.assert_close(critics(z, a)[k], want, **close)


def test_another_size_another_body_another_sense_are_refused_and_leave_the_model_as_it_was():
    ours, tensors = model(nu=4), state_dict()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(ValueError, match=r"'_dynamics.0.weight' has shape .* build the model with"):
        official.fill(ours, tensors)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    with pytest.raises(ValueError, match="the model sees pixels, the checkpoint vectors"):
        official.fill(model(pixels=True), tensors)
    with pytest.raises(ValueError, match=r"has no '_termination.0.weight'"):
        official.fill(model(episodic=True), tensors)
    with pytest.raises(ValueError, match="of 80 tasks at once"):
        official.fill(model(), tensors | {"_task_emb.weight": torch.zeros(80, 96)})


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_is_no_file_of_weights_is_refused(tmp_path, capsys):
    path = tmp_path / "step.pt"
    with pytest.raises(ValueError, match="is no file"):
        official.read(path)
    for content in (b"", b"not a checkpoint", pickle.dumps(Trap())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no file of weights alone"):
            official.read(path)
    torch.save({"model": Trap()}, path)
    with pytest.raises(ValueError, match="is no file of weights alone"):
        official.read(path)
    assert "executed" not in capsys.readouterr().out
    torch.save({"model": {"weight": torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match="no TD-MPC2 of its authors"):
        official.read(path)


# ---- several tasks at once

TASKS = [TaskSpec("a", 1, 1000), TaskSpec("b", 3, 100), TaskSpec("c", 2, 250)]
WIDTH = 64
OF = torch.tensor([0, 1, 2, 1, 0, 2])  # the tasks of six rows


def of_several(old=False):
    """The authors' layout with embeddings behind what each network reads, and action masks."""
    rng, z = torch.Generator().manual_seed(1), LATENT + WIDTH
    za = z + NU
    found = {"_task_emb.weight": torch.randn(3, WIDTH, generator=rng)}
    found |= mlp(rng, "_encoder.state", [SEEN + WIDTH, WIDE, LATENT], act=True)
    found |= mlp(rng, "_dynamics", [za, HIDDEN, HIDDEN, LATENT], act=True)
    found |= mlp(rng, "_reward", [za, HIDDEN, HIDDEN, 101])
    found |= mlp(rng, "_termination", [z, HIDDEN, HIDDEN, 1])
    found |= mlp(rng, "_pi", [z, HIDDEN, HIDDEN, 2 * NU])
    for name in ("_Qs.params", "_target_Qs.params" if old else "_target_Qs_params"):
        critics = mlp(rng, name, [za, HIDDEN, HIDDEN, 101], (COUNT,))
        if old:
            critics = {f"{name}.{k}": v for k, v in enumerate(critics.values())}
        found |= critics
    masks = torch.tensor([[1.0, 0, 0], [1, 1, 1], [1, 1, 0]])
    return {k: 0.2 * v for k, v in found.items()} | ({} if old else {"_action_masks": masks})


def learner(tasks=TASKS, **more):
    space = gymnasium.spaces.Dict(
        {
            "vector": gymnasium.spaces.Box(-np.inf, np.inf, (SEEN,), np.float32),
            "task": gymnasium.spaces.Discrete(3),
        }
    )
    # Almost no spread and neither dropout nor steps: what an update tells is then no draw's.
    more = {"log_std": (-30.0, -29.0), "dropout": 0.0, "lr": 0.0, "entropy_coef": 0.0} | more
    return TDMPC2(space, NU, 1, tasks=tasks, task_width=WIDTH, episodic=True, **more)


def told():
    """Embedding, mask and discount of the six rows, from the layout's own tensors."""
    tensors = of_several()
    emb = tensors["_task_emb.weight"]
    emb = emb / emb.norm(dim=1, keepdim=True).clamp(min=1)
    gamma = torch.tensor([0.995, 0.95, 0.98])  # of 1000, 100 and 250 steps
    return tensors, emb[OF], tensors["_action_masks"][OF], gamma[OF]


def scalar(logits):
    x = (logits.softmax(-1) * torch.linspace(-10, 10, 101)).sum(-1)
    return x.sign() * (x.abs().exp() - 1)


def cross_entropy(logits, x):
    """Of a scalar's two-hot code in symlog space, by the distance to every bin."""
    place = (x.sign() * (1 + x.abs()).log()).clamp(-10, 10)
    weight = (1 - (place[..., None] - torch.linspace(-10, 10, 101)).abs() / 0.2).clamp(min=0)
    return -(weight * logits.log_softmax(-1)).sum(-1)


@pytest.mark.parametrize("old", [False, True])
def test_of_several_tasks_every_prediction_is_that_of_the_official_layout(old, tmp_path):
    torch.save({"model": of_several(old)}, tmp_path / "mt.pt")
    ours, (tensors, emb, mask, _) = learner(), told()
    if old:
        tensors = {k: v for k, v in tensors.items() if "Qs" not in k}
    ours.load_official(tmp_path / "mt.pt")
    g = torch.Generator().manual_seed(3)
    x, a = torch.randn(6, SEEN, generator=g), torch.rand(6, NU, generator=g)
    step = {"vector": x, "task": OF, "first": torch.ones(6, dtype=torch.bool)}
    belief = ours.observe(ours.start(6), torch.zeros(6, NU), step, None)
    close = {"rtol": 1e-3, "atol": 1e-4}
    with torch.no_grad():
        z = forward(tensors, "_encoder.state", torch.cat([x, emb], 1), simnorm)
        torch.testing.assert_close(belief["z"], z, **close)
        action = torch.tanh(forward(tensors, "_pi", torch.cat([z, emb], 1))[:, :NU] * mask)
        torch.testing.assert_close(ours.propose(belief, g), action, **close)
        assert not action[0, 1:].any() and action[1].all()
        after, reward, alive = ours.imagine(belief, a, g)
        zea = torch.cat([z, emb, a * mask], 1)
        torch.testing.assert_close(reward, scalar(forward(tensors, "_reward", zea)), **close)
        then = forward(tensors, "_dynamics", zea, simnorm)
        torch.testing.assert_close(after["z"], then, **close)
        ends = torch.sigmoid(forward(tensors, "_termination", torch.cat([then, emb], 1)))
        torch.testing.assert_close(alive, 1 - ends[:, 0], **close)
        if not old:
            zea = torch.cat([z, emb, action], 1)
            q = torch.stack([scalar(forward(tensors, "_Qs.params", zea, k=k)) for k in range(2)])
            torch.testing.assert_close(ours.value(belief, g), q.mean(0), **close)


def test_of_several_tasks_the_losses_are_the_published_ones():
    ours, (tensors, emb, mask, gamma) = learner(), told()
    official.fill(ours, tensors)
    g = torch.Generator().manual_seed(4)
    x, a = torch.randn(6, 4, SEEN, generator=g), torch.rand(6, 4, NU, generator=g) * 2 - 1
    reward, ends = torch.rand(6, 4, generator=g), torch.zeros(6, 4, dtype=torch.bool)
    ends[2, 3] = True
    never = torch.zeros(6, 4, dtype=torch.bool)
    found = ours.update(
        {"vector": x, "action": a, "reward": reward, "terminal": ends, "first": never}
        | {"last": ends, "task": OF[:, None].expand(6, 4).contiguous()}
    )

    def critics(name, z, action):
        zea = torch.cat([z, emb, action], 1)
        return torch.stack([forward(tensors, name, zea, k=k) for k in range(COUNT)])

    def act(z):
        return torch.tanh(forward(tensors, "_pi", torch.cat([z, emb], 1))[:, :NU] * mask)

    want, zs = dict.fromkeys(("consistency_loss", "reward_loss", "value_loss"), 0.0), []
    z = forward(tensors, "_encoder.state", torch.cat([x[:, 0], emb], 1), simnorm)
    want["terminal_loss"] = 0.0
    for t in range(3):
        goal = forward(tensors, "_encoder.state", torch.cat([x[:, t + 1], emb], 1), simnorm)
        least = scalar(critics("_target_Qs_params", goal, act(goal))).amin(0)
        aim = reward[:, t + 1] + gamma * (1 - ends[:, t + 1].float()) * least
        zea = torch.cat([z, emb, a[:, t] * mask], 1)
        weight = 0.5**t / 3
        paid = cross_entropy(forward(tensors, "_reward", zea), reward[:, t + 1])
        want["reward_loss"] += weight * paid.mean()
        logits = critics("_Qs.params", z, a[:, t] * mask)
        want["value_loss"] += weight * cross_entropy(logits, aim.expand(COUNT, -1)).mean()
        zs.append(z)
        z = forward(tensors, "_dynamics", zea, simnorm)
        want["consistency_loss"] += weight * (z - goal).square().mean()
        p = torch.sigmoid(forward(tensors, "_termination", torch.cat([z, emb], 1)))[:, 0]
        want["terminal_loss"] += -torch.where(ends[:, t + 1], p, 1 - p).log().mean() / 3
    zs.append(z)
    q = torch.stack([scalar(critics("_Qs.params", z, act(z))).mean(0) for z in zs])
    spread = float(np.percentile(q[0], 95) - np.percentile(q[0], 5))
    want["policy_scale"] = torch.tensor(0.99 + 0.01 * max(spread, 1))
    want["policy_loss"] = -sum(0.5**t * q[t].mean() / want["policy_scale"] for t in range(4)) / 4
    for name, value in want.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(
        found["total_loss"],
        20 * want["consistency_loss"]
        + 0.1 * (want["reward_loss"] + want["value_loss"])
        + want["terminal_loss"],
        rtol=2e-3, atol=1e-5,
    )  # fmt: skip


def test_other_tasks_other_bodies_and_other_widths_are_refused():
    tensors = of_several()
    with pytest.raises(ValueError, match="of 3 tasks at once, the model of 1"):
        official.fill(model(), tensors)
    with pytest.raises(ValueError, match="of 1 tasks at once, the model of 3"):
        official.fill(learner(), state_dict())
    other = [TaskSpec("a", 1, 1000), TaskSpec("b", 3, 100), TaskSpec("c", 3, 250)]
    with pytest.raises(ValueError, match=r"\[1, 3, 2\] action components there and \[1, 3, 3\]"):
        official.fill(learner(other), tensors)
    with pytest.raises(ValueError, match=r"shape .* its task_width and latent"):
        official.fill(learner(latent=256), tensors)
