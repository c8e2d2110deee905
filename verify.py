"""Verify: the verb; trains a model over seeds, or takes runs, and holds it to the gates.

Every part is kept as it is found, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from .config import ConfigError, at_least
from .negative import CONTROLS

MARKS = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "-"}


def verify(
    name: str,
    /,
    task: str = "reach",
    suite: str = "standard",
    seeds: int = -1,
    steps: int = -1,
    runs: tuple = (),
    episodes: int = 20,
    control: str = "",
    promote: bool = False,
    out: str = "",
    device: str = "cpu",
    threads: int = 0,
    model: dict | None = None,
    planner: dict | None = None,
) -> int:
    """Holds a world model to gates: it must be sound, learn, foresee rewards and act, over seeds.

    A task with a script is learnt offline from the script's and from random episodes; one with
    official figures as their authors did, and beside them: TD-MPC2's are scores, DreamerV3's are
    returns of the episodes that training collected. The exit code is 1 where a gate fails.
    A verdict needs both recorded episodes and worlds: the quick suite, which looks at the former
    alone, can only say "smoke". The comprehensive one adds gates of what `umwelten probe` finds.

    name: the model, as `umwelten list models` says
    task: what is asked
    suite: quick, standard or comprehensive
    seeds: trainings, each with a seed of its own; default 1, 3 or 5, as the suite is
    steps: of a training, as in `umwelten train`: updates offline, else decisions
    runs: folders of finished trainings to take instead, of one task: runs=[runs/a,runs/b]
    episodes: of a score in the real world
    control: untrained, shuffled_rewards, early_rewards or late_rewards: it must fail
    promote: keep the evidence with the model, which `umwelten list models` reads
    out: the folder for everything, default runs/verify/<model>-<task>
    device: auto, cpu or cuda
    threads: of torch; 0 for all of this process's processors
    model: the model's keywords, such as model.size=5
    planner: the planner's keywords, such as planner.samples=512

    umwelten verify tdmpc2
    umwelten verify tdmpc2 suite=quick
    umwelten verify tdmpc2 control=late_rewards seeds=1
    umwelten verify tdmpc2 task=cartpole_balance steps=50000 model.size=5 device=cuda
    """
    from rich.console import Console

    from . import registry, tiers, trials

    seeds = _seeds(suite, seeds)
    at_least(1, seeds=seeds, episodes=episodes)
    at_least(0, threads=threads)
    if steps == 0 or steps < -1:
        raise ConfigError(f"steps={steps} is below 1; choose at least 1, or -1 for the usual")
    console, name = Console(), registry.find("world_models", name).snake
    if control and (control not in CONTROLS or runs):
        given = "on finished runs" if runs else f"no control {control!r}"
        raise ConfigError(f"{given}; controls to train with are {', '.join(CONTROLS)}")
    if promote and (control or suite == "quick"):
        why = f"control={control} is there to fail" if control else f"suite={suite} sees no world"
        raise ConfigError(f"{why}; nothing of it is promoted")
    code = tiers.fingerprint(name)
    if runs:
        folders = [Path(run) for run in runs]
        task = _agreed(folders, name)
    label = "-".join([name, task, *([control] if control else [])])
    folder = Path(out or f"runs/verify/{label}{'-runs' if runs else ''}")
    folder.mkdir(parents=True, exist_ok=True)
    if not runs:
        given = {"steps": steps, "device": device, "model": model or {}, "planner": planner or {}}
        folders = trials.train(folder, name, task, seeds, control, given, threads, console)
    found = trials.examine_all(folder, folders, code, suite, episodes, device, threads, console)
    told = {"suite": suite, "seeds": seeds, "steps": steps, "control": control}
    told |= {"model": model, "planner": planner}
    evidence = _evidence(found, name, task, code, told)
    path = trials.write(folder / "evidence.json", evidence)
    _show(console, evidence)
    console.print(f"evidence: {path}", soft_wrap=True, markup=False)
    if promote:
        try:
            console.print(f"kept: assets/gates/{tiers.promote(name, evidence).name}", markup=False)
        except ValueError as refusal:
            console.print(f"not promoted: {refusal}", soft_wrap=True, markup=False)
            return 1
    return int(not evidence["passed"])


def _seeds(suite: str, seeds: int) -> int:
    """Returns how many seeds to train; ConfigError for a suite that there is not."""
    from .suites import SUITES

    if suite not in SUITES:
        raise ConfigError(f"no suite {suite!r}; there are {', '.join(SUITES)}")
    return SUITES[suite].seeds if seeds == -1 else seeds


def _agreed(folders: list[Path], name: str) -> str:
    """Returns the task of the runs; ConfigError where they differ in more than their seeds."""
    from . import config
    from .train import FREE, differing

    tolds = []
    for folder in folders:
        if not (folder / "config.yaml").exists():
            raise ConfigError(f"{folder} holds no run (no config.yaml)")
        tolds.append(config.load(folder / "config.yaml"))
    may = {"seed", *FREE} - {"steps"}
    odd = [k for told in tolds for k in differing(tolds[0], told) if k not in may]
    if odd or len({told["seed"] for told in tolds}) < len(tolds):
        odd = ", ".join(dict.fromkeys(odd))
        raise ConfigError(f"the runs have another {odd}" if odd else "a seed came twice")
    if tolds[0]["model"].get("name", "tdmpc2") != name:
        raise ConfigError(f"the runs trained {tolds[0]['model'].get('name')}, not {name}")
    return tolds[0]["task"]


def _evidence(found: dict, name: str, task: str, code: str, told: dict) -> dict:
    """Returns what was found, of which code and with which command, with a verdict per gate.

    found: as trials.examine_all returns it.
    """
    from . import gates
    from .doctor import environment

    runs = found["runs"]
    table = gates.over_seeds([[gates.Finding(**f) for f in run["findings"]] for run in runs])
    earned = _earned(name, task, runs) if all("score" in run for run in runs) else {}
    table += earned.pop("gates", [])
    where = environment()
    words = [f"{k}={v}" for k, v in told.items() if v not in (None, "", {}, -1)]
    where["command"] = ["umwelten", "verify", name, f"task={task}", *words]
    return {
        "schema": 1, "model": name, "task": task, "suite": told["suite"],
        "control": told["control"], "code": code,
        "passed": all(g["passed"] is not False for g in table),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gates": table, "official": {}, **earned, **found, **where,
    }  # fmt: skip


def _earned(name: str, task: str, runs: list[dict]) -> dict:
    """Returns the mean `return` of the runs' scores, how it is to `official` figures, and gates."""
    import numpy as np

    from . import published

    returns = [run["score"]["return"] for run in runs]
    spread = float(np.std(returns, ddof=1)) if len(runs) > 1 else 0.0
    table = [{
        "gate": "seed spread", "passed": None, "figures": [spread], "bound": None,
        "reason": "standard deviation of the returns: "
        + ", ".join(f"{r['seed']}: {x:.1f}" for r, x in zip(runs, returns, strict=True)),
    }]  # fmt: skip
    official = _official(name, task, runs, float(np.mean(returns)))
    if official:
        said = f"{official['verdict']} at {official['env_steps']:,} env steps"
        if "budget" in official:
            said += f"; official {official['low']:.0f} to {official['high']:.0f}"
            said += f" at {official['budget']:,}"
        if "collected" in official:
            said += "; mean of the training episodes that ended within 5 % of it, by seed "
            said += ", ".join(map(str, official["collected"]))
        good = {**dict.fromkeys(published.GOOD, True), "below": False}
        table.append({
            "gate": "official figures", "passed": good.get(official["verdict"]),
            "figures": [official["return"]] if "return" in official else [],
            "bound": official.get("low"), "reason": said,
        })  # fmt: skip
    return {"return": float(np.mean(returns)), "official": official, "gates": table}


