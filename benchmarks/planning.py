"""Time of a decision: how it grows with rows, candidates and horizon, and what a deadline leaves.

    python benchmarks/planning.py
    python benchmarks/planning.py --rows 1 --samples 64 --horizons 3 --rounds 3 --device cpu

Every planner plans through TD-MPC2 (untrained: time does not depend on what is learned) and, but
for the one that needs gradients, through the simulator of Reach. One number is varied at a time
around the first of each list; all candidates are counted alike, one iteration each, so that times
compare. Then MPPI at its published size is given deadlines. The first decision of each case, which
compiles kernels and fills caches, is not counted.
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
import torch

from record import record
from umwelten.agents.planners import CEM, ICEM, MPPI, Gradient, RandomShooting
from umwelten.agents.policy import Timed
from umwelten.envs.env import BatchEnv
from umwelten.world_models.simulator import SimulatorModel
from umwelten.world_models.tdmpc2 import TDMPC2

OBSERVED, NU, TASK = 24, 6, "Reach"
PLANNERS = {p.__name__: p for p in (MPPI, CEM, ICEM, RandomShooting, Gradient)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--samples", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--horizons", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--deadlines", type=float, nargs="+", default=[20.0, 50.0, 100.0])
    parser.add_argument("--rounds", type=int, default=20, help="decisions of each case")
    parser.add_argument("--size", type=int, default=1, help="of TD-MPC2, millions of parameters")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--name", default="planning", help="of the file in results/")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    learned, truth = worlds(given.size, given.device, given.threads)
    results = {"threads": given.threads, "device": given.device, "size": given.size}
    results["scaling"] = [
        show(
            {"model": told, "planner": name, "n": n, "k": k, "h": h}
            | spent(planner, step, n, given)
        )
        for told, model, step in (("tdmpc2", *learned), (f"simulator {TASK}", *truth))
        for name, kind in PLANNERS.items()
        if kind is not Gradient or model.differentiable
        for n, k, h in sizes(given)
        for planner in [build(kind, model, k, h)]
    ]
    model, step = learned
    results["deadlines"] = [
        show({"deadline_ms": ms, "n": n} | spent(MPPI(model, deadline_ms=ms), step, n, given))
        for ms in given.deadlines
        for n in given.rows
    ]
    print(record(given.name, results))


def sizes(given: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Returns (n, k, h): the first of each list, then each list run through."""
    n, k, h = given.rows[0], given.samples[0], given.horizons[0]
    varied = [(x, k, h) for x in given.rows]
    varied += [(n, x, h) for x in given.samples] + [(n, k, x) for x in given.horizons]
    return list(dict.fromkeys(varied))


def build(kind: type, model, samples: int, horizon: int):
    """Returns a planner of one iteration over so many candidates."""
    size = {"horizon": horizon, "samples": samples, "iterations": 1}
    if kind not in (RandomShooting, Gradient):
        size["elites"] = max(1, samples // 16)
    if kind in (MPPI, Gradient):
        size["proposals"] = 0
    return kind(model, **size)


def worlds(size: int, device: str, threads: int):
    """Returns TD-MPC2 and the simulator, each with what makes a step for n rows."""
    box = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVED,), np.float32)
    model = TDMPC2(gymnasium.spaces.Dict(proprio=box), NU, size, device=device)
    mind = BatchEnv(TASK, 256, max_episode_steps=-1, nthread=threads)
    mind.reset(seed=0)
    physics, seen = mind.physics(), np.random.default_rng(0).normal(size=(256, OBSERVED))
    learned = model, lambda n: {"proprio": seen[:n].astype(np.float32)}
    return learned, (SimulatorModel(mind), lambda n: {"physics": physics[:n]})


def spent(planner, step, n: int, given: argparse.Namespace) -> dict:
    """Returns the latency of decisions for n rows (see Timed), after one that does not count."""
    timed, carry = Timed(planner), planner.start(np.arange(n))
    seen = step(n) | {"first": np.zeros(n, bool)}
    _, carry = planner.act(seen, carry)
    for _ in range(given.rounds):
        _, carry = timed.act(seen, carry)
    return timed.latency()


def show(row: dict) -> dict:
    """Prints a row of the results, and returns it."""
    print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return row


if __name__ == "__main__":
    main()
