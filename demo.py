"""Demo: the whole loop on Reach, world to episodes to TD-MPC2 to MPPI and back, with a report."""

from __future__ import annotations

import json
import time
from pathlib import Path

EPISODES = 40  # of the expert, to begin with
HELD_OUT = 20  # episodes that every policy is scored on
TRUTH = {"horizon": 4, "iterations": 3, "samples": 50, "proposals": 0, "elites": 8}  # 600 env steps
ACTORS = {  # name in the report: policy, whether it is the trained run's
    "random": ("random", False),
    "expert": ("expert", False),
    "MPPI through the simulator": ("mppi", False),
    "policy prior alone": ("prior", True),
    "MPPI through the learned model": ("mppi", True),
}


def demo(out: str = "runs/demo", threads: int = 0) -> None:
    """Runs the whole loop on Reach: expert episodes, TD-MPC2, MPPI, scores, a report. Resumes.

    out: the folder for everything
    threads: of torch; 0 for all of this process's processors

    umwelten demo
    umwelten demo out=runs/second
    """
    from rich.console import Console

    from . import train

    folder, console, began = Path(out), Console(), time.monotonic()
    told = _training(folder)
    console.rule("1. The expert's episodes")
    _collect(folder, console)
    console.rule("2. TD-MPC2 learns from them, then online")
    steps = told["steps"]
    with train.open_run(folder / "train", told) as run, train.bar(console, steps, False) as watch:
        done = train.run_training(run, told, threads, watch)
        metrics = run.metrics()
    console.rule(f"3. Scores over {HELD_OUT} held-out seeds")
    scores = _scores(folder, console)
    console.rule("4. Report")
    report(folder, scores, metrics, told | done)
    console.print((folder / "report.md").read_text(), markup=False, highlight=False)
    console.print(f"{time.monotonic() - began:.0f} s; report: {folder / 'report.md'}")


def _training(folder: Path) -> dict:
    """Returns the training's config: the recipe `experiment=demo` over the verb's defaults."""
    from . import config, train

    told = config.compose(train.train, ["experiment=demo"])
    told |= {"sources": [str(folder / "expert")]}
    return {k: v for k, v in told.items() if k not in ("out", "threads")}


def _collect(folder: Path, console) -> None:
    from . import build
    from .agents.policy import Expert
    from .collect import film
    from .episodes import Episodes, Recorder
    from .rollout import rollout

    path = folder / "expert"
    if not (folder / "expert.mp4").exists():
        with console.status("filming the expert (the first time, the ray kernels are compiled)"):
            film("reach", "expert", folder / "expert.mp4", "", episodes=3, seed=0)
    console.print(f"video: {folder / 'expert.mp4'}")
    have = len(Episodes(path)) if path.exists() else 0
    if have < EPISODES:
        env = build.make_env("reach", EPISODES - have)
        with console.status("collecting"), Recorder(path, {"task": "reach"}) as recorder:
            for step in rollout(env, Expert(env), seed=have, episodes_per_row=1):
                recorder.add(step)
    found = Episodes(path).stats()
    console.print(
        f"{found['episodes']} episodes, {found['steps']} steps, return {found['return']:.1f}"
    )


def _scores(folder: Path, console) -> dict[str, dict]:
    from . import build
    from .score import judge, table

    scores: dict[str, dict] = {}
    for name, (policy, trained) in ACTORS.items():
        path = folder / "scores" / f"{name.replace(' ', '-')}.json"
        if not path.exists():
            plans = policy == "mppi" and not trained
            env = build.make_env("reach", HELD_OUT, physics=plans)
            run = str(folder / "train") if trained else ""
            actor = build.make_policy(policy, env, run, planner=TRUTH if plans else None)
            path.parent.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            with console.status(name) as status:

                def watch(_, t, name=name, status=status):
                    status.update(f"{name}: step {t} of 50")

                summary = judge(env, actor, HELD_OUT, watch=watch).summary()
            summary = {"name": name, **summary, "seconds": round(time.monotonic() - began, 1)}
            part = path.with_suffix(".part")
            part.write_text(json.dumps(summary, indent=1))
            part.replace(path)
        scores[name] = json.loads(path.read_text())
    console.print(table([s | {"policy": s["name"]} for s in scores.values()]))
    return scores


def report(folder: Path, scores: dict[str, dict], metrics: list[dict], told: dict) -> Path:
    """Writes `curve.png`, `learned.mp4`, `learned.png` and `report.md` from what was measured.

    told: the training's config, and how many `updates` it took.
    """
    from .collect import film
    from .doctor import environment

    _curve(folder / "curve.png", scores, metrics)
    if not (folder / "learned.mp4").exists():
        film("reach", "mppi", folder / "learned.mp4", str(folder / "train"), 3, seed=2**31)
    _strip(folder / "learned.mp4", folder / "learned.png")
    rows = [
        f"| {name} | {s['success']:.2f} | {_span(s['success_interval'], 2)} | {s['return']:.1f} | "
        f"{_span(s['return_interval'], 1)} | {s['seconds']} |"
        for name, s in scores.items()
    ]
    learned, expert = (scores[n] for n in ("MPPI through the learned model", "expert"))
    share = learned["success"] / max(expert["success"], 1e-9)
    apart = learned["success_interval"][0] > scores["random"]["success_interval"][1]
    where = environment()
    lines = [
        "# Reach: the whole loop",
        "",
        f"Every policy on the same {HELD_OUT} held-out seeds; 95 % intervals (Wilson, Student).",
        "",
        "| policy | success | 95 % | return | 95 % | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"MPPI through the learned model succeeds {share:.2f} times as often as the expert and its "
        f"interval is {'above' if apart else 'NOT above'} random's.",
        "",
        "![learning curve](curve.png)",
        "",
        "![an episode of the learned model's planner](learned.png)",
        "",
        f"Training: {EPISODES} expert episodes and {told['seed_steps']} random decisions, "
        f"{told['pretrain']} updates on them, then {told['steps'] - told['seed_steps']} own "
        f"decisions; {told['updates']} updates in all. "
        "Videos: `expert.mp4`, `learned.mp4`.",
        "",
        f"Machine: {where['machine']['cpu']}, {where['machine']['cores']} cores; revision "
        f"{where['revision']}.",
        "",
    ]
    path = folder / "report.md"
    path.write_text("\n".join(lines))
    return path


def _strip(video: Path, picture: Path) -> None:
    """Writes four moments of a video's first episode, side by side, as a PNG."""
    import imageio
    import numpy as np

    with imageio.get_reader(video) as reader:
        frames = [reader.get_data(i) for i in (0, 2, 4, 8)]
    imageio.imwrite(picture, np.concatenate([frame[::2, ::2] for frame in frames], 1))


def _span(interval: list[float], digits: int) -> str:
    return " - ".join(f"{x:.{digits}f}" for x in interval)


def _curve(path: Path, scores: dict[str, dict], metrics: list[dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for kind, label, style in (("episode", "while exploring", "."), ("score", "scored", "o-")):
        points = [(m["env_steps"], m["return"]) for m in metrics if m["kind"] == kind]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    for name, colour in (("expert", "C2"), ("random", "C3")):
        axes.axhline(scores[name]["return"], color=colour, ls="--", label=name)
    axes.set(
        xlabel="decisions (the first ones at random)", ylabel="return of an episode", ylim=(0, 50)
    )
    axes.set_title(f"TD-MPC2 on Reach, with {EPISODES} expert episodes")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
