"""uvicorn with the app: one process, connections that are watched, and an end that finishes what is in hand."""

from __future__ import annotations

import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from fmrnet.deployment.connections import IDLE_SECONDS, LARGEST_HEAD, Watched
from fmrnet.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["listen", "run", "server"]

WAITING = 2048  # connections that the system holds before they are taken
FINISH_SECONDS = 60  # for what is in hand at the end


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 is any that is free. ConfigError names one that is not to be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=WAITING)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}:{port}: {reason}; name another address or port") from None
    # What it accepts takes this after it. asyncio asks for it, too, but of sockets that name their protocol alone.
    # Without it an answer's second piece waits until the first is acknowledged, which clients put off by 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def server(app: FastAPI, *, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Server:
    """A server of the app.

    Parameters
    ----------
    app : FastAPI
    certificate, key : path, optional
        Of TLS, in PEM; without a certificate it is plain HTTP.

    Raises
    ------
    ConfigError
        If certificate and key cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=Watched,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks where a client is
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_keep_alive=round(IDLE_SECONDS),
        timeout_graceful_shutdown=FINISH_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except ssl.SSLError as error:
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key, in PEM: {error}"
        ) from error
    return uvicorn.Server(config)


def run(serving: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in hand."""
    if sys.platform != "win32":  # each connection takes a file
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with suppress(KeyboardInterrupt):  # the signal that ended it, which uvicorn raises again when all is done
        serving.run(sockets=[listening])
