"""Optimise: updates by AdamW whose rate warms up and falls, and the average of what it moves.

Schedule and average are torch's. It knows no learner: any module, and any loss that is a sum over
the rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Batch = dict[str, Tensor]


class Optimiser:
    """Moves a module's weights by AdamW and keeps their exponential moving average.

    rate: the learning rate at its highest. warmup, cosine: see `warm_cosine`, which it is
    multiplied by. decay: AdamW's weight decay. ema: the average's share that stays at an update; at
    0 it is the weights themselves. accumulate: how many parts a batch is gone through in, one
    after the other; fewer rows are in memory at a time, and the gradient is the whole batch's.
    clip: what the gradient's norm is cut to.

    Raises ValueError for numbers out of these ranges.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        rate: float = 1e-3,
        warmup: int = 0,
        cosine: int = 0,
        decay: float = 0.01,
        ema: float = 0.0,
        accumulate: int = 1,
        clip: float = math.inf,
    ):
        if not (rate > 0 and decay >= 0 and clip > 0 and 0 <= ema < 1 and accumulate >= 1):
            raise ValueError(
                f"rate={rate} decay={decay} clip={clip} ema={ema} accumulate={accumulate}: choose "
                "rate > 0, decay >= 0, clip > 0, 0 <= ema < 1, accumulate >= 1"
            )
        if not 0 <= warmup <= (cosine or math.inf):
            raise ValueError(f"warmup={warmup} is not from 0 to cosine={cosine}; choose it shorter")
        self.module, self.updates = module, 0
        self._accumulate, self._clip = accumulate, clip
        self._average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self._adam = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
        self._factor = lambda update: warm_cosine(update, warmup, cosine)
        self._schedule = LambdaLR(self._adam, self._factor)

    @property
    def average(self) -> nn.Module:
        """The module with the averaged weights, and the buffers of the last update."""
        return self._average.module

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return self._schedule.get_last_lr()[0]

    def update(self, batch: Batch, loss: Callable[[Batch], tuple[Tensor, Tensor]]) -> Batch:
        """Goes one step down the gradient of the mean loss of a batch `{key: (b, ...)}`.

        `loss(part)` gives the loss summed over a part's rows and the count (0-d) to divide by:
        parts may count differently. Returns 0-d `loss`, `gradient` (its norm) and `rate`.
        """
        rate = torch.tensor(self.rate)
        self._adam.zero_grad()
        total, count = torch.zeros(()), torch.zeros(())
        parts = {k: v.tensor_split(self._accumulate) for k, v in batch.items()}
        for i in range(self._accumulate):
            summed, counted = loss({k: v[i] for k, v in parts.items()})
            summed.backward()
            total, count = summed.detach() + total.to(summed), counted + count.to(summed)
        count = count.clamp_min(1)
        for weight in self.module.parameters():
            if weight.grad is not None:
                weight.grad /= count
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        self._adam.step()
        self._schedule.step()
        self._average.update_parameters(self.module)
        self.updates += 1
        return {"loss": total / count, "gradient": norm, "rate": rate}

    def tensors(self) -> Batch:
        """Returns what going on needs, by name: weights, average, moments and the count of updates.

        All but `updates`, a copy, are the tensors in use.
        """
        found = {f"model/{k}": v for k, v in self.module.state_dict().items()}
        found |= {f"average/{k}": v for k, v in self._average.state_dict().items()}
        for i, weight in enumerate(self.module.parameters()):
            slots = self._adam.state[weight] or {
                "step": torch.zeros(()), "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }  # fmt: skip
            self._adam.state[weight] = slots  # what AdamW itself begins with
            found |= {f"moments/{i}/{k}": v for k, v in slots.items()}
        return found | {"updates": torch.tensor(self.updates)}

    def went_on(self, updates: int) -> None:
        """Puts the schedule where it stood after so many updates."""
        self.updates = updates
        self._schedule = LambdaLR(self._adam, self._factor, updates - 1)


def warm_cosine(update: int, warmup: int, cosine: int) -> float:
    """Returns what the learning rate is multiplied by at update 0, 1, ...

    Over the first `warmup` updates it rises in equal steps, from 1 / warmup to 1; then it falls to
    0, which it has at update `cosine`, by half a cosine. With cosine = 0 it stays at 1.
    Source: Goyal et al. 2017, arXiv:1706.02677 (warm-up); Loshchilov and Hutter 2017,
    arXiv:1608.03983 (cosine, without restarts).
    """
    if update < warmup:
        return (update + 1) / warmup
    if not cosine:
        return 1.0
    done = min((update - warmup) / max(cosine - warmup, 1), 1.0)
    return (1 + math.cos(math.pi * done)) / 2
