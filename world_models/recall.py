"""Recall: the belief that a model had of each recorded step when it last met it.

First as it acted, then whenever it learnt from the step. It knows a step by its place among all
recorded steps (see `Replay`), and no model.
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
    visited last has the slot. Where a step lies is known once its episode is recorded (`settle`);
    what was believed while acting (`hear`) waits for that, on the host.
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
        self._open: dict[int, list[dict[str, np.ndarray]]] = {}  # by row, of episodes in hand
        self._ended: list[list[dict[str, np.ndarray]]] = []  # that wait for their places

    def hear(self, step: dict[str, np.ndarray], carry: dict[str, np.ndarray]) -> None:
        """Takes in what a policy's carry says it believes at a step (n rows) that it acted in.

        A belief whose categories are all 0 is none: such a step stays unknown.
        """
        if "belief/deter" not in carry:
            return
        stoch = carry["belief/stoch"]
        new = {
            "deter": carry["belief/deter"].astype(np.float16),
            "stoch": stoch.argmax(-1).astype(np.uint8), "action": step["action"],
            "known": stoch.any((1, 2)),
        }  # fmt: skip
        for row in range(len(stoch)):
            if step["first"][row]:
                self._open[row] = []
            if row in self._open:
                self._open[row].append({k: v[row] for k, v in new.items()})
                if step["last"][row]:
                    self._ended.append(self._open.pop(row))

    def settle(self, lengths: np.ndarray) -> None:
        """Keeps the beliefs of the episodes that have ended, now that it is known where they lie.

        lengths: (e,), the steps of all recorded episodes, of those that have ended since last time
        behind all others.
        """
        ended, self._ended = self._ended, []
        first, starts = len(lengths) - len(ended), np.cumsum(lengths) - lengths
        for steps, start, length in zip(ended, starts[first:], lengths[first:], strict=True):
            if len(steps) == length:  # else it is another's, which came in between
                found = {k: torch.from_numpy(v).to(self._device) for k, v in _joined(steps).items()}
                known = found.pop("known")
                place = start + torch.arange(len(known), device=self._device)
                self._put(place[known], {k: v[known] for k, v in found.items()})

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

    def before(self, place: Tensor) -> dict[str, Tensor]:
        """Returns what `read` finds one step before places (b,), as `before/...` of a batch."""
        belief, action = self.read(place - 1)
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
        found = {f"recall/{k}": v[rows].cpu() for k, v in kept.items()}
        waiting = {-1 - i: steps for i, steps in enumerate(self._ended)} | self._open
        whose = [np.full(len(steps), number) for number, steps in waiting.items()]
        if any(map(len, whose)):
            hand = _joined([step for steps in waiting.values() for step in steps])
            hand["whose"] = np.concatenate(whose)  # a row, or -1 - i of the i-th that has ended
            found |= {f"recall/hand/{k}": torch.from_numpy(v) for k, v in hand.items()}
        return found

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
        hand = {k[12:]: v.numpy() for k, v in saved.items() if k.startswith("recall/hand/")}
        waiting: dict[int, list] = {}
        whose = hand.pop("whose", np.zeros(0, np.int64)).tolist()
        for i, number in enumerate(whose):
            waiting.setdefault(number, []).append({k: v[i] for k, v in hand.items()})
        self._open = {number: steps for number, steps in waiting.items() if number >= 0}
        self._ended = [waiting[n] for n in sorted(waiting, reverse=True) if n < 0]

    def _tables(self) -> dict[str, Tensor]:
        if not self._kept:
            for key, width in self._widths.items():
                # Memory of numpy is taken page by page, as steps come to be known.
                table = torch.from_numpy(np.zeros((self.slots, *width), self._kinds[key]))
                self._kept[key] = table.to(self._device)
        return self._kept


def _joined(steps: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}
