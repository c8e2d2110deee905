"""Contract: what a world model takes and tells, as data that is checked and saved; no network.

Rows come first (`n ...`) where a model acts, windows and their steps (`b t ...`) where it learns.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mode

import gymnasium
import numpy as np
import torch
from torch import Tensor

LAYOUT = {"step": "n ...", "batch": "b t ..."}


class ContractError(ValueError):
    """A step, a batch or a checkpoint is not what a model's contract says."""


@dataclass(frozen=True)
class Spec:
    """One tensor: its shape without rows and time, its dtype, and its range where it has one."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: gymnasium.Space | Tensor) -> Spec:
        """Returns the spec of a Box, of a Discrete, or of a tensor that has a row.

        A Box's range is that of its widest component. Raises ValueError for another space.
        """
        if isinstance(value, Tensor):
            return cls(tuple(value.shape[1:]), value.dtype)
        if isinstance(value, gymnasium.spaces.Discrete):
            return cls((), torch.int64, int(value.start), int(value.start + value.n - 1))
        if not isinstance(value, gymnasium.spaces.Box):
            raise ValueError(f"{value} is no Box and no Discrete: no tensor holds what it does")
        low, high = float(value.low.min()), float(value.high.max())
        bounds = (x if math.isfinite(x) else None for x in (low, high))
        return cls(value.shape, torch.from_numpy(np.empty(0, value.dtype)).dtype, *bounds)

    def plain(self) -> dict:
        """Returns the spec as JSON knows it."""
        found = {"shape": list(self.shape), "dtype": _name(self.dtype)}
        return found | {k: v for k in ("low", "high") if (v := getattr(self, k)) is not None}

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """The values that a batch may have, if a tensor of the dtype can have others."""
        if self.dtype in (torch.bool, torch.uint8):
            return None
        finite = torch.finfo if self.dtype.is_floating_point else torch.iinfo
        least, most = finite(self.dtype).min, finite(self.dtype).max
        return least if self.low is None else self.low, most if self.high is None else self.high


FLAG, NUMBER = Spec((), torch.bool), Spec(())


@dataclass(frozen=True)
class Contract:
    """What one model takes and tells.

    observation: what it reads of a step. action: what it is told of what was done. belief: what
    it keeps. prediction: what it tells of a step that it imagines. window: steps of the windows
    it learns from, 0 where it learns nothing. parts: classes of networks that are not its own.
    """

    observation: Mapping[str, Spec]
    action: Spec
    belief: Mapping[str, Spec]
    prediction: Mapping[str, Spec]
    window: int
    parts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def step(self) -> dict[str, Spec]:
        """The keys that a step must have; others are ignored."""
        return {"first": FLAG, **self.observation}

    @cached_property
    def batch(self) -> dict[str, Spec]:
        """The keys that a batch must have, none for a model that learns nothing."""
        marks = {"reward": NUMBER, "first": FLAG, "last": FLAG, "terminal": FLAG}
        return {"action": self.action, **marks, **self.observation} if self.window else {}

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the contract's canonical JSON, in hexadecimal."""
        text = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def plain(self) -> dict:
        """Returns the contract as JSON knows it."""
        parts = ("observation", "belief", "prediction")
        return {
            "layout": dict(LAYOUT),
            "window": self.window,
            "required": {"step": sorted(self.step), "batch": sorted(self.batch)},
            "action": self.action.plain(),
            **{p: {k: v.plain() for k, v in sorted(getattr(self, p).items())} for p in parts},
            **({"parts": dict(sorted(self.parts.items()))} if self.parts else {}),
        }

    def check_step(self, step: Mapping[str, Tensor], action: Tensor) -> None:
        """Raises ContractError, with the key's name, for a step or action a model cannot observe.

        Looks at keys, dtypes and shapes alone, for less than a microsecond each; whoever acts
        looks at values where they are still on the host (see agents.moment).
        """
        n = action.shape[0] if action.ndim else 0
        if action.dtype is not self.action.dtype or action.shape != (n, *self.action.shape):
            raise _wrong("action", "before the step", action, self.action, (n,))
        for key, spec in self.step.items():
            x = step.get(key)
            if x is None:
                raise _missing(key, "step", step)
            if x.dtype is not spec.dtype or x.shape != (n, *spec.shape):
                raise _wrong(key, "of the step", x, spec, (n,))

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises ContractError, with the key's name, for a batch that a model cannot learn from.

        On a CPU numbers must be finite and within their range. On another device a look at them
        would wait for it: there the loop refuses losses that are not finite.
        """
        keys = self.batch
        for key in keys:
            if key not in batch:
                raise _missing(key, "batch", batch)
        rows = [batch[key].shape[0] if batch[key].ndim else 0 for key in keys]
        b = mode(rows) if rows else 1
        for key, spec in keys.items():
            x = batch[key]
            if x.dtype is not spec.dtype or x.shape != (b, self.window, *spec.shape):
                raise _wrong(key, "of the batch", x, spec, (b, self.window))
        if not b:
            raise ContractError("the batch has no windows; sample b=1 or more")
        for key, spec in keys.items():
            if spec.range and batch[key].device.type == "cpu":
                low, high = (float(x) for x in batch[key].aminmax())
                if not (spec.range[0] <= low and high <= spec.range[1]):
                    raise ContractError(
                        f"{key!r} of the batch has values from {low:g} to {high:g}; allowed are "
                        f"finite ones from {spec.range[0]:g} to {spec.range[1]:g}: look where "
                        "they were recorded"
                    )

    def require(self, saved: Mapping | None, where: object) -> None:
        """Raises ContractError unless `saved`, the `plain` contract of a checkpoint, is this one.

        where: the name of the checkpoint.
        """
        if saved is None:
            raise ContractError(
                f"{where} says nothing of its contract, an older version wrote it; train it anew"
            )
        for key, was, now in _differences(saved, self.plain()):
            raise ContractError(
                f"{where} is of another contract: {key} was {was} and is {now}; build the world "
                "and the model that it is of, or train it anew"
            )


def _differences(one, two, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields (key, what it is in one, what in two) wherever two plain contracts differ."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in sorted(one.keys() | two.keys()):
            yield from _differences(one.get(key), two.get(key), f"{path}.{key}" if path else key)
    elif one != two:
        yield path, *("not there" if x is None else json.dumps(x) for x in (one, two))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _missing(key: str, what: str, found: Mapping) -> ContractError:
    return ContractError(
        f"the {what} has no {key!r}, only {sorted(found)}; show and record {key!r}, or build the "
        "model with other keys"
    )


def _wrong(key: str, where: str, x: Tensor, spec: Spec, lead: tuple[int, ...]) -> ContractError:
    want = (*lead, *spec.shape)
    given = f"{_name(x.dtype)} {tuple(x.shape)}"
    late = len(lead) > 1 and x.shape[1:2] != lead[1:] and x.shape[2:] == want[2:]
    mend = f"sample t={lead[1]}" if late else "give it so, or build the model for what there is"
    return ContractError(f"{key!r} {where} is {given}, not {_name(spec.dtype)} {want}; {mend}")
