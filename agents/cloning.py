"""Cloning: a policy that does what was recorded; it knows no task and no expert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from ..nets import MLP
from ..optimise import Optimiser
from ..registry import nearest
from ..world_models.contract import Contract, Spec
from .policy import Carry, Chunked, Policy, Step

FLAT = 1e-2  # the least deviation that an observation is divided by


class BC(Policy):
    """Behaviour cloning: learns to act as in recorded episodes, and acts by what it has learnt.

    An MLP maps the vectors of one step, normalised, to the next `horizon` actions, by regression
    with the L1 loss. Of these `execute` are done before it looks again; where it is one, a clone
    may stand for ever before a threshold at which the expert would have closed its jaws. What
    follows an episode's end, its last step's action included, was never done and is not learnt.
    It acts by the moving average of its weights.

    space: observations of one row. nu: components of an action. keys: the vectors it reads, by
    default all. hidden: units of each of the `layers` hidden layers. The rest are Optimiser's:
    `cosine` is the update at which the learning rate has fallen to 0, the last one by default.

    Source: Pomerleau 1988 (cloning); Zhao et al. 2023, arXiv:2304.13705 (chunks, their L1 loss
    with what is past the end masked, normalisation with deviations of at least 0.01).

    Raises ValueError for keys that are no vectors, and for numbers out of range.
    """

    across = True  # a window may run past its episode's end, so that every step opens one

    def __init__(
        self,
        space: gymnasium.spaces.Dict,
        nu: int,
        /,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        keys: Sequence[str] | None = None,
        hidden: int = 512,
        layers: int = 2,
        horizon: int = 4,
        execute: int = 2,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: int = 100,
        cosine: int = 0,
        ema: float = 0.99,
        accumulate: int = 1,
        clip: float = 10.0,
    ):
        whole = {"hidden": hidden, "layers": layers, "horizon": horizon, "execute": execute}
        whole |= {"batch_size": batch_size, "accumulate": accumulate}
        _check(whole, int, 1)
        _check({"warmup": warmup, "cosine": cosine}, int, 0)
        real = {"learning_rate": learning_rate, "weight_decay": weight_decay, "ema": ema}
        _check(real | {"clip": clip}, float, 0)
        if accumulate > batch_size:
            raise ValueError(f"accumulate={accumulate} parts of batch_size={batch_size} are empty")
        self.keys, self.nu = _vectors(space, keys), nu
        self.window, self.batch_size, self.device = horizon, batch_size, torch.device(device)
        self._contract = Contract(
            observation={k: Spec.of(space[k]) for k in self.keys},
            action=Spec((nu,), low=-1.0, high=1.0),
            belief={"chunk": Spec((horizon, nu)), "at": Spec((), torch.int64)},
            prediction={"chunk": Spec((horizon, nu))},
            window=horizon,
        )
        inputs = {k: space[k].shape[0] for k in self.keys}
        rng = torch.Generator().manual_seed(seed % 2**63)
        net = _Net(inputs, [hidden] * layers, (horizon, nu), rng).to(self.device)
        self._optimiser = Optimiser(
            net, rate=learning_rate, warmup=min(warmup, cosine or warmup), cosine=cosine,
            decay=weight_decay, ema=ema, accumulate=accumulate, clip=clip,
        )  # fmt: skip
        self._chunks = Chunked(self._propose, horizon, nu, execute)

    def io_contract(self) -> Contract:
        """Returns what it takes and tells: windows of `horizon` steps, and chunks."""
        return self._contract

    @torch.no_grad()
    def fit(self, moments: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Normalises by each key's `mean` and `std` (d,), as `Episodes.stats` gives them."""
        for net in (self._optimiser.module, self._optimiser.average):
            for part, buffer in (("mean", net.mean), ("std", net.std)):
                told = np.concatenate([np.asarray(moments[k][part]) for k in self.keys])
                buffer.copy_(torch.from_numpy(told))
            net.std.clamp_(min=FLAT)

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Learns from a batch of windows `{key: (b, horizon, ...)}`; returns 0-d metrics.

        Raises ContractError for a batch that is not as its contract says.
        """
        self._contract.check_batch(batch)
        read = {k: batch[k] for k in (*self.keys, "action", "last")}
        return self._optimiser.update(read, self._loss)

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        chunk = self._optimiser.module(*(batch[k][:, 0] for k in self.keys))
        done = batch["last"].cumsum(1) == 0  # an action chosen at a last step reaches no world
        error = (chunk - batch["action"]).abs().mean(-1)
        return (error * done).sum(), done.sum()

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows: no chunk yet; it draws nothing."""
        return self._chunks.start(seeds)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns the chunks' next actions `(n, nu)` float32, and the carry."""
        return self._chunks.act(step, carry)

    @torch.no_grad()
    def _propose(self, step: Step) -> np.ndarray:
        seen = (torch.from_numpy(np.asarray(step[k])).to(self.device) for k in self.keys)
        return self._optimiser.average(*seen).clamp(-1, 1).cpu().numpy()

    def checkpoint(self) -> dict[str, Tensor]:
        """Returns copies of weights, normalisation, average and the optimiser's memory, by name."""
        return {k: v.detach().cpu().clone() for k, v in self._optimiser.tensors().items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `checkpoint` returned; ValueError if it is of another network."""
        own = self._optimiser.tensors()
        shapes = {k: v.shape for k, v in own.items()}
        if shapes != {k: v.shape for k, v in tensors.items()}:
            raise ValueError(
                "the checkpoint is not of this network; build it with the settings, world and "
                "keys of the run"
            )
        for key, tensor in own.items():
            tensor.copy_(tensors[key])
        self._optimiser.went_on(int(tensors["updates"]))


class _Net(nn.Module):
    """Vectors (b, ·), normalised and joined, to chunks (b, h, nu)."""

    def __init__(
        self,
        inputs: Mapping[str, int],
        hidden: list[int],
        chunk: tuple[int, int],
        rng: torch.Generator,
    ):
        super().__init__()
        width = sum(inputs.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.mlp, self._chunk = MLP([width, *hidden, math.prod(chunk)], rng), chunk

    def forward(self, *parts: Tensor) -> Tensor:
        x = (torch.cat(parts, -1) - self.mean) / self.std
        return self.mlp(x).unflatten(-1, self._chunk)


def _vectors(space: gymnasium.spaces.Dict, keys: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the sorted keys of float32 vectors, all or those named; ValueError for others."""
    fit = [k for k, s in space.items() if s.dtype == np.float32 and len(s.shape) == 1]
    fit = [k for k in fit if not k.startswith("label/")]
    chosen = fit if keys is None else sorted({keys} if isinstance(keys, str) else set(keys))
    for key in chosen:
        if key not in fit:
            why = "is no vector" if key in space.spaces else "is not observed"
            raise ValueError(f"the key {key!r} {why}{nearest(key, fit)}")
    if not chosen:
        raise ValueError(f"no vector to learn from{nearest('', fit)}")
    return tuple(sorted(chosen))


def _check(given: Mapping[str, object], kind: type, least: int) -> None:
    """Raises ValueError for what is no number of its kind, or too small."""
    for name, value in given.items():
        fits = type(value) is int or (kind is float and type(value) is float)
        if not fits or not value >= least:
            wanted = "whole number" if kind is int else "number"
            raise ValueError(f"{name}={value} of bc must be a {wanted} of at least {least}")
