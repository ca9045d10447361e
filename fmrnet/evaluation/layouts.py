"""The test pictures of a data set and what marks their defects, in the layouts that people have.

mvtec      MVTec AD and all that follow it; `loco` and `btad` are read alike:
             test/good/*                               defect-free; `ok` and `normal` mean the same
             test/<defect>/<name>.png                  with a defect of this kind, and where it is, in one of
             ground_truth/<defect>/<name>_mask.png     MVTec AD (`masks` may stand for `ground_truth`)
             ground_truth/<defect>/<name>.png          BTAD
             ground_truth/<defect>/<name>/*.png        MVTec LOCO: what all of them mark together
             test/<defect>/<name>_mask.png             beside the picture
mvtec2     MVTec AD 2: the same in test_public, ground_truth in it; the private pictures have no known truth
kolektor   KolektorSDD: kos01/Part0.jpg and kos01/Part0_label.bmp; KolektorSDD2: test/10000.png and test/10000_GT.png
visa       VisA: the rows of split_csv/1cls.csv (object, split, label, image, mask) of one object's folder
mtd        magnetic tiles: MT_<defect>/Imgs/<name>.jpg and <name>.png, MT_Free without defects
dagm       DAGM 2007: Test/<name>.PNG and Test/Label/<name>_label.PNG where it has a defect
rsdds      rail surfaces: "Rail surface images"/<name>.jpg and GroundTruth/<name>.jpg, all with defects
folder     what anomalib's module Folder is given: good/*, <defect>/*, and mask/<defect>/* or mask/*
coco       pictures and a JSON file of COCO; those without annotations have no defect
labelme    pictures and a JSON file of LabelMe beside each; those with no shapes, or no file, have no defect

Any kind of picture file may stand for PNG. Hidden files and `__MACOSX` do not count.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmrnet.errors import ConfigError, DatasetError
from fmrnet.evaluation.examples import GOOD, Dataset, Example, few
from fmrnet.evaluation.folders import (
    below,
    examples_of,
    folders,
    is_picture,
    pictures_in,
    stem_without,
    visible,
)
from fmrnet.evaluation.outlines import Outlines, Shape, outline_of_coco, outline_of_labelme
from fmrnet.listing import GOOD_FOLDERS

__all__ = ["LAYOUTS", "load_dataset", "load_defective"]

DEFECTIVE = "defective"  # the class of pictures that lie in no folder of a class
MASK_FOLDERS = ("ground_truth", "masks", "mask")
UNSPLIT = "this layout does not say which pictures are for training: figures are too good if training saw some of them"


def load_dataset(dataset: str | Path, layout: str | None = None) -> Dataset:
    """Find the test pictures of a data set and what marks their defects.

    No picture is opened; but for the layouts that do not name the good ones, whose masks are.

    Parameters
    ----------
    dataset : folder
    layout : name in LAYOUTS; None takes the first that the folder looks like.

    Raises
    ------
    ConfigError : no such layout.
    DatasetError : the folder is of no layout, or not of the one that is named; or it is not clear which mask belongs to
        which picture.
    """
    root = Path(dataset)
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    taken = layout or next((name for name, one in LAYOUTS.items() if one.fits(root)), None)
    if taken is None or not LAYOUTS[taken].fits(root):
        raise DatasetError(
            f"{root} is not laid out as {LAYOUTS[layout].title}: expected {LAYOUTS[layout].expected}; leave out "
            f"--layout to have it told by the folder{_hint(root)}"
            if layout
            else f"{root} has no folder test; expected test/good, test/<defect> and "
            f"ground_truth/<defect>/<name>_mask.png, or another layout that --layout names{_hint(root)}"
        )
    one = LAYOUTS[taken]
    examples = one.read(root)
    if not examples:
        raise DatasetError(f"{root} holds no pictures where {one.title} has them; expected {one.expected}")
    used = {path for example in examples for path in (example.picture, *example.masks)}
    unused = [path for place in one.places for path in below(root / place) if is_picture(path)]
    return Dataset(
        taken,
        examples,
        [path for path in unused if path not in used],
        [] if one.split or (root / "test").is_dir() else [UNSPLIT],
    )


def load_defective(folder: str | Path, masks: str | Path | None = None) -> list[Example]:
    """Find known defective pictures and their masks; no file is opened.

    Parameters
    ----------
    folder : pictures, or folders of them by the kind of defect. One of the folders GOOD_FOLDERS is left out.
    masks : laid out alike, a mask named as its picture or with `_mask` after the name. Masks may also lie beside the
        pictures.

    Raises
    ------
    DatasetError : a folder is missing or holds nothing; a mask has no picture; it is not clear which mask belongs to
        which picture.
    """
    root, marks = Path(folder), None if masks is None else Path(masks)
    for given in (root, marks):
        if given is not None and not given.is_dir():
            raise DatasetError(f"{given} is no folder; name one with pictures of defects, or their masks")
    examples = examples_of(DEFECTIVE, root, [] if marks is None else [marks])
    for kind in folders(root):
        if kind.name.casefold() not in GOOD_FOLDERS and not (marks and kind.samefile(marks)):
            examples += examples_of(kind.name, kind, [] if marks is None else [marks / kind.name])
    if not examples:
        raise DatasetError(f"{root} holds no pictures of defects (.png .jpg .tif .bmp and others)")
    if marks is not None:
        listed = list(filter(is_picture, below(marks)))
        used = {path for example in examples for path in (example.picture, *example.masks)}
        if lonely := [str(path) for path in listed if path not in used]:
            raise DatasetError(
                f"masks without their picture in {root}: {few(lonely)}; expected the same names"
            )
        if not listed:
            raise DatasetError(f"{marks} holds no masks")
    return examples


def _mvtec(root: Path) -> list[Example]:
    return [
        example
        for folder in folders(root / "test")
        for example in examples_of(
            _kind(folder), folder, [root / name / folder.name for name in MASK_FOLDERS]
        )
    ]


def _mvtec2(root: Path) -> list[Example]:
    test = root / "test_public"
    return [
        example
        for folder in folders(test)
        if folder.name not in MASK_FOLDERS
        for example in examples_of(
            _kind(folder), folder, [test / name / folder.name for name in MASK_FOLDERS]
        )
    ]


def _kolektor(root: Path) -> list[Example]:
    places = [root / "test"] if _has(root / "test", "_GT") else [root, *folders(root)]
    return [
        _by_its_mask(picture, DEFECTIVE, masks)
        for place in places
        for picture, masks in _paired(pictures_in(place), ("_label", "_GT"))
    ]


def _mtd(root: Path) -> list[Example]:
    examples = []
    for folder in _tiles(root):
        kind = folder.name.removeprefix("MT_")
        listed = pictures_in(folder / "Imgs")
        marks = {path.stem: path for path in listed if path.suffix.lower() == ".png"}
        for picture in (path for path in listed if path not in marks.values()):
            good = kind.casefold() == "free"
            masks = (marks[picture.stem],) if picture.stem in marks else ()
            examples.append(Example(picture, GOOD if good else kind, masks))
    return examples


def _dagm(root: Path) -> list[Example]:
    marks = {stem_without(path, ("_label",)): path for path in pictures_in(root / "Test" / "Label")}
    return [
        Example(path, DEFECTIVE, (marks[path.stem],)) if path.stem in marks else Example(path, GOOD)
        for path in pictures_in(root / "Test")
    ]


def _rsdds(root: Path) -> list[Example]:
    marks = {path.stem: path for path in pictures_in(root / "GroundTruth")}
    return [
        Example(path, DEFECTIVE, (marks[path.stem],) if path.stem in marks else ())
        for path in pictures_in(root / "Rail surface images")
    ]


def _folder(root: Path) -> list[Example]:
    marks = [root / name for name in MASK_FOLDERS]
    kinds = [folder for folder in folders(root) if folder not in marks]
    defective = [folder for folder in kinds if _kind(folder) != GOOD]
    return [
        example
        for folder in kinds
        for example in examples_of(
            _kind(folder),
            folder,
            [mark / folder.name for mark in marks] + (marks if [folder] == defective else []),
        )
    ]


def _visa(root: Path) -> list[Example]:
    top = root.parent
    table = top / "split_csv" / "1cls.csv"
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = [
                row for row in csv.DictReader(file) if row["object"] == root.name and row["split"] == "test"
            ]
            return [
                Example(
                    _inside(top, row["image"], table),
                    GOOD if row["label"] == "normal" else DEFECTIVE,
                    (_inside(top, row["mask"], table),) if row["mask"] else (),
                )
                for row in rows
            ]
    except (OSError, UnicodeError, csv.Error, KeyError, TypeError) as error:
        raise DatasetError(
            f"{table} cannot be read ({error}); expected the columns object, split, label, image and mask"
        ) from None


def _coco(root: Path) -> list[Example]:
    source, content = _coco_file(root)
    if source is None:
        return []
    try:
        names = {int(one["id"]): str(one["name"]) for one in content.get("categories", [])}
        marks: dict[int, list[dict[str, Any]]] = {}
        for one in content["annotations"]:
            marks.setdefault(int(one["image_id"]), []).append(one)
        examples = []
        for image in content["images"]:
            picture = _named(root, source, str(image["file_name"]))
            found = marks.get(int(image["id"]), [])
            shapes: list[Shape] = []
            for one in found:
                shapes += outline_of_coco(one.get("segmentation"), one.get("bbox"), source)
            kind = " and ".join(sorted({names.get(int(one["category_id"]), DEFECTIVE) for one in found}))
            outlines = Outlines(source, int(image["height"]), int(image["width"]), tuple(shapes))
            examples.append(Example(picture, kind, (outlines,)) if found else Example(picture, GOOD))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{source} is not as COCO has it ({error!r})") from None
    return examples


def _labelme(root: Path) -> list[Example]:
    examples = []
    for place in [root, *folders(root)]:
        for picture in pictures_in(place):
            source = picture.with_suffix(".json")
            if not source.is_file():
                examples.append(Example(picture, GOOD))
                continue
            content = _json(source)
            try:
                given = content["shapes"]
                shapes = tuple(shape for one in given for shape in outline_of_labelme(one, source))
                kind = " and ".join(sorted({str(one.get("label", DEFECTIVE)) for one in given}))
                outlines = Outlines(source, int(content["imageHeight"]), int(content["imageWidth"]), shapes)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"{source} is not as LabelMe has it ({error!r})") from None
            examples.append(Example(picture, kind, (outlines,)) if given else Example(picture, GOOD))
    return examples


@dataclass(frozen=True)
class Layout:
    """How one kind of data set lies in its folder.

    Attributes
    ----------
    title, expected : what people call it, and where its pictures lie.
    fits : whether a folder looks like it.
    read : the examples in such a folder.
    places : folders in which every picture should belong to an example.
    split : whether it says which pictures are for tests.
    """

    title: str
    expected: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], list[Example]]
    places: tuple[str, ...] = ()
    split: bool = True


def _kind(folder: Path) -> str:
    return GOOD if folder.name.casefold() in GOOD_FOLDERS else folder.name


def _tiles(root: Path) -> list[Path]:
    return [
        folder for folder in folders(root) if folder.name.startswith("MT_") and (folder / "Imgs").is_dir()
    ]


def _has(folder: Path, ending: str) -> bool:
    return any(path.stem.endswith(ending) for path in pictures_in(folder))


def _paired(listed: Iterable[Path], endings: tuple[str, ...]) -> list[tuple[Path, tuple[Path, ...]]]:
    """Pictures with the masks beside them, whose names end so."""
    listed = list(listed)
    marks = {stem_without(path, endings): path for path in listed if stem_without(path, endings) != path.stem}
    return [
        (path, (marks[path.stem],) if path.stem in marks else ())
        for path in listed
        if path not in marks.values()
    ]


def _by_its_mask(picture: Path, kind: str, masks: tuple[Path, ...]) -> Example:
    """A picture that is good where its mask marks nothing."""
    from fmrnet.errors import PictureError
    from fmrnet.pictures import read_mask

    try:
        defective = any(read_mask(mask).any() for mask in masks)
    except PictureError as error:
        raise DatasetError(f"the mask of {picture}: {error}") from error
    return Example(picture, kind if defective else GOOD, masks)


def _json(source: Path) -> Any:
    try:
        return json.loads(source.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{source} cannot be read as JSON ({error})") from None


def _coco_file(root: Path) -> tuple[Path | None, Any]:
    """The file of annotations: in the folder itself, or in `annotations`; several are not clear."""
    found = []
    for place in (root, root / "annotations"):
        for path in visible(place):
            if path.suffix.lower() == ".json" and path.is_file():
                content = _json(path)
                if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
                    found.append((path, content))
    if len(found) > 1:
        raise DatasetError(
            f"{root} has several files of annotations: {few(str(path) for path, _ in found)}; "
            "put what is to be evaluated into a folder of its own"
        )
    return found[0] if found else (None, None)


def _named(root: Path, source: Path, name: str) -> Path:
    """The picture that a file of COCO names: beside it, in the folder, or in `images`."""
    places = [source.parent, root, root / "images", root / source.stem]
    paths = [_inside(place, name, source) for place in places]
    return next((path for path in paths if path.is_file()), paths[0])


def _inside(folder: Path, name: str, source: Path) -> Path:
    """The path of a name in a folder; DatasetError for one that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"{source} names {name!r}, which lies outside its folder")
    return folder / name


