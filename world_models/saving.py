"""What a model's checkpoint has in common with every other's; knows no model and no file."""

from __future__ import annotations

import torch
from torch import Tensor


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous copies of the tensors on the CPU."""
    return {
        k: v.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for k, v in tensors.items()
    }


@torch.no_grad()
def put_back(own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Copies the saved tensors into a model's own.

    Raises ValueError, before any is changed, where one is missing, unknown or of another shape.
    """
    if odd := sorted(own.keys() ^ saved.keys()):
        raise ValueError(f"checkpoint and model differ in {odd[0]!r}; build the model it is of")
    for key, tensor in saved.items():
        if tensor.shape != own[key].shape:
            raise ValueError(
                f"{key!r} has shape {tuple(tensor.shape)}, the model {tuple(own[key].shape)}; "
                "build it with the size, spaces and keys of the checkpoint"
            )
    for key, tensor in own.items():
        tensor.copy_(saved[key])
