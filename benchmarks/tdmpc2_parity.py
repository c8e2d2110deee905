"""TD-MPC2 beside the authors' code, same weights and same noise: how far apart they are.

    python benchmarks/tdmpc2_parity.py --official /path/to/tdmpc2

What tdmpc2_speed.py says of the authors' code holds here too. Dropout is off on both sides, and
every normal draw on both comes from one seed; at size 1 there are two critics, so which two are
asked is no matter of chance. Largest differences, relative to the largest number compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tdmpc2_speed import BATCH, NU, OBSERVED, official, space, transitions, windows

from record import record
from umwelten.world_models.tdmpc2 import TDMPC2

UPDATES = 6
LOSSES = {
    "consistency_loss": "consistency_loss", "reward_loss": "reward_loss",
    "value_loss": "value_loss", "total_loss": "total_loss", "grad_norm": "grad_norm",
    "policy_loss": "pi_loss", "policy_grad_norm": "pi_grad_norm",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="a clone of their repository")
    theirs = official(parser.parse_args().official, 1, dropout=0.0)
    ours = TDMPC2(space(), NU, 1, batch_size=BATCH, dropout=0.0)
    fill(theirs.model)
    copy(theirs.model, ours)
    found = outputs(theirs.model, ours) | updates(theirs, ours)
    for name, value in found.items():
        print(f"{name:24s} {value:.1e}")
    print(record("tdmpc2_parity", found))


def fill(model) -> None:
    """Gives every weight a value, the zero heads too, so that nothing agrees by being zero."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=rng))
        model._target_Qs_params.data.copy_(model._detach_Qs_params.data)


def copy(theirs, ours: TDMPC2) -> None:
    """Copies their weights into ours, layer by layer."""
    pairs = [
        (theirs._encoder["state"], ours.encoder.net), (theirs._dynamics, ours.dynamics),
        (theirs._reward, ours.reward), (theirs._pi, ours.policy),
    ]  # fmt: skip
    with torch.no_grad():
        for one, other in pairs:
            for a, b in zip(one, other.layers, strict=True):
                b.weight.copy_(a.weight)
                b.bias.copy_(a.bias)
                if hasattr(a, "ln"):
                    b.gain.copy_(a.ln.weight)
                    b.shift.copy_(a.ln.bias)
        for params, critics in (
            (theirs._Qs.params, ours.critics), (theirs._target_Qs_params, ours.target),
        ):  # fmt: skip
            for k in range(3):
                critics.weight[k].copy_(params[str(k), "weight"])
                critics.bias[k].copy_(params[str(k), "bias"])
                if k < 2:
                    critics.gain[k].copy_(params[str(k), "ln", "weight"])
                    critics.shift[k].copy_(params[str(k), "ln", "bias"])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the largest difference over the largest number."""
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
def outputs(theirs, ours: TDMPC2) -> dict[str, float]:
    """Returns how far apart the networks' outputs are at the same inputs."""
    rng = torch.Generator().manual_seed(2)
    seen = torch.randn(64, OBSERVED, generator=rng)
    action = torch.rand(64, NU, generator=rng) * 2 - 1
    z = theirs.encode(seen, None)
    mean = torch.tanh(theirs._pi(z).chunk(2, -1)[0])
    return {
        "latent": apart(ours.encoder(seen), z),
        "next latent": apart(ours.dynamics(z, action), theirs.next(z, action, None)),
        "reward logits": apart(ours.reward(z, action), theirs.reward(z, action, None)),
        "critics' logits": apart(ours.critics(z, action), theirs.Q(z, action, None, "all")),
        "policy mode": apart(ours.propose({"z": z}, None), mean),
    }


def updates(theirs, ours: TDMPC2) -> dict[str, float]:
    """Returns how far apart losses, gradients' norms and weights are over some updates."""
    batch = windows(ours.window)
    inputs = transitions(batch)
    worst = dict.fromkeys(LOSSES, 0.0)
    ours._noise = lambda rows, rng: torch.randn(*rows, NU, generator=noise)
    real = torch.randn_like
    for k in range(UPDATES):
        noise = torch.Generator().manual_seed(k)
        mine = ours.update(batch)
        drawn = torch.Generator().manual_seed(k)
        torch.randn_like = lambda x, drawn=drawn: torch.randn(x.shape, generator=drawn)
        try:
            other = theirs._update(*inputs)
        finally:
            torch.randn_like = real
        for name, name_there in LOSSES.items():
            gap = abs(float(mine[name]) - float(other[name_there])) / abs(float(other[name_there]))
            worst[name] = max(worst[name], gap)
    there = [layer.weight for layer in theirs.model._dynamics]
    here = [layer.weight for layer in ours.dynamics.layers]
    gaps = [apart(a.data, b.data) for a, b in zip(here, there, strict=True)]
    return worst | {"dynamics' weights after": max(gaps)}


if __name__ == "__main__":
    main()
