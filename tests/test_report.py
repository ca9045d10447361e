"""What an inspection leaves on the disk, and that it leaves nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import fill_disk, ground, make_inspector

from fmrnet import fast
from fmrnet.files import replacing, write_json
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.inspection.report import RED, Report, SheetRow, output_names, overlay, sheet
from fmrnet.pictures import as_picture, read_mask, read_picture, write_picture


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return make_inspector()


def inspect_into(folder, inspector, paths, level="pixel"):
    report = Report(folder, inspector, "tiny.fmr", level, paths)
    for path in paths:
        picture = read_picture(path)
        report.add(path, picture, inspector.inspect(picture, level))
    return report.write()


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for defect in ("cut", "hole"):
        (tmp_path / "in" / defect).mkdir(parents=True)
        paths.append(tmp_path / "in" / defect / "000.png")
        write_picture(paths[-1], ground(seed=len(paths)))
    return paths


def test_pixel_level_writes_overlay_mask_and_lossless_map(tmp_path, inspector, pictures):
    content = json.loads(inspect_into(tmp_path / "out", inspector, pictures).read_text())
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        f"{defect}/000.{kind}"
        for defect in ("cut", "hole")
        for kind in ("map.tiff", "mask.png", "overlay.png")
    ] + ["report.json"]
    for path, entry in zip(pictures, content["pictures"], strict=True):
        result = inspector.inspect(path, "pixel")
        out = {kind: tmp_path / "out" / name for kind, name in entry["files"].items()}
        np.testing.assert_array_equal(np.asarray(Image.open(out["map"])), result.anomaly_map)
        np.testing.assert_array_equal(read_mask(out["mask"]), result.mask)
        assert read_picture(out["overlay"]).shape == (96, 112, 3)
        assert entry["score"] == pytest.approx(result.score)
        assert entry["defective"] == result.defective
        assert entry["defective_pixels"] == result.mask.sum()
        assert (entry["level"], entry["width"], entry["height"]) == ("pixel", 112, 96)
        assert entry["seconds"] > 0
    assert content["summary"]["defective"] + content["summary"]["good"] == 2
    assert content["thresholds"]["pixel"] == inspector.calibration.pixel_threshold
    assert content["model"]["file"] == "tiny.fmr"
    assert content["model"]["provenance"] == {"command": "none", "seed": 0}


def test_a_second_run_replaces_the_first_and_leaves_nothing_of_it(tmp_path, inspector, pictures):
    inspect_into(tmp_path / "out", inspector, pictures, "pixel")
    content = json.loads(inspect_into(tmp_path / "out", inspector, pictures, "patch").read_text())
    assert [entry["level"] for entry in content["pictures"]] == ["patch", "patch"]
    assert content["pictures"][0]["defective_pixels"] is None
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.name.endswith((".mask.png", ".tiff", ".tmp"))
    ]


def test_patch_level_outlines_the_patches_beyond_the_threshold(tmp_path, inspector, pictures):
    picture = read_picture(pictures[0])
    report = Report(tmp_path / "out", inspector, "tiny.fmr", "patch", pictures)
    scores = np.full(inspector.inspect(picture, "patch").patch_scores.shape, np.inf, np.float32)
    scores[0, 0] = 0
    result = Result(2.0, True, "patch", scores, None, None, 0.1)
    _, origins = fast.slice_patches(
        torch.zeros(1, *picture.shape), inspector.config.patch_size, inspector.config.stride
    )
    assert [list(box[:2]) for box in report._boxes(picture, result)] == origins.tolist()[1:]
    report.add(pictures[0], picture, result)
    red = np.round(RED * 255).astype(np.uint8)
    painted = np.asarray(Image.open(tmp_path / "out" / "cut" / "000.overlay.png"))
    assert (painted == red).all(axis=2).any()


def test_bad_pictures_and_those_not_reached_are_counted(tmp_path, inspector, pictures):
    report = Report(tmp_path / "out", inspector, "tiny.fmr", "auto", [*pictures, Path("bad.png")])
    report.add_error(Path("bad.png"), "bad.png is empty")
    content = json.loads(report.write().read_text())
    assert content["errors"] == [{"picture": "bad.png", "error": "bad.png is empty"}]
    assert content["summary"] == {"defective": 0, "good": 0, "unreadable": 1, "not_reached": 2, "seconds": 0}


@given(
    names=st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from(["0", "1", "0.png"]), st.sampled_from([".png", ".jpg"])
        ),
        min_size=1,
        unique=True,
    )
)
def test_output_names_are_as_many_as_the_pictures(names):
    paths = [Path(folder) / f"{stem}{suffix}" for folder, stem, suffix in names]
    found = output_names(paths)
    assert list(found) == paths
    assert len(set(found.values())) == len(paths)


def test_an_overlay_marks_the_defect_and_keeps_the_rest():
    picture = as_picture(ground())
    mask = np.zeros(picture.shape, bool)
    mask[40:50, 60:70] = True
    painted = overlay(picture, mask)
    red = np.round(RED * 255).astype(np.uint8)
    assert (painted == red).all(axis=2).sum() > 30
    far = np.ones(mask.shape, bool)
    far[36:54, 56:74] = False
    np.testing.assert_array_equal(painted[far], np.repeat(ground()[far][:, None], 3, axis=1))
    np.testing.assert_array_equal(overlay(picture), np.dstack([ground()] * 3))
    assert (overlay(picture, boxes=[(0, 0, 64)]) == red).all(axis=2).any()


@pytest.mark.parametrize("room", [0, 100, 9000])
def test_a_full_disk_leaves_whole_files_only(tmp_path, inspector, pictures, monkeypatch, room):
    """Room for nothing, for a part of the overlay, for the overlay and a part of the map."""
    inspect_into(tmp_path / "out", inspector, pictures[:1], "pixel")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    fill_disk(monkeypatch, room)
    with pytest.raises(OSError, match="No space left"):
        inspect_into(tmp_path / "out", inspector, pictures[:1], "pixel")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}.keys() == before.keys()
    for path in (tmp_path / "out").glob("*.png"):
        read_picture(path)
    json.loads((tmp_path / "out" / "report.json").read_text())


def test_replacing_keeps_what_stood_there_until_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted():
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_sheet_is_a_picture(tmp_path, inspector):
    pytest.importorskip("matplotlib")
    picture = as_picture(ground())
    result = inspector.inspect(picture, "pixel")
    row = SheetRow(
        title="good",
        verdict="good, score 0.5",
        picture=picture,
        reconstruction=inspector.reconstruct(picture),
        modalities=inspector.modality_maps(picture),
        anomaly_map=result.anomaly_map,
        mask=result.mask,
        truth=np.zeros(picture.shape, bool),
    )
    sheet(tmp_path / "sheet.png", [row, row], title="Two rows", note="of a test")
    shown = read_picture(tmp_path / "sheet.png")
    assert shown.shape[1] > shown.shape[0]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
