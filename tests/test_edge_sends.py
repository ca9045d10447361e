"""What goes up of an open picture: the whole, its suspect part or features, by node and plan alike."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from lines import until, written
from PIL import Image
from serving import Thread, serving
from tiny import ground, make_general_inspector, make_inspector

import fmrnet
from fmrnet.deployment import plan as planning
from fmrnet.deployment.compress import lossless, lossless_part
from fmrnet.deployment.features import FeaturesError, pack, unpack
from fmrnet.deployment.models import version_of
from fmrnet.deployment.node import EdgeNode
from fmrnet.deployment.suspect import rectangle, suspect
from fmrnet.deployment.uplink import Uplink
from fmrnet.deployment.verdict import Send
from fmrnet.errors import ConfigError
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.region import Region
from fmrnet.pictures import write_picture


def spotted(seed: int) -> np.ndarray:
    """A picture that stays open, with a blot in one corner of it."""
    picture = ground(160, 224, seed=seed)
    picture[5:25, 8:30] = 255
    return picture


def file_of(picture: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose patches differ so much that only those at the blot are suspect."""
    path = tmp_path_factory.mktemp("model") / "tiny.fmr"
    make_general_inspector(1).save(path)
    return path


@pytest.fixture(scope="module")
def inspector(model: Path) -> Inspector:
    return fmrnet.load(model, "cpu", engine="torch")


@pytest.fixture(scope="module")
def cloud(model: Path) -> Iterator[Thread]:
    with serving([model]) as thread:
        yield thread


