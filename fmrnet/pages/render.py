"""From a template and what it shows to the HTML of a page.

Every page is made of `templates/base.html.j2`, one style and a few scripts, all within the file. Its content security
policy lets nothing else run or load but pictures beside the page: names of files come from others.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import fmrnet
from fmrnet.errors import in_text
from fmrnet.files import as_json, replacing

__all__ = ["fill", "plural", "strings", "write_page"]

ROOM = Path(__file__).parent
STYLES = ("vendor/uPlot-1.6.32.min.css", "static/page.css")
SCRIPTS = ("vendor/uPlot-1.6.32.iife.min.js", "static/page.js", "static/chart.js", "static/table.js")


def write_page(
    path: str | Path,
    template: str,
    *,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    folder: Path = ROOM / "templates",
    **content: Any,
) -> int:
    """Write a page in one step; gives its size in bytes.

    Parameters
    ----------
    path : the HTML file.
    template : a file of `folder` that extends `base.html.j2`.
    data : what the page's scripts read as `page.data`, JSON-ready, without NaN.
    scripts : files of this room, or paths, beside those of every page, in their order.
    folder : where the template stands, if not among those of this room.
    **content : what the template reads. Iterators are gone through as the file is written.

    Raises
    ------
    OSError, ArtifactError : as `fmrnet.files.replacing`.
    """
    with replacing(path) as file:
        for piece in _pieces(template, data or {}, scripts, folder, content):
            file.write(in_text(piece).encode())
        return file.tell()


@functools.cache
def strings() -> dict[str, Any]:
    """Every text of the pages, by page and name: `strings.toml`, the one file to translate."""
    return tomllib.loads((ROOM / "strings.toml").read_text(encoding="utf-8"))


def fill(text: str, **values: object) -> str:
    """A text with values in the place of their names in braces."""
    return text.format_map(values)


def plural(text: Mapping[str, str], count: int, **values: object) -> str:
    """The form of a text that fits a number, filled: `one` or `other`, with the number as `n`."""
    return fill(text["one" if count == 1 else "other"], n=count, **values)


def _pieces(
    template: str, data: Mapping[str, Any], scripts: Sequence[str], folder: Path, content: Mapping[str, Any]
) -> Iterator[str]:
    style = _source(*STYLES)
    script = _source(*SCRIPTS, *scripts)
    return (
        _environment(folder)
        .get_template(template)
        .generate(
            text=strings(),
            version=fmrnet.__version__,
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            data=data,
            **content,
        )
    )


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, ROOM / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fill": fill, "plural": plural}
    environment.policies |= {"json.dumps_function": as_json, "json.dumps_kwargs": {}}
    return environment


@functools.cache
def _source(*names: str) -> Markup:
    """Files of this package one after the other, to stand in the page as they are."""
    return Markup("\n".join((ROOM / name).read_text(encoding="utf-8") for name in names))


def _hash(source: str) -> Markup:
    """By which the policy of a page knows a script or a style."""
    return Markup(base64.b64encode(hashlib.sha256(source.encode()).digest()).decode())
