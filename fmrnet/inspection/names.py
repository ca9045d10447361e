"""Names for what an inspection writes: one for each picture, such that no two files ever stand in one place."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

__all__ = [
    "ANNOTATIONS",
    "KINDS",
    "LOCK",
    "PAGE",
    "PAGE_FILES",
    "PAGE_KINDS",
    "RECEIVED",
    "RECORD",
    "REPORT",
    "below_shared",
    "output_names",
]

KINDS = ("overlay.png", "mask.png", "map.tiff")  # a picture `cut/0.png` gives cut/0.overlay.png and so on
REPORT, RECORD, LOCK = "report.json", "report.jsonl", ".fmrnet.lock"
PAGE, PAGE_FILES = "report.html", "report_files"  # to look at, and the folder of its pictures
PAGE_KINDS = (  # of each picture: report_files/cut/0.picture.jpg and so on
    *("picture.jpg", "outline.png", "edge.png", "background.jpg", "heat.jpg"),
    *("gms.jpg", "ssim.jpg", "residual.jpg", "thumb.jpg"),
)
RECEIVED = "received"  # folder of pictures that came as bytes: from standard input, from a URL
ANNOTATIONS = {"coco": "coco.json", "cvat": "cvat.xml", "csv": "defects.csv"}  # of all pictures, by format
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate: how Python has a byte that is no UTF-8
LONGEST = 200  # bytes of a name; most disks take 255, and the name of a kind follows


def output_names(paths: Sequence[Path], taken: Collection[str] = ()) -> dict[Path, str]:
    """A name for the files of each picture: its path below the folder they share, its suffix left out.

    The suffix stays where two names would otherwise be the same. A name that is too long is shortened, and one that
    is taken gets a number; bytes that are no UTF-8 stand as ~dcff in it. No two differ by upper and lower case alone,
    which some disks do not tell apart.

    Parameters
    ----------
    paths : pictures, each file once
    taken : names that are given away

    >>> list(output_names([Path("in/cut/0.png"), Path("in/hole/0.png")]).values())
    ['cut/0', 'hole/0']
    >>> list(output_names([Path("in/0.png"), Path("in/0.jpg")]).values())
    ['0.png', '0.jpg']
    """
    below = [_in_text(name) for name in below_shared(paths)]
    stems = [name.with_suffix("") for name in below]
    if len({_folded(str(stem)) for stem in stems}) == len(stems):
        below = stems
    used = {_folded(name) for name in taken}
    names = {}
    for path, parts in zip(paths, below, strict=True):
        short = "/".join([*map(_free, parts.parts[:-1]), _short(parts.parts[-1])])
        name, number = short, 2
        while _folded(name) in used:
            name, number = f"{short}~{number}", number + 1
        used.add(_folded(name))
        names[path] = name
    return names


def below_shared(paths: Sequence[Path]) -> list[PurePath]:
    """Where each picture lies below the folder that they share, links of folders followed."""
    return _below([Path(os.path.realpath(path.parent), path.name) for path in paths])


def _below(whole: Sequence[PurePath]) -> list[PurePath]:
    """Absolute paths below the folder that they share; where they lie on several drives, by drive."""
    for shared in whole[0].parents if whole else ():
        if all(path.parent.is_relative_to(shared) for path in whole):
            return [path.relative_to(shared) for path in whole]
    # C: and \\server\share
    return [type(path)(path.drive.replace(":", "").lstrip("\\"), *path.parts[1:]) for path in whole]


def _in_text(name: PurePath) -> PurePath:
    return type(name)(HALF.sub(lambda found: f"~{ord(found[0]):x}", str(name)))


def _free(folder: str) -> str:
    """A folder's name that is no output's: `a.mask.png` holds pictures, and `a.png` beside it has a mask."""
    given_away = {REPORT, RECORD, LOCK, PAGE, *ANNOTATIONS.values()}
    kinds = tuple(f".{kind}" for kind in (*KINDS, *PAGE_KINDS))
    taken = folder.lower().endswith(kinds) or folder.lower() in given_away
    return f"{folder}~" if taken else folder


def _short(name: str) -> str:
    """`name` within LONGEST bytes; a digest of the whole keeps two long ones apart."""
    if len(_encoded(name)) <= LONGEST:
        return name
    ending = "~" + hashlib.sha256(_encoded(name)).hexdigest()[:8]
    while len(_encoded(name + ending)) > LONGEST:
        name = name[:-1]
    return name + ending


def _encoded(name: str) -> bytes:
    return name.encode()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
