"""Train: the verb; a task, an agent and a folder, and the run in it that a stranger can read."""

from __future__ import annotations

import json
from pathlib import Path


def train(
    task: str,
    agent: str = "tdmpc2",
    out: str = "",
    steps: int = 50_000,
    n: int = 1,
    action_repeat: int = 1,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    sources: tuple = (),
    offline: bool = False,
    ratio: float = 1.0,
    seed_steps: int = -1,
    pretrain: int = -1,
    evaluate_every: int = 10_000,
    episodes: int = 10,
    save_every: int = 5000,
    cameras: tuple = (),
    model: dict | None = None,
    planner: dict | None = None,
) -> None:
    """Trains an agent on a task, online (acting and learning) or offline from recorded episodes.

    The run's folder holds config, versions, metrics, checkpoints and episodes; the same command
    goes on where it stopped.

    task: what is asked, as `umwelten list tasks` says
    agent: a whole agent, as `umwelten list agents` says: a model, its planner and its prior
    out: the run's folder, default runs/<task>-<agent>-<seed>
    steps: decisions to take (offline: updates to do)
    n: rows that act at a time
    action_repeat: control steps that an action lasts; their rewards are summed
    seed: of everything drawn
    device: auto, cpu or cuda
    threads: of torch; 0 for all of this process's processors
    sources: folders of recorded episodes to learn from as well
    offline: learn from the sources alone
    ratio: updates for a decision
    seed_steps: decisions taken at random first, default five episodes and at least 1000
    pretrain: updates done at once after those, default as many
    evaluate_every: decisions (offline: updates) between two scores
    episodes: of a score
    save_every: updates between two checkpoints
    cameras: names of cameras the world shows
    model: the model's name and keywords, such as model.size=1
    planner: the planner's name and keywords, such as planner.samples=256

    umwelten train task=cartpole_swingup agent=tdmpc2 action_repeat=2
    umwelten train task=reach sources=[runs/reach-expert] offline=true model.size=1 steps=5000
    """
    from rich.console import Console

    told = {k: v for k, v in locals().items() if k not in ("Console", "out", "threads")}
    folder = Path(out or f"runs/{task}-{agent}-{seed}")
    told["model"], told["planner"] = dict(model or {}), dict(planner or {})
    console = Console()
    with _open(folder, told) as run:
        summary = run_training(run, told, threads, _bar(console, steps, offline))
        console.print(f"{summary['updates']} updates, {summary['env_steps']} decisions: {folder}")


def run_training(run, told: dict, threads: int = 0, watch=None) -> dict:
    """Trains as the config `told` says, in an open Run; returns where it stands at the end."""
    import torch

    from . import build, learn
    from .agents.policy import Warmup
    from .envs.sim import cpus

    torch.set_num_threads(threads or cpus())
    options = {"action_repeat": told["action_repeat"], "cameras": tuple(told["cameras"])}
    env = build.make_env(told["task"], told["n"], **options)
    model = build.make_model(told["model"], env, device=told["device"], seed=told["seed"])
    length = round(env.task.time_limit / env.task.control_dt / told["action_repeat"])
    warm = told["seed_steps"] if told["seed_steps"] >= 0 else max(1000, 5 * length)
    actor = build.make_planner(told["planner"], model, explore=True)
    if warm:
        actor = Warmup(actor, env.single_action_space.shape[0], -(-warm // told["n"]))
    progress = learn.train(
        model, run, sources=told["sources"], env=None if told["offline"] else env,
        policy=None if told["offline"] else actor, steps=told["steps"], ratio=told["ratio"],
        seed=told["seed"], seed_steps=warm,
        pretrain=told["pretrain"] if told["pretrain"] >= 0 else warm,
        save_every=told["save_every"], evaluate_every=told["evaluate_every"],
        evaluate=_scorer(told, model, options), watch=watch,
    )  # fmt: skip
    return {"updates": progress.updates, "env_steps": progress.env_steps}


def _scorer(told: dict, model, options: dict):
    from . import build
    from .score import judge, rows_for

    if not told["evaluate_every"]:
        return None
    env = build.make_env(told["task"], rows_for(told["episodes"], 10), **options)
    planner = build.make_planner(told["planner"], model)

    def evaluate(progress) -> dict:
        found = judge(env, planner, told["episodes"]).summary()
        return {k: found[k] for k in ("policy", "episodes", "success", "return")}

    return evaluate


def _open(folder: Path, told: dict):
    """Opens the run, new or with the same config; a file says with which versions it was made."""
    from . import config
    from .doctor import environment
    from .run import Run

    path = folder / "config.yaml"
    if path.exists():
        old = config.load(path)
        now = json.loads(json.dumps(told))
        other = [k for k in now if old.get(k) != now[k] and k not in ("steps", "device")]
        if other:
            raise config.ConfigError(
                f"{folder} was trained with another {', '.join(other)}; choose another out="
            )
    run = Run(folder)
    config.save(path, told)
    with (folder / "environment.jsonl").open("a") as file:  # a line for each time it was opened
        file.write(json.dumps(environment()) + "\n")
    return run


def _bar(console, steps: int, offline: bool):
    """Returns a watcher that keeps one line up to date."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("training"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    line = bar.add_task("", total=steps, at="")
    bar.start()

    def watch(progress, metrics: dict) -> None:
        done = progress.updates if offline else progress.env_steps
        at = f"{progress.env_steps} decisions, {progress.updates} updates"
        bar.update(line, completed=done, at=at)
        if done >= steps:
            bar.stop()

    return watch
