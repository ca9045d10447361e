"""Every kind of bad input: one clear line, exit code 2, no traceback, and the rest of the batch inspected."""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from commands import errors_of, only_error, run
from PIL import Image
from raw_files import grey_tags, png, tiff
from tiny import CONFIG, fill_disk, ground, make_inspector

import fmrnet
from fmrnet import artifact, config
from fmrnet.errors import PictureError
from fmrnet.pictures import read_picture, write_picture


def png_header(width, height):
    """A PNG that claims a size and has next to no pixels."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def truncated(path):
    rough = np.random.default_rng(0).integers(0, 256, (96, 112), dtype=np.uint8)
    Image.fromarray(rough).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def float_tiff(path, value):
    picture = np.full((96, 112), 0.5, np.float32)
    picture[3, 4] = value
    tifffile.imwrite(path, picture)


def frames(path):
    images = [Image.fromarray(ground(seed=seed)) for seed in range(3)]
    images[0].save(path, save_all=True, append_images=images[1:])


def far_tiff():
    """A BigTIFF whose tiles lie at 2^50."""
    kept = {code: tag for code, tag in grey_tags(96, 112).items() if code not in (273, 278, 279)}
    offsets = {322: (4, [16]), 323: (4, [16]), 324: (16, [2**50] * 42), 325: (4, [256] * 42)}
    return tiff({**kept, **offsets}, bytes(3000), big=True)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ground(72, 112)).save(path, exif=exif)


BAD = {  # name of a picture: how it is made, and what is said about it
    "missing.png": (lambda path: None, "does not exist"),
    "empty.png": (lambda path: path.touch(), r"is empty \(0 bytes\)"),
    "folder": (lambda path: path.mkdir(), "holds no pictures"),
    "truncated.png": (truncated, "damaged or cut short"),
    "truncated.jpg": (truncated, "damaged or cut short"),
    "truncated.tif": (truncated, "damaged or cut short"),
    "truncated.bmp": (truncated, "damaged or cut short"),
    "text.png": (lambda path: path.write_text("no picture at all"), "no picture of a known kind"),
    "garbage.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "damaged|no picture"),
    "zero.png": (lambda path: path.write_bytes(png_header(0, 5)), "0x5 pixels|damaged|no picture"),
    "zero.pgm": (lambda path: path.write_bytes(b"P5 0 0 255\n"), "0x0 pixels|damaged|no picture"),
    "bomb.png": (lambda path: path.write_bytes(png_header(60_000, 60_000)), "more than 1,073,741,824"),
    "large.png": (lambda path: path.write_bytes(png_header(33_000, 33_000)), "33000x33000 pixels, more than"),
    "animated.gif": (frames, "more than one frame"),
    "animated.png": (frames, "more than one frame"),
    "pages.tif": (frames, "more than one frame"),
    "postscript.png": (
        lambda path: Image.fromarray(ground()).save(path, format="EPS"),
        r"no picture of a known kind \(PNG, JPEG",
    ),
    "far.tif": (lambda path: path.write_bytes(far_tiff()), "its pixels go to byte 1125899906"),
    "sparse.tif": (
        lambda path: path.write_bytes(tiff({**grey_tags(96, 112), 273: (4, [0])}, bytes(96 * 112))),
        "leaves some of its strips",
    ),
    "twelve.jpg": (
        lambda path: path.write_bytes(
            imagecodecs.jpeg8_encode(ground().astype(np.uint16) * 16, bitspersample=12)
        ),
        "is a JPEG of 12 bits, of which 8 are read; save it as 16-bit PNG or TIFF",
    ),
    "overfull.png": (
        lambda path: path.write_bytes(
            b"P5 112 96 1000\n" + (ground().astype(np.uint16) * 8).astype(">u2").tobytes()
        ),
        r"values up to 11\d\d, and it says that full brightness is 1000",
    ),
    "transparent.png": (
        lambda path: Image.fromarray(np.full((96, 112, 4), 128, np.uint8)).save(path),
        r"transparent in 100\.00% of its pixels; flatten it",
    ),
    "nan.tif": (lambda path: float_tiff(path, np.nan), r"NaN: expected numbers in \[0, 1\]"),
    "infinite.tif": (lambda path: float_tiff(path, np.inf), "values from 0.5 to inf"),
    "bright.tif": (lambda path: float_tiff(path, 255.0), "values from 0.5 to 255"),
    "signed.tif": (lambda path: tifffile.imwrite(path, ground().astype(np.int16)), "signed or 32-bit"),
    "small.png": (lambda path: write_picture(path, ground(63, 112)), "112x63 pixels, smaller than a patch"),
}
ODD = {  # unusual pictures that can be inspected
    "palette.png": lambda path: Image.fromarray(ground()).quantize(16).save(path),
    "rgba.png": lambda path: Image.fromarray(ground(channels=3)).convert("RGBA").save(path),
    "cmyk.jpg": lambda path: Image.fromarray(ground(channels=3)).convert("CMYK").save(path),
    "grey16.tif": lambda path: tifffile.imwrite(path, ground().astype(np.uint16) * 257),
    "colour16.tif": lambda path: tifffile.imwrite(
        path, ground(channels=3).astype(np.uint16) * 257, photometric="rgb"
    ),
    "float.tif": lambda path: float_tiff(path, 0.6),
    "float64.tif": lambda path: tifffile.imwrite(path, np.full((96, 112), 0.5)),
    "rounded.tif": lambda path: float_tiff(path, 1.0000001),
    "alpha16.png": lambda path: path.write_bytes(
        png(np.dstack([ground().astype(np.uint16) * 257, np.full((96, 112), 65535, np.uint16)]))
    ),
    "twelve.tif": lambda path: tifffile.imwrite(path, ground().astype(np.uint16) * 16, bitspersample=12),
    "turned.jpg": turned,
    "still.gif": lambda path: Image.fromarray(ground()).save(path),
    "no_extension": lambda path: Image.fromarray(ground()).save(path, format="PNG"),
}


@pytest.fixture
def fine(tmp_path):
    """A picture with nothing wrong about it."""
    write_picture(tmp_path / "fine.png", ground())
    return tmp_path / "fine.png"


@pytest.fixture
def good(tmp_path):
    """A folder of five good pictures, from which the tiny settings can learn."""
    (tmp_path / "good").mkdir()
    for index in range(5):
        write_picture(tmp_path / "good" / f"{index}.png", ground(seed=index))
    return tmp_path / "good"


@pytest.fixture
def small_preset(monkeypatch):
    """The default preset is a network that trains in a second."""
    monkeypatch.setitem(config.PRESETS, "general", CONFIG)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_and_the_others_are_inspected(model, tmp_path, fine, name):
    make, message = BAD[name]
    make(tmp_path / name)
    seen = run("inspect", model, tmp_path / name, fine, "--out", tmp_path / "out")
    line = only_error(seen)
    assert str(tmp_path / name) in line
    assert re.search(message, line)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [error["picture"] for error in report["errors"]] == [str(tmp_path / name)]
    assert re.search(message, report["errors"][0]["error"])
    assert [entry["picture"] for entry in report["pictures"]] == [str(fine)]
    assert (tmp_path / "out" / "fine.overlay.png").exists()


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("small.png", "folder")])
def test_the_same_from_python(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(PictureError, match=message):
        read_picture(tmp_path / name)


def test_all_bad_pictures_of_a_batch_are_reported(model, tmp_path, fine):
    (tmp_path / "in").mkdir()
    names = [name for name in BAD if name not in ("missing.png", "folder")]
    for name in names:
        BAD[name][0](tmp_path / "in" / name)
    seen = run("inspect", model, tmp_path / "in", fine, "--out", tmp_path / "out")
    assert seen.exit_code == 2
    assert len(errors_of(seen)) == len(names)
    assert f"1 good, {len(names) - 1} unreadable, 1 of the wrong size, 0 failed" in seen.output.replace(
        "1 defective, 0 good", "0 defective, 1 good"
    )


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_inspected(model, tmp_path, name):
    ODD[name](tmp_path / name)
    seen = run("inspect", model, tmp_path / name, "--out", tmp_path / "out")
    assert seen.exit_code == 0, seen.output
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["pictures"]
    assert (entry["height"], entry["width"]) == ((112, 72) if name == "turned.jpg" else (96, 112))


def test_a_file_that_may_not_be_read(model, tmp_path, fine, monkeypatch):
    def refuse(path, *mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("fmrnet.pictures.open", refuse, raising=False)
    seen = run("inspect", model, fine, "--out", tmp_path / "out")
    assert only_error(seen).endswith("cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((96, 112), np.nan), "NaN"),
        (np.full((96, 112), 1.5), "values from 1.5 to 1.5"),
        (np.full((96, 112), -0.5), "values from -0.5"),
        (np.zeros((96, 112), np.int64), "type int64"),
        (np.zeros((96, 112, 4), np.uint8), r"shape \(96, 112, 4\)"),
        (np.zeros((0, 112)), "no pixels"),
        (np.zeros((96, 32)), "32x96 pixels, smaller than a patch"),
    ],
)
def test_arrays(array, message):
    with pytest.raises(PictureError, match=message):
        make_inspector().inspect(array)


def test_a_model_that_is_none(model, tmp_path, fine):
    content = model.read_bytes()
    cases = {
        "missing.fmr": (None, "does not exist; expected a model"),
        "empty.fmr": (b"", "is empty"),
        "truncated.fmr": (content[:-9], "is cut short: 9 of"),
        "altered.fmr": (content[:-1] + bytes([content[-1] ^ 1]), "was altered since it was written"),
        "foreign.fmr": (fine.read_bytes(), "is no FMR-Net model"),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        for arguments in (("inspect", "--out", tmp_path / "out"), ("evaluate",), ("calibrate",), ("info",)):
            command, *options = arguments
            pictures = [] if command == "info" else [fine]
            line = only_error(run(command, tmp_path / name, *pictures, *options))
            assert message in line
            assert name in line
    assert not (tmp_path / "out").exists()


def test_a_model_of_a_newer_format(tmp_path, fine, monkeypatch):
    version = artifact.FORMAT_VERSION
    monkeypatch.setattr(artifact, "FORMAT_VERSION", version + 1)
    make_inspector().save(tmp_path / "new.fmr")
    monkeypatch.undo()
    line = only_error(run("inspect", tmp_path / "new.fmr", fine, "--out", tmp_path / "out"))
    assert line.endswith(
        f"has format version {version + 1}, this release reads up to {version}; upgrade fmrnet"
    )


def test_training_from_a_folder_with_no_good_pictures(tmp_path, good, small_preset):
    out = ("--out", tmp_path / "a.fmr")
    assert "none: no such folder" in only_error(run("train", tmp_path / "none", *out))
    assert "it has the folders good: name one" in only_error(run("train", tmp_path, *out))
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in only_error(run("train", tmp_path / "empty", *out))
    line = only_error(run("train", good, "--anomalies", tmp_path / "empty", *out))
    assert "empty holds no pictures" in line


@pytest.mark.parametrize("name", ["truncated.png", "animated.gif", "nan.tif", "small.png"])
def test_training_with_a_bad_picture_names_it(tmp_path, good, name):
    """A picture is not left out silently: the model would rest on less than the user believes."""
    BAD[name][0](good / name)
    assert name in only_error(run("train", good, "--out", tmp_path / "a.fmr"))


def test_training_with_too_few_patches_for_the_memory(tmp_path):
    (tmp_path / "few").mkdir()
    write_picture(tmp_path / "few" / "a.png", ground(130, 100))
    line = only_error(run("train", tmp_path / "few", "--out", tmp_path / "a.fmr"))
    assert re.search(r"give \d+ patches of 64x64.*512 memory entries.*fewer memory entries", line)


def test_training_settings_out_of_range(tmp_path, good, small_preset):
    out = ("--out", tmp_path / "a.fmr")
    assert "preset 'huge'" in only_error(run("train", good, "--preset", "huge", *out))
    assert "overlap" in only_error(run("train", good, "--overlap", "1.5", *out))
    assert "device 'tpu9'" in only_error(run("train", good, "--device", "tpu9", *out))
    line = only_error(run("train", good, "--out", tmp_path / "none" / "a.fmr"))
    assert re.search("none.* (does not exist|there is no folder)", line)


def test_calibration_and_evaluation_without_what_they_need(model, tmp_path, fine):
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in only_error(run("calibrate", model, tmp_path / "empty"))
    assert "has no folder test" in only_error(run("evaluate", model, tmp_path))
    assert "there is no folder" in only_error(
        run("evaluate", model, tmp_path, "--out", tmp_path / "no" / "a.json")
    )
    before = model.read_bytes()
    BAD["truncated.png"][0](tmp_path / "truncated.png")
    assert "truncated.png" in only_error(run("calibrate", model, fine, tmp_path / "truncated.png"))
    assert model.read_bytes() == before


def test_disk_full_while_training(tmp_path, good, small_preset, monkeypatch):
    fill_disk(monkeypatch, 100)
    line = only_error(run("train", good, "--out", tmp_path / "a.fmr"), code=3)
    assert line == f"fmrnet: {tmp_path / 'a.fmr.checkpoint'}: No space left on device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good"]


def test_disk_full_while_calibrating_keeps_the_old_model(model, tmp_path, good, monkeypatch):
    shutil.copy(model, tmp_path / "a.fmr")
    before = (tmp_path / "a.fmr").read_bytes()
    fill_disk(monkeypatch, 100)
    assert "No space left" in only_error(run("calibrate", tmp_path / "a.fmr", good), code=3)
    assert (tmp_path / "a.fmr").read_bytes() == before
    assert fmrnet.load(tmp_path / "a.fmr") is not None


def test_an_output_folder_that_is_a_file(model, tmp_path, fine):
    for out in (fine, fine / "below"):
        line = only_error(run("inspect", model, fine, "--out", out))
        assert line == f"fmrnet: --out {out} is a file or lies in one; name a folder"


def test_a_backend_that_is_none(model, tmp_path, fine, monkeypatch):
    monkeypatch.setenv("FMRNET_BACKEND", "fastest")
    line = only_error(run("inspect", model, fine, "--out", tmp_path / "out", "--level", "pixel"))
    assert re.search("FMRNET_BACKEND is 'fastest'; expected one of .*eager", line)
