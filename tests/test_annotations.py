"""Defects in other programs' formats: read by those programs' own readers, every mask is what it was."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree as xml

import numpy as np
import pytest
from commands import only_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools.coco import COCO
from tiny import ground, make_sensitive_inspector

from fmrnet.inspection.annotations.coco import coco
from fmrnet.inspection.annotations.cvat import cvat
from fmrnet.inspection.annotations.finding import Finding
from fmrnet.inspection.annotations.labelme import labelme
from fmrnet.inspection.annotations.regions import filled, regions, run_lengths
from fmrnet.inspection.annotations.table import table
from fmrnet.inspection.annotations.write import FORMATS
from fmrnet.inspection.record import path_of
from fmrnet.pictures import read_mask, read_picture, write_picture

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of pycocotools
masks = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def finding(mask, name="cut/0.png"):
    height, width = mask.shape
    line = {
        "width": width,
        "height": height,
        "score": 2.5,
        "p_value": 0.01,
        "defective": True,
        "level": "pixel",
    }
    return Finding(Path("in") / name, name, name.removesuffix(".png"), line, tuple(regions(mask)))


def together(masks, shape):
    whole = np.zeros(shape, np.bool_)
    for mask in masks:
        assert not (whole & mask).any()  # no pixel belongs to two regions
        whole |= mask
    return whole


@given(masks)
def test_regions_are_the_mask_in_connected_parts(mask):
    found = list(regions(mask))
    assert np.array_equal(together((region.on(*mask.shape) for region in found), mask.shape), mask)
    assert sum(region.area for region in found) == mask.sum()
    for region in found:
        assert all(side.any() for side in (region.inside[0], region.inside[-1], *region.inside.T[[0, -1]]))


@given(st_numpy.arrays(np.bool_, st.integers(0, 40)))
def test_runs_are_the_values(values):
    lengths = run_lengths(values)
    assert np.array_equal(filled(lengths, values.size), values)
    assert all(lengths[1:])


@pytest.mark.parametrize("lengths", [[3], [1, -1, 2], []])
def test_runs_of_another_length_are_refused(lengths):
    with pytest.raises(ValueError, match="expected 2"):
        filled(lengths, 2)


def coco_of(content, folder):
    (folder / "coco.json").write_bytes(content)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "coco.json"))


@settings(max_examples=20)
@given(masks, masks)
def test_pycocotools_reads_the_masks_from_coco(tmp_path_factory, first, second):
    read = coco_of(coco([finding(first), finding(second, "1.png")]), tmp_path_factory.getbasetemp())
    for image, mask, name in ((1, first, "cut/0.png"), (2, second, "1.png")):
        (told,) = read.loadImgs(image)
        assert (told["file_name"], told["height"], told["width"]) == (name, *mask.shape)
        every = read.loadAnns(read.getAnnIds(image))
        assert np.array_equal(together((read.annToMask(one) > 0 for one in every), mask.shape), mask)
        for one in every:
            x, y, width, height = map(int, one["bbox"])
            inside = read.annToMask(one)
            assert one["area"] == inside.sum() == inside[y : y + height, x : x + width].sum()
            assert read.loadCats(one["category_id"])[0]["name"] == "defect"


@given(masks)
def test_cvat_has_the_masks(mask):
    root = xml.fromstring(cvat([finding(mask)]))
    (image,) = root.findall("image")
    assert (image.get("name"), int(image.get("height")), int(image.get("width"))) == (
        "cut/0.png",
        *mask.shape,
    )
    found = []
    for element in image:
        left, top, width, height = (int(element.get(name)) for name in ("left", "top", "width", "height"))
        whole = np.zeros(mask.shape, np.bool_)
        runs = [int(run) for run in element.get("rle").split(",")]
        whole[top : top + height, left : left + width] = filled(runs, width * height).reshape(height, width)
        found.append(whole)
    assert np.array_equal(together(found, mask.shape), mask)
    assert {label.text for label in root.iter("name")} == {"defect"}


def test_a_name_that_xml_cannot_hold_is_written_escaped():
    content = cvat([finding(np.ones((2, 2), np.bool_), "a\x01<&\udcff.png")])
    assert xml.fromstring(content).find("image").get("name") == r"a\x01<&\udcff.png"


@settings(max_examples=15)
@given(masks)
def test_labelme_has_the_masks(tmp_path_factory, mask):
    """As LabelMe reads a shape of the type "mask": pixels above 0 of a PNG, from the first point to the second."""
    content = json.loads(labelme(finding(mask), Path("out/labelme/cut")))
    assert content["imagePath"] == "../../../in/cut/0.png"
    assert (content["imageHeight"], content["imageWidth"]) == mask.shape
    found, file = [], tmp_path_factory.getbasetemp() / "part.png"
    for shape in content["shapes"]:
        assert (shape["label"], shape["shape_type"]) == ("defect", "mask")
        (left, top), (right, bottom) = shape["points"]
        file.write_bytes(base64.b64decode(shape["mask"]))
        whole = np.zeros(mask.shape, np.bool_)
        whole[top : bottom + 1, left : right + 1] = read_mask(file)
        found.append(whole)
    assert np.array_equal(together(found, mask.shape), mask)


@given(masks)
def test_the_table_has_a_row_a_region_with_its_place(mask):
    rows = list(csv.DictReader(io.StringIO(table([finding(mask)]).decode(), newline="")))
    count = len(list(regions(mask)))
    assert len(rows) == max(count, 1)
    for row, region in zip(rows, regions(mask)):
        place = [int(row[name]) for name in ("x", "y", "width", "height", "area")]
        assert place == [region.x, region.y, region.width, region.height, region.area]
    if not count:
        assert (rows[0]["area"], rows[0]["score"], rows[0]["defective"]) == ("", "2.5", "1")


def test_no_name_is_a_formula():
    odd = Finding(Path("=1+1.png"), "=1+1.png", "0", finding(np.zeros((1, 1), np.bool_)).line, ())
    assert table([odd]).decode().splitlines()[1].startswith("./=1+1.png,")


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory):
    """The file of a model that finds defects in every picture."""
    path = tmp_path_factory.mktemp("models") / "sensitive.fmr"
    make_sensitive_inspector().save(path)
    return path


@pytest.fixture(scope="module")
def defective(tmp_path_factory):
    """Pictures of which two have a defect, in two folders."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, seed in (("a/0.png", 0), ("a/1.png", 1), ("b/0.png", 2)):
        picture = ground(seed=seed)
        if name != "a/0.png":
            picture[20:40, 30:60] = 255
        (folder / name).parent.mkdir(exist_ok=True)
        write_picture(folder / name, picture)
    return folder


