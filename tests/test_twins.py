"""Every function and constant that stands both in the oracle and in the product: compared, and none forgotten.

The functions of `fast` are compared here in eager float64, where the two may differ by rounding alone; other backends
and types have tests of their own. The rest of the product is compared beside its other tests, which the table names.
"""

import inspect
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import config, fast, reference, usual
from fmrnet.engines import background
from fmrnet.fast import _textons_numba, _textons_triton
from fmrnet.fast import fusion as fast_fusion
from fmrnet.fast import learned_fusion as fast_learned_fusion
from fmrnet.fast import memory as fast_memory
from fmrnet.fast import textons as fast_textons
from fmrnet.inspection import good_scores
from fmrnet.learning import backbone_weights, general_training, losses
from fmrnet.network import backbone, general, learned_fusion, model

seeds = st.integers(0, 2**32 - 1)
TESTS = Path(__file__).parent

FORWARD = "test_model::test_forward_agrees_with_oracle"
FUSION = "test_learned_fusion::test_agrees_with_oracle_in_float64"
FEATURES = "test_general::test_features_agree_with_oracle_in_float64"
PROMISES = "test_good_scores::test_surprises_and_p_values_are_the_oracles"
WITNESSES = "test_general::test_witnesses_agree_with_oracle_in_float64"
USUALLY = "test_usual::test_what_is_usual_at_a_place_is_the_oracles"
COUNTS = "test_evaluation::test_counts_give_the_oracles_figures"

