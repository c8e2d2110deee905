"""Fleet: a rollout whose rows are acted in by processes of their own, as actors of Ray.

It stands in the place of a `rollout`: steps of all rows come out, one after the other, and whoever
takes them counts and records them. It knows no recorder and no update.
"""

from __future__ import annotations

import numpy as np

from .config import ConfigError
from .rollout import Step, rollout

STRIDE = 25  # steps of a collector with the same weights, while those before are learnt from
TRIES = 3  # times in a row that a collector is replaced


class Collector:
    """The world of some rows and a policy in it, with a copy of the model; lives in an actor."""

    def __init__(self, told: dict, n: int, seeds: list[int], warm: int):
        import torch

        from . import build
        from .agents.policy import Warmup

        torch.set_num_threads(1)
        options = {k: told[k] for k in ("action_repeat", "cameras", "world")}
        env = build.make_env(told["task"], n, **options)
        self._model = build.make_model(told["model"], env, "cpu", told["seed"])
        policy = build.make_planner(told["planner"], self._model, explore=True)
        policy = Warmup(policy, env.single_action_space.shape[0], warm) if warm else policy
        self._steps = rollout(env, policy, seeds)

    def collect(self, weights: dict[str, np.ndarray], count: int) -> Step:
        """Returns the next steps `{key: (count, n, ...)}`, acted in by these weights."""
        import torch

        own = self._model.state_dict()
        with torch.no_grad():
            for key, value in weights.items():
                own[key].copy_(torch.from_numpy(value.copy()))
        steps = [next(self._steps) for _ in range(count)]
        return {k: np.stack([s[k] for s in steps]) for k in steps[0]}


class Fleet:
    """Collectors that act in equal parts of the rows: an endless iterator of steps (n, ...).

    Every STRIDE steps a collector is sent the weights that `model` has then; it is never more than
    two strides ahead of what was taken here. Row seeds decide what is drawn, but which weights act
    depends on how fast others are: two runs are not equal.

    A collector that is gone (killed, its machine lost) is replaced, with new seeds. Its rows then
    have one step that is `last` and not `valid`, which ends what was handed over of their episodes
    (and counts among the decisions, though none was taken).
    """

    def __init__(self, told: dict, model, seeds: list[int], collectors: int, warm: int = 0):
        """told: a run's config. seeds: a row's each. warm: random actions of each row at first.

        Raises ConfigError without ray, without a processor for each collector, or where rows
        cannot be parted equally.
        """
        try:
            import ray
        except ImportError as error:
            raise ConfigError("launcher=ray needs Ray; pip install 'umwelten[ray]'") from error
        if collectors < 1 or len(seeds) % collectors:
            raise ConfigError(f"n={len(seeds)} rows are not parted by collectors={collectors}")
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        if (there := int(ray.cluster_resources().get("CPU", 0))) < collectors:
            raise ConfigError(f"collectors={collectors} want a processor each; Ray has {there}")
        self._ray, self._told, self._model = ray, told, model
        self._seeds = np.reshape(seeds, (collectors, -1))
        self._lives, self._warm = np.zeros(collectors, np.int64), np.full(collectors, warm)
        self._cut: set[int] = set()  # collectors whose first step ends open episodes
        self._last: Step = {}
        self.actors: list = []
        self._asked: list = [None] * collectors
        self._chunk: list[Step] = []

    def __next__(self) -> Step:
        if not self._chunk:
            self._refill()
        self._last = self._chunk.pop()
        return self._last.copy()

    def _refill(self) -> None:
        every = range(len(self._seeds))
        if not self.actors:
            self.actors, weights = [self._begin(i) for i in every], self._weights()
            for i in every:
                self._ask(i, weights)
        parts = [self._steps(i) for i in every]
        joined = {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}
        self._chunk = [{k: v[t] for k, v in joined.items()} for t in reversed(range(STRIDE))]
        self._warm, weights = np.maximum(self._warm - STRIDE, 0), self._weights()
        for i in every:
            self._ask(i, weights)

    def _steps(self, i: int) -> Step:
        """Returns the next STRIDE steps of a collector, replaced until one has given them."""
        for _ in range(TRIES):
            try:
                steps = self._ray.get(self._asked[i])
                return self._ended(i, steps) if i in self._cut else steps
            except self._ray.exceptions.RayActorError as error:
                reason = error
            if self._last:
                self._cut.add(i)
            self._lives[i] += 1
            self.actors[i] = self._begin(i)
            self._ask(i, self._weights())
        raise RuntimeError(f"collector {i} ended {TRIES} times in a row") from reason

    def _begin(self, i: int):
        life, seeds = int(self._lives[i]), self._seeds[i]
        if life:
            again = np.random.SeedSequence([self._told["seed"], i, life])
            seeds = again.generate_state(len(seeds)) >> 1  # below 2^31, as all that train
        actor = self._ray.remote(num_cpus=1, max_restarts=0)(Collector)
        return actor.remote(self._told, len(seeds), seeds.tolist(), int(self._warm[i]))

    def _ask(self, i: int, weights) -> None:
        self._asked[i] = self.actors[i].collect.remote(weights, STRIDE - (i in self._cut))

    def _ended(self, i: int, steps: Step) -> Step:
        """Returns the steps behind one that ends the episodes which its rows were in."""
        self._cut.discard(i)
        rows = slice(i * self._seeds.shape[1], (i + 1) * self._seeds.shape[1])
        end = {k: v[rows].copy() for k, v in self._last.items()}
        no = np.zeros_like(end["last"])
        end |= {"last": ~end["last"], "first": no, "terminal": no, "valid": no}
        end["reward"] = np.zeros_like(end["reward"])
        return {k: np.concatenate([end[k][None], v]) for k, v in steps.items()}

    def _weights(self):
        state = self._model.state_dict()
        return self._ray.put({k: v.detach().cpu().numpy().copy() for k, v in state.items()})

    def save(self) -> dict[str, np.ndarray]:
        """Returns what `load` needs: collectors begin anew, and end the episodes that were open."""
        step = {f"step/{k}": v for k, v in self._last.items()}
        return step | {"lives": self._lives, "warm": self._warm}

    def load(self, saved: dict[str, np.ndarray]) -> None:
        """Goes on behind the step that was the last when `save` was called."""
        self._last = {k[5:]: v for k, v in saved.items() if k.startswith("step/")}
        self._lives, self._warm = saved["lives"] + 1, saved["warm"]
        self._cut = set(range(len(self._seeds))) if self._last else set()
