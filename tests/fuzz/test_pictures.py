"""Damaged pictures of every format: float32 in [0, 1] or PictureError, nothing printed, little time and memory.

About half a minute; for hours with `FUZZ=long`.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_files import chunk, grey_tags, png, tiff

from fmrnet import _pixels, pictures
from fmrnet.errors import PictureError
from fmrnet.pictures import as_picture, read_mask, read_picture, read_size

PROFILE = settings.get_profile(os.environ.get("FUZZ", "quick"))
SECONDS = 5.0  # of computing, for files of which none takes a tenth
MEGABYTES = 64  # that a file may claim

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (24, 32), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
DEEP = rng.integers(0, 65536, (24, 32), dtype=np.uint16)


def saved(picture: np.ndarray[Any, Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture)
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def written(picture: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, picture, **options)
    return file.getvalue()


def frames(kind: str) -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(GREY + step) for step in range(3)]
    images[0].save(file, kind, save_all=True, append_images=images[1:])
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = ("turned.png", "colour.jpg")
SEEDS: dict[str, bytes] = {
    "grey.png": saved(GREY, "PNG"),
    "palette.png": saved(COLOUR, "PNG", "P", transparency=3),
    "bilevel.png": saved(GREY, "PNG", "1"),
    "deep.png": png(DEEP),
    "twelve.png": png(DEEP >> 4, chunk(b"sBIT", b"\x0c")),
    "deep_alpha.png": png(np.dstack([DEEP] * 4)),
    "turned.png": saved(COLOUR, "PNG", exif=EXIF),
    "frames.png": frames("PNG"),
    "colour.jpg": saved(COLOUR, "JPEG", exif=EXIF),
    "progressive.jpg": saved(COLOUR, "JPEG", progressive=True),
    "cmyk.jpg": saved(COLOUR, "JPEG", "CMYK"),
    "preview.mpo": frames("MPO"),
    "grey.bmp": saved(GREY, "BMP"),
    "colour.bmp": saved(COLOUR, "BMP"),
    "still.gif": saved(GREY, "GIF"),
    "frames.gif": frames("GIF"),
    "bilevel.pbm": saved(GREY, "PPM", "1"),
    "deep.pgm": b"P5 32 24 4095\n" + (DEEP >> 4).astype(">u2").tobytes(),
    "plain.ppm": b"P3 4 2 255\n" + b"7 250 3 " * 8,
    "float.pfm": b"Pf\n32 24\n-1.0\n" + GREY.astype("<f4").tobytes(),
    "lossy.webp": saved(COLOUR, "WEBP"),
    "lossless.webp": saved(GREY, "WEBP", lossless=True),
    "colour.avif": saved(COLOUR, "AVIF", speed=10),
    "grey.jp2": saved(GREY, "JPEG2000"),
    "deep.j2k": saved(DEEP, "JPEG2000", no_jp2=True),
    "grey.tif": tiff(grey_tags(24, 32), GREY.tobytes()),
    "packed.tif": tiff(grey_tags(24, 32, 12), bytes(24 * 48)),
    "big.tif": written(DEEP, bigtiff=True, tile=(16, 16), compression="zstd"),
    "lzw.tif": written(COLOUR, compression="lzw", predictor=True, photometric="rgb"),
    "planes.tif": written(
        np.moveaxis(COLOUR, 2, 0), photometric="rgb", planarconfig="separate", byteorder=">"
    ),
    "deflate.tif": written(GREY / np.float32(255), compression="deflate", predictor=True, rowsperstrip=5),
    "jpeg.tif": written(COLOUR, compression="jpeg", photometric="rgb", tile=(16, 16)),
    "fax.tif": saved(GREY, "TIFF", "1", compression="group4"),
    "packbits.tif": saved(GREY, "TIFF", compression="packbits"),
    "palette.tif": saved(COLOUR, "TIFF", "P"),
    "cmyk.tif": saved(COLOUR, "TIFF", "CMYK"),
    "pages.tif": written(np.stack([GREY] * 4), photometric="minisblack"),
}

numbers = st.sampled_from(
    [0, 1, 2, 7, 8, 9, 12, 15, 16, 17, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31, 2**32 - 1, 2**50]
)
edits = st.one_of(
    st.binary(min_size=1, max_size=4),
    st.builds(
        lambda number, size, order: (number % 256**size).to_bytes(size, order),
        numbers,
        st.sampled_from([1, 2, 4, 8]),
        st.sampled_from(["little", "big"]),
    ),
)


@st.composite
def damaged(draw: Callable[..., Any], seed: bytes) -> bytes:
    """A file with some bytes replaced, most of them in its header, a piece cut out or doubled, or its end missing."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.one_of(st.integers(0, min(120, len(data) - 1)), st.integers(0, len(data) - 1)))
        change = draw(edits)
        data[place : place + len(change)] = change
    if draw(st.integers(0, 3)) == 0:
        start, size = draw(st.integers(0, len(data) - 1)), draw(st.integers(1, 64))
        piece = data[start : start + size]
        data[start : start + size] = piece * draw(st.sampled_from([0, 2, 3]))
    if draw(st.integers(0, 3)) == 0:
        del data[draw(st.integers(1, max(1, len(data)))) :]
    return bytes(data)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What files may claim is less than what would slow this test down."""
    for module in (_pixels, pictures):
        monkeypatch.setattr(module, "headroom", lambda: MEGABYTES * 10**6)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_picture_is_read_or_named(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    caplog.set_level(logging.WARNING)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(PROFILE, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(data=damaged(SEEDS[name]), bits=st.sampled_from([None, 12]))
    def check(data: bytes, bits: int | None) -> None:
        path.write_bytes(data)
        started = time.process_time()
        try:
            picture = read_picture(path, bits)
        except PictureError as error:
            assert str(error).startswith(f"{path} ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 500  # noqa: PT017
        else:
            assert picture.dtype == np.float32
            assert picture.flags.c_contiguous
            np.testing.assert_array_equal(as_picture(picture), picture)  # of a right shape, within [0, 1]
        try:
            mask = read_mask(path)
        except PictureError:
            pass
        else:
            assert mask.dtype == np.bool_
            assert mask.ndim == 2
            assert sorted(read_size(path)) == sorted(mask.shape)
        assert time.process_time() - started < SECONDS

    check()
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")
    assert not caplog.records
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / (
        1e6 if sys.platform == "darwin" else 1e3
    )
    assert grown < 3 * MEGABYTES


@pytest.mark.parametrize("name", [name for name in SEEDS if name not in ("palette.png", "deep_alpha.png")])
def test_the_undamaged_are_read_or_have_several_frames(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(SEEDS[name])
    if name.startswith(("frames", "pages")):
        with pytest.raises(PictureError, match="more than one frame"):
            read_picture(tmp_path / name)
    elif name == "float.pfm":
        with pytest.raises(PictureError, match="values from"):
            read_picture(tmp_path / name)
    else:
        picture = read_picture(tmp_path / name)
        stored = read_size(tmp_path / name)
        assert stored == (picture.shape[1::-1] if name in TURNED else picture.shape[:2])
