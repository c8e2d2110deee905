"""DreamerV3 beside r2dreamer, same weights and same noise: how far apart they are.

    python benchmarks/dreamer_parity.py --r2dreamer /path/to/r2dreamer

r2dreamer (github.com/NM512/r2dreamer) is a port of the authors' JAX code to PyTorch; its imports
need `pip install tensordict tensorboard`. Nothing in the clone is changed; from outside:
- normals, uniforms and categories are drawn from the noise that ours draws;
- its continuation head learns 1 where an episode goes on, and returns are discounted apart; the
  authors' code and ours have the discount in the head's target, so its head is told that target
  and to discount by 1;
- its divergences are of logits before the uniform share is mixed in; the authors' and ours are of
  what is drawn from, so it is given mixed logits;
- its losses are float32 (it would autocast to float16 and scale gradients);
- it moves its slow critic before a step, here after it, as the authors do;
- its LaProp takes the learning rate into the moving average; at a constant rate, as here, that is
  the same.
Largest differences, relative to the largest number compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import types
from pathlib import Path

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F

from record import record
from umwelten.blocks import draw, mixed
from umwelten.world_models.dreamer import SIZES, DreamerV3
from umwelten.world_models.rssm import flat

OBSERVED, NU, BATCH, LENGTH, HORIZON, UPDATES = 24, 6, 4, 16, 15, 4
LR = 4e-5
LOSSES = {
    "reconstruction": "proprio", "reward": "rew", "continue": "con", "dynamics": "dyn",
    "representation": "rep", "actor": "policy", "critic": "value", "replay_critic": "repval",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--r2dreamer", type=Path, required=True, help="a clone of the repository")
    theirs = peer(parser.parse_args().r2dreamer, LR)
    ours = DreamerV3(
        space(), NU, 1, batch_size=BATCH, batch_length=LENGTH, horizon=HORIZON, warmup=0, lr=LR
    )
    wake(ours)
    copy(ours, theirs)
    found = outputs(ours, theirs) | updates(ours, theirs)
    for name, value in found.items():
        print(f"{name:32s} {value:.1e}")
    print(record("dreamer_parity", found))


def peer(clone: Path, lr: float):
    """Returns r2dreamer's agent at our size 1, on the CPU and without a compiler."""
    import omegaconf

    sys.path.insert(0, str(clone))
    import dreamer

    load, folder = omegaconf.OmegaConf.load, clone / "configs" / "model"
    raw = [load(folder / f"{name}.yaml") for name in ("_base_", "size12M")]
    model = {}
    for part in raw:
        model |= omegaconf.OmegaConf.to_container(part, resolve=False)
    del model["defaults"]
    deter, hidden, classes, depth, units = SIZES[1]
    model |= {"deter": deter, "hidden": hidden, "discrete": classes, "depth": depth, "units": units}
    model |= {"compile": False, "rep_loss": "dreamer", "lr": lr, "warmup": 0}
    keys = {"mlp_keys": ".*", "cnn_keys": "$^"}
    root = {"device": "cpu", "env": {"encoder": keys, "decoder": keys}, "model": model}
    told = omegaconf.OmegaConf.create(root).model
    box = gymnasium.spaces.Box(-1, 1, (NU,), np.float32)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it is made of
        return dreamer.Dreamer(told, space(), box)


def space() -> gymnasium.spaces.Dict:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVED,), np.float32)
    return gymnasium.spaces.Dict(proprio=box)


def windows(b: int, t: int) -> dict[str, torch.Tensor]:
    """Returns windows of which one has a new episode inside and one an end."""
    g = torch.Generator().manual_seed(3)
    marks = {k: torch.zeros(b, t, dtype=torch.bool) for k in ("first", "last", "terminal")}
    marks["last"][1, 4] = marks["first"][1, 5] = True
    marks["last"][2, -1] = marks["terminal"][2, -1] = True
    return marks | {
        "proprio": 3 * torch.randn(b, t, OBSERVED, generator=g),
        "action": torch.rand(b, t, NU, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g),
        "valid": torch.ones(b, t, dtype=torch.bool),
    }


