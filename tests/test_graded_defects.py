"""Graded defects: they lie where their masks say, are as large and as strong as asked, and repeat with their seed."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fmrnet.evaluation import graded_defects
from fmrnet.evaluation.graded_defects import GRADED_KINDS, draw_graded, texture_deviation

GROUND = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(128, 160)), 1.0)
GROUND = (0.5 + 0.05 * GROUND / GROUND.std()).astype(np.float32)


@settings(max_examples=10)
@pytest.mark.parametrize("kind", GRADED_KINDS)
@given(seed=st.integers(0, 2**31), size=st.floats(8, 60), colour=st.booleans())
def test_a_defect_changes_the_picture_where_its_mask_is(kind, seed, size, colour):
    picture = np.dstack([GROUND, GROUND * 0.8, GROUND * 0.6]) if colour else GROUND
    drawn, mask = draw_graded(picture, kind, size=size, contrast=1.0, seed=seed)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert mask.sum() < 2 * size**2
    changed = np.abs(drawn - picture).reshape(*mask.shape, -1).max(axis=2) > 1e-6
    assert not (changed & ~ndimage.binary_dilation(mask, iterations=int(size))).any()
    if mask.sum() > 50:
        assert changed[mask].mean() > 0.9


@pytest.mark.parametrize("kind", GRADED_KINDS)
def test_larger_ones_are_larger(kind):
    area = [
        np.mean([draw_graded(GROUND, kind, size=s, contrast=1.0, seed=seed)[1].sum() for seed in range(12)])
        for s in (10, 20, 40, 80)
    ]
    assert (np.diff(area) > 0).all()


@pytest.mark.parametrize("kind", ["stain", "crack"])
def test_contrast_is_in_deviations_of_the_texture(kind):
    deviation = texture_deviation(GROUND[:, :, None].astype(np.float64))
    assert deviation == pytest.approx(0.05, rel=0.05)
    for contrast in (0.2, 1.0, 2.0):
        drawn, mask = draw_graded(GROUND, kind, size=50, contrast=contrast, seed=1)
        assert np.abs(drawn - GROUND)[mask].max() == pytest.approx(contrast * deviation, rel=1e-3)
    np.testing.assert_array_equal(draw_graded(GROUND, kind, size=50, contrast=0, seed=1)[0], GROUND)


@pytest.mark.parametrize("kind", GRADED_KINDS)
def test_a_seed_fixes_the_defect(kind):
    one, again, other = (draw_graded(GROUND, kind, size=30, contrast=1.0, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], again[0])
    assert (one[1] != other[1]).any()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="expected one of stain, wear"):
        draw_graded(GROUND, "dent", size=20, contrast=1)
    with pytest.raises(ValueError, match="64 pixels or more"):
        draw_graded(GROUND[:50], "stain", size=20, contrast=1)
    with pytest.raises(ValueError, match="4 pixels or more"):
        draw_graded(GROUND, "stain", size=np.nan, contrast=1)
    with pytest.raises(ValueError, match="0 or more"):
        draw_graded(GROUND, "stain", size=20, contrast=-1)


def test_no_code_is_shared_with_the_training_synthesis():
    tree = ast.parse(inspect.getsource(graded_defects))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in modules if name.startswith(("fmrnet", "torch", "reference", "fast"))]
