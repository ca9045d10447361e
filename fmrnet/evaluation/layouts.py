"""The test pictures of a data set and their masks, found in the folders of MVTec AD, MVTec LOCO or BTAD.

DATASET/test/good/*                              defect-free; `ok` and `normal` mean the same
DATASET/test/<defect>/<name>.png                 with a defect of this kind

and where the defect is, in one of

DATASET/ground_truth/<defect>/<name>_mask.png    MVTec AD
DATASET/ground_truth/<defect>/<name>.png         BTAD
DATASET/ground_truth/<defect>/<name>/*.png       MVTec LOCO: what all of them mark together
DATASET/test/<defect>/<name>_mask.png            beside the picture

`masks` may stand for `ground_truth`, and any kind of picture file for PNG. Hidden files and `__MACOSX` do not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import DatasetError, PictureError
from fmrnet.listing import EXTENSIONS, GOOD_FOLDERS
from fmrnet.pictures import read_mask

__all__ = ["GOOD", "Example", "few", "load_dataset", "load_defective", "unused_pictures"]

GOOD = "good"
DEFECTIVE = "defective"  # the class of pictures that lie in no folder of a class
MASK_FOLDERS = ("ground_truth", "masks")
MASK_ENDING = "_mask"


@dataclass(frozen=True)
class Example:
    """One test picture.

    Attributes
    ----------
    picture : Path
    defect : str
        Name of its class, GOOD if it has no defect.
    masks : tuple of Path
        Files that mark the defect together; none for most good pictures, and where it is not known.
    """

    picture: Path
    defect: str
    masks: tuple[Path, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the picture has no defect."""
        return self.defect == GOOD

    def truth(self, *shapes: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Which pixels are defective, (H, W); None if the picture has a defect and no mask.

        Parameters
        ----------
        shapes : the picture's (H, W); several if it is not known yet which of them it has.

        Raises
        ------
        DatasetError : a mask cannot be read or has none of the shapes, or another one than the mask before; the masks
            of a defective picture mark nothing, or those of a good one something.
        """
        if not self.masks:
            return np.zeros(shapes[0], np.bool_) if self.good else None
        marked = np.zeros((), np.bool_)
        for path in self.masks:
            try:
                mask = read_mask(path)
            except PictureError as error:
                raise DatasetError(f"the mask of {self.picture}: {error}") from error
            if mask.shape not in shapes:
                found, expected = (f"{width}x{height}" for height, width in (mask.shape, shapes[0]))
                raise DatasetError(
                    f"{path} is {found} pixels, its picture {expected}; expected the same size"
                )
            marked, shapes = marked | mask, (mask.shape,)
        named = few(map(str, self.masks))
        if self.good and marked.any():
            raise DatasetError(
                f"{named} marks {marked.sum()} pixels of {self.picture}, which lies among the good"
            )
        if not self.good and not marked.any():
            raise DatasetError(f"{named} marks no pixel; a defect-free picture belongs in test/good")
        return marked


def load_dataset(dataset: str | Path) -> list[Example]:
    """Find the test pictures of a data set and their masks, by class and name; no file is opened.

    Raises
    ------
    DatasetError : `test` is missing or has no folder with pictures, or it is not clear which mask belongs to which
        picture.
    """
    root = Path(dataset)
    test = root / "test"
    if not test.is_dir():
        raise DatasetError(
            f"{root} has no folder test; expected test/good, test/<defect> and "
            f"ground_truth/<defect>/<name>_mask.png{_hint(root)}"
        )
    classes = {
        folder: GOOD if folder.name.casefold() in GOOD_FOLDERS else folder.name
        for folder in filter(Path.is_dir, _visible(test))
    }
    examples = [
        example
        for folder, kind in classes.items()
        for example in _examples(kind, folder, [root / name / folder.name for name in MASK_FOLDERS])
    ]
    if not examples:
        raise DatasetError(
            f"{test} holds no pictures; expected them in {test / 'good'} and {test / '<defect>'}"
        )
    return examples


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
    examples = _examples(DEFECTIVE, root, [] if marks is None else [marks])
    for kind in filter(Path.is_dir, _visible(root)):
        if kind.name.casefold() not in GOOD_FOLDERS and not (marks and kind.samefile(marks)):
            examples += _examples(kind.name, kind, [] if marks is None else [marks / kind.name])
    if not examples:
        raise DatasetError(f"{root} holds no pictures of defects (.png .jpg .tif .bmp and others)")
    if marks is not None:
        listed = list(filter(_is_picture, _below(marks)))
        used = {path for example in examples for path in (example.picture, *example.masks)}
        if lonely := [str(path) for path in listed if path not in used]:
            raise DatasetError(
                f"masks without their picture in {root}: {few(lonely)}; expected the same names"
            )
        if not listed:
            raise DatasetError(f"{marks} holds no masks")
    return examples


def unused_pictures(dataset: str | Path, examples: Iterable[Example]) -> list[Path]:
    """Files that look like pictures among test pictures and masks, and belong to none of the examples."""
    used = {path for example in examples for path in (example.picture, *example.masks)}
    found = (path for name in ("test", *MASK_FOLDERS) for path in _below(Path(dataset) / name))
    return [path for path in found if _is_picture(path) and path not in used]


def few(texts: Iterable[str], count: int = 5) -> str:
    """The first of several texts in one, and how many there are beside.

    >>> few(["a", "b"]), few(["a", "b", "c", "d"], 2)
    ('a; b', 'a; b; and 2 more')
    """
    texts = list(texts)
    return "; ".join(texts[:count] + ([f"and {len(texts) - count} more"] if len(texts) > count else []))


def _examples(kind: str, folder: Path, mask_folders: Sequence[Path]) -> list[Example]:
    """The pictures of a class with their masks; DatasetError if it is not clear which belongs to which."""
    examples, unclear = [], []
    pictures, masks = _pictures_and_masks(folder, mask_folders)
    stems = Counter(picture.stem for picture in pictures)
    for picture in pictures:
        candidates = masks.get(picture.stem, [])
        if candidates and stems[picture.stem] > 1:
            unclear.append(f"{picture} shares its mask with another picture of this name; rename one of them")
        elif len(candidates) > 1:
            named = few(str(files[0]) for files in candidates)
            unclear.append(f"{picture} has several masks: {named}; put them into a folder {picture.stem}")
        examples.append(Example(picture, kind, candidates[0] if candidates else ()))
    if unclear:
        raise DatasetError(few(unclear, 3))
    return examples


def _pictures_and_masks(
    folder: Path, mask_folders: Sequence[Path]
) -> tuple[list[Path], dict[str, list[tuple[Path, ...]]]]:
    """The pictures of a class, and by the stem of a picture the masks that may be meant: of a file or a folder."""
    listed = [path for path in _visible(folder) if _is_picture(path)]
    stems = {path.stem for path in listed}
    beside = [path for path in listed if path.stem != _marked(path) and _marked(path) in stems]
    masks: dict[str, list[tuple[Path, ...]]] = defaultdict(list)
    for path in [*beside, *(path for marks in mask_folders for path in _visible(marks))]:
        if _is_picture(path):
            masks[_marked(path)].append((path,))
        elif inside := tuple(filter(_is_picture, _visible(path))):
            masks[path.name].append(inside)
    return [path for path in listed if path not in beside], masks


def _marked(mask: Path) -> str:
    """The stem of the picture that a mask belongs to."""
    stem = mask.stem
    return stem[: -len(MASK_ENDING)] if stem.casefold().endswith(MASK_ENDING) else stem


def _is_picture(path: Path) -> bool:
    """Whether a path is named like a picture; a broken link, too: it is to be missed, not passed over."""
    return path.suffix.lower() in EXTENSIONS and not path.is_dir()


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden things and what macOS adds to archives; nothing in no folder."""
    if not folder.is_dir():
        return []
    shown = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    return sorted(shown, key=lambda path: path.name)


def _below(folder: Path) -> Iterator[Path]:
    """All files in a folder and the folders in it; links to folders are not followed."""
    for path in _visible(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        else:
            yield path


def _hint(root: Path) -> str:
    sets = [path.name for path in _visible(root) if (path / "test").is_dir()]
    return f"; it holds the data sets {few(sets)}: name one of them" if sets else ""
