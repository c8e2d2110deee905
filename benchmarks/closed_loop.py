"""Closed loop: what agents do with a task after the same demonstrations or decisions.

Run: python benchmarks/closed_loop.py task=push [steps=7500] [demos=100] [agents=[bc,sac,tdmpc2]]

All on the same held-out seeds: chance; the script; BC, which clones `demos` of the script's
episodes (10,000 updates) and never acts; SAC of Stable-Baselines3, at its published defaults, after
`steps` decisions of its own, without demonstrations; TD-MPC2, size 1, from those demonstrations,
2500 decisions at random, 2500 updates on both, and one update for each decision that is left of
`steps`. Everything is by the verbs collect, train and score, in folders under runs/closed_loop, so
the same command goes on where it was stopped; the record is written after each agent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from record import RESULTS, record
from umwelten import build, checkpoint, config, score
from umwelten.collect import collect
from umwelten.train import train

ROWS = 20  # episodes at a time where an agent is scored
RANDOM = 2500  # decisions that TD-MPC2 takes at random
AGENTS = ("random", "expert", "bc", "sac", "tdmpc2")
PLANNER = ["planner.samples=256", "planner.iterations=4", "planner.elites=32"]  # as in the demo


def closed_loop(
    task: str,
    steps: int = 7500,
    demos: int = 100,
    seed: int = 0,
    threads: int = 1,
    episodes: int = 100,
    updates: int = 10_000,
    agents: tuple = AGENTS,
    out: str = "",
) -> None:
    """Trains, scores and records the agents named.

    task: push, pick_place or another with a script
    steps: decisions of SAC and of TD-MPC2
    demos: episodes of the script
    seed: of the training; the script's episodes are those of 1000 * seed on
    threads: of torch
    episodes: of a score
    updates: of BC
    agents: which to run of random, expert, bc, sac, tdmpc2
    out: the folder for everything, default runs/closed_loop/<task>-<seed>
    """
    if odd := set(agents) - set(AGENTS):
        raise config.ConfigError(f"no agent {min(odd)!r}; there are {', '.join(AGENTS)}")
    torch.set_num_threads(threads)
    folder = Path(out or f"runs/closed_loop/{task}-{seed}")
    expert = folder / f"expert-{demos}"
    if {"bc", "tdmpc2"} & {*agents}:
        collect(task, episodes=demos, out=str(expert), seed=1000 * seed, video=0)
    own = {
        "bc": [f"sources=[{expert}]", f"steps={updates}", "evaluate_every=0"],
        "sac": [f"steps={steps}", "evaluate_every=0"],
        "tdmpc2": [f"sources=[{expert}]", f"steps={steps}", f"seed_steps={RANDOM}", *PLANNER,
                   "n=5", f"pretrain={RANDOM}", "model.size=1", "evaluate_every=0"],
    }  # fmt: skip
    for agent in agents:
        run, told = folder / agent, [f"seed={seed}", f"threads={threads}", "device=cpu"]
        if agent in own:
            words = [f"task={task}", f"agent={agent}", *told, *own[agent], f"out={run}"]
            if train(**config.compose(train, words)):
                raise SystemExit(1)
        row = scored(task, agent, run if agent in own else None, episodes, folder / "scores")
        used = demos if agent in ("bc", "tdmpc2") else 0
        keep(task, seed, {agent: row | {"demos": used}})
        low, high = row["success_interval"]
        print(f"{task} {agent}: success {row['success']} ({low:.2f} to {high:.2f})", flush=True)


def scored(task: str, agent: str, run: Path | None, episodes: int, scores: Path) -> dict:
    """Returns an agent's score over the held-out seeds, of the newest checkpoint of its run."""
    took, rows = {"env_steps": 0, "updates": 0}, score.rows_for(episodes, ROWS)
    if run:
        state = checkpoint.load(checkpoint.latest(run / "checkpoints"))[2]
        took = {k: state["progress"][k] for k in took}
    path = scores / f"{agent}-{took['env_steps']}-{took['updates']}-{episodes}.json"
    if not path.exists():
        policy = "mppi" if agent == "tdmpc2" else agent
        told = build.world_of(run or "")
        env = build.make_env(task, rows, **told)
        actor = build.make_policy(policy, env, str(run or ""))
        found = score.judge(env, actor, episodes).summary()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return {**json.loads(path.read_text()), **took}


def keep(task: str, seed: int, rows: dict[str, dict]) -> None:
    """Records the rows beside those of other agents that are recorded already."""
    name = f"closed_loop_{task}" + (f"_{seed}" if seed else "")
    path, before = RESULTS / f"{name}.json", {}
    if path.exists():
        before = json.loads(path.read_text())["results"]["agents"]
    found = before | rows
    told = {"task": task, "seed": seed, "size": 1}
    record(name, told | {"agents": {a: found[a] for a in AGENTS if a in found}})


if __name__ == "__main__":
    closed_loop(**config.compose(closed_loop, sys.argv[1:]))
