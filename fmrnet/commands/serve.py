"""`fmrnet serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Device, Engine, PathArgument, PathOption
from fmrnet.terminal import fail, say

__all__ = ["serve"]


def serve(
    models: Annotated[
        list[Path],
        PathArgument(metavar="MODEL", help="Model files; one that is replaced is taken up anew."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, PathOption(help="File with a token a line; only who sends one is answered.")
    ] = None,
    certificate: Annotated[Path | None, PathOption(help="Certificate for TLS, PEM, with its chain.")] = None,
    key: Annotated[Path | None, PathOption(help="Its private key, PEM.")] = None,
    waiting: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; more are told to come again.")
    ] = 64,
    megabytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 64,
    megapixels: Annotated[int, typer.Option(min=1, max=134, help="Largest picture.")] = 32,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Inspect for others over HTTP, by the Open Inference Protocol v2, and for a person on a page."""
    from fmrnet.deployment.admission import Tokens
    from fmrnet.deployment.app import make_app
    from fmrnet.deployment.journal import log_in_json
    from fmrnet.deployment.models import Models
    from fmrnet.deployment.server import listen, run, server

    if (certificate is None) != (key is None):
        raise fail("--certificate and --key belong together; give both", 2)
    tokens = None if token_file is None else Tokens.from_file(token_file)
    with listen(host, port) as listening:
        served = Models(models, device, engine, megapixels * 10**6)
        app = make_app(served, tokens=tokens, waiting=waiting, largest=megabytes * 2**20)
        serving = server(app, certificate=certificate, key=key)
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        if tokens is None and not address.startswith("127.") and address != "::1":
            say(f"whoever reaches {shown} is answered, for there is no --token-file")
        say(f"serving at http{'s' if certificate else ''}://{shown}:{number}")
        log_in_json()
        run(serving, listening)
