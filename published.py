"""Published: the official learning curves of our models' authors, and a return held beside them.

The numbers lie in assets/official/, made by benchmarks/official.py from the authors' own files;
a file that is not the one that was made is refused. It knows nothing of runs.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "assets" / "official"
DIGESTS = {  # as benchmarks/official.py printed them
    "tdmpc2": "d4d66d61132740bd7cbddf065ffc8abf6eea8f65ff9884ffa239d65b1b4a3f19",
    "dreamer_v3": "86558e23bcc7fb1ac8fb5fc8b21977246e961f4170de3f7d86dfe57e9aa049c3",
    "sac": "f8455e73e795aaab07f008597afe9bc1d2f1d3f1ea993895e413277afaac2011",
}
SLACK = 30.0  # 3 % of the greatest return, 1000, below the official range
NEAR = 0.05  # of an official budget: one that is no further off is the same
GOOD = ("above", "match", "pass")
NOTHING = "no official figure at this budget"
COLLECTED = ("dreamer_v3",)  # whose figures are of the episodes that training itself collected


class ChangedNumbers(ValueError):
    """A file of official numbers is not the one that was made."""


@lru_cache
def load(model: str) -> dict:
    """Returns the official file of a model; {} where its authors published none.

    Raises ChangedNumbers where the file differs from the one that was made.
    """
    if model not in DIGESTS:
        return {}
    path = FOLDER / f"{model}.json"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != DIGESTS[model]:
        raise ChangedNumbers(
            f"{path.name} holds other numbers than were made; make it anew with "
            "benchmarks/official.py, or restore it"
        )
    return json.loads(content)


def curve(model: str, task: str, pixels: bool = False) -> dict | None:
    """Returns a task's `steps`, the `seeds`' returns and perhaps a `rerun`, or None."""
    table = load(model).get("tables", {}).get("pixels" if pixels else "state", {})
    return table.get(task)


def span(curve: dict, i: int) -> tuple[float, float]:
    """Returns the least and the greatest of the seeds and of the rerun's bounds at budget i."""
    values = [seed[i] for seed in curve["seeds"].values()]
    again = curve.get("rerun", {"steps": []})
    if curve["steps"][i] in again["steps"]:
        j = again["steps"].index(curve["steps"][i])
        values += [again["low"][j], again["high"][j]]
    return min(values), max(values)


def compare(curve: dict, env_steps: int, value: float) -> dict:
    """Returns how a mean return after `env_steps` stands to an official curve.

    `verdict`: "match" within the range of the official seeds and of the rerun at that budget,
    "above" it, "pass" less than 3 % of 1000 below it, "below" it; `budget` says at which. Where
    there is no figure at that budget the next later one is looked at: it may be reached early, but
    not to reach it yet is no failure: "no official figure at this budget".
    """
    later = [s for s in curve["steps"] if s > 0 and s * (1 + NEAR) >= env_steps]
    nothing = {"verdict": NOTHING, "env_steps": env_steps}
    if not later:
        return nothing | {"return": value}
    budget = min(later)
    low, high = span(curve, curve["steps"].index(budget))
    early = env_steps < budget * (1 - NEAR)
    verdict = "above" if value > high else "match" if value >= low else "pass"
    if value < low - SLACK:
        verdict = nothing["verdict"] if early else "below"
    found = {"verdict": verdict, "env_steps": env_steps, "budget": budget, "early": early}
    return found | {"return": value, "low": low, "high": high}


def compare_collected(curve: dict, env_steps: int, runs: list[list]) -> dict:
    """Returns how the episodes that runs collected in training stand to an official curve of such.

    runs: of each run the [env steps, return] of its episodes, as they ended. As in the official
    figures, a run's return is the mean of those that ended within 5 % of a budget, here the last
    that `env_steps` reaches. It is what `compare` says of the mean over the runs, and `collected`,
    how many returns of each run that is; where a run has none, that there is no figure.
    """
    budget = max((s for s in curve["steps"] if 0 < s <= env_steps), default=0)
    near = [[x for at, x in run if abs(at - budget) <= NEAR * budget] for run in runs]
    if not budget or not all(near):
        return {"verdict": NOTHING, "env_steps": env_steps, "collected": [len(x) for x in near]}
    value = sum(sum(x) / len(x) for x in near) / len(near)
    return compare(curve, budget, value) | {"collected": [len(x) for x in near]}
