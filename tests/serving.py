"""A server for a test: in a process of its own, or in a thread of this one, where its parts can be reached."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmrnet.deployment.app import make_app
from fmrnet.deployment.models import Models
from fmrnet.deployment.server import listen, server

ROOT = Path(__file__).parents[1]


class Process:
    """`fmrnet serve` as a process, ready to answer."""

    def __init__(self, *arguments: object, ready: bool = True) -> None:
        command = [sys.executable, "-m", "fmrnet", "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"FMRNET_BACKEND": "eager", "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving at https?://(\S+:(\d+))", line):
                self.address, self.port = found[1], int(found[2])
                break
        else:
            raise AssertionError("".join(self.lines))
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()))
        self._reader.start()
        while ready and status(self.address, "/v2/health/ready") != 200:
            time.sleep(0.05)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged, line by line."""
        return [json.loads(line) for line in self.lines if not line.startswith("fmrnet: ")]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it; gives its exit code."""
        self.process.send_signal(how)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class Thread:
    """The app, served by a thread of this process."""

    def __init__(self, paths: Sequence[Path], *, warm: bool = True, **options: Any) -> None:
        self.models = Models(paths, "cpu", most_pixels=options.pop("most_pixels", 2**20))
        tls = {name: options.pop(name) for name in ("certificate", "key") if name in options}
        self.app = make_app(self.models, **options)
        self.listening = listen("127.0.0.1", 0)
        self.port = self.listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.server = server(self.app, **tls)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})
        self._thread.start()
        while not self.server.started or (warm and not self.models.ready):
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        self.server.should_exit = True
        self._thread.join(30)
        self.listening.close()
        assert not self._thread.is_alive()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A connection, over which something has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(sent)
        return connection


@contextmanager
def serving(paths: Sequence[Path], **options: Any) -> Iterator[Thread]:
    """A server in a thread, for a while."""
    thread = Thread(paths, **options)
    try:
        yield thread
    finally:
        thread.stop()


def ask(
    address: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and body of a request's answer."""
    request = urllib.request.Request(f"http://{address}{path}", body, headers or {})
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()


def status(address: str, path: str) -> int:
    """The status of a path, 0 while nobody listens."""
    try:
        return ask(address, path)[0]
    except OSError:
        return 0


def answer_of(connection: socket.socket) -> bytes:
    """All that comes over a connection until its other end closes it."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    finally:
        connection.close()
    return found
