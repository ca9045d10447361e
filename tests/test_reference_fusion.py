"""The anomaly map against scikit-image and SciPy, and what must hold of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity

from fmrnet.reference import fusion

seeds = st.integers(0, 2**32 - 1)


@st.composite
def pairs(draw, least=1):
    """Two pictures: noise, flat areas, steps, a faint defect, or black and white."""
    H, W, C = draw(st.integers(least, 30)), draw(st.integers(least, 30)), draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["noise", "flat", "faint", "binary"]))
    image, reconstruction = rng.random((2, H, W, C))
    if kind == "flat":
        image[:], reconstruction[:] = rng.random(2)
        image[H // 2 :] = rng.random()
    elif kind == "faint":
        reconstruction = np.clip(image + 1e-3 * rng.normal(size=image.shape), 0, 1)
    elif kind == "binary":
        image, reconstruction = image.round(), reconstruction.round()
    return image, reconstruction


def skimage_ssim(image, reconstruction):
    return structural_similarity(
        image, reconstruction, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
        full=True, channel_axis=-1,
    )[1].mean(-1)  # fmt: skip


@given(pairs(least=11))
def test_ssim_is_skimage(pair):
    assert np.allclose(fusion.ssim(*pair), skimage_ssim(*pair), rtol=0, atol=1e-10)


@given(pairs(), st.floats(0.5, 3), st.integers(1, 6))
def test_ssim_of_any_window_is_scipy_gaussian_filters(pair, sigma, half):
    """ndimage.gaussian_filter(x, sigma, radius=half, axes=(0, 1)): mirrored borders, (2 half + 1) wide."""
    I, I_rec = pair

    def mean(x):
        return ndimage.gaussian_filter(x, sigma, radius=half, axes=(0, 1))

    mu, mu_rec = mean(I), mean(I_rec)
    luminance = (2 * mu * mu_rec + 0.02) / (mu**2 + mu_rec**2 + 0.02)
    variances = np.maximum(mean(I**2) - mu**2, 0) + np.maximum(mean(I_rec**2) - mu_rec**2, 0)
    structure = (2 * (mean(I * I_rec) - mu * mu_rec) + 0.03) / (variances + 0.03)
    ours = fusion.ssim(I, I_rec, sigma=sigma, window=2 * half + 1, c1=0.02, c2=0.03)
    assert np.allclose(ours, (luminance * structure).mean(-1), rtol=0, atol=1e-11)


@given(pairs(), st.floats(1e-4, 0.1))
def test_gms_is_scipy_prewitt(pair, c0):
    """hypot of ndimage.prewitt(x, axis=0) / 3 and ndimage.prewitt(x, axis=1) / 3, borders mirrored"""

    def g(x):
        channels = [
            np.hypot(ndimage.prewitt(c, axis=0) / 3, ndimage.prewitt(c, axis=1) / 3)
            for c in x.transpose(2, 0, 1)
        ]
        return np.stack(channels, axis=-1)

    g_o, g_rec = g(pair[0]), g(pair[1])
    theirs = ((2 * g_o * g_rec + c0) / (g_o**2 + g_rec**2 + c0)).mean(-1)
    assert np.allclose(fusion.gms(*pair, c0=c0), theirs, rtol=0, atol=1e-12)


def test_c0_is_gmsds():
    """170 on a range of 255, on a gradient of 0.1 against none."""
    step = np.repeat([[0.0, 0.0, 0.1, 0.1]], 4, axis=0)[..., None]
    assert fusion.gms(step, 0 * step)[1, 1] == pytest.approx(0.0026 / (0.1**2 + 0.0026), rel=1e-12)


@given(pairs())
def test_residual_is_the_length_of_the_difference(pair):
    theirs = np.linalg.norm(pair[0] - pair[1], axis=2) / np.sqrt(pair[0].shape[2])
    assert np.allclose(fusion.residual(*pair), theirs, rtol=0, atol=1e-14)


@given(pairs(), st.sampled_from([1, 3, 5, 9]))
def test_median_is_scipy(pair, window):
    """ndimage.median_filter(values, size=window), borders mirrored"""
    values = pair[0][..., 0]
    assert np.array_equal(fusion.median_filter(values, window), ndimage.median_filter(values, size=window))


@given(
    pairs(), st.sampled_from([0, 3, 5]), st.sampled_from([("gms",), ("residual", "ssim"), fusion.MODALITIES])
)
def test_the_map_is_the_product_of_the_filtered_modalities(pair, median, modalities):
    fused, maps = fusion.anomaly_map(*pair, modalities=modalities, median=median, return_modalities=True)
    plain = {"gms": 1 - fusion.gms(*pair), "ssim": 1 - fusion.ssim(*pair), "residual": fusion.residual(*pair)}
    product = np.ones(fused.shape)
    for name in modalities:
        filtered = ndimage.median_filter(plain[name], size=median) if median else plain[name]
        assert np.allclose(maps[name], filtered, rtol=0, atol=1e-15)
        product *= filtered
    assert list(maps) == list(modalities)
    assert np.allclose(fused, product, rtol=1e-12, atol=1e-15)
    assert np.array_equal(fused, fusion.anomaly_map(*pair, modalities=modalities, median=median))


@given(pairs())
def test_identical_pictures_give_a_zero_map(pair):
    image, _ = pair
    for A in fusion.modality_maps(image, image).values():
        assert np.allclose(A, 0, rtol=0, atol=1e-11)
    assert np.array_equal(fusion.anomaly_map(image, image), np.zeros(image.shape[:2]))


@given(pairs())
def test_modalities_keep_their_range_and_do_not_care_which_picture_is_which(pair):
    maps, swapped = fusion.modality_maps(*pair), fusion.modality_maps(*pair[::-1])
    for name, top in (("gms", 1), ("ssim", 2), ("residual", 1)):
        assert maps[name].min() >= -1e-12
        assert maps[name].max() <= top + 1e-12
        assert np.allclose(maps[name], swapped[name], rtol=0, atol=1e-12)


@given(pairs())
def test_turned_and_mirrored_pictures_give_turned_and_mirrored_maps(pair):
    A = fusion.anomaly_map(*pair, median=3)
    turned = fusion.anomaly_map(*(np.rot90(x) for x in pair), median=3)
    mirrored = fusion.anomaly_map(*(x[:, ::-1] for x in pair), median=3)
    assert np.allclose(turned, np.rot90(A), rtol=0, atol=1e-12)
    assert np.allclose(mirrored, A[:, ::-1], rtol=0, atol=1e-12)


@given(pairs())
def test_grey_three_times_over_is_grey(pair):
    grey = [x[..., :1] for x in pair]
    colour = [np.repeat(x, 3, axis=2) for x in grey]
    assert np.allclose(fusion.anomaly_map(*grey), fusion.anomaly_map(*colour), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reconstruction": np.zeros((8, 9, 3))}, r"has shape \(8, 9, 3\) but image has \(8, 8, 3\)"),
        ({"image": np.zeros((8, 8))}, r"expected \(H, W, C\): for grey, add \[\.\.\., None\]"),
        ({"image": np.full((8, 8, 3), 200)}, "values from 200 to 200; expected"),
        ({"image": np.full((8, 8, 3), np.nan)}, "192 values that are NaN"),
        ({"image": np.zeros((0, 8, 3))}, "empty"),
        ({"median": 4}, "median is 4; expected an odd number of pixels, such as 5"),
        ({"modalities": ("gms", "mse")}, "mse"),
        ({"modalities": ()}, "one or more of"),
        ({"modalities": ("gms", "gms")}, "each once"),
    ],
)  # fmt: skip
def test_errors_say_what_was_given(change, says):
    arguments = {"image": np.zeros((8, 8, 3)), "reconstruction": np.zeros((8, 8, 3))} | change
    with pytest.raises(ValueError, match=says):
        fusion.anomaly_map(**arguments)


def test_ssim_wants_an_odd_window_and_a_width():
    image = np.zeros((8, 8, 1))
    with pytest.raises(ValueError, match="window is 10"):
        fusion.ssim(image, image, window=10)
    with pytest.raises(ValueError, match="sigma is 0"):
        fusion.ssim(image, image, sigma=0)
