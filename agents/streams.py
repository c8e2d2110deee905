"""Streams: the process's global random streams, lent to code that draws from nothing else."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class Streams:
    """Global streams of one's own: in a `with` block they are the process's, before and after it
    the process has its own again.

    device: the torch device that is drawn on too.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._mine: tuple | None = None
        self._others: tuple | None = None

    def __enter__(self) -> Streams:
        self._others = self._read()
        if self._mine is not None:
            self._write(self._mine)
        return self

    def __exit__(self, *error: object) -> None:
        self._mine = self._read()
        if self._others is not None:
            self._write(self._others)
        self._others = None

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns where numpy's and torch's streams stand: arrays, and a JSON-able state.

        Python's own is lent as well, but not saved.
        """
        inside = self._others is not None or self._mine is None
        _, chance, tensors = self._read() if inside else self._mine
        arrays = {f"torch{i}": t.numpy() for i, t in enumerate(tensors)}
        plain = {k: chance[k] for k in ("has_gauss", "gauss")} | {"pos": chance["state"]["pos"]}
        return arrays | {"numpy": chance["state"]["key"]}, plain

    def load(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Goes on from where `save` was called, from the next `with` block on."""
        python, _, tensors = self._read()
        chance = {k: state[k] for k in ("has_gauss", "gauss")}
        chance |= {"bit_generator": "MT19937"}
        chance |= {"state": {"key": arrays["numpy"], "pos": state["pos"]}}
        saved = [torch.from_numpy(arrays[k]) for k in ("torch0", "torch1") if k in arrays]
        self._mine = python, chance, [*saved, *tensors[len(saved) :]]

    def _read(self) -> tuple:
        tensors = [torch.get_rng_state()]
        if self._device.type == "cuda":
            tensors.append(torch.cuda.get_rng_state(self._device))
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 (what is lent is the legacy one)
        return random.getstate(), numpy, tensors

    def _write(self, streams: tuple) -> None:
        python, chance, tensors = streams
        random.setstate(python)
        np.random.set_state(chance)  # noqa: NPY002
        torch.set_rng_state(tensors[0])
        if self._device.type == "cuda" and len(tensors) > 1:
            torch.cuda.set_rng_state(tensors[1], self._device)
