"""What was believed while acting reaches the windows of a training, new ones first, over a stop."""

import numpy as np
import torch

from umwelten import checkpoint
from umwelten.agents.policy import Policy
from umwelten.envs.env import BatchEnv
from umwelten.learn import train
from umwelten.run import Run
from umwelten.world_models.contract import Contract, Spec
from umwelten.world_models.recall import Recall


class Recalling:
    """A learner of one number; it takes new windows first, and what was believed before them."""

    window, batch_size, device, fresh = 4, 6, torch.device("cpu"), True

    def __init__(self):
        self.w, self.batches = torch.zeros(1), []
        self.recall = Recall(3, 2, 4, 4, 1 << 20, self.device)

    def io_contract(self):
        return Contract({}, Spec((4,)), {}, {}, self.window)

    def update(self, batch):
        self.batches.append(batch)
        self.w = 0.9 * self.w + sum(v.double().sum().sin().float() for v in batch.values())
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


def learnt(folder, steps):
    learner = Recalling()
    env = BatchEnv("Reach", 2, nthread=1, max_episode_steps=9)
    with Run(folder) as run:
        train(learner, run, env=env, policy=Believing(learner), steps=steps, ratio=0.5,
              seed_steps=20, seed=5)  # fmt: skip
    return learner


def test_a_window_comes_with_what_was_believed_and_done_a_step_before_it(tmp_path):
    batches, known = learnt(tmp_path, 100).batches, 0
    for batch in batches:
        inside = ~batch["first"][:, 0]
        known += int(inside.sum())
        believed, done = batch["before/deter"][inside], batch["before/action"][inside]
        assert torch.equal(believed, done[:, :1].expand(-1, 3))
        assert torch.equal(done[:, 0] + 1 / 256, batch["action"][inside, 0, 0])
        assert bool((batch["before/stoch"][inside].argmax(-1) == 1).all())
    assert known > 100
    # two windows of four fit into an episode of ten steps, and come before all others
    assert batches[0]["place"].tolist()[:4] == [0, 4, 10, 14]


def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path):
    learnt(tmp_path / "whole", 100)
    for steps in (25, 36, 61, 100):
        learnt(tmp_path / "parts", steps)
    found = [checkpoint.load(checkpoint.latest(tmp_path / f / "checkpoints"))
             for f in ("whole", "parts")]  # fmt: skip
    (one, arrays, state), (two, others, other) = found
    assert state == other and state["served"] > 60 and "recall/hand/whose" in one
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert all(np.array_equal(arrays[k], others[k]) for k in arrays)