@torch.no_grad()
def wake(ours: DreamerV3) -> None:
    """Gives every weight a value, the zero heads too, so that nothing agrees by being zero."""
    g = torch.Generator().manual_seed(1)
    for p in ours.parameters():
        p.add_(0.02 * torch.randn(p.shape, generator=g))
    ours.slow_critic.load_state_dict(ours.critic.state_dict())


@torch.no_grad()
def copy(ours: DreamerV3, theirs) -> None:
    """Copies our weights into theirs: features there are the categories, then the state."""
    deter = ours.rssm.deter

    def turned(weight):
        return torch.cat([weight[:, deter:], weight[:, :deter]], 1)

    def mlp(mine, other, turn=False):
        layers = [x for x in other if hasattr(x, "weight")]
        for i, (a, b) in enumerate(zip(mine, layers, strict=True)):
            if i % 2:
                b.weight.copy_(a.gain)
            else:
                b.weight.copy_(turned(a.weight) if turn and i == 0 else a.weight)
                b.bias.copy_(a.bias)

    def last(mine, other):
        other.weight.copy_(torch.cat([m.weight for m in mine]))
        other.bias.copy_(torch.cat([m.bias for m in mine]))

    core, cell = ours.rssm.core, theirs.rssm._deter_net
    for a, b in zip(core.branches, (cell._dyn_in0, cell._dyn_in1, cell._dyn_in2), strict=True):
        mlp(a, b)
    for a, b in ((core.mix, cell._dyn_hid[0]), (core.gates, cell._dyn_gru)):
        b.weight.copy_(a.weight.permute(2, 1, 0))
        b.bias.copy_(a.bias)
    cell._dyn_hid[1].weight.copy_(core.norm.gain)
    prior, posterior = ours.rssm.prior, ours.rssm.posterior
    for a, b in ((prior, theirs.rssm._img_net), (posterior, theirs.rssm._obs_net)):
        *hidden, end = [x for x in b if hasattr(x, "weight")]
        mlp(a[0], hidden)
        last([a[1]], end)
    mlp(ours.encoder.mlp, theirs.encoder.encoders[0].layers)
    mlp(ours.decoder.mlp, theirs.decoder._mlp.mlp.layers, turn=True)
    last(ours.decoder.heads, theirs.decoder._mlp.last)
    heads = {
        "reward": theirs.reward, "goes_on": theirs.cont, "critic": theirs.value,
        "slow_critic": theirs._slow_value,
    }  # fmt: skip
    for name, head in heads.items():
        mlp(getattr(ours, name)[0], head.mlp.layers, turn=True)
        last([getattr(ours, name)[1]], head.last)
    mlp(ours.actor.mlp, theirs.actor.mlp.layers, turn=True)
    last([ours.actor.mean, ours.actor.spread], theirs.actor.last)
    theirs.clone_and_freeze()


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the largest difference over the largest number."""
    return float((a - b).detach().abs().max() / b.detach().abs().max())


@torch.no_grad()
def outputs(ours: DreamerV3, theirs) -> dict[str, float]:
    """Returns how far apart the networks' outputs are at the same inputs."""
    g = torch.Generator().manual_seed(2)
    deter = torch.rand(64, ours.rssm.deter, generator=g) * 2 - 1
    logits = torch.randn(64, 32, ours.rssm.classes, generator=g)
    stoch, action = draw(logits, None), 2 * torch.randn(64, NU, generator=g)
    seen = {"proprio": 3 * torch.randn(64, OBSERVED, generator=g)}
    belief, tokens = {"deter": deter, "stoch": stoch}, ours.encoder(seen)
    x, y = flat(belief), theirs.rssm.get_feat(stoch, deter)
    moved, net = ours.rssm.move(belief, action), theirs.rssm._deter_net
    prior = theirs.rssm._img_net(deter)
    posterior = theirs.rssm._obs_net(torch.cat([deter, tokens], -1))
    mine, other = ours.actor(x), theirs.actor(y).base_dist
    values = ours.two_hot.decode(ours.critic(x)), theirs.value(y).mode()[:, 0]
    return {
        "tokens": apart(tokens, theirs.encoder(seen)),
        "next state": apart(moved, net(stoch, deter, action)),
        "prior": apart(ours.rssm.predict(deter), theirs.rssm.get_dist(prior).base_dist.logits),
        "posterior": apart(
            ours.rssm.correct(deter, tokens), theirs.rssm.get_dist(posterior).base_dist.logits
        ),
        "reconstruction's symlog": apart(
            ours.decoder(deter, stoch.flatten(1))["proprio"],
            theirs.decoder(stoch[:, None], deter[:, None])["proprio"]._mode[:, 0],
        ),
        "reward": apart(ours.two_hot.decode(ours.reward(x)), theirs.reward(y).mode()[:, 0]),
        "continuation": apart(torch.sigmoid(ours.goes_on(x)), theirs.cont(y).mean),
        "value": apart(*values),
        "policy's mean": apart(mine.mean, other.mean),
        "policy's std": apart(mine.std, other.stddev),
    }