# The oracle's function: its twin, and the test that compares the two.
TWINS = {
    "patches.filled": ("model.FMRNet", "test_model::test_filled_agrees_with_oracle"),
    "patches.slice_patches": ("fast.slice_patches", "test_twins::test_patches"),
    "patches.stitch_patches": ("fast.stitch_patches", "test_twins::test_patches"),
    "synthesis.support": ("fast.support", "test_twins::test_synthesis"),
    "synthesis.blend": ("fast.blend", "test_twins::test_blend"),
    "synthesis.synthesize": ("fast.synthesize", "test_twins::test_synthesis"),
    "memory.address": ("fast.address", "test_twins::test_memory"),
    "memory.recall": ("fast.recall", "test_twins::test_memory"),
    "memory.nearest_distance": ("fast.nearest_distance", "test_twins::test_memory"),
    "textons.rearrange_textons": ("fast.rearrange_textons", "test_twins::test_textons"),
    "fusion.gms": ("fast.gms", "test_twins::test_fusion"),
    "fusion.ssim": ("fast.ssim", "test_twins::test_fusion"),
    "fusion.residual": ("fast.residual", "test_twins::test_fusion"),
    "fusion.modality_maps": ("fast.modality_maps", "test_twins::test_fusion"),
    "fusion.anomaly_map": ("fast.anomaly_map", "test_twins::test_fusion"),
    "fusion.median_filter": ("fast.fusion.median_filter", "test_twins::test_fusion"),
    "network.generate": ("model.FMRNet", FORWARD),
    "network.encode": ("model.FMRNet", FORWARD),
    "network.decode": ("model.FMRNet", FORWARD),
    "network.windows": ("model.windows", "test_model::test_windows_agree_with_oracle"),
    "network.joined": ("model.joined", "test_model::test_windows_agree_with_oracle"),
    "network.conv": ("model.encoder_blocks", FORWARD),
    "network.deconv": ("model.ConvBlock", FORWARD),
    "blurs.blurred": ("fast.blurs.blurred", "test_twins::test_blurs"),
    "blurs.broadly_blurred": ("fast.blurs.broadly_blurred", "test_twins::test_blurs"),
    "learned_fusion.fusion_inputs": ("fast.fusion_inputs", "test_twins::test_learned_fusion"),
    "learned_fusion.without_light": ("fast.without_light", "test_twins::test_learned_fusion"),
    "learned_fusion.neighbourhood": ("learned_fusion.neighbourhood", FUSION),
    "learned_fusion.standard_scores": ("learned_fusion.LearnedFusion", FUSION),
    "learned_fusion.beyond_good": ("learned_fusion.beyond_good", FUSION),
    "learned_fusion.alarm": ("learned_fusion.alarm", FUSION),
    "learned_fusion.learned_map": ("learned_fusion.learned_map", FUSION),
    "fusion_network.fusion_logit": ("learned_fusion.LearnedFusion", FUSION),
    "fusion_network.conv_block": ("learned_fusion.Block", FUSION),
    "fusion_labels.defect_labels": (
        "learned_fusion.defect_labels",
        "test_learned_fusion::test_labels_agree_with_oracle",
    ),
    "fusion_labels.size_weights": (
        "learned_fusion.size_weights",
        "test_learned_fusion::test_size_weights_agree_with_oracle",
    ),
    "fusion_labels.focal_loss": ("losses.focal_loss", "test_learned_fusion::test_focal_loss"),
    "backbone.maps": ("backbone.Backbone", FEATURES),
    "backbone.bottleneck": ("backbone.Backbone", FEATURES),
    "backbone.unit": ("backbone.Backbone", FEATURES),
    "backbone.fine": ("backbone.fine", FEATURES),
    "backbone.whole": ("backbone.whole", FEATURES),
    "general.features": ("general.General", WITNESSES),
    "general.gaussian": ("general.Gaussian", "test_general::test_distances_agree_with_oracle_and_scipy"),
    "general.distance": ("general.Gaussian", "test_general::test_distances_agree_with_oracle_and_scipy"),
    "general.head": ("general.Head", WITNESSES),
    "general.evidence": ("general.General", WITNESSES),
    "general.levels": ("general.Surprise", "test_general::test_surprise_agrees_with_oracle"),
    "general.surprise": ("general.Surprise", "test_general::test_surprise_agrees_with_oracle"),
    "general.drawn": ("general.drawn", "test_general::test_drawn_agrees_with_oracle_and_scipy"),
    "general.in_cells": ("general.in_cells", "test_usual::test_maps_in_cells_are_the_oracles"),
    "general.beyond": ("general.beyond", WITNESSES),
    "usual.bands": ("usual.bands", USUALLY),
    "usual.alike": ("usual.alike", USUALLY),
    "usual.resized": ("usual.resized", USUALLY),
    "usual.usual": ("usual.Usual", USUALLY),
    "usual.near": ("general_training.fit_usual", "test_usual::test_what_is_usual_is_the_oracles"),
    "usual.place": ("general_training.fit_usual", "test_usual::test_what_is_usual_is_the_oracles"),
    "general.cells_of": ("general.cells_of", "test_general::test_cells_that_count_are_the_oracles"),
    "usual.in_cells": ("general.in_cells", "test_usual::test_maps_in_cells_are_the_oracles"),
    "usual.drawn": ("general.beyond", WITNESSES),
    "general.joined": ("general.General", WITNESSES),
    "losses.latent_loss": ("losses.latent_loss", "test_losses::test_latent_loss"),
    "losses.reconstruction_loss": (
        "losses.reconstruction_loss",
        "test_losses::test_reconstruction_loss_and_penalty",
    ),
    "losses.weight_norms": ("losses.weight_norms", "test_losses::test_reconstruction_loss_and_penalty"),
    "losses.discriminator_loss": ("losses.discriminator_loss", "test_losses::test_adversarial_losses"),
    "losses.gan_loss": ("losses.gan_loss", "test_losses::test_adversarial_losses"),
    "losses.perceptual_loss": ("losses.perceptual_loss", "test_losses::test_perceptual_loss"),
    "good_scores.surprise": ("good_scores.GoodScores", PROMISES),
    "good_scores.held_out_surprises": ("good_scores.GoodScores", PROMISES),
    "good_scores.p_value": ("good_scores.GoodScores", PROMISES),
    "scoring.roc_auc": ("evaluation.metrics.PixelCounts", COUNTS),
    "scoring.au_pro": ("evaluation.metrics.PixelCounts", COUNTS),
    "scoring.aupimo": ("evaluation.metrics.PixelCounts", "test_evaluation::test_aupimo_is_the_oracles"),
    "scoring.precision_recall_f1": ("evaluation.metrics.Confusion", COUNTS),
    "scoring.patch_alarms": (
        "background.patch_alarms",
        "test_calibration::test_patch_alarms_and_means_are_the_oracles",
    ),
    "scoring.patch_means": (
        "background.patch_means",
        "test_calibration::test_patch_alarms_and_means_are_the_oracles",
    ),
    "scoring.k_sigma_threshold": (
        "calibration.calibrate",
        "test_calibration::test_pixel_threshold_is_the_oracles_k_sigma",
    ),
}
# The oracle's functions that have no twin of their own, and why.
ALONE = {
    "synthesis.anomalous_content": "a step of synthesize",
    "textons.extract_textons": "a step of rearrange_textons",
    "textons.texton_similarity": "a step of rearrange_textons",
    "textons.mix": "a step of rearrange_textons",
    "network.batch_norm": "a step of encode; PyTorch's own in the product",
    "network.leaky_relu": "a step of encode; PyTorch's own in the product",
    "fusion_network.conv": "a step of conv_block; PyTorch's own in the product",
    "fusion_network.space_to_depth": "a step of fusion_logit; PyTorch's own in the product",
    "fusion_network.depth_to_space": "a step of fusion_logit; PyTorch's own in the product",
    "backbone.conv": "a step of unit; PyTorch's own in the product, test_general compares the two",
    "backbone.halved": "a step of whole and of features; PyTorch's own in the product",
    "backbone.larger": "a step of fine and whole, and of drawn; PyTorch's own in the product",
    "memory.build_bank": "scikit-learn's K-means in the product; test_reference_memory compares the two",
    "memory.lloyd": "scikit-learn's K-means in the product; test_reference_memory compares the two",
    "losses.binary_cross_entropy": "a step of latent_loss; PyTorch's own in the product",
    "losses.gan_objective": "a step of discriminator_loss",
    "losses.adversarial_loss": "a sum that the training loop takes",
    "losses.phase1_loss": "a sum that the training loop takes; its weights are compared below",
    "losses.phase2_loss": "a sum that the training loop takes; its weights are compared below",
}
# Compared on one case, a calibration from pictures to thresholds.
ONE_CASE = {"scoring.k_sigma_threshold"}
PRODUCT: dict[str, ModuleType] = {
    "fast": fast,
    "losses": losses,
    "learned_fusion": learned_fusion,
    "backbone": backbone,
    "general": general,
    "model": model,
}


