"""Eq 1 and the supports of defects, against PyTorch, SciPy and the definitions pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fmrnet.reference import synthesis

seeds = st.integers(0, 2**32 - 1)


def parameters(rng, H, W, kind):
    """Everything `synthesize` takes beside its pictures, drawn at random."""
    return {
        "kind": kind,
        "grid": rng.normal(size=(int(rng.integers(1, 8)),) * 2),
        "line": [*(rng.random(2) * (W, H)), *rng.random(4) * (7, W, 3, 20) + (0, 0, 0, 1), rng.random() * 7],
        "dots": rng.random((4, 3)) * (W, H, 5),
        "level": [0.3, -2.0, 0.0][kind],
        "edge": 0.2 + rng.random(),
        "destructive": int(rng.integers(2)),
        "opacity": 0.01 + 0.98 * rng.random(),
    }


@given(seeds, st.sampled_from([0, 1, 2]), st.integers(1, 20), st.integers(1, 20))
def test_result_is_a_picture_and_the_picture_itself_outside_the_support(seed, kind, H, W):
    rng = np.random.default_rng(seed)
    image, source = rng.random((2, H, W, 3))
    I_s, S = synthesis.synthesize(image, source, **parameters(rng, H, W, kind))
    assert S.shape == (H, W)
    assert I_s.shape == image.shape
    assert S.min() >= 0
    assert S.max() <= 1
    assert I_s.min() >= -1e-15
    assert I_s.max() <= 1 + 1e-15
    assert np.allclose(I_s[S == 0], image[S == 0], rtol=0, atol=1e-15)


@given(seeds, st.sampled_from([0, 1, 2]))
def test_destructive_defects_are_opaque_and_occlusions_let_lambda_of_the_picture_through(seed, kind):
    rng = np.random.default_rng(seed)
    image, source = rng.random((2, 16, 18, 1))
    drawn = parameters(rng, 16, 18, kind)
    I_s, S = synthesis.synthesize(image, source, **drawn)
    inside = S == 1
    lam = 0.0 if drawn["destructive"] else drawn["opacity"]
    expected = lam * image + (1 - lam) * source
    assert np.allclose(I_s[inside], expected[inside], rtol=0, atol=1e-14)


@given(seeds, st.floats(0, 1))
def test_eq_1_with_a_mask_that_varies(seed, opacity):
    rng = np.random.default_rng(seed)
    image, anomaly, mask = rng.random((5, 6, 3)), rng.random((5, 6, 3)), rng.integers(0, 2, (5, 6))
    I_s = synthesis.blend(image, anomaly, mask, opacity)
    for y, x in np.ndindex(5, 6):
        inner = image[y, x] if mask[y, x] == 0 else anomaly[y, x]
        assert np.allclose(I_s[y, x], opacity * inner + (1 - opacity) * anomaly[y, x], rtol=0, atol=1e-15)


@given(seeds, st.integers(2, 9), st.integers(2, 21), st.integers(2, 21))
def test_blob_is_torch_bilinear_interpolation(seed, g, H, W):
    """torch.nn.functional.interpolate(grid, size=(H, W), mode="bilinear", align_corners=True)"""
    grid = np.random.default_rng(seed).random((g, g))
    S = synthesis.support((H, W), kind=0, grid=grid, line=None, dots=None, level=0.5, edge=1.0)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None], size=(H, W), mode="bilinear", align_corners=True
    )
    assert np.allclose(S, theirs[0, 0].numpy(), rtol=0, atol=1e-12)  # edge 1, level 1/2: S is the field


@given(seeds)
def test_dots_are_scipy_distance_maps(seed):
    """One dot: |distance| is scipy.ndimage.distance_transform_edt to its centre pixel."""
    rng = np.random.default_rng(seed)
    x, y, r = int(rng.integers(20)), int(rng.integers(15)), 4 * rng.random()
    S = synthesis.support((15, 20), kind=2, grid=None, line=None, dots=[[x, y, r]], level=0.0, edge=1.0)
    away = np.ones((15, 20), bool)
    away[y, x] = False
    distance = ndimage.distance_transform_edt(away)
    assert np.allclose(S, np.clip(0.5 + r - distance, 0, 1), rtol=0, atol=1e-12)


def test_straight_line_is_a_bar():
    """A level bar 2 * 5 + 1 pixels long and 2 * 1.5 wide about (x, y) = (9, 6)."""
    S = synthesis.support(
        (13, 20), kind=1, grid=None, line=[9, 6, 0, 5, 0, 10, 0], dots=None, level=-1.5, edge=1e-6
    )
    bar = np.zeros((13, 20))
    bar[5:8, 9 - 6 : 9 + 7] = 1  # |v| < 1.5 and |u| - 5 < 1.5
    assert np.array_equal(S, bar)


@given(seeds)
def test_a_turned_line_is_the_turned_picture_of_the_line(seed):
    rng = np.random.default_rng(seed)
    half_length, amplitude, period, phase = rng.random(4) * (8, 2, 10, 6) + (1, 0, 2, 0)
    level = {"grid": None, "dots": None, "level": -1.0, "edge": 1.0, "kind": 1}
    level_line = synthesis.support((21, 21), line=[10, 10, 0, half_length, amplitude, period, phase], **level)
    upright = synthesis.support(
        (21, 21), line=[10, 10, np.pi / 2, half_length, amplitude, period, phase], **level
    )
    # turned by 90 degrees from x towards y (down): pixel (u, v) -> (-v, u)
    assert np.allclose(upright, np.rot90(level_line, -1), rtol=0, atol=1e-9)


@given(seeds)
def test_every_line_parameter_counts_as_written(seed):
    """Pixel by pixel, from the definition."""
    rng = np.random.default_rng(seed)
    cx, cy, a, half, amp, period, phase = rng.random(7) * (12, 9, 6, 5, 2, 9, 6) + (0, 0, 0, 1, 0, 1, 0)
    S = synthesis.support(
        (9, 12),
        kind=1,
        grid=None,
        line=[cx, cy, a, half, amp, period, phase],
        dots=None,
        level=-1.0,
        edge=0.7,
    )
    for y, x in np.ndindex(9, 12):
        along, across = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ (x - cx, y - cy)
        field = -max(abs(across - amp * np.sin(2 * np.pi * along / period + phase)), abs(along) - half)
        assert S[y, x] == pytest.approx(np.clip(0.5 + (field + 1.0) / 0.7, 0, 1), abs=1e-9)


def test_errors_say_what_was_given():
    picture = np.zeros((4, 4, 1))
    given_ = {"grid": [[0.0]], "line": [0] * 7, "dots": [[0, 0, 1]], "level": 0.0}
    cases = [
        ("kind is 3", lambda: synthesis.support((4, 4), kind=3, edge=1, **given_)),
        ("edge is 0", lambda: synthesis.support((4, 4), kind=0, edge=0, **given_)),
        ("period", lambda: synthesis.support((4, 4), kind=1, edge=1, **given_)),
        ("opacity is 1.5", lambda: synthesis.blend(picture, picture, 0, 1.5)),
        ("mask.*every value 0 or 1", lambda: synthesis.blend(picture, picture, 0.5, 0.5)),
        ("divide uint8 by 255", lambda: synthesis.blend(picture + 255, picture, 0, 0.5)),
        ("one shape", lambda: synthesis.blend(picture, picture[:3], 0, 0.5)),
        (r"for grey, add \[\.\.\., None\]", lambda: synthesis.blend(picture[..., 0], picture, 0, 0.5)),
        (r"expected \(4, 4\) in", lambda: synthesis.anomalous_content(picture, picture, [[0] * 5] * 4)),
    ]  # fmt: skip
    for says, call in cases:
        with pytest.raises(ValueError, match=says):
            call()
