"""Ground-truth masks of every usual kind: above 0 is a defect, and what cannot be told is named."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fmrnet.errors import PictureError
from fmrnet.pictures import read_mask

COLOURS = [0, 0, 0, 128, 0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 255]  # of labels 0 to 4, as in PASCAL VOC


def palette(labels, path):
    image = Image.fromarray(labels)
    image.putpalette(COLOURS)
    image.save(path)


def rgba(labels, path):
    drawn = np.where(labels[:, :, None] > 0, np.uint8([255, 0, 0, 128]), np.uint8([0, 0, 0, 0]))
    Image.fromarray(drawn.astype(np.uint8)).save(path)


KINDS = {  # how labels of 0 to 4 are written
    "zero_and_one.png": lambda labels, path: Image.fromarray((labels > 0).astype(np.uint8)).save(path),
    "black_and_white.png": lambda labels, path: Image.fromarray(np.uint8(labels > 0) * np.uint8(255)).save(
        path
    ),
    "bilevel.png": lambda labels, path: Image.fromarray(labels > 0).save(path),
    "labels.png": lambda labels, path: Image.fromarray(labels).save(path),
    "labels.bmp": lambda labels, path: Image.fromarray(labels).save(path),
    "labels16.png": lambda labels, path: Image.fromarray(labels.astype(np.uint16)).save(path),
    "white16.png": lambda labels, path: Image.fromarray(np.uint16(labels > 0) * np.uint16(65535)).save(path),
    "palette.png": palette,
    "palette.gif": palette,
    "rgb.png": lambda labels, path: Image.fromarray(np.dstack([labels * 0, labels, labels * 9])).save(path),
    "rgba.png": rgba,
    "labels32.tif": lambda labels, path: tifffile.imwrite(path, labels.astype(np.int32)),
    "float.tif": lambda labels, path: tifffile.imwrite(path, labels.astype(np.float32)),
    "negative.tif": lambda labels, path: tifffile.imwrite(path, 255 - labels, photometric="miniswhite"),
    "bilevel.tif": lambda labels, path: Image.fromarray(labels > 0).save(path, compression="group4"),
    "labels.pgm": lambda labels, path: path.write_bytes(
        b"P5 %d %d 4\n" % labels.shape[::-1] + labels.tobytes()
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@given(
    cells=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 4)),
    size=st.integers(2, 5),
)
def test_above_zero_is_a_defect(tmp_path_factory, kind, cells, size):
    labels = cells.repeat(size, 0).repeat(size, 1)
    path = tmp_path_factory.mktemp("masks") / kind
    KINDS[kind](labels, path)
    np.testing.assert_array_equal(read_mask(path), labels > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_many_labels_are_labels_and_not_noise(tmp_path, dtype):
    labels = np.zeros((300, 400), dtype)
    for number in range(200):  # one label a particle, 1 to 200
        row, column = divmod(number, 20)
        labels[row * 30 + 5 : row * 30 + 15, column * 20 + 4 : column * 20 + 16] = number + 1
    Image.fromarray(labels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels > 0)


def drawn(height=150, width=190, colour=(255, 255, 255)):
    """A mask with an oblong and a disc, as bool and as it is drawn."""
    rows, columns = np.mgrid[:height, :width]
    truth = (abs(rows - 50) < 21) & (abs(columns - 60) < 33) | (
        (rows - 110) ** 2 + (columns - 140) ** 2 < 400
    )
    return truth, np.where(truth[:, :, None], np.uint8(colour), np.uint8(0)).astype(np.uint8)


def rims(truth):
    """Where a neighbour is of the other kind."""
    padded = np.pad(truth, 1, mode="edge")
    around = [padded[i : i + truth.shape[0], j : j + truth.shape[1]] for i in range(3) for j in range(3)]
    return np.any(around, axis=0) != np.all(around, axis=0)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("kind", ["grey.jpg", "colour.jpg", "red.jpg", "lossy.webp"])
@pytest.mark.parametrize("again", ["", "as_png"])
def test_traces_of_lossy_compression_are_no_defects(tmp_path, quality, kind, again):
    truth, picture = drawn(colour=(255, 0, 0) if kind == "red.jpg" else (255, 255, 255))
    image = Image.fromarray(picture)
    path = tmp_path / kind
    (image.convert("L") if kind == "grey.jpg" else image).save(path, quality=quality)
    assert ((np.asarray(Image.open(path)) > 0).reshape(*truth.shape, -1).any(2) & ~truth).sum() > 100
    if again:  # the noise stays when the file is saved without loss
        Image.open(path).save(tmp_path / "a.png")
        path = tmp_path / "a.png"
    wrong = read_mask(path) != truth
    assert not wrong[~rims(truth)].any()
    assert wrong.mean() < 0.003


def test_a_smooth_rim_is_cut_in_its_middle(tmp_path):
    truth, picture = drawn()
    small = Image.fromarray(picture).convert("L").resize((95, 75), Image.Resampling.BICUBIC)
    small.resize((190, 150), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    wrong = read_mask(tmp_path / "a.png") != truth
    assert not wrong[~rims(truth)].any()


@pytest.mark.parametrize("value", [1, 2, 20, 100])
def test_labels_in_a_jpeg_are_named(tmp_path, value):
    truth, _ = drawn()
    Image.fromarray(truth.astype(np.uint8) * np.uint8(value)).save(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match=r"a\.jpg holds faint values .* save the mask as PNG"):
        read_mask(tmp_path / "a.jpg")


def test_a_black_jpeg_marks_nothing(tmp_path):
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "a.jpg")
    assert not read_mask(tmp_path / "a.jpg").any()


def test_other_masks_that_cannot_be_told_are_named(tmp_path):
    picture = np.zeros((20, 30, 4), np.uint8)
    picture[5:9, 5:9, 3] = 255  # black where it is opaque
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="draws in black on clear ground"):
        read_mask(tmp_path / "a.png")
    for array in (np.full((4, 4), np.nan, np.float32), np.full((4, 4), -1, np.int16)):
        tifffile.imwrite(tmp_path / "a.tif", array)
        with pytest.raises(PictureError, match="NaN or negative"):
            read_mask(tmp_path / "a.tif")
