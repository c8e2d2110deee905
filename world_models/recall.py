"""Recall: the belief that a model had of each recorded step when it last learnt from it.

It knows a step by its place among all recorded steps (see `Replay`), and no model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .model import Belief


class Recall:
    """Keeps beliefs `deter` (·, deter), `stoch` (·, stoch, classes) and the actions taken there.

    States lie between -1 and 1 and are kept in float16, finer than the bfloat16 in which the
    published model computes them; of categories the index is kept. A step's slot is its place
    modulo as many as fit into `room` bytes: where more steps than that are recorded, the one
    visited last has the slot.
    """

    def __init__(
        self, deter: int, stoch: int, classes: int, nu: int, room: int, device: torch.device
    ):
        self._widths = {"deter": (deter,), "stoch": (stoch,), "action": (nu,), "tag": ()}
        self._kinds = dict(zip(self._widths, (np.float16, np.uint8, np.float32, np.int64),
                               strict=True))  # fmt: skip
        each = 2 * deter + stoch + 4 * nu + 8
        self.slots, self._classes, self._device = max(room // each, 1), classes, device
        self._kept: dict[str, Tensor] = {}

    def read(self, place: Tensor) -> tuple[Belief, Tensor]:
        """Returns the beliefs (b, ...) at places (b,) and the actions taken there.

        Of steps that are not known all is 0.
        """
        kept = self._tables()
        slot = place.clamp(min=0) % self.slots
        known = kept["tag"][slot] == place + 1
        one_hot = torch.nn.functional.one_hot(kept["stoch"][slot].long(), self._classes)
        found = kept["deter"][slot].float(), one_hot.float(), kept["action"][slot]
        deter, stoch, action = (x * known.view(-1, *[1] * (x.ndim - 1)) for x in found)
        return {"deter": deter, "stoch": stoch}, action

    @torch.no_grad()
    def write(self, place: Tensor, belief: Belief, action: Tensor) -> None:
        """Keeps beliefs (m, ...) and actions (m, nu) at places (m,); the last of equals counts."""
        kept, slot = self._tables(), place % self.slots
        order = slot.argsort(stable=True)
        slot = slot[order].contiguous()
        # Equals are all given the last one's: to pick it alone would wait for the device.
        rows = order[torch.searchsorted(slot, slot, right=True) - 1]
        new = {"deter": belief["deter"], "stoch": belief["stoch"].argmax(-1), "action": action}
        for key, value in (new | {"tag": place + 1}).items():
            kept[key][slot] = value[rows].to(kept[key].dtype)

    def save(self) -> dict[str, Tensor]:
        """Returns all that is known as tensors on the CPU, in the order of the places."""
        kept = self._tables()
        rows = kept["tag"].nonzero()[:, 0]
        rows = rows[kept["tag"][rows].argsort()]
        return {f"recall/{k}": v[rows].cpu() for k, v in kept.items()}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Knows what `save` gave, and nothing else; ValueError where a shape is another."""
        for key, width in self._widths.items():
            if (shape := saved[f"recall/{key}"].shape[1:]) != width:
                raise ValueError(f"{key!r} was kept of shape {tuple(shape)}, here it is {width}")
        kept = self._tables()
        kept["tag"].zero_()
        slot = ((saved["recall/tag"] - 1) % self.slots).to(self._device)
        for key, table in kept.items():
            table[slot] = saved[f"recall/{key}"].to(self._device)

    def _tables(self) -> dict[str, Tensor]:
        if not self._kept:
            for key, width in self._widths.items():
                # Memory of numpy is taken page by page, as steps come to be known.
                table = torch.from_numpy(np.zeros((self.slots, *width), self._kinds[key]))
                self._kept[key] = table.to(self._device)
        return self._kept
