"""Replay: windows of recorded steps as tensors on a learner's device; knows no model, no loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .episodes import Episodes

SHARE = 0.25  # of a device's free memory: growing by half, what is held needs 2.5 times its size


class Replay:
    """Where a learner's batches come from: the steps of `episodes`, at hand on its device.

    On a GPU the steps lie in its memory, taken over as shards appear; all that an update sends
    there are the b places of its windows. Once the steps need more than `room` bytes, windows are
    gathered on the host and sent from pinned memory, without waiting. On a CPU windows are the
    arrays that Episodes gives, uncopied. Which of these it is changes no bit of a batch.

    room: bytes of the device that the steps may take; None for a quarter of what a GPU has free
    now, and for none on a CPU.
    """

    def __init__(self, episodes: Episodes, device: torch.device | str, room: int | None = None):
        self.episodes, self.device = episodes, torch.device(device)
        gpu = self.device.type == "cuda"
        if room is None:
            room = int(SHARE * torch.cuda.mem_get_info(self.device)[0]) if gpu else 0
        self._gpu, self._room = gpu, room
        self._held: dict[str, Tensor] = {}  # key: (capacity, ...), the steps in order of place
        self._shards = self._steps = 0  # how many of each are held
        self._fits = room > 0
        self._take_over()

    @property
    def resident(self) -> bool:
        """Whether the steps lie in the device's memory."""
        return self._fits

    def refresh(self) -> int:
        """Takes in shards that have appeared since; returns how many episodes came with them."""
        found = self.episodes.refresh()
        self._take_over()
        return found

    def read(self, places: np.ndarray, t: int) -> dict[str, Tensor]:
        """Returns the windows of t steps at places (b,), `{key: (b, t, ...)}`, and their `place`.

        That is (b, 1 + t) int64: where the step before each of them lies, and where its steps do.
        """
        place = self.send(torch.from_numpy(places[:, None] + np.arange(-1, t)))
        if self._fits:
            batch = self._selected(place[:, 1:])
        else:
            found = self.episodes.read(places, t)
            batch = {k: self.send(torch.from_numpy(v)) for k, v in found.items()}
        return batch | {"place": place}

    def gather(self, places: np.ndarray) -> dict[str, Tensor]:
        """Returns the steps at places (b, t), which may lie anywhere, `{key: (b, t, ...)}`."""
        if self._fits:
            return self._selected(self.send(torch.from_numpy(places)))
        found = self.episodes.read(places.flatten(), 1)
        whole = {k: v.reshape(*places.shape, *v.shape[2:]) for k, v in found.items()}
        return {k: self.send(torch.from_numpy(v)) for k, v in whole.items()}

    def sample(self, rng: np.random.Generator, b: int, t: int) -> dict[str, Tensor]:
        """Draws b windows of t steps as `Episodes.draw` does, and reads them."""
        return self.read(self.episodes.draw(rng, b, t), t)

    def _selected(self, place: Tensor) -> dict[str, Tensor]:
        rows = place.flatten()
        found = {k: v.index_select(0, rows) for k, v in self._held.items()}
        return {k: v.unflatten(0, place.shape) for k, v in found.items()}

    def send(self, x: Tensor) -> Tensor:
        """Returns x (...) of the host on the device, where work there need not be over for it."""
        return x.pin_memory().to(self.device, non_blocking=True) if self._gpu else x.to(self.device)

    def _take_over(self) -> None:
        """Copies the steps of new shards to the device, or gives the device up if they are many."""
        if not self._fits:
            return
        for piece in self.episodes.pieces(self._shards):
            steps = self._steps + len(next(iter(piece.values())))
            self._fits = steps * sum(v[0].nbytes for v in piece.values()) <= self._room
            if not self._fits:
                self._held.clear()
                return
            for key, values in piece.items():
                # A byte of a mapped file that is neither 0 nor 1 must not become a bool.
                whole = values.view(np.uint8) != 0 if values.dtype == bool else values
                self._keep(key, torch.from_numpy(np.array(whole)), steps)
            self._shards, self._steps = self._shards + 1, steps

    def _keep(self, key: str, values: Tensor, steps: int) -> None:
        """Puts the values (m, ...) of the newest m of `steps` steps behind those of a key."""
        held = self._held.get(key)
        if held is None or len(held) < steps:
            room = torch.empty(steps * 3 // 2, *values.shape[1:], dtype=values.dtype,
                               device=self.device)  # fmt: skip
            if held is not None:
                room[: self._steps] = held[: self._steps]
            held = self._held[key] = room
        held[self._steps : steps] = values
