"""DreamerV3 on the Control Suite, from proprioception: our training returns beside the published.

Run: python benchmarks/dreamer_curve.py [task=cartpole_swingup] [key=value ...]
Keys are those of `umwelten train`; tasks are cartpole_balance, cartpole_swingup and walker_walk.
It goes on where it stopped, so steps= may be raised later.

The published numbers are returns of training episodes: what the stochastic policy got while it
collected. So are ours; nothing is evaluated apart. Size 1, action repeat 2 with rewards summed,
train ratio 512 (steps learnt from for each decision: half an update of 16 x 64), as in the paper's
table of settings; the authors' present recipe has action repeat 1 and ratio 1024. They collect
from 16 worlds at a time, this from one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from record import record
from umwelten import config
from umwelten.run import Run
from umwelten.train import train

REPEAT, BIN = 2, 10_000
# Least, mean and greatest return of 5 seeds after 10k, 20k, ... 100k env steps.
# Source: scores/dmc_proprio-dreamerv3.json.gz of github.com/danijar/dreamerv3.
PUBLISHED = {
    "cartpole_balance": [
        (264, 316, 382), (196, 227, 300), (294, 371, 467), (406, 486, 568), (369, 490, 554),
        (341, 579, 739), (609, 695, 758), (694, 749, 895), (691, 792, 836), (752, 840, 966),
    ],
    "cartpole_swingup": [
        (47, 63, 82), (137, 189, 213), (197, 261, 293), (226, 298, 355), (265, 322, 457),
        (318, 372, 440), (357, 453, 500), (346, 403, 471), (463, 504, 545), (502, 528, 599),
    ],
    "walker_walk": [
        (37, 43, 52), (54, 89, 125), (105, 134, 195), (143, 217, 348), (206, 289, 448),
        (245, 363, 442), (240, 388, 511), (181, 427, 591), (225, 481, 668), (298, 475, 714),
    ],
}  # fmt: skip


def main() -> None:
    """Trains, or goes on training, and records the returns so far."""
    asked = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith("task="))
    task = asked.get("task", "cartpole_swingup")
    given = [
        f"task={task}", "agent=dreamer", f"action_repeat={REPEAT}", "ratio=0.5", "steps=50000",
        "evaluate_every=0", "save_every=1000", f"out=runs/benchmark/dreamer_{task}", *sys.argv[1:],
    ]  # fmt: skip
    told = config.compose(train, given)
    train(**told)
    with Run(Path(told["out"])) as run:
        lines = run.metrics()
    ours = returns(lines)
    published = PUBLISHED.get(task, [])
    for i, row in enumerate(ours):
        if i < len(published):
            row["published"] = dict(zip(("least", "mean", "most"), published[i], strict=True))
        print(row)
    results = {
        "task": task, "seed": told["seed"], "size": told["model"].get("size", 1),
        "action_repeat": told["action_repeat"], "train_ratio": 1024 * told["ratio"],
        "updates": max(m["updates"] for m in lines), "training_returns": ours,
    }  # fmt: skip
    record(f"dreamer_{task}", results)


def returns(lines: list[dict]) -> list[dict]:
    """Returns the mean return of the training episodes that ended in each 10,000 env steps."""
    ended = [(REPEAT * m["env_steps"], m["return"]) for m in lines if m["kind"] == "episode"]
    bins: dict[int, list[float]] = {}
    for at, value in ended:
        bins.setdefault(-(-at // BIN), []).append(value)
    return [
        {"env_steps": BIN * i, "return": round(float(np.mean(v)), 1), "episodes": len(v)}
        for i, v in sorted(bins.items())
    ]


if __name__ == "__main__":
    main()
