"""The learned fusion against its oracle, and the oracle against PyTorch and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import losses
from fmrnet.learned_fusion import LearnedFusion, fusion_inputs
from fmrnet.reference import learned_fusion as oracle

sides = st.integers(9, 40)


def pair(seed, height, width, channels):
    generator = np.random.default_rng(seed)
    return generator.random((height, width, channels)), generator.random((height, width, channels))


def tensor(picture):
    return torch.from_numpy(picture.transpose(2, 0, 1))[None]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), height=sides, width=sides, channels=st.sampled_from([1, 3]))
def test_agrees_with_oracle_in_float64(seed, height, width, channels):
    image, background = pair(seed, height, width, channels)
    std = np.random.default_rng(seed).uniform(0.05, 0.5, channels)
    torch.manual_seed(seed)
    network = LearnedFusion(channels).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    weights = {f"fusion.{name}": value.numpy() for name, value in network.state_dict().items()}
    arguments = (tensor(image), tensor(background), torch.from_numpy(std))
    with torch.no_grad():
        inputs, found = fusion_inputs(*arguments)[0], torch.sigmoid(network(*arguments))[0]
    assert np.abs(inputs.numpy() - oracle.fusion_inputs(image, background, std)).max() < 1e-9
    assert np.abs(found.numpy() - oracle.learned_map(image, background, std, weights)).max() < 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), dilation=st.sampled_from([1, 2, 4]), height=sides, width=sides)
def test_dilated_conv_is_pytorchs(seed, dilation, height, width):
    generator = np.random.default_rng(seed)
    x, weight = generator.normal(size=(3, height, width)), generator.normal(size=(5, 3, 3, 3))
    layer = torch.nn.Conv2d(
        3, 5, 3, padding=dilation, dilation=dilation, padding_mode="replicate", bias=False, dtype=torch.double
    )
    layer.weight.data = torch.from_numpy(weight)
    expected = layer(torch.from_numpy(x)[None])[0].detach()
    assert np.allclose(oracle.dilated_conv(x, weight, dilation), expected, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), gamma=st.sampled_from([0.0, 2.0]))
def test_focal_loss(seed, gamma):
    generator = np.random.default_rng(seed)
    logit, support = generator.normal(size=(2, 5, 6)) * 4, generator.random((2, 5, 6))
    found = losses.focal_loss(torch.from_numpy(logit), torch.from_numpy(support), gamma)
    assert np.isclose(found.item(), oracle.focal_loss(1 / (1 + np.exp(-logit)), support, gamma), rtol=1e-6)
    if gamma == 0:  # plain cross entropy
        target = torch.from_numpy(support > 0.5).double()
        plain = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logit), target)
        assert np.isclose(found.item(), plain.item())


def test_a_brightness_added_to_both_pictures_changes_no_input_but_the_modality_maps():
    image, background = pair(0, 30, 30, 1)
    inputs = [oracle.fusion_inputs(image * 0.5 + o, background * 0.5 + o, [0.1])[:3] for o in (0.0, 0.4)]
    assert np.allclose(*inputs)


def test_missing_weights_and_bad_shapes_are_named():
    image, background = pair(0, 12, 12, 1)
    with pytest.raises(ValueError, match=r"fusion\.layers\.0\.weight"):
        oracle.learned_map(image, background, [0.1], {})
    with pytest.raises(ValueError, match="std"):
        oracle.fusion_inputs(image, background, [0.1, 0.1])
    with pytest.raises(ValueError, match="background"):
        oracle.fusion_inputs(image, background[:-1], [0.1])