@contextlib.contextmanager
def same_noise(chance):
    """Lets r2dreamer draw by the noise (windows, actions, states) that ours draws by."""
    import distributions

    seen, actions, states = chance
    unused = torch.zeros_like(seen), torch.zeros_like(states[0])
    categories = iter([*seen.transpose(0, 1), unused[0], *states, unused[1]])
    normals = iter(actions)
    normal = torch.distributions.Normal

    def choose(self, sample_shape=(), temperature=1.0):
        return draw(self.logits, next(categories))  # its logits are mixed already

    def sample(self, sample_shape=()):
        return self.mean + self.stddev * next(normals)

    kept = distributions.OneHotDist.rsample, normal.rsample
    distributions.OneHotDist.rsample, normal.rsample = choose, sample
    try:
        yield
    finally:
        distributions.OneHotDist.rsample, normal.rsample = kept


def updates(ours: DreamerV3, theirs) -> dict[str, float]:
    """Returns how far apart losses, gradients and weights are over some updates."""
    batch = windows(BATCH, LENGTH)
    led = torch.cat([torch.zeros(BATCH, 1, NU), batch["action"][:, :-1]], 1)
    import tensordict

    data = tensordict.TensorDict({
        "proprio": batch["proprio"], "action": led, "reward": batch["reward"][..., None],
        "is_first": batch["first"], "is_last": batch["last"][..., None],
        "is_terminal": batch["terminal"][..., None],
    }, batch_size=(BATCH, LENGTH))  # fmt: skip
    discounted(theirs, ours.discount)
    divergences, share = theirs.rssm.kl_loss, ours.rssm.unimix
    theirs.rssm.kl_loss = lambda p, q, free: divergences(mixed(p, share), mixed(q, share), free)
    pairs = matched(ours, theirs)
    names = [*(f"{k} loss" for k in LOSSES), "total loss", "gradients", "returns' scale"]
    worst = dict.fromkeys(names, 0.0)
    for _ in range(UPDATES):
        drawn = {}
        real = ours._chance
        ours._chance = lambda *sizes, real=real, drawn=drawn: drawn.setdefault("all", real(*sizes))
        gradients = record_gradients(ours)
        mine = ours.update(batch)
        del ours._chance
        start = theirs.rssm.initial(BATCH)
        with same_noise(drawn["all"]):
            _, metrics = theirs._cal_grad(data, start)
        for a, b in LOSSES.items():
            gap = apart(mine[f"{a}_loss"], metrics[f"loss/{b}"])
            worst[f"{a} loss"] = max(worst[f"{a} loss"], gap)
        worst["total loss"] = max(
            worst["total loss"], apart(mine["total_loss"], metrics["opt/loss"])
        )
        low, high = metrics["ret_005"], metrics["ret_095"]
        gap = apart(mine["return_scale"], (high - low).clamp(min=1))
        worst["returns' scale"] = max(worst["returns' scale"], gap)
        for name, (get, p) in pairs.items():
            worst["gradients"] = max(worst["gradients"], apart(get(gradients[name]), p.grad))
        theirs._agc(theirs._named_params.values())
        theirs._optimizer.step()
        theirs._optimizer.zero_grad(set_to_none=True)
        theirs._update_slow_target()
    mine = dict(ours.named_parameters())
    gaps = [apart(get(mine[name].data), p.data) for name, (get, p) in pairs.items()]
    return worst | {"weights after": max(gaps)}


