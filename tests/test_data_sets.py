"""What is found in the folders of data sets: pictures, classes, masks, and what does not belong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fmrnet.errors import DatasetError
from fmrnet.evaluation.examples import Example
from fmrnet.evaluation.layouts import load_dataset

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
