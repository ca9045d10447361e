"""Files that are whole or not there: written under a temporary name in the same folder, then renamed."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["replacing", "write_json"]


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; put it in the place of `path` when the block ends well.

    If the block or the disk fails, the temporary file is removed and what stood at `path` stays as it was.

    Parameters
    ----------
    path : where the file will stand; its folder must exist.

    Yields
    ------
    the open binary file (write, seek and tell).

    Raises
    ------
    OSError : the folder is missing or cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON in one step; NaN and infinity are refused (they are not JSON)."""
    text = json.dumps(content, indent=2, allow_nan=False)  # in ASCII: file names may be no UTF-8
    with replacing(path) as file:
        file.write(text.encode() + b"\n")
