"""Trials: a model's trainings over seeds, and what each of them shows in worlds it has not seen.

It judges nothing: the gates do.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from .config import ConfigError
from .suites import SUITES, aspects

EPISODES = {
    "expert": 30,
    "disturbed": 60,
    "random": 60,
}  # to learn from, where the task has a script
UNSEEN = 20  # episodes of each behaviour that nothing is learnt from
APART = 2**20  # from the seeds that scores are of to those of the unseen episodes
SCRIPTED = {"offline": True, "steps": 600, "evaluate_every": 0, "save_every": 200}
CLASSICAL = {"action_repeat": 2, "steps": 50_000, "evaluate_every": 12_500}  # two env steps each
SMALL = {"mppi": {"samples": 256, "iterations": 4, "elites": 32}}  # for what is SCRIPTED


def train(folder, name, task, seeds, control, given, threads, console) -> list[Path]:
    """Trains a model for each seed, by the path of `umwelten train`; returns the runs' folders."""
    from . import registry
    from .tiers import TRUTH
    from .train import bar, open_run, run_training

    if registry.find("world_models", name).name == TRUTH:
        raise ConfigError(f"{name} is the simulator itself: there is nothing to learn")
    folders = []
    for seed in range(seeds):
        told = _config(folder, name, task, seed, control, given, console)
        folders.append(folder / f"seed-{seed}")
        if _done(folders[-1], told):
            continue
        with open_run(folders[-1], told) as run:
            console.print(f"training {name} on {task}, seed {seed}", markup=False)
            with bar(console, told["steps"], told["offline"]) as watch:
                run_training(run, told, threads, watch)
    return folders


def _done(run: Path, told: dict) -> bool:
    """Whether a run of this config has taken all its steps."""
    from . import checkpoint, config
    from .train import FREE, differing

    newest = checkpoint.latest(run / "checkpoints")
    if newest is None or {*differing(config.load(run / "config.yaml"), told)} - {*FREE}:
        return False
    progress = checkpoint.load(newest)[2]["progress"]
    return progress["updates" if told["offline"] else "env_steps"] >= told["steps"]


def _config(folder, name, task, seed, control, given, console) -> dict:
    """Returns what a training is told: as the authors did, or from the script's episodes."""
    import inspect

    from . import config, published, registry, train

    agents = config.recipes()["agent"]
    load = {a: config.load(config.RECIPES / "agent" / f"{a}.yaml") for a in agents}
    fitting = [a for a in agents if load[a].get("model", {}).get("name") == name]
    agent = fitting[0] if fitting else "tdmpc2"
    told = config.compose(train.train, [f"agent={agent}", f"task={task}", f"seed={seed}"])
    scripted = published.curve(name, task) is None and _scripted(task)
    own = {"name": name}
    if "size" in inspect.signature(registry.load("world_models", name)).parameters:
        own["size"] = 1
    told["model"] = {**told["model"], **own, **given["model"]}
    small = SMALL.get(told["planner"].get("name"), {}) if scripted else {}
    told["planner"] = {**told["planner"], **small, **given["planner"]}
    told |= SCRIPTED if scripted else CLASSICAL
    told |= {"device": given["device"], "learner": {}, "world": {}}
    told["steps"] = given["steps"] if given["steps"] >= 0 else told["steps"]
    if control == "untrained":
        told |= {"steps": 0, "seed_steps": 0, "pretrain": 0, "evaluate_every": 0}
    if scripted:
        told["sources"] = [str(s) for s in _sources(folder, task, control, console)]
    elif control not in ("", "untrained"):
        raise ConfigError(f"{control} is planted in a script's episodes; {task} has none to use")
    return {k: v for k, v in told.items() if k not in ("out", "threads")}


def _scripted(task: str) -> bool:
    from . import build

    env = build.make_env(task, 1)
    env.reset(seed=0)
    return env.task.expert(env.sim) is not None


def _sources(folder: Path, task: str, control: str, console) -> list[Path]:
    """Returns the folders of episodes to learn from, those of a control spoiled."""
    from .negative import plant

    sources = []
    for k, (behaviour, count) in enumerate(EPISODES.items()):
        sources.append(folder / "episodes" / behaviour)
        with console.status(f"collecting episodes ({behaviour})"):
            _collect(sources[-1], task, behaviour, count, 1000 * k, "", {})
    if control in ("", "untrained"):
        return sources
    return [plant(control, sources, folder / "episodes" / control)]


def _collect(path, task, behaviour, count, seed, run, options) -> Path:
    """Records episodes of a behaviour into a folder, those that are there already included."""
    from . import build
    from .episodes import Episodes, Recorder
    from .rollout import rollout

    have = len(Episodes(path)) if path.exists() else 0
    if have < count:
        env = build.make_env(task, count - have, **options)
        policy = _behaviour(behaviour, env, run)
        with Recorder(path, {"task": task}) as recorder:
            for step in rollout(env, policy, seed + have, episodes_per_row=1):
                recorder.add(step)
    return path


def _behaviour(name: str, env, run: str):
    """Returns the policy `random`, `expert`, or `disturbed`: the expert's or the run's prior."""
    from . import build
    from .agents.policy import Disturbed

    if name != "disturbed":
        return build.make_policy(name, env)
    inner = build.make_policy("prior" if run else "expert", env, run)
    return Disturbed(inner, env.single_action_space.shape[0])


# ---- examining


