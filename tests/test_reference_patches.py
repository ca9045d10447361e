"""Slicing and stitching against what must hold: every pixel seen, every picture given back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.reference import patches


@st.composite
def cuts(draw):
    """A picture, a patch size and a stride that fit each other."""
    size = draw(st.integers(1, 9))
    stride = draw(st.integers(1, size))
    H, W = draw(st.integers(size, 25)), draw(st.integers(size, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random((H, W, draw(st.sampled_from([1, 3])))), size, stride


@given(cuts())
def test_stitching_the_slices_gives_the_picture_to_the_last_bit(cut):
    image, size, stride = cut
    cut_patches, origins = patches.slice_patches(image, size, stride)
    assert np.array_equal(patches.stitch_patches(cut_patches, origins, image.shape), image)


@given(cuts())
def test_patches_are_where_their_origins_say_and_the_last_is_flush(cut):
    image, size, stride = cut
    cut_patches, origins = patches.slice_patches(image, size, stride)
    for patch, (r, c) in zip(cut_patches, origins, strict=True):
        assert np.array_equal(patch, image[r : r + size, c : c + size])
    assert len(np.unique(origins, axis=0)) == len(origins)
    for axis in (0, 1):
        starts = np.unique(origins[:, axis])
        assert starts[-1] == image.shape[axis] - size
        assert (starts[:-1] % stride == 0).all()
        assert (np.diff(starts) <= stride).all()


def test_patches_of_the_paper_are_64_pixels_side_by_side():
    cut_patches, origins = patches.slice_patches(np.zeros((130, 128, 3)))
    assert cut_patches.shape == (6, 64, 64, 3)
    assert origins.tolist() == [[r, c] for r in (0, 64, 66) for c in (0, 64)]


def test_overlap_is_a_triangle_weighted_mean():
    """Two 4-pixel patches, 2 pixels shared: there they weigh 2:1 and 1:2 along the row."""
    two = np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))])
    stitched = patches.stitch_patches(two, [[0, 0], [0, 2]], (4, 6))
    assert np.allclose(stitched[0, :, 0], [0, 0, 1 / 3, 2 / 3, 1, 1], atol=1e-15)
    assert np.allclose(stitched, stitched[:1], atol=1e-15)


@given(cuts())
def test_stitched_values_stay_between_those_of_the_patches(cut):
    image, size, stride = cut
    cut_patches, origins = patches.slice_patches(image, size, stride)
    noise = np.random.default_rng(0).random(cut_patches.shape)
    stitched = patches.stitch_patches(noise, origins, image.shape[:2])
    assert stitched.min() >= noise.min() - 1e-12
    assert stitched.max() <= noise.max() + 1e-12


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: patches.slice_patches(np.zeros((63, 80, 3))), "63 x 80.*smaller than a patch of 64"),
        (lambda: patches.slice_patches(np.zeros((80, 80))), r"\(80, 80\); expected \(H, W, C\)"),
        (lambda: patches.slice_patches(np.zeros((80, 80, 1)), 16, 17), "stride 17"),
        (lambda: patches.slice_patches(np.full((80, 80, 1), np.nan)), "6400 values that are NaN"),
        (lambda: patches.stitch_patches(np.zeros((1, 4, 5, 1)), [[0, 0]], (9, 9)), "square"),
        (lambda: patches.stitch_patches(np.zeros((1, 4, 4, 1)), [[6, 0]], (9, 9)), "outside the picture"),
        (lambda: patches.stitch_patches(np.zeros((1, 4, 4, 1)), [[0, 0]], (9, 9)), "65 of 81 pixels"),
        (lambda: patches.stitch_patches(np.zeros((2, 4, 4, 1)), [[0, 0]], (9, 9)), r"\(2, 2\)"),
    ],
)
def test_errors_say_what_was_given(call, says):
    with pytest.raises(ValueError, match=says):
        call()
