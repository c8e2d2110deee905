"""Score: what a policy achieves over fixed, held-out seeds, with intervals; it draws nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from .config import ConfigError
from .rollout import rollout

HELD_OUT = 2**31  # row seeds from here on are for scoring; training draws below
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Score:
    """Episodes of one policy: `success` (E,) bool at the last step, `returns` (E,)."""

    policy: str  # what acted, as the object that did calls itself
    success: np.ndarray
    returns: np.ndarray

    def summary(self) -> dict:
        """Returns means and 95 % intervals, plain numbers: Wilson's for success, Student's else."""
        return {
            "policy": self.policy,
            "episodes": len(self.returns),
            "success": float(self.success.mean()),
            "success_interval": wilson(int(self.success.sum()), len(self.success)),
            "return": float(self.returns.mean()),
            "return_interval": student(self.returns),
        }


def judge(
    env, policy, episodes: int, seed: int = 0, watch: Callable[[int, int], None] | None = None
) -> Score:
    """Scores a policy over the held-out seeds from HELD_OUT + seed on, env.num_envs at once.

    env: a BatchEnv in NEXT_STEP mode whose rows divide `episodes`. watch(round, step) hears of each
    step of all rows. An episode is a success if it ends in one.
    """
    n = env.num_envs
    if episodes % n:
        raise ValueError(f"{episodes} episodes cannot be shared by {n} rows; choose a multiple")
    success, returns = [], []
    rounds = episodes // n
    for k in range(rounds):
        total = np.zeros(n)
        seeds = HELD_OUT + seed + k * n + np.arange(n)
        for t, step in enumerate(rollout(env, policy, seeds, episodes_per_row=1)):
            total += step["reward"]
            ended = step["last"]
            success += step["label/success"][ended].tolist()
            returns += total[ended].tolist()
            if watch:
                watch(k, t)
    return Score(type(policy).__name__, np.array(success, bool), np.array(returns))


def judge_each(env, policy, episodes: int, seed: int = 0) -> dict[str, Score]:
    """Returns the score on each task of a world, by name, as `judge` gives with that task alone.

    env: a BatchEnv, or Several of as many rows each; policy: one that learnt all of these tasks.
    """
    if not hasattr(env, "sides"):
        return {type(env.task).__name__: judge(env, policy, episodes, seed)}
    there = [env.names[i] for i in env.ids]
    return {name: judge(env.alone(name), policy, episodes, seed) for name in there}


def numbers(scores: dict[str, Score]) -> dict:
    """Returns what a training logs: success and return over all tasks, and of each of several."""
    found = {name: score.summary() for name, score in scores.items()}
    first, *rest = found.values()
    out = {k: first[k] for k in ("policy", "episodes", "success", "return")}
    for key in ("success", "return") if rest else ():
        out[key] = sum(s[key] for s in found.values()) / len(found)
        out |= {f"{key}/{name}": s[key] for name, s in found.items()}
    return out


def rows_for(episodes: int, most: int) -> int:
    """Returns the greatest number of rows, at most `most`, that divides `episodes`.

    Raises ConfigError if either is below 1.
    """
    if episodes < 1 or most < 1:
        raise ConfigError(f"episodes={episodes} at n={most} a time; both are at least 1")
    return max(n for n in range(1, min(episodes, most) + 1) if episodes % n == 0)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion. Source: Wilson 1927, JASA 22, 209-212."""
    p, z2 = successes / n, _Z**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def student(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of a mean, with Student's distribution."""
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    half = _quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def _quantile(v: int) -> float:
    """Returns Student's 97.5 % quantile for v degrees of freedom, by halving the angle's range.

    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4 (the distribution, for whole v).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        sine, square = math.sin(angle), math.cos(angle) ** 2
        term = math.cos(angle) if v % 2 else 1.0
        total = 0.0 if v == 1 else term
        for k in range(2 + v % 2, v - 1, 2):
            term *= square * (k - 1) / k
            total += term
        inside = 2 / math.pi * (angle + sine * total) if v % 2 else sine * total
        low, high = (angle, high) if inside < 0.95 else (low, angle)
    return math.sqrt(v) * math.tan(low)


def table(summaries: list[dict]):
    """Returns a rich table of summaries: success and return with their intervals."""
    from rich.table import Table

    out = Table(box=None, pad_edge=False)
    several = len({s.get("task") for s in summaries}) > 1
    for title in ("task",) * several + ("policy", "episodes", "success", "95 %", "return", "95 %"):
        named = title in ("task", "policy")
        out.add_column(title, justify="left" if named else "right", no_wrap=named)
    for s in summaries:
        low, high = s["success_interval"]
        down, up = s["return_interval"]
        out.add_row(
            *([s["task"]] if several else []), s["policy"], str(s["episodes"]),
            f"{s['success']:.2f}", f"{low:.2f} - {high:.2f}", f"{s['return']:.1f}",
            f"{down:.1f} - {up:.1f}",
        )  # fmt: skip
    return out


def spent(rows: int, latency: dict) -> str:
    """Returns one line on what `Timed.latency` measured."""
    line = f"a decision for {rows} rows: p50 {latency['p50_ms']:.1f} ms, "
    line += f"p99 {latency['p99_ms']:.1f} ms"
    mean = latency["iterations"]
    return line if mean is None else f"{line}, {mean:.1f} iterations"


def score(
    task: str,
    policy: str = "expert",
    run: str = "",
    episodes: int = 20,
    n: int = 20,
    seed: int = 0,
    action_repeat: int = 1,
    device: str = "cpu",
    planner: dict | None = None,
    out: str = "",
    world: dict | None = None,
) -> None:
    """Scores a policy over fixed held-out seeds: success and return with 95 % intervals.

    task: what is asked, as `umwelten list tasks` says; of several, one+another
    policy: random, expert, mppi, cem, icem, gradient, random_shooting, or (of a run) prior, bc,
        ppo, sac, td3
    run: folder of a training whose model plans; without it planners plan through the simulator
    episodes: how many
    n: episodes at a time, at most
    seed: where in the held-out seeds to begin
    action_repeat: control steps that an action lasts; a run's own where one is given
    device: auto, cpu or cuda
    planner: the planner's keywords, such as planner.samples=256, planner.deadline_ms=50 or
        planner.limits.rate=0.2
    out: a JSON file for the result
    world: robot, control, split, senses, vary, reward: world.robot=panda world.split=test_colours

    umwelten score task=reach policy=expert
    umwelten score task=reach policy=mppi run=runs/demo/train
    umwelten score task=cartpole_balance+cup_catch policy=mppi run=runs/both
    """
    from rich.console import Console

    from . import build
    from .agents.policy import Timed

    rows = rows_for(episodes, n)
    simulated = not run and policy not in ("random", "expert")
    told = build.world_of(run, action_repeat, (), world)
    learnt = build.config_of(run)["task"] if run else task
    env = build.make_env(learnt if "+" in learnt else task, rows, physics=simulated, **told)
    summaries = []
    for name in task.split("+"):
        alone = build.alone(env, name)
        actor = build.make_policy(policy, alone, run, device, planner)
        timed = Timed(actor)
        summary = {"task": name, **judge(alone, timed, episodes, seed).summary(), "seed": seed}
        summary |= {"policy": type(actor).__name__, "rows": rows, "latency": timed.latency()}
        summaries.append(summary)
    if out:
        found = summaries[0] if len(summaries) == 1 else {"task": task, "tasks": summaries}
        Path(out).write_text(json.dumps(found, indent=1))
    latencies = (spent(rows, s["latency"]) for s in summaries)
    Console().print(table(summaries), *dict.fromkeys(latencies), sep="\n")
