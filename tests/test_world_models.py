"""World models: each keeps every promise, contracts are what they say, and liars are caught."""

import copy

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from umwelten import build, checkpoint, config, registry
from umwelten.envs.env import BatchEnv
from umwelten.world_models import promises
from umwelten.world_models.contract import Contract, ContractError, Spec
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.model import WorldModel
from umwelten.world_models.promises import PROMISES, steps, windows
from umwelten.world_models.simulator import SimulatorModel
from umwelten.world_models.tasks import TaskSpec
from umwelten.world_models.tdmpc2 import TDMPC2


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices on a busy machine are fastest alone, and then nothing depends on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


VECTORS = Dict({k: Box(-np.inf, np.inf, (d,), np.float32) for k, d in (("a", 3), ("b", 4))})
IMAGE = Dict({"rgb/front": Box(0, 255, (64, 64, 3), np.uint8)})
BOTH = Dict(VECTORS.spaces | IMAGE.spaces)
TASKS = Dict(VECTORS.spaces | {"task": Discrete(2)})
PAIR = [TaskSpec("one", 2, 100), TaskSpec("two", 1, 500)]
DREAM = {"batch_length": 4, "horizon": 2, "warmup": 0, "lr": 2e-3}


def simulator():
    return SimulatorModel(BatchEnv("CartpoleSwingup", 2, max_episode_steps=-1, nthread=1))


MODELS = {
    "tdmpc2": lambda: TDMPC2(VECTORS, 2, 1, batch_size=8, episodic=True),
    "tdmpc2-pixels": lambda: TDMPC2(BOTH, 2, 1, batch_size=2, keys=["rgb/front"], lr=1e-3),
    "tdmpc2-tasks": lambda: TDMPC2(TASKS, 2, 1, batch_size=8, tasks=PAIR),
    "dreamer": lambda: DreamerV3(VECTORS, 2, batch_size=3, **DREAM),
    "dreamer-pixels": lambda: DreamerV3(BOTH, 2, batch_size=2, **DREAM),
    "simulator": simulator,
}
LEARNERS = [name for name in MODELS if name != "simulator"]


def test_every_registered_model_is_held_to_the_promises():
    held = {type(build()).__name__ for build in MODELS.values()}
    assert held == set(registry.members("world_models"))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_it_keeps_its_promises(name, promise):
    promise(MODELS[name])


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_loaded_from_disk_predicts_the_same_bits(name, tmp_path):
    one, two = MODELS[name](), MODELS[name]()
    one.update(windows(one))
    checkpoint.save(tmp_path, 1, one.checkpoint(), {}, {"contract": one.io_contract().plain()})
    tensors, _, state = checkpoint.load(checkpoint.latest(tmp_path))
    two.io_contract().require(state["contract"], tmp_path)  # through JSON and back
    two.restore(tensors)
    said, again = promises.imagined(one), promises.imagined(two)
    assert said.keys() == again.keys() and all(torch.equal(said[k], again[k]) for k in said)


def test_a_run_of_another_contract_is_refused_with_the_reason(tmp_path):
    env = build.make_env("cartpole_balance")
    told = {"task": "cartpole_balance", "model": {"name": "tdmpc2", "size": 1}, "seed": 0}
    config.save(tmp_path / "config.yaml", told)
    model = build.make_model(told["model"], env)
    contract = model.io_contract().plain()
    contract["action"]["shape"] = [2]
    checkpoint.save(tmp_path / "checkpoints", 1, model.checkpoint(), {}, {"contract": contract})
    with pytest.raises(config.ConfigError, match=r"action\.shape was \[2\] and is \[1\]; build"):
        build.restore(tmp_path, env)


# ---- contracts


