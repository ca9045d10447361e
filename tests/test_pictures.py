"""Readers, checks and writers of pictures. The ways in which files go wrong are in test_bad_input.py."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
from raw_files import chunk, png

from fmrnet.errors import ConfigError, PictureError
from fmrnet.pictures import (
    as_picture,
    read_mask,
    read_picture,
    to_channels,
    write_map,
    write_picture,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])
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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_is_no_reason_to_refuse(tmp_path, dtype):
    array = np.full((4, 5), 0.5, dtype)
    array[0, 0] = np.nextafter(dtype(1), dtype(2))
    array[0, 1] = -np.nextafter(dtype(0), dtype(1))
    array[0, 2] = dtype(1.0000001)  # float64 that was float32 once
    tifffile.imwrite(tmp_path / "a.tif", array)
    expected = np.clip(array, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(as_picture(array), expected)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), expected)


@given(
    array=hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.float32]), shapes, elements=st.integers(0, 1))
)
def test_byte_order_and_layout_in_memory_do_not_matter(array):
    expected = as_picture(array)
    for same in (
        array.astype(array.dtype.newbyteorder(">")),
        np.asfortranarray(array),
        np.flip(np.flip(array).copy()),
        np.repeat(array, 2, axis=1)[:, ::2],
    ):
        picture = as_picture(same)
        np.testing.assert_array_equal(picture, expected)
        assert picture.flags.c_contiguous
        assert picture.dtype.isnative


@given(array=hnp.arrays(np.uint16, shapes), bits=st.integers(1, 16))
def test_bits_of_an_array(array, bits):
    array >>= 16 - bits
    picture = as_picture(array, bits)
    np.testing.assert_array_equal(np.round(picture * (2**bits - 1)).reshape(array.shape), array)
    if bits < 16:
        array.flat[0] = 2**bits
        with pytest.raises(
            PictureError, match=f"values up to {2**bits}, and {bits} bits end at {2**bits - 1}; give"
        ):
            as_picture(array, bits)


@pytest.mark.parametrize("bits", [0, 17, -3])
def test_no_such_number_of_bits(bits):
    with pytest.raises(ConfigError, match=f"bits = {bits}: expected 1 to 16"):
        as_picture(np.zeros((4, 4), np.uint16), bits)


def test_bits_leave_8_bits_and_floats_alone():
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(as_picture(array, 12), as_picture(array))
    np.testing.assert_array_equal(as_picture(array / 255, 12), as_picture(array / 255))


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


def test_a_masked_array_is_refused():
    with pytest.raises(PictureError, match="has a mask of its own"):
        as_picture(np.ma.masked_equal(np.zeros((4, 4)), 0))


def test_pillow_images_are_taken_as_their_files_would_be(tmp_path):
    """As an array, a palette image would be its indices, and a bilevel one of another range."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, image in enumerate([
        colours, colours.quantize(7), colours.convert("L"), colours.convert("1"), colours.convert("RGBA"),
        Image.fromarray(rng.integers(0, 65536, (12, 14), dtype=np.uint16)),
    ]):  # fmt: skip
        path = tmp_path / f"{number}.png"
        image.save(path, exif=exif)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(as_picture(opened), read_picture(path))
            assert opened.size == (14, 12)  # the caller's image is not turned
        assert as_picture(image).shape[:2] == (12, 14)
    for image in (colours.convert("CMYK"), Image.fromarray(rng.random((12, 14), dtype=np.float32))):
        image.save(tmp_path / "a.tif")
        np.testing.assert_allclose(as_picture(image), read_picture(tmp_path / "a.tif"), atol=1.01 / 255)
    with pytest.raises(PictureError, match=r"Pillow image is transparent in 100\.00%"):
        as_picture(Image.new("RGBA", (4, 4)))
    with pytest.raises(PictureError, match="Pillow image holds signed or 32-bit integers"):
        as_picture(Image.new("I", (4, 4)))
    colours.save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:99])
    with (
        Image.open(tmp_path / "a.png") as opened,
        pytest.raises(PictureError, match="of mode RGB cannot be read"),
    ):
        as_picture(opened)


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
    (folder / "rgb.png").write_bytes(png(array))
    (folder / "rgba.png").write_bytes(png(np.dstack([array, np.full_like(array[:, :, :1], 65535)])))
    (folder / "a.ppm").write_bytes(b"P6 %d %d 65535\n" % array.shape[1::-1] + array.astype(">u2").tobytes())
    tifffile.imwrite(folder / "little.tif", array, photometric="rgb")
    tifffile.imwrite(folder / "big.tif", array, photometric="rgb", byteorder=">")
    tifffile.imwrite(folder / "packed.tif", array, photometric="rgb", compression="deflate", predictor=True)
    tifffile.imwrite(
        folder / "packed_big.tif", array, photometric="rgb", compression="deflate", byteorder=">"
    )
    planes = np.ascontiguousarray(np.moveaxis(array, 2, 0))
    tifffile.imwrite(folder / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    for path in folder.iterdir():
        np.testing.assert_array_equal(read_picture(path), as_picture(array), err_msg=path.name)


@given(
    array=hnp.arrays(
        np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4095)
    ),
    bits=st.sampled_from([None, 12]),
)
def test_12_bits_in_16(tmp_path_factory, array, bits):
    """From the file if it says so, else as told; `tests/test_tiff.py` has TIFF."""
    array.flat[0] = 4095
    folder = tmp_path_factory.mktemp("files")
    expected = array.astype(np.float32) / np.float32(4095)
    (folder / "grey.png").write_bytes(png(array, chunk(b"sBIT", b"\x0c")))
    (folder / "colour.png").write_bytes(png(np.dstack([array] * 3), chunk(b"sBIT", b"\x0c\x0c\x0c")))
    (folder / "alpha.png").write_bytes(
        png(np.dstack([array, array * 0 + 65535]), chunk(b"sBIT", b"\x0c\x10"))
    )
    (folder / "a.pgm").write_bytes(b"P5 %d %d 4095\n" % array.shape[::-1] + array.astype(">u2").tobytes())
    if bits is not None:
        (folder / "silent.png").write_bytes(png(array))
        tifffile.imwrite(folder / "silent.tif", array)
        (folder / "a.pgm").write_bytes(
            b"P5 %d %d 65535\n" % array.shape[::-1] + array.astype(">u2").tobytes()
        )
    for path in folder.iterdir():
        found = read_picture(path, bits)
        np.testing.assert_array_equal(
            found, np.dstack([expected] * 3) if found.ndim == 3 else expected, path.name
        )


