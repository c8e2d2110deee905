"""What is acted in is learnt from at once, with what was believed then, over a stop and a kill."""

import numpy as np
import pytest
import torch

from umwelten import checkpoint
from umwelten.agents.planners import Prior
from umwelten.agents.policy import Policy, Random
from umwelten.envs.env import BatchEnv
from umwelten.episodes import Episodes, Recorder
from umwelten.learn import train
from umwelten.rollout import rollout
from umwelten.run import Run
from umwelten.world_models import dreamer
from umwelten.world_models.contract import Contract, Spec
from umwelten.world_models.recall import Recall


class Recalling:
    """A learner of one number; it takes new windows first, and what was believed before them.

    Of a step that it learns from it then believes the opposite of what it did there.
    """

    window, batch_size, device, fresh = 4, 6, torch.device("cpu"), True
    keys = ("proprio", "objects")

    def __init__(self):
        self.w, self.batches = torch.zeros(1), []
        self.recall = Recall(3, 2, 4, 4, 1 << 20, self.device)

    def io_contract(self):
        return Contract({}, Spec((4,)), {}, {}, self.window)

    def update(self, batch):
        self.batches.append(batch)
        self.w = 0.9 * self.w + sum(v.double().sum().sin().float() for v in batch.values())
        place, action = batch["place"][:, 1:].flatten(), batch["action"].flatten(0, 1)
        stoch = torch.zeros(len(place), 2, 4)
        stoch[..., 2] = 1
        self.recall.write(place, {"deter": -action[:, :1].expand(-1, 3), "stoch": stoch}, action)
        return {"loss": self.w.sum()}

    def checkpoint(self):
        return {"w": self.w.clone()} | self.recall.save()

    def restore(self, tensors):
        self.w = tensors["w"].clone()
        self.recall.restore({k: v for k, v in tensors.items() if k.startswith("recall/")})


class Believing(Policy):
    """Believes a number that counts its decisions, and does it with its first motor."""

    def __init__(self, learner):
        self.learner = learner

    def start(self, seeds):
        n = len(seeds)
        deter, stoch = np.zeros((n, 3), np.float32), np.zeros((n, 2, 4), np.float32)
        return {"belief/deter": deter, "belief/stoch": stoch}

    def act(self, step, carry):
        deter = carry["belief/deter"] + np.float32(1 / 256)
        stoch = np.zeros_like(carry["belief/stoch"])
        stoch[:, :, 1] = 1
        action = np.full((len(deter), 4), np.tanh(float(self.learner.w)), np.float32)
        action[:, 0] = deter[:, 0]
        return action, {"belief/deter": deter, "belief/stoch": stoch}


def world(n=2):
    return BatchEnv("Reach", n, nthread=1, max_episode_steps=9)


def learnt(folder, steps, kind="recalling", n=2, **options):
    env = world(n)
    if kind == "recalling":
        learner = Recalling()
        policy = Believing(learner)
    else:
        space, told = env.single_observation_space, {"batch_size": 4, "batch_length": 4}
        told |= {"episode_length": 9, "horizon": 3, "warmup": 0, "recall": 1 << 16}
        learner = dreamer.DreamerV3(space, 4, **told)
        policy = Prior(learner, explore=True)
    told = {"steps": steps, "ratio": 0.5, "seed_steps": 20, "seed": 5} | options
    with Run(folder) as run:
        train(learner, run, env=env, policy=policy, **told)
    return learner


def test_a_window_comes_with_what_was_believed_and_done_a_step_before_it(tmp_path):
    batches, kinds = [], set()

    class Watched(Recalling):
        def update(self, batch):
            recorded = Episodes(tmp_path / "episodes").lengths.sum() // 2
            ends = batch["place"][:, -1] // 2
            batches.append((batch, ends >= recorded))
            return super().update(batch)

    learner = Watched()
    with Run(tmp_path) as run:
        train(learner, run, env=world(), policy=Believing(learner), steps=100, ratio=0.5,
              seed_steps=20, seed=5)  # fmt: skip
    for batch, late in batches:
        begun = batch["place"][:, 0] >= 0
        assert torch.equal(~begun, batch["place"][:, 1] < 2)
        kind = batch["before/stoch"][begun].argmax(-1)[:, 0]  # 1 acted in, 2 learnt from
        believed, done = batch["before/deter"][begun], batch["before/action"][begun]
        sign = torch.where(kind == 2, -1.0, 1.0)[:, None]
        assert bool((kind > 0).all()) and torch.equal(believed, sign * done[:, :1].expand(-1, 3))
        assert torch.equal(done[:, 0] + 1 / 256, batch["action"][begun, 0, 0])
        assert not batch["before/stoch"][~begun].any()
        kinds |= {(k, x) for k, x in zip(kind.tolist(), late[begun].tolist(), strict=True)}
    assert kinds == {(1, True), (1, False), (2, True), (2, False)}
    # a row has done 12 steps when learning begins, 10 of an episode and two of the next
    assert batches[0][0]["place"][:, 1].tolist() == [0, 1, 8, 9, 16, 17]
    assert batches[0][0]["first"][4:].tolist() == 2 * [[False, False, True, False]]


