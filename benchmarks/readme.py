"""Writes the README's figures from benchmarks/results/, and the demo's own into results/demo.json.

Run: python benchmarks/readme.py [folder of a finished demo]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from record import RESULTS, ROOT, record
from umwelten import published
from umwelten.demo import ACTORS


def results(name: str) -> dict:
    """Returns what a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())["results"]


def keep_demo(folder: Path) -> None:
    """Records the scores of a finished demo."""
    names = [name.replace(" ", "-") for name in ACTORS]
    scores = [json.loads((folder / "scores" / f"{name}.json").read_text()) for name in names]
    record("demo", {"scores": scores})


def demo() -> list[str]:
    """Returns the demo's table."""
    lines = ["| policy | success | 95 % | return | 95 % |", "| --- | ---: | ---: | ---: | ---: |"]
    for s in results("demo")["scores"]:
        (a, b), (c, d) = s["success_interval"], s["return_interval"]
        lines.append(
            f"| {s['name']} | **{s['success']:.2f}** | {a:.2f} - {b:.2f} | **{s['return']:.1f}** | "
            f"{c:.1f} - {d:.1f} |"
        )
    return lines


def vector_env() -> list[str]:
    """Returns what the environment costs over the bare engine."""
    found = results("vector_env")
    lines = [
        f"- PickPlace, rows = {r['rows']}: **{r['env_steps_per_s']:,}** env steps/s, "
        f"**{r['share_of_bare']}** of bare `mujoco.batch.Batch.step` under the same controls"
        for r in found["step"]
    ]
    lines += [
        f"- {r['task']} with one camera (RGB, depth, segmentation at 64 x 64), {r['rows']} rows: "
        f"**{r['env_steps_per_s']:,}** env steps/s"
        for r in found["pixels"]
    ]
    times = ", ".join(f"{r['task']} **{r['us_per_row']}**" for r in found["reset"])
    return [*lines, f"- reset with randomisation, us a row: {times}"]


def pixels() -> list[str]:
    """Returns what the ray camera draws."""
    row, most = results("pixels")["sizes"]["64"], "`mujoco.Renderer` at its defaults"
    return [
        f"- rays, RGB + depth + segmentation at 64 x 64: **{row['rays_front']:,.0f}** frames per "
        f"core-second, **{row['rays_over_renderer']:,.0f}** x {most}; with shadows, as those draw, "
        f"**{row['rays_front_shadows']:,.0f}** and **{row['rays_with_shadows_over_renderer']:.0f}**"
        " x"
    ]


def tdmpc2_speed() -> list[str]:
    """Returns TD-MPC2 beside the authors' code, both eager on the CPU, taking turns."""
    return _turns("tdmpc2_speed", "TD-MPC2", "official")


def dreamer_speed() -> list[str]:
    """Returns DreamerV3 beside the best port to PyTorch, both eager on the CPU, taking turns."""
    return _turns("dreamer_speed", "DreamerV3", "r2dreamer")


def _turns(name: str, model: str, other: str) -> list[str]:
    lines = [f"| {model}, a second | ours | {other} | ratio |", "| --- | ---: | ---: | ---: |"]
    for case in results(name)["cases"]:
        ours, theirs = case["ours per second"], case[f"{other} per second"]
        lines.append(
            f"| size {case['size']}, {case['case']} | **{ours:.2f}** | **{theirs:.2f}** | "
            f"**{case['ratio']:.2f}** |"
        )
    return lines


def peers() -> list[str]:
    """Returns 64 rows beside the vectors of Gymnasium, dm_control and EnvPool, per second."""
    lines = ["| 64 rows, steps/s | ours | theirs | ratio |", "| --- | ---: | ---: | ---: |"]
    for task in ("WalkerWalk", "CheetahRun"):
        ours, *others = results("peers")["table"][task]["vector"]
        for row in others:
            kind = "" if row["kind"] == "native" else f" {row['kind']}"
            lines.append(
                f"| {task}, {row['world']}{kind} | **{ours['per_s']:,.0f}** | "
                f"**{row['per_s']:,.0f}** | **{row['ours_over_it']['per_s']:.2f}** |"
            )
    return lines


def curve() -> list[str]:
    """Returns what agents earned on the Control Suite's tasks, beside their authors' figures."""
    lines = [
        "| agent, size | task, seed | return after env steps | published after env steps |",
        "| --- | --- | --- | --- |",
    ]
    for path in sorted(RESULTS.glob("curve_*.json")):
        found = results(path.stem)
        rows = found["scores"] or found["collected"]
        ours = ", ".join(f"**{r['return']}** after {r['env_steps']:,}" for r in rows)
        at = [found["published"]["budget"]] if found["scores"] else [r["env_steps"] for r in rows]
        name = {"dreamer": "dreamer_v3"}.get(found["agent"], found["agent"])
        there = published.curve(name, found["task"])
        spans = [(published.span(there, there["steps"].index(b)), b) for b in at]
        theirs = ", ".join(f"{low:.0f} to {high:.0f} after {b:,}" for (low, high), b in spans)
        who = f"{found['agent']}, {found['size'] or 'default'}"
        lines.append(f"| {who} | {found['task']}, {found['seed']} | {ours} | {theirs} |")
    return lines


def memory() -> list[str]:
    """Returns what a process that learns holds at most, beside the same peers."""
    lines = ["| memory at the peak, MiB | ours | theirs |", "| --- | ---: | ---: |"]
    for case in results("memory")["cases"]:
        peer = next((k for k in case if k not in ("model", "size", "ours")), None)
        theirs = f"**{case[peer]['peak']:.0f}** ({peer})" if peer else ""
        lines.append(
            f"| {case['model']}, size {case['size']} | **{case['ours']['peak']:.0f}** | {theirs} |"
        )
    return lines


def closed_loop() -> list[str]:
    """Returns what agents do with a task after the same demonstrations or decisions."""
    lines = [
        "| task | policy | demonstrations | own decisions | updates | success | 95 % | return |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(RESULTS.glob("closed_loop_*.json")):
        found = results(path.stem)
        for name, r in found["agents"].items():
            a, b = r["success_interval"]
            lines.append(
                f"| {found['task']} | {name} | {r['demos']} | {r['env_steps']:,} | "
                f"{r['updates']:,} | **{r['success']:.2f}** | {a:.2f} - {b:.2f} | "
                f"**{r['return']:.1f}** |"
            )
    return lines


def senses() -> list[str]:
    """Returns what senses add to a step."""
    found = results("senses")["adds_percent"]
    return [
        f"- audio, touch and language together add **{found['audio_touch_language']:.1f}** % to a "
        "step of PickPlace at 64 rows"
    ]


BLOCKS = (
    *(demo, vector_env, peers, pixels, senses),
    *(tdmpc2_speed, dreamer_speed, memory, curve, closed_loop),
)


def main() -> None:
    """Fills every block `<!-- from NAME -->` of the README."""
    if len(sys.argv) > 1:
        keep_demo(Path(sys.argv[1]))
    path = ROOT / "README.md"
    text = path.read_text()
    for block in BLOCKS:
        mark = f"<!-- from {block.__name__} -->\n"
        body = mark + "\n".join(block()) + "\n<!-- end -->"
        text = re.sub(f"{mark}.*?<!-- end -->", lambda _, body=body: body, text, flags=re.DOTALL)
    path.write_text(text)


if __name__ == "__main__":
    main()
