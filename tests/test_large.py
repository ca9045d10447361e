"""Pictures too large for memory give what others give: read, inspected and written with bounds that are small here."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tiny import ground, make_general_inspector, make_inspector, make_sensitive_inspector

from fmrnet import large
from fmrnet.engines import tiles
from fmrnet.engines.graph_engine import GraphEngine
from fmrnet.engines.torch_engine import content_of, with_graphs
from fmrnet.errors import PictureError
from fmrnet.inspection import reduced
from fmrnet.inspection.defects import defects
from fmrnet.inspection.limits import few_bits, look
from fmrnet.inspection.record import identify
from fmrnet.inspection.report import open_report
from fmrnet.pictures import read_mask, read_picture, to_channels, write_map

MODELS = {
    "edge": make_inspector,
    "general": make_general_inspector,
    "instant": lambda channels: make_general_inspector(channels, iterations=(0, 0, 0)),
}


@pytest.fixture
def files(monkeypatch):
    """Arrays of more than 3,000 values lie in files from now on; gives what has been put there."""
    made = []
    in_file = large._in_file
    monkeypatch.setattr(large, "MOST", 3000)
    monkeypatch.setattr(large, "BAND", 1000)
    monkeypatch.setattr(large, "_in_file", lambda *shape: made.append(shape) or in_file(*shape))
    return made


def ordinary(function, *given):
    """What a function gives while no array is too large."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(large, "MOST", 2**25)
        return function(*given)


@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 9), st.integers(1, 9)),
        elements=st.floats(0, 2.0**100, width=32, allow_subnormal=False) | st.sampled_from([0.0, 0.25, 1.0]),
    )
)
def test_the_median_of_many_values_is_counted(values):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(large, "MOST", 1)
        monkeypatch.setattr(large, "BAND", 4)
        assert large.median(values) == float(np.median(values))


def test_what_is_computed_of_an_array_in_a_file_lies_in_one_too_until_it_is_a_band(files):
    """Several of a quarter of a picture's size, in memory, take as much as what computes with it."""
    whole = large.zeros((80, 50), np.float32)
    half = large.by_bands(lambda rows: rows[:, ::2] + 1, whole)
    quarter = large.by_bands(lambda rows: rows[:, ::2] + 1, half[:, :24])
    assert [shape for shape, _ in files] == [(80, 50), (80, 25)]
    assert all(map(large.is_large, (whole, half, half[10:60])))
    assert not large.is_large(quarter)
    assert not large.is_large(half[:10])  # fewer values than a band
    assert not large.is_large(np.zeros((80, 25), np.float32))
    assert (quarter == 2).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize(
    "layout", [{}, {"rowsperstrip": 7}, {"tile": (32, 16)}], ids=["whole", "strips", "tiles"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_of_every_layout(tmp_path, files, channels, byteorder, compression, layout, dtype):
    picture = ground(90, 112, channels=channels)
    picture = picture.astype(dtype) * (256 if dtype == np.uint16 else 1)
    if dtype == np.float32:
        picture /= 255
    kind = {"photometric": "rgb" if channels == 3 else "minisblack", "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", picture, compression=compression, **kind, **layout)
    found = read_picture(tmp_path / "a.tif")
    assert files
    assert np.array_equal(found, ordinary(read_picture, tmp_path / "a.tif"))


@pytest.mark.parametrize("channels", [1, 3])
def test_png(tmp_path, files, channels):
    Image.fromarray(ground(channels=channels)).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert len(files) > 1
    assert np.array_equal(found, ordinary(read_picture, tmp_path / "a.png"))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-3000])
    with pytest.raises(PictureError, match="damaged or cut short"):
        read_picture(tmp_path / "a.png")


def test_png_that_is_turned_or_has_clear_places(tmp_path, files):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ground()).save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").shape == (112, 96)
    Image.fromarray(ground()).save(tmp_path / "clear.png", transparency=100)
    with pytest.raises(PictureError, match="transparent"):
        read_picture(tmp_path / "clear.png")


