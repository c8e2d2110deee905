"""Run: the folder that is the truth of one training: lock, metrics and what views show of them."""

from __future__ import annotations

import fcntl
import json
import math
import os
from pathlib import Path


class Run:
    """A run's folder: `metrics.jsonl`, `checkpoints/`, `episodes/`, `tensorboard/`, and a lock.

    Raises RuntimeError if another process has the folder open. Use it in a `with` block.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints, self.episodes = self.path / "checkpoints", self.path / "episodes"
        self._lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            raise RuntimeError(
                f"{self.path} is in use by process {self._lock.read().strip() or '?'}; "
                "wait for it or choose another folder"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        self._metrics = self.path / "metrics.jsonl"
        self._board = None

    def log(self, **values: float | int | str) -> None:
        """Appends one line to metrics.jsonl, and its numbers to TensorBoard as `<kind>/<name>`.

        There, lines of kind "train" stand at their `updates`, others at their `env_steps`.
        """
        line = json.dumps(values) + "\n"
        with self._metrics.open("a") as file:
            file.write(line)
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path / "tensorboard"))
        kind, updates = values.get("kind", "run"), values.get("updates", 0)
        at = int(updates if kind == "train" else values.get("env_steps") or updates)
        for key, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._board.add_scalar(f"{kind}/{key}", value, at)

    def metrics(self) -> list[dict]:
        """Returns the lines of metrics.jsonl; a last line that a kill cut short is left out."""
        if not self._metrics.exists():
            return []
        lines = []
        for line in self._metrics.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def forget(self, after: int) -> None:
        """Drops the lines logged after `after` updates and env steps: they will come anew."""
        kept = [m for m in self.metrics() if m.get("updates", 0) + m.get("env_steps", 0) <= after]
        draft = self._metrics.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
        draft.replace(self._metrics)

    def close(self) -> None:
        """Closes the views and gives the folder free."""
        if self._board is not None:
            self._board.close()
            self._board = None
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
