"""Rollout: the step record and the one loop in which a policy meets a world."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Step = dict[str, np.ndarray]


def rollout(env, policy, seed=None, episodes_per_row: int | None = None) -> Rollout:
    """Returns the endless (or, with a quota, ending) iterator of steps of `policy` in `env`.

    env: a `gymnasium.vector.VectorEnv` in NEXT_STEP mode, or a `gymnasium.Env`, which counts as
    n = 1; observations are a Dict, or an array that is called `observation`. seed: an int (row i
    has seed + i), one per row, or None (drawn from the system). episodes_per_row: after so many
    episodes a row is idle (`valid` False outside any episode), and when all are, the loop ends.

    Each step is a dict of `(n, ...)` arrays: the observation's keys, `reward` float32 (paid for
    arriving here, 0 at a first step), bools `first`, `last`, `terminal`, `valid`, `time` (s since
    the episode began), `action` float32 (chosen here, as applied; ignored at a last step), and the
    infos `physics` and `label/...` where the world gives them (`success` is `label/success`).
    """
    return Rollout(env, policy, seed, episodes_per_row)


class Rollout(Iterator[Step]):
    """The loop's iterator; between two steps it can be saved and, elsewhere, go on (`load`)."""

    def __init__(self, env, policy, seed=None, episodes_per_row: int | None = None):
        from gymnasium.spaces import Box
        from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

        if not isinstance(env, VectorEnv):
            env = SyncVectorEnv([lambda env=env: env])
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"a rollout needs autoreset mode NEXT_STEP, the world has {mode}")
        space = env.single_action_space
        if not isinstance(space, Box):
            raise ValueError(f"a rollout sends actions of a Box, the world takes {space}")
        self.env, self.policy, self.quota = env, policy, episodes_per_row
        n = env.num_envs
        self.seeds = _row_seeds(seed, n)
        self.finished = np.zeros(n, np.int64)  # episodes of each row
        self._low, self._high = env.action_space.low, env.action_space.high  # of each row
        self._tick = 1 / env.metadata.get("render_fps", 1)
        self._steps = np.zeros(n)
        self._step: Step | None = None
        self._carry: dict = {}

    def __next__(self) -> Step:
        if self._step is None:
            obs, info = self.env.reset(seed=self.seeds.tolist())
            n = self.env.num_envs
            self._carry = self.policy.start(self.seeds)
            nothing = np.zeros(n, bool)
            step = self._record(obs, np.zeros(n), nothing, nothing, info, np.ones(n, bool))
        else:
            if self.quota is not None and (self.finished >= self.quota).all():
                raise StopIteration
            begins = self._ended
            obs, reward, terminal, truncated, info = self.env.step(self._step["action"])
            step = self._record(obs, reward, terminal, truncated, info, begins)
        action, self._carry = self.policy.act(step, self._carry)
        step["action"] = np.clip(np.asarray(action, np.float32), self._low, self._high)
        if not np.isfinite(step["action"]).all():
            raise ValueError(f"{type(self.policy).__name__} chose an action that is not finite")
        self._step = step
        return step.copy()

    @property
    def carry(self) -> dict:
        """What the policy remembers behind the last step, and so what it acted in it by."""
        return self._carry

    def _record(self, obs, reward, terminal, truncated, info, first) -> Step:
        step = dict(obs) if isinstance(obs, dict) else {"observation": obs}
        self._ended = terminal | truncated  # of the world, also where a row is idle
        self._steps = np.where(first, 0.0, self._steps + 1)
        idle = np.zeros(len(first), bool) if self.quota is None else (self.finished >= self.quota)
        fault = info.get("fault")
        step["reward"] = np.where(first | idle, 0.0, reward).astype(np.float32)
        step["first"], step["last"] = first & ~idle, self._ended & ~idle
        step["terminal"] = terminal & ~idle
        step["valid"] = ~idle if fault is None else ~idle & (fault == "")
        step["time"] = np.asarray(info.get("time", self._steps * self._tick), np.float64)
        step |= {k: v for k, v in info.items() if k == "physics" or k.startswith("label/")}
        if "success" in info:
            step["label/success"] = np.asarray(info["success"], bool)
        self.finished = self.finished + step["last"]
        return step

    def save(self) -> dict[str, np.ndarray]:
        """Returns everything the loop needs to go on from here, as flat plain arrays.

        Raises TypeError if the world has no `save`.
        """
        if self._step is None:
            return {}
        if not hasattr(self.env, "save"):
            raise TypeError(f"{self.env} cannot be saved; loops over a BatchEnv can")
        snapshot = self.env.save()
        return {
            "finished": self.finished,
            "ended": self._ended,
            "steps": self._steps,
            "seeds": self.seeds,
            "fingerprint": np.frombuffer(snapshot.fingerprint.encode(), np.uint8),
            **{f"env/{k}": v for k, v in snapshot.arrays.items()},
            **{f"step/{k}": v for k, v in self._step.items()},
            **{f"carry/{k}": v for k, v in self._carry.items()},
        }

    def load(self, saved: dict[str, np.ndarray]) -> None:
        """Goes on where `save` was called; the next step is the one that would have followed."""
        if not saved:
            return
        part = {
            p: {k[len(p) :]: v for k, v in saved.items() if k.startswith(p)}
            for p in ("env/", "step/", "carry/")
        }
        kind = type(self.env.save())
        self.env.load(kind(saved["fingerprint"].tobytes().decode(), part["env/"]))
        self._step, self._carry = part["step/"], part["carry/"]
        self.finished, self._ended = saved["finished"], saved["ended"]
        self._steps, self.seeds = saved["steps"], saved["seeds"]


def _row_seeds(seed, n: int) -> np.ndarray:
    if seed is None:
        return np.random.SeedSequence().generate_state(n).astype(np.int64)
    seeds = np.asarray(seed, np.int64)
    seeds = seeds + np.arange(n) if seeds.ndim == 0 else seeds
    if seeds.shape != (n,) or (seeds < 0).any():
        raise ValueError(f"seed is an int >= 0 or {n} of them, one per row; got {seed!r}")
    return seeds
