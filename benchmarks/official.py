"""Official: published learning curves of TD-MPC2, DreamerV3 and SAC, as data files of ours.

Run: python benchmarks/official.py tdmpc2=CLONE dreamerv3=CLONE bmpc=CLONE
The clones are of github.com/nicklashansen/tdmpc2, danijar/dreamerv3 and wertyuilife2/bmpc; each
file is read from the clone's newest commit. It writes assets/official/<model>.json and prints the
digests that published.py holds them to. SAC is as the authors of TD-MPC2 ran it beside theirs.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "official"
LAST = 1_000_000  # env steps up to which the curves are kept
BUDGETS = (*range(10_000, 100_000, 10_000), *range(100_000, LAST + 1, 100_000))
WINDOW = 0.05  # of a budget, to each side
WHOSE = {
    "tdmpc2": "https://github.com/nicklashansen/tdmpc2",
    "dreamerv3": "https://github.com/danijar/dreamerv3",
    "bmpc": "https://github.com/wertyuilife2/bmpc",
}
RERUN = "results/data_dmc_all_1M.json"
RERUN_RULE = (
    "mean and the bounds that its authors ship; they do not say of which level and how many seeds"
)


class Clone:
    """A clone of a repository, read at its newest commit."""

    def __init__(self, name: str, path: str):
        self.name, self.path = name, path

    def source(self) -> dict:
        """Returns the repository's address, commit and date."""
        commit, date = self._git("log", "-1", "--format=%H %cI").decode().split()
        return {"repository": WHOSE[self.name], "commit": commit, "date": date}

    def names(self, folder: str) -> list[str]:
        """Returns the paths of a folder's files."""
        return self._git("ls-tree", "--name-only", "HEAD", f"{folder}/").decode().splitlines()

    def read(self, path: str) -> tuple[bytes, str]:
        """Returns a file's content and its sha256."""
        content = self._git("show", f"HEAD:{path}")
        return content, hashlib.sha256(content).hexdigest()

    def _git(self, *arguments: str) -> bytes:
        command = ["git", "-C", self.path, *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout


def tdmpc2(clone: Clone, folder: str) -> dict:
    """Returns {task: steps, every seed's return, sha256} of a folder's csv files of returns.

    Files of success rates (Meta-World, MyoSuite, ManiSkill) are left out: we have no such tasks.
    """
    tasks = {}
    for path in clone.names(folder):
        content, digest = clone.read(path)
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        if "reward" not in rows[0]:
            continue
        curves: dict[str, dict[int, float]] = {}
        for row in rows:
            if int(row["step"]) <= LAST:
                curves.setdefault(row["seed"], {})[int(row["step"])] = float(row["reward"])
        steps = sorted(set.intersection(*map(set, curves.values())))
        seeds = {seed: [curves[seed][s] for s in steps] for seed in sorted(curves)}
        tasks[_ours(Path(path).stem)] = {"sha256": digest, "steps": steps, "seeds": seeds}
    return tasks


def dreamer_v3(clone: Clone, path: str) -> tuple[dict, str]:
    """Returns {task: steps, return of every seed} as means of windows, and the file's sha256."""
    content, digest = clone.read(path)
    tasks: dict[str, dict] = {}
    for run in json.loads(gzip.decompress(content)):
        points = list(zip(run["xs"], run["ys"], strict=True))
        means = []
        for budget in BUDGETS:
            near = [y for x, y in points if abs(x - budget) <= WINDOW * budget]
            means.append(round(sum(near) / len(near), 1) if near else None)
        name = _ours(run["task"].removeprefix("dmc_"))
        tasks.setdefault(name, {"steps": list(BUDGETS), "seeds": {}})
        tasks[name]["seeds"][str(run["seed"])] = means
    for task in tasks.values():
        whole = [i for i in range(len(BUDGETS)) if all(v[i] is not None for v in _values(task))]
        task["steps"] = [BUDGETS[i] for i in whole]
        task["seeds"] = {s: [v[i] for i in whole] for s, v in sorted(task["seeds"].items())}
    return tasks, digest


def rerun(clone: Clone, key: str) -> tuple[dict, str]:
    """Returns {task: {steps, mean, low, high}} of an independent rerun, and the file's sha256."""
    content, digest = clone.read(RERUN)
    found = {}
    for name, curve in json.loads(content)[key].items():
        kept = [i for i, s in enumerate(curve["steps"]) if s % 100_000 == 0 and s <= LAST]
        part = {"mean": "values", "low": "lcbs", "high": "ucbs"}
        numbers = {k: [round(curve[v][i], 1) for i in kept] for k, v in part.items()}
        found[_ours(name)] = {"steps": [curve["steps"][i] for i in kept]} | numbers
    return found, digest


def _values(task: dict) -> list[list]:
    return list(task["seeds"].values())


def _ours(name: str) -> str:
    """Returns a task's name as ours are written."""
    return name.replace("-", "_").replace("ball_in_cup", "cup")


def _add_rerun(tables: dict, clone: Clone, key: str) -> dict:
    again, digest = rerun(clone, key)
    for name, curve in again.items():
        if name in tables["state"]:
            tables["state"][name]["rerun"] = curve
    return clone.source() | {"path": RERUN, "sha256": digest, "rule": RERUN_RULE}


def _write(name: str, content: dict) -> None:
    text = json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"
    text = text.replace('"seeds":', '\n"seeds":').replace('"sha256":', '\n"sha256":')
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text)
    print(name, len(text), "bytes, sha256", hashlib.sha256(text.encode()).hexdigest())


