"""Every arm at every task that takes one: how often its scripted expert does what is asked.

Run: python benchmarks/arms.py [task | task@robot ...]   (what was not measured yet by default)
Writes results/arms.json after each pair, so that it may be stopped, and docs/arms.md.
"""

from __future__ import annotations

import json
import sys
import time

from record import RESULTS, ROOT, record
from umwelten import registry
from umwelten.agents.policy import Expert
from umwelten.envs.env import BatchEnv
from umwelten.envs.scene import ARMS
from umwelten.score import judge

EPISODES, SEED = 40, 1000  # seeds of scoring that no script and no constant was chosen by
NEEDED = 0.95  # of these a script should do, as the default arm's does


def measure(task: str, robot: str) -> dict:
    """Returns what the expert achieves with an arm, over held-out episodes, on one thread."""
    began = time.process_time()
    env = BatchEnv(task, EPISODES, nthread=1, robot=robot)
    score = judge(env, Expert(env), EPISODES, SEED).summary()
    found = {k: score[k] for k in ("episodes", "success", "success_interval", "return")}
    return found | {"cpu_s": round(time.process_time() - began, 1)}


def pairs() -> dict[str, tuple[str, ...]]:
    """Returns each task that takes an arm, and those that it takes."""
    found = {name: registry.load("envs", name).robots for name in registry.members("envs")}
    return {name: robots for name, robots in found.items() if robots}


def measured() -> dict:
    """Returns what results/arms.json holds, `{task: {arm: figures}}`."""
    path = RESULTS / "arms.json"
    return json.loads(path.read_text())["results"] if path.exists() else {}


def page(results: dict) -> str:
    """Returns docs/arms.md."""
    lines = [
        "# Tasks and arms",
        "",
        f"Written by `benchmarks/arms.py`: the scripted expert's success over {EPISODES} held-out",
        "episodes, by the task's default control; – where a task does not take the arm, or where",
        "that was not measured yet.",
        "",
        f"| task | {' | '.join(ARMS)} |",
        f"| --- |{' --- |' * len(ARMS)}",
    ]
    for task, found in sorted(results.items()):
        cells = [f"{found[arm]['success']:.2f}" if arm in found else "–" for arm in ARMS]
        cells = [f"**{c}**" if c != "–" and float(c) < NEEDED else c for c in cells]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Bold: below {NEEDED}.", ""])


def main() -> None:
    """Measures the pairs asked for, or those that lack, beside those measured before."""
    known, asked = pairs(), []
    for word in sys.argv[1:]:
        task, _, robot = word.partition("@")
        task = registry.find("envs", task).name
        asked += [(task, robot)] if robot else [(task, r) for r in known[task]]
    before = measured()
    lacking = [(t, r) for t, rs in known.items() for r in rs if r not in before.get(t, {})]
    for task, robot in asked or lacking:
        found = measure(task, robot)
        results = measured()
        results.setdefault(task, {})[robot] = found
        print(task, robot, found["success"], f"{found['cpu_s']} s", flush=True)
        results = {
            t: {r: results[t][r] for r in rs if r in results[t]}
            for t, rs in known.items()
            if t in results
        }
        record("arms", results)
        (ROOT / "docs" / "arms.md").write_text(page(results))


if __name__ == "__main__":
    main()