@pytest.fixture
def open_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all pictures the windows of the upper left corner are suspect."""
    monkeypatch.setattr("fmrnet.deployment.suspect.windows", corner)


def corner(*given: object) -> list[tuple[slice, slice]]:
    """The windows of the upper left corner, of whatever picture."""
    return [(slice(0, 32), slice(0, 64))]


@pytest.mark.parametrize("send", list(Send))
def test_a_node_decides_by_what_it_sends(send, model, inspector, cloud, open_part, tmp_path):
    with EdgeNode(
        model,
        tmp_path,
        port=0,
        cloud=f"http://{cloud.address}",
        line="A",
        device="cpu",
        engine="torch",
        send=send,
    ) as node:
        for seed in range(2):
            first = node.take(file_of(spotted(seed)), f"{seed}.png")
            assert (first.decided_by, first.sent) == (None, None)
        until(lambda: node.state()["totals"]["open"] == 0)
        assert node.troubles() == []
    for seed, one in enumerate(written(tmp_path)):
        x, y, width, height = one["suspect"]
        given = spotted(seed)[y : y + height, x : x + width] if send == Send.part else spotted(seed)
        expected = inspector.inspect(given, "pixel")
        assert (one["decided_by"], one["sent"], one["level"]) == ("cloud", send, "pixel")
        assert one["defective"] == expected.defective
        near = {Send.features: 1e-2, Send.features_8bit: 0.3}.get(send, 0)
        assert one["p_value"] == pytest.approx(expected.p_value, rel=near)
        assert one["score"] == pytest.approx(expected.score, rel=near)
        assert (x, y, width, height) == (0, 0, 96, 64)


def test_what_cannot_be_sent_is_said_before_work_begins(model, tmp_path):
    patches = tmp_path / "patches.fmr"
    make_inspector().save(patches)
    seen = make_general_inspector(1)
    seen.region = Region(0, 0, 96, 96)
    seen.save(tmp_path / "region.fmr")
    for path, send, said in [
        (patches, "features", "no decoder, or cuts pictures into patches"),
        (tmp_path / "region.fmr", "part", "region of interest"),
    ]:
        with pytest.raises(ConfigError, match=said):
            EdgeNode(path, tmp_path / "out", port=0, cloud="http://127.0.0.1:1", device="cpu", send=send)
    assert run("edge", model, "--out", tmp_path / "out", "--port", 0, "--send", "all").exit_code == 2


def test_engines_without_features_are_refused(inspector):
    from fmrnet.deployment.elsewhere import divided

    class Graphs:
        name, config = "onnxruntime", inspector.config

    with pytest.raises(ConfigError, match="engine onnxruntime gives none; use --engine torch"):
        divided(Graphs())


def test_a_part_is_whole_cells_and_no_less_than_a_patch(inspector, open_part):
    first = inspector.inspect(spotted(0), "patch")
    rows, columns = suspect(inspector, (160, 224), first)
    assert (rows, columns) == (slice(0, 64), slice(0, 96))
    assert rectangle(inspector, (160, 224), first) == (0, 0, 96, 64)


@pytest.mark.parametrize("shape", [(64, 64), (70, 101), (160, 224)])
def test_a_part_lies_in_its_picture(inspector, shape):
    picture = ground(*shape, seed=3)
    first = inspector.inspect(picture, "patch")
    first = dataclasses.replace(first, patch_p_values=np.ones_like(first.patch_p_values))
    first.patch_p_values[-1, -1] = 0.0
    x, y, width, height = rectangle(inspector, shape, first)
    size = inspector.config.patch_size
    assert min(width, height) >= size
    assert (x + width, y + height) == shape[::-1]
    assert min(x, y) >= 0
    inspector.inspect(picture[y : y + height, x : x + width], "pixel")


def test_a_part_of_more_than_eight_bits_is_not_cut_out():
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    encoded = io.BytesIO()
    Image.fromarray(deep).save(encoded, format="PNG")
    assert lossless_part(encoded.getvalue(), (0, 0, 32, 32), 16) is None


def maps_of(draw: st.DrawFn, count: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    values = st.floats(-60000, 60000, width=16)
    shapes = [(count, 2, height, width), (count, 1, 2 * height, 2 * width), (count, 1, 4 * height, 4 * width)]
    return tuple(draw(arrays.arrays(np.float32, shape, elements=values)) for shape in shapes)


@given(st.data(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2))
def test_features_come_back_from_their_bytes(data, count, height, width):
    maps = data.draw(st.composite(maps_of)(count, height, width))
    for one, found in zip(maps, unpack(pack(maps, 2), (2, 1, 1), 8), strict=True):
        np.testing.assert_array_equal(found, one.astype(np.float16))
    for one, found in zip(maps, unpack(pack(maps, 1), (2, 1, 1), 8), strict=True):
        span = np.ptp(one, axis=(2, 3), keepdims=True)
        assert (np.abs(found - one) <= span / 255 / 2 * 1.001 + 1e-6 + np.abs(one) * 1e-6).all()


@given(st.data())
def test_bytes_that_are_no_features_are_refused(data):
    import zstandard

    good = pack((np.zeros((1, 2, 1, 1)), np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 4, 4))), 1)
    inner = bytearray(zstandard.decompress(good))
    place = data.draw(st.integers(0, len(inner) - 1))
    inner[place : place + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=4))
    damaged = data.draw(st.sampled_from([zstandard.compress(bytes(inner)), good[:-3], b"", bytes(inner)]))
    found, said = (), ""
    try:
        found = unpack(damaged, (2, 1, 1), 1)
    except FeaturesError as error:
        said = str(error)
    assert said.isprintable()
    assert said or [one.shape for one in found] == [(1, 2, 1, 1), (1, 1, 2, 2), (1, 1, 4, 4)]


def test_features_of_more_than_a_server_takes_are_refused_before_they_are_unpacked():
    import zstandard

    bomb = zstandard.compress(bytes(2**28))
    with pytest.raises(FeaturesError, match="expected up to"):
        unpack(bomb, (2, 1, 1), 8)


@pytest.fixture(scope="module")
def planned(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, planning.Plan]:
    """A folder of three pictures with a suspect corner and two that are none, and its plan."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        write_picture(folder / f"{seed}.png", spotted(seed))
    (folder / "1a.png").write_bytes(b"no picture")
    write_picture(folder / "1b.png", ground(8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmrnet.deployment.suspect.windows", corner)
        return folder, planning.plan(inspector, sorted(folder.glob("*.png")), 8.0)


def test_the_plan_counts_bytes_and_changed_verdicts(inspector, planned):
    folder, made = planned
    assert (made.pictures, made.open, len(made.unreadable)) == (3, 3, 2)
    assert "1a.png" in made.unreadable[0]
    assert "smaller than a patch" in made.unreadable[1]
    found = {row.name: row for row in made.rows}
    data = [(folder / f"{seed}.png").read_bytes() for seed in range(3)]
    assert found["picture, lossless WebP"].up == [len(lossless(one)) for one in data]
    assert found["suspect part, lossless WebP"].up == [
        len(lossless_part(one, (0, 0, 96, 64))) for one in data
    ]
    for width, name in ((2, "float16"), (1, "8 bits")):
        maps = [inspector.engine.features(spotted(seed)[None].astype(np.float32) / 255) for seed in range(3)]
        assert found[f"features, {name}, Zstandard"].up == [len(pack(one, width)) for one in maps]
        assert found[f"features, {name}, Zstandard"].down == [160 * 224 * 4] * 3
    whole = [inspector.inspect(spotted(seed), "pixel").defective for seed in range(3)]
    first = [inspector.inspect(spotted(seed), "patch").defective for seed in range(3)]
    assert found["edge only"].changed == sum(np.not_equal(whole, first))
    assert found["picture, lossless WebP"].changed == found["features, float16, Zstandard"].changed == 0
    row = found["picture, lossless WebP"]
    assert row.link(8.0) == pytest.approx(np.mean(row.up) * 1e-6 + planning.ANSWER * 1e-6)


def test_the_plan_says_what_to_send(inspector):
    rows = [planning.Row(name, send, [up], [0], [0.0], [0.0], changed) for name, send, up, changed in (
        ("a", Send.whole, 100, 0), ("b", Send.part, 10, 1), ("c", Send.features, 50, 0), ("d", None, 1, 0)
    )]  # fmt: skip
    assert planning.Plan(1, 1, rows, 1.0, [], []).best.send == Send.features
    rows[2].changed = 1
    assert planning.Plan(1, 1, rows, 1.0, [], []).best.send == Send.whole


def test_plan_and_cloud_paint_alike(model, inspector, planned, cloud, open_part):
    folder, here = planned
    up = Uplink(f"http://{cloud.address}", "tiny", version_of(model), "plan")
    there = planning.plan(inspector, [folder / "0.png"], 8.0, uplink=up)
    up.close()
    assert [(row.name, row.up[0]) for row in there.rows] == [(row.name, row.up[0]) for row in here.rows]
    assert [row.changed for row in there.rows if row.send not in (None, Send.part)] == [0, 0, 0]


def test_the_plan_is_told(model, tmp_path):
    write_picture(tmp_path / "0.png", spotted(0))
    (tmp_path / "1.png").write_bytes(b"no picture")
    done = run("plan", model, tmp_path, "--link", 10, "--device", "cpu")
    assert done.exit_code == 0
    assert "1.png" in done.output
    assert "1 files cannot be read" in done.output
    assert "use fmrnet edge --send" in done.output
