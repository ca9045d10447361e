"""TIFF of every kind that cameras write: the right values, or a refusal that says why."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from raw_files import grey_tags, tiff

from fmrnet.errors import PictureError
from fmrnet.pictures import read_picture

rng = np.random.default_rng(0)
GREY8 = rng.integers(0, 256, (48, 40), dtype=np.uint8)
GREY16 = rng.integers(0, 65536, (48, 40), dtype=np.uint16)
COLOUR8 = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
COLOUR16 = rng.integers(0, 65536, (48, 40, 3), dtype=np.uint16)
SMOOTH = (np.add.outer(np.arange(48), np.arange(40)) * 2).astype(np.uint8)


def read(path, picture, **options):
    tifffile.imwrite(path, picture, **options)
    return read_picture(path)


def unit(picture, white):
    return picture.astype(np.float32) / np.float32(white)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "layout", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["whole", "strips", "tiles"]
)
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "packbits"])
def test_16_bits_in_every_layout(tmp_path, byteorder, bigtiff, layout, compression):
    options = {"byteorder": byteorder, "bigtiff": bigtiff, "compression": compression, **layout}
    for predictor in [False] if compression in (None, "packbits") else [False, True]:
        options["predictor"] = predictor
        np.testing.assert_array_equal(read(tmp_path / "a.tif", GREY16, **options), unit(GREY16, 65535))
        options["photometric"] = "rgb"
        np.testing.assert_array_equal(read(tmp_path / "a.tif", COLOUR16, **options), unit(COLOUR16, 65535))
        planes = np.moveaxis(COLOUR16, 2, 0)
        found = read(tmp_path / "a.tif", planes, planarconfig="separate", **options)
        np.testing.assert_array_equal(found, unit(COLOUR16, 65535))
        del options["photometric"]


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("white", ["miniswhite", "minisblack"])
def test_packed_bits_and_white_as_0(tmp_path, bits, white):
    stored = (GREY16 >> (16 - bits)).astype(np.uint8 if bits <= 8 else np.uint16)
    found = read(tmp_path / "a.tif", stored, bitspersample=bits, photometric=white)
    full = 2**bits - 1
    np.testing.assert_array_equal(found, unit(stored if white == "minisblack" else full - stored, full))


def test_12_packed_bits_by_hand(tmp_path):
    """Two values in three bytes, the higher bits first, as the standard says; not by the writer that the others use."""
    first, second = np.array([0x123, 0xFFF, 0x800]), np.array([0x456, 0x000, 0x001])
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(grey_tags(1, 6, 12), packed.tobytes()))
    expected = np.stack([first, second], axis=1).reshape(1, 6)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), unit(expected, 4095))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_floating_point(tmp_path, dtype, compression):
    picture = rng.random((48, 40)).astype(dtype)
    options = {"compression": compression, "predictor": compression is not None}
    np.testing.assert_array_equal(read(tmp_path / "a.tif", picture, **options), picture.astype(np.float32))
    found = read(tmp_path / "a.tif", picture, photometric="miniswhite", **options)
    np.testing.assert_array_equal(found, (1 - picture).astype(np.float32))


@pytest.mark.parametrize("code", [281, 341])
def test_12_bits_in_16_that_a_tag_states(tmp_path, code):
    twelve = GREY16 >> 4
    tag = [(code, "H", 1, 4095, True)]
    np.testing.assert_array_equal(read(tmp_path / "a.tif", twelve, extratags=tag), unit(twelve, 4095))
    found = read(tmp_path / "a.tif", twelve, extratags=tag, photometric="miniswhite")
    np.testing.assert_array_equal(found, unit(4095 - twelve, 4095))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif", bits=16), unit(65535 - twelve, 65535))
    tifffile.imwrite(tmp_path / "a.tif", GREY16, extratags=tag)
    with pytest.raises(
        PictureError, match=r"values up to 65\d+, and it says that full brightness is 4095; give the"
    ):
        read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif", bits=16), unit(GREY16, 65535))


def test_the_greatest_value_that_a_picture_happens_to_have_is_no_scale(tmp_path):
    tag = [(281, "H", 1, int(GREY16.max()) - 1000, True)]
    np.testing.assert_array_equal(read(tmp_path / "a.tif", GREY16, extratags=tag), unit(GREY16, 65535))


@pytest.mark.parametrize("scale", [1, 256, 257])
def test_palettes_of_8_and_16_bits(tmp_path, scale):
    colours = rng.integers(0, 256, (3, 256), dtype=np.uint16)
    found = read(tmp_path / "a.tif", GREY8, photometric="palette", colormap=colours * np.uint16(scale))
    np.testing.assert_array_equal(found, unit(colours.T[GREY8], 255))


def test_alpha_and_other_channels(tmp_path):
    opaque, clear = np.full((48, 40), 65535, np.uint16), GREY16
    for extra in ("unassalpha", "assocalpha", "unspecified"):
        options = {"planarconfig": "contig", "extrasamples": [extra]}
        found = read(tmp_path / "a.tif", np.dstack([COLOUR16, opaque]), photometric="rgb", **options)
        np.testing.assert_array_equal(found, unit(COLOUR16, 65535))
        found = read(tmp_path / "a.tif", np.dstack([GREY16, opaque]), photometric="minisblack", **options)
        np.testing.assert_array_equal(found, unit(GREY16, 65535))
        reason = "besides RGB that is not said to be alpha" if extra == "unspecified" else "is transparent in"
        with pytest.raises(PictureError, match=reason):
            read(tmp_path / "a.tif", np.dstack([COLOUR16, clear]), photometric="rgb", **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk(tmp_path, dtype):
    cmyk = rng.integers(0, 256, (48, 40, 4), dtype=np.uint8)
    stored = cmyk.astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    expected = unit(np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB")), 255)
    found = read(tmp_path / "a.tif", stored, photometric="separated")
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)


def test_jpeg_inside(tmp_path):
    grey, colour = unit(SMOOTH, 255), np.dstack([unit(SMOOTH, 255)] * 3)
    for layout in ({}, {"tile": (16, 16)}, {"rowsperstrip": 16}):
        found = read(tmp_path / "a.tif", SMOOTH, compression="jpeg", **layout)
        np.testing.assert_allclose(found, grey, atol=0.03)
        found = read(
            tmp_path / "a.tif", np.dstack([SMOOTH] * 3), compression="jpeg", photometric="rgb", **layout
        )
        np.testing.assert_allclose(found, colour, atol=0.03)
    twelve = SMOOTH.astype(np.uint16) * np.uint16(16)
    found = read(tmp_path / "a.tif", twelve, compression="jpeg", bitspersample=12)
    np.testing.assert_allclose(found, unit(twelve, 4095), atol=0.03)


def test_jpeg_inside_in_ycbcr_as_libtiff_reads_it(tmp_path):
    Image.fromarray(COLOUR8).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
    np.testing.assert_allclose(read_picture(tmp_path / "a.tif"), unit(expected, 255), atol=2.01 / 255)


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "raw", "tiff_lzw", "packbits"])
def test_bilevel_as_libtiff_writes_it(tmp_path, compression, fill_order):
    picture = GREY8 > 128
    image = Image.fromarray(picture)
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={266: fill_order})
    if compression == "raw" and fill_order == 2:  # where Pillow notes the order and does not change it
        picture = np.unpackbits(np.packbits(picture, axis=1), axis=1, bitorder="little")[:, :40]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), picture)


def test_fill_order_of_whole_bytes(tmp_path):
    mirrored = np.packbits(np.unpackbits(GREY8[:, :, None], axis=2), axis=2, bitorder="little")
    (tmp_path / "a.tif").write_bytes(tiff({**grey_tags(48, 40), 266: (3, [2])}, mirrored.tobytes()))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), unit(GREY8, 255))


@pytest.mark.parametrize("orientation", range(9))
def test_orientation_without_exif(tmp_path, orientation):
    found = read(tmp_path / "a.tif", COLOUR8, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    upright = {
        2: COLOUR8[:, ::-1], 3: COLOUR8[::-1, ::-1], 4: COLOUR8[::-1], 5: COLOUR8.transpose(1, 0, 2),
        6: COLOUR8[::-1].transpose(1, 0, 2), 7: COLOUR8[::-1, ::-1].transpose(1, 0, 2),
        8: COLOUR8[:, ::-1].transpose(1, 0, 2),
    }.get(orientation, COLOUR8)  # fmt: skip
    np.testing.assert_array_equal(found, unit(upright, 255))


REFUSED = {
    "signed": (GREY16.astype(np.int16), {}, "signed or 32-bit integers"),
    "wide": (GREY16.astype(np.uint32), {}, "signed or 32-bit integers"),
    "complex": (GREY16.astype(np.complex64), {}, "values of the kind COMPLEXIEEEFP"),
    "pages": (np.stack([GREY16] * 5), {}, "more than one frame"),
    "volume": (np.stack([GREY16] * 16), {"volumetric": True, "tile": (16, 16, 16)}, "more than one frame"),
    "bayer": (GREY16, {"photometric": "cfa"}, "holds CFA, neither grey nor RGB"),
    "spectrum": (
        COLOUR16,
        {"photometric": "minisblack", "planarconfig": "contig"},
        "3 channels of MINISBLACK",
    ),
    "lossless_jpeg_2000": (GREY16, {"compression": "jpeg2000"}, "compressed by JPEG2000, .* LZW, deflate or"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_with_the_reason(tmp_path, name):
    picture, options, reason = REFUSED[name]
    with pytest.raises(PictureError, match=reason):
        read(tmp_path / "a.tif", picture, **options)


def tiles(offsets, counts, **sizes):
    """The tags of a BigTIFF of 40 x 32 pixels in tiles, whose pixels start at byte 16."""
    kept = {k: v for k, v in grey_tags(40, 32).items() if k not in (273, 278, 279)}
    width, length = sizes.get("width", 16), sizes.get("length", 16)
    return {**kept, 322: (4, [width]), 323: (4, [length]), 324: (16, offsets), 325: (16, counts)}


JPEG_OF_65535 = bytes.fromhex("ffd8 ffc0 0011 08 ffff ffff 03 012200 021101 031101")
HOSTILE = {
    "far_offset": (
        tiff(tiles([2**50] * 6, [256] * 6), bytes(3000), big=True),
        "pixels go to byte 1125899906842880",
    ),
    "long_tile": (
        tiff(tiles([16] * 6, [2**50] * 6), bytes(3000), big=True),
        "pixels go to byte 1125899906842640",
    ),
    "huge_tile": (
        tiff(tiles([16], [256], width=2**31, length=2**31), bytes(3000), big=True),
        "2147483648x2147483648 pixels, more than",
    ),
    "few_tiles": (
        tiff(tiles([16] * 5, [256] * 5), bytes(3000), big=True),
        "does not list its 6 strips or tiles",
    ),
    "left_out": (
        tiff(tiles([16, 0, 16, 16, 16, 16], [256] * 6), bytes(3000), big=True),
        "leaves some of its strips",
    ),
    "huge": (tiff({**grey_tags(40, 32), 256: (4, [2**31])}, bytes(3000)), "2147483648x40 pixels, more than"),
    "no_rows": (tiff({**grey_tags(40, 32), 278: (4, [0])}, bytes(3000)), "damaged or cut short"),
    "many_channels": (tiff({**grey_tags(40, 32), 277: (3, [65535])}, bytes(3000)), "65535 channels"),
    "own_tail": (tiff(grey_tags(40, 32), bytes(3000), following=8), "more than one frame"),
    "jpeg": (tiff({**grey_tags(40, 32), 259: (3, [7])}, JPEG_OF_65535 + bytes(3000)), "JPEG in it is larger"),
    "palette": (
        tiff({**grey_tags(40, 32), 262: (3, [3]), 320: (3, [0] * 6)}, bytes(3000)),
        "palette does not fit",
    ),
    "predictor": (
        tiff({**grey_tags(40, 32, 12), 317: (3, [2])}, bytes(3000)),
        "12-bit values with a predictor",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_claims_are_held_against_the_file(tmp_path, name):
    data, reason = HOSTILE[name]
    (tmp_path / "a.tif").write_bytes(data)
    started = time.process_time()
    with pytest.raises(PictureError, match=rf"a\.tif .*{reason}"):
        read_picture(tmp_path / "a.tif")
    assert time.process_time() - started < 1


def test_a_tag_that_cannot_be_read_is_not_taken_for_its_default(tmp_path):
    data = tiff({**grey_tags(40, 32), 262: (3, [0])}, bytes(3000))
    tag = (262).to_bytes(2, "little") + b"\x03\0"
    (tmp_path / "a.tif").write_bytes(data.replace(tag, tag[:2] + b"\x63\0"))
    with pytest.raises(PictureError, match=r"damaged or cut short \(tag 262 cannot be read\)"):
        read_picture(tmp_path / "a.tif")


def test_tags_that_claim_the_file_over_and_over(tmp_path):
    """4,000 lists of strips, each a megabyte long and all of them the same: 4 GB if they were read."""
    values, tags = 250_000, 4000
    entry = b"\x11\x01\x04\x00" + values.to_bytes(4, "little") + b"\x08\0\0\0"
    data = b"II*\0" + (8 + 4 * values).to_bytes(4, "little") + bytes(4 * values)
    (tmp_path / "a.tif").write_bytes(data + tags.to_bytes(2, "little") + entry * tags + bytes(4))
    started = time.process_time()
    with pytest.raises(PictureError, match="its tags claim 4000000000 bytes"):
        read_picture(tmp_path / "a.tif")
    assert time.process_time() - started < 1


@pytest.mark.parametrize("kind", ["pages", "nested"])
def test_pages_are_counted_no_further_than_needed(tmp_path, kind):
    """16,000 pages or directories within a directory take no longer than two."""
    if kind == "pages":
        page = tiff(grey_tags(48, 40), GREY8.tobytes())
        start, directory = int.from_bytes(page[4:8], "little"), page[int.from_bytes(page[4:8], "little") : -4]
        chain = [
            directory + (start + (i + 1) * (len(directory) + 4)).to_bytes(4, "little") for i in range(15_999)
        ]
        (tmp_path / "a.tif").write_bytes(page[:start] + b"".join(chain) + directory + bytes(4))
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert len(file.pages) == 16_000
    else:
        tags = {**grey_tags(48, 40), 330: (4, [8] * 16_000)}  # SubIFDs
        (tmp_path / "a.tif").write_bytes(tiff(tags, GREY8.tobytes()))
    started = time.process_time()
    if kind == "pages":
        with pytest.raises(PictureError, match="more than one frame"):
            read_picture(tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), unit(GREY8, 255))
    assert time.process_time() - started < 0.2


def test_tifffile_says_nothing_by_itself(tmp_path, caplog, capfd):
    """It logs what it finds odd; without a log that is set up, Python would print this."""
    caplog.set_level(logging.DEBUG)
    odd = {**grey_tags(48, 40), 270: (1, [0xFF] * 20), 42113: (1, [65] * 9), 254: (3, [9999])}
    (tmp_path / "a.tif").write_bytes(tiff(odd, GREY8.tobytes()))
    read_picture(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(tiff({**grey_tags(48, 40), 273: (4, [2**31])}, GREY8.tobytes()))
    with pytest.raises(PictureError):
        read_picture(tmp_path / "b.tif")
    assert [record for record in caplog.records if record.name.startswith("tifffile")] == []
    assert capfd.readouterr() == ("", "")
    logging.getLogger("tifffile").warning("others are heard")
    assert "others are heard" in caplog.text
