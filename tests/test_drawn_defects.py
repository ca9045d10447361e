"""Drawn defects: they lie where their masks say, fade with their strength, and repeat with their seed."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.evaluation import drawn_defects
from fmrnet.evaluation.drawn_defects import KINDS, draw_defect

GROUND = np.random.default_rng(0).uniform(0.3, 0.7, size=(96, 128)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31), colour=st.booleans())
def test_a_defect_changes_the_picture_where_its_mask_is(kind, seed, colour):
    picture = np.dstack([GROUND, GROUND * 0.8, GROUND * 0.6]) if colour else GROUND
    drawn, mask = draw_defect(picture, kind, seed=seed)
    change = np.abs(drawn - picture).max(axis=2) if colour else np.abs(drawn - picture)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert 20 < mask.sum() < 0.15 * mask.size
    assert change[mask].mean() > 0.1  # plain to see
    assert change[~mask].mean() < 0.01  # and nowhere else


@pytest.mark.parametrize("kind", KINDS)
def test_strength_scales_the_contrast_and_nothing_else(kind):
    full, mask = draw_defect(GROUND, kind, seed=3)
    half, same_mask = draw_defect(GROUND, kind, strength=0.5, seed=3)
    none, _ = draw_defect(GROUND, kind, strength=0.0, seed=3)
    np.testing.assert_array_equal(mask, same_mask)
    np.testing.assert_array_equal(none, GROUND)
    np.testing.assert_allclose(half - GROUND, (full - GROUND) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_defect(kind):
    np.testing.assert_array_equal(draw_defect(GROUND, kind, seed=1)[0], draw_defect(GROUND, kind, seed=1)[0])
    assert (draw_defect(GROUND, kind, seed=1)[1] != draw_defect(GROUND, kind, seed=2)[1]).any()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="expected one of scratch, stain"):
        draw_defect(GROUND, "dent")
    with pytest.raises(ValueError, match="64 pixels or more"):
        draw_defect(GROUND[:50], "hole")
    with pytest.raises(ValueError, match="0 to 1"):
        draw_defect(GROUND, "hole", strength=1.5)


def test_no_code_is_shared_with_the_training_synthesis():
    tree = ast.parse(inspect.getsource(drawn_defects))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in modules if name.startswith(("fmrnet", "torch", "reference", "fast"))]