def told(folder):
    tensors, arrays, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    data = Episodes(folder / "episodes")
    state |= {"ids": data.column("episode/id").tolist()}
    return tensors, arrays, state | {"metrics": (folder / "metrics.jsonl").read_text()}


def same(one, two):
    for a, b in zip(one[:2], two[:2], strict=True):
        assert a.keys() == b.keys()
        assert not [k for k in a if not np.array_equal(np.asarray(a[k]), np.asarray(b[k]))]
    assert one[2] == two[2]


def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path):
    learnt(tmp_path / "whole", 100)
    for steps in (25, 36, 61, 100):
        learnt(tmp_path / "parts", steps)
    one, two = told(tmp_path / "whole"), told(tmp_path / "parts")
    for x in (one, two):
        del x[2]["metrics"]
    same(one, two)


class Killed(BaseException):
    """Ends a training at once: nothing is saved, closed or flushed."""


@pytest.mark.parametrize("kind, n, sources, kills", [
    ("recalling", 2, False, (23, 14, 7, 21)), ("recalling", 3, True, (19, 9, 7, 21)),
    ("dreamer", 1, False, (66, 4)),
])  # fmt: skip
def test_killed_in_the_middle_of_episodes_it_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, kind, n, sources, kills
):
    monkeypatch.setitem(dreamer.SIZES, 1, (32, 16, 4, 4, 16))
    steps = 50 if kind == "dreamer" else 100
    options = {"kind": kind, "n": n, "log_every": 5, "save_every": 4}
    if sources:
        with Recorder(tmp_path / "others") as recorder:
            for step in rollout(world(3), Random(4), 1, episodes_per_row=1):
                recorder.add(step)
        options["sources"] = (str(tmp_path / "others"),)
    learnt(tmp_path / "whole", steps, **options)
    ahead = 0
    for kill in kills:  # pieces of work until the end of a life
        count = 0

        def watch(progress, metrics, kill=kill):
            nonlocal count
            count += 1
            if count == kill:
                raise Killed

        with pytest.raises(Killed):
            learnt(tmp_path / "parts", steps, watch=watch, **options)
        path = checkpoint.latest(tmp_path / "parts" / "checkpoints")
        if path is not None:
            _, arrays, state = checkpoint.load(path)
            recorded = len(state["shards"]) * 10  # of each row: all end at once
            ahead += bool((arrays["stream/served"] > recorded).any())
    assert ahead >= 2  # times it went on where steps of an unfinished episode had been served
    learnt(tmp_path / "parts", steps, **options)
    same(told(tmp_path / "whole"), told(tmp_path / "parts"))


def test_dreamer_keeps_what_it_believes_where_the_steps_of_its_windows_lie(monkeypatch):
    monkeypatch.setitem(dreamer.SIZES, 1, (32, 16, 4, 4, 16))
    space = world(1).single_observation_space
    model = dreamer.DreamerV3(space, 4, batch_size=2, batch_length=3, horizon=2, recall=1 << 16)
    no, g = torch.zeros(2, 3, dtype=torch.bool), torch.Generator().manual_seed(0)
    batch = {k: torch.rand(2, 3, *space[k].shape, generator=g) for k in model.keys}
    batch |= {"action": torch.rand(2, 3, 4, generator=g), "reward": torch.rand(2, 3, generator=g)}
    batch |= dict.fromkeys(("first", "last", "terminal"), no) | {"valid": ~no}
    model.update(batch | {"place": torch.tensor([[-1, 0, 3, 6], [1, 4, 7, 10]])})
    found, action = model.recall.read(torch.tensor([0, 3, 6, 4, 7, 10, 1]))
    assert torch.equal(action[:6], batch["action"].flatten(0, 1)) and not action[6].any()
    assert bool((found["stoch"][:6].sum(-1) == 1).all()) and not found["stoch"][6].any()
    assert bool(found["deter"][[1, 2, 4, 5]].any(-1).all())


def test_it_learns_before_an_episode_is_over_and_goes_on_from_there(tmp_path):
    whole = learnt(tmp_path / "whole", 14, seed_steps=0)
    assert len(whole.batches) == 7 and not len(Episodes(tmp_path / "whole/episodes"))
    for steps in (9, 14):
        parts = learnt(tmp_path / "parts", steps, seed_steps=0)
    assert 0 < len(parts.batches) < 7 and torch.equal(parts.w, whole.w)
