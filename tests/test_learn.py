"""Training does what it says, stops where it must, and does not notice that it was killed."""

import hashlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from umwelten import checkpoint
from umwelten.agents.policy import Policy, Random, Warmup
from umwelten.envs.env import BatchEnv
from umwelten.episodes import Episodes, Recorder
from umwelten.learn import NotFinite, train
from umwelten.rollout import rollout
from umwelten.run import Run
from umwelten.world_models.contract import Contract, ContractError, Spec


class Tiny:
    """A learner of five numbers that every number of every batch, and chance, moves."""

    window, batch_size, device = 4, 6, torch.device("cpu")

    def __init__(self):
        self.w = torch.zeros(5)
        self.chance = torch.Generator().manual_seed(3)
        self.batches = []

    def io_contract(self):
        return Contract({}, Spec((4,)), {}, {}, self.window)

    def update(self, batch):
        assert batch["valid"].all() and batch["reward"].shape == (6, 4)
        self.batches.append(batch)
        parts = [batch[k].double().flatten().cumsum(0).sin().mean() for k in sorted(batch)]
        noise = torch.rand(5, generator=self.chance)
        self.w = 0.9 * self.w + 0.1 * noise * torch.stack(parts).sum().float()
        return {"loss": self.w.sum(), "first": self.w[0]}

    def checkpoint(self):
        return {"w": self.w.clone(), "chance": self.chance.get_state()}

    def restore(self, tensors):
        self.w = tensors["w"].clone()
        self.chance.set_state(tensors["chance"])


class Tied(Policy):
    """Acts by what the learner has learnt, by its own stream and by what it did before."""

    def __init__(self, learner):
        self.learner, self._random = learner, Random(4)

    def start(self, seeds):
        return self._random.start(seeds) | {"memory": np.zeros((len(seeds), 4), np.float32)}

    def act(self, step, carry):
        chance, carry_on = self._random.act(step, carry)
        bias = self.learner.w[:4].numpy()
        action = np.tanh(bias + 0.5 * chance + 0.4 * carry["memory"]).astype(np.float32)
        return action, carry_on | {"memory": action}


def world(n=2, steps=9, **options):
    return BatchEnv("Reach", n, nthread=1, max_episode_steps=steps, **options)


def record(path, episodes=4, seed=0, steps=9):
    env = world(episodes, steps)
    with Recorder(path) as recorder:
        for step in rollout(env, Random(4), seed, episodes_per_row=1):
            recorder.add(step)
    return str(path)


def online(folder, learner=None, policy=None, env=None, **options):
    learner = learner or Tiny()
    env = env or world()
    policy = policy or Tied(learner)
    with Run(folder) as run:
        told = {"steps": 100, "ratio": 0.5, "seed_steps": 20, "seed": 5} | options
        return learner, train(learner, run, env=env, policy=policy, **told)


def offline(folder, sources, learner=None, **options):
    learner = learner or Tiny()
    with Run(folder) as run:
        return learner, train(learner, run, sources=sources, **({"steps": 30} | options))


def lines(folder, kind):
    text = (folder / "metrics.jsonl").read_text()
    return [m for m in map(json.loads, text.splitlines()) if m["kind"] == kind]


# ---- bookkeeping


def test_offline_does_the_updates_asked_for_and_saves(tmp_path):
    source = record(tmp_path / "data")
    learner, progress = offline(tmp_path / "run", (source,), steps=25, log_every=5)
    assert progress.updates == len(learner.batches) == 25 and progress.env_steps == 0
    assert [m["updates"] for m in lines(tmp_path / "run", "train")] == [5, 10, 15, 20, 25]
    assert lines(tmp_path / "run", "train")[-1]["loss"] == float(learner.w.sum())
    tensors, _, state = checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints"))
    assert torch.equal(tensors["w"], learner.w) and state["progress"]["updates"] == 25


