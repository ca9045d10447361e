"""`fmrnet edge`."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fmrnet.commands.options import Device, Engine, FalseAlarms, Model, PathOption
from fmrnet.deployment.verdict import Send
from fmrnet.terminal import MACHINE, exit_code, fail, note, show

__all__ = ["edge"]


def edge(
    model: Model,
    out: Annotated[Path, PathOption(help="Folder for verdicts/ and the queue of open pictures.")],
    watch: Annotated[
        Path | None, PathOption(help="Folder in which pictures appear; they stay there.")
    ] = None,
    cloud: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="`fmrnet serve` with the same model file; default: the pixel level is computed here, in idle time.",
        ),
    ] = None,
    line: Annotated[str | None, typer.Option(help="Name of the line; default: that of this machine.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Take pictures by HTTP from programs on this machine, too; 0: any port."
        ),
    ] = None,
    deadline: Annotated[
        float, typer.Option(help="Seconds after which the patch-level verdict stands.")
    ] = 60.0,
    disk: Annotated[
        float,
        typer.Option(
            metavar="MB", help="Megabytes that --out may take; the oldest decided verdicts go first."
        ),
    ] = 2000.0,
    token_file: Annotated[Path | None, PathOption(help="File that holds the token for the cloud.")] = None,
    ca: Annotated[
        Path | None,
        PathOption(
            help="Certificate, PEM, that signs that of the cloud; default: those that the system trusts."
        ),
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Broker that verdicts are published to.")
    ] = None,
    opcua: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65535, help="Serve OPC UA on this port; 0: any.")
    ] = None,
    send: Annotated[
        Send, typer.Option(help="What of an open picture goes up to the cloud; `fmrnet plan` measures it.")
    ] = Send.whole,
    false_alarms: FalseAlarms = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Inspect a line: each picture gets its verdict at once, and what is not settled is decided after, above or here.

    Runs until it is stopped; started again, it goes on where it was.
    """
    from fmrnet.deployment.node import EdgeNode, Listener
    from fmrnet.deployment.uplink import read_token

    listeners: list[Callable[[EdgeNode], Listener]] = []
    if mqtt is not None:
        from fmrnet.deployment.mqtt import publisher

        listeners.append(publisher(mqtt))
    if opcua is not None:
        from fmrnet.deployment.opcua import server

        listeners.append(server(opcua))
    node = EdgeNode(
        model,
        out,
        watch=watch,
        line=line,
        cloud=cloud,
        token=None if token_file is None else read_token(token_file),
        authority=ca,
        send=send,
        port=port,
        deadline=deadline,
        disk=disk,
        false_alarms=false_alarms,
        device=device,
        engine=engine,
        listeners=listeners,
        log=note,
    )
    with node:
        state = node.state()
        show(f"line {node.line}, model {node.model}, {state['engine']}: verdicts in {out}")
        if node.port is not None:
            show(f"pictures by HTTP: http://127.0.0.1:{node.port}/pictures")
        try:
            node.ended.wait()
        except KeyboardInterrupt as error:
            totals = node.state()["totals"]
            left = f"stopped; {totals['pictures']} pictures taken in, {totals['open']} open"
            raise fail(f"{left}: the same command goes on", exit_code(error)) from None
    if node.failure is not None:
        traceback.print_exception(node.failure)
    raise fail("the node cannot go on; the same command starts it again where it was", MACHINE)