def examine_all(
    folder, runs: list[Path], code: str, suite: str, episodes, device, threads, console
) -> dict:
    """Returns a dict: what each of the `runs` shows, and of `anchors`, random and the script.

    What was found of a run is kept in `folder`, and found anew where its checkpoint or the code is
    another. A suite without worlds has no anchors and no scores.
    """
    import torch

    from . import build, checkpoint
    from .envs.sim import cpus
    from .score import judge, rows_for

    torch.set_num_threads(threads or cpus())
    told = build.world_of(runs[0])
    task = build.config_of(runs[0])["task"]
    env = build.make_env(task, rows_for(episodes, 20), **told)
    anchors, wide = {}, SUITES[suite]
    for behaviour in ("random", *["expert"] * _scripted(task)) if wide.worlds else ():
        with console.status(f"scoring {behaviour}"):
            anchors[behaviour] = judge(env, build.make_policy(behaviour, env), episodes).summary()
    found = []
    for run in runs:
        newest = checkpoint.latest(run / "checkpoints")
        if newest is None:
            raise ConfigError(f"{run} has no whole checkpoint yet; go on training it")
        key = {"checkpoint": newest.name, "code": code, "device": device}
        key |= {"episodes": episodes, "suite": suite}
        path = folder / "found" / f"{run.name}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("key") != key:
            with console.status(f"examining {run.name}"):
                shown, findings = examine(folder, run, env, device)
                if wide.worlds:
                    shown["score"], finding = _acted(run, env, anchors, episodes, device)
                    findings.append(finding)
            findings += _probed(folder, run, device) if wide.probed else []
            kept = {"key": key, "shown": shown | {"findings": [asdict(f) for f in findings]}}
            write(path, kept)
        found.append(kept["shown"])
    return {"runs": found, "anchors": anchors}


def examine(folder: Path, run: Path, env, device: str) -> tuple[dict, list]:
    """Returns what a run was and what its model shows on recorded episodes, a Finding a gate."""
    import numpy as np

    from . import build, checkpoint, gates
    from .episodes import Episodes
    from .run import Run

    model, told = build.restore(run, env, device)
    tensors, _, state = checkpoint.load(checkpoint.latest(run / "checkpoints"))

    def make():
        return build.make_model(told["model"], env, device=device, seed=told["seed"])

    try:
        with Run(run) as opened:
            metrics = opened.metrics()
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    own = run / "episodes"
    data = Episodes(_unseen(folder, run, told))
    if not data.count(needs := gates.CONTEXT + gates.AHEAD + 1):
        raise ConfigError(f"{run} has episodes of fewer than the {needs} steps that gates look at")
    batch = gates.sample(model, data, np.random.default_rng(1))
    seen = gates.rewards(model, data)
    losses = [gates.held_out_loss(make, part, data) for part in (None, tensors)]
    with TemporaryDirectory() as place:
        sound = gates.parity(make, model, batch, Path(place))
    findings = [
        gates.finite(metrics, tensors, Episodes(own, ("action",)) if own.exists() else None),
        sound,
        gates.loss_floor(*losses),
        gates.reward_accuracy(seen),
        gates.alignment(seen),
    ]
    progress = state["progress"]
    return {
        "run": run.name, "seed": told["seed"], "updates": progress["updates"],
        "env_steps": progress["env_steps"] * told["action_repeat"], "config": told["model"],
        "planner": told["planner"], "keys": [*model.keys], "fingerprint": _fingerprint(model, told),
        "revision": _revision(run),
        **{name: [[m["env_steps"] * told["action_repeat"], m["return"]]
                  for m in metrics if m["kind"] == kind]
           for name, kind in (("curve", "score"), ("collected", "episode"))},
    }, findings  # fmt: skip


def _acted(run: Path, env, anchors: dict, episodes: int, device: str) -> tuple:
    """Returns the score of a run in worlds, and the gate that it is held to."""
    from . import build, gates
    from .score import judge

    planner = build.config_of(run)["planner"].get("name", "mppi")
    score = judge(env, build.make_policy(planner, env, str(run), device), episodes).summary()
    return score, gates.beats_random(score, anchors["random"], anchors.get("expert"))


def _probed(folder: Path, run: Path, device: str) -> list:
    """Returns the gates of what the probe finds on the unseen episodes; it draws and writes."""
    from .build import config_of
    from .probe import probe

    out = folder / "probe" / run.name
    sources = tuple(map(str, _unseen(folder, run, config_of(run))))
    probe(run=str(run), sources=sources, device=device, out=str(out))
    return aspects(json.loads((out / "probe.json").read_text()))


def _unseen(folder: Path, run: Path, told: dict) -> list[Path]:
    """Records episodes at seeds of their own: random ones, and those of who acts, disturbed.

    Who acts is the task's script, or the run's own prior where there is none.
    """
    from . import build
    from .score import HELD_OUT

    model = "" if _scripted(told["task"]) else str(run)
    paths = []
    for k, behaviour in enumerate(("random", "disturbed")):
        of = f"-{run.name}" if model and behaviour == "disturbed" else ""
        place, seed = folder / "unseen" / (behaviour + of), HELD_OUT + (k + 1) * APART
        options = build.world_of(run)
        paths.append(_collect(place, told["task"], behaviour, UNSEEN, seed, model, options))
    return paths


def _fingerprint(model, told: dict) -> str:
    """Returns a sha256 of what the model was built from and of what it takes and tells."""
    parts = [told["model"], model.io_contract().fingerprint]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _revision(run: Path) -> str:
    """Returns the revision that the training was last started with."""
    path = run / "environment.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["revision"] if lines else ""


def write(path: Path, content: dict) -> Path:
    """Writes JSON; the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)
    return path