def test_white_as_0_a_palette_and_planes(tmp_path, files):
    grey, colour = ground(), ground(channels=3)
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    tifffile.imwrite(
        tmp_path / "planes.tif", np.moveaxis(colour, 2, 0), planarconfig="separate", photometric="rgb"
    )
    Image.fromarray(colour).quantize(9).save(tmp_path / "palette.tif")
    for name in ("white", "planes", "palette"):
        found = read_picture(tmp_path / f"{name}.tif")
        assert np.array_equal(found, ordinary(read_picture, tmp_path / f"{name}.tif"))
        for channels in (1, 3):
            assert np.array_equal(to_channels(found, channels), ordinary(to_channels, found, channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_looks(files, channels):
    picture = np.ascontiguousarray(np.atleast_3d(ground(131, 167, channels=channels)).transpose(2, 0, 1))
    picture = picture.astype(np.float32) / 65535
    assert look(picture) == ordinary(look, picture)
    assert few_bits(picture) == ordinary(few_bits, picture) is not None


def assert_same(found, expected):
    """Two results, but for the time that they took."""
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(getattr(found, name), value), name
        elif name != "seconds":
            assert getattr(found, name) == value, name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_inspections(tmp_path, files, name, channels):
    inspector = ordinary(MODELS[name], channels)
    picture = ground(150, 201, channels=channels)
    picture[60:90, 100:130] = 255
    tifffile.imwrite(tmp_path / "a.tif", picture, tile=(64, 64), compression="deflate")
    for level in ("patch", "pixel", "auto"):
        found = inspector.inspect(tmp_path / "a.tif", level)
        assert len(files) > 1
        expected = ordinary(inspector.inspect, tmp_path / "a.tif", level)
        assert_same(found, expected)
        if found.marked is not None:
            starts = np.arange(7) * 32
            told = [found.marked, np.random.default_rng(0).random((7, 7)), starts, starts, 64]
            assert defects(*told) == ordinary(defects, *told)


@pytest.mark.parametrize("name", ["general", "instant"])
def test_inspections_in_tiles(files, name, monkeypatch):
    """Tiles of a picture too large for memory are smaller, and those of the pixel level others than the glance's."""
    inspector = ordinary(MODELS[name], 1)
    picture = ground(96, 1312)
    picture[32:64, 400:440] = 250
    expected = ordinary(inspector.inspect, picture)
    monkeypatch.setattr(tiles, "PIXELS", 96 * 1200)
    monkeypatch.setattr(tiles, "LARGE_GLANCED", 96 * 900)
    monkeypatch.setattr(tiles, "LARGE_COMPARED", 96 * 700)
    shapes = []
    glance = inspector.engine.glance
    monkeypatch.setattr(
        inspector.engine, "glance", lambda given, *more: shapes.append(given.shape) or glance(given, *more)
    )
    given_back = []
    monkeypatch.setattr(inspector.engine, "give_back", lambda: given_back.append(len(shapes)))
    found = inspector.inspect(picture)
    assert given_back == [len(shapes)] * 2  # after the glance, and after what follows
    assert len(shapes) > 2
    assert len({*shapes}) == 1  # a size of tile costs memory of its own
    assert found.score == pytest.approx(expected.score, rel=1e-3)
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-3)
    assert np.abs(found.anomaly_map - expected.anomaly_map).max() < 1e-5
    assert (found.mask != expected.mask).mean() < 1e-4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux tells how much memory there is")
def test_onnxruntime_gives_back_what_a_large_picture_took(name):
    pytest.importorskip("onnxruntime", reason="graphs need pip install 'fmrnet[train]'")
    made, _ = with_graphs(content_of(MODELS[name](1).engine))
    engine = GraphEngine(made, "onnxruntime")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    engine.compare(engine.glance(np.full((1, 64, 64), 0.5, np.float32)))
    before = resident()
    engine.compare(engine.glance(np.full((1, 1024, 1024), 0.5, np.float32)))
    taken = resident() - before
    engine.give_back()
    assert resident() - before < 0.5 * taken
    assert taken > 2**26


def test_results_of_a_large_picture(tmp_path, files, monkeypatch):
    """Mask and map are of its size, what is looked at is smaller and says so."""
    monkeypatch.setattr(reduced, "PIXELS", 2000)
    inspector = ordinary(make_sensitive_inspector)
    path, model = tmp_path / "pictures" / "a.tif", tmp_path / "model.fmr"
    path.parent.mkdir()
    ordinary(inspector.save, model)
    tifffile.imwrite(path, ground(121, 150))
    picture = read_picture(path)
    found = inspector.inspect(picture)
    assert found.mask.any()
    with open_report(tmp_path / "out", inspector, model, "pixel", [path], page=lambda report: None) as report:
        line = report.add(path, picture, found, identify(path))
    assert line["shown"] == 1 / 4
    out = tmp_path / "out"
    assert np.array_equal(ordinary(read_mask, out / "a.mask.png"), found.mask)
    assert np.array_equal(tifffile.imread(out / "a.map.tiff"), found.anomaly_map)
    for name in ("a.overlay.png", "report_files/a.picture.jpg", "report_files/a.heat.jpg"):
        with Image.open(out / name) as image:
            assert image.size == (38, 31)
    assert not (out / "report_files/a.gms.jpg").exists()
    surest = line["defects"][0]
    assert surest["column"] + surest["width"] <= 150


def test_what_is_shown_of_a_border_is_what_there_is(files, monkeypatch):
    values = np.random.default_rng(0).random((61, 57), np.float32)
    found = reduced._means(values, 4)
    assert found.shape == (16, 15)
    assert found[0, 0] == pytest.approx(values[:4, :4].mean())
    assert found[15, 14] == pytest.approx(values[60, 56])
    assert reduced._reduced(values, 4, np.maximum)[15, 3] == values[60, 12:16].max()


def test_a_map_of_more_than_4_gb_is_big_tiff(tmp_path, files, monkeypatch):
    monkeypatch.setattr("fmrnet.pictures.MOST_OF_TIFF", 5000)
    values = np.random.default_rng(0).random((61, 57), np.float32)
    write_map(tmp_path / "a.tiff", values)
    assert (tmp_path / "a.tiff").read_bytes()[:4] == b"II+\0"
    assert np.array_equal(tifffile.imread(tmp_path / "a.tiff"), values)


def test_a_disk_without_room_is_named(tmp_path, files, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", ground())
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=99))
    with pytest.raises(
        PictureError, match=r"a\.tif takes 0\.00 GB more in .* 0\.00 GB are free there; set TMPDIR"
    ):
        read_picture(tmp_path / "a.tif")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is taken at once where the system can")
def test_a_disk_that_fills_meanwhile_is_named_and_kills_nobody(tmp_path, files, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    tifffile.imwrite(tmp_path / "a.tif", ground())
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(PictureError, match=r"a\.tif takes .*: No space left on device; set TMPDIR"):
        read_picture(tmp_path / "a.tif")


def test_more_pixels_than_any_file_may_have(tmp_path, files, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", ground())
    monkeypatch.setattr("fmrnet.pictures.MAX_PIXELS_OF_FILE", 9999)
    with pytest.raises(PictureError, match="is 112x96 pixels, more than 9,999"):
        read_picture(tmp_path / "a.tif")
    assert not files
