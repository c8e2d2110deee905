"""The gallery: each task's picture, words, spaces, and what its expert and chance achieve.

Run: python benchmarks/gallery.py [task ...]   (all of them by default; a few minutes)
Writes results/gallery.json, docs/gallery/<task>.jpg and, from those, docs/gallery.md.
"""

from __future__ import annotations

import json
import sys

import imageio.v3 as iio
import numpy as np

from record import RESULTS, ROOT, record
from umwelten import registry
from umwelten.agents.policy import Expert, Random
from umwelten.envs.env import BatchEnv
from umwelten.score import judge

EPISODES, SIDE = 100, 240
PICTURES = ROOT / "docs" / "gallery"


def measure(name: str) -> dict:
    """Returns what one task is, and the scores of its expert, if any, and of chance."""
    env = BatchEnv(name, 20)
    task = env.task
    _, info = env.reset(seed=0)
    found = {
        "about": registry.find("envs", name).about,
        "instruction": str(info["instruction"][0]),
        "robots": list(task.robots),
        "control_hz": round(1 / task.control_dt, 3),
        "seconds": task.time_limit,
        "observations": {k: list(s.shape) for k, s in env.single_observation_space.items()},
        "actions": [f"{c.name} ({c.unit})" for c in env.action_spec.components],
        "subtasks": list(task.subtasks),
        "solved": task.solved,
    }
    scripted = task.expert(env.sim) is not None
    rows = EPISODES if scripted else 20
    policies = {"random": Random(env.single_action_space.shape[0])}
    if scripted:
        policies["expert"] = Expert(env)
    for label, policy in policies.items():
        score = judge(env, policy, rows).summary()
        found[label] = {k: score[k] for k in ("episodes", "success", "return")}
    draw(name, scripted)
    return found


def draw(name: str, scripted: bool) -> None:
    """Writes a picture: the middle of an expert's episode, or half a second into chance."""
    env = BatchEnv(name, 1, render_mode="rgb_array")
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    steps = (
        env.task.time_limit / env.task.control_dt * 0.3 if scripted else 0.5 / env.task.control_dt
    )
    for _ in range(round(steps)):
        env.step(env.expert() if scripted else rng.uniform(-1, 1, env.action_space.shape))
    picture = env.render()[0]
    half = picture.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).round().astype(np.uint8)
    PICTURES.mkdir(parents=True, exist_ok=True)
    iio.imwrite(PICTURES / f"{registry.find('envs', name).snake}.jpg", half, quality=85)


def page(results: dict) -> str:
    """Returns docs/gallery.md."""
    lines = [
        "# Gallery",
        "",
        "Written by `benchmarks/gallery.py`; success is that of an episode's last step, over",
        f"{EPISODES} held-out episodes. Classical tasks have no words and no expert: a return from",
        "which on they count as solved is stated instead.",
        "",
    ]
    for name, r in sorted(results.items(), key=lambda item: (item[1]["solved"] is not None, item)):
        snake = registry.find("envs", name).snake
        lines += [f"## {name}", "", f"![{name}](gallery/{snake}.jpg)", "", r["about"], ""]
        if r["instruction"]:
            lines.append(f'- asked, for example: "{r["instruction"]}"')
        lines.append(f'- `gym.make("{registry.gym_id(registry.find("envs", name))}")`')
        if r["robots"]:
            lines.append(f"- arms: {', '.join(r['robots'])}")
        shapes = ", ".join(f"`{k}` {tuple(v)}" for k, v in r["observations"].items())
        lines.append(f"- observations: {shapes}")
        actions = r["actions"]
        shown = ", ".join(actions if len(actions) < 13 else [*actions[:3], "…", actions[-1]])
        lines.append(f"- {len(actions)} actions at {r['control_hz']:g} Hz: {shown}")
        if r["subtasks"]:
            lines.append(f"- subtasks: {', '.join(r['subtasks'])}")
        for who in ("expert", "random"):
            if who in r and r["solved"] is None:
                lines.append(f"- {who}: success **{r[who]['success']:.2f}**")
        if r["solved"] is not None:
            lines.append(
                f"- solved from a return of **{r['solved']:g}** on; "
                f"chance gets **{r['random']['return']:.1f}**"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measures the tasks asked for, beside those measured before."""
    path = RESULTS / "gallery.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    known = registry.members("envs")
    asked = [registry.find("envs", name).name for name in sys.argv[1:]] or list(known)
    for name in asked:
        results[name] = measure(name)
        scores = {k: results[name][k] for k in ("expert", "random") if k in results[name]}
        print(name, scores, flush=True)
    results = {name: results[name] for name in known if name in results}
    record("gallery", results)
    (ROOT / "docs" / "gallery.md").write_text(page(results))


if __name__ == "__main__":
    main()
