"""Tiers: what a model may be called, by the evidence that is kept for it; it trains nothing.

A model is `reference` when every gate of the kept evidence was passed by its code as it stands
now, a comparison with official figures among them; anything else is `experimental`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from pathlib import Path

from . import registry
from .published import GOOD

ROOT = Path(__file__).resolve().parent
KEPT = ROOT / "assets" / "gates"
TRUTH = "SimulatorModel"  # what the others are held to


def sources(model: str) -> list[Path]:
    """Returns the files that a model is made of: its own and those it imports from beside it."""
    member = registry.find("world_models", model)
    if member.plugin:
        todo = [Path(importlib.util.find_spec(member.module).origin)]
    else:
        todo = [ROOT / Path(*member.module.split(".")[1:]).with_suffix(".py")]
    found = set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                near = [folder.with_suffix(".py"), *(folder / f"{a.name}.py" for a in node.names)]
                todo += [p for p in near if p.is_file()]
    return sorted(found)


def fingerprint(model: str) -> str:
    """Returns a sha256 of the model's code and of the gates', comments and docstrings aside."""
    digest = hashlib.sha256()
    for path in (*sources(model), ROOT / "gates.py"):
        text = path.read_text()
        told: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    told |= set(range(first.lineno, first.end_lineno + 1))
        lines = [x.rstrip() for i, x in enumerate(text.splitlines(), 1) if i not in told]
        code = [x for x in lines if x and not x.lstrip().startswith("#")]
        digest.update("\n".join([path.name, *code]).encode())
    return digest.hexdigest()


def kept(model: str) -> dict:
    """Returns the evidence kept for a model, by task; {} where there is none."""
    path = KEPT / f"{registry.find('world_models', model).snake}.json"
    return json.loads(path.read_text())["evidence"] if path.exists() else {}


def promote(model: str, evidence: dict) -> Path:
    """Keeps the evidence of a task for a model; what was of other code is dropped.

    Raises ValueError where a gate failed, a control was planted or no world was acted in, where
    the evidence is of other code or parts than stand here, or for a model that is not of ours.
    """
    member = registry.find("world_models", model)
    if member.plugin:
        raise ValueError(f"{model} is of {member.plugin}; its evidence is kept there")
    code = fingerprint(model)
    if evidence["code"] != code:
        raise ValueError(f"the evidence is of other code of {model}; verify it as it is now")
    if evidence["control"]:
        raise ValueError(f"{evidence['control']} is a control: it is there to fail")
    if any(run.get("config", {}).get("parts") for run in evidence["runs"]):
        raise ValueError(f"its parts are not {model}'s own; such evidence is not of {model}")
    if "return" not in evidence:
        raise ValueError(
            f"{model} acted in no world: a smoke is no evidence; verify suite=standard"
        )
    failed = [g["gate"] for g in evidence["gates"] if g["passed"] is False]
    if failed or not evidence["passed"]:
        raise ValueError(f"{model} failed {', '.join(failed) or 'its gates'}; nothing is kept")
    whole = {t: e for t, e in kept(model).items() if e["code"] == code}
    whole[evidence["task"]] = evidence
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{member.snake}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"model": model, "evidence": whole}, indent=1) + "\n")
    part.replace(path)
    return path


def tier(model: str) -> tuple[str, str]:
    """Returns `reference` or `experimental`, and in a few words why."""
    member = registry.find("world_models", model)
    if member.plugin:
        return "experimental", f"of {member.plugin}"
    if member.name == TRUTH:
        return "the truth", "nothing to learn"
    evidence = kept(model)
    if not evidence:
        return "experimental", "never verified"
    code = fingerprint(model)
    sound = {t: e for t, e in evidence.items() if e["code"] == code and e["passed"]}
    if not sound:
        newest = max(e["date"] for e in evidence.values())
        return "experimental", f"verified as it was on {newest[:10]}; its code has changed"
    said = [f"{task} {_figure(e)}" for task, e in sorted(sound.items())]
    when = max(e["date"] for e in sound.values())[:10]
    official = any(e["official"].get("verdict") in GOOD for e in sound.values())
    return "reference" if official else "experimental", f"{when}: {'; '.join(said)}"


def _figure(evidence: dict) -> str:
    """Returns the return of a task's evidence, with what it is to be read beside."""
    official = evidence["official"]
    value = official.get("return", evidence["return"])  # theirs may be of other episodes
    text = f"{value:.0f}{' in training' * ('collected' in official)} by "
    text += f"{len(evidence['runs'])} seed{'s' * (len(evidence['runs']) > 1)}"
    if official.get("verdict") in GOOD:
        text += f", official {official['low']:.0f} to {official['high']:.0f}"
        text += f" at {official['budget']:,} ({official['verdict']} at {official['env_steps']:,})"
    return text
