"""Parallel: processes that learn as one from parts of a batch; knows no model, world or folder.

Started by `torchrun`, rank 0 leads: it alone collects, draws windows, logs and saves. It hands
every rank an equal part of each batch; gradients are averaged, so all ranks keep the same
parameters.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=7)  # the leader may collect and score for long between two updates
_STOP, _AS_BEFORE = 0, -1

Batch = dict[str, Tensor]


class Share:
    """Which part of a batch is this process's; alone it is all of it, and nothing is exchanged."""

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu"):
        """device: where batches lie."""
        self.rank, self.size, self.device = rank, size, torch.device(device)
        self._form: list[tuple] = []  # key, dtype and shape of all that the last part held

    @classmethod
    def join(cls, device: str = "auto") -> Share:
        """Returns this process's part in the group that torchrun started, alone without one.

        device: auto, cpu or cuda; of several GPUs each process on a machine takes its own.
        """
        if int(os.environ.get("WORLD_SIZE", 1)) < 2:
            return cls()
        gpu = device != "cpu" and torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), "cuda" if gpu else "cpu")

    @property
    def leads(self) -> bool:
        """Whether this process is the one that collects, draws, logs and saves."""
        return self.rank == 0

    # ---- what a model calls in its update

    def part(self, draw: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int], dim: int = 0):
        """Returns this process's part of what `draw` gives for the whole batch.

        shape: that of the part; `dim` counts the batch's rows.
        """
        shape = tuple(shape)
        if self.size == 1:
            return draw(shape)
        m = shape[dim]
        whole = draw((*shape[:dim], m * self.size, *shape[dim + 1 :]))
        return whole.narrow(dim, self.rank * m, m)

    def gather(self, x: Tensor) -> Tensor:
        """Returns the parts x (m, ...) of all processes, (size m, ...), in the batch's order."""
        if self.size == 1:
            return x
        parts = [
            torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)
        ]
        dist.all_gather(parts, x.detach().contiguous())
        return torch.cat(parts)

    @torch.no_grad()
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Sets tensors, such as gradients, to their means over the processes, to the same bits."""
        if self.size == 1:
            return
        bucket = torch.cat([x.flatten() for x in tensors])
        dist.all_reduce(bucket)
        bucket /= self.size
        parts = bucket.split([x.numel() for x in tensors])
        torch._foreach_copy_(
            list(tensors), [p.view_as(x) for p, x in zip(parts, tensors, strict=True)]
        )

    # ---- what the loop calls

    def adopt(self, learner) -> None:
        """Lets a learner learn as one with those of the other processes.

        Raises ValueError where its batch cannot be parted equally among them.
        """
        if learner.batch_size % self.size:
            raise ValueError(
                f"a batch of {learner.batch_size} windows is not parted equally among {self.size} "
                "processes; choose another model.batch_size or --nproc-per-node"
            )
        learner.share = self

    def agree(self, learner) -> None:
        """Gives the learners of the other processes the leader's tensors."""
        if self.size == 1:
            return
        own = learner.checkpoint() if self.leads else {}
        order = sorted(own)
        form = self._told_form([(k, str(own[k].dtype)[6:], tuple(own[k].shape)) for k in order])
        tensors = {
            k: own[k] if self.leads else torch.empty(shape, dtype=getattr(torch, kind))
            for k, kind, shape in form
        }
        for tensor in (x for x in tensors.values() if x.numel()):
            dist.broadcast(_bytes(tensor), 0)
        if not self.leads:
            learner.restore(tensors)

    def hand_out(self, batch: Batch) -> Batch:
        """Sends every process its part of a batch, `{key: (b, ...)}`; returns the leader's."""
        if self.size == 1:
            return batch
        order = sorted(batch, key=lambda k: (-batch[k].element_size(), k))  # keeps all aligned
        parts = {k: batch[k].chunk(self.size) for k in order}
        form = [(k, str(batch[k].dtype)[6:], tuple(parts[k][0].shape)) for k in order]
        if form == self._form:
            self._tell(_AS_BEFORE)
        else:
            self._form = self._told_form(form)
        packed = [torch.cat([_bytes(parts[k][r]) for k in order]) for r in range(self.size)]
        dist.scatter(packed[0].clone(), packed, 0)
        return {k: parts[k][0] for k in order}

    def receive(self) -> Batch | None:
        """Returns this process's part of the leader's next batch, or None where it has ended."""
        size = self._tell(0)
        if size == _STOP:
            return None
        if size != _AS_BEFORE:
            self._form = self._heard_form(size)
        form = [(k, getattr(torch, kind), shape) for k, kind, shape in self._form]
        sizes = [torch.Size(shape).numel() * d.itemsize for _, d, shape in form]
        packed = torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        dist.scatter(packed, None, 0)
        parts = zip(form, packed.split(sizes), strict=True)
        return {k: part.view(d).view(shape) for (k, d, shape), part in parts}

    def dismiss(self) -> None:
        """Tells the other processes that the leader has ended."""
        if self.size > 1:
            self._tell(_STOP)

    def _told_form(self, form: list[tuple]) -> list[tuple]:
        """Returns the leader's form, on every process."""
        told = json.dumps(form).encode()
        size = self._tell(len(told))
        if not self.leads:
            return self._heard_form(size)
        dist.broadcast(torch.frombuffer(bytearray(told), dtype=torch.uint8), 0)
        return form

    def _heard_form(self, size: int) -> list[tuple]:
        told = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(told, 0)
        return [tuple(x) for x in json.loads(told.numpy().tobytes())]

    def _tell(self, word: int) -> int:
        told = torch.tensor([word])
        dist.broadcast(told, 0)
        return int(told)


ALONE = Share()


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().flatten().view(torch.uint8)
