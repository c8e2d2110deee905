"""LaProp with adaptive gradient clipping: gradients are normalised first, then gather momentum.

It knows no model. Its state is tensors and one count, so a checkpoint can hold all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LaProp(torch.optim.Optimizer):
    """Clips each tensor's gradient by the tensor's norm, divides by its RMS, adds momentum.

    A gradient's norm is held to `clip` times that of its parameter, taken as at least `floor`.
    The rate rises from 0 over the first `warmup` steps, so the very first one moves nothing.

    Source: Ziyin, Wang and Ueda 2020, arXiv 2002.04839 (LaProp); Brock et al. 2021, arXiv
    2102.06171 (clipping); defaults of DreamerV3, Hafner et al. 2025, Nature 640.
    """

    def __init__(
        self,
        parameters,
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        clip: float = 0.3,
        floor: float = 1e-3,
        warmup: int = 1000,
    ):
        """Raises ValueError where a setting is out of its range; betas: momentum, mean square."""
        if not (lr >= 0 and clip > 0 and floor > 0 and eps > 0 and warmup >= 0):
            raise ValueError(
                f"lr {lr}, clip {clip}, floor {floor}, eps {eps}, warmup {warmup}: "
                "lr and warmup are at least 0, the others above 0"
            )
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"betas {betas} are not in [0, 1)")
        super().__init__(
            parameters,
            {
                "lr": lr, "betas": betas, "eps": eps, "clip": clip, "floor": floor,
                "warmup": warmup, "count": 0,
            },
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:  # from the start: the state has one set of names at any age
                self.state[p] = {"square": torch.zeros_like(p), "momentum": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Moves every parameter that has a gradient; refuses a closure (ValueError)."""
        if closure is not None:
            raise ValueError("LaProp takes no closure; call backward first")
        for group in self.param_groups:
            count, group["count"] = group["count"], group["count"] + 1
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._move(moved, group, count)

    def _move(self, parameters: list[Tensor], group: dict, count: int) -> None:
        momentum, square = group["betas"]
        squares = [self.state[p]["square"] for p in parameters]
        moments = [self.state[p]["momentum"] for p in parameters]
        updates = clipped([p.grad for p in parameters], parameters, group["clip"], group["floor"])
        torch._foreach_mul_(squares, square)
        torch._foreach_addcmul_(squares, updates, updates, 1 - square)
        # v / (1 - b^t), its root, plus epsilon: what each gradient is divided by
        scale = torch._foreach_div(squares, 1 - square ** (count + 1))
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_div_(updates, scale)
        torch._foreach_lerp_(moments, updates, 1 - momentum)
        ramp = min(1.0, count / group["warmup"]) if group["warmup"] else 1.0
        rate = group["lr"] * ramp / (1 - momentum ** (count + 1))
        torch._foreach_add_(parameters, moments, alpha=-rate)


def clipped(
    gradients: list[Tensor], parameters: list[Tensor], clip: float = 0.3, floor: float = 1e-3
) -> list[Tensor]:
    """Returns new gradients, each no longer than `clip` times its parameter's norm or `floor`."""
    longest = torch._foreach_norm(parameters)
    torch._foreach_clamp_min_(longest, floor)
    torch._foreach_mul_(longest, clip)
    excess = torch._foreach_norm(gradients)
    torch._foreach_div_(excess, longest)
    torch._foreach_clamp_min_(excess, 1.0)
    return list(torch._foreach_div(gradients, excess))