@pytest.mark.parametrize("ratio, pretrain, seed_steps, n", [
    (0.5, 0, 20, 2), (1.0, 7, 30, 2), (0.3, 5, 31, 3), (2.0, 0, 0, 2), (0, 9, 25, 2),
])  # fmt: skip
def test_updates_are_those_that_decisions_have_earned(tmp_path, ratio, pretrain, seed_steps, n):
    trace = []
    learner, progress = online(
        tmp_path, env=world(n), ratio=ratio, pretrain=pretrain, seed_steps=seed_steps, steps=90,
        watch=lambda p, _: trace.append((p.updates, p.env_steps, p.episodes)),
    )  # fmt: skip
    assert progress.env_steps >= 90 > progress.env_steps - n

    def earned(env_steps):
        late = env_steps - seed_steps
        return math.floor(pretrain + ratio * late + 1e-9) if late >= 0 else 0

    assert progress.updates == earned(progress.env_steps) == len(learner.batches)
    seen = 0
    for (before, *_), (updates, env_steps, episodes) in zip([(0,), *trace], trace, strict=False):
        if updates > before:
            assert updates == before + 1 and env_steps >= seed_steps and episodes
        elif env_steps > seed_steps and seen:  # a step is taken when no update is owed
            assert before == earned(seen)
        seen = env_steps if episodes else 0
    # resets are no decisions: 9 in 10 steps of a row are
    _, arrays, state = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
    data = Episodes(tmp_path / "episodes")
    hand = int((~arrays["hand/first"]).sum()) if "hand/first" in arrays else 0
    assert progress.env_steps == int((data.lengths - 1).sum()) + hand
    assert state["progress"]["episodes"] == len(data) == progress.episodes


def test_episodes_and_scores_are_logged_where_they_happen(tmp_path):
    scores = []

    def evaluate(progress):
        scores.append((progress.updates, progress.env_steps))
        return {"score": len(scores) / 10}

    online(tmp_path, evaluate=evaluate, evaluate_every=30, log_every=10)
    told = lines(tmp_path, "score")
    assert [m["score"] for m in told] == [0.1, 0.2, 0.3]
    assert [m["env_steps"] for m in told] == [30, 60, 90] == [s for _, s in scores]
    assert [m["updates"] for m in lines(tmp_path, "train")] == [10, 20, 30, 40]
    data = Episodes(tmp_path / "episodes")
    pairs = [data.episode(i)["reward"].sum() for i in range(len(data))]
    means = np.array(pairs).reshape(-1, 2).mean(1)  # both rows end together
    logged = lines(tmp_path, "episode")
    np.testing.assert_allclose([m["return"] for m in logged], means, rtol=1e-6)
    assert [m["env_steps"] for m in logged] == [18 * k for k in range(1, 6)]
    assert all(m["success"] in (0, 0.5, 1) for m in logged)


@pytest.mark.parametrize("then, at", [(20, [30, 40, 60, 80, 100]), (45, [30, 46, 90])])
def test_scores_come_at_the_steps_asked_for_last(then, at, tmp_path):
    online(tmp_path, steps=36, evaluate=lambda p: {}, evaluate_every=30)
    online(tmp_path, evaluate=lambda p: {}, evaluate_every=then)
    assert [m["env_steps"] for m in lines(tmp_path, "score")] == at


def test_other_peoples_episodes_are_learnt_from_as_well(tmp_path):
    source = record(tmp_path / "data", episodes=6, seed=100)
    told = {"sources": (source,), "seed_steps": 0, "pretrain": 20}
    learner, _ = online(tmp_path / "run", **told)
    theirs = {Episodes(source).episode(i)["objects"][0].tobytes() for i in range(6)}
    seen = [b["objects"][:, 0].numpy() for b in learner.batches]
    firsts = [b["first"][:, 0].numpy() for b in learner.batches]
    starts = [
        {o[i].tobytes() for i in np.flatnonzero(f)} for o, f in zip(seen, firsts, strict=True)
    ]
    assert set().union(*starts[:20]) <= theirs and set().union(*starts[:20])
    assert set().union(*starts[20:]) - theirs  # later, its own too


def test_nothing_to_learn_from_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="nothing to learn from: give a world, or folders"):
        offline(tmp_path, ())
    with pytest.raises(FileNotFoundError):
        offline(tmp_path, (str(tmp_path / "nowhere"),))
    short = record(tmp_path / "short", steps=2)
    with pytest.raises(ValueError, match="no window of 4 valid steps"):
        offline(tmp_path, (short,))


