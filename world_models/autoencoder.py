"""Vectors and images to tokens, and from beliefs back to what was observed; knows no dynamics."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import MLP, BlockLinear, Linear, RMSNorm, fan_in_normal
from ..nets import symexp, symlog
from .encoders import PIXELS, is_image, is_vector

WIDEN = (2, 3, 4, 4)  # channels of the four maps, in units of `depth`
KERNEL = 5
LEAST = PIXELS // 2 ** len(WIDEN)  # height and width of the last map


def choose_senses(
    space: gymnasium.spaces.Dict, keys: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the sorted keys of the vectors and of the 64 x 64 images that a model reads.

    `None` means all of them but labels. Raises ValueError, with what is allowed, for other keys
    and where there are none.
    """
    shown = {k: s for k, s in space.items() if not k.startswith("label/")}
    vectors = sorted(k for k, s in space.items() if is_vector(s))
    images = sorted(
        k for k, s in shown.items() if is_image(k, s) and s.shape == (PIXELS, PIXELS, 3)
    )
    chosen = {keys} if isinstance(keys, str) else set(shown if keys is None else keys)
    if keys is not None and (odd := sorted(chosen - {*vectors, *images})):
        raise ValueError(
            f"{odd[0]!r} is no vector of {vectors} and no image of {images} "
            f"(images are rendered with size=({PIXELS}, {PIXELS}))"
        )
    found = tuple(k for k in vectors if k in chosen), tuple(k for k in images if k in chosen)
    if not any(found):
        raise ValueError(f"no observation keys to read; there are {sorted(space)}")
    return found


class Conv(nn.Module):
    """A convolution of 5 x 5 over images (m, h, w, channels) that keeps their size."""

    def __init__(self, inputs: int, outputs: int, rng: torch.Generator):
        super().__init__()
        shape = (outputs, inputs, KERNEL, KERNEL)
        self.weight = nn.Parameter(fan_in_normal(shape, inputs * KERNEL**2, rng))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (m, h, w, inputs) to (m, h, w, outputs)."""
        y = F.conv2d(x.movedim(-1, 1), self.weight, self.bias, padding=KERNEL // 2)
        return y.movedim(1, -1)


class Encoder(nn.Module):
    """Symlogs of all vectors through an MLP, all images through convolutions; joined as tokens.

    Every convolution is followed by 2 x 2 max pooling. Source: as `rssm.RSSM`.
    """

    def __init__(
        self,
        space: gymnasium.spaces.Dict,
        vectors: tuple[str, ...],
        images: tuple[str, ...],
        units: int,
        depth: int,
        rng: torch.Generator,
    ):
        super().__init__()
        self.vectors, self.images, self.width = vectors, images, 0
        if vectors:
            self.mlp = MLP(sum(space[k].shape[0] for k in vectors), units, 3, rng)
            self.width += units
        if images:
            widths = [3 * len(images), *(depth * m for m in WIDEN)]
            self.convs = nn.ModuleList(Conv(widths[i], widths[i + 1], rng) for i in range(4))
            self.norms = nn.ModuleList(RMSNorm(w) for w in widths[1:])
            self.width += LEAST**2 * widths[-1]

    def forward(self, step: dict[str, Tensor]) -> Tensor:
        """Maps observations {key: (..., ·)} to tokens (..., width)."""
        found = []
        if self.vectors:
            found.append(self.mlp(symlog(torch.cat([step[k] for k in self.vectors], -1))))
        if self.images:
            x = torch.cat([step[k] for k in self.images], -1)
            rows, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:]).float().div(255).sub(0.5)
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = norm(F.max_pool2d(conv(x).movedim(-1, 1), 2).movedim(1, -1))
            found.append(x.reshape(*rows, -1))
        return torch.cat(found, -1)


class Decoder(nn.Module):
    """Beliefs back to symlogs of vectors by an MLP, to images by growing convolutions.

    The smallest map is a block-diagonal function of the deterministic state plus an MLP of the
    categories; the nearest pixel is repeated to double a map. Source: as `rssm.RSSM`.
    """

    def __init__(
        self,
        space: gymnasium.spaces.Dict,
        vectors: tuple[str, ...],
        images: tuple[str, ...],
        widths: tuple[int, int],
        units: int,
        depth: int,
        rng: torch.Generator,
        blocks: int = 8,
    ):
        super().__init__()
        self.vectors, self.images, self.blocks = vectors, images, blocks
        deter, stoch = widths
        if vectors:
            self.mlp = MLP(deter + stoch, units, 3, rng)
            self.heads = nn.ModuleList(Linear(units, space[k].shape[0], rng) for k in vectors)
        if images:
            maps = [depth * m for m in WIDEN]
            self.of_deter = BlockLinear(deter, LEAST**2 * maps[-1], blocks, rng)
            self.of_stoch = nn.Sequential(
                MLP(stoch, 2 * units, 1, rng), Linear(2 * units, LEAST**2 * maps[-1], rng)
            )
            growing = [*maps[::-1], 3 * len(images)]
            self.convs = nn.ModuleList(Conv(growing[i], growing[i + 1], rng) for i in range(4))
            self.norms = nn.ModuleList(RMSNorm(w) for w in growing[:-1])

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        """Maps deter (..., ·) and flat categories (..., ·) to symlogs of vectors and images.

        Images are (..., 64, 64, 3) in [0, 1].
        """
        found = {}
        if self.vectors:
            x = self.mlp(torch.cat([deter, stoch], -1))
            found = {k: f(x).float() for k, f in zip(self.vectors, self.heads, strict=True)}
        if self.images:
            rows = deter.shape[:-1]
            flat = (x.reshape(-1, x.shape[-1]) for x in (deter, stoch))
            grown = self._grow(*flat).reshape(*rows, PIXELS, PIXELS, -1)
            found |= dict(zip(self.images, grown.chunk(len(self.images), -1), strict=True))
        return found

    def _grow(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = self.of_deter(deter.unflatten(-1, (self.blocks, -1)))
        x = x.unflatten(-1, (self.blocks, LEAST, LEAST, -1)).movedim(1, -2).flatten(-2)
        x = x + self.of_stoch(stoch).unflatten(-1, (LEAST, LEAST, -1))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            doubled = norm(x).repeat_interleave(2, -2).repeat_interleave(2, -3)
            x = conv(doubled)
        return torch.sigmoid(x.float())

    def loss(self, found: dict[str, Tensor], step: dict[str, Tensor]) -> Tensor:
        """Returns the squared error (...) of symlogs and of images in [0, 1], summed over all."""
        total = sum((found[k] - symlog(step[k])).square().sum(-1) for k in self.vectors)
        for k in self.images:
            total = total + (found[k] - step[k].float() / 255).square().sum((-3, -2, -1))
        return total

    def observation(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns what `forward` found as observations: vectors in their units, uint8 images."""
        images = {k: (found[k] * 255).round().to(torch.uint8) for k in self.images}
        return {k: symexp(found[k]) for k in self.vectors} | images
