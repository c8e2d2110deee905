"""Parts: networks of one's own in the places of a model's; knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ..registry import nearest

Make = Callable[[nn.Module, torch.Generator], nn.Module]


def fit(model: nn.Module, places: Mapping[str, str], parts: Mapping[str, Make] | None, rng) -> dict:
    """Puts what `parts` make in the model's places; returns each one's class, by place.

    places: what each place is called and takes. A part is called with the network that is there,
    to be wrapped or to be measured, and the generator that weights are drawn from; what it returns
    takes and gives what the network does, and is learnt as that is. Raises ValueError for a place
    that is not there, for what cannot be called, and for what is no module.
    """
    found = {}
    for place, make in (parts or {}).items():
        if place not in places:
            raise ValueError(f"no part {place!r}{nearest(place, places)}")
        own = getattr(model, place)
        if own is None:
            raise ValueError(f"this {type(model).__name__} has no {place} to put a part in")
        if not callable(make):
            raise ValueError(
                f"the part {place}={make!r} cannot be called; give what makes a network, in Python"
            )
        made = make(own, rng)
        if not isinstance(made, nn.Module):
            raise ValueError(f"the part {place} is {made!r}; it is to return a torch.nn.Module")
        setattr(model, place, made)
        found[place] = f"{type(made).__module__}.{type(made).__qualname__}"
    return found