def discounted(theirs, discount: float) -> None:
    """Tells their continuation head the authors' target, and discounts imagined steps by it alone.

    They multiply by 1 - 1 / horizon in imagination and in replay; in imagination it has to be 1.
    """
    head, frozen = theirs.cont.forward, theirs._frozen_cont.forward

    def told(feat):
        found = head(feat)
        soft = types.SimpleNamespace(mean=found.mean)
        logits = found.base_dist.logits
        soft.log_prob = lambda on: (
            -F.binary_cross_entropy_with_logits(logits, on * discount, reduction="none").sum(-1)
        )
        return soft

    theirs.cont.forward = told
    theirs._frozen_cont.forward = lambda feat: types.SimpleNamespace(
        mean=frozen(feat).mean / discount
    )


def record_gradients(ours: DreamerV3) -> dict[str, torch.Tensor]:
    """Returns what will hold our gradients of the next update, before they are clipped."""
    kept, step = {}, ours.optimiser.step

    def noted():
        kept.update({k: p.grad.clone() for k, p in ours.named_parameters() if p.grad is not None})
        ours.optimiser.step = step
        step()

    ours.optimiser.step = noted
    return kept


def matched(ours: DreamerV3, theirs) -> dict:
    """Returns for some of our parameters how they look there, and the parameter there."""
    cell, same = theirs.rssm._deter_net, lambda x: x
    deter = ours.rssm.deter
    turned = lambda x: torch.cat([x[:, deter:], x[:, :deter]], 1)  # noqa: E731
    blocks = lambda x: x.permute(2, 1, 0)  # noqa: E731
    return {
        "rssm.core.mix.weight": (blocks, cell._dyn_hid[0].weight),
        "rssm.core.gates.weight": (blocks, cell._dyn_gru.weight),
        "rssm.core.gates.bias": (same, cell._dyn_gru.bias),
        "rssm.core.norm.gain": (same, cell._dyn_hid[1].weight),
        "rssm.core.branches.1.0.weight": (same, cell._dyn_in1[0].weight),
        "rssm.core.branches.2.0.weight": (same, cell._dyn_in2[0].weight),
        "rssm.posterior.1.weight": (same, theirs.rssm._obs_net[3].weight),
        "rssm.prior.1.weight": (same, theirs.rssm._img_net[6].weight),
        "encoder.mlp.0.weight": (same, theirs.encoder.encoders[0].layers[0].weight),
        "decoder.mlp.0.weight": (turned, theirs.decoder._mlp.mlp.layers[0].weight),
        "reward.0.0.weight": (turned, theirs.reward.mlp.layers[0].weight),
        "reward.1.weight": (same, theirs.reward.last.weight),
        "goes_on.1.weight": (same, theirs.cont.last.weight),
        "critic.0.0.weight": (turned, theirs.value.mlp.layers[0].weight),
        "critic.1.weight": (same, theirs.value.last.weight),
        "actor.mlp.0.weight": (turned, theirs.actor.mlp.layers[0].weight),
        "actor.mlp.1.gain": (same, theirs.actor.mlp.layers[1].weight),
    }


if __name__ == "__main__":
    main()
