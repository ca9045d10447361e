"""Readers, checks and writers of pictures. The ways in which files go wrong are in test_bad_input.py."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from fmrnet.errors import DatasetError, PictureError
from fmrnet.pictures import (
    as_picture,
    list_pictures,
    read_mask,
    read_picture,
    to_channels,
    write_map,
    write_picture,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])
)


def write_png16(path, picture, *, alpha=False):
    """A 16-bit colour PNG by hand, as Pillow cannot write one."""
    height, width = picture.shape[:2]
    if alpha:
        picture = np.dstack([picture, np.full((height, width), 65535, np.uint16)])
    rows = picture.astype(">u2").reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@given(array=hnp.arrays(st.sampled_from([np.uint8, np.uint16]), shapes))
def test_integers_come_back_from_the_unit_range(array):
    picture = as_picture(array)
    assert picture.dtype == np.float32
    assert picture.ndim == (3 if array.ndim == 3 and array.shape[2] == 3 else 2)
    back = np.round(picture * np.iinfo(array.dtype).max).astype(array.dtype)
    np.testing.assert_array_equal(back.reshape(array.shape), array)


@given(
    array=hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]), shapes, elements=st.floats(0, 1, width=16)
    )
)
def test_floats_in_the_unit_range_are_kept(array):
    picture = as_picture(array)
    assert picture.dtype == np.float32
    np.testing.assert_array_equal(picture.reshape(array.shape), array.astype(np.float32))
    np.testing.assert_array_equal(as_picture(picture), picture)
    assert picture.flags.writeable
    assert not np.shares_memory(picture, array)


@given(
    array=hnp.arrays(np.float64, shapes, elements=st.floats(0, 1)),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, -1e-6, 1.0001, 255.0]),
    place=st.integers(0, 10_000),
)
def test_one_value_outside_the_unit_range_is_refused(array, bad, place):
    array.flat[place % array.size] = bad
    with pytest.raises(PictureError, match="NaN" if np.isnan(bad) else "values from"):
        as_picture(array)


@given(
    array=hnp.arrays(
        st.sampled_from([np.int32, np.int64, np.uint32, np.bool_, np.complex64, "S3", object]),
        shapes,
        fill=st.nothing(),
    )
)
def test_other_types_are_refused(array):
    with pytest.raises(PictureError, match="expected uint8"):
        as_picture(array)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 2), (4, 4, 4), (3, 4, 4, 1), (1, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(PictureError, match="expected \\(H, W\\)"):
        as_picture(np.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0, 3)])
def test_no_pixels_are_refused(shape):
    with pytest.raises(PictureError, match="no pixels"):
        as_picture(np.zeros(shape))


def test_ragged_lists_are_refused():
    with pytest.raises(PictureError, match="cannot be made: "):
        as_picture([[0.0, 1.0], [0.5]])


@given(array=hnp.arrays(np.uint8, shapes), kind=st.sampled_from(["png", "bmp", "tiff", "webp"]))
def test_lossless_8_bit_files_come_back(tmp_path_factory, array, kind):
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    path = tmp_path_factory.mktemp("files") / f"picture.{kind}"
    Image.fromarray(array).save(path, **({"lossless": True} if kind == "webp" else {}))
    picture = read_picture(path)
    if kind == "webp":  # has no grey
        picture, array = to_channels(picture, 3), to_channels(as_picture(array), 3)
        np.testing.assert_array_equal(picture, array)
    else:
        np.testing.assert_array_equal(picture, as_picture(array))


@given(array=hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_16_bit_grey_files_keep_every_bit(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(array).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tif", array)
    tifffile.imwrite(folder / "b.tif", array, byteorder=">")
    (folder / "a.pgm").write_bytes(b"P5 %d %d 65535\n" % array.shape[::-1] + array.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "b.tif", "a.pgm"):
        np.testing.assert_array_equal(read_picture(folder / name), as_picture(array), err_msg=name)


@given(array=hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_16_bit_colour_files_keep_every_bit(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("files")
    write_png16(folder / "rgb.png", array)
    write_png16(folder / "rgba.png", array, alpha=True)
    tifffile.imwrite(folder / "little.tif", array, photometric="rgb")
    tifffile.imwrite(folder / "big.tif", array, photometric="rgb", byteorder=">")
    tifffile.imwrite(folder / "packed.tif", array, photometric="rgb", compression="deflate", predictor=True)
    tifffile.imwrite(
        folder / "packed_big.tif", array, photometric="rgb", compression="deflate", byteorder=">"
    )
    for path in folder.iterdir():
        np.testing.assert_array_equal(read_picture(path), as_picture(array), err_msg=path.name)


def test_16_bit_colour_in_separate_planes_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, 5, 6), np.uint16), photometric="rgb", planarconfig="separate"
    )
    with pytest.raises(PictureError, match="save it as 16-bit PNG"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L.png", "RGB.jpg", "I;16.png", "L.tif", "I;16.tif", "F.tif"])
def test_exif_rotation_is_applied(tmp_path, orientation, kind):
    mode, suffix = kind.split(".")
    rows, columns = np.mgrid[0:16, 0:24]
    ramp = (rows * 24 + columns) / (16 * 24)
    stored = {
        "L": (ramp * 255).astype(np.uint8),
        "RGB": np.dstack([(ramp * 255).astype(np.uint8)] * 3),
        "I;16": (ramp * 65535).astype(np.uint16),
        "F": ramp.astype(np.float32),
    }[mode]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(
        tmp_path / f"a.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {})
    )
    upright = {  # what the number means, from the EXIF standard: where the first row and column belong
        1: ramp, 2: ramp[:, ::-1], 3: ramp[::-1, ::-1], 4: ramp[::-1],
        5: ramp.T, 6: ramp[::-1].T, 7: ramp[::-1, ::-1].T, 8: ramp[:, ::-1].T,
    }[orientation]  # fmt: skip
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.shape[:2] == upright.shape
    np.testing.assert_allclose(to_channels(picture, 1)[:, :, 0], upright, atol=0.02)


def test_16_bit_colour_is_turned_upright_too(tmp_path):
    array = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3) * 700
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(
        read_picture(tmp_path / "a.tif"), as_picture(array.transpose(1, 0, 2)[:, ::-1])
    )


def test_palette_cmyk_and_bilevel_become_rgb_and_grey(tmp_path):
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:, 3:] = (255, 0, 0)
    picture = Image.fromarray(colours)
    picture.quantize(2).save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    picture.convert("L").point(lambda v: 255 * (v > 0)).convert("1").save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png"), as_picture(colours))
    np.testing.assert_array_equal(read_picture(tmp_path / "cmyk.tif"), as_picture(colours))
    np.testing.assert_array_equal(read_picture(tmp_path / "bilevel.png"), as_picture(colours[:, :, 0]))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_one_refused(tmp_path, mode):
    rgba = np.full((4, 6, 4), 200, np.uint8)
    rgba[:, :, 3] = 255
    Image.fromarray(rgba).convert(mode).save(tmp_path / "opaque.png")
    picture = read_picture(tmp_path / "opaque.png")
    assert picture.ndim == (2 if mode == "LA" else 3)
    np.testing.assert_allclose(picture, 200 / 255, atol=1e-6)
    if mode == "P":
        Image.fromarray(rgba).convert("P").save(tmp_path / "clear.png", transparency=bytes([0] * 256))
    else:
        rgba[0, 0, 3] = 254
        Image.fromarray(rgba).convert(mode).save(tmp_path / "clear.png")
    with pytest.raises(PictureError, match=r"transparent in .* flatten"):
        read_picture(tmp_path / "clear.png")


@given(
    array=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1, width=32)
    )
)
def test_maps_come_back_bit_for_bit(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("files") / "map.tiff"
    write_map(path, array)
    np.testing.assert_array_equal(read_picture(path), array)
    np.testing.assert_array_equal(tifffile.imread(path), array)  # a reader nobody here wrote


@given(array=hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_masks_come_back(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("files") / "mask.png"
    write_picture(path, array)
    np.testing.assert_array_equal(read_mask(path), array)


@given(array=hnp.arrays(np.float32, shapes, elements=st.floats(0, 1, width=32)))
def test_to_channels(array):
    picture = as_picture(array)
    grey, colour = to_channels(picture, 1), to_channels(picture, 3)
    assert grey.shape == (*array.shape[:2], 1)
    assert colour.shape == (*array.shape[:2], 3)
    assert grey.dtype == colour.dtype == np.float32
    assert as_picture(grey) is not None  # stays within [0, 1]
    np.testing.assert_allclose(to_channels(to_channels(grey, 3), 1), grey, atol=1e-6)


def test_luma_is_pillows():
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    luma = np.asarray(ImageOps.grayscale(Image.fromarray(colours)))
    np.testing.assert_allclose(to_channels(as_picture(colours), 1)[:, :, 0], luma / 255, atol=0.6 / 255)


def test_listing_is_sorted_flat_and_without_hidden_or_foreign_files(tmp_path):
    for name in ("b.png", "a.JPG", "c.tiff", ".hidden.png", "._b.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_pictures(tmp_path)]
    assert names == ["a.JPG", "b.png", "c.tiff"]
    assert list_pictures([tmp_path / "b.png", tmp_path, tmp_path / "odd.name"]) == [
        tmp_path / name for name in ("b.png", "a.JPG", "c.tiff", "odd.name")
    ]


def test_a_folder_without_pictures_names_the_folders_that_have_some(tmp_path):
    (tmp_path / "good").mkdir()
    with pytest.raises(DatasetError, match="holds no pictures"):
        list_pictures(tmp_path)
    (tmp_path / "good" / "a.png").touch()
    with pytest.raises(DatasetError, match="it has the folders good: name one"):
        list_pictures([tmp_path])
