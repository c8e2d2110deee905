"""Curves: what an agent earns on a Control Suite task as it learns, beside its authors' figures.

Run: python benchmarks/curves.py task=cup_catch [agent=tdmpc2] [key=value ...]
The keys are those of `umwelten train`; a record for each agent, task and seed. It goes on where it
stopped, so steps= may be raised later, and a finished run is only read.

Both agents act for two control steps, rewards summed, 500 decisions an episode. TD-MPC2: size 1,
2,500 decisions at random first, one update for a decision, ten evaluation episodes (the authors'
size is 5). DreamerV3: size 1, train ratio 512 (half an update of 16 x 64 for a decision), one world
at a time; its published returns are of the episodes it collects near a budget, and so are ours. The
authors' present recipe for states has action repeat 1, ratio 1024 and 16 worlds. SAC: as
Stable-Baselines3 has it by default; its published returns are those of TD-MPC2's authors, with
settings of theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from record import record
from umwelten import config, published
from umwelten.run import Run
from umwelten.train import train

REPEAT = 2
USUAL = {
    "tdmpc2": ["model.size=1", "steps=12500", "evaluate_every=12500"],
    "sac": ["steps=50000", "evaluate_every=12500"],
    "dreamer": ["model.size=1", "steps=15000", "evaluate_every=0", "ratio=0.5", "save_every=1000"],
}


def main() -> None:
    """Trains, or goes on training, and records the returns so far."""
    told = config.compose(train, ["action_repeat=2", "device=auto", *sys.argv[1:]])
    agent = told["agent"]
    if agent not in USUAL:
        raise SystemExit(f"no published curve of agent={agent}; there are {', '.join(USUAL)}")
    given = ["action_repeat=2", "device=auto", *USUAL[agent], *sys.argv[1:]]
    told = config.compose(train, given)
    name = f"curve_{agent}_{told['task']}_{told['seed']}"
    told["out"] = told["out"] or f"runs/benchmark/{name}"
    if train(**told):
        raise SystemExit(1)
    with Run(Path(told["out"])) as run:
        lines = run.metrics()
    results = {k: told[k] for k in ("agent", "task", "seed", "ratio")}
    model = told["model"] or {}  # a learner with a loop of its own has none
    results |= {"size": model.get("size"), "updates": max(m["updates"] for m in lines)}
    against = published.curve(model.get("name", agent), told["task"])
    budgets = against["steps"] if against else []
    results |= {"scores": scores(lines), "collected": collected(lines, budgets)}
    ours = results["scores"] or results["collected"]
    if against and ours:
        last = ours[-1]
        results["published"] = published.compare(against, last["env_steps"], last["return"])
    record(name, results)
    for row in ours:
        print(row)
    print(results.get("published", "nothing published on this task"))


def scores(lines: list[dict]) -> list[dict]:
    """Returns the evaluations: mean return of episodes on held-out seeds."""
    return [
        {"env_steps": REPEAT * m["env_steps"], "return": round(m["return"], 1)}
        | {k: m[k] for k in ("updates", "episodes")}
        for m in lines
        if m["kind"] == "score"
    ]


def collected(lines: list[dict], budgets: list[int]) -> list[dict]:
    """Returns the mean return of the training episodes that ended within 5 % of each budget.

    The published figures are made so, at the same budgets.
    """
    ended = [(REPEAT * m["env_steps"], m["return"]) for m in lines if m["kind"] == "episode"]
    last, rows = max((at for at, _ in ended), default=0), []
    for budget in (b for b in budgets if 0 < b <= last):
        near = [x for at, x in ended if abs(at - budget) <= published.NEAR * budget]
        if near:
            mean = round(float(np.mean(near)), 1)
            rows.append({"env_steps": budget, "return": mean, "episodes": len(near)})
    return rows


if __name__ == "__main__":
    main()