def test_a_run_depends_on_its_seed_alone(tmp_path):
    a, b, c = (online(tmp_path / k, seed=s)[0].w for k, s in (("a", 1), ("b", 1), ("c", 2)))
    assert torch.equal(a, b) and not torch.equal(a, c)


# ---- what must stop it


class Sick(Tiny):
    """Falls ill at update 13, as a diverging loss does, and stays so."""

    def update(self, batch):
        metrics = super().update(batch)
        if len(self.batches) >= 13:
            self.w = self.w * float("nan")
            metrics["loss"] = self.w.sum()
        return metrics


@pytest.mark.parametrize("log_every, save_every", [(10, 10), (100, 5), (4, 7), (100, 100)])
def test_a_loss_that_is_no_number_stops_it_before_it_is_saved(tmp_path, log_every, save_every):
    source = record(tmp_path / "data")
    with pytest.raises(
        NotFinite, match=r"loss, first not finite at update .*checkpoints.*learning rate"
    ):
        offline(tmp_path / "run", (source,), Sick(), log_every=log_every, save_every=save_every)
    folder = tmp_path / "run" / "checkpoints"
    for step in checkpoint.steps(folder):
        tensors, _, state = checkpoint.load(folder / f"step-{step:09d}")
        assert torch.isfinite(tensors["w"]).all() and state["progress"]["updates"] <= 12
    assert len(checkpoint.steps(folder)) == min(2, 12 // save_every)
    # and from there a sound learner goes on
    learner, progress = offline(tmp_path / "run", (source,))
    assert progress.updates == 30 and torch.isfinite(learner.w).all()


class Breaking(Policy):
    """Breaks the physics of a row now and then, as a bad contact would."""

    def __init__(self, env):
        self.env, self._random, self.count = env, Random(4), 0

    def start(self, seeds):
        return self._random.start(seeds)

    def act(self, step, carry):
        self.count += 1
        if self.count % 7 == 0:
            self.env.sim.qvel[self.count % 2, 1] = np.nan
        return self._random.act(step, carry)


def test_windows_never_hold_a_step_where_physics_failed(tmp_path):
    env = world()
    told = {"steps": 300, "ratio": 0.3}
    learner, _ = online(tmp_path, policy=Breaking(env), env=env, **told)  # Tiny asserts it too
    data = Episodes(tmp_path / "episodes")
    invalid = sum(int((~data.episode(i)["valid"]).sum()) for i in range(len(data)))
    assert invalid >= 10
    assert len(learner.batches) > 50
    assert all(b["valid"].all() and torch.isfinite(b["proprio"]).all() for b in learner.batches)


def test_rewards_in_windows_answer_the_action_before(tmp_path):
    """Through recorder, disk and windows: Reach pays the less the further away the arm is."""
    learner, _ = online(tmp_path, steps=60)
    batch = {k: torch.cat([b[k] for b in learner.batches]) for k in learner.batches[0]}
    gap, reward = batch["objects"][:, :, 3:6].norm(dim=-1), batch["reward"]
    assert (reward[batch["first"]] == 0).all()

    def falls(gap, reward):
        order = gap.flatten().argsort()
        return bool((reward.flatten()[order].diff() <= 1e-6).all())

    inside = ~batch["first"].any(1)
    assert inside.sum() > 50 and falls(gap[inside], reward[inside])
    assert not falls(gap[inside, :-1], reward[inside, 1:])  # a shift by one is seen
    assert not falls(gap[inside, 1:], reward[inside, :-1])
    # and the action is the one that led from its step to the next
    jaws, action = batch["proprio"][:, :, 6], batch["action"][:, :, 3]
    moved = jaws.diff(dim=1).flatten()
    commanded = (action[:, :-1] * 0.02 + 0.02 - jaws[:, :-1]).flatten()
    assert np.corrcoef(moved, commanded)[0, 1] > 0.95
    late = (action[:, 1:] * 0.02 + 0.02 - jaws[:, :-1]).flatten()
    assert np.corrcoef(moved, late)[0, 1] < 0.9  # though actions resemble their neighbours


class Wider(Tiny):
    """Takes one component of an action more than Tiny does."""

    def io_contract(self):
        return Contract({}, Spec((5,)), {}, {}, self.window)


def test_a_checkpoint_of_another_contract_is_refused_with_the_reason(tmp_path):
    source, folder = record(tmp_path / "data"), tmp_path / "run"
    learner, _ = offline(folder, (source,), steps=3)
    path = checkpoint.latest(folder / "checkpoints")
    tensors, arrays, state = checkpoint.load(path)
    assert state["fingerprint"] == learner.io_contract().fingerprint
    with pytest.raises(ContractError, match=r"action\.shape was \[4\] and is \[5\]; build the"):
        offline(folder, (source,), Wider(), steps=4)
    del state["contract"]
    checkpoint.save(path.parent, 3, tensors, arrays, state)
    with pytest.raises(ContractError, match="says nothing of its contract"):
        offline(folder, (source,), steps=4)


# ---- interruptions


def digest(folder):
    """Everything that two equal trainings have in common: parameters, metrics, episodes."""
    tensors, arrays, state = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    data = Episodes(folder / "episodes") if (folder / "episodes").exists() else []
    parts = {
        k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in tensors.items()
    }
    parts |= {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in arrays.items()}
    parts["state"] = state
    parts["metrics"] = (folder / "metrics.jsonl").read_text()
    parts["episodes"] = [data.column("episode/id").tolist(), data.lengths.tolist()] if data else []
    return parts


def test_ctrl_c_saves_and_the_same_call_goes_on(tmp_path):
    told = {"log_every": 5, "save_every": 1000, "evaluate": lambda p: {"x": p.atoms}}
    told |= {"evaluate_every": 25}
    before = signal.getsignal(signal.SIGINT)
    online(tmp_path / "whole", **told)
    for at in (3, 40, 77):  # in the seed phase, in the middle of an episode, late

        def press(progress, _, at=at):
            if progress.atoms >= at:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            online(tmp_path / "parts", watch=press, **told)
        state = checkpoint.load(checkpoint.latest(tmp_path / "parts" / "checkpoints"))[2]
        assert 0 <= state["progress"]["updates"] + state["progress"]["env_steps"] - at < 2
    assert signal.getsignal(signal.SIGINT) is before
    online(tmp_path / "parts", **told)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert lines(tmp_path / "parts", "score")


def test_a_finished_training_is_left_as_it_is(tmp_path):
    _, before = online(tmp_path)
    path = checkpoint.latest(tmp_path / "checkpoints")
    stat = [(f.name, f.stat().st_mtime_ns, f.stat().st_ino) for f in sorted(path.iterdir())]
    was = digest(tmp_path)
    learner, again = online(tmp_path)
    assert vars(again) == vars(before) and not learner.batches
    assert digest(tmp_path) == was
    assert stat == [(f.name, f.stat().st_mtime_ns, f.stat().st_ino) for f in sorted(path.iterdir())]


def test_more_steps_go_on_as_if_they_had_been_asked_for_at_once(tmp_path):
    online(tmp_path / "whole", log_every=5)
    for steps in (30, 61, 100):
        online(tmp_path / "parts", steps=steps, log_every=5)
    assert digest(tmp_path / "parts")["w"] == digest(tmp_path / "whole")["w"]
    assert digest(tmp_path / "parts")["episodes"] == digest(tmp_path / "whole")["episodes"]


SCRIPT = """
import json, os, pathlib, random, signal, sys, time
import numpy as np, torch
from torch.utils.tensorboard import SummaryWriter
from umwelten.agents.planners import MPPI
from umwelten.agents.policy import Policy, Random, Warmup
from umwelten.envs.env import BatchEnv
from umwelten.learn import train
from umwelten.run import Run
from umwelten.world_models.contract import Contract, Spec
from umwelten.world_models.tdmpc2 import TDMPC2

torch.set_num_threads(1)

{sources}

def work(kind, folder, source, watch):
    env = world()
    if kind == "tdmpc2":
        learner = TDMPC2(env.single_observation_space, 4, size=1, episode_length=9, batch_size=8)
        policy = MPPI(learner, iterations=1, samples=16, elites=4, proposals=2, explore=True)
        policy = Warmup(policy, 4, 10)
    else:
        learner = Tiny()
        policy = Tied(learner)
    told = dict(sources=(source,) if source else (), seed=5, log_every=5, save_every=8, watch=watch)
    if kind == "offline":
        told |= dict(steps=60)
    else:
        steps = dict(online=80, tdmpc2=40, long=800)[kind]
        told |= dict(steps=steps, ratio=0.5, seed_steps=20, pretrain=6, env=env, policy=policy)
        told |= dict(evaluate=lambda p: dict(norm=p.atoms / 7), evaluate_every=16)
    with Run(folder) as run:
        train(learner, run, **told)

def live(kind, folder, source, kill):  # trains in a process of its own, returns how it ended
    child = os.fork()
    if not child:
        count = 0
        def watch(progress, metrics):
            nonlocal count
            count += 1
            if count == kill:
                os.kill(os.getpid(), signal.SIGKILL)
        try:
            work(kind, folder, source, watch)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if isinstance(kill, float):
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

kind, whole, parts, source, kills = sys.argv[1:6]
assert live(kind, whole, source, None) == 0
lives = [live(kind, parts, source, kill) for kill in json.loads(kills)]
lives.append(live(kind, parts, source, None))
print(json.dumps(lives))
"""


def lives(kind, tmp_path, kills, source=""):
    """Trains `whole`, and `parts` in processes killed as told (after so many pieces of work, or
    seconds); returns the two digests, and how each process that trained `parts` ended."""
    sources = "\n".join(inspect.getsource(x) for x in (Tiny, Tied, world))
    folders = tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, "-c", SCRIPT.replace("{sources}", sources), kind]
    command += [*map(str, folders), source, json.dumps(kills)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends[-1] == 0, done.stderr
    return *map(digest, folders), ends


@pytest.mark.parametrize("kind, kills", [
    ("offline", [3, 20, 9, 33]),
    ("online", [3, 14, 31, 50, 7, 20]),
    ("tdmpc2", [30, 8]),
])  # fmt: skip
def test_a_training_that_is_killed_ends_as_one_that_is_not(kind, kills, tmp_path):
    source = record(tmp_path / "data") if kind == "offline" else ""
    whole, parts, ends = lives(kind, tmp_path, kills, source)
    assert ends == [signal.SIGKILL] * len(kills) + [0]
    assert whole.keys() == parts.keys() and len(whole["metrics"].splitlines()) >= 7
    for key in whole:
        assert whole[key] == parts[key], key
    if kind == "online":
        assert whole["episodes"][0] and len(list((tmp_path / "parts/episodes/aside").iterdir()))


def test_kills_at_any_time_do_not_show(tmp_path):
    """Not between two pieces of work but anywhere: in a write, a rename, a physics step."""
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    moments = rng.uniform(0.05, 0.6, 6).tolist()
    whole, parts, ends = lives("long", tmp_path, moments)
    assert ends[0] == signal.SIGKILL and len(whole["episodes"][0]) > 20
    assert [k for k in whole if whole[k] != parts[k]] == [], moments


def test_another_seed_would_be_noticed(tmp_path):
    """What the comparisons above compare does differ where two trainings differ at all."""
    online(tmp_path / "a", seed=1)
    online(tmp_path / "b", seed=2)
    a, b = digest(tmp_path / "a"), digest(tmp_path / "b")
    assert a["w"] != b["w"] and a["episodes"] != b["episodes"] and a["metrics"] != b["metrics"]


def test_a_broken_newest_checkpoint_costs_only_what_came_after_the_older_one(tmp_path):
    online(tmp_path / "whole", log_every=5, save_every=8)
    online(tmp_path / "parts", log_every=5, save_every=8)
    newest = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    (newest / "state.json").write_text("{}")
    learner, _ = online(tmp_path / "parts", log_every=5, save_every=8)
    assert 0 < len(learner.batches) < 40
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_warming_up_ends_when_learning_begins(tmp_path):
    """No decision of the untrained policy is among the seed steps, and the first one after is."""

    class Constant(Policy):
        def start(self, seeds):
            return {}

        def act(self, step, carry):
            return np.full((2, 4), 0.125, np.float32), carry

    online(tmp_path, policy=Warmup(Constant(), 4, 20), seed_steps=40, steps=80, ratio=0.1)
    data = Episodes(tmp_path / "episodes")
    acted = np.concatenate([data.episode(i)["action"][:-1] for i in range(0, len(data), 2)])
    assert ((acted == 0.125).all(1).nonzero()[0] == np.arange(20, len(acted))).all()
