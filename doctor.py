"""Doctor: what this machine has, for a person to read and for a run to keep; it changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGES = ("umwelten", "numpy", "mujoco", "gymnasium", "torch", "numba", "dm-control")
SWITCHES = ("MUJOCO_GL", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
FAULTY = {("mujoco", "4.0.0"): "its sparse solver merges wrong rows; take 3.17.0"}
Finding = tuple[str, str, str]  # "ok", "note" or "missing"; of what; what was found


def doctor() -> int:
    """Examines this machine: packages, devices, cameras with measured frames per second, disk.

    The exit code is 0 if everything that is needed is there.

    umwelten doctor
    """
    from rich.console import Console

    console = Console()
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    missing = 0
    for check in (_python, _packages, _devices, _kernels, _cameras, _disk):
        for verdict, what, found in check():
            missing += verdict == "missing"
            console.print(f"[{colours[verdict]}]{verdict:<8}[/]{what:<20}", end="")
            console.print(found, markup=False, highlight=False)
    return int(missing > 0)


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield "ok" if good else "missing", "python", f"{platform.python_version()} (3.11 or later)"


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = ROOT / "constraints.txt"
    lines = pins.read_text().splitlines() if pins.exists() else []
    pairs = [line.split("==") for line in lines if "==" in line]
    tested = {canonicalize_name(name): pin for name, pin in pairs}
    for requirement in map(Requirement, importlib.metadata.requires("umwelten") or ()):
        name = requirement.name
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = version(name)
        wanted = tested.get(canonicalize_name(name), found.partition("+")[0])
        if found == "absent" or not requirement.specifier.contains(found):
            yield "missing", name, f"{found}; needed {requirement.specifier}: pip install -e ."
        elif (name, found) in FAULTY:
            yield "missing", name, f"{found}: {FAULTY[name, found]}"
        elif found.partition("+")[0] != wanted:
            yield "note", name, f"{found}; tested with {wanted}"
        else:
            yield "ok", name, found


def _devices() -> Iterator[Finding]:
    import torch

    here = machine()
    yield "ok", "cpu", f"{here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB"
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu; no CUDA device"
    yield "ok", "torch device", f"{name}; {torch.get_num_threads()} threads on the CPU"


def _kernels() -> Iterator[Finding]:
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or ROOT / "envs" / "__pycache__")
    there = next(path for path in (cache, *cache.parents) if path.exists())
    if os.access(there, os.W_OK):
        yield "ok", "numba cache", str(cache)
    else:
        yield "note", "numba cache", f"{there} is read-only; set NUMBA_CACHE_DIR to start faster"


def _cameras() -> Iterator[Finding]:
    from .envs.cameras import make_camera
    from .envs.env import BatchEnv
    from .envs.gl import gl_works

    works, reason = gl_works()
    yield "ok" if works else "note", "GL", reason or "works"
    n, size = 16, (64, 64)
    env = BatchEnv("reach", n, cameras=("front",), size=size)
    env.reset(seed=0)
    camera = make_camera(env.sim, ("front",), size)
    spans = []
    for _ in range(8):
        start = time.perf_counter()
        camera.render()
        spans.append(time.perf_counter() - start)
    rate = n / sorted(spans[1:])[3]  # the first call may compile; then the median
    yield (
        "ok",
        "camera auto",
        f"{type(camera).__name__}: {rate:,.0f} frames/s, 64x64, all modalities",
    )


def _disk() -> Iterator[Finding]:
    import imageio_ffmpeg

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield "ok" if free > 2 else "missing", "disk", f"{free:.0f} GiB free here (2 needed)"
    try:
        yield "ok", "ffmpeg", imageio_ffmpeg.get_ffmpeg_version()
    except RuntimeError as error:
        yield "missing", "ffmpeg", str(error)


def environment() -> dict[str, object]:
    """Returns where and how this process runs: command, machine, versions, revision, threads."""
    threads: dict[str, object] = {name: os.environ[name] for name in SWITCHES if name in os.environ}
    if "torch" in sys.modules:
        threads["torch"] = sys.modules["torch"].get_num_threads()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "revision": revision(),
        "threads": threads,
    }


def machine() -> dict[str, object]:
    """Returns the CPU's model, the cores this process may use, memory (GiB) and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return {
        "cpu": named[1] if named else platform.processor() or platform.machine(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def version(package: str) -> str:
    """Returns the installed version of a package, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def revision() -> str:
    """Returns the git commit, "+" added where tracked files differ; "" outside a checkout."""
    if not (ROOT / ".git").exists():
        return ""
    try:
        head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):  # no git, or a tree that it refuses to read
        return ""
    return head + ("+" if changes else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()
