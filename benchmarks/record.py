"""Record: the one writer of benchmarks/results/; knows the machine, not what was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("umwelten", "numpy", "mujoco", "gymnasium", "torch", "numba")


def record(name: str, results: dict) -> Path:
    """Writes results/<name>.json: the results, and how and where they came to be.

    The file is whole or absent. Raises ValueError for a name that is no plain file name, and
    TypeError for results that JSON cannot hold.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"the name {name!r} of a record is made of letters, digits, '_' and '-'")
    content = {
        "name": name,
        "command": command(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
        "results": results,
    }
    text = json.dumps(content, indent=1, default=_plain, allow_nan=False) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, suffix=".tmp", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path


def command() -> list[str]:
    """Returns the command line, its script relative to the repository root."""
    script = Path(sys.argv[0]).resolve()
    inside = script.is_relative_to(ROOT) and script.is_file()
    return ["python", str(script.relative_to(ROOT)) if inside else sys.argv[0], *sys.argv[1:]]


def machine() -> dict:
    """Returns the CPU model, the cores this process may use, the memory (GiB) and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def revision() -> str:
    """Returns the git commit, with '+' when tracked files differ from it; '' outside git."""
    head = _git("rev-parse", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "-uno") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _plain(value):
    """Turns numpy scalars and arrays, and paths, into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results hold a {type(value).__name__}; JSON knows numbers, text and lists")
