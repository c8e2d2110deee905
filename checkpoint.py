"""Checkpoints: directories of safetensors and JSON, whole or absent; knows nothing of learning.

A checkpoint is written beside its place, synced, and renamed; its manifest holds the sha256 of
every file. Nothing that is loaded can execute.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

MANIFEST = "manifest.json"
KEEP = 2  # checkpoints that stay when a newer one is whole


class BrokenCheckpoint(ValueError):
    """A checkpoint's files are missing, or are not those that its manifest was written for."""


def save(
    folder: Path, step: int, tensors: dict, arrays: dict[str, np.ndarray], state: dict
) -> Path:
    """Writes `folder/step-<step>` whole: torch tensors, numpy arrays and a JSON-able state.

    Older checkpoints but the newest KEEP are removed afterwards.
    """
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file as save_tensors

    final = folder / f"step-{step:09d}"
    draft = folder / f".{final.name}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_tensors(tensors, draft / "tensors.safetensors")
    save_arrays(
        {k: np.asarray(v, order="C") for k, v in arrays.items()}, draft / "arrays.safetensors"
    )
    (draft / "state.json").write_text(json.dumps(state, indent=1))
    digests = {path.name: _digest(path) for path in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps(digests, indent=1))
    for path in draft.iterdir():
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    _sync(folder)
    for old in steps(folder)[:-KEEP]:
        shutil.rmtree(folder / f"step-{old:09d}")
    return final


def steps(folder: Path) -> list[int]:
    """Returns the steps at which `folder` has checkpoints, ascending."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit() and path.is_dir()]
    return sorted(int(path.name[5:]) for path in found)


def load(path: Path) -> tuple[dict, dict[str, np.ndarray], dict]:
    """Returns (tensors, arrays, state) of a checkpoint directory.

    Raises BrokenCheckpoint if a file is missing, differs from the manifest or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file as load_tensors

    try:
        digests = json.loads((path / MANIFEST).read_text())
        for name in ("tensors.safetensors", "arrays.safetensors", "state.json"):
            if not isinstance(digests, dict) or _digest(path / name) != digests.get(name):
                raise BrokenCheckpoint(f"{path / name} is not the file that was saved")
        return (
            load_tensors(path / "tensors.safetensors"),
            load_arrays(path / "arrays.safetensors"),
            json.loads((path / "state.json").read_text()),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{path} is no whole checkpoint: {error}") from error


def latest(folder: Path) -> Path | None:
    """Returns the newest checkpoint of `folder` that is whole, or None."""
    for step in reversed(steps(folder)):
        path = folder / f"step-{step:09d}"
        try:
            load(path)
        except BrokenCheckpoint:
            continue
        return path
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
