"""Learn: windows in, metrics out; the one training loop, offline and online, exact over a kill."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from . import checkpoint
from .episodes import Episodes, Recorder, set_aside
from .parallel import ALONE
from .replay import Replay
from .rollout import rollout
from .run import Run
from .stream import Stream

ALWAYS = ("action", "reward", "first", "last", "terminal", "valid")  # whatever a learner reads


class Learner(Protocol):
    """What can be trained: any object with these (a world model, a policy).

    Where it has `keys`, the observations that it reads, batches hold these and ALWAYS alone; else
    all that was recorded. `place` (b,) comes as well: see `Replay`. Where it has a `share` of
    several processes, it is given its part of each batch and averages its gradients: see `Share`.
    Where it is `fresh`, it learns online from steps as soon as they are taken, new windows first:
    see `Stream`; else from episodes that are over. Where it has a `recall`, windows come with what
    was believed before them, `before/...` (b, ...); of a `Stream`, that hears of what is acted in.
    """

    window: int  # steps of a window
    batch_size: int  # windows of a batch
    device: torch.device

    def io_contract(self): ...  # what it takes and tells: a world_models.contract.Contract
    def update(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    def checkpoint(self) -> dict[str, torch.Tensor]: ...
    def restore(self, tensors: dict[str, torch.Tensor]) -> None: ...


class NotFinite(RuntimeError):
    """A loss or gradient stopped being a finite number; the last checkpoint is intact."""


@dataclass
class Progress:
    """Where a training stands; all of it is in the checkpoint."""

    updates: int = 0
    env_steps: int = 0  # decisions taken, resets not counted
    episodes: int = 0
    returns: list[float] = field(default_factory=list)  # of each row's episode in hand

    @property
    def atoms(self) -> int:
        """Updates and env steps together: grows by every piece of work, so it orders files."""
        return self.updates + self.env_steps


def train(
    learner: Learner,
    run: Run,
    *,
    sources: tuple = (),
    env=None,
    policy=None,
    steps: int,
    ratio: float = 1.0,
    seed: int = 0,
    seed_steps: int = 0,
    pretrain: int = 0,
    log_every: int = 250,
    save_every: int = 5000,
    evaluate: Callable[[Progress], dict] | None = None,
    evaluate_every: int = 0,
    watch: Callable[[Progress, dict], None] | None = None,
    read: Callable[[list], Replay] | None = None,
    act: Callable = rollout,
) -> Progress:
    """Trains until `steps` are done, going on from the run's newest checkpoint if it has one.

    Offline (env None): `steps` updates from the episodes in the folders `sources`. Online: `steps`
    env steps; the world's episodes are recorded into the run and learnt from together with
    `sources`. Once `seed_steps` are taken, `pretrain` updates are done at once, then `ratio` for
    every env step. env: a BatchEnv in NEXT_STEP mode; policy: what acts in it. read(folders)
    gives what batches come from, default a Replay of all of them alike. act(env, policy, seeds)
    gives the steps that are recorded and counted.

    Every `evaluate_every` env steps (offline: updates), once anything is learnt,
    `evaluate(progress)` may return numbers to log. `watch(progress, metrics)` is called after each
    update and env step, to draw a bar.
    Checkpoints come every `save_every` updates, at the end, and at Ctrl-C. On a CPU and at a fixed
    number of threads, a killed and resumed training equals an uninterrupted one bit for bit.

    Raises NotFinite when a metric is not finite where it is logged or would be saved, and
    ValueError if there is nothing to learn from, or not what the learner's contract says.
    """
    loop = _Loop(learner, run, sources, env, policy, seed, read, act)
    loop.resume()
    p, mark = loop.progress, "update" if env is None else "step"
    with Interrupt() as interrupt, loop.leading():
        for kind in loop.run(steps, ratio, seed_steps, pretrain):
            if watch:
                watch(p, loop.metrics)
            if kind == "update" and p.updates % log_every == 0:
                loop.log()
            at, every = p.updates if env is None else p.env_steps, evaluate_every or steps + 1
            if evaluate and kind == mark and at // every > loop.judged // every and p.updates:
                loop.judged = at
                run.log(kind="score", updates=p.updates, env_steps=p.env_steps, **evaluate(p))
            if interrupt.caught or (kind == "update" and p.updates % save_every == 0):
                loop.save()
            if interrupt.caught:
                raise KeyboardInterrupt
    loop.save()
    return p


def follow(learner: Learner) -> None:
    """Learns from the parts of batches that the leading process hands out, until it has ended.

    Ctrl-C and SIGTERM are for the leader to act on. Raises RuntimeError if it is gone.
    """
    share = learner.share
    with Interrupt():
        share.agree(learner)
        while (batch := share.receive()) is not None:
            learner.update(batch)


def replay_of(learner: Learner, paths: list) -> Replay:
    """Returns the Replay of all episodes in the folders alike, as the learner reads them."""
    keys = getattr(learner, "keys", None)
    keys = keys and tuple(dict.fromkeys((*keys, *ALWAYS)))
    across = getattr(learner, "across", False)
    return Replay(Episodes(paths, keys, across=across), learner.device)


class Interrupt:
    """Holds Ctrl-C and SIGTERM back until an atom is done; one a second later acts at once.

    Not earlier: torchrun sends its processes again what the terminal has sent them already.
    """

    def __enter__(self) -> Interrupt:
        self.caught = False
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.caught and now - self.caught > 1:
            raise KeyboardInterrupt
        self.caught = self.caught or now

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Loop:
    """The state of a training between two atoms (one update, or one step of all rows)."""

    def __init__(self, learner, run, sources, env, policy, seed, read=None, act=rollout):
        self.learner, self.run_folder, self.env = learner, run, env
        self.share = getattr(learner, "share", ALONE)
        self.recall = getattr(learner, "recall", None)
        self.progress, self.metrics = Progress(), {}
        self.judged = 0  # env steps (offline: updates) at the last score
        self.saved: int | None = None  # atoms of the newest checkpoint
        root = np.random.SeedSequence(seed)
        self.rng = np.random.Generator(np.random.PCG64(root.spawn(1)[0]))
        self.recorder = self.rollout = None
        paths = [*sources]
        if env is not None:
            self.recorder = Recorder(run.episodes, _info(env))
            paths.append(run.episodes)
            self.rollout = act(env, policy, _row_seeds(root, env.num_envs))
            self.progress.returns = [0.0] * env.num_envs
        if not paths:
            raise ValueError("nothing to learn from: give a world, or folders of episodes")
        self._sources, self._paths = bool(sources), paths
        self.data, self._read = None, read or (lambda paths: replay_of(learner, paths))
        self.fresh = env is not None and getattr(learner, "fresh", False)

    @contextmanager
    def leading(self):
        """Has the other processes follow as long as the block lasts."""
        self.share.agree(self.learner)
        try:
            yield
        finally:
            self.share.dismiss()

    def run(self, steps: int, ratio: float, seed_steps: int, pretrain: int):
        """Yields "update" or "step" after each atom, until `steps` are done."""
        p = self.progress
        if self.env is None:
            while p.updates < steps:
                self.update()
                yield "update"
            return
        while True:
            late = p.env_steps - seed_steps
            earned = pretrain + ratio * late + 1e-9 if late >= 0 else 0.0
            if p.updates + 1 <= earned and self.ready():
                self.update()
                yield "update"
            elif p.env_steps < steps:
                self.step()
                yield "step"
            else:
                return

    def ready(self) -> bool:
        """Whether there is something to learn from."""
        if self._sources or not self.fresh:
            return self._sources or self.progress.episodes > 0
        return self.data.count(self.learner.window) > 0

    def step(self) -> None:
        step = next(self.rollout)
        p = self.progress
        p.episodes += self.recorder.add(step)
        if self.fresh:
            place = self.data.add(step)
            if self.recall is not None:
                self.recall.hear(place, step["action"], getattr(self.rollout, "carry", {}))
        p.env_steps += int((~step["first"]).sum())
        returns = np.where(step["first"], 0.0, p.returns) + step["reward"]
        p.returns = returns.tolist()
        if step["last"].any():
            ended = returns[step["last"]]
            extra = {}
            if "label/success" in step:
                extra["success"] = float(step["label/success"][step["last"]].mean())
            self.run_folder.log(
                kind="episode", updates=p.updates, env_steps=p.env_steps,
                **{"return": float(ended.mean())}, **extra,
            )  # fmt: skip

    def update(self) -> None:
        learner = self.learner
        if self.data is None:
            self.data = self._read(self._paths)
        elif self.recorder is not None:
            self.data.refresh()
        batch = self.data.sample(self.rng, learner.batch_size, learner.window)
        if self.recall is not None:
            batch |= self.recall.before(batch["place"])
        self.metrics = learner.update(self.share.hand_out(batch))
        self.progress.updates += 1

    def _stream(self) -> Stream | None:
        """Returns what batches come from where steps are learnt from as they are taken."""
        if not self.fresh:
            return None
        others = self._read(self._paths[:-1]) if self._sources else None
        return Stream(self._read(self._paths[-1:]), self.env.num_envs, others)

    def log(self) -> None:
        values = {k: float(v) for k, v in self.metrics.items()}
        p = self.progress
        self.run_folder.log(kind="train", updates=p.updates, env_steps=p.env_steps, **values)
        self.check()

    def check(self) -> None:
        """Raises NotFinite if the last update's metrics are not all finite."""
        bad = [k for k, v in self.metrics.items() if not math.isfinite(float(v))]
        if bad:
            raise NotFinite(
                f"{', '.join(bad)} not finite at update {self.progress.updates}; the last good "
                f"checkpoint is in {self.run_folder.checkpoints}: lower the learning rate or look "
                "at the data"
            )

    def save(self) -> None:
        p = self.progress
        if p.atoms == self.saved:  # it is there, and replacing it would risk it
            return
        self.check()
        arrays, shards, contract = {}, [], self.learner.io_contract()
        if self.recorder is not None:
            self.recorder.flush()
            shards = self.recorder.names()
            arrays |= {f"rollout/{k}": v for k, v in self.rollout.save().items()}
            arrays |= {f"hand/{k}": v for k, v in self.recorder.in_hand().items()}
            if self.fresh:
                arrays |= {f"stream/{k}": v for k, v in self.data.save().items()}
        state = {
            "schema": 1, "progress": vars(p), "judged": self.judged, "shards": shards,
            "rng": _plain(self.rng.bit_generator.state), "threads": torch.get_num_threads(),
            "contract": contract.plain(), "fingerprint": contract.fingerprint,
        }  # fmt: skip
        checkpoint.save(
            self.run_folder.checkpoints, p.atoms,
            self.learner.checkpoint(), arrays, state,
        )  # fmt: skip
        self.saved = p.atoms

    def resume(self) -> None:
        path = checkpoint.latest(self.run_folder.checkpoints)
        if path is None:
            self.run_folder.forget(-1)
            if self.recorder is not None:
                set_aside(self.run_folder.episodes, [])
                self.recorder = Recorder(self.recorder.path, _info(self.env))
            self.data = self._stream()
            return
        tensors, arrays, state = checkpoint.load(path)
        self.learner.io_contract().require(state.get("contract"), path)
        self.learner.restore(tensors)
        vars(self.progress).update(state["progress"])
        self.judged = state["judged"]
        self.rng.bit_generator.state = state["rng"]
        self.saved = self.progress.atoms
        self.run_folder.forget(self.saved)
        if self.recorder is not None:
            set_aside(self.run_folder.episodes, state["shards"])
            self.recorder = Recorder(self.recorder.path, _info(self.env))
            self.recorder.restore(_part(arrays, "hand/"))
            self.rollout.load(_part(arrays, "rollout/"))
            self.data = self._stream()
            if self.data is not None:
                self.data.restore(_part(arrays, "stream/"), _part(arrays, "hand/"))


def _info(env) -> dict:
    """Returns what a folder says of a world; of several tasks the names too, in order of ids."""
    return {"fingerprint": env.fingerprint} | (
        {"tasks": list(env.names)} if hasattr(env, "sides") else {}
    )


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def _row_seeds(root: np.random.SeedSequence, n: int) -> list[int]:
    """Row seeds of a run, below 2^31; those from 2^31 on are reserved for scoring."""
    return [int(s) >> 1 for s in root.generate_state(n)]


def _plain(state: dict) -> dict:
    return json.loads(json.dumps(state, default=int))
