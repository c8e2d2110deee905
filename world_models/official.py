"""Official: weights of TD-MPC2's authors, from their checkpoint files into a model of ours.

Both layouts are read: the present one (`_Qs.params.0.ln.weight`) and that of the files released
with the paper (`_Qs.params.2`, four numbers a layer), of one task or of several at once. Nothing in
a file is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

MOST = 2**33  # bytes of a file
_PARTS = ("weight", "bias", "ln.weight", "ln.bias")
_OURS = {"weight": "weight", "bias": "bias", "ln.weight": "gain", "ln.bias": "shift"}
_CONVOLUTIONS = (2, 4, 6, 8)  # their places among shift, scaling and activations


def read(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of an official checkpoint by their names there, on the CPU.

    Raises ValueError for a file that is no checkpoint of theirs, holds more than tensors, or is
    larger than `MOST`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; download a checkpoint of the authors' first")
    if path.stat().st_size > MOST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; at most {MOST} are read")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (torch.serialization.pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is no file of weights alone: {reason}") from error
    found = found.get("model", found) if isinstance(found, Mapping) else None
    tensors = {k: v for k, v in (found or {}).items() if isinstance(v, Tensor)}
    if "_reward.0.weight" not in tensors:
        raise ValueError(f"{path} holds no TD-MPC2 of its authors (no '_reward.0.weight')")
    return tensors


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives a TDMPC2 the official weights; ValueError where it is not built as theirs was.

    Moments of the optimisers stay as they are; the scale of values is not in their files.
    """
    _check_tasks(model, tensors)
    if not any(k.startswith("_encoder.rgb" if model.pixels else "_encoder.state") for k in tensors):
        own, there = ("pixels", "vectors") if model.pixels else ("vectors", "pixels")
        raise ValueError(f"the model sees {own}, the checkpoint {there}; choose other keys=")
    pairs = list(_pairs(model, tensors))
    for name, ours in pairs:
        if name not in tensors:
            raise ValueError(f"the checkpoint has no {name!r}; build the model with its size")
        if tensors[name].shape != ours.shape:
            raise ValueError(
                f"{name!r} has shape {tuple(tensors[name].shape)} there and {tuple(ours.shape)} "
                "here; build the model with the size, observations and actions of the checkpoint"
                + (", its task_width and latent" if model.tasks is not None else "")
            )
    for name, ours in pairs:
        ours.copy_(tensors[name])
    if model.tasks is not None:
        model.tasks.project()  # theirs are as the last update left them


def _check_tasks(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have as many tasks, with as many action components each."""
    there = len(tensors["_task_emb.weight"]) if "_task_emb.weight" in tensors else 1
    here = 1 if model.tasks is None else len(model.tasks.names)
    if there != here or ("_task_emb.weight" in tensors) != (model.tasks is not None):
        raise ValueError(
            f"the checkpoint is of {there} tasks at once, the model of {here}; build it with tasks="
        )
    masks = tensors.get("_action_masks")  # the paper's files may lack it
    if model.tasks is None or masks is None:
        return
    theirs, ours = (x.sum(1).int().tolist() for x in (masks, model.tasks.mask))
    if theirs != ours:
        raise ValueError(f"the tasks have {theirs} action components there and {ours} here")


def _pairs(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the official name of each tensor of ours, and ours."""
    heads = {"_dynamics": model.dynamics, "_reward": model.reward, "_pi": model.policy}
    if model.terminal is not None:
        heads["_termination"] = model.terminal
    if model.pixels:
        for k, layer in zip(_CONVOLUTIONS, model.encoder.convolutions, strict=True):
            yield f"_encoder.rgb.{k}.weight", layer.weight
            yield f"_encoder.rgb.{k}.bias", layer.bias
    else:
        heads["_encoder.state"] = model.encoder.net
    for head, net in heads.items():
        for k, layer in enumerate(net.layers):
            for part in _PARTS[: 4 if hasattr(layer, "gain") else 2]:
                yield f"{head}.{k}.{part}", getattr(layer, _OURS[part])
    if model.tasks is not None:
        yield "_task_emb.weight", model.tasks.weight
    old = "_Qs.params.0" in tensors
    there = ("_Qs.params", "_target_Qs.params" if old else "_target_Qs_params")
    for prefix, critics in zip(there, (model.critics, model.target), strict=True):
        last = len(critics.weight) - 1
        for k in range(last + 1):
            for j, part in enumerate(_PARTS[: 4 if k < last else 2]):
                name = f"{prefix}.{4 * k + j}" if old else f"{prefix}.{k}.{part}"
                yield name, getattr(critics, _OURS[part])[k]
