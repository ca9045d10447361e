"""A million damaged requests to a running `fmrnet serve`: statuses are counted, and nothing else comes of them.

    python tests/fuzz/live.py [--requests 1000000] [--seconds 3600] [--seed 0] [--out live.json]

Good requests of every kind are damaged in one to five places: the JSON, its length, shapes, sizes and types, numbers
that are none, bytes cut off or too many, a Content-Length that does not hold, paths, methods and headers. Several
connections are kept open. It fails if an answer is a 5xx other than 503, shows a traceback or is no line of JSON, or if
the server ends, grows beyond `MOST` of memory or answers a good request otherwise in the end than before.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import Process, ask
from tiny import ground, make_inspector

from fmrnet.deployment.features import pack
from fmrnet.deployment.protocol import DATATYPES, HEADER_LENGTH, Request, encode_request

CONNECTIONS = 6
MOST = 400e6  # bytes that the server may grow by
EXPECTED = {200, 304, 400, 401, 404, 405, 408, 411, 413, 415, 422, 429, 431, 503}
HOSTILE: list[Any] = [
    *(None, True, "", "x" * 300, "\x00", "💥", [], {}, -1, 0, 1, 2**31, 2**40, 2**63, 2**64, 10**400, 0.5),
    *(1e308, float("nan"), float("inf"), [[]], [1, [2]], {"a": {"b": []}}, "BYTES", "FP32", [2**32, 2**32]),
]
Seed = tuple[str, bytes, int]  # path, body, length of its JSON


def main() -> None:
    """Read the command line, start the server, send, tell and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("live.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_inspector().save(Path(name) / "carpet.fmr")
        server = Process(Path(name) / "carpet.fmr", "--megabytes", 1, "--megapixels", 1, "--device", "cpu")
        try:
            found = fuzz(server, given.requests, given.seconds, given.seed)
        finally:
            code = server.stop()
    found["exit code"] = code
    found["tracebacks in the log"] = sum("Traceback" in line for line in server.lines)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    sys.exit(bool(found["faults"]) or code not in (0, -15, 143))


def fuzz(server: Process, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """What came of so many requests, or of as many as there was time for."""
    known = seeds()
    path, body, length = known[0]
    headers = {HEADER_LENGTH: str(length)}
    before = ask(server.address, path, body, headers)[2]
    process = psutil.Process(server.process.pid)
    memory = [process.memory_info().rss]
    senders = [
        Sender(server.port, known, count // CONNECTIONS, seconds, seed + n) for n in range(CONNECTIONS)
    ]
    started = time.monotonic()
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        time.sleep(5)
        if server.process.poll() is None:
            memory.append(process.memory_info().rss)
        print(sum(sender.sent for sender in senders), memory[-1] // 10**6, flush=True)
    faults = [fault for sender in senders for fault in sender.faults]
    if ask(server.address, path, body, headers)[2] != before:
        faults.append("a good request is answered otherwise than before")
    if max(memory) - memory[0] > MOST:
        faults.append(f"memory grew from {memory[0]} to {max(memory)} bytes")
    statuses: Counter[str] = sum((sender.statuses for sender in senders), Counter())
    return {
        "requests": sum(sender.sent for sender in senders),
        "seconds": round(time.monotonic() - started, 1),
        "connections": CONNECTIONS,
        "statuses": dict(sorted(statuses.items())),
        "faults": faults,
        "server_megabytes": {
            "at first": memory[0] // 10**6,
            "at a tenth": memory[len(memory) // 10] // 10**6,
            "at most": max(memory) // 10**6,
            "at last": memory[-1] // 10**6,
        },
    }


def seeds() -> list[Seed]:
    """Good requests of every kind; the first is answered with a verdict."""
    picture = ground(64, 64)
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    file = np.empty(1, object)
    file[0] = encoded.getvalue()
    maps = [np.zeros((1, 4, side, side), np.float16) for side in (2, 4, 8)]
    packed = np.empty(1, object)
    packed[0] = pack((maps[0], maps[1], maps[2]), 1)
    wanted = {"score": True, "p_value": True, "defective": False}
    requests = [
        ("carpet.patch", Request({"picture": picture}, wanted, "a", {"false_alarms": 0.05})),
        ("carpet.patch", Request({"picture": picture.astype(np.uint16)}, {}, "b")),
        ("carpet.patch", Request({"picture": (picture / 255).astype(np.float32)}, {}, "")),
        ("carpet.pixel", Request({"file": file}, {"overlay": True, "mask": True}, "c")),
        ("carpet.decoder", Request(dict(zip(("el5", "el4", "el3"), maps, strict=True)))),
        ("carpet.decoder", Request({"features": packed})),
        ("carpet.patch", Request({"picture": picture[:64, :64]}, binary=False)),
    ]
    found = []
    for model, request in requests:
        body, headers = encode_request(request)
        found.append((f"/v2/models/{model}/infer", body, int(headers.get(HEADER_LENGTH, len(body)))))
    return found


class Sender(threading.Thread):
    """Sends over one connection, and over a new one whenever the server has closed it."""

    def __init__(self, port: int, known: list[Seed], count: int, seconds: float, seed: int) -> None:
        super().__init__()
        self.port, self.known, self.count, self.end = port, known, count, time.monotonic() + seconds
        self.random, self.sent = random.Random(seed), 0
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self.connection: socket.socket | None = None

    def run(self) -> None:
        """Until all are sent, time is up or too much is wrong."""
        while self.sent < self.count and time.monotonic() < self.end and len(self.faults) < 10:
            request, waits = damaged(self.random, self.known)
            self.sent += 1
            status = self.ask(request, waits)
            self.statuses[str(status)] += 1
        if self.connection is not None:
            self.connection.close()

    def ask(self, request: bytes, waits: bool) -> int | str:
        """The status of an answer; "unfinished" of a request whose end we keep back, "closed" where none came."""
        try:
            if self.connection is None:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self.connection.sendall(request)
            if waits:
                self.connection.shutdown(socket.SHUT_WR)
            status, head, body = answer_of(self.connection)
        except TimeoutError:
            self.faults.append(f"no answer in a minute to {request[:2000]!r}")
            return self.close("silent")
        except (ConnectionError, EOFError):
            return self.close("unfinished" if waits else "closed")
        if status not in EXPECTED or b"Traceback" in body:
            self.faults.append(f"{status} {body[:500]!r} to {request[:2000]!r}")
        if status >= 400 and b"/json" in head:
            said = json.loads(body).get("error")
            if not isinstance(said, str) or not said.isprintable():
                self.faults.append(f"{status} says {body[:500]!r} to {request[:2000]!r}")
        if waits or b"connection: close" in head:
            self.close("")
        return status

    def close(self, status: str) -> str:
        """Let go of the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        return status


def answer_of(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, head in lower case and body of the next answer; EOFError if there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise EOFError
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    head = head.lower()
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            raise EOFError
        body += part
    return int(head.split()[1]), head, body[:length]


def damaged(rng: random.Random, known: list[Seed]) -> tuple[bytes, bool]:
    """A request as bytes, and whether the server will wait for more of it."""
    path, body, length = rng.choice(known)
    header, rest = json.loads(body[:length]), bytearray(body[length:])
    method, headers, said = "POST", {}, None
    text: bytes | None = None
    for _ in range(rng.choice((1, 2, 3, 4, 5))):
        what = rng.randrange(10)
        if what < 3:
            replace(rng, header)
        elif what == 3 and header.get("inputs") and isinstance(header["inputs"], list):
            tensor = rng.choice(header["inputs"])
            if isinstance(tensor, dict):
                key = rng.choice(("shape", "datatype", "size"))
                if key == "shape":
                    tensor["shape"] = [
                        rng.choice((0, 1, 2, 64, 65, 2**20, -1, 2**62)) for _ in range(rng.randrange(6))
                    ]
                elif key == "datatype":
                    tensor["datatype"] = rng.choice(list(DATATYPES))
                else:
                    tensor["parameters"] = {"binary_data_size": rng.choice((0, 1, len(rest), 2**40, -5))}
        elif what == 4 and rest:
            for _ in range(rng.randrange(1, 9)):
                rest[rng.randrange(len(rest))] = rng.randrange(256)
        elif what == 5 and len(rest) > 8:
            place = rng.randrange(len(rest) - 4)
            rest[place : place + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), -1e38)))
        elif what == 6:
            rest = (
                rest[: rng.randrange(len(rest) + 1)]
                if rng.random() < 0.7
                else rest + rng.randbytes(rng.randrange(200))
            )
        elif what == 7:
            said = rng.choice((-1, 0, 1, length - 1, length + 1, 2**31, 2**70, "x", "", "1e3", "+5", " 7"))
        elif what == 8:
            text = bytearray(json.dumps(header, default=str).encode())
            text[rng.randrange(len(text))] = rng.randrange(256)
            text = bytes(text)
        else:
            path, method, more = elsewhere(rng, path)
            headers |= more
    given = text if text is not None else json.dumps(header).encode()
    content = given + bytes(rest)
    if rest or said is not None:
        headers.setdefault(HEADER_LENGTH, str(len(given) if said is None else said))
    waits, declared = False, len(content)
    if rng.random() < 0.02:
        declared, waits = rng.choice(
            ((len(content) + 5, True), (max(0, len(content) - 5), True), (2**33, True))
        )
    headers.setdefault("Content-Length", str(declared))
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + content, waits


def replace(rng: random.Random, value: Any) -> None:
    """Put something hostile into some place of a JSON document, or leave something out."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and rng.random() < 0.7:
            value = value[key]
            continue
        if rng.random() < 0.2:
            del value[key]
        else:
            value[key] = copy.deepcopy(rng.choice(HOSTILE))
        return


def elsewhere(rng: random.Random, path: str) -> tuple[str, str, dict[str, str]]:
    """Another path, another method or odd headers."""
    what = rng.randrange(3)
    if what == 0:
        others = ("/", "/v2", "/metrics", "/v2/health/ready", "/v2/models/none/infer", "/v2/models/%00/infer")
        return (
            rng.choice((*others, path.replace("infer", "versions/1/infer"), path + "/" + "x" * 500)),
            "POST",
            {},
        )
    if what == 1:
        return path, rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "BREW")), {}
    odd = {
        "X-Edge": rng.choice(("\x7f", "a" * 500, "%ff%00", "é")),
        "Authorization": rng.choice(("Bearer", "Bearer x", "Basic " + "A" * 300)),
        "Content-Encoding": rng.choice(("gzip", "zstd", "x")),
        "Accept": "a" * 3000,
    }
    name = rng.choice(list(odd))
    return path, "POST", {name: odd[name]}


if __name__ == "__main__":
    main()
