"""ActionSpec: what each component of an action in [-1, 1] means on a body; knows no simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Component:
    """One number of an action: `value = offset + scale * a` in `unit`, seen in `frame`."""

    name: str
    frame: str
    unit: str
    scale: float
    offset: float = 0.0


@dataclass(frozen=True)
class ActionSpec:
    """The components of an action vector, sent `rate` times a second."""

    components: tuple[Component, ...]
    rate: float  # Hz

    def __len__(self) -> int:
        return len(self.components)

    @property
    def scale(self) -> np.ndarray:
        """Returns `(nu,)` float64: units per unit of action."""
        return np.array([c.scale for c in self.components])

    def encode(self, **values: float) -> np.ndarray:
        """Returns the action `(nu,)` float32 that commands the named values, in their units.

        Components not named stay at their offset (action 0). Raises ValueError for an unknown
        name and for a value that no action in [-1, 1] commands.
        """
        action = np.zeros(len(self), np.float32)
        names = [c.name for c in self.components]
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"no action component {name!r}; there are {', '.join(names)}")
            c = self.components[names.index(name)]
            a = (value - c.offset) / c.scale
            if not abs(a) <= 1 + 1e-6:
                low, high = sorted((c.offset - c.scale, c.offset + c.scale))
                raise ValueError(
                    f"{name} = {value:g} {c.unit} is out of reach of one action; "
                    f"it takes {low:g} to {high:g} {c.unit}"
                )
            action[names.index(name)] = a
        return action
