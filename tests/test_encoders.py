"""Encoders: which keys a model reads, and how frames are shifted and stacked."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten.world_models.encoders import (
    PixelEncoder,
    choose_keys,
    shift_frames,
    stack_frames,
    window_starts,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vector(d):
    return Box(-np.inf, np.inf, (d,), np.float32)


def image(size):
    return Box(0, 255, (size, size, 3), np.uint8)


def test_observation_keys_are_vectors_or_one_image():
    space = Dict(
        {
            "proprio": vector(3),
            "objects": vector(2),
            "label/goal": vector(2),
            "instruction": Box(0, 255, (128,), np.uint8),
            "rgb/front": image(64),
            "rgb/wrist": image(64),
            "rgb/big": image(96),
            "depth/front": Box(0, 9, (64, 64), np.float32),
        }
    )
    assert choose_keys(space, None) == ("objects", "proprio")
    assert choose_keys(space, ["label/goal", "proprio"]) == ("label/goal", "proprio")
    assert choose_keys(space, ["rgb/wrist"]) == choose_keys(space, "rgb/wrist") == ("rgb/wrist",)
    for keys in (
        ["rgb/front", "proprio"],
        ["rgb/front", "rgb/wrist"],
        ["rgb/big"],
        ["instruction"],
        ["depth/front"],
        ["proprioo"],
        [],
    ):
        with pytest.raises(ValueError, match=r"rgb/|64"):
            choose_keys(space, keys)


def test_shifted_frames_are_crops_of_the_padded_image():
    x = torch.randint(0, 256, (40, 12, 12, 9), generator=generator(), dtype=torch.uint8)
    y = shift_frames(x, 3, generator(1))
    assert y.shape == x.shape and y.dtype == torch.uint8
    padded = torch.nn.functional.pad(x.movedim(-1, 1).float(), (3,) * 4, mode="replicate")
    places = set()
    for i in range(40):
        fits = [
            (r, c)
            for r in range(7)
            for c in range(7)
            if torch.equal(padded[i, :, r : r + 12, c : c + 12], y[i].movedim(-1, 0).float())
        ]
        assert len(fits) == 1
        places.update(fits)
    assert len(places) > 15 and {r for r, _ in places} == set(range(7))


def test_stacks_repeat_the_frame_that_opens_an_episode():
    image = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1, 1).expand(2, 6, 64, 64, 3)
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[1, 0] = True
    seen = set()
    for seed in range(20):
        start = window_starts(first, generator(seed))
        assert start[0] == 2
        seen.add(int(start[1]))
    assert seen == {0, 1, 2}
    stacks = stack_frames(image, torch.tensor([[2, 3], [0, 1]]))
    assert stacks.shape == (2, 2, 64, 64, 9)
    frames = stacks[:, :, 0, 0, ::3].tolist()
    assert frames == [[[0, 1, 2], [1, 2, 3]], [[0, 0, 0], [0, 0, 1]]]


@pytest.mark.parametrize("latent, channels", [(128, 8), (512, 32), (768, 48)])
def test_a_pixel_encoder_fills_its_latent(latent, channels):
    before = torch.get_rng_state()
    net = PixelEncoder(latent, generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert net.convolutions[0].out_channels == channels
    x = torch.randint(0, 256, (2, 64, 64, 9), generator=generator(1), dtype=torch.uint8)
    z = net(x)
    torch.testing.assert_close(z.view(2, -1, 8).sum(-1), torch.ones(2, latent // 8))
    for layer in net.convolutions:  # as torch begins its own: uniform within 1 / sqrt(fan in)
        bound = layer.weight[0].numel() ** -0.5
        peak = float(layer.weight.detach().abs().max())
        assert 0.98 * bound < peak <= bound