def test_no_function_of_the_oracle_is_forgotten():
    public = {
        f"{name}.{function}"
        for name in reference.__all__
        for function, value in vars(getattr(reference, name)).items()
        if inspect.isfunction(value)
        and value.__module__ == f"fmrnet.reference.{name}"
        and not function.startswith("_")
    }
    assert public == TWINS.keys() | ALONE.keys()
    assert not TWINS.keys() & ALONE.keys()


def test_no_function_of_the_product_is_forgotten():
    public = {
        f"{name}.{part}"
        for name, module in PRODUCT.items()
        for part, value in ((part, getattr(module, part)) for part in module.__all__)
        if inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, torch.nn.Module))
    }
    of_the_family = {"backbone.blocks", "backbone.channels"}  # the oracle reads them from the weights
    assert public - of_the_family <= {twin for twin, _ in TWINS.values()}


@pytest.mark.parametrize("name", TWINS)
def test_the_test_that_is_named_draws_its_inputs(name):
    file, function = TWINS[name][1].split("::")
    text = (TESTS / f"{file}.py").read_text(encoding="utf-8")
    decorated = re.search(rf"((?:^[@ )].*\n|^\)\n)*)^def {function}\(", text, re.MULTILINE)
    assert decorated, f"there is no {file}::{function}: compare {name} with its twin, and name the test"
    assert "@given(" in decorated[1] or name in ONE_CASE


def channels_first(picture):
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def agree(found, expected, atol=1e-11):
    found = found.numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=atol)


@st.composite
def cuts(draw):
    size = draw(st.integers(1, 12))
    stride = draw(st.integers(1, size))
    height, width = draw(st.integers(size, 30)), draw(st.integers(size, 30))
    return draw(seeds), size, stride, (height, width), draw(st.integers(1, 3))


