"""Record: the one writer of benchmarks/results/; it does not know what was measured."""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path

from umwelten.doctor import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(name: str, results: dict) -> Path:
    """Writes results/<name>.json: the results, and how and where they came to be.

    The file is whole or absent. Raises ValueError for a name that is no plain file name or for a
    number that is not finite, and TypeError for results that JSON cannot hold.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"the name {name!r} of a record is made of letters, digits, '_' and '-'")
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {"name": name, "date": date} | environment() | {"command": command()}
    text = json.dumps(content | {"results": results}, indent=1, default=_plain, allow_nan=False)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    part = path.with_suffix(".part")
    with part.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def command() -> list[str]:
    """Returns the command line, its script relative to the repository root."""
    script = Path(sys.argv[0]).resolve()
    inside = script.is_relative_to(ROOT) and script.is_file()
    return ["python", str(script.relative_to(ROOT)) if inside else script.name, *sys.argv[1:]]


def _plain(value):
    """Turns numpy scalars and arrays, and paths, into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results hold a {type(value).__name__}; JSON knows numbers, text and lists")