def _hint(root: Path) -> str:
    if (root / "split_csv").is_dir():
        return f"; it holds VisA, whose objects are sets of their own: name one, such as {root / 'candle'}"
    sets = [
        path.name for path in visible(root) if (path / "test").is_dir() or (path / "test_public").is_dir()
    ]
    return f"; it holds the data sets {few(sets)}: name one of them" if sets else ""


def _mvtec_layout(
    title: str, fits: Callable[[Path], bool], expected: str = "test/good/* and test/<defect>/*"
) -> Layout:
    return Layout(title, expected, fits, _mvtec, ("test", *MASK_FOLDERS))


LAYOUTS = {  # a folder is taken for the first that it looks like
    "dagm": Layout(
        "DAGM 2007",
        "Test/* and Test/Label/*",
        lambda root: (root / "Test" / "Label").is_dir(),
        _dagm,
        ("Test",),
    ),
    "btad": _mvtec_layout(
        "BTAD",
        lambda root: (root / "test/ok").is_dir() and (root / "test/ko").is_dir(),
        "test/ok/* and test/ko/*",
    ),
    "loco": _mvtec_layout(
        "MVTec LOCO",
        lambda root: any((root / f"test/{kind}_anomalies").is_dir() for kind in ("logical", "structural")),
        "test/good/*, test/logical_anomalies/* and test/structural_anomalies/*",
    ),
    "mvtec": _mvtec_layout(
        "MVTec AD", lambda root: (root / "test").is_dir() and not _has(root / "test", "_GT")
    ),
    "mvtec2": Layout(
        "MVTec AD 2",
        "test_public/good/* and test_public/bad/*",
        lambda root: (root / "test_public").is_dir(),
        _mvtec2,
        ("test_public",),
    ),
    "rsdds": Layout(
        "RSDDs",
        "'Rail surface images'/*",
        lambda root: (root / "Rail surface images").is_dir(),
        _rsdds,
        ("Rail surface images", "GroundTruth"),
        split=False,
    ),
    "mtd": Layout("MTD", "MT_<defect>/Imgs/*", lambda root: bool(_tiles(root)), _mtd, split=False),
    "visa": Layout(
        "VisA",
        "rows of its object in split_csv/1cls.csv",
        lambda root: (root.parent / "split_csv" / "1cls.csv").is_file(),
        _visa,
    ),
    "kolektor": Layout(
        "KolektorSDD or KolektorSDD2",
        "kos<number>/Part<number>.jpg and Part<number>_label.bmp, or test/<number>.png and <number>_GT.png",
        lambda root: _has(root / "test", "_GT") or any(_has(one, "_label") for one in [root, *folders(root)]),
        _kolektor,
        split=False,
    ),
    "coco": Layout(
        "COCO",
        "images and annotations in a JSON file",
        lambda root: _coco_file(root)[0] is not None,
        _coco,
        split=False,
    ),
    "labelme": Layout(
        "LabelMe",
        "pictures with JSON files of the same names",
        lambda root: any(
            path.with_suffix(".json").is_file() for one in [root, *folders(root)] for path in pictures_in(one)
        ),
        _labelme,
        split=False,
    ),
    "folder": Layout(
        "anomalib's Folder",
        "good/* and <defect>/*",
        lambda root: any(_kind(folder) == GOOD and pictures_in(folder) for folder in folders(root)),
        _folder,
        MASK_FOLDERS,
        split=False,
    ),
}
