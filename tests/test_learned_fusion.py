"""The learned fusion against its oracle, and the oracle against PyTorch and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import fast
from fmrnet.learning import losses
from fmrnet.network.learned_fusion import (
    LearnedFusion,
    alarm,
    beyond_good,
    defect_labels,
    learned_map,
    neighbourhood,
    size_weights,
)
from fmrnet.reference import fusion_labels, fusion_network
from fmrnet.reference import learned_fusion as oracle

sides = st.integers(9, 40)
whole = st.integers(64, 90)  # of a picture that can be inspected


def pair(seed, height, width, channels):
    generator = np.random.default_rng(seed)
    return generator.random((height, width, channels)), generator.random((height, width, channels))


def tensor(picture):
    return torch.from_numpy(picture.transpose(2, 0, 1))[None]


def random_fusion(seed, channels):
    torch.manual_seed(seed)
    network = LearnedFusion(channels).double().eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.nn.init.normal_(value, std=0.15)
            if name.endswith(("var", "std")):
                value.abs_().add_(0.5)
    weights = {f"fusion.{name}": value.numpy() for name, value in network.state_dict().items()}
    return network, weights


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), height=whole, width=whole, channels=st.sampled_from([1, 3]))
def test_agrees_with_oracle_in_float64(seed, height, width, channels):
    image, background = pair(seed, height, width, channels)
    mean, std = np.random.default_rng(seed).uniform(0.05, 0.5, (2, channels))
    network, weights = random_fusion(seed, channels)
    arguments = (tensor(image), tensor(background), torch.from_numpy(mean), torch.from_numpy(std))
    with torch.no_grad():
        logit = network(fast.fusion_inputs(*arguments)[0])[0]
        around = neighbourhood(torch.from_numpy(image[..., 0])[None])[0]
        scores = network.standard_scores(*arguments)
        beyond, alarms = beyond_good(scores)[0], alarm(scores)[0]
        scores = scores[0].permute(1, 2, 0)
    expected, _ = oracle.fusion_inputs(image, background, mean, std)
    assert np.abs(logit.numpy() - fusion_network.fusion_logit(expected, weights)).max() < 1e-9
    assert np.abs(around.numpy() - oracle.neighbourhood(image[..., 0])).max() < 1e-9
    expected = oracle.standard_scores(image, background, mean, std, weights)
    assert np.abs(scores.numpy() - expected).max() < 1e-9
    assert np.abs(alarms.numpy() - oracle.alarm(expected)).max() < 1e-9
    expected = oracle.beyond_good(expected)
    assert np.abs(beyond.numpy() - expected).max() < 1e-9
    assert np.abs(learned_map(beyond).numpy() - oracle.learned_map(expected)).max() < 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), height=sides, width=sides, channels=st.sampled_from([1, 3]))
def test_labels_agree_with_oracle(seed, height, width, channels):
    image, change = pair(seed, height, width, channels)
    generator = np.random.default_rng(seed)
    support = np.clip(generator.uniform(-0.5, 1.5, (height, width)), 0, 1)
    support[:, : width // 2] = 0
    synthetic = np.clip(image + support[..., None] * (change - 0.5) * generator.uniform(0, 0.3), 0, 1)
    std = generator.uniform(0.05, 0.5, channels)
    found = defect_labels(
        tensor(image), tensor(synthetic), torch.from_numpy(support)[None], torch.from_numpy(std)
    )
    assert np.array_equal(found[0].numpy(), fusion_labels.defect_labels(image, synthetic, support, std))


def test_a_defect_that_changes_nothing_is_not_learnt_from():
    image = np.random.default_rng(0).random((40, 40, 1))
    support = np.zeros((40, 40))
    support[10:30, 10:30] = 1
    labels = fusion_labels.defect_labels(image, image, support, [0.2])
    assert (labels[10:30, 10:30] == fusion_labels.NOT_COUNTED).all()
    assert (labels[:10] == 0).all()
    labels = fusion_labels.defect_labels(image, np.clip(image + support[..., None], 0, 1), support, [0.2])
    assert (labels[10:30, 10:30] == 1).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), height=sides, width=sides, share=st.sampled_from([0.0, 0.005, 0.3, 1.0]))
def test_size_weights_agree_with_oracle(seed, height, width, share):
    generator = np.random.default_rng(seed)
    labels = generator.choice([0.0, fusion_labels.NOT_COUNTED], (2, height, width))
    labels[generator.random(labels.shape) < share] = 1.0
    found = size_weights(torch.from_numpy(labels)).numpy()
    assert np.allclose(found, [fusion_labels.size_weights(label) for label in labels], rtol=1e-6)


def test_a_small_defect_counts_for_nearly_as_much_as_a_large_one():
    counts = {}
    for side in (5, 20, 60):  # 25, 400 and 3,600 pixels
        label = np.zeros((128, 128))
        label[10 : 10 + side, 20 : 20 + side] = 1
        weights = fusion_labels.size_weights(label)
        assert (weights[label == 0] == 1).all()
        counts[side] = weights[label == 1].sum()
    assert counts[20] == 400
    assert counts[60] / counts[5] == pytest.approx(144 ** (1 - fusion_labels.SIZE_POWER))
    speck = np.zeros((128, 128))
    speck[3, 4] = 1
    assert fusion_labels.size_weights(speck)[3, 4] == fusion_labels.MOST_WEIGHT


def test_a_broad_faint_answer_stands_out_in_the_neighbourhood_and_a_lone_one_does_not():
    grain = np.random.default_rng(0).normal(size=(192, 192))
    broad, lone = np.zeros_like(grain), np.zeros_like(grain)
    broad[64:128, 64:128] = 0.5  # half of the grain's deviation: lost in it pixel by pixel
    lone[96, 96] = 5.0
    plain = oracle.neighbourhood(grain)
    assert (oracle.neighbourhood(grain + broad) - plain)[96, 96] > 4 * plain.std()
    assert (oracle.neighbourhood(grain + lone) - plain).max() < plain.std()


def test_the_map_takes_the_neighbourhoods_answer_where_it_is_plainer_and_else_the_pixels():
    def at(logit, around, energy):
        return oracle.learned_map(oracle.beyond_good([[[logit, around, energy]]]))[0, 0]

    assert at(0.5, 8.0, 2.0) > at(0.5, 0.0, 2.0) == at(0.5, -8.0, 2.0)  # broad and faint
    assert at(6.0, 8.0, 2.0) == at(6.0, 0.0, 2.0)  # plain itself: what is around neither adds nor takes
    assert at(oracle.HALF, 0.0, oracle.HALF) == 0.5
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        oracle.beyond_good(np.zeros((4, 4, 2)))


def test_a_lone_answer_alarms_more_than_one_among_others_and_a_broad_one_still_does():
    def at(logit, around, energy):
        return oracle.alarm([[[logit, around, energy]]])[0, 0]

    assert (
        at(6.0, -8.0, 2.0) == at(6.0, 0.0, 2.0) > at(6.0, 3.0, 2.0)
    )  # a speck, and the same on a ragged edge
    assert at(0.5, 8.0, 2.0) > at(0.5, 0.0, 2.0)  # broad and faint
    assert at(1.0, 0.0, 1.0) == pytest.approx(1)  # deviations, as they came
    assert at(-9.0, -9.0, -9.0) == 0
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        oracle.alarm(np.zeros((4, 4, 2)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from([1, 2, 3]), blocks=st.integers(1, 5))
def test_space_to_depth_is_pytorchs_and_comes_back(seed, size, blocks):
    x = np.random.default_rng(seed).normal(size=(3, size * blocks, size * (blocks + 1)))
    folded = fusion_network.space_to_depth(x, size)
    assert np.array_equal(folded, torch.nn.functional.pixel_unshuffle(torch.from_numpy(x), size))
    assert np.array_equal(fusion_network.depth_to_space(folded, size), x)


def test_good_pictures_have_standard_scores_of_mean_0_and_deviation_below_1():
    network, _ = random_fusion(3, 1)
    mean, std = torch.tensor([0.5]).double(), torch.tensor([0.3]).double()
    good = [tuple(torch.from_numpy(p.transpose(2, 0, 1)) for p in pair(i, 70, 65, 1)) for i in range(4)]
    network.standardise(good, mean, std)
    with torch.no_grad():
        evidence = torch.stack([network.evidence(a[None], b[None], mean, std)[0] for a, b in good])
        scores = torch.cat([network.standard_scores(a[None], b[None], mean, std) for a, b in good]).mean(1)
    assert torch.allclose(network.good_mean, evidence.mean((0, 2, 3)))
    assert torch.allclose(network.good_std, evidence.std((0, 2, 3)), rtol=1e-3)
    assert abs(scores.mean()) < 1e-9
    assert 0.5 < scores.std() <= 1.01


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    height=sides,
    width=sides,
)
def test_conv_is_pytorchs(seed, stride, dilation, height, width):
    height, width = height * stride, width * stride
    generator = np.random.default_rng(seed)
    x, weight = generator.normal(size=(3, height, width)), generator.normal(size=(5, 3, 3, 3))
    layer = torch.nn.Conv2d(
        3,
        5,
        3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        padding_mode="replicate",
        bias=False,
        dtype=torch.double,
    )
    layer.weight.data = torch.from_numpy(weight)
    expected = layer(torch.from_numpy(x)[None])[0].detach()
    assert np.allclose(fusion_network.conv(x, weight, stride=stride, dilation=dilation), expected, atol=1e-10)


def test_a_pixels_answer_rests_on_what_is_near_and_on_nothing_farther():
    network, _ = random_fusion(5, 1)
    inputs = torch.rand(1, 7, 256, 256, dtype=torch.double)
    with torch.no_grad():
        plain = network(inputs)
        reach = []
        for place in range(120, 128):  # the blocks of the coarsest map are 8 pixels wide
            changed = inputs.clone()
            changed[:, :, place, place] += 5
            for hit in (network(changed) - plain)[0].abs().gt(1e-13).nonzero(as_tuple=True):
                reach += [place - hit.min().item(), hit.max().item() - place]
    assert 32 < max(reach) <= 51


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), gamma=st.sampled_from([0.0, 2.0]))
def test_focal_loss(seed, gamma):
    generator = np.random.default_rng(seed)
    logit, label = generator.normal(size=(2, 5, 6)) * 4, generator.choice([0.0, 1.0, -1.0], (2, 5, 6))
    label[0, 0, 0] = 1
    weight = generator.uniform(0.1, 10, label.shape)
    found = losses.focal_loss(*(torch.from_numpy(x) for x in (logit, label, weight)), gamma)
    expected = fusion_labels.focal_loss(1 / (1 + np.exp(-logit)), label, weight, gamma)
    assert np.isclose(found.item(), expected, rtol=1e-6)
    if gamma == 0:  # plain weighted cross entropy of the pixels that count
        counted = label >= 0
        plain = torch.nn.functional.binary_cross_entropy_with_logits(
            *(torch.from_numpy(x[counted]) for x in (logit, label, weight))
        )
        assert np.isclose(found.item(), plain.item())


def test_a_brightness_added_to_both_pictures_changes_the_level_alone():
    image, background = pair(0, 30, 30, 1)
    inputs = [
        oracle.fusion_inputs(image * 0.5 + o, background * 0.5 + o, [0.3], [0.1])[0][:4] for o in (0.0, 0.4)
    ]
    assert np.allclose(inputs[0][[0, 2, 3]], inputs[1][[0, 2, 3]])
    assert np.allclose(inputs[1][1] - inputs[0][1], 4.0)


def test_light_across_the_surface_goes_and_a_faint_broad_change_stays():
    texture = pair(0, 128, 160, 1)[0] * 0.2 + 0.3
    slope = np.linspace(-1, 1, 160)[None, :, None]
    std = [0.1]
    for strength, left in ((0.02, 0.01), (0.2, oracle.LIGHT_LEAST * 0.1)):
        unlit = oracle.without_light(texture + strength * slope, texture, std)
        inside = np.abs(unlit - texture)[:, 40:-40]  # the blur, mirrored, bends a slope at the border
        assert 0.9 * left < inside.max() < 1.3 * left


def test_a_small_strong_defect_is_not_light():
    texture = np.full((128, 128, 1), 0.4)
    spoilt = texture.copy()
    spoilt[60:70, 60:70] += 0.3
    assert np.abs(oracle.without_light(spoilt, texture, [0.1]) - spoilt).max() < 0.02


def test_one_wild_pixel_counts_no_more_than_one_deviation():
    image = np.full((40, 40, 1), 0.5)
    spoilt = [image.copy() for _ in range(2)]
    for picture, change in zip(spoilt, (0.2, 0.5), strict=True):
        picture[20, 20] += change
    assert np.array_equal(*(oracle.fusion_inputs(p, image, [0.5], [0.1])[1] for p in spoilt))


def test_missing_weights_and_bad_shapes_are_named():
    image, background = pair(0, 12, 12, 1)
    with pytest.raises(ValueError, match=r"fusion\.stem\.conv\.weight"):
        oracle.standard_scores(image, background, [0.5], [0.1], {})
    with pytest.raises(ValueError, match="std"):
        oracle.fusion_inputs(image, background, [0.5], [0.1, 0.1])
    with pytest.raises(ValueError, match="background"):
        oracle.fusion_inputs(image, background[:-1], [0.5], [0.1])