def test_a_name_that_is_no_utf_8_is_in_no_output(sensitive, defective, tmp_path):
    """Nor are files called so; the picture is found again all the same, though another is called as it is written."""
    odd, alike = tmp_path / "in" / os.fsdecode(b"\xe9.png"), tmp_path / "in" / r"\udce9.png"
    odd.parent.mkdir()
    for path in (odd, alike):
        path.write_bytes((defective / "b" / "0.png").read_bytes())
    out = tmp_path / "out"
    given = ("inspect", sensitive, odd.parent, "--out", out, "--format", ",".join(FORMATS))
    seen = run(*given, "--json")
    assert seen.exit_code == 0, seen.output
    (tmp_path / "lines.json").write_text(seen.stdout)
    for path in [*out.rglob("*"), tmp_path / "lines.json"]:
        assert path.name.encode()
        if path.suffix in (".json", ".jsonl", ".html", ".csv", ".xml"):
            text = path.read_bytes().decode()
            lines = text.splitlines() if path.suffix == ".jsonl" or path.name == "lines.json" else [text]
            told = str(list(map(json.loads, lines))) if "json" in path.suffix else text
            assert r"\udce9" in told or "labelme" in path.parts
            told.encode()
            assert "json" not in path.suffix or not re.search(r"(?<!\\)\\udce9", text), path
    report = json.loads((out / "report.json").read_text())
    assert [path_of(line) for line in report["pictures"]] == [alike, odd]
    assert all((out / name).exists() for line in report["pictures"] for name in line["files"].values())
    alike.unlink()
    seen = run(*given, "--resume")
    assert "1 of 1 pictures are in the report already" in seen.stderr
    assert "no longer there, but in the report: 1" in seen.stderr
    assert odd.exists()


def test_all_formats_are_written_of_a_report_and_an_earlier_one_goes(sensitive, defective, tmp_path):
    out = tmp_path / "out"
    formats = ",".join(FORMATS)
    seen = run("inspect", sensitive, defective, "-r", "--out", out, "--format", formats)
    assert seen.exit_code == 0, seen.output
    report = json.loads((out / "report.json").read_text())
    marked = {line["picture"]: read_mask(out / line["files"]["mask"]) for line in report["pictures"]}
    assert any(mask.any() for mask in marked.values())
    read = coco_of((out / "coco.json").read_bytes(), tmp_path)
    for image in read.dataset["images"]:
        mask = marked[str(defective / image["file_name"])]
        every = read.loadAnns(read.getAnnIds(image["id"]))
        assert np.array_equal(together((read.annToMask(one) > 0 for one in every), mask.shape), mask)
    for file in (out / "labelme").rglob("*.json"):
        shown = read_picture(file.parent / json.loads(file.read_text())["imagePath"])
        assert shown.shape == (96, 112)
    assert (
        len(list((out / "labelme").rglob("*.json"))) == len(xml.parse(out / "cvat.xml").findall("image")) == 3
    )

    seen = run("inspect", sensitive, defective / "a", "--out", out, "--format", "csv")
    assert seen.exit_code == 0, seen.output
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert "defects.csv" in written
    assert not written & {"coco.json", "cvat.xml"}
    assert not list((out / "labelme").rglob("*.json"))

    for name, file in (
        ("coco", "coco.json"),
        ("cvat", "cvat.xml"),
        ("csv", "defects.csv"),
        ("labelme", "labelme/x.json"),
    ):
        (out / file).write_text("mine")
        line = only_error(run("inspect", sensitive, defective / "a", "--out", out, "--format", name))
        assert "was not written by fmrnet, and is not replaced" in line
        assert (out / file).read_text() == "mine"
        (out / file).unlink()
    assert "expected one or more of coco" in only_error(
        run("inspect", sensitive, defective, "--out", out, "--format", "coco,yolo")
    )
