"""Large pictures in tiles and the pixel level on suspect windows say what the whole picture says."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ground, make_general_inspector, make_inspector

from fmrnet.config import preset
from fmrnet.engines import tiles
from fmrnet.engines.graph_engine import GraphEngine
from fmrnet.engines.torch_engine import content_of, with_graphs
from fmrnet.inspection.inspector import Inspector

NEAR = 2e-3  # of a reading's, or a map's, spread


@pytest.fixture(scope="module")
def general():
    return make_general_inspector(1)


@pytest.fixture(scope="module")
def engines(general):
    pytest.importorskip("onnxruntime", reason="graphs need pip install 'fmrnet[train]'")
    made, _ = with_graphs(content_of(general.engine))
    return {"torch": general.engine, "onnxruntime": GraphEngine(made, "onnxruntime")}


def surface(height, width, channels=1, seed=0):
    """Grain with a slope of light and a blot, (C, H, W): no part is like another."""
    picture = ground(height, width, channels=channels, seed=seed).astype(np.float32) / 255
    picture = np.atleast_3d(picture).transpose(2, 0, 1) + np.linspace(0, 0.2, width, dtype=np.float32)
    picture[:, height // 2 :, width // 2 : width // 2 + 24] *= 0.6
    return np.ascontiguousarray(picture.clip(0, 1))


def assert_near(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= NEAR * max(float(expected.std()), 1e-6)


def assert_alike(engine, picture, most, monkeypatch):
    """What an engine says of a picture in tiles of so many pixels is what it says of the whole."""
    whole = engine.glance(picture)
    found = engine.compare(whole)
    with monkeypatch.context() as patched:
        patched.setattr(tiles, "PIXELS", most)
        seen = tiles.glance(engine, picture)
        assert isinstance(seen.kept, tiles._InTiles)
        tiled = tiles.compare(engine, seen)
    for mine, right in zip(
        (*seen.readings, *tiled.readings), (*whole.readings, *found.readings), strict=True
    ):
        assert_near(mine, right)
    assert seen.typical == pytest.approx(whole.typical, rel=0.05)
    assert_near(tiled.evidence, found.evidence)
    assert np.abs(tiled.anomaly_map - found.anomaly_map).max() < 1e-3
    assert np.abs(tiled.background - found.background).max() < 1e-4


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
@settings(max_examples=2, deadline=None)
@given(
    height=st.integers(64, 130),
    width=st.integers(1100, 1300),
    seed=st.integers(0, 999),
    upright=st.booleans(),
)
def test_a_strip_in_tiles_is_the_strip(engines, name, height, width, seed, upright):
    picture = surface(height, width, seed=seed)
    if upright:
        picture = np.ascontiguousarray(picture.swapaxes(1, 2))
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert_alike(engines[name], picture, (height + 32) * 700, monkeypatch)


def test_a_panel_of_patches_in_tiles_of_both_directions_is_the_panel(monkeypatch):
    monkeypatch.setattr(tiles, "SEEN", tiles.PAINTED)  # what a patch sees ends with it
    assert_alike(make_inspector().engine, surface(560, 600), 500**2, monkeypatch)


def test_a_picture_of_one_tile_passes_as_it_is(general):
    picture = surface(96, 130)
    seen = tiles.glance(general.engine, picture)
    assert not isinstance(seen.kept, tiles._InTiles)
    found, whole = tiles.compare(general.engine, seen), general.engine.compare(general.engine.glance(picture))
    assert np.array_equal(found.anomaly_map, whole.anomaly_map)
    assert np.array_equal(found.readings, whole.readings)


@pytest.mark.parametrize(
    ("name", "most"), [("onnxruntime cpu", 10 * 2**20), ("torch cuda:0", 10 * 2**20), ("openvino cpu", 2**22)]
)
def test_tiles_are_smaller_for_an_engine_that_takes_more_memory(name, most):
    engine = SimpleNamespace(name=name, config=preset("general"))
    for core, box in tiles._tiles(np.broadcast_to(np.float32(0), (1, 4096, 8192)), engine, 320, 2**21):
        assert tiles._area(core) < tiles._area(box) <= most
        assert tiles._area(box) > most / 2


def test_the_background_of_a_large_picture_is_painted_in_tiles(general, monkeypatch):
    picture = surface(96, 1000)
    whole = general.engine.restore(picture)
    monkeypatch.setattr(tiles, "PIXELS", 96 * 700)
    assert np.abs(tiles.restore(general.engine, picture) - whole).max() < 1e-4


@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    cell=st.sampled_from([32, 96]),
    around=st.sampled_from([192, 320]),
    power=st.integers(19, 24),
)
def test_cores_cover_a_picture_once_and_tiles_are_bounded(height, width, cell, around, power):
    size, covered = (height * 32, width * 32), 0
    ends = {(0, 0)}
    for core in tiles._cores(size, cell, around, 2**power):
        assert (core[0].start, core[1].start) in ends
        ends |= {(core[0].stop, core[1].start), (core[0].start, core[1].stop)}
        covered += tiles._area(core)
        assert core[0].start % cell == 0 == core[1].start % cell
        assert tiles._area(tiles._around(core, size, cell, around)) <= max(
            2**power, (2 * (-(-around // cell)) + 1) ** 2 * cell**2
        )
    assert covered == size[0] * size[1]


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_suspect_windows_alone_say_what_the_pixel_level_says_there(engines, name):
    engine, picture = engines[name], surface(128, 1000)
    seen = tiles.glance(engine, picture)
    whole = engine.compare(seen)
    windows = [(slice(64, 128), slice(320, 384)), (slice(64, 128), slice(352, 416))]
    found = tiles.compare(engine, seen, windows)
    there = (slice(64, 128), slice(320, 416))
    assert_near(found.evidence[there], whole.evidence[there])
    assert_near(found.anomaly_map[there], whole.anomaly_map[there])
    assert_near(found.readings[:, 2, 10:12], whole.readings[:, 2, 10:12])
    far = np.s_[:, 800:]
    assert np.array_equal(found.evidence[far], engine.surprise(seen)[:, :1000][far])
    assert np.array_equal(found.background[0][far], picture[0][far])
    assert np.array_equal(found.readings[0, :, 26:], seen.readings[0, :, 26:])
    assert not found.readings[-1, :, 26:].any()


def test_readings_are_those_of_the_windows_in_which_they_were_found():
    """Of the patches that lie in a core, and no others: each reading here is its own place in the picture."""
    side, step = 64, 32
    rows, columns = (tiles.patches(length, side, step) for length in (256, 384))
    every = np.arange(rows * columns, dtype=np.float32).reshape(1, rows, columns)
    core, box = (slice(64, 192), slice(96, 288)), (slice(32, 256), slice(32, 352))
    found = every[:, 1:7, 1:10]  # as a part from row and column 32 on has them
    placed = np.full_like(every, -1)
    tiles._place_inner(placed, found, core, box, side)
    expected = np.full_like(every, -1)
    expected[:, 2:5, 3:8] = every[
        :, 2:5, 3:8
    ]  # those that begin at 64 to 128 and 96 to 224, and end in the core
    assert np.array_equal(placed, expected)


def test_windows_all_over_a_picture_are_the_whole_picture(general):
    picture = surface(128, 192)
    seen = tiles.glance(general.engine, picture)
    found = tiles.compare(
        general.engine, seen, [(slice(0, 64), slice(0, 64)), (slice(64, 128), slice(128, 192))]
    )
    assert np.array_equal(found.evidence, general.engine.compare(seen).evidence)


def test_auto_looks_closer_at_suspect_windows_alone(general, monkeypatch):
    """And gives the verdict and the mask of the pixel level."""
    inspector = Inspector(general.engine, general.calibration, {})
    inspector.false_alarms = 0.6
    monkeypatch.setattr(type(inspector.calibration), "exit_level", property(lambda self: 0.6))
    # Of random weights all upper windows are alike: say which ones are suspect.
    monkeypatch.setattr(
        type(inspector.calibration),
        "suspect",
        lambda self, p_values: (p_values <= 0.6) & (abs(np.arange(p_values.shape[1]) - 12) < 2),
    )
    picture = ground(96, 1100)
    picture[32:64, 400:440] = 250
    compared: list[int] = []
    compare = general.engine.compare
    monkeypatch.setattr(
        general.engine, "compare", lambda seen: compared.append(seen.picture[0].size) or compare(seen)
    )
    whole, auto = inspector.inspect(picture, "pixel"), inspector.inspect(picture, "auto")
    assert whole.defective
    assert auto.defective
    assert compared[0] == picture.size > 2 * sum(compared[1:])
    assert auto.p_value == pytest.approx(whole.p_value, rel=1e-2)
    assert auto.level == "pixel"
    assert auto.anomaly_map.shape == picture.shape