def test_a_contract_is_made_of_what_the_model_declares_and_decodes():
    contract = MODELS["dreamer-pixels"]().io_contract()
    image = {"shape": [64, 64, 3], "dtype": "uint8"}
    want = {
        "layout": {"step": "n ...", "batch": "b t ..."},
        "window": 4,
        "required": {
            "step": ["a", "b", "first", "rgb/front"],
            "batch": ["a", "action", "b", "first", "last", "reward", "rgb/front", "terminal"],
        },
        "action": {"shape": [2], "dtype": "float32", "low": -1.0, "high": 1.0},
        "observation": {
            "a": {"shape": [3], "dtype": "float32"},
            "b": {"shape": [4], "dtype": "float32"},
            "rgb/front": image | {"low": 0.0, "high": 255.0},
        },
        "belief": {
            "deter": {"shape": [512], "dtype": "float32"},
            "stoch": {"shape": [32, 4], "dtype": "float32"},
        },
        "prediction": {
            "a": {"shape": [3], "dtype": "float32"},
            "alive": {"shape": [], "dtype": "float32", "low": 0.0, "high": 1.0},
            "b": {"shape": [4], "dtype": "float32"},
            "reward": {"shape": [], "dtype": "float32"},
            "rgb/front": image,
        },
    }
    assert contract.plain() == want


FIXED = Contract(
    {"x": Spec((2,)), "task": Spec.of(Discrete(5))}, Spec((1,), low=-1.0, high=1.0),
    {"z": Spec((3,))}, {"reward": Spec(())}, 2,
)  # fmt: skip


def test_a_fingerprint_stays_and_names_every_change():
    assert FIXED.fingerprint == copy.deepcopy(FIXED).fingerprint
    turned = Contract(dict(reversed(FIXED.observation.items())), *list(vars(FIXED).values())[1:5])
    assert turned.fingerprint == FIXED.fingerprint  # order is no matter
    # Written down: a contract saved today is read by what comes later.
    assert FIXED.fingerprint.startswith("067c0f8969e4da52")
    seen = {FIXED.fingerprint}
    for part, other in {
        "observation": {"x": Spec((2,))}, "action": Spec((1,)), "belief": {"z": Spec((4,))},
        "prediction": {"reward": Spec((), torch.float64)}, "window": 3,
    }.items():  # fmt: skip
        changed = Contract(
            **{k: vars(FIXED)[k] for k in FIXED.__dataclass_fields__} | {part: other}
        )
        assert changed.fingerprint not in seen
        seen.add(changed.fingerprint)
        with pytest.raises(ContractError, match=rf"run/1 is of another contract: .*{part}"):
            changed.require(FIXED.plain(), "run/1")


def test_spaces_are_read_as_tensors():
    assert Spec.of(Discrete(5, start=2)) == Spec((), torch.int64, 2, 6)
    assert Spec.of(Box(-1, 1, (3,), np.float64)) == Spec((3,), torch.float64, -1, 1)
    assert Spec.of(Box(np.array([-1, -np.inf]), 1.0, dtype=np.float32)).low is None
    assert Spec.of(torch.zeros(7, 2, 3, dtype=torch.int32)) == Spec((2, 3), torch.int32)
    with pytest.raises(ValueError, match="no Box and no Discrete"):
        Spec.of(MultiBinary(3))


def batch(b=2):
    marks = {k: torch.zeros(b, 2, dtype=torch.bool) for k in ("first", "last", "terminal")}
    return marks | {
        "action": torch.zeros(b, 2, 1), "reward": torch.zeros(b, 2), "x": torch.zeros(b, 2, 2),
        "task": torch.zeros(b, 2, dtype=torch.int64), "label/other": torch.zeros(1),
    }  # fmt: skip


@pytest.mark.parametrize("changed, text", [
    ({"action": torch.full((2, 2, 1), 1.01)}, "'action' of the batch has values from 1.01"),
    ({"task": torch.full((2, 2), 5)}, "finite ones from 0 to 4"),
    ({"x": torch.full((2, 2, 2), torch.inf)}, "'x' of the batch has values from inf"),
    ({"x": torch.zeros(2, 2, 3)}, r"'x' .* is float32 \(2, 2, 3\), not float32 \(2, 2, 2\)"),
    ({"task": torch.zeros(2, 2)}, r"'task' .* is float32 \(2, 2\), not int64 \(2, 2\); give it so"),
    ({"x": torch.zeros(())}, r"'x' of the batch is float32 \(\)"),
    (batch(0), "no windows"),
])  # fmt: skip
def test_what_a_batch_holds_is_looked_at(changed, text):
    FIXED.check_batch(batch())
    with pytest.raises(ContractError, match=text):
        FIXED.check_batch(batch() | changed)