@given(
    array=hnp.arrays(
        np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4095)
    )
)
def test_12_bits_that_png_has_stretched_to_16_as_its_standard_wants(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("files") / "a.png"
    stretched = np.round(array / 4095 * 65535).astype(np.uint16)
    for stored in (array << 4, array << 4 | array >> 8, stretched):
        path.write_bytes(png(stored, chunk(b"sBIT", b"\x0c")))
        np.testing.assert_array_equal(read_picture(path), stored.astype(np.float32) / np.float32(65535))


def test_12_bits_in_jpeg_2000(tmp_path):
    array = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(array, bitspersample=12, reversible=True))
    np.testing.assert_array_equal(
        read_picture(tmp_path / "a.jp2"), array.astype(np.float32) / np.float32(4095)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L.png", "RGB.jpg", "I;16.png", "L.tif", "I;16.tif", "F.tif", "L.webp"])
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


@pytest.mark.parametrize("place", ["before", "after", "as_text"])
def test_orientation_of_a_16_bit_png(tmp_path, place):
    array = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()
    text = f"Raw profile type exif\0\nexif\n{len(content):8}\n{content.hex()}\n".encode()
    data = png(array, *([chunk(b"tEXt", text)] if place == "as_text" else []))
    at = {"before": 33, "after": len(data) - 12}.get(place, len(data))
    (tmp_path / "a.png").write_bytes(
        data[:at] + chunk(b"eXIf", content[6:]) * (place != "as_text") + data[at:]
    )
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), as_picture(array[::-1].T))


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


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a real disk of 32 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_while_a_picture_is_written(full_disk):
    noise = np.random.default_rng(0).random(
        (105, 105), dtype=np.float32
    )  # 44 kB: less than Pillow writes at once
    for write, name, small, large in (
        (write_map, "a.tiff", noise[:20, :20], noise),
        (write_picture, "a.png", np.uint8(noise[:20, :20] * 255), np.uint8(np.tile(noise, (3, 3)) * 255)),
    ):
        path = full_disk / name
        write(path, small)
        before = path.read_bytes()
        with pytest.raises(OSError, match="No space left"):
            write(path, large)
        assert path.read_bytes() == before
        assert list(full_disk.iterdir()) == [path]
        path.unlink()


