"""The app of `fmrnet serve`: the Open Inference Protocol v2, metrics, and the page for a person."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import fmrnet
from fmrnet.deployment import protocol
from fmrnet.deployment.access import SOON, Access, error_response, short
from fmrnet.deployment.admission import Body, Gone, Tokens
from fmrnet.deployment.batching import Queue, Room, Timed
from fmrnet.deployment.endpoints import Answer
from fmrnet.deployment.journal import Journal
from fmrnet.deployment.models import Models
from fmrnet.deployment.protocol import HEADER_LENGTH

__all__ = ["make_app"]

PAGE = {  # package, file, type
    "/": ("fmrnet.deployment", "page/index.html", "text/html"),
    "/page.css": ("fmrnet.pages", "static/page.css", "text/css"),
    "/server.css": ("fmrnet.deployment", "page/server.css", "text/css"),
    "/server.js": ("fmrnet.deployment", "page/server.js", "text/javascript"),
}
PUBLIC = (*PAGE, "/v2/health/live", "/v2/health/ready")  # without a token
STRICT = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
SMALL = 2**14  # bytes of an answer that is sooner encoded than handed to a thread
SCHEMA = "#/components/schemas/"
log = logging.getLogger(__name__)


def make_app(
    models: Models,
    *,
    tokens: Tokens | None = None,
    waiting: int = 64,
    largest: int = 64 * 2**20,
    in_hand: int = 512 * 2**20,
) -> FastAPI:
    """The app.

    Parameters
    ----------
    models : Models
        They are warmed up and watched while the app runs.
    tokens : Tokens, optional
        Default: everybody may ask.
    waiting : int
        Requests that may wait.
    largest : int
        Bytes of a request's body.
    in_hand : int
        Bytes of all bodies at once.
    """
    queue, room = Queue(waiting, models.workers), Room(in_hand)
    journal = Journal(models, queue, room)

    def watch(stop: threading.Event) -> None:
        try:
            models.watch(stop)
        except Exception:
            log.exception("the files of the models are watched no more")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(stop,), name="models", daemon=True)
        watcher.start()
        queue.start()
        yield
        stop.set()
        await asyncio.to_thread(queue.close)

    app = FastAPI(
        title="FMR-Net",
        version=fmrnet.__version__,
        description="Inspection by the Open Inference Protocol v2.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    app.add_middleware(Access, tokens=tokens or Tokens(), journal=journal, public=PUBLIC)

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        asked = f"{request.method} {request.url.path}"
        return error_response(error.status_code, f"{asked}: {error.detail}", dict(error.headers or {}))

    # Routes are tried in their order, and this is what is asked most.
    @app.post("/v2/models/{model}/infer", **INFER)
    @app.post("/v2/models/{model}/versions/{version}/infer", **INFER)
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        """Ask a model."""
        found, endpoint = models.find(model, version)
        request.state.model, fields = model, request.state.fields
        fields |= {"model": model, "version": found.version}
        if not models.ready:
            return _not_warm()
        if fields["edge"]:
            journal.heard(fields["edge"])
        with Body(request, room, queue, largest) as body:
            data = await body.read()
            request.state.received = len(data)
            if (length := request.headers.get(HEADER_LENGTH)) == "0":
                asked = protocol.decode_raw(data, endpoint.file)
            else:
                asked = protocol.decode_request(data, length)
            if asked.id and "x-request-id" not in request.headers:
                fields["id"] = short(asked.id)
            job = partial(endpoint.answer, endpoint.checked(asked))
            timed = await _done(request, queue.submit(job))
        answer: Answer = timed.value
        journal.computed(model, timed.waited, timed.computed)
        fields |= {"waited": round(timed.waited, 4), "computed": round(timed.computed, 4)}
        if (result := answer.result) is not None:
            verdict = {"defective": result.defective, "score": result.score, "p_value": result.p_value}
            fields |= verdict
            names = ("id", "edge", "line", "version", "score", "p_value")
            journal.verdict(model, result.defective, {name: fields[name] for name in names})
        response = protocol.Response(model, found.version, answer.outputs, asked.id)
        as_bytes = {name: asked.outputs.get(name, asked.binary) for name in answer.outputs}
        encode = partial(protocol.encode_response, response, as_bytes)
        small = sum(array.nbytes for array in answer.outputs.values()) <= SMALL
        content, headers = encode() if small else await asyncio.to_thread(encode)
        return Response(content, headers=headers)

    for path, (package, name, kind) in PAGE.items():
        content = files(package).joinpath(name).read_bytes()
        app.get(path, include_in_schema=False)(partial(_static, content, kind))

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> Response:
        """Whether the server runs."""
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", tags=["health"], responses={503: ERROR})
    async def ready() -> Response:
        """Whether the models are warm."""
        return JSONResponse({"ready": True}) if models.ready else _not_warm()

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(journal.metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/status", tags=["operation"])
    async def status() -> Response:
        """What the page shows."""
        return JSONResponse(journal.status())

    @app.get("/v2", tags=["metadata"])
    async def server() -> Response:
        """Which server this is."""
        return JSONResponse(
            {"name": "fmrnet", "version": fmrnet.__version__, "extensions": ["binary_tensor_data"]}
        )

    @app.get("/v2/models/{model}", tags=["metadata"], responses={404: ERROR})
    @app.get("/v2/models/{model}/versions/{version}", tags=["metadata"], responses={404: ERROR})
    async def metadata(model: str, version: str | None = None) -> Response:
        """What a model takes and gives."""
        found, endpoint = models.find(model, version)
        versions = [one.version for one in models.all if one.name == found.name]
        return JSONResponse(
            {
                "name": model,
                "versions": versions if version is None else [version],
                "platform": "fmrnet",
                **{
                    key: [
                        {"name": name, "datatype": one.datatype, "shape": list(one.shape)}
                        for name, one in tensors.items()
                    ]
                    for key, tensors in (("inputs", endpoint.inputs), ("outputs", endpoint.outputs))
                },
            }
        )

    @app.get("/v2/models/{model}/ready", tags=["health"], responses={404: ERROR, 503: ERROR})
    @app.get(
        "/v2/models/{model}/versions/{version}/ready", tags=["health"], responses={404: ERROR, 503: ERROR}
    )
    async def model_ready(model: str, version: str | None = None) -> Response:
        """Whether a model is warm."""
        models.find(model, version)
        return JSONResponse({"name": model, "ready": True}) if models.ready else _not_warm()

    app.openapi = partial(_openapi, app, models)  # type: ignore[method-assign]
    with suppress(ModuleNotFoundError):  # traces, where OpenTelemetry is installed
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(app)
    return app


def _openapi(app: FastAPI, models: Models) -> dict[str, Any]:
    """The description of the service, with the protocol's own schemas, and the models and versions that serve now."""
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    headers: Any = [(model, "validation") for model in (protocol.RequestHeader, protocol.ResponseHeader)]
    _, schemas = models_json_schema(headers, ref_template=SCHEMA + "{model}")
    described.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
    known = {
        "model": [f"{model.name}.{kind}" for model in models.all for kind in model.endpoints],
        "version": [model.version for model in models.all],
    }
    for path in described["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = sorted(set(known[parameter["name"]]))
    return described


async def _done(request: Request, future: Future[Timed]) -> Timed:
    """What a job gives, if the client waits for it; one that is gone by then gives its place in the queue up."""
    job: asyncio.Future[Any] = asyncio.wrap_future(future)
    gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([job, gone], return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise Gone("the client is gone")
        timed: Timed = job.result()
        return timed
    finally:
        gone.cancel()
        job.cancel()


async def _static(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers=STRICT)


def _not_warm() -> Response:
    return error_response(503, "the models are being warmed up; come again later", SOON)


ERROR: dict[str, Any] = {
    "description": "Why not, in one line",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        }
    },
}
INFER: dict[str, Any] = {
    "tags": ["inference"],
    "responses": {
        200: {
            "description": "The outputs",
            "content": {
                "application/json": {"schema": {"$ref": SCHEMA + "ResponseHeader"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **dict.fromkeys((400, 401, 404, 408, 413, 415, 429, 500, 503), ERROR),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": HEADER_LENGTH,
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "How long the JSON is, where bytes of tensors follow it; 0: the body is a file alone",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": SCHEMA + "RequestHeader"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}