# ---- promises catch those who break them


class Honest(WorldModel):
    """Adds what was done to a number, and learns how much of it."""

    window, batch_size, discount, device = 2, 4, 0.9, torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.observation, self.nu, self.differentiable = (
            {"x": Box(-9, 9, (1,), np.float32)},
            1,
            True,
        )
        self.gain, self.count = torch.nn.Parameter(torch.zeros(())), 0

    def start(self, n):
        return {"x": torch.zeros(n, 1), "t": torch.zeros(n)}

    @torch.no_grad()
    def observe(self, belief, action, step, rng):
        self.io_contract().check_step(step, action)
        return {"x": step["x"].clone(), "t": torch.where(step["first"], 0.0, belief["t"] + 1)}

    def imagine(self, belief, action, rng):
        x = belief["x"] + self.gain * action
        return {"x": x, "t": belief["t"] + 1}, x.sum(1), torch.ones(len(x))

    def update(self, batch):
        self.io_contract().check_batch(batch)
        moved = batch["x"][:, 1] - batch["x"][:, 0] - self.gain * batch["action"][:, 0]
        loss = moved.square().mean()
        (slope,) = torch.autograd.grad(loss, self.gain)
        with torch.no_grad():
            self.gain -= 0.1 * slope
        return {"total_loss": loss.detach()}

    def checkpoint(self):
        return {"gain": self.gain.detach().clone()}

    @torch.no_grad()
    def restore(self, tensors):
        if tensors.keys() != {"gain"} or tensors["gain"].shape != ():
            raise ValueError("no gain")
        self.gain.copy_(tensors["gain"])


def lying(name, change):
    """Returns Honest with the method `name` altered: change(model, original, *given)."""
    original = getattr(Honest, name)
    method = lambda self, *given: change(self, original, *given)  # noqa: E731
    return type("Liar", (Honest,), {name: method})


def deaf(self, observe, belief, action, step, rng):
    belief = observe(self, belief, action, step, rng)
    return belief | {"t": belief["t"] + 1.0 * step["x"].mean()}


def sly(self, observe, belief, action, step, rng):
    step["x"] += 1
    return observe(self, belief, action, step, rng)


LIARS = {
    "speaks_as_its_contract_says": lying(
        "imagine",
        lambda self, imagine, *given: (imagine(self, *given)[0], *[torch.zeros(3, 1)] * 2),
    ),
    "follows_each_row_alone": lying("observe", deaf),
    "begins_anew_at_first": lying(
        "observe",
        lambda self, observe, belief, action, step, rng: observe(
            self, belief, action, step | {"first": torch.zeros_like(step["first"])}, rng
        ),
    ),
    "acts_without_a_trace": lying("observe", sly),
    "learns_a_batch": lying("update", lambda self, update, batch: {"total_loss": torch.ones(())}),
    "draws_from_its_own_stream": lying(
        "update", lambda self, update, batch: update(self, batch) | {"chance": torch.rand(())}
    ),
    "goes_on_from_a_checkpoint": lying("restore", lambda self, restore, tensors: None),
    "refuses_other_checkpoints": lying(
        "restore", lambda self, restore, t: restore(self, {"gain": t.get("gain", torch.ones(()))})
    ),
    "refuses_wrong_windows": lying(
        "update", lambda self, update, batch: update(self, {k: v.float() for k, v in batch.items()})
    ),
    "refuses_wrong_steps": lying(
        "observe",
        lambda self, observe, belief, action, step, rng: observe(
            self, belief, action, {k: v.float() if k == "x" else v for k, v in step.items()}, rng
        ),
    ),
}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_each_promise_tells_an_honest_model_from_one_that_breaks_it(promise):
    promise(Honest)
    with pytest.raises((AssertionError, ValueError)):
        promise(LIARS[promise.__name__])


def test_a_step_shows_more_than_is_read():
    model = Honest()
    step = steps(model, 2) | {"label/secret": torch.zeros(1), "reward": torch.zeros(2)}
    assert model.observe(model.start(2), torch.zeros(2, 1), step, None)["x"].shape == (2, 1)
