"""What an inspection leaves on the disk, and that it leaves nothing half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ground, make_inspector

from fmrnet import fast
from fmrnet.files import replacing, write_json
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.inspection.overlay import RED, overlay
from fmrnet.inspection.record import identify
from fmrnet.inspection.report import open_report
from fmrnet.inspection.sheet import SheetRow, sheet
from fmrnet.pictures import as_picture, read_mask, read_picture, write_picture


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return make_inspector()


@pytest.fixture
def model(tmp_path, inspector):
    """The file that the inspector came from."""
    inspector.save(tmp_path / "tiny.fmr")
    return tmp_path / "tiny.fmr"


def inspect_into(folder, inspector, model, paths, level="pixel"):
    with open_report(folder, inspector, model, level, paths) as report:
        for path in paths:
            picture = read_picture(path)
            report.add(path, picture, inspector.inspect(picture, level), identify(path))
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for defect in ("cut", "hole"):
        (tmp_path / "in" / defect).mkdir(parents=True)
        paths.append(tmp_path / "in" / defect / "000.png")
        write_picture(paths[-1], ground(seed=len(paths)))
    return paths


def test_pixel_level_writes_overlay_mask_and_lossless_map(tmp_path, inspector, model, pictures):
    content = inspect_into(tmp_path / "out", inspector, model, pictures)
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    kinds = ("map.tiff", "mask.png", "overlay.png")
    assert found == [
        ".fmrnet.lock",
        *(f"{defect}/000.{kind}" for defect in ("cut", "hole") for kind in kinds),
        *("report.json", "report.jsonl"),
    ]
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
    assert content["model"]["file"] == str(model)
    assert content["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    head, *lines = map(json.loads, (tmp_path / "out" / "report.jsonl").read_text().splitlines())
    assert lines == content["pictures"]
    assert head == {key: content[key] for key in ("fmrnet", "level", "bits", "region", "thresholds", "model")}
    assert content["model"]["provenance"] == {"command": "none", "seed": 0}


def test_a_second_run_replaces_the_first_and_leaves_nothing_of_it(tmp_path, inspector, model, pictures):
    inspect_into(tmp_path / "out", inspector, model, pictures, "pixel")
    content = inspect_into(tmp_path / "out", inspector, model, pictures, "patch")
    assert [entry["level"] for entry in content["pictures"]] == ["patch", "patch"]
    assert content["pictures"][0]["defective_pixels"] is None
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.name.endswith((".mask.png", ".tiff", ".tmp"))
    ]


def test_patch_level_outlines_the_patches_beyond_the_threshold(tmp_path, inspector, model, pictures):
    picture = read_picture(pictures[0])
    seen = inspector.inspect(picture, "patch")
    scores = seen.patch_scores
    p_values = np.full(scores.shape, 0.01)
    p_values[0, 0] = 0.06
    result = Result(2.0, True, 0.01, "patch", scores, p_values, None, None, 0.1, seen.look)
    filled = inspector.model.filled(torch.zeros(1, 1, *picture.shape))[0]
    assert filled.shape[2] > picture.shape[1], "a patch reaches beyond the border"
    _, origins = fast.slice_patches(filled, inspector.config.patch_size, inspector.config.stride)
    with open_report(tmp_path / "out", inspector, model, "patch", pictures) as report:
        tops, lefts = report._origins(picture, result)
        assert [[top, left] for top in tops for left in lefts] == origins.tolist()
        line = report.add(pictures[0], picture, result, {})
    assert {one["p_value"] for one in line["defects"]} == {0.01}
    red = np.round(RED * 255).astype(np.uint8)
    painted = np.asarray(Image.open(tmp_path / "out" / "cut" / "000.overlay.png"))
    assert (painted == red).all(axis=2).any()


def test_bad_pictures_and_those_not_reached_are_counted(tmp_path, inspector, model, pictures):
    with open_report(tmp_path / "out", inspector, model, "auto", [*pictures, Path("bad.png")]) as report:
        report.add_error(Path("bad.png"), "bad.png\nis empty " + "." * 10_000)
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    (error,) = content["errors"]
    assert error["error"].startswith(r"bad.png\nis empty")
    assert len(error["error"]) < 1100
    expected = {"defective": 0, "good": 0, "unreadable": 1, "wrong_size": 0, "failed": 0, "not_reached": 2}
    expected |= {"without_pictures": 0, "left_early": 0, "seconds": 0}
    assert content["summary"] == expected


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
