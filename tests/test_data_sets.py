"""What is found in the folders of data sets: pictures, classes, masks, and what does not belong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmrnet.errors import ConfigError, DatasetError
from fmrnet.evaluation.examples import Example
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.outlines import Outlines, outline_of_coco, outline_of_labelme

SHAPE = (12, 16)
TRUTH = np.zeros(SHAPE, np.bool_)
TRUTH[2:5, 3:9] = TRUTH[8, 0] = True
LEFT, RIGHT = TRUTH.copy(), TRUTH.copy()
LEFT[:, 6:] = RIGHT[:, :5] = False  # together the truth, with an overlap
GREY = np.full(SHAPE, 90, np.uint8)


def make(root, files):
    """Write pictures (arrays), texts and folders (None) of the given names."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.write_text(content)
        else:
            grey = content * np.uint8(255) if content.dtype == bool else content
            Image.fromarray(grey).save(path)
    return root


LAYOUTS = {
    "MVTec AD": (
        {"test/good/000.png": GREY, "test/cut/000.png": GREY, "ground_truth/cut/000_mask.png": TRUTH},
        {"good": "test/good/000.png", "cut": "test/cut/000.png"},
    ),
    "BTAD": (
        {"test/ok/0000.bmp": GREY, "test/ko/0001.bmp": GREY, "ground_truth/ko/0001.png": TRUTH},
        {"good": "test/ok/0000.bmp", "ko": "test/ko/0001.bmp"},
    ),
    "MVTec LOCO": (
        {
            "test/good/000.png": GREY,
            "test/logical_anomalies/000.png": GREY,
            "ground_truth/logical_anomalies/000/000.png": LEFT,
            "ground_truth/logical_anomalies/000/001.png": RIGHT,
            "defects_config.json": "[]",
        },
        {"good": "test/good/000.png", "logical_anomalies": "test/logical_anomalies/000.png"},
    ),
    "upper case": (
        {"test/OK/2.PNG": GREY, "test/KO/2.PNG": GREY, "ground_truth/KO/2_MASK.PNG": TRUTH},
        {"good": "test/OK/2.PNG", "KO": "test/KO/2.PNG"},
    ),
    "masks": (
        {"test/Normal/1.tif": GREY, "test/bad/1.tif": GREY, "masks/bad/1.bmp": TRUTH},
        {"good": "test/Normal/1.tif", "bad": "test/bad/1.tif"},
    ),
    "beside": (
        {"test/good/1.jpg": GREY, "test/bad/1.jpg": GREY, "test/bad/1_mask.png": TRUTH},
        {"good": "test/good/1.jpg", "bad": "test/bad/1.jpg"},
    ),
    "any name": (
        {
            "test/good/a b.png": GREY,
            "test/Größe [1]/Bild nr. 1.5.png": GREY,
            "ground_truth/Größe [1]/Bild nr. 1.5_mask.png": TRUTH,
        },
        {"good": "test/good/a b.png", "Größe [1]": "test/Größe [1]/Bild nr. 1.5.png"},
    ),
    "black masks of good pictures": (
        {
            "test/good/1.png": GREY,
            "ground_truth/good/1_mask.png": ~TRUTH & False,
            "test/bad/1.png": GREY,
            "ground_truth/bad/1_mask.png": TRUTH,
        },
        {"good": "test/good/1.png", "bad": "test/bad/1.png"},
    ),
    "a picture named like a mask": (
        {"test/good/1.png": GREY, "test/bad/face_mask.png": GREY, "masks/bad/face_mask_mask.png": TRUTH},
        {"good": "test/good/1.png", "bad": "test/bad/face_mask.png"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    found = load_dataset(make(tmp_path, files))
    examples = found.examples
    assert {e.defect: e.picture.relative_to(tmp_path).as_posix() for e in examples} == expected
    assert len(examples) == len(expected)
    for example in examples:
        assert example.good == (example.defect == "good")
        assert np.array_equal(example.truth(SHAPE), TRUTH & (not example.good))
    assert found.unused == []
    assert found.layout == {"BTAD": "btad", "MVTec LOCO": "loco"}.get(layout, "mvtec")


def test_a_data_set_behind_links_and_a_trailing_slash(tmp_path):
    make(tmp_path / "real", LAYOUTS["MVTec AD"][0])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "parts").mkdir()
    for part in ("test", "ground_truth"):
        (tmp_path / "parts" / part).symlink_to(tmp_path / "real" / part)
    for root in ("link", "parts"):
        examples = load_dataset(f"{tmp_path / root}/").examples
        assert [str(e.picture.relative_to(tmp_path / root)) for e in examples] == [
            "test/cut/000.png",
            "test/good/000.png",
        ]
        assert np.array_equal(examples[0].truth(SHAPE), TRUTH)


def test_what_systems_leave_in_folders_does_not_count(tmp_path):
    make(
        tmp_path,
        {
            **LAYOUTS["MVTec AD"][0],
            "test/__MACOSX/cut/._000.png": "x",
            "test/__MACOSX/cut/000.png": "x",
            "__MACOSX/test/cut/000.png": "x",
            "test/.thumbnails/000.png": GREY,
            "test/cut/._000.png": "x",
            "test/cut/Thumbs.db": "x",
            "test/readme.txt": "x",
            "ground_truth/cut/.DS_Store": "x",
            "test/empty": None,
        },
    )
    found = load_dataset(tmp_path)
    assert [e.picture.relative_to(tmp_path).as_posix() for e in found.examples] == [
        "test/cut/000.png",
        "test/good/000.png",
    ]
    assert found.unused == []


def test_pictures_that_belong_to_nothing_are_found(tmp_path):
    make(
        tmp_path,
        {
            **LAYOUTS["MVTec AD"][0],
            "test/stray.png": GREY,
            "test/deep/er/1.png": GREY,
            "ground_truth/cut/999_mask.png": TRUTH,
            "masks/hole/1.png": TRUTH,
        },
    )
    unused = load_dataset(tmp_path).unused
    assert [path.relative_to(tmp_path).as_posix() for path in unused] == [
        "test/deep/er/1.png",
        "test/stray.png",
        "ground_truth/cut/999_mask.png",
        "masks/hole/1.png",
    ]


def test_a_broken_link_is_a_picture_that_will_be_missed(tmp_path):
    make(tmp_path, LAYOUTS["MVTec AD"][0])
    (tmp_path / "test/good/gone.png").symlink_to("nowhere.png")
    assert len(load_dataset(tmp_path).examples) == 3


def test_without_a_mask_the_truth_is_not_known(tmp_path):
    make(tmp_path, {"test/cut/0.png": GREY, "test/good/0.png": GREY})
    cut, good = load_dataset(tmp_path).examples
    assert cut.truth(SHAPE) is None
    assert not good.truth(SHAPE).any()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train/good/0.png": GREY},
            r"has no folder test; expected test/good, .*_mask.png, or another layout",
        ),
        (
            {"01/test/ok/0.png": GREY, "02/test/ok/0.png": GREY},
            "holds the data sets 01; 02: name one of them",
        ),
        (
            {"test/good/readme.txt": "x", "test/0.png": GREY},
            r"holds no pictures where MVTec AD has them; expected test/good/\* and",
        ),
        (
            {"test/ko/00.png": GREY, "test/ko/00.jpg": GREY, "ground_truth/ko/00.png": TRUTH},
            r"test/ko/00.jpg shares its mask with .*; .*test/ko/00.png shares its mask",
        ),
        (
            {"test/ko/00.png": GREY, "ground_truth/ko/00.png": LEFT, "ground_truth/ko/00_mask.png": RIGHT},
            r"00.png has several masks: .*ko/00.png; .*ko/00_mask.png; put them into a folder 00",
        ),
        (
            {"test/ko/00.png": GREY, "ground_truth/ko/00.png": LEFT, "masks/ko/00/0.png": RIGHT},
            "several masks: .*ground_truth/ko/00.png; .*masks/ko/00/0.png",
        ),
    ],
)
def test_what_is_no_data_set_or_not_clear_is_refused(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(make(tmp_path, files))


def test_two_pictures_of_one_name_without_masks_are_two(tmp_path):
    assert len(load_dataset(make(tmp_path, {"test/ok/00.png": GREY, "test/ok/00.jpg": GREY})).examples) == 2


@pytest.mark.parametrize(
    ("kind", "mask", "message"),
    [
        ("cut", TRUTH[:, :7], r"m.png is 7x12 pixels, its picture 16x12; expected the same size"),
        ("cut", TRUTH & False, r"m.png marks no pixel; a defect-free picture belongs in test/good"),
        ("good", TRUTH, r"m.png marks 19 pixels of p.png, which lies among the good"),
        ("cut", "", r"the mask of p.png: .*m.png is empty"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, kind, mask, message):
    make(tmp_path, {"m.png": mask})
    with pytest.raises(DatasetError, match=message):
        Example("p.png", kind, (tmp_path / "m.png",)).truth(SHAPE)


BLACK = np.zeros(SHAPE, np.bool_)
COCO = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 12, "width": 16},
        {"id": 9, "file_name": "b.png", "height": 12, "width": 16},
    ],
    "categories": [{"id": 3, "name": "cut"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "segmentation": [[3, 2, 9, 2, 9, 5, 3, 5]], "bbox": [3, 2, 6, 3]},
        {"image_id": 7, "category_id": 3, "segmentation": [], "bbox": [0, 8, 1, 1]},
    ],
}
RUNS = [  # of TRUTH, down the columns
    len(list(group)) for _, group in itertools.groupby(TRUTH.T.ravel())
]
LABELME = {
    "imageHeight": 12,
    "imageWidth": 16,
    "shapes": [
        {"label": "cut", "shape_type": "polygon", "points": [[3, 2], [9, 2], [9, 5], [3, 5]]},
        {"label": "cut", "shape_type": "rectangle", "points": [[0, 8], [1, 9]]},
    ],
}
OTHERS = {  # files, and (class, picture) of each example; all of the defective are marked as TRUTH
    "mvtec2": (
        {
            "train/good/0.png": GREY,
            "test_public/good/1_regular.png": GREY,
            "test_public/bad/0_regular.png": GREY,
            "test_public/ground_truth/bad/0_regular_mask.png": TRUTH,
            "test_private/0_regular.png": GREY,
        },
        {("good", "test_public/good/1_regular.png"), ("bad", "test_public/bad/0_regular.png")},
    ),
    "kolektor": (
        {
            "kos01/Part0.jpg": GREY,
            "kos01/Part0_label.bmp": BLACK,
            "kos01/Part5.jpg": GREY,
            "kos01/Part5_label.bmp": TRUTH,
        },
        {("good", "kos01/Part0.jpg"), ("defective", "kos01/Part5.jpg")},
    ),
    "kolektor 2": (
        {
            "train/10000.png": GREY,
            "train/10000_GT.png": BLACK,
            "test/20000.png": GREY,
            "test/20000_GT.png": BLACK,
            "test/20002.png": GREY,
            "test/20002_GT.png": TRUTH,
        },
        {("good", "test/20000.png"), ("defective", "test/20002.png")},
    ),
    "mtd": (
        {
            "MT_Free/Imgs/exp1_num_1.jpg": GREY,
            "MT_Free/Imgs/exp1_num_1.png": BLACK,
            "MT_Crack/Imgs/exp2_num_2.jpg": GREY,
            "MT_Crack/Imgs/exp2_num_2.png": TRUTH,
        },
        {("good", "MT_Free/Imgs/exp1_num_1.jpg"), ("Crack", "MT_Crack/Imgs/exp2_num_2.jpg")},
    ),
    "dagm": (
        {
            "Train/0576.PNG": GREY,
            "Test/0001.PNG": GREY,
            "Test/0002.PNG": GREY,
            "Test/Label/0002_label.PNG": TRUTH,
            "Test/Label/Labels.txt": "1",
        },
        {("good", "Test/0001.PNG"), ("defective", "Test/0002.PNG")},
    ),
    "rsdds": (
        {"Rail surface images/rail_1.png": GREY, "GroundTruth/rail_1.png": TRUTH},
        {("defective", "Rail surface images/rail_1.png")},
    ),
    "folder": (
        {"good/0.png": GREY, "crack/0.png": GREY, "mask/crack/0.png": TRUTH},
        {("good", "good/0.png"), ("crack", "crack/0.png")},
    ),
    "folder, masks of one kind": (
        {"normal/0.png": GREY, "crack/0.png": GREY, "mask/0.png": TRUTH},
        {("good", "normal/0.png"), ("crack", "crack/0.png")},
    ),
    "coco": (
        {"a.png": GREY, "b.png": GREY, "annotations.json": json.dumps(COCO)},
        {("cut", "a.png"), ("good", "b.png")},
    ),
    "coco, in folders": (
        {"images/a.png": GREY, "images/b.png": GREY, "annotations/instances.json": json.dumps(COCO)},
        {("cut", "images/a.png"), ("good", "images/b.png")},
    ),
    "coco, runs": (
        {
            "a.png": GREY,
            "b.png": GREY,
            "x.json": json.dumps(
                COCO
                | {"annotations": [{"image_id": 7, "category_id": 3, "segmentation": {"counts": RUNS}}]}
            ),
        },
        {("cut", "a.png"), ("good", "b.png")},
    ),
    "labelme": (
        {"0.png": GREY, "0.json": json.dumps(LABELME), "1.png": GREY, "2.png": GREY,
         "2.json": json.dumps(LABELME | {"shapes": []})},
        {("cut", "0.png"), ("good", "1.png"), ("good", "2.png")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("named", [False, True])
def test_layouts_of_others(tmp_path, case, named):
    files, expected = OTHERS[case]
    layout = case.split(",")[0].split()[0]
    found = load_dataset(make(tmp_path, files), layout if named else None)
    assert found.layout == layout
    assert {(e.defect, e.picture.relative_to(tmp_path).as_posix()) for e in found.examples} == expected
    for example in found.examples:
        assert np.array_equal(example.truth(SHAPE), TRUTH & (not example.good))
    assert found.unused == []
    has_split = layout in ("mvtec2", "dagm") or case == "kolektor 2"
    assert bool(found.notes) != has_split  # whether training may have seen them


def test_visa(tmp_path):
    table = (
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n"
        "pcb1,test,normal,pcb1/Data/Images/Normal/1.JPG,\n"
    )
    make(
        tmp_path,
        {
            "split_csv/1cls.csv": table,
            **{f"candle/Data/Images/{name}.JPG": GREY for name in ("Normal/0", "Normal/1", "Anomaly/0")},
            "candle/Data/Masks/Anomaly/0.png": TRUTH * np.uint8(3),  # kinds of defects as small numbers
        },
    )
    found = load_dataset(tmp_path / "candle")
    assert (found.layout, found.notes) == ("visa", [])
    assert [(e.defect, e.picture.name) for e in found.examples] == [("good", "1.JPG"), ("defective", "0.JPG")]
    assert np.array_equal(found.examples[1].truth(SHAPE), TRUTH)
    (tmp_path / "split_csv/1cls.csv").write_text(table.replace("pcb1/Data", "../pcb1"))
    load_dataset(tmp_path / "candle")  # rows of other objects are not looked at
    (tmp_path / "split_csv/1cls.csv").write_text(table.replace("candle/Data/Masks", "../candle"))
    with pytest.raises(DatasetError, match="lies outside its folder"):
        load_dataset(tmp_path / "candle")
    with pytest.raises(DatasetError, match="it holds VisA, whose objects are sets of their own"):
        load_dataset(tmp_path)
    (tmp_path / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="expected the columns object, split"):
        load_dataset(tmp_path / "candle")


@pytest.mark.parametrize("given", ["mvtec", "visa", "coco", "labelme", "dagm", "mtd"])
def test_another_layout_than_the_named_one_is_refused(tmp_path, given):
    with pytest.raises(DatasetError, match="is not laid out as"):
        load_dataset(make(tmp_path, OTHERS["folder"][0]), given)
    with pytest.raises(ConfigError, match="layout 'voc': expected one of dagm, btad"):
        load_dataset(tmp_path, "voc")


def test_runs_of_coco_are_read_as_pycocotools_writes_them():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = rng.random((37, 53)) < share
        text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        shapes = outline_of_coco({"counts": text, "size": [37, 53]}, None, Path("a.json"))
        assert np.array_equal(Outlines(Path("a.json"), 37, 53, tuple(shapes)).marked(), mask)


@given(
    points=st.lists(st.tuples(st.integers(-8, 50), st.integers(-8, 50)), min_size=3, max_size=9),
)
def test_polygons_hold_the_pixels_whose_centres_are_inside(points):
    """By an even number of sides or an odd one, as matplotlib counts for a path of one piece; corners are whole."""
    path = pytest.importorskip("matplotlib.path")
    numbers = np.arange(1, len(points) + 1)
    corners = np.array(points) + np.stack(
        [0.0137 * numbers, 0.0071 * numbers**2], 1
    )  # no side meets a centre
    mask = Outlines(Path("a.json"), 30, 41, (("polygon", tuple(corners.ravel())),)).marked()
    rows, columns = np.mgrid[:30, :41] + 0.5
    inside = path.Path(corners).contains_points(np.stack([columns.ravel(), rows.ravel()], 1))
    assert np.array_equal(mask.ravel(), inside)


def test_circles_of_labelme():
    shapes = outline_of_labelme({"shape_type": "circle", "points": [[10, 8], [10, 13]]}, Path("a.json"))
    mask = Outlines(Path("a.json"), 20, 30, tuple(shapes)).marked()
    assert mask.sum() == pytest.approx(np.pi * 25, rel=0.05)
    assert np.array_equal(np.flatnonzero(mask.any(1)), np.arange(3, 13))
    with pytest.raises(DatasetError, match="a shape of type 'line'"):
        outline_of_labelme({"shape_type": "line", "points": [[10, 8], [10, 13]]}, Path("a.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon of fewer than three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "holds an annotation that is no outline"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, "no places"),
        ({"segmentation": {"counts": [5, 10**30]}}, "holds runs of 10{29}5 pixels"),
        ({"segmentation": {"counts": [-5, 197]}}, "holds runs of 192 pixels"),
        ({"segmentation": {"counts": "o" * 100}}, "cut short or too long"),
        ({"segmentation": {}}, "no outline"),
        ({"category_id": None}, "is not as COCO has it"),
    ],
)
def test_damaged_outlines_are_refused(tmp_path, change, message):
    broken = COCO | {"annotations": [COCO["annotations"][0] | change]}
    make(tmp_path, {"a.png": GREY, "b.png": GREY, "annotations.json": json.dumps(broken)})
    with pytest.raises(DatasetError, match=message):
        [example.truth(SHAPE) for example in load_dataset(tmp_path).examples]


def test_a_picture_that_says_it_is_endless_is_refused(tmp_path):
    vast = Outlines(tmp_path / "a.json", 10**9, 10**9, ())
    with pytest.raises(DatasetError, match="1000000000x1000000000 pixels"):
        vast.marked()


def test_masks_of_another_size_are_brought_to_that_of_the_picture(tmp_path):
    large, small = TRUTH.repeat(3, 0).repeat(3, 1), np.zeros((3, 4), bool)
    small[1, 2] = True
    make(tmp_path, {"large.png": large, "small.png": small})
    said = []
    example = Example(tmp_path / "p.png", "cut", (tmp_path / "large.png",))
    assert np.array_equal(example.truth(SHAPE, remarks=said), TRUTH)
    assert "are of another size than their pictures" in said[0]
    found = Example(tmp_path / "p.png", "cut", (tmp_path / "small.png",)).truth(SHAPE)
    assert np.array_equal(found, small.repeat(4, 0).repeat(4, 1))


def test_soft_masks_are_cut_at_one_half_and_it_is_said(tmp_path):
    rows, columns = np.mgrid[:90, :120]
    soft = 255 * np.exp(-((rows - 40) ** 2 + (columns - 60) ** 2) / 500)
    make(tmp_path, {"soft.png": soft.astype(np.uint8)})
    said = []
    found = Example(tmp_path / "p.png", "stain", (tmp_path / "soft.png",)).truth((90, 120), remarks=said)
    assert np.array_equal(found, soft.astype(np.uint8) > 127)
    assert said == ["are soft, of many values: what is above one half counts as defective"]
