"""The PyTorch generator against its oracle, from the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet.config import Config
from fmrnet.engines import engine
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.network.model import FMRNet, joined, windows
from fmrnet.reference import network, patches

SMALL = Config(channels=(4, 6, 8, 10, 12), memory_entries=20, addressing_width=9)


def random_model(config: Config, seed: int) -> FMRNet:
    """A model in inspection mode whose every weight, statistic and memory entry is random."""
    generator = torch.Generator().manual_seed(seed)
    model = FMRNet(config).double()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                positive = name.endswith(("running_var", "std"))
                value.copy_(noise.abs() + 0.1 if positive else noise * (0.3 if value.ndim > 1 else 0.5))
    return model.eval()


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(64, 200),
    width=st.integers(64, 200),
    channels=st.sampled_from([1, 3]),
    tile=st.sampled_from(["patch", "picture"]),
    overlap=st.sampled_from([0.0, 0.5]),
)
def test_filled_agrees_with_oracle(height, width, channels, tile, overlap):
    model = FMRNet(replace(SMALL, image_channels=channels, tile=tile, overlap=overlap))
    picture = np.random.default_rng(height).random((height, width, channels))
    found = model.filled(torch.from_numpy(picture.transpose(2, 0, 1))[None])[0].numpy()
    multiple = 64 if tile == "picture" and not overlap else 32
    assert model.config.multiple == multiple
    assert np.array_equal(found.transpose(1, 2, 0), patches.filled(picture, multiple))
    again = engine.filled(picture.transpose(2, 0, 1), multiple)
    assert np.array_equal(again, found), "without PyTorch it is filled alike"


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    mixing=st.sampled_from(["shared", "dense", "none"]),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([64, 96]),
    texton=st.sampled_from([1, 2]),
    temperature=st.sampled_from([1.0, 0.1]),
    rearrange=st.booleans(),
)
def test_forward_agrees_with_oracle(seed, mixing, channels, size, texton, temperature, rearrange):
    config = replace(
        SMALL,
        rearrange=rearrange,
        mixing=mixing,
        image_channels=channels,
        patch_size=size,
        texton_size=texton,
        temperature=temperature,
    )
    model = random_model(config, seed)
    patch = np.random.default_rng(seed).random((size, size, channels))
    image = torch.from_numpy(patch.transpose(2, 0, 1))[None]
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = network.generate(
        patch, weights, rearrange=rearrange, texton_size=texton, temperature=temperature
    )
    with torch.no_grad():
        features = model.encode(image)
        found = {
            "z": features.z[0],
            "query": model.addressing(features.z)[0],
            "recalled": model.restore(features.z)[0],
            "y": model.decode(model.restore(features.z), features.skips)[0],
            "reconstruction": model(image)[0].permute(1, 2, 0),
        }
    for name, value in found.items():
        assert np.abs(value.numpy() - expected[name]).max() < 1e-9, name


@given(
    seed=st.integers(0, 2**20),
    step=st.integers(1, 3),
    parts=st.integers(1, 3),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_windows_agree_with_oracle(seed, step, parts, more):
    side = step * parts
    size = tuple(side + step * count for count in more)
    rng = np.random.default_rng(seed)
    maps, values = rng.random((2, 3, *size)), rng.random((2, more[0] + 1, more[1] + 1, 3, side, side))
    expected = np.stack([network.windows(one, side, step) for one in maps])
    cut = windows(torch.from_numpy(maps), side, step)
    assert np.array_equal(cut.numpy(), expected.reshape(-1, 3, side, side))
    assert np.allclose(joined(cut, size, step), maps, rtol=0, atol=1e-15)
    expected = np.stack([network.joined(one, step) for one in values])
    found = joined(torch.from_numpy(values).flatten(0, 2), size, step)
    assert np.allclose(found, expected, rtol=0, atol=1e-15)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    mixing=st.sampled_from(["shared", "dense", "none"]),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([(64, 96), (128, 96), (160, 128), (64, 64)]),
    window=st.sampled_from([(64, 0.5), (64, 0.0), (96, 2 / 3)]),
    texton=st.sampled_from([1, 2]),
    rearrange=st.booleans(),
)
def test_a_whole_picture_agrees_with_oracle(seed, mixing, channels, size, window, texton, rearrange):
    config = replace(
        SMALL,
        rearrange=rearrange,
        mixing=mixing,
        image_channels=channels,
        patch_size=window[0],
        tile="picture",
        overlap=window[1],
        texton_size=texton,
        temperature=0.1,
    )
    model = random_model(config, seed)
    given_ = torch.from_numpy(np.random.default_rng(seed).random((2, channels, *size)))
    if min(size) < config.patch_size:
        given_ = given_.repeat(1, 1, 2, 2)
    image = model.filled(given_)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.no_grad():
        features, restored = model.encode(image), model(image)
        latents = model.restore(features.z)
        decoded = model.decode(latents, features.skips)
    for number, picture in enumerate(image.permute(0, 2, 3, 1).numpy()):
        expected = network.generate(
            picture,
            weights,
            patch=config.patch_size,
            step=config.stride,
            rearrange=rearrange,
            texton_size=texton,
            temperature=0.1,
        )
        found = {
            "z": features.z.chunk(2)[number].reshape(expected["z"].shape),
            "recalled": latents.chunk(2)[number].reshape(expected["z"].shape),
            "y": decoded[number],
            "reconstruction": restored[number].permute(1, 2, 0),
        }
        for name, value in found.items():
            assert np.abs(value.numpy() - expected[name]).max() < 1e-9, name


def test_a_picture_of_one_patch_is_the_papers():
    image = torch.rand(3, 1, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    paper, whole = (
        random_model(replace(SMALL, tile=tile, temperature=0.1), seed=4) for tile in ("patch", "picture")
    )
    with torch.no_grad():
        assert torch.equal(whole(whole.filled(image)), paper(image))


def test_what_lies_far_from_the_border_moves_with_the_picture():
    """By multiples of 32 pixels, which windows lie apart. Layers and windows carry a border 199 pixels far."""
    model = random_model(replace(SMALL, tile="picture", temperature=0.1), seed=5)
    image = torch.rand(1, 1, 480, 512, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, moved = model(image), model(image[:, :, 32:, 64:])
    inside = (slice(None), slice(None), slice(200, -200), slice(200, -200))
    assert whole[:, :, 32:, 64:][inside].std() > 0.01
    assert (whole[:, :, 32:, 64:][inside] - moved[inside]).abs().max() < 1e-12


def test_pictures_are_mirrored_until_windows_fill_them():
    model = random_model(replace(SMALL, tile="picture"), seed=6)
    picture = torch.rand(1, 1, 70, 96, dtype=torch.double)
    filled = model.filled(picture)
    assert filled.shape == (1, 1, 96, 96)
    assert torch.equal(filled[:, :, :70], picture)
    assert torch.equal(filled[:, :, 70:], picture[:, :, 43:69].flip(2))


@pytest.mark.parametrize("name", ["edge", "paper"])
def test_presets_agree_with_oracle_in_float32(name):
    from fmrnet.config import preset

    config = replace(preset(name), image_channels=3)
    model = random_model(config, seed=3).float()
    patch = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = network.generate(patch, weights, temperature=config.temperature)
    with torch.no_grad():
        features = model.encode(torch.from_numpy(patch.transpose(2, 0, 1))[None])
        found = model.decode(model.restore(features.z), features.skips)[0].numpy()
    assert np.abs(found - expected["y"]).max() < 1e-4 * np.abs(expected["y"]).max()


def test_phase_1_decodes_the_latent_itself():
    model = random_model(SMALL, seed=1)
    patch = np.random.default_rng(1).random((64, 64, 1))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = network.generate(patch, weights, use_memory=False)
    with torch.no_grad():
        features = model.encode(torch.from_numpy(patch.transpose(2, 0, 1))[None])
        found = model.decode(features.z, features.skips)[0].numpy()
    assert np.abs(found - expected["y"]).max() < 1e-9


def test_only_the_two_deepest_skips_reach_the_decoder():
    model = random_model(SMALL, seed=2).requires_grad_(True).train()
    model.double()
    seen = []
    for block in model.encoder:
        block.register_forward_hook(
            lambda module, inputs, output: seen.append(output) or output.retain_grad()
        )
    features = model.encode(torch.rand(2, 1, 64, 64, dtype=torch.double))
    model.decode(torch.randn(2, SMALL.latent_size, dtype=torch.double), features.skips).sum().backward()
    reached = [features.skips[0] is seen[3], features.skips[1] is seen[2], seen[4].grad is None]
    assert all(reached)


def test_published_widths():
    config = Config()
    model, classifier = FMRNet(config), AuxiliaryClassifier(config)
    assert config.latent_size == 2048
    assert model.memory.shape == (512, 2048)
    assert [m.out_features for m in classifier.layers if isinstance(m, torch.nn.Linear)] == [512, 256, 1]
    assert (model.addressing.hidden.out_features, model.addressing.output.out_features) == (256, 512)
    assert [b.conv.out_channels for b in model.encoder] == [64, 128, 256, 512, 512]
    assert [tuple(k.shape) for k in FMRNet(replace(config, mixing="dense")).mixing] == [
        (4, 4, 3, 3),
        (16, 16, 3, 3),
    ]


def test_discriminator_has_the_encoders_blocks():
    model, critic = FMRNet(SMALL), Discriminator(SMALL)
    shapes = [[tuple(p.shape) for p in blocks.parameters()] for blocks in (model.encoder, critic.blocks)]
    assert shapes[0] == shapes[1]
    judgement = critic(torch.rand(3, 1, 64, 64))
    assert judgement.logit.shape == (3,)
    assert [f.shape[1:] for f in judgement.features] == [(8, 8, 8), (10, 4, 4)]
