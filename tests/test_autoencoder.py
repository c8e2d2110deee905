"""Encoder and decoder: which keys they read, their shapes, their losses, what they say."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten.world_models.autoencoder import Conv, Decoder, Encoder, choose_senses

IMAGE = Box(0, 255, (64, 64, 3), np.uint8)
SPACE = Dict(
    {
        "proprio": Box(-np.inf, np.inf, (4,), np.float32),
        "objects": Box(-np.inf, np.inf, (3,), np.float32),
        "rgb/wrist": IMAGE,
        "rgb/front": IMAGE,
        "rgb/large": Box(0, 255, (96, 96, 3), np.uint8),
        "instruction": Box(0, 255, (128,), np.uint8),
        "label/success": Box(0, 1, (1,), np.float32),
    }
)
VECTORS, IMAGES = ("objects", "proprio"), ("rgb/front", "rgb/wrist")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def step(*rows, seed=0):
    g = generator(seed)
    found = {k: 3 * torch.randn(*rows, SPACE[k].shape[0], generator=g) for k in VECTORS}
    for k in IMAGES:
        found[k] = torch.randint(0, 256, (*rows, 64, 64, 3), generator=g, dtype=torch.uint8)
    return found


def test_all_vectors_and_images_but_labels_are_read_unless_some_are_named():
    assert choose_senses(SPACE, None) == (VECTORS, IMAGES)
    assert choose_senses(SPACE, ["rgb/front", "proprio"]) == (("proprio",), ("rgb/front",))
    assert choose_senses(SPACE, "rgb/front") == ((), ("rgb/front",))
    assert choose_senses(SPACE, ["label/success"]) == (("label/success",), ())
    for odd in ("instruction", "rgb/large", "touch"):
        with pytest.raises(ValueError, match=f"'{odd}' is no vector of .*64, 64"):
            choose_senses(SPACE, ["proprio", odd])
    with pytest.raises(ValueError, match="no observation keys"):
        choose_senses(Dict({"instruction": SPACE["instruction"]}), None)


@pytest.mark.parametrize("vectors, images", [(VECTORS, ()), ((), IMAGES), (VECTORS, IMAGES)])
def test_tokens_and_observations_have_their_shapes(vectors, images):
    encoder = Encoder(SPACE, vectors, images, 16, 4, generator())
    decoder = Decoder(SPACE, vectors, images, (24, 12), 16, 4, generator())
    seen = step(2, 3)
    with torch.no_grad():
        tokens = encoder(seen)
        assert tokens.shape == (2, 3, encoder.width)
        assert encoder.width == 16 * bool(vectors) + 4 * 4 * 16 * bool(images)
        one = encoder({k: v[1, 2] for k, v in seen.items()})
        torch.testing.assert_close(one, tokens[1, 2], rtol=1e-4, atol=1e-5)
        found = decoder(torch.randn(2, 3, 24), torch.randn(2, 3, 12))
        said = decoder.observation(found)
    assert said.keys() == found.keys() == {*vectors, *images}
    assert decoder.loss(found, seen).shape == (2, 3)
    for key, value in said.items():
        assert value.shape == seen[key].shape and value.dtype == seen[key].dtype


def test_the_loss_is_the_squared_error_of_symlogs_and_of_pixels_in_0_1():
    decoder = Decoder(SPACE, VECTORS, IMAGES, (24, 12), 16, 4, generator())
    seen, want = step(2), np.zeros(2)
    with torch.no_grad():
        found = decoder(*(torch.randn(2, d, generator=generator(d)) for d in (24, 12)))
    for key in VECTORS:
        x = seen[key].double().numpy()
        want += ((found[key].numpy() - np.sign(x) * np.log1p(np.abs(x))) ** 2).sum(-1)
    for key in IMAGES:
        assert 0 < float(found[key].min()) and float(found[key].max()) < 1
        want += ((found[key].numpy() - seen[key].numpy() / 255.0) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(decoder.loss(found, seen), want, rtol=1e-4)


def test_what_is_decoded_without_error_is_what_was_seen():
    decoder = Decoder(SPACE, VECTORS, IMAGES, (24, 12), 16, 4, generator())
    seen = step(3)
    right = {k: torch.sign(seen[k]) * seen[k].abs().log1p() for k in VECTORS}
    right |= {k: seen[k] / 255 for k in IMAGES}
    assert not decoder.loss(right, seen).abs().max() > 1e-9
    said = decoder.observation(right)
    torch.testing.assert_close(said["proprio"], seen["proprio"])
    assert all(torch.equal(said[k], seen[k]) for k in IMAGES)


def test_a_convolution_is_torchs_and_keeps_the_size():
    conv, x = Conv(3, 5, generator()), torch.randn(2, 8, 6, 3, generator=generator(1))
    want = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=2)
    torch.testing.assert_close(conv(x), want.permute(0, 2, 3, 1))
    assert abs(float(conv.weight.detach().std()) * 75**0.5 - 1) < 0.1


def test_a_decoder_learns_one_picture():
    """What the belief says where must come out there: a mirrored target is as far as at first."""
    g = generator(5)
    decoder = Decoder(SPACE, (), ("rgb/front",), (24, 12), 16, 4, g)
    deter, stoch = torch.randn(2, 24, generator=g), torch.randn(2, 12, generator=g)
    seen = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    seen[0, :20, :30, 0] = 255
    seen[1, 40:, 30:, 2] = 255
    optimiser = torch.optim.Adam(decoder.parameters(), 5e-3)
    losses = []
    for _ in range(40):
        loss = decoder.loss(decoder(deter, stoch), {"rgb/front": seen}).mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.05 * losses[0], losses[::8]
    with torch.no_grad():
        found = decoder(deter, stoch)
    assert float(decoder.loss(found, {"rgb/front": seen.flip(2)}).mean()) > 5 * losses[-1]