def main() -> None:
    """Writes the files."""
    clones = {k: Clone(k, v) for k, _, v in (a.partition("=") for a in sys.argv[1:])}
    if clones.keys() != WHOSE.keys():
        raise SystemExit(f"give a clone of each: {' '.join(f'{k}=FOLDER' for k in WHOSE)}")
    tables = {
        "state": tdmpc2(clones["tdmpc2"], "results/tdmpc2"),
        "pixels": tdmpc2(clones["tdmpc2"], "results/tdmpc2-pixels"),
    }
    again = _add_rerun(tables, clones["bmpc"], "tdmpc2")
    _write("tdmpc2", {
        "unit": "steps: env steps (two to a decision); returns: mean of ten evaluation episodes",
        "source": clones["tdmpc2"].source() | {"path": "results/{tdmpc2,tdmpc2-pixels}/*.csv"},
        "rerun": again, "model_size": 5, "tables": tables,
    })  # fmt: skip
    _write("sac", {
        "unit": "steps: env steps (two to a decision); returns: mean of ten evaluation episodes",
        "source": clones["tdmpc2"].source() | {"path": "results/sac/*.csv"},
        "tables": {"state": tdmpc2(clones["tdmpc2"], "results/sac")},
    })  # fmt: skip
    parts = {"state": "scores/dmc_proprio-dreamerv3.json.gz"}
    parts["pixels"] = "scores/dmc_vision-dreamerv3.json.gz"
    found = {k: dreamer_v3(clones["dreamerv3"], path) for k, path in parts.items()}
    tables = {k: tasks for k, (tasks, _) in found.items()}
    again = _add_rerun(tables, clones["bmpc"], "dreamerv3")
    _write("dreamer_v3", {
        "unit": "steps: env steps; returns: mean over the training episodes logged within "
        f"{100 * WINDOW:.0f} % of a budget to each side, each seed apart; runs on states end at "
        "490,000 steps",
        "source": clones["dreamerv3"].source()
        | {"paths": parts, "sha256": {k: digest for k, (_, digest) in found.items()}},
        "rerun": again, "tables": tables,
    })  # fmt: skip


if __name__ == "__main__":
    main()
