"""Policy: steps in, actions out; what it remembers is a value that the caller carries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter

import numpy as np

Carry = dict[str, np.ndarray]
Step = dict[str, np.ndarray]


class Policy(ABC):
    """Maps a step (n rows) to actions `(n, nu)` in [-1, 1]; never changes while it acts."""

    @abstractmethod
    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows; row i draws from a stream that seeds[i] names."""

    @abstractmethod
    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns the actions `(n, nu)` float32 for the step and the carry to pass next time.

        Rows where `step["first"]` is True begin an episode: nothing of the carry but the random
        stream may reach their actions.
        """


class Random(Policy):
    """Draws actions uniformly from [-1, 1], each row from its own stream."""

    def __init__(self, nu: int):
        self.nu = nu

    def start(self, seeds: np.ndarray) -> Carry:
        return {"seed": np.asarray(seeds, np.int64), "count": np.zeros(len(seeds), np.int64)}

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        rows = zip(carry["seed"].tolist(), carry["count"].tolist(), strict=True)
        action = np.stack([_stream(s, c).uniform(-1, 1, self.nu) for s, c in rows])
        return action.astype(np.float32), carry | {"count": carry["count"] + 1}


class Expert(Policy):
    """Does what the task's script says; it looks at the world itself, not at the step."""

    def __init__(self, env):
        self._world = env.unwrapped
        self._world.expert  # noqa: B018 (an AttributeError now, not at the first step)

    def start(self, seeds: np.ndarray) -> Carry:
        return {}

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        return np.atleast_2d(self._world.expert()), carry


class Replay(Policy):
    """Repeats recorded actions `(t, n, nu)` or `(t, nu)` from each episode's first step on.

    After the last recorded action it stays with that one.
    """

    def __init__(self, actions: np.ndarray):
        self._actions = np.asarray(actions, np.float32)
        if self._actions.ndim == 2:
            self._actions = self._actions[:, None]

    def start(self, seeds: np.ndarray) -> Carry:
        rows = self._actions.shape[1]
        if rows not in (1, len(seeds)):
            raise ValueError(f"recorded actions of {rows} rows cannot drive {len(seeds)} rows")
        return {"at": np.zeros(len(seeds), np.int64)}

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        at = np.where(step["first"], 0, carry["at"])
        n = len(at)
        rows = np.arange(n) if self._actions.shape[1] == n else np.zeros(n, int)
        action = self._actions[np.minimum(at, len(self._actions) - 1), rows]
        return action, {"at": at + 1}


class Chunked(Policy):
    """Asks `propose(step) -> (n, h, nu)` for a chunk, executes `execute` of it, and asks again."""

    def __init__(self, propose: Callable[[Step], np.ndarray], horizon: int, nu: int, execute: int):
        if not 1 <= execute <= horizon:
            raise ValueError(f"execute is 1 to the horizon {horizon}, got {execute}")
        self._propose, self._shape, self._execute = propose, (horizon, nu), execute

    def start(self, seeds: np.ndarray) -> Carry:
        n = len(seeds)
        return {
            "chunk": np.zeros((n, *self._shape), np.float32),
            "at": np.full(n, self._execute, np.int64),
        }

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        at = np.where(step["first"], self._execute, carry["at"])
        due, chunk = at >= self._execute, carry["chunk"]
        if due.any():
            fresh = np.asarray(self._propose(step), np.float32)
            if fresh.shape != chunk.shape:
                raise ValueError(f"propose returns shape {chunk.shape}, got {fresh.shape}")
            chunk, at = np.where(due[:, None, None], fresh, chunk), np.where(due, 0, at)
        return chunk[np.arange(len(at)), at], {"chunk": chunk, "at": at + 1}


class Warmup(Policy):
    """Decides at random for the first `steps` decisions of each row, then as `policy` does.

    What is chosen at an episode's last step reaches no world: it is no decision.
    """

    def __init__(self, policy: Policy, nu: int, steps: int):
        self._random, self._policy, self._steps = Random(nu), policy, steps

    def start(self, seeds: np.ndarray) -> Carry:
        return {**self._policy.start(seeds), "warmup": np.zeros(len(seeds), np.int64)} | {
            f"random/{k}": v for k, v in self._random.start(seeds).items()
        }

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        count = carry["warmup"]
        after = carry | {"warmup": count + ~step["last"]}
        warming = count < self._steps
        if warming.any():
            mine = {k[7:]: v for k, v in carry.items() if k.startswith("random/")}
            chance, mine = self._random.act(step, mine)
            after |= {f"random/{k}": v for k, v in mine.items()}
            if warming.all():
                return chance, after
        inner = {k: v for k, v in carry.items() if k != "warmup" and not k.startswith("random/")}
        # The policy meets its first step in the middle of an episode: to it, that is a first step.
        begin = step["first"] | (count == self._steps)
        action, then = self._policy.act(step | {"first": begin}, inner)
        if not warming.any():
            return action, after | then
        after |= {k: _where(warming, inner[k], v) for k, v in then.items()}
        return _where(warming, chance, action), after


class Disturbed(Policy):
    """Holds an action drawn at random for `hold` decisions, then does as `policy` does for as many.

    And so on from each episode's first step: what is lost is regained, by ways of many kinds.
    """

    def __init__(self, policy: Policy, nu: int, hold: int = 5):
        self._random, self._policy, self._hold = Random(nu), policy, hold

    def start(self, seeds: np.ndarray) -> Carry:
        return {**self._policy.start(seeds), "disturbed": np.zeros(len(seeds), np.int64)} | {
            f"random/{k}": v for k, v in self._random.start(seeds).items()
        }

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        at = np.where(step["first"], 0, carry["disturbed"])
        mine = {k[7:]: v for k, v in carry.items() if k.startswith("random/")}
        chance, mine_then = self._random.act(step, mine)
        inner = {k: carry[k] for k in carry if k != "disturbed" and not k.startswith("random/")}
        action, after = self._policy.act(step, inner)
        ends = (at + 1) % (2 * self._hold) == 0  # until then the same number draws the same action
        kept = {f"random/{k}": _where(ends, mine_then[k], v) for k, v in mine.items()}
        held = at % (2 * self._hold) < self._hold
        return _where(held, chance, action), after | kept | {"disturbed": at + 1}


class Timed(Policy):
    """Acts as `policy` does and keeps a log of how long each decision took.

    The log is all that changes while it acts, and no action depends on it.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        self._ms: list[float] = []
        self._iterations: list[int] = []

    def start(self, seeds: np.ndarray) -> Carry:
        return self.policy.start(seeds)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        begin = perf_counter()
        action, after = self.policy.act(step, carry)
        self._ms.append(1000 * (perf_counter() - begin))
        self._iterations += after["iterations"][:1].tolist() if "iterations" in after else []
        return action, after

    def latency(self) -> dict[str, float | None]:
        """Returns `decisions` (of all rows at once), `p50_ms` and `p99_ms` of a decision, and the
        mean of its `iterations`, None where the policy counts none.

        The first decision is among them, with all that is compiled then. Raises ValueError where
        nothing was decided yet.
        """
        if not self._ms:
            raise ValueError("no decision was timed yet; let the policy act first")
        p50, p99 = np.percentile(self._ms, [50, 99]).tolist()
        mean = float(np.mean(self._iterations)) if self._iterations else None
        return {"decisions": len(self._ms), "p50_ms": p50, "p99_ms": p99, "iterations": mean}


def _where(rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *[1] * (b.ndim - 1)), a, b)


def _stream(seed: int, count: int) -> np.random.Generator:
    # The counter's low word runs within a draw, its second word between draws.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, count, 0, 0]))
