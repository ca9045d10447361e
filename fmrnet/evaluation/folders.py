"""What lies in the folders of a data set: pictures, and the masks that belong to them by their names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmrnet.errors import DatasetError
from fmrnet.evaluation.examples import Example, few
from fmrnet.listing import EXTENSIONS

__all__ = [
    "MASK_ENDINGS",
    "below",
    "examples_of",
    "folders",
    "is_picture",
    "pictures_in",
    "stem_without",
    "visible",
]

MASK_ENDINGS = ("_mask", "_label", "_GT")


def examples_of(kind: str, folder: Path, mask_folders: Sequence[Path]) -> list[Example]:
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


def stem_without(path: Path, endings: Sequence[str] = ("_mask",)) -> str:
    """The stem of the picture that a mask belongs to."""
    for ending in endings:
        if path.stem.casefold().endswith(ending.casefold()):
            return path.stem[: -len(ending)]
    return path.stem


def is_picture(path: Path) -> bool:
    """Whether a path is named like a picture; a broken link, too: it is to be missed, not passed over."""
    return path.suffix.lower() in EXTENSIONS and not path.is_dir()


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden things and what macOS adds to archives; nothing in no folder."""
    if not folder.is_dir():
        return []
    shown = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    return sorted(shown, key=lambda path: path.name)


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return list(filter(Path.is_dir, visible(folder)))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder itself, by name."""
    return list(filter(is_picture, visible(folder)))


def below(folder: Path) -> Iterator[Path]:
    """All files in a folder and the folders in it; links to folders are not followed."""
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink():
            yield from below(path)
        else:
            yield path


def _pictures_and_masks(
    folder: Path, mask_folders: Sequence[Path]
) -> tuple[list[Path], dict[str, list[tuple[Path, ...]]]]:
    """The pictures of a class, and by the stem of a picture the masks that may be meant: of a file or a folder."""
    listed = pictures_in(folder)
    stems = {path.stem for path in listed}
    beside = [path for path in listed if path.stem != stem_without(path) and stem_without(path) in stems]
    masks: dict[str, list[tuple[Path, ...]]] = defaultdict(list)
    for path in [*beside, *(path for marks in mask_folders for path in visible(marks))]:
        if is_picture(path):
            masks[stem_without(path)].append((path,))
        elif inside := tuple(pictures_in(path)):
            masks[path.name].append(inside)
    return [path for path in listed if path not in beside], masks
