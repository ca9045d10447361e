"""Pictures that come as bytes, from standard input or a URL: kept in the results folder, under their content's hash.

A picture that is received again is the same file, so that an inspection can be resumed.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import fmrnet
from fmrnet.errors import PictureError
from fmrnet.files import replacing
from fmrnet.headroom import headroom
from fmrnet.inspection.folder import make

__all__ = ["fetch", "is_url", "receive"]

MOST_BYTES = 2**30  # of a picture of MAX_PIXELS in colour, 16 bits and not compressed
PART = 2**20  # bytes that are read at once
WAIT = 20.0  # seconds for a server's answer, and for each part of it
LONGEST = 120.0  # seconds for a whole picture: a server that sends a byte now and then holds nobody up
MAGIC = {
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"II": ".tif",
    b"MM": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
}


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL, rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def receive(stream: BinaryIO, folder: Path) -> Path:
    """Keep one picture that a stream holds. Raises as `fetch`."""
    return _keep(_bounded(stream.read, "standard input"), "stdin", folder)


def fetch(url: str, folder: Path) -> Path:
    """Fetch one picture from an http or https URL, and keep it.

    Nothing but http and https is followed, wherever a server redirects to.

    Raises
    ------
    PictureError : the server cannot be reached or refuses, takes too long, or sends nothing or more than MOST_BYTES.
    OSError : the picture cannot be written; `filename` says where.
    """
    request = urllib.request.Request(url, headers={"User-Agent": f"fmrnet/{fmrnet.__version__}"})
    until = time.monotonic() + LONGEST
    try:
        with _opener().open(request, timeout=WAIT) as answer:

            def read(count: int) -> bytes:
                if time.monotonic() > until:
                    raise PictureError(
                        f"{url} takes more than {LONGEST:.0f} s to fetch; copy it to this machine"
                    )
                part: bytes = answer.read1(count)
                return part

            data = _bounded(read, url)
            told = answer.headers.get("Content-Length")
        if told is not None and told.isdigit() and len(data) < int(told):
            raise PictureError(f"{url} broke off after {len(data)} of {told} bytes; try again")
    except urllib.error.HTTPError as error:
        raise PictureError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors
        raise PictureError(f"{url} cannot be fetched: {getattr(error, 'reason', None) or error}") from error
    return _keep(data, Path(unquote(urlsplit(url).path)).stem, folder)


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _bounded(read: Callable[[int], bytes], name: str) -> bytes:
    """All that can be read, up to MOST_BYTES and to half of what memory is free."""
    most = min(MOST_BYTES, headroom() // 2)
    data = bytearray()
    while part := read(PART):
        data += part
        if len(data) > most:
            raise PictureError(f"{name} holds more than {most / 1e9:.2f} GB; give one picture of less")
    if not data:
        raise PictureError(f"{name} is empty (0 bytes); expected a picture")
    return bytes(data)


def _keep(data: bytes, stem: str, folder: Path) -> Path:
    suffix = next((suffix for magic, suffix in MAGIC.items() if data.startswith(magic)), "")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:60] or "picture"
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    make(folder)
    if not path.exists() or path.read_bytes() != data:
        with replacing(path) as file:
            file.write(data)
    return path
