"""Hosted: a learner that brings its own loop, kept in a run's folder; it knows no learner.

`learn.train` is the loop of what learns from recorded windows; this is for libraries whose own
loop acts and learns in turn. Either leaves the same folder behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from . import checkpoint
from .learn import Interrupt, NotFinite, Progress
from .run import Run

Stepped = Callable[[np.ndarray, np.ndarray, list[dict]], None]


class Learner(Protocol):
    """What can be hosted: it learns by itself, tells what happens, and can be put back."""

    log_every: int  # updates between two lines of metrics

    @property
    def env_steps(self) -> int: ...
    @property
    def updates(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    def learn(self, steps: int, stepped: Stepped, pause: Callable[[], None]) -> None: ...
    def checkpoint(self) -> dict[str, torch.Tensor]: ...
    def restore(self, tensors: dict[str, torch.Tensor]) -> None: ...
    def position(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]: ...
    def go_on(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None: ...


def train(
    learner: Learner,
    run: Run,
    *,
    steps: int,
    save_every: int = 5000,
    evaluate: Callable[[Progress], dict] | None = None,
    evaluate_every: int = 0,
    watch: Callable[[Progress, dict], None] | None = None,
) -> Progress:
    """Lets a learner learn until `steps` decisions, going on from the run's newest checkpoint.

    Every `evaluate_every` decisions, once anything is learnt, `evaluate(progress)` may return
    numbers to log; checkpoints come every `save_every` decisions and at the end: both at the next
    pause of the learner's loop. So does what Ctrl-C asks for; a second one acts at once.

    Raises NotFinite when a metric is not finite where it is logged or would be saved.
    """
    host = _Host(learner, run, save_every, evaluate, evaluate_every, watch)
    host.resume()
    with Interrupt() as host.interrupt:
        try:
            learner.learn(steps, host.stepped, host.pause)
        except ValueError:  # such as a distribution's, that can be of no such numbers
            host.weights()
            raise
    host.save()
    return host.progress


class _Host:
    """What is kept of a training beside the learner: progress, and what was logged and judged."""

    def __init__(self, learner, run, save_every, evaluate, evaluate_every, watch):
        self.learner, self.run, self.watch = learner, run, watch
        self.save_every, self.evaluate, self.evaluate_every = save_every, evaluate, evaluate_every
        self.progress, self.interrupt = Progress(), Interrupt()
        self.judged = self.saved = 0  # decisions at the last score and checkpoint
        self.logged = 0

    def stepped(self, reward: np.ndarray, done: np.ndarray, infos: list[dict]) -> None:
        p = self.progress
        p.env_steps = self.learner.env_steps
        returns = np.array(p.returns or np.zeros(len(done))) + reward
        if done.any():
            rows = np.flatnonzero(done).tolist()
            p.episodes += len(rows)
            success = float(np.mean([infos[i]["is_success"] for i in rows]))
            self.run.log(
                kind="episode", updates=p.updates, env_steps=p.env_steps,
                **{"return": float(returns[done].mean())}, success=success,
            )  # fmt: skip
        p.returns = np.where(done, 0.0, returns).tolist()
        if self.watch:
            self.watch(p, {})

    def pause(self) -> None:
        p = self.progress
        p.updates, p.env_steps = self.learner.updates, self.learner.env_steps
        if p.updates // self.learner.log_every > self.logged:
            self.logged = p.updates // self.learner.log_every
            told = {k: v for k, v in self.learner.metrics.items() if k != "n_updates"}
            _finite(told, p, self.run)
            self.run.log(kind="train", updates=p.updates, env_steps=p.env_steps, **told)
        every = self.evaluate_every or p.env_steps + 1
        if self.evaluate and p.env_steps // every > self.judged // every and p.updates:
            self.judged = p.env_steps
            found = self.evaluate(p)
            self.run.log(kind="score", updates=p.updates, env_steps=p.env_steps, **found)
        if self.interrupt.caught or p.env_steps // self.save_every > self.saved // self.save_every:
            self.save()
        if self.interrupt.caught:
            raise KeyboardInterrupt

    def weights(self) -> dict[str, torch.Tensor]:
        """Returns what the learner has learnt; raises NotFinite if a number in it is not finite."""
        tensors = self.learner.checkpoint()
        sums = {k: float(v.double().sum()) for k, v in tensors.items()}
        _finite(sums, self.progress, self.run)
        return tensors

    def save(self) -> None:
        p = self.progress
        if p.env_steps == self.saved:  # it is there, or nothing has happened
            return
        tensors = self.weights()
        arrays, state = self.learner.position()
        state = {
            "schema": 1, "progress": vars(p), "judged": self.judged, "logged": self.logged,
            "learner": state, "threads": torch.get_num_threads(),
        }  # fmt: skip
        checkpoint.save(self.run.checkpoints, p.atoms, tensors, arrays, state)
        self.saved = p.env_steps

    def resume(self) -> None:
        path = checkpoint.latest(self.run.checkpoints)
        if path is None:
            self.run.forget(-1)
            return
        tensors, arrays, state = checkpoint.load(path)
        self.learner.restore(tensors)
        self.learner.go_on(arrays, state["learner"])
        vars(self.progress).update(state["progress"])
        self.judged, self.logged = state["judged"], state["logged"]
        self.saved = self.progress.env_steps
        self.run.forget(self.progress.atoms)


def _finite(values: Mapping[str, float], progress: Progress, run: Run) -> None:
    """Raises NotFinite if one of the values is not finite."""
    bad = [k for k, v in values.items() if not math.isfinite(v)]
    if bad:
        raise NotFinite(
            f"{', '.join(bad[:3])} not finite at update {progress.updates}; the last good "
            f"checkpoint is in {run.checkpoints}: lower the learning rate"
        )
