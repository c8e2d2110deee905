"""Senses: what audio, touch, language and the other senses add to a step of PickPlace.

Rows are stepped by turns of actions at random and of the scripted expert, so that things are met,
held and dropped. Times are CPU times of the process on one thread, medians over rounds in which
each world has its turn, so that a busy machine troubles all alike. Takes about two minutes.

    python benchmarks/senses.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from record import record
from umwelten.envs.env import BatchEnv

CASES = {
    "none": (),
    "audio_touch_language": ("audio", "touch"),
    "audio": ("audio",),
    "touch": ("touch",),
    "imu": ("imu",),
    "wrench": ("wrench",),
    "contacts": ("contacts",),
    "joints_pose": ("joints", "pose"),
    "lidar": ("lidar",),
    "points": ("points/front",),
}


def silent_words(env: BatchEnv) -> None:
    """Takes the instruction out of a world: what is left has no language to pay for."""
    env._has_words = False


def round_of(env: BatchEnv, actions: np.ndarray) -> float:
    """Returns the mean CPU seconds of a step, the expert's own time left out."""
    env.reset(seed=0)
    total = 0.0
    for t, action in enumerate(actions):
        action = env.expert() if t % 40 < 30 else action
        start = time.process_time()
        env.step(action)
        total += time.process_time() - start
    return total / len(actions)


def measure(n: int, steps: int, rounds: int) -> dict:
    """Returns milliseconds a step of n rows, and what each case adds to that without senses."""
    worlds = {k: BatchEnv("PickPlace", n, nthread=1, senses=s) for k, s in CASES.items()}
    silent_words(worlds["none"])
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, n, 4)).astype(np.float32)
    for world in worlds.values():
        round_of(world, actions[:2])
    took: dict[str, list[float]] = {k: [] for k in worlds}
    for _ in range(rounds):
        for name, world in worlds.items():
            took[name].append(round_of(world, actions))
    plain = took["none"]
    return {
        "unit": "ms of CPU time a step of all rows, one thread",
        "task": "PickPlace",
        "rows": n,
        "steps": steps,
        "rounds": rounds,
        "ms": {k: 1e3 * statistics.median(v) for k, v in took.items()},
        "adds_percent": {
            k: 100 * (statistics.median(a / b for a, b in zip(v, plain, strict=True)) - 1)
            for k, v in took.items()
            if k != "none"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = measure(args.rows, args.steps, args.rounds)
    print(json.dumps(results, indent=1))
    print(record("senses", results))


if __name__ == "__main__":
    main()
