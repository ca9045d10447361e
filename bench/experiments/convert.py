"""Lay out MVTec AD, DAGM 2007 and RSDDs as the experiments read them, at the paper's sizes and splits (Table I).

    python bench/experiments/convert.py mvtec MVTEC/carpet SETS/carpet
    python bench/experiments/convert.py dagm DAGM/Class1 SETS/dagm1
    python bench/experiments/convert.py rsdds "RSDDS/Type-I RSDDs dataset" SETS/rails

What is read, and what the paper says of the split:

    mvtec   train/good, test/<class>, ground_truth/<class>/<name>_mask.png, or as MVTec LOCO and BTAD lay them out
            (fmrnet/evaluation/layouts.py). The first 70 good pictures to learn from, every test picture, 512 x 512.
    dagm    Train and Test, each with <name>.PNG and Label/<name>_label.PNG for the defective ones. The first 70
            good pictures of Train, the first 30 of Test, and all defective ones of both (150), 512 x 512.
    rsdds   "Rail surface images" and "GroundTruth", under the same names. All pictures are defective: of the
            first 50 by number, the stretches without defect of at least a patch (64 rows); the other 17 of
            Type-I to test on, 1024 x 64 (upright).

Which pictures the paper took is not said; here the first by name. --size (HEIGHTxWIDTH), --train and --test change the
numbers. Masks stay white on what was at least half defective (if that is nothing, on what was at all). The folder
is there when all of it is.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmrnet.errors import DatasetError
from fmrnet.evaluation.examples import GOOD, Example
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.listing import GOOD_FOLDERS, list_pictures
from fmrnet.pictures import read_picture, write_picture
from fmrnet.progress import Bar

PATCH = 64  # rows that a stretch of rail must have to learn from it
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source(Example):
    """One picture of the set, to learn from or to test on. Of a defective one to learn from, what is good counts."""

    part: str = "test"


def mvtec(folder: Path, train: int, test: int | None) -> list[Source]:
    """A class of MVTec AD, MVTec LOCO or BTAD."""
    named = sorted(path for path in (folder / "train").glob("*") if path.name.casefold() in GOOD_FOLDERS)
    folders = named or [folder / "train" / GOOD]
    good = [Source(picture, GOOD, part="train") for one in folders for picture in _pictures(one)]
    shown = [
        Source(example.picture, example.defect, example.masks) for example in load_dataset(folder).examples
    ]
    kept = [s for s in shown if s.good][:test] + [s for s in shown if not s.good]
    return _first(good, train, folder) + kept


def dagm(folder: Path, train: int, test: int | None) -> list[Source]:
    """A class of DAGM 2007: a picture with a label is defective."""
    good: dict[str, list[Source]] = {"train": [], "test": []}
    defective = []
    for part in good:
        pictures = _pictures(folder / part.capitalize())
        labels = folder / part.capitalize() / "Label"
        masks = {
            p.stem.lower().removesuffix("_label"): p
            for p in (list_pictures(labels) if labels.is_dir() else [])
        }
        for picture in pictures:
            if mask := masks.get(picture.stem.lower()):
                defective.append(Source(picture, "defect", (mask,)))
            else:
                good[part].append(Source(picture, GOOD, part=part))
    return _first(good["train"], train, folder) + good["test"][:test] + defective


def rsdds(folder: Path, train: int, test: int | None) -> list[Source]:
    """A type of RSDDs: every rail is defective."""
    pictures = sorted(_pictures(folder / "Rail surface images"), key=lambda p: (len(p.stem), p.stem))
    masks = {p.stem: p for p in _pictures(folder / "GroundTruth")}
    if missing := [p.name for p in pictures if p.stem not in masks]:
        raise DatasetError(f"{folder / 'GroundTruth'} has no mask for {', '.join(missing)}")
    learn = [Source(p, "defect", (masks[p.stem],), part="train") for p in pictures]
    return _first(learn, train, folder) + [
        Source(p, "defect", (masks[p.stem],)) for p in pictures[train:][:test]
    ]


SETS = {  # reader, size, good pictures to learn from, good pictures (rails: pictures) to test on
    "mvtec": (mvtec, "512x512", 70, None),
    "dagm": (dagm, "512x512", 70, 30),
    "rsdds": (rsdds, "1024x64", 50, 17),
}


def main() -> None:
    """Read the command line, convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = parser.add_subparsers(dest="set", required=True)
    for name, (_, size, train, test) in SETS.items():
        one = sets.add_parser(name)
        one.add_argument("source", type=Path)
        one.add_argument("target", type=Path, help="a new folder, in the MVTec layout")
        one.add_argument("--size", default=size, metavar="HEIGHTxWIDTH")
        one.add_argument("--train", type=int, default=train)
        one.add_argument("--test", type=int, default=test)
    given = parser.parse_args()
    sources = SETS[given.set][0](given.source, given.train, given.test)
    with Bar() as bar:
        convert(sources, given.target, common.size_of(given.size), bar)
    print(f"{given.target}: {len(list_pictures(given.target / 'train' / 'good'))} pictures to learn from, "
          f"{len(load_dataset(given.target).examples)} to test on")  # fmt: skip


def convert(sources: list[Source], target: Path, size: tuple[int, int], bar: Bar) -> None:
    """Write the pictures at one size (height, width) into a new folder in the MVTec layout."""
    if target.exists():
        raise DatasetError(f"{target} exists; give a folder that is to be made, or delete it")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for done, source in enumerate(sources):
        bar.show("converting", done, len(sources))
        folder = unfinished / source.part / (GOOD if source.part == "train" else source.defect)
        picture = read_picture(source.picture)
        truth = source.truth(picture.shape[:2])
        small = resized(np.round(picture * 255).astype(np.uint8), size)
        mask = None if truth is None else resized_mask(truth, size)
        if source.part == "train":
            for number, (start, stop) in enumerate(stretches(mask, size[0])):
                _write(folder / f"{source.picture.stem}_{number}.png", small[start:stop], source)
        else:
            _write(folder / f"{source.picture.stem}.png", small, source)
            if mask is not None and not source.good:
                masks = unfinished / "ground_truth" / source.defect
                _write(masks / f"{source.picture.stem}_mask.png", mask, source)
    bar.show("converting", len(sources), len(sources))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(target)


def resized(picture: Bytes, size: tuple[int, int]) -> Bytes:
    """(H, W) or (H, W, 3) at another size, smoothed where it shrinks."""
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def resized_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) at another size: what is at least half defective, or if that is nothing, what is at all."""
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BOX))
    return share >= 0.5 if (share >= 0.5).any() else share > 0


def stretches(mask: NDArray[np.bool_] | None, height: int) -> Iterator[tuple[int, int]]:
    """Runs of at least PATCH rows without a defect: first row, and the row after the last."""
    free = np.ones(height, bool) if mask is None else ~mask.any(1)
    for is_free, rows in itertools.groupby(range(height), key=lambda row: bool(free[row])):
        run = list(rows)
        if is_free and len(run) >= PATCH:
            yield run[0], run[-1] + 1


def _write(path: Path, picture: Bytes | NDArray[np.bool_], source: Source) -> None:
    if path.exists():
        raise DatasetError(f"{source.picture} and another would both become {path.name}; rename one of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; see convert.py --help for the layouts that are read")
    return list_pictures(folder)


def _first(good: list[Source], count: int, folder: Path) -> list[Source]:
    if len(good) < count:
        raise DatasetError(
            f"{folder} has {len(good)} pictures to learn from; expected {count}, or give --train"
        )
    return good[:count]


if __name__ == "__main__":
    common.command(main)