def test_only_listed_formats_are_opened(tmp_path, monkeypatch):
    """For EPS, whatever the file's name, Pillow would run the `gs` that PATH gives."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Image.new("RGB", (70, 70)).save(tmp_path / "x.eps")
    for name in ("x.png", "x.tif", "x.eps"):
        if name != "x.eps":
            (tmp_path / name).write_bytes((tmp_path / "x.eps").read_bytes())
        with pytest.raises(PictureError, match=r"is no picture of a known kind \(PNG, JPEG, BMP"):
            read_picture(tmp_path / name)
    for kind in ("ICO", "TGA", "PCX", "PDF", "ICNS", "SGI", "DDS"):
        Image.new("RGB", (64, 64)).save(tmp_path / "other.png", kind)
        with pytest.raises(PictureError, match="no picture of a known kind"):
            read_picture(tmp_path / "other.png")
    assert not (tmp_path / "ran").exists()


LITTLE_MEMORY = """
    import resource, sys
    import psutil
    from fmrnet.errors import PictureError
    from fmrnet.pictures import read_picture

    limit = psutil.Process().memory_info().vms + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        print(read_picture(sys.argv[1]).shape)
    except PictureError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs `ulimit -v`")
def test_the_memory_that_a_picture_takes_is_known_before_it_is_decoded(tmp_path):
    black = np.zeros((5700, 5700), np.uint8)
    Image.fromarray(black).save(tmp_path / "large.png")
    Image.fromarray(black).save(tmp_path / "large.webp", lossless=True)
    tifffile.imwrite(tmp_path / "large.tif", black, compression="deflate")
    Image.fromarray(black[:600, :600]).save(tmp_path / "small.png")
    seen = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(LITTLE_MEMORY), tmp_path / name],
            capture_output=True, text=True, check=True,
        ).stdout
        for name in ("large.png", "large.tif", "large.webp", "small.png")
    ]  # fmt: skip
    for line in seen[:2]:
        assert "is 5700x5700 pixels, which take 0.19 GB of memory to read, and 0." in line
    assert "memory" in seen[2]  # its decoder takes the room as it opens the file
    assert seen[3] == "(600, 600)\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("a\nb"), ValueError("odd"), OverflowError(), KeyError(3)]
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error, name):
    def fail(*given):
        raise error

    Image.new("L", (4, 4)).save(tmp_path / name)
    for module in ("_pillow", "_tiff"):
        monkeypatch.setattr(f"fmrnet.{module}.decode", fail)
    reason = "takes more memory" if isinstance(error, MemoryError) else "is damaged or cut short"
    with pytest.raises(PictureError, match=rf"^[^\n]*{name} {reason}[^\n]*$"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b.png", "a\ud800.png"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(PictureError, match=r"cannot be the name of a file"):
        read_picture(name)


@given(array=hnp.arrays(np.float32, shapes, elements=st.floats(0, 1, width=32)))
def test_to_channels(array):
    picture = as_picture(array)
    grey, colour = to_channels(picture, 1), to_channels(picture, 3)
    assert grey.shape == (*array.shape[:2], 1)
    assert colour.shape == (*array.shape[:2], 3)
    assert grey.dtype == colour.dtype == np.float32
    assert as_picture(grey) is not None  # stays within [0, 1]
    np.testing.assert_array_equal(to_channels(to_channels(grey, 3), 1), grey)


def test_luma_is_pillows():
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    luma = np.asarray(ImageOps.grayscale(Image.fromarray(colours)))
    np.testing.assert_allclose(to_channels(as_picture(colours), 1)[:, :, 0], luma / 255, atol=0.6 / 255)
