"""Which pictures are inspected: files, folders, patterns, lists of these, standard input, URLs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fmrnet.errors import ConfigError, DatasetError, PictureError
from fmrnet.inspection.folder import check_apart, holds_results
from fmrnet.inspection.received import fetch, is_url, receive
from fmrnet.listing import each_once, list_pictures

__all__ = ["STANDARD_INPUT", "Gathered", "gather", "read_list"]

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Gathered:
    """The pictures to inspect.

    Attributes
    ----------
    paths : list of Path
        Each file once, in the order in which they were given.
    unusable : dict of str to DatasetError or PictureError
        What was given and is of no use, and why: no picture is behind it, or it cannot be had.
    sources : dict of Path to str
        Where pictures came from that were given as no file: "-" or a URL.
    """

    paths: list[Path] = field(default_factory=list)
    unusable: dict[str, DatasetError | PictureError] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)


def gather(
    given: Sequence[str | Path],
    out: Path | None,
    received: Path,
    *,
    recursive: bool = False,
    allow_urls: bool = False,
    standard_input: BinaryIO | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gathered:
    """The pictures behind what a user gave.

    Parameters
    ----------
    given : files, folders and patterns, as `fmrnet.listing.list_pictures` takes them; URLs; "-" for a picture on
        standard input.
    out : where the results are to go; None: nowhere.
    received : folder in which what comes from standard input or a URL is kept; it is made when it is needed.
    recursive : take what lies in folders below, too, but for folders of results.
    allow_urls : fetch http and https URLs; else they are refused.
    standard_input : read for "-".
    progress : called with the number of pictures fetched, and of all that are to be.

    Raises
    ------
    ConfigError : `out` is one of the folders; a URL, and they are not allowed.
    OSError : what was received cannot be kept.
    """
    urls = [text for text in map(str, given) if is_url(text)]
    if urls and not allow_urls:
        raise ConfigError(f"{urls[0]} is a URL; give --allow-urls to fetch pictures from the network")
    place = None
    if out is not None:
        check_apart(out, [Path(path) for path in given if os.path.isdir(path)])
        place = os.path.realpath(out)
    gathered = Gathered()

    def passed_over(folder: Path) -> bool:
        return os.path.realpath(folder) == place or holds_results(folder)

    def unlisted(folder: Path, error: DatasetError) -> None:
        gathered.unusable[str(folder)] = error

    found: list[Path] = []
    for text in map(str, given):
        try:
            if is_url(text):
                found.append(fetch(text, received))
                gathered.sources.setdefault(found[-1], text)
                progress(len(gathered.sources), len(urls))
            elif text == STANDARD_INPUT and standard_input is not None:
                found.append(receive(standard_input, received))
                gathered.sources.setdefault(found[-1], text)
            else:
                found += list_pictures(text, recursive=recursive, passed_over=passed_over, unlisted=unlisted)
        except (DatasetError, PictureError) as error:
            gathered.unusable[text] = error
    gathered.paths.extend(each_once(found))
    return gathered


def read_list(content: bytes) -> list[str]:
    """The paths in a list: one a line, or with zero bytes between, as `find -print0` gives them; no empty ones.

    >>> read_list(b"a.png\\r\\n\\nb c.png\\n")
    ['a.png', 'b c.png']
    """
    parts = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.path.expanduser(os.fsdecode(part)) for part in parts if part.strip()]
