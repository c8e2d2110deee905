"""Official weights: both layouts arrive where they belong, and nothing but weights is read."""

import itertools
import pickle

import gymnasium
import numpy as np
import pytest
import torch

from umwelten.world_models import official
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
