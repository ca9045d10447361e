"""Masks and flat pictures among the good ones are named; pictures of a surface are not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from fmrnet.errors import DatasetError
from fmrnet.learning.data import load_good_pictures
from fmrnet.learning.oddities import oddity
from fmrnet.pictures import as_picture

seeds = st.integers(0, 2**20)


def blob(height=80, width=90):
    """A defect's support."""
    y, x = np.mgrid[:height, :width]
    return (y - 30) ** 2 + (x - 50) ** 2 < 200


def jpeg(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


MASKS = {
    "black": blob() * np.uint8(0),
    "white": np.full((80, 90), 255, np.uint8),
    "of 255": blob() * np.uint8(255),
    "of 1": blob() * np.uint8(1),
    "of 1 in 16 bit": blob() * np.uint16(1),
    "inverted": ~blob() * np.uint8(255),
    "labelled": blob() * np.uint8(80) + np.roll(blob(), 25, 0) * np.uint8(100),
    "red": blob()[..., None] * np.array([255, 0, 0], np.uint8),
    "smoothed": np.asarray(Image.fromarray(blob() * np.uint8(255)).filter(ImageFilter.SMOOTH)),
    "compressed": jpeg(blob()),
    "flat": np.full((80, 90, 3), (90, 10, 20), np.uint8),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_and_flat_pictures_are_odd(name):
    assert oddity(as_picture(MASKS[name])) is not None


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    mean=st.integers(0, 255),
    deviation=st.integers(2, 80),
    channels=st.sampled_from([(), (3,)]),
    kind=st.sampled_from([np.uint8, np.uint16]),
)
def test_surfaces_are_not(seed, mean, deviation, channels, kind):
    """However dark or glaring, as long as less than half of it is drowned in black."""
    noise = np.random.default_rng(seed).normal(max(mean, deviation), deviation, (80, 90, *channels))
    scale = np.iinfo(kind).max // 255
    assert oddity(as_picture((noise.clip(0, 255) * scale).astype(kind))) is None


def test_a_part_on_a_black_ground_is_not():
    picture = np.zeros((80, 90), np.uint8)
    picture[20:50, 30:70] = np.random.default_rng(0).integers(60, 200, (30, 40))
    assert oddity(as_picture(picture)) is None


def test_the_user_decides(tmp_path):
    surface = np.random.default_rng(0).integers(60, 200, (80, 90), dtype=np.uint8)
    for index in range(8):
        Image.fromarray(surface).save(tmp_path / f"{index}.png")
        Image.fromarray(MASKS["of 255" if index else "black"]).save(tmp_path / f"{index}_mask.png")
    expected = (
        r"8 of 16 good pictures do not look like a surface: 0_mask.png \(one value only\), "
        r"1_mask.png \(two values only, as a mask has\), .* and 3 more; take them out, "
        r"or learn from them, too, with --keep-odd"
    )
    with pytest.raises(DatasetError, match=expected):
        load_good_pictures(tmp_path, 64)
    pictures, _ = load_good_pictures(tmp_path, 64, keep_odd=True)
    assert len(pictures) == 16