@settings(max_examples=30)
@given(cut=cuts())
def test_patches(cut):
    """Patches that do not fit each other, so that each one's weight shows wherever two overlap."""
    seed, size, stride, shape, channels = cut
    rng = np.random.default_rng(seed)
    picture = rng.random((*shape, channels))
    right, corners = reference.patches.slice_patches(picture, size, stride)
    patches, origins = fast.slice_patches(channels_first(picture), size, stride)
    assert np.array_equal(patches.numpy(), right.transpose(0, 3, 1, 2))
    assert np.array_equal(origins.numpy(), corners)
    other = rng.normal(size=right.shape)
    expected = reference.patches.stitch_patches(other, corners, shape).transpose(2, 0, 1)
    stitched = torch.from_numpy(other.transpose(0, 3, 1, 2))
    agree(fast.stitch_patches(stitched, origins, shape), expected)
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 2e-3)):
        rounded = stitched.to(dtype)
        expected = reference.patches.stitch_patches(
            rounded.double().numpy().transpose(0, 2, 3, 1), corners, shape
        )
        found = fast.stitch_patches(rounded, origins, shape)
        assert found.dtype == dtype
        agree(found.double(), expected.transpose(2, 0, 1), atol=atol * (1 + np.abs(other).max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_patches_in_half_precision_keep_their_means_in_float32(dtype):
    """64 patches over most pixels: nothing but the result is rounded."""
    patches, origins = fast.slice_patches(
        torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(1)), 64, 8
    )
    noise = torch.rand(patches.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = fast.stitch_patches(noise.double(), origins, (96, 96))
    found = fast.stitch_patches(noise, origins, (96, 96)).double()
    assert (found - exact).abs().max() <= 0.51 * torch.finfo(dtype).eps


def drawn_defect(rng, height, width):
    kind = int(rng.integers(3))
    return {
        "kind": kind,
        "grid": rng.random([int(rng.integers(1, 7))] * 2),
        "line": rng.uniform((0, 0, 0, 1, 0, 4, 0), (width, height, 3, height, 4, 40, 6)),
        "dots": rng.uniform((0, 0, 0), (width, height, 5), (int(rng.integers(1, 4)), 3)),
        "level": (rng.uniform(0.3, 0.7), -rng.uniform(0.5, 4), 0.0)[kind],
        "edge": rng.uniform(0.05, 0.5) if kind == 0 else rng.uniform(0.5, 3),
    }


@settings(max_examples=40)
@given(seed=seeds, height=st.integers(1, 30), width=st.integers(1, 30), channels=st.integers(1, 3))
def test_synthesis(seed, height, width, channels):
    rng = np.random.default_rng(seed)
    image, source = rng.random((2, height, width, channels))
    shape = drawn_defect(rng, height, width)
    batched = {name: torch.from_numpy(np.asarray(value))[None] for name, value in shape.items()}
    expected = reference.synthesis.support((height, width), **shape)
    agree(fast.support((height, width), **batched)[0], expected, atol=1e-9)
    mask, opacity = int(rng.integers(2)), rng.uniform(0.1, 0.9)
    right, _ = reference.synthesis.synthesize(image, source, **shape, destructive=mask, opacity=opacity)
    found, support = fast.synthesize(
        channels_first(image)[None],
        channels_first(source)[None],
        **batched,
        destructive=torch.tensor([float(mask)], dtype=torch.float64),
        opacity=torch.tensor([opacity], dtype=torch.float64),
        backend="eager",
    )
    agree(support[0], expected, atol=1e-9)
    agree(found[0], right.transpose(2, 0, 1), atol=1e-9)


@settings(max_examples=20)
@given(seed=seeds, mask=st.sampled_from((0, 1)))
def test_blend(seed, mask):
    rng = np.random.default_rng(seed)
    image, anomaly, opacity = rng.random((5, 7, 3)), rng.random((5, 7, 3)), rng.random()
    found = fast.blend(
        channels_first(image),
        channels_first(anomaly),
        torch.tensor(mask),
        torch.tensor(opacity, dtype=torch.float64),
    )
    agree(found, reference.synthesis.blend(image, anomaly, mask, opacity).transpose(2, 0, 1))


@settings(max_examples=40)
@given(seed=seeds, batch=st.integers(1, 4), length=st.integers(1, 9), entries=st.integers(1, 12))
def test_memory(seed, batch, length, entries):
    rng = np.random.default_rng(seed)
    z, memory = rng.normal(size=(batch, length)) * 3, rng.normal(size=(entries, length)) * 3
    layers = [rng.normal(size=size) for size in ((6, length), (6,), (entries, 6), (entries,))]
    query = fast.address(torch.from_numpy(z), *map(torch.from_numpy, layers))
    agree(query, [reference.memory.address(one, *layers) for one in z])
    recalled = fast.recall(query, torch.from_numpy(memory))
    agree(recalled, [reference.memory.recall(one, memory) for one in query.numpy()])
    found = fast.nearest_distance(torch.from_numpy(z), torch.from_numpy(memory), backend="eager")
    expected = [reference.memory.nearest_distance(one, memory) for one in z]
    agree(found[0], [distance for distance, _ in expected])
    assert found[1].tolist() == [index for _, index in expected]


@settings(max_examples=40)
@given(
    seed=seeds,
    size=st.sampled_from((1, 2, 3)),
    channels=st.integers(1, 4),
    blocks=st.tuples(*[st.integers(1, 4)] * 4),
    mixing=st.sampled_from((None, "shared", "dense")),
    temperature=st.floats(0.01, 100),
)
def test_textons(seed, size, channels, blocks, mixing, temperature):
    rng = np.random.default_rng(seed)
    h, w, hm, wm = blocks
    skip = rng.normal(size=(channels, h * size, w * size))
    memory = rng.normal(size=(channels, hm * size, wm * size))
    kernel = None
    if mixing:
        kernel = rng.normal(size=(3, 3) if mixing == "shared" else (hm * wm, hm * wm, 3, 3))
    found = fast.rearrange_textons(
        torch.from_numpy(skip)[None],
        torch.from_numpy(memory)[None],
        size=size,
        mixing=None if kernel is None else torch.from_numpy(kernel),
        temperature=temperature,
        backend="eager",
    )
    expected = reference.textons.rearrange_textons(
        skip, memory, size=size, mixing=kernel, temperature=temperature
    )
    agree(found[0], expected, atol=1e-10)


@settings(max_examples=40)
@given(
    seed=seeds,
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 3),
    window=st.sampled_from((1, 3, 11, 25)),
    median=st.sampled_from((0, 1, 3, 7)),
    modalities=st.permutations(fast_fusion.MODALITIES).flatmap(
        lambda names: st.integers(1, 3).map(lambda count: tuple(names[:count]))
    ),
)
def test_fusion(seed, height, width, channels, window, median, modalities):
    """Every option is drawn, too; windows may be wider than the picture."""
    rng = np.random.default_rng(seed)
    pair = rng.random((2, height, width, channels)) ** rng.integers(1, 4)
    tensors = [channels_first(picture)[None] for picture in pair]
    c0, c1, c2 = 10.0 ** rng.uniform(-5, -1, 3)
    ssim = {"sigma": rng.uniform(0.3, 4), "window": window, "c1": c1, "c2": c2}
    agree(fast.gms(*tensors, c0=c0)[0], reference.fusion.gms(*pair, c0=c0))
    agree(fast.ssim(*tensors, **ssim)[0], reference.fusion.ssim(*pair, **ssim), atol=1e-8)
    agree(fast.residual(*tensors)[0], reference.fusion.residual(*pair))
    one = rng.normal(size=(height, width))
    agree(
        fast_fusion.median_filter(torch.from_numpy(one), median or 5),
        reference.fusion.median_filter(one, median or 5),
    )
    options = {"modalities": modalities, "median": median}
    found = fast.modality_maps(*tensors, **options, backend="eager")
    expected = reference.fusion.modality_maps(*pair, **options)
    assert list(found) == list(expected)
    for name, values in expected.items():
        agree(found[name][0], values, atol=1e-8)
    agree(
        fast.anomaly_map(*tensors, **options, backend="eager")[0],
        reference.fusion.anomaly_map(*pair, **options),
        atol=1e-8,
    )


@settings(max_examples=30)
@given(seed=seeds, height=st.integers(1, 40), width=st.integers(1, 40), sigma=st.floats(0.5, 4))
def test_blurs(seed, height, width, sigma):
    x = np.random.default_rng(seed).normal(size=(height, width, 2))
    planes = torch.from_numpy(x.transpose(2, 0, 1)[None])
    agree(fast.blurs.blurred(planes)[0].permute(1, 2, 0), reference.blurs.blurred(x))
    agree(
        fast.blurs.broadly_blurred(planes, sigma, 8)[0].permute(1, 2, 0),
        reference.blurs.broadly_blurred(x, sigma, 8),
    )


@settings(max_examples=30)
@given(seed=seeds, height=st.integers(1, 40), width=st.integers(1, 40), channels=st.integers(1, 3))
def test_learned_fusion(seed, height, width, channels):
    rng = np.random.default_rng(seed)
    pair = rng.random((2, height, width, channels))
    mean, std = rng.uniform(0.05, 0.5, (2, channels))
    tensors = [torch.from_numpy(p.transpose(2, 0, 1)[None]) for p in pair]
    texture = [torch.from_numpy(mean), torch.from_numpy(std)]
    unlit = fast.without_light(*tensors, texture[1], backend="eager")[0].permute(1, 2, 0)
    agree(unlit, reference.learned_fusion.without_light(*pair, std))
    found = fast.fusion_inputs(*tensors, *texture, backend="eager")
    for one, expected in zip(found, reference.learned_fusion.fusion_inputs(*pair, mean, std)):
        agree(one[0], expected, atol=1e-8)


def constants(*modules):
    """The numbers, texts and tuples of them in capitals, by name."""
    return {
        name: getattr(value, "value", value)  # Triton wraps its own
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and not isinstance(value, dict)
    }


FUSION_ORACLES = (
    reference.blurs,
    reference.fusion_labels,
    reference.fusion_network,
    reference.learned_fusion,
)


def test_constants_of_the_learned_fusion_are_the_twins():
    """Each stands in both on purpose: the oracle leans on nothing that it judges."""
    oracles, twins = constants(*FUSION_ORACLES), constants(learned_fusion, fast_learned_fusion, fast.blurs)
    assert len(oracles) == 21
    assert twins.keys() - oracles.keys() == {
        "WIDTHS",  # of a trained model's own weights
        "SLOPE",  # below, like the next
        "C0",
        "C1",  # of the modality maps: the last test
        "C2",
        "SIGMA",
        "WINDOW",
    }
    assert oracles == {name: twins[name] for name in oracles}


GENERAL_ORACLES = (reference.backbone, reference.general, reference.usual)


def test_constants_of_the_general_features_are_the_twins():
    oracles, twins = constants(*GENERAL_ORACLES), constants(backbone, general, usual)
    twins["NORM_EPS"] = backbone_weights.NORM_EPS  # of the files; the convolutions hold the norms
    twins["PICTURES"] = general_training.PICTURES
    assert len(oracles) == 19
    assert twins.keys() - oracles.keys() == {
        "WIDTH",
        "SLOPE",  # below; the head's width is its own
        "MOST_PLACES",  # bounds of what a file may hold
        "GREATEST_LOG",
    }
    assert oracles == {name: twins[name] for name in oracles}


@pytest.mark.parametrize(
    ("name", "oracle", "twins"),
    [
        ("SLOPE", reference.network, (config, fast_memory, general, learned_fusion, model, reference.memory)),
        ("EPS", reference.textons, (fast_textons, _textons_numba, _textons_triton)),
        ("C0", reference.fusion, (fast_fusion,)),
        ("MODALITIES", reference.fusion, (fast_fusion, background)),
        ("ALARM_PIXELS", reference.scoring, (background,)),
        ("LEAST", reference.good_scores, (good_scores,)),
        ("FIRST", reference.good_scores, (good_scores,)),
        ("MOST_SURPRISE", reference.good_scores, (good_scores,)),
        ("PRIOR_SPREAD", reference.good_scores, (good_scores,)),
        ("PRIOR_WEIGHT", reference.good_scores, (good_scores,)),
    ],
)
def test_constants_are_the_twins(name, oracle, twins):
    for twin in twins:
        assert constants(twin)[name] == constants(oracle)[name], twin.__name__


def test_every_constant_of_the_oracle_is_compared_or_its_own():
    """A new one is either added above or here, with the reason."""
    compared = {"SLOPE", "EPS", "C0", "MODALITIES", "ALARM_PIXELS"} | constants(*FUSION_ORACLES).keys()
    compared |= constants(*GENERAL_ORACLES).keys() | constants(reference.good_scores).keys()
    own = {
        "BN_EPS",  # PyTorch's default in the product, compared below
        "LOG_FLOOR",  # PyTorch's own in the product: test_logits_far_out_stay_finite
        "BLOB",  # kinds of a defect: test_synthesis draws each
        "LINE",
        "DOTS",
    }
    found = constants(*(getattr(reference, name) for name in reference.__all__))
    assert found.keys() == compared | own


def test_numbers_that_stand_elsewhere_in_the_product():
    assert torch.nn.BatchNorm2d(1).eps == reference.network.BN_EPS
    paper = config.preset("paper")
    phase1 = inspect.signature(reference.losses.phase1_loss).parameters
    weights = {name: phase1[name].default for name in ("w_rec", "w_adv", "w_lat")}
    assert weights == {"w_rec": paper.weight_rec, "w_adv": paper.weight_adv, "w_lat": paper.weight_lat}
    phase2 = inspect.signature(reference.losses.phase2_loss).parameters
    assert {name: phase2[name].default for name in ("w_rec", "w_adv")} == {
        name: weights[name] for name in ("w_rec", "w_adv")
    }
    ssim = inspect.signature(reference.fusion.ssim).parameters
    used = {
        "sigma": fast_fusion.SIGMA,
        "window": fast_fusion.WINDOW,
        "c1": fast_fusion.C1,
        "c2": fast_fusion.C2,
    }
    assert {name: ssim[name].default for name in used} == used
