"""Stable-Baselines3 over our batch and over its own vector envs of our Env; and what SAC learns.

Collection: decisions a second of PPO and SAC while they act and store, not while they learn. The
sides take turns in one run, round after round. Learning: SAC on Reach at a small budget, beside
the expert and chance on the same held-out seeds.

Run: python benchmarks/sb3.py [--seconds 2] [--steps 20000]
On a task with published returns: umwelten train task=cartpole_swingup agent=sac action_repeat=2
steps=50000 (100k control steps, where about 835 is published).
"""

from __future__ import annotations

import argparse
import statistics
import time

import gymnasium
import stable_baselines3 as sb3
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import umwelten  # noqa: F401 (registers)
from record import record
from umwelten import build, score
from umwelten.agents.sb3 import BatchVecEnv
from umwelten.envs.env import BatchEnv

TASK, ROUNDS = "Reach", 5


def one():
    """Returns our Env of one row as `gymnasium.make` gives it, its text left out."""
    env = gymnasium.make(f"umwelten/{TASK}-v0")
    return gymnasium.wrappers.FilterObservation(env, ["objects", "proprio"])


SIDES = {
    "ours": lambda n: BatchVecEnv(BatchEnv(TASK, n, autoreset_mode=AutoresetMode.SAME_STEP)),
    "dummy": lambda n: DummyVecEnv([one] * n),
    "subproc": lambda n: SubprocVecEnv([one] * n),
}


def collector(algorithm, venv):
    """Returns a learner that has begun and, in its rounds, never learns."""
    if algorithm is sb3.PPO:
        return sb3.PPO("MultiInputPolicy", venv, n_steps=10_240, seed=0, device="cpu")
    forever = 10**12
    size = {"buffer_size": 100_000, "learning_starts": 0, "train_freq": forever}
    return sb3.SAC("MultiInputPolicy", venv, seed=0, device="cpu", **size)


def pace(learner, seconds: float) -> float:
    """Returns the decisions a second, of all rows together, that a learner collects."""
    began, before = time.perf_counter(), learner.num_timesteps

    def watch(*_) -> bool:
        return time.perf_counter() - began < seconds

    learner.learn(10**9, watch, log_interval=None, reset_num_timesteps=False)
    return (learner.num_timesteps - before) / (time.perf_counter() - began)


def collection(algorithm, n: int, seconds: float) -> dict:
    """Times the three sides in turns; a side's figure is the median of its rounds."""
    venvs = {name: make(n) for name, make in SIDES.items()}
    learners = {name: collector(algorithm, venv) for name, venv in venvs.items()}
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for learner in learners.values():
        pace(learner, seconds / 4)  # compiled, bound and warm
    for _ in range(ROUNDS):
        for name, learner in learners.items():
            rates[name].append(pace(learner, seconds / ROUNDS))
    for venv in venvs.values():
        venv.close()
    found = {name: round(statistics.median(rate)) for name, rate in rates.items()}
    spread = {name: [round(min(rate)), round(max(rate))] for name, rate in rates.items()}
    over = {f"ours_over_{k}": round(found["ours"] / found[k], 2) for k in ("dummy", "subproc")}
    row = {"algorithm": algorithm.__name__, "rows": n, "decisions_per_s": found, "range": spread}
    return row | over


def learning(steps: int, episodes: int = 100) -> dict:
    """Lets SAC, with its published defaults, learn Reach; scores it, the expert and chance."""
    env = build.make_env(TASK, 1, autoreset_mode=AutoresetMode.SAME_STEP)
    learner = build.make_learner({"name": "sac"}, env)
    began = time.perf_counter()
    learner.learn(steps, lambda *step: None, lambda: None)
    seconds = round(time.perf_counter() - began, 1)
    held_out = build.make_env(TASK, 20)
    policies = {name: build.make_policy(name, held_out) for name in ("expert", "random")}
    scores = {
        name: score.judge(held_out, policy, episodes).summary()
        for name, policy in ({"sac": learner} | policies).items()
    }
    return {"task": TASK, "steps": steps, "seconds": seconds, "scores": scores}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each side, in all rounds")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--steps", type=int, default=20_000, help="decisions that SAC learns for")
    parser.add_argument("--dry", action="store_true", help="write no record")
    told = parser.parse_args()
    cases = [(a, n) for n in told.rows for a in (sb3.PPO, sb3.SAC)]
    results = {"threads": torch.get_num_threads(), "collection": [], "learning": {}}
    for algorithm, n in cases:
        results["collection"].append(collection(algorithm, n, told.seconds))
        print(results["collection"][-1], flush=True)
    if told.steps:
        results["learning"] = learning(told.steps)
        print(results["learning"])
    if not told.dry:
        record("sb3", results)
