"""Around every request: who may ask, its id, its line in the log, its count, and errors in one line of JSON."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fmrnet.deployment.admission import Gone, Refused, Tokens
from fmrnet.deployment.batching import Busy
from fmrnet.deployment.journal import Journal
from fmrnet.deployment.models import UnknownModel
from fmrnet.errors import ArtifactError, FmrnetError, is_out_of_memory, printable

__all__ = ["LINGER", "Access", "error_response", "short"]

LINGER = 5.0  # seconds for which the rest of a refused body is read, so that the client can read why
LONGEST = 100  # characters of what a client says of itself
SOON = {"Retry-After": "5"}
log = logging.getLogger(__name__)


class Access:
    """The app, watched over. Each request has a `state.fields` for its line in the log, and a `state.model`.

    Parameters
    ----------
    app : ASGI app
    tokens : Tokens
    journal : Journal
    public : collection of str
        Paths that need no token, and whose requests are not logged.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, journal: Journal, public: Collection[str]) -> None:
        self._app, self._tokens, self._journal, self._public = app, tokens, journal, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, seconds, status = time.perf_counter(), 0.0, 0
        request = Request(scope)
        fields = _fields(request)
        request.state.fields, request.state.model, request.state.received = fields, "", 0

        unread = "content-length" in request.headers or "transfer-encoding" in request.headers

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drained() -> None:
            while unread:
                await received()

        async def answered(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                seconds = time.perf_counter() - started
                if unread:  # a connection that is closed on unsent bytes takes the answer with it
                    await send({**message, "more_body": True})
                    with suppress(TimeoutError):
                        await asyncio.wait_for(drained(), LINGER)
                    message = {"type": "http.response.body", "body": b""}
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = fields["id"].encode("ascii", "backslashreplace").decode()
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        public = scope["path"] in self._public
        try:
            if public or self._tokens.accept(request.headers.get("authorization")):
                await self._app(scope, received, answered)
            else:
                needed = "a token is needed: send it as Authorization: Bearer TOKEN"
                await error_response(401, needed, {"WWW-Authenticate": "Bearer"})(scope, received, answered)
        except Exception as error:
            if status:
                raise
            await self._failed(error, fields)(scope, received, answered)
        self._journal.request(request.state.model, status, seconds, request.state.received)
        if not public:
            told = {key: value for key, value in fields.items() if value != ""}
            told |= {"status": status, "seconds": round(seconds, 4)}
            log.info("%s %s", request.method, printable(scope["path"], 200), extra={"fields": told})

    def _failed(self, error: Exception, fields: dict[str, Any]) -> Response:
        """The answer to a request that was not refused for what it asks."""
        if isinstance(error, Busy):
            return error_response(429, error, {"Retry-After": str(error.seconds)})
        if isinstance(error, Refused):
            return error_response(error.status, error)
        if isinstance(error, Gone):
            return Response(status_code=499)
        if isinstance(error, UnknownModel):
            return error_response(404, error)
        if isinstance(error, FmrnetError) and not isinstance(
            error, ArtifactError
        ):  # which is the model's fault
            return error_response(400, error)
        if is_out_of_memory(error):
            return error_response(503, "there is no memory for this now; come again later", SOON)
        log.error("request failed", exc_info=error, extra={"fields": {"id": fields["id"]}})
        return error_response(500, f"the server failed; its log says why under the request id {fields['id']}")


def error_response(status: int, message: object, headers: dict[str, str] | None = None) -> Response:
    """An error as the protocol has it."""
    return JSONResponse({"error": printable(message)}, status, headers=headers)


def short(text: str | None) -> str:
    """What a client says of itself, fit to be logged and shown."""
    return printable(text or "", LONGEST)


def _fields(request: Request) -> dict[str, Any]:
    said = {name: short(request.headers.get(f"x-{name}")) for name in ("edge", "line")}
    return {"id": short(request.headers.get("x-request-id")) or uuid.uuid4().hex, **said}
