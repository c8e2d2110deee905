"""Parts are honoured: what is put in a place acts, learns and is named in the contract."""

import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from torch import nn

from umwelten import build, checkpoint, cli, config, registry
from umwelten.world_models.contract import ContractError
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.rehearsal import rehearse
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
    assert left <= {"target", "slow_critic", "return_scale", "recall", "two_hot"}


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


def test_a_place_that_is_empty_is_refused():
    with pytest.raises(ValueError, match="this TDMPC2 has no terminal"):
        TDMPC2(SPACE, 2, size=1, parts={"terminal": lambda own, rng: own})


def test_the_list_says_which_places_each_family_has(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list", "parts"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for kind in SMALL:
        name = registry.find("world_models", kind.__name__).snake
        lines = [line.split()[1] for line in shown if line.split()[:1] == [name]]
        assert lines == [*kind.PARTS]


# ---- named in a config

NETS = """
import torch
from torch import nn

class Gain(nn.Module):
    def __init__(self, own, rng):
        super().__init__()
        self.own, self.gain = own, nn.Parameter(torch.tensor(3.0))

    def forward(self, *given):
        return self.own(*given) * self.gain

class Other(Gain):
    pass

class Short(Gain):
    def forward(self, *given):
        return super().forward(*given)[..., :7]

class Unlike(Gain):
    def forward(self, x):
        return self.own(x)

class Flat(Gain):  # of rows alone, not of windows of them
    def forward(self, x):
        return super().forward(x.view(3, x.shape[1]))

def make_reward(own, rng):
    return Gain(own, rng)

def make_none(own, rng):
    return None

def make_alone(own):
    return Gain(own, None)

NUMBER = 3.0
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A package on the path that announces what it holds, and a little that it does not."""
    place, info = tmp_path / "site", tmp_path / "site" / "mine-1.dist-info"
    info.mkdir(parents=True)
    (place / "own_nets.py").write_text(NETS + "def hidden(own, rng):\n    return own\n")
    (place / "loud.py").write_text("raise SystemError('imported')\n")
    names = [line.split()[1].partition("(")[0].rstrip(":") for line in NETS.splitlines()
             if line.startswith(("def ", "class "))]  # fmt: skip
    points = [f"{n} = own_nets:{n}" for n in (*names, "NUMBER", "gone")]
    points += ["late = nowhere.nets:make", "loud = loud:make"]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[umwelten.parts]\n" + "\n".join(points))
    monkeypatch.syspath_prepend(place)
    yield place
    sys.modules.pop("own_nets", None)


SHORT = {
    "tdmpc2": "model.size=1 model.batch_size=4 planner.samples=8 planner.iterations=1 "
    "planner.elites=2 planner.proposals=2 ratio=0.5",
    "dreamer": "model.batch_size=2 model.batch_length=4 model.horizon=2 model.recall=65536 "
    "model.lr=1e-2 model.warmup=1 ratio=0.5",
}


def train(agent, folder, *more):
    told = "task=reach action_repeat=10 n=2 device=cpu threads=1 evaluate_every=0 seed_steps=20 "
    told += f"pretrain=1 agent={agent} {SHORT[agent]}"
    return cli.main(["train", *told.split(), f"out={folder}", *more])


@pytest.mark.parametrize("agent", SHORT)
def test_a_part_named_on_the_command_line_is_trained_resumed_and_scored(
    agent, nets, tmp_path, capsys
):
    folder, part = tmp_path / "run", "model.parts.reward=own_nets:make_reward"
    assert train(agent, folder, "steps=22", part) == 0
    assert train(agent, folder, "steps=26", part) == 0
    assert config.load(folder / "config.yaml")["model"]["parts"] == {"reward": part.split("=")[1]}
    tensors, _, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    assert state["contract"]["parts"] == {"reward": "own_nets.Gain"}
    assert tensors["model/reward.gain"] != 3.0 and state["progress"]["env_steps"] == 26
    score = ["score", "task=reach", "policy=prior", f"run={folder}", "episodes=1"]
    assert cli.main([*score, f"out={tmp_path / 'score.json'}"]) == 0
    capsys.readouterr()
    for more in ([], ["model.parts.reward=own_nets:Other"]):
        assert train(agent, folder, "steps=30", *more) == 2
        assert "was trained with another model; choose another out=" in capsys.readouterr().err


def test_a_checkpoint_is_of_the_part_it_was_learnt_with(nets, tmp_path, capsys):
    """Another class under the same name, and no part at all, are refused with the reason."""
    folder, part = tmp_path / "run", "model.parts.reward=own_nets:make_reward"
    assert train("tdmpc2", folder, "steps=20", part) == 0
    score = ["score", "task=reach", "policy=prior", f"run={folder}", "episodes=1"]
    told = config.load(folder / "config.yaml")
    for name, given in (("Other", part.split("=")[1]), ("", "")):
        sys.modules.pop("own_nets", None)
        if name:
            (nets / "own_nets.py").write_text(
                NETS.replace("return Gain(own, rng)", "return Other(own, rng)")
            )
        model = {k: v for k, v in told["model"].items() if k != "parts"}
        model |= {"parts": {"reward": given}} if given else {}
        config.save(folder / "config.yaml", told | {"model": model})
        now = '"own_nets.Other"' if name else "not there"
        goes_on = ["train", *SHORT["tdmpc2"].split(), "task=reach", "action_repeat=10", "n=2"]
        goes_on += ["device=cpu", "threads=1", "evaluate_every=0", "seed_steps=20", "pretrain=1"]
        goes_on += [f"out={folder}", "steps=30", *([part] if name else [])]
        for command in (score, goes_on):
            assert cli.main(command) == 2
            error = capsys.readouterr().err
            assert "own_nets.Gain" in error and f"is {now}" in error and error.count("\n") == 1


def test_a_config_has_nothing_imported_that_no_package_announces(tmp_path, monkeypatch):
    """Not even a file that lies on the path, as a run's own folder may."""
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    config.save(tmp_path / "config.yaml", {"parts": {"reward": "of_a_stranger:make"}})
    told, env = config.load(tmp_path / "config.yaml"), build.make_env("reach", 1)
    with pytest.raises(config.ConfigError, match="no installed package announces of_a_stranger"):
        build.make_model({"name": "tdmpc2", "size": 1} | told, env)
    assert "of_a_stranger" not in sys.modules


class Less(nn.Module):
    """Gives a number less than the network it is put around; other verbs are that one's."""

    def __init__(self, own, rng):
        super().__init__()
        self.own = own

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "own" else getattr(self.own, name)

    def forward(self, *given, **named):
        found = self.own(*given, **named)
        return found[..., 1:] if isinstance(found, torch.Tensor) else {}


@pytest.mark.parametrize("kind, place", [(k, p) for k in SMALL for p in k.PARTS])
def test_a_part_of_another_shape_is_refused_by_its_place(kind, place):
    def build(parts):
        return made(kind, parts=parts)

    rehearse(build, {place: lambda own, rng: own})
    with pytest.raises(ValueError, match=place) as refusal:
        rehearse(build, {place: nn.Identity if place == "rssm" else Less})
    heard = place not in ("rssm", "decoder", "actor")
    assert ("gives float32" in str(refusal.value)) == heard


class Blind(Less):
    """A decoder that leaves one number of the observation out."""

    def forward(self, *given):
        return self.own(*given)

    def observation(self, found):
        return {k: v[..., 1:] for k, v in self.own.observation(found).items()}


def test_what_a_part_makes_of_the_model_is_held_to_the_models_own():
    with pytest.raises(ValueError, match="another decoder the model's decoded proprio is") as told:
        rehearse(lambda parts: made(DreamerV3, parts=parts), {"decoder": Blind})
    assert "float32 (3, 2), not float32 (3, 3)" in str(told.value)


@pytest.mark.parametrize("place, name, says", [
    ("rewards", "own_nets:make_reward", "no part 'rewards'; did you mean 'reward'?"),
    ("reward", "make_reward", "reward=make_reward is not as package.module:name; did you mean "
     "'own_nets:make_reward'?"),
    ("reward", "../run/nets.py:make", "is not as package.module:name"),
    ("reward", ".own_nets:make_reward", "is not as package.module:name"),
    ("reward", "3", "reward=3 is not as package.module:name"),
    ("reward", "own_nets:make_rewards", "own_nets:make_rewards among its umwelten.parts; "
     "did you mean 'own_nets:make_reward'?"),
    ("reward", "own_nets:hidden", "no installed package announces own_nets:hidden"),
    ("reward", "os:system", "no installed package announces os:system"),
    ("reward", "nowhere.nets:make", "does not load: ModuleNotFoundError: No module named"),
    ("reward", "own_nets:gone", "does not load: AttributeError: module 'own_nets' has no attr"),
    ("reward", "loud:make", "reward=loud:make does not load: SystemError: imported"),
    ("reward", "own_nets:NUMBER", "reward=own_nets:NUMBER cannot be called"),
    ("reward", "own_nets:make_none", "the part reward is None; it is to return a torch.nn.Module"),
    ("reward", "own_nets:make_alone", "the part reward is not made: TypeError: make_alone() takes"),
    ("reward", "own_nets:Short", "the part reward gives float32 (3, 7), not float32 (3, 101)"),
    ("dynamics", "own_nets:Short", "the part dynamics gives float32 (3, 7), not float32 (3, 128)"),
    ("encoder", "own_nets:Short", "the part encoder gives float32 (3, 7), not float32 (3, 128)"),
    ("reward", "own_nets:Unlike", "the part reward fails: TypeError"),
    ("policy", "own_nets:Flat", "with another policy the model does not learn: RuntimeError"),
    ("terminal", "own_nets:make_reward", "this TDMPC2 has no terminal to put a part in"),
])  # fmt: skip
def test_what_is_wrong_with_a_part_is_said_before_training(
    place, name, says, nets, tmp_path, capsys
):
    assert train("tdmpc2", tmp_path / "run", f"model.parts.{place}='{name}'") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()
