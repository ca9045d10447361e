"""Who may ask, and how a request's body comes in: no larger, no slower and no more at once than is allowed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fmrnet.deployment.batching import Queue, Room
from fmrnet.errors import ConfigError, FmrnetError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Body", "Gone", "Refused", "Tokens"]

PATIENCE = 10.0  # seconds that a body may take, and as many more as it has this many bytes:
SLOWEST = 32 * 2**10  # a second
LEAST_TOKEN = 16  # characters


class Refused(FmrnetError):
    """A body that is not taken; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gone(FmrnetError):
    """The client is gone."""


class Tokens:
    """The tokens that are let in; none lets everybody in.

    Parameters
    ----------
    tokens : iterable of str
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [_digest(token) for token in tokens]

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        """A token a line; empty lines and what begins with # do not count.

        Raises
        ------
        ConfigError
            If there is none, or one is too short to be safe.
        OSError
            If the file cannot be read.
        """
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is no text: expected a token a line") from error
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not tokens:
            raise ConfigError(
                f"{path} holds no token: expected one a line, such as `openssl rand -hex 32` makes"
            )
        if short := [
            number for number, line in enumerate(lines, 1) if line in tokens and len(line) < LEAST_TOKEN
        ]:
            raise ConfigError(
                f"{path}, line {short[0]}: a token of fewer than {LEAST_TOKEN} characters; `openssl rand -hex 32` "
                "makes a long one"
            )
        return cls(tokens)

    def accept(self, authorization: str | None) -> bool:
        """Whether the HTTP header Authorization lets in; it takes as long for a wrong token as for a right one."""
        if not self._digests:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip())
        known = [hmac.compare_digest(given, one) for one in self._digests]  # all of them, whichever it is
        return any(known) and scheme.lower() == "bearer"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Body:
    """The body of a request, which takes room from its first byte until it is let go, as a context manager.

    Parameters
    ----------
    request : starlette.requests.Request
    room : Room
    queue : Queue
        Which says when to come again.
    largest : int
        Bytes of a body.
    """

    def __init__(self, request: Request, room: Room, queue: Queue, largest: int) -> None:
        self._request, self._room, self._queue, self._largest = request, room, queue, largest
        self._taken = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *error: object) -> None:
        self._room.give(self._taken)

    async def read(self) -> bytearray:
        """The whole body.

        Raises
        ------
        Refused
            If it is compressed, too large or too slow.
        Busy
            If the queue or the room is full.
        Gone
            If the client leaves before its end.
        """
        headers = self._request.headers
        if (encoding := headers.get("content-encoding", "identity")).lower() != "identity":
            raise Refused(415, f"Content-Encoding {encoding[:20]!r}: expected a body that is not compressed")
        self._check(int(headers.get("content-length", 0)))
        self._queue.check()
        body, started = bytearray(), time.monotonic()
        while True:
            left = PATIENCE + len(body) / SLOWEST - (time.monotonic() - started)
            try:
                message = await asyncio.wait_for(self._request.receive(), left)
            except TimeoutError:
                raise Refused(408, f"the body comes too slowly: {len(body)} bytes so far") from None
            if message["type"] == "http.disconnect":
                raise Gone("the client is gone")
            chunk = message.get("body", b"")
            self._check(len(body) + len(chunk))
            self._room.take(len(chunk), self._queue.retry_after)
            self._taken += len(chunk)
            body += chunk
            if not message.get("more_body", False):
                return body

    def _check(self, size: int) -> None:
        if size > self._largest:
            raise Refused(413, f"a body of {size} bytes or more: expected up to {self._largest}")
