"""The PyTorch generator against its oracle, from the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet.config import Config
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.network.model import FMRNet
from fmrnet.reference import network

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


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    mixing=st.sampled_from(["shared", "dense", "none"]),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([64, 96]),
    texton=st.sampled_from([1, 2]),
    temperature=st.sampled_from([1.0, 0.1]),
)
def test_forward_agrees_with_oracle(seed, mixing, channels, size, texton, temperature):
    config = replace(
        SMALL,
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
    expected = network.generate(patch, weights, texton_size=texton, temperature=temperature)
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
