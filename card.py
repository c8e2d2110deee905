"""Card: what a run's folder says of itself to a stranger: RUN.md and spaces.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .doctor import environment


def spaces(env) -> dict:
    """Returns the shapes and types of a world's observations, and what its actions mean."""
    seen = {
        key: {"shape": list(space.shape), "dtype": str(space.dtype)}
        for key, space in env.single_observation_space.items()
    }
    worlds = getattr(env, "worlds", (env,))
    parts = [
        vars(c) | ({"name": f"{type(w.task).__name__}: {c.name}"} if len(worlds) > 1 else {})
        for w in worlds
        for c in w.action_spec.components
    ]
    rate = worlds[0].action_spec.rate
    return {"observation": seen, "action": {"rate": rate, "components": parts}}


def write(folder: Path, told: Mapping, env, progress, metrics: list[dict]) -> None:
    """Writes spaces.json and RUN.md of a training: its config, where it stands, its scores."""
    told_spaces, where = spaces(env), environment()
    (folder / "spaces.json").write_text(json.dumps(told_spaces, indent=1))
    scores = [
        f"| {m['env_steps']} | {m['updates']} | {m['policy']} | {m['episodes']} | "
        f"{m['success']:.2f} | {m['return']:.1f} |"
        for m in metrics
        if m.get("kind") == "score"
    ]
    lines = [
        f"# {told['task']}: {told['agent']}, seed {told['seed']}",
        "",
        f"{progress.env_steps} decisions, {progress.episodes} episodes, "
        f"{progress.updates} updates.",
        f"Made with revision {where['revision']} on {where['machine']['cpu']} "
        f"({where['machine']['cores']} cores).",
        "",
        "| observation | shape | dtype |",
        "| --- | --- | --- |",
        *(f"| {k} | {v['shape']} | {v['dtype']} |" for k, v in told_spaces["observation"].items()),
        "",
        "| action | frame | unit | from | to |",
        "| --- | --- | --- | ---: | ---: |",
        *(
            f"| {c['name']} | {c['frame']} | {c['unit']} | {c['offset'] - c['scale']:g} | "
            f"{c['offset'] + c['scale']:g} |"
            for c in told_spaces["action"]["components"]
        ),
        "",
        *(["| decisions | updates | policy | episodes | success | return |"] if scores else []),
        *(["| ---: | ---: | --- | ---: | ---: | ---: |"] if scores else []),
        *scores,
        "",
        "Files: `config.yaml` (goes on with the same command), `environment.jsonl` (versions and "
        "machine, a line for each start), `metrics.jsonl`, `tensorboard/` (a view of it), "
        "`checkpoints/`" + (", `episodes/`." if (folder / "episodes").exists() else "."),
        "",
    ]
    (folder / "RUN.md").write_text("\n".join(lines))
