"""Pictures by HTTP from programs on the same machine, and what the node says of them.

    POST /pictures?name=NAME       a picture file as the body -> its verdict; with the header Idempotency-Key, the same
                                   verdict if it is sent again
    GET  /verdicts/NUMBER          a verdict
    GET  /verdicts?after=NUMBER    the next final verdicts in order, up to 100
    GET  /                         how the node is

The standard library's server is enough: a handful of programs on this machine are its clients, it adds nothing to
install or to load, and the node has no event loop. It listens on 127.0.0.1 alone and refuses what a browser sends for a
page (header Origin).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qs, urlsplit

from fmrnet.deployment.verdict import Verdict
from fmrnet.errors import ConfigError, printable

__all__ = ["LARGEST_PICTURE", "Intake"]

LARGEST_PICTURE = 2**28  # bytes of a file
LONGEST_TEXT = 200  # characters of a name or a key
CLIENTS = 32  # at a time
LINGER = 5.0  # seconds for which the rest of a refused request is read, so that the client can read why
SLOWEST = 30.0  # seconds for which a client may say nothing


class Taker(Protocol):
    """What the intake asks of a node."""

    def take(self, picture: bytes, name: str, source: str | None) -> Verdict:
        """Inspect a picture."""

    def verdict(self, number: int) -> Verdict | None:
        """A verdict by its number."""

    def finals(self, after: int) -> list[Verdict]:
        """The next final verdicts."""

    def state(self) -> dict[str, Any]:
        """How the node is."""


class Intake:
    """Serves a node on a port of this machine.

    Raises
    ------
    ConfigError
        If the port is taken.

    Attributes
    ----------
    port : int
        The one that it listens on, also where 0 was asked for.
    """

    def __init__(self, node: Taker, port: int, failed: Callable[[BaseException], None]) -> None:
        handler = type("Handler", (_Handler,), {"node": node})
        try:
            self._server = _Server(port, handler, failed)
        except OSError as error:
            raise ConfigError(
                f"--port {port} cannot be listened on: {error.strerror}; name another"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="intake", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; requests under way are finished."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, port: int, handler: type[_Handler], failed: Callable[[BaseException], None]) -> None:
        self._free = threading.BoundedSemaphore(CLIENTS)
        self.failed = failed
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no error of the node; anything else is."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            self.failed(error)


class _Handler(BaseHTTPRequestHandler):
    node: ClassVar[Taker]
    timeout = SLOWEST
    unread = True  # whether some of the request may still come

    def do_POST(self) -> None:
        """Take a picture in."""
        url = urlsplit(self.path)
        if url.path != "/pictures":
            return self._send(
                404, {"error": f"there is no {printable(url.path, 100)}; expected POST /pictures"}
            )
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 12):
            return self._send(
                411, {"error": "expected the header Content-Length and a picture file as the body"}
            )
        if int(length) > LARGEST_PICTURE:
            return self._send(
                413, {"error": f"{length} bytes: expected a picture of up to {LARGEST_PICTURE}"}
            )
        (name,) = parse_qs(url.query).get("name", ["picture"])[:1]
        key = self.headers.get("Idempotency-Key")
        if len(name) > LONGEST_TEXT or len(key or "") > LONGEST_TEXT:
            return self._send(
                400, {"error": f"expected a name and an Idempotency-Key of up to {LONGEST_TEXT} characters"}
            )
        picture = self.rfile.read(int(length))
        if len(picture) < int(length):
            return None  # the client has gone
        self.unread = False
        try:
            verdict = self.node.take(picture, name, None if key is None else f"/{key}")
        except OSError as error:
            return self._send(
                507, {"error": f"the verdict cannot be kept: {error.strerror}; send it again later"}
            )
        return self._send(200, verdict.to_dict())

    def do_GET(self) -> None:
        """Tell a verdict or the state."""
        self.unread = "Content-Length" in self.headers
        url = urlsplit(self.path)
        first, _, number = url.path.strip("/").partition("/")
        after = parse_qs(url.query).get("after", ["0"])[0]
        if not first:
            return self._send(200, self.node.state())
        if first == "verdicts" and not number and _is_number(after):
            return self._send(200, {"verdicts": [one.to_dict() for one in self.node.finals(int(after))]})
        if first == "verdicts" and _is_number(number):
            found = self.node.verdict(int(number))
            if found is not None:
                return self._send(200, found.to_dict())
        return self._send(404, {"error": f"there is no {printable(self.path, 100)}"})

    def parse_request(self) -> bool:
        """Refuse what a page in a browser sends."""
        if not super().parse_request():
            return False
        if "Origin" in self.headers:
            self._send(403, {"error": "programs are served here, not pages"})
            return False
        return True

    def finish(self) -> None:
        """Read what a client still sends of a refused request: were it cut off, it would not read the answer."""
        super().finish()
        until = time.monotonic() + LINGER
        with suppress(OSError):  # it may be gone
            if self.unread:
                self.connection.shutdown(socket.SHUT_WR)
            while self.unread and (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                self.unread = bool(self.connection.recv(2**16))

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, allow_nan=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each request."""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