def _official(name: str, task: str, runs: list[dict], value: float) -> dict:
    """Returns how the runs stand to the official figures; {} where there are none.

    It is by what those figures are of: the mean return on held-out seeds, which `value` is, or that
    of the episodes collected in training.
    """
    from . import published

    pixels = any(key.startswith("rgb/") for key in runs[0]["keys"])
    curve = published.curve(name, task, pixels)
    if curve is None:
        return {}
    env_steps = min(run["env_steps"] for run in runs)
    if name in published.COLLECTED:
        return published.compare_collected(curve, env_steps, [run["collected"] for run in runs])
    return published.compare(curve, env_steps, value)


def _show(console, evidence: dict) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("gate", "", "figures", "bound", "what the figures are"):
        table.add_column(title, overflow="fold")
    for gate in evidence["gates"]:
        figures = " ".join(f"{x:.3g}" for x in gate["figures"])
        bound = "" if gate["bound"] is None else f"{gate['bound']:.3g}"
        table.add_row(gate["gate"], MARKS[gate["passed"]], figures, bound, gate["reason"])
    console.print(table)
    verdict = "passed" if evidence["passed"] else "FAILED"
    verdict = verdict if "return" in evidence else f"smoke, {verdict}; a verdict needs worlds"
    of = f", planted with {evidence['control']}" if evidence["control"] else ""
    console.print(f"{evidence['model']}{of} on {evidence['task']}: {verdict}", markup=False)
