"""A line for tests: a model of which some pictures settle at the early exit, pictures, a cloud, and what to check."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from links import enter
from tiny import ground, make_inspector

import fmrnet
from fmrnet.deployment import mqtt, uplink
from fmrnet.deployment.node import EdgeNode
from fmrnet.deployment.protocol import HEADER_LENGTH, Response, decode_request, encode_response
from fmrnet.deployment.verdict import Verdict
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.pictures import decode_picture, write_picture


def write_model(path: Path) -> Path:
    """A tiny model that settles pictures of `texture` for even seeds at the early exit, and none for odd ones.

    Its random weights find nothing at pixel level, so that a picture with a blot is first defective and then good.
    """
    inspector = make_inspector()
    calibration = dataclasses.replace(
        inspector.calibration,
        patch=GoodScores(tuple((value,) for value in np.linspace(3.004, 3.012, 20).tolist())),
        early_exit=EarlyExit((0.001,) * 200, (0.06,) * 200),
    )
    Inspector(inspector.engine, calibration, inspector.provenance).save(path)
    return path


def texture(seed: int) -> np.ndarray:
    """A good surface for even seeds; for odd ones with a blot."""
    picture = ground(seed=seed)
    if seed % 2:
        picture[20:60, 30:80] = 255
    return picture


def write(path: Path, seed: int) -> None:
    """A picture that appears whole."""
    write_picture(path, texture(seed))


class Cloud:
    """A server that answers as `fmrnet serve` does, or not at all: a status that is set is what it says."""

    def __init__(self, model: Path, port: int = 0) -> None:
        self.inspector = fmrnet.load(model, "cpu")
        self.inspector.inspect(texture(1))  # so that the first request is as quick as others
        self.turn = threading.Lock()
        self.asked: list[str] = []
        self.bytes = 0
        self.status, self.delay, self.headers = 200, 0.0, {}
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(cloud.delay)
                status, answer, headers = cloud.answer(body, self.headers.get(HEADER_LENGTH))
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(answer))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def answer(self, body: bytes, header_length: str | None) -> tuple[int, bytes, dict[str, str]]:
        request = decode_request(body, header_length)
        self.asked.append(request.id)
        self.bytes += len(body)
        if self.status != 200:
            return self.status, b'{"error": "not today"}', self.headers
        with self.turn:
            found = self.inspector.inspect(decode_picture(request.inputs["file"][0]), "pixel")
        outputs = {
            "score": np.array([found.score], np.float32),
            "p_value": np.array([found.p_value]),
            "defective": np.array([found.defective]),
            "level": np.array([found.level.encode()], object),
        }
        body, headers = encode_response(Response("tiny.pixel", "1", outputs, request.id))
        return 200, body, headers

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def cloud_of(model: Path) -> Iterator[Cloud]:
    cloud = Cloud(model)
    try:
        yield cloud
    finally:
        cloud.close()


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds; AssertionError if it does not."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.01)


def written(out: Path) -> list[dict[str, Any]]:
    """The verdicts in the folder of a node, in order."""
    return [json.loads(path.read_bytes()) for path in sorted((out / "verdicts").glob("*.json"))]


class Log:
    """A listener that writes down what it is told, so that it outlives its process."""

    name = "log"

    def __init__(self, path: Path) -> None:
        self.path = path

    def first(self, verdict: Verdict) -> None:
        pass

    def final(self, verdict: Verdict) -> bool:
        with open(self.path, "a") as file:
            file.write(verdict.to_json() + "\n")
        return True

    def close(self) -> None:
        pass


def run_edge(model: Path, folder: Path, out: Path, url: str, broker: int, deadline: float) -> None:
    """A node in a process of its own, to be killed; what fails in it stands in a file beside what it says."""
    uplink.LONGEST = 1.0
    uplink.READ = 3.0
    mqtt.LONGEST_PAUSE = 1
    mqtt.ACKNOWLEDGED = 1.0
    told = Log(folder / "told")

    def log(text: str) -> None:
        with open(folder / "log", "a") as file:
            file.write(text + "\n")

    with EdgeNode(
        model,
        out,
        watch=folder / "in",
        cloud=url,
        line="A",
        device="cpu",
        deadline=deadline,
        listeners=[lambda node: told, mqtt.publisher(f"127.0.0.1:{broker}")],
        log=log,
    ) as node:
        node.ended.wait()
    if node.failure is not None:
        (folder / "failure").write_text("".join(traceback.format_exception(node.failure)))


def run_cloud(model: Path, port: int, namespace: str | None) -> None:
    """`fmrnet serve` in a process of its own, to be killed, on a network of its own if one is named."""
    from fmrnet.deployment import app, models, server

    enter(namespace)
    with server.listen("127.0.0.1" if namespace is None else "0.0.0.0", port) as listening:
        server.run(server.server(app.make_app(models.Models([model], "cpu"))), listening)
