"""Parts are honoured: what is put in a place acts, learns and is named in the contract."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from torch import nn

from umwelten import build, cli, config, registry
from umwelten.world_models.contract import ContractError
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.tdmpc2 import TDMPC2

SPACE = Dict({"proprio": Box(-np.inf, np.inf, (3,), np.float32)})
SMALL = {
    TDMPC2: {"size": 1, "latent": 32, "batch_size": 4, "episodic": True},
    DreamerV3: {"size": 1, "batch_size": 2, "batch_length": 6, "horizon": 3, "recall": 1 << 16},
}
SMALL[DreamerV3] |= {"lr": 1e-2, "warmup": 1}
BOTH = pytest.mark.parametrize("kind", SMALL, ids=lambda k: k.__name__)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Around(nn.Module):
    """A network around another: what that gives, times `gain`, which is learnt."""

    def __init__(self, own, gain):
        super().__init__()
        self.own, self.gain = own, nn.Parameter(torch.tensor(gain))

    def forward(self, *given):
        return self.own(*given) * self.gain


class Fresh(nn.Module):
    """A plain network of other layers, drawn from the generator it is given."""

    def __init__(self, own, rng):
        super().__init__()
        draw = torch.randn(32 + 2, 101, generator=rng)
        self.weight = nn.Parameter(0.1 * draw)

    def forward(self, z, action):
        return torch.cat([z, action], -1) @ self.weight


def made(kind, **more):
    return kind(SPACE, 2, **SMALL[kind], **more)


def batch(model):
    rng, shape = torch.Generator().manual_seed(3), (model.batch_size, model.window)
    flags = {k: torch.zeros(shape, dtype=torch.bool) for k in ("first", "last", "terminal")}
    return flags | {
        "proprio": torch.randn(*shape, 3, generator=rng),
        "action": torch.rand(*shape, 2, generator=rng) * 2 - 1,
        "reward": torch.rand(shape, generator=rng),
    }


def imagined(model):
    """Returns the next belief and its reward, from a belief that saw three different rows."""
    rng = torch.Generator().manual_seed(5)
    step = {"proprio": torch.randn(3, 3, generator=rng), "first": torch.ones(3, dtype=torch.bool)}
    action = torch.rand(3, 2, generator=rng) * 2 - 1
    with torch.no_grad():
        belief = model.observe(model.start(3), torch.zeros(3, 2), step, None)
        after, reward, _ = model.imagine(belief, action, None)
    return {k: after[k] for k in sorted(after)}, reward


def same(one, two):
    return all(torch.equal(one[k], two[k]) for k in one)


@BOTH
def test_every_place_is_one_of_the_models_networks(kind):
    model = made(kind)
    assert registry.find("world_models", kind.__name__).constants["PARTS"] == kind.PARTS
    assert all(isinstance(getattr(model, place), nn.Module) for place in kind.PARTS)
    left = {k for k, _ in model.named_children()} - kind.PARTS.keys()
    assert left <= {"target", "slow_critic", "return_scale", "recall"}


@BOTH
def test_what_wraps_and_changes_nothing_changes_no_bit(kind):
    plain = made(kind)
    for place in ("reward", "terminal", "goes_on"):
        if place in kind.PARTS:
            wrapped = made(kind, parts={place: lambda own, rng: Around(own, 1.0)})
            (one, paid), (two, also) = imagined(plain), imagined(wrapped)
            assert same(one, two) and torch.equal(paid, also)


@BOTH
def test_a_part_changes_what_its_place_gives_and_learns(kind):
    plain, parts = made(kind), {"reward": lambda own, rng: Around(own, 3.0)}
    model = made(kind, parts=parts)
    for each in (plain, model):
        for _ in range(4):
            metrics = each.update(batch(each))
    assert all(torch.isfinite(v) for v in metrics.values())
    assert model.reward.gain != 3.0  # learnt
    assert not torch.equal(imagined(plain)[1], imagined(model)[1])
    before = imagined(model)
    with torch.no_grad():
        model.reward.gain.mul_(-2)
    after = imagined(model)
    assert same(before[0], after[0]) and (before[1] != after[1]).all()
    again = made(kind, parts=parts)
    again.restore(model.checkpoint())
    assert torch.equal(imagined(again)[1], after[1])


def test_the_dynamics_and_a_network_of_other_layers_are_honoured():
    plain = made(TDMPC2)
    moved = made(TDMPC2, parts={"dynamics": lambda own, rng: Around(own, 0.5)})
    assert torch.allclose(imagined(moved)[0]["z"], imagined(plain)[0]["z"] / 2)
    model = made(TDMPC2, parts={"reward": Fresh})
    model.update(batch(model))
    many = {k: v.repeat_interleave(4, 0) for k, v in model.start(2).items()}
    assert model.imagine(many, torch.zeros(8, 2), None)[1].shape == (8,)
    critics = made(TDMPC2, parts={"critics": lambda own, rng: own.requires_grad_(True)})
    assert critics.fitted["critics"].endswith("Ensemble")


@BOTH
def test_the_contract_names_them_and_another_is_refused(kind):
    plain, model = made(kind), made(kind, parts={"reward": lambda own, rng: Around(own, 2.0)})
    assert "parts" not in plain.io_contract().plain()  # what was saved before still fits
    told = model.io_contract().plain()["parts"]
    assert told == {"reward": f"{Around.__module__}.Around"}
    assert model.io_contract().fingerprint != plain.io_contract().fingerprint
    for one, two in ((plain, model), (model, plain)):
        with pytest.raises(ContractError, match="another contract: parts"):
            one.io_contract().require(two.io_contract().plain(), "runs/a")


@pytest.mark.parametrize(
    "kind, parts, says",
    [
        (TDMPC2, {"rewards": nn.Identity}, "no part 'rewards'; did you mean 'reward'"),
        (DreamerV3, {"dynamics": nn.Identity}, "no part 'dynamics'"),
        (TDMPC2, {"reward": "umwelten.nets:MLP"}, "cannot be called"),
        (TDMPC2, {"reward": lambda own, rng: 3}, "is to return a torch.nn.Module"),
    ],
)
def test_what_fits_no_place_is_refused(kind, parts, says):
    with pytest.raises(ValueError, match=says):
        made(kind, parts=parts)


def test_a_place_that_is_empty_is_refused_and_a_config_makes_none():
    with pytest.raises(ValueError, match="this TDMPC2 has no terminal"):
        TDMPC2(SPACE, 2, size=1, parts={"terminal": lambda own, rng: own})
    env = build.make_env("reach", 1)
    with pytest.raises(config.ConfigError, match="cannot be called"):
        build.make_model({"name": "tdmpc2", "size": 1, "parts": {"reward": "os.system"}}, env)


def test_the_list_says_which_places_each_family_has(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list", "parts"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for kind in SMALL:
        name = registry.find("world_models", kind.__name__).snake
        lines = [line.split()[1] for line in shown if line.split()[:1] == [name]]
        assert lines == [*kind.PARTS]
