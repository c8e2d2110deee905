"""Limits: what a plan of actions must keep to; it knows neither the planner nor the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Bound = float | Sequence[float]

_ROUNDING = 2e-7  # float32 sums and differences of numbers in [-1, 1] are off by less


@dataclass(frozen=True)
class Limits:
    """Bounds of an action, of its change, and of where the world may be brought.

    low, high: bounds within [-1, 1], a number or one per component. rate: how far a component may
    be from where it was one action before, a number or one per component; before an episode's
    first action lies 0, or the bound next to it. Bounds and rate hold whatever is chosen.

    keep_out: maps what the model decodes, `{key: (m, ...)}`, to `(m,)` bool, True inside. A plan
    that the model sees arriving inside is worth less than any that stays out, and the less the
    more steps it is inside; steps after a likely end do not count. It is as good as the model.
    """

    low: Bound = -1.0
    high: Bound = 1.0
    rate: Bound | None = None
    keep_out: Callable[[dict[str, Tensor]], Tensor] | None = None

    def __post_init__(self):
        """Raises ValueError for bounds that hold no action and for a rate that is not > 0."""
        for name in ("low", "high", "rate"):
            value = getattr(self, name)
            if isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(float(v) for v in value))
        lows, highs = _listed(self.low), _listed(self.high)
        if len(lows) == 1 or len(highs) == 1:
            lows, highs = lows * len(highs), highs * len(lows)
        if len(lows) != len(highs):
            raise ValueError(f"low has {len(lows)} components and high {len(highs)}; give as many")
        for low, high in zip(lows, highs, strict=True):
            if not -1 <= low <= high <= 1:
                raise ValueError(f"low {low} and high {high}: choose -1 <= low <= high <= 1")
        if self.rate is not None and not all(rate > 0 for rate in _listed(self.rate)):
            raise ValueError(f"rate {self.rate} is not > 0; None lets actions jump")

    def check(self, nu: int) -> None:
        """Raises ValueError if a limit is given for another number of components than nu."""
        for name in ("low", "high", "rate"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != nu:
                raise ValueError(f"{name} has {len(value)} components, an action {nu}")

    def spread(self, unit: Tensor) -> Tensor:
        """Returns numbers (..., nu) of [-1, 1] stretched over [low, high]."""
        low, high = _like(unit, self.low), _like(unit, self.high)
        return unit * ((high - low) / 2) + (high + low) / 2

    def step(self, action: Tensor, last: Tensor) -> Tensor:
        """Returns what is allowed next to `action` (..., nu) when `last` (..., nu) came before."""
        return self.project(action[..., None, None, :], last).reshape(action.shape)

    def project(self, plans: Tensor, last: Tensor) -> Tensor:
        """Returns plans (n, k, h, nu), each action moved to what is allowed after the one before.

        `last` (n, nu) was done before all of them.
        """
        low, high = _like(plans, self.low), _like(plans, self.high)
        if self.rate is None:
            return plans.clamp(low, high)
        reach = (_like(plans, self.rate) - _ROUNDING).clamp_min(0.0)
        before, allowed = last.to(plans.dtype)[..., None, :].clamp(low, high), []
        for action in plans.unbind(-2):
            nearest = torch.maximum(before - reach, low)
            before = action.clamp(nearest, torch.minimum(before + reach, high))
            allowed.append(before)
        return torch.stack(allowed, -2)


def _like(plans: Tensor, bound: Bound) -> Tensor:
    return _sent(bound, plans.device, plans.dtype)


@functools.cache
def _sent(bound: Bound, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Once: to send numbers to a GPU is to wait until all is done that was asked of it before.
    with torch.inference_mode(False):  # a gradient may need them later
        return torch.tensor(bound, device=device, dtype=dtype)


def _listed(value: Bound) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
