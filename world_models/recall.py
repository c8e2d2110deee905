"""Recall: the belief that a model had of each recorded step when it last met it.

First as it acted, then whenever it learnt from the step. It knows a step by its place (see `Replay`
and `Stream`), and no model.
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
    visited last has the slot. At place -1 there is no step.
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

    def hear(self, place: np.ndarray, action: np.ndarray, carry: dict[str, np.ndarray]) -> None:
        """Keeps what a policy's carry says it believes of n steps, as it acted in them.

        place: (n,); action: (n, nu). A belief whose categories are all 0 is none: such a step stays
        unknown.
        """
        if "belief/deter" not in carry:
            return
        stoch = carry["belief/stoch"]
        known = stoch.any((1, 2)) & (place >= 0)
        new = {"deter": carry["belief/deter"], "stoch": stoch.argmax(-1), "action": action}
        if known.any():
            new = {k: torch.from_numpy(v[known]).to(self._device) for k, v in new.items()}
            self._put(torch.from_numpy(place[known]).to(self._device), new)

    def read(self, place: Tensor) -> tuple[Belief, Tensor]:
        """Returns the beliefs (b, ...) at places (b,) and the actions taken there.

        Of steps that are not known all is 0.
        """
        kept = self._tables()
        slot = place % self.slots
        known = (kept["tag"][slot] == place + 1) & (place != -1)
        one_hot = torch.nn.functional.one_hot(kept["stoch"][slot].long(), self._classes)
        found = kept["deter"][slot].float(), one_hot.float(), kept["action"][slot]
        deter, stoch, action = (x * known.view(-1, *[1] * (x.ndim - 1)) for x in found)
        return {"deter": deter, "stoch": stoch}, action

    def before(self, place: Tensor) -> dict[str, Tensor]:
        """Returns what `read` finds of the step before windows, as `before/...` of a batch.

        place: (b, 1 + t), as batches have it.
        """
        belief, action = self.read(place[:, 0])
        return {f"before/{k}": v for k, v in (belief | {"action": action}).items()}

    @torch.no_grad()
    def write(self, place: Tensor, belief: Belief, action: Tensor) -> None:
        """Keeps beliefs (m, ...) and actions (m, nu) at places (m,); the last of equals counts."""
        new = {"deter": belief["deter"], "stoch": belief["stoch"].argmax(-1), "action": action}
        self._put(place, new)

    def _put(self, place: Tensor, new: dict[str, Tensor]) -> None:
        kept, slot = self._tables(), place % self.slots
        order = slot.argsort(stable=True)
        slot = slot[order].contiguous()
        # Equals are all given the last one's: to pick it alone would wait for the device.
        rows = order[torch.searchsorted(slot, slot, right=True) - 1]
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
