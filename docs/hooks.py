"""What MkDocs is told beside its settings: the page of the commands, and links to files that are no pages.

The pages are read in the repository, too, where a link leads out of `docs/` to code and results. The site carries those
files as plain text under `source/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_command

from fmrnet.cli import app

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(\]\()\.\./([^)#]+)(?:#[^)]*)?\)")
COMMANDS = "<!-- commands -->"


def on_files(files: Files, *, config: Any) -> Files:
    """Carry what the pages link to outside `docs/`."""
    wanted = {
        target
        for page in files.documentation_pages()
        for _, target in OUTSIDE.findall(page.content_string)
        if (ROOT / target).is_file()
    }
    for target in sorted(wanted):
        files.append(File.generated(config, carried(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the commands, and point links out of `docs/` to what is carried; others fail the strict build."""
    markdown = markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown
    return OUTSIDE.sub(
        lambda link: f"{link[1]}{carried(link[2])})" if (ROOT / link[2]).is_file() else link[0], markdown
    )


def carried(target: str) -> str:
    """The place in the site of a file of the project: pictures as they are, anything else as text."""
    return f"source/{target}" if target.endswith(".png") else f"source/{target}.txt"


def commands() -> str:
    """Every command and its options, as the program itself describes them."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="fmrnet"), name="fmrnet")
    return text.partition("\n")[2]  # the page has a title of its own
