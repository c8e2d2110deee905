"""Which observation keys a model reads and how they become one latent; knows no dynamics."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets import MLP, norm_simnorm, simnorm
from ..parallel import ALONE, Share

FRAMES = 3  # images that make one pixel observation
PIXELS = 64  # height and width of an image


def choose_keys(space: gymnasium.spaces.Dict, keys: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the sorted keys that a model reads: vectors, or one image.

    `None` means every float32 vector that is no label. Raises ValueError, with what is allowed,
    for an unknown key, for vectors and an image together, for several images and for none.
    """
    vectors = sorted(k for k, s in space.items() if is_vector(s) and not k.startswith("label/"))
    images = sorted(k for k, s in space.items() if is_image(k, s))
    chosen = vectors if keys is None else sorted({keys} if isinstance(keys, str) else set(keys))
    allowed = f"choose vectors of {vectors} or one image of {images}"
    if not chosen:
        raise ValueError(f"no observation keys to read; {allowed}")
    if unknown := [k for k in chosen if k not in space.spaces]:
        raise ValueError(f"no observation {unknown[0]!r}; {allowed}")
    if all(is_vector(space[k]) for k in chosen):
        return tuple(chosen)
    if len(chosen) > 1 or chosen[0] not in images:
        raise ValueError(f"keys {chosen} are not vectors alone nor one image alone; {allowed}")
    if space[chosen[0]].shape != (PIXELS, PIXELS, 3):
        shape = space[chosen[0]].shape
        raise ValueError(
            f"{chosen[0]!r} has shape {shape}; an image is (64, 64, 3): render with size=(64, 64)"
        )
    return tuple(chosen)


def is_vector(space: gymnasium.Space) -> bool:
    """Returns whether a space is one of float32 vectors (d,)."""
    return isinstance(space, gymnasium.spaces.Box) and (
        space.dtype == np.float32 and len(space.shape) == 1
    )


def is_image(key: str, space: gymnasium.Space) -> bool:
    """Returns whether a key and its space are those of an RGB image (h, w, 3)."""
    return key.startswith("rgb/") and space.dtype == np.uint8 and len(space.shape) == 3


class VectorEncoder(nn.Module):
    """Concatenated vectors through an MLP whose last layer is SimNorm."""

    def __init__(self, sizes: Sequence[int], rng: torch.Generator):
        super().__init__()
        self.net = MLP(sizes, rng, norm_simnorm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps vectors (m, d) to latents (m, latent)."""
        return self.net(x)


class PixelEncoder(nn.Module):
    """Three stacked 64 x 64 frames through four convolutions, flattened into SimNorm.

    The last map is 4 x 4, so latent / 16 channels fill the latent (32 at a latent of 512, the
    published encoder). Weights begin as torch's own convolutions do, drawn from `rng`.
    """

    def __init__(self, latent: int, rng: torch.Generator):
        super().__init__()
        c = latent // 16
        shapes = [(FRAMES * 3, c, 7, 2), (c, c, 5, 2), (c, c, 3, 2), (c, c, 3, 1)]
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, i, o, k, stride=s) for i, o, k, s in shapes
        )
        for layer in self.convolutions:
            if not layer.weight.is_meta:
                bound = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=rng)
                nn.init.uniform_(layer.bias, -bound, bound, generator=rng)

    def forward(self, x: Tensor) -> Tensor:
        """Maps frames (m, 64, 64, 9) uint8 to latents (m, latent)."""
        x = x.movedim(-1, 1).float().div(255).sub(0.5)
        for layer in self.convolutions[:-1]:
            x = F.relu(layer(x))
        return simnorm(self.convolutions[-1](x).flatten(1))


def shift_frames(x: Tensor, pad: int, rng: torch.Generator, share: Share = ALONE) -> Tensor:
    """Returns images x (m, s, s, c), each moved by up to `pad` pixels, its border repeated.

    share: which part of a batch the images are.

    Source: random shift augmentation of DrQ-v2, Yarats et al. 2021, arXiv 2107.09645.
    """
    m, s = x.shape[:2]

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randint(-pad, pad + 1, shape, generator=rng, device=x.device)

    move = share.part(draw, (2, m, 1), 1)
    row, column = (torch.arange(s, device=x.device) + move).clamp(0, s - 1)
    return x[torch.arange(m, device=x.device)[:, None, None], row[:, :, None], column[:, None]]


def window_starts(first: Tensor, rng: torch.Generator, share: Share = ALONE) -> Tensor:
    """Returns the step (b,) int64, at least 0, where learning begins in windows of frames.

    Two earlier steps complete the first stack. A window that opens an episode has frames to
    repeat instead, so it begins at step 0, 1 or 2 at random. `first`: (b, t) bool. share: which
    part of a batch the windows are.
    """

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randint(0, FRAMES, shape, generator=rng, device=first.device)

    free = share.part(draw, first.shape[:1])
    return torch.where(first[:, 0], free, FRAMES - 1)


def stack_frames(image: Tensor, steps: Tensor) -> Tensor:
    """Returns the stacks (b, t, 64, 64, 9) that end at `steps` (b, t) of windows of frames.

    image: (b, w, 64, 64, 3) uint8; the window's first frame stands for those before it.
    """
    age = torch.arange(1 - FRAMES, 1, device=image.device)
    index = (steps[..., None] + age).clamp(min=0)
    frames = image[torch.arange(len(image), device=image.device)[:, None, None], index]
    return frames.movedim(2, -2).flatten(-2)
