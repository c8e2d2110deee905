"""TD-MPC2 on the Control Suite's cartpole swing-up: our return beside the published one.

Run: python benchmarks/cartpole_swingup.py [key=value ...]   (keys of `umwelten train`)
The classical setting: action repeat 2, rewards summed, 500 decisions an episode, 2,500 decisions
at random first, one update for a decision, ten evaluation episodes. It goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from record import record
from umwelten import config
from umwelten.run import Run
from umwelten.train import train

OUT = Path("runs/benchmark/cartpole_swingup")
# Source: results/tdmpc2/cartpole-swingup.csv of the authors' repository, size 5, seeds 1 to 3.
OFFICIAL = {"env_steps": 100_000, "size": 5, "mean": 839.4, "seeds": [860, 790, 868]}


def main() -> None:
    """Trains, or goes on training, and records the scores so far."""
    given = ["model.size=1", "steps=25000", "evaluate_every=12500", "device=auto", *sys.argv[1:]]
    told = config.compose(
        train, ["task=cartpole_swingup", "agent=tdmpc2", "action_repeat=2", f"out={OUT}", *given]
    )
    train(**told)
    with Run(told["out"]) as run:
        lines = run.metrics()
    scores = [
        {
            "env_steps": 2 * m["env_steps"],
            "updates": m["updates"],
            "return": round(m["return"], 1),
            "episodes": m["episodes"],
        }
        for m in lines
        if m["kind"] == "score"
    ]
    training = [
        {"env_steps": 2 * m["env_steps"], "return": round(m["return"], 1)}
        for m in lines
        if m["kind"] == "episode"
    ]
    results = {"size": told["model"]["size"], "seed": told["seed"], "scores": scores}
    results |= {"episodes_while_exploring": training, "official": OFFICIAL}
    for score in scores:
        print(score)
    record("cartpole_swingup", results)


if __name__ == "__main__":
    main()
