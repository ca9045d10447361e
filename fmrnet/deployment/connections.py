"""Connections that cost little, however slow or many their clients are: uvicorn's, watched.

uvicorn ends a connection that rests after a response. This also ends one that never sends a whole head, feeds a body
that nobody waits for, or does not read its response; and of too many, those that have rested longest.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fmrnet.deployment.access import LINGER

__all__ = ["IDLE_SECONDS", "LARGEST_HEAD", "MOST", "Watched"]

MOST = 1000  # connections at once
IDLE_SECONDS = 60.0  # without a request in hand, or without a byte of a response taken
LOOKS = 4  # in that time
LARGEST_HEAD = 16 * 2**10  # bytes of a request's line and headers


class Watched(H11Protocol):
    """One connection."""

    most = MOST
    idle_seconds = IDLE_SECONDS
    _since = 0.0  # when something last went on
    _left = 0  # bytes of a response that were not taken at the last look
    _timer: asyncio.TimerHandle | None = None
    _deaf = False  # what still comes is not read, so that the client can read why

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; of too many, end the one that has rested longest, or this one if none rests."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._look()
        if len(self.connections) > self.most:
            others = [one for one in self.connections if isinstance(one, Watched) and one is not self]
            resting = [one for one in others if not one.busy]
            oldest = min(resting, key=lambda one: one._since, default=self)
            oldest.transport.abort()
            self.connections.discard(oldest)  # at once, for many may come before its end is told

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless what came was no HTTP."""
        if not self._deaf:
            super().data_received(data)

    def _look(self) -> None:
        """Whether it goes on; else end it."""
        now, left = self.loop.time(), self.transport.get_write_buffer_size()
        if (left < self._left) if left else self.busy:
            self._since = now
        self._left = left
        if now - self._since > self.idle_seconds:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(self.idle_seconds / LOOKS, self._look)

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, unless a response is under way."""
        if self.busy or self.conn.our_state is not h11.IDLE:
            self.transport.abort()
            return
        body = json.dumps({"error": f"this is no HTTP request; {msg}"}).encode()
        headers: list[tuple[Any, Any]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER, self.transport.close)
