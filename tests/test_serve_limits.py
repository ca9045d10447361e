"""What a server bears: clients that are slow, many, greedy, gone or strangers. Over real sockets, in this process."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from serving import Thread, answer_of, ask, serving
from tiny import ground

from fmrnet.deployment import admission, batching, connections
from fmrnet.deployment.admission import Tokens
from fmrnet.deployment.endpoints import Inspection
from fmrnet.deployment.protocol import Request, encode_request
from fmrnet.deployment.server import listen
from fmrnet.errors import ConfigError

BODY, HEADERS = encode_request(Request({"picture": ground(64, 64)}))
PATCH = "/v2/models/tiny.patch/infer"
TOKEN = "correct horse battery staple"
POST = f"POST {PATCH} HTTP/1.1\r\nHost: a\r\n".encode() + b"".join(
    f"{name}: {value}\r\n".encode() for name, value in HEADERS.items()
)


@pytest.fixture(scope="module", autouse=True)
def _little_patience() -> Iterator[None]:
    """Seconds that nobody waits for in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMRNET_BACKEND", "eager")
        patch.setattr(admission, "PATIENCE", 0.5)
        patch.setattr(connections.Watched, "idle_seconds", 1.0)
        patch.setattr(connections.Watched, "most", 100)
        yield


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Thread]:
    with serving([model], waiting=2, largest=2**20, in_hand=2**21) as thread:
        yield thread


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Inspections wait until this is set."""
    event, inspect = threading.Event(), Inspection.answer

    def wait(self: Inspection, asked: Any) -> Any:
        assert event.wait(30)
        return inspect(self, asked)

    monkeypatch.setattr(Inspection, "answer", wait)
    yield event
    event.set()


def waiting(server: Thread) -> int:
    return int(json.loads(ask(server.address, "/status")[2])["queue"]["waiting"])


def wait_for(server: Thread, count: int) -> None:
    deadline = time.monotonic() + 10
    while waiting(server) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_finds_the_queue_full_is_told_when_to_come_again(server: Thread, held: threading.Event) -> None:
    found: list[int] = []
    askers = [
        threading.Thread(target=lambda: found.append(ask(server.address, PATCH, BODY, HEADERS)[0]))
        for _ in range(3)
    ]
    for count, asker in enumerate(askers):
        asker.start()
        wait_for(server, count)  # the first is being done, the others wait
    code, headers, answer = ask(server.address, PATCH, BODY, HEADERS)
    assert code == 429
    assert int(headers["retry-after"]) >= 1
    assert "come again later" in json.loads(answer)["error"]
    assert ask(server.address, "/v2/health/ready")[0] == 200  # the rest goes on
    held.set()
    for asker in askers:
        asker.join()
    assert found == [200] * 3


def test_who_leaves_gives_his_place_up(server: Thread, held: threading.Event) -> None:
    first = server.connect(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    wait_for(server, 0)
    others = [server.connect(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY) for _ in range(2)]
    wait_for(server, 2)
    for connection in others:
        connection.close()
    asked = threading.Thread(target=ask, args=(server.address, PATCH, BODY, HEADERS))
    deadline = time.monotonic() + 10
    while ask(server.address, PATCH, b"", HEADERS)[0] == 429:  # until both have been found gone
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asked.start()
    held.set()
    asked.join()
    first.close()


def test_a_slow_body_is_not_waited_for(server: Thread) -> None:
    began = time.monotonic()
    connection = server.connect(POST + b"Content-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        while time.monotonic() - began < 5:
            connection.send(b"x")
            time.sleep(0.1)
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(1000)
                break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"too slowly" in answer
    assert 0.4 < time.monotonic() - began < 4
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v2/models/tiny.patch/infer HT", b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: "],
    ids=["nothing", "half a line", "half a head"],
)
def test_a_connection_that_asks_nothing_is_ended(server: Thread, sent: bytes) -> None:
    began = time.monotonic()
    assert answer_of(server.connect(sent)) == b""
    assert time.monotonic() - began < 5


def test_a_head_that_trickles_is_ended_too(server: Thread) -> None:
    began, connection = time.monotonic(), server.connect(b"GET /v2 HTTP/1.1\r\n")
    with pytest.raises(OSError):  # noqa: PT012
        while time.monotonic() - began < 8:
            connection.send(b"a: b\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began < 6
    connection.close()


@pytest.mark.slow
def test_who_does_not_read_is_ended(server: Thread) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", server.port))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
        while True:
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.close()


@pytest.mark.slow
def test_thousands_of_idle_connections_keep_nobody_out(
    server: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.Watched, "idle_seconds", 60.0)  # none is ended for its rest alone
    before = psutil.Process().memory_info().rss
    idle = []
    try:
        idle.extend(server.connect() for _ in range(1500))
        assert ask(server.address, PATCH, BODY, HEADERS)[0] == 200
        assert len(server.server.server_state.connections) <= 101
        assert answer_of(idle[0]) == b""  # it has rested longest
    finally:
        for connection in idle:
            connection.close()
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_a_body_that_claims_too_much_is_refused_before_it_comes(server: Thread) -> None:
    for claim in (b"Content-Length: 99999999999999999", b"Content-Length: 1048577"):
        connection = server.connect(POST + claim + b"\r\n\r\n")
        assert connection.recv(2000).startswith(b"HTTP/1.1 413 ")
        connection.close()


def test_a_body_of_no_length_is_refused_where_it_grows_too_large(server: Thread) -> None:
    connection = server.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(40):
            connection.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")
    assert connection.recv(2000).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_all_bodies_together_are_bounded(server: Thread) -> None:
    half = POST + b"Content-Length: 1000000\r\n\r\n" + bytes(900_000)
    first = [server.connect(half) for _ in range(2)]
    while server_bytes(server) < 1_800_000:
        time.sleep(0.01)
    code, headers, _ = ask(server.address, PATCH, bytes(900_000), HEADERS)
    assert (code, "retry-after" in headers) == (429, True)
    for connection in first:
        connection.close()
    while server_bytes(server):
        time.sleep(0.01)
    assert ask(server.address, PATCH, BODY, HEADERS)[0] == 200


def server_bytes(server: Thread) -> float:
    text = ask(server.address, "/metrics")[2].decode()
    return float(
        next(line.split()[1] for line in text.splitlines() if line.startswith("fmrnet_bytes_in_hand "))
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / FTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 2**20 + b"\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\0" * 1000 + b"\r\n\r\n",
    ],
    ids=["TLS", "protocol", "HTTP/0.9", "negative", "two lengths", "long header", "chunks", "zeros"],
)
def test_what_is_no_http_is_told_so(server: Thread, sent: bytes) -> None:
    answer = answer_of(server.connect(sent))
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert ask(server.address, "/v2/health/live")[0] == 200


def test_only_who_has_a_token_is_answered(model: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# of the lines\n\n{TOKEN}\nanother token of the lines\n")
    with serving([model], tokens=Tokens.from_file(tmp_path / "tokens")) as server:
        for given in (
            None,
            f"Bearer {TOKEN}x",
            f"Basic {TOKEN}",
            "Bearer",
            "Bearer # of the lines",
            "Bearer \xff",
        ):
            headers = HEADERS | ({} if given is None else {"Authorization": given})
            for path, body in ((PATCH, BODY), ("/status", None), ("/metrics", None), ("/openapi.json", None)):
                code, found, _ = ask(server.address, path, body, headers)
                assert (code, found.get("www-authenticate")) == (401, "Bearer"), (given, path)
        for given in (f"Bearer {TOKEN}", "bearer another token of the lines"):
            assert ask(server.address, PATCH, BODY, HEADERS | {"Authorization": given})[0] == 200
        assert ask(server.address, "/")[0] == ask(server.address, "/v2/health/live")[0] == 200


@pytest.mark.parametrize("content", ["", "# none\n", "short\n"])
def test_a_file_of_no_safe_token_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(ConfigError, match="openssl rand"):
        Tokens.from_file(tmp_path / "tokens")


def test_until_the_models_are_warm_nobody_is_answered(model: Path, held: threading.Event) -> None:
    with serving([model], warm=False) as server:
        for path, body in (("/v2/health/ready", None), ("/v2/models/tiny.patch/ready", None), (PATCH, BODY)):
            code, headers, _ = ask(server.address, path, body, HEADERS)
            assert (code, "retry-after" in headers) == (503, True)
        assert ask(server.address, "/v2/health/live")[0] == 200
        held.set()
        while ask(server.address, "/v2/health/ready")[0] != 200:
            time.sleep(0.01)
        assert ask(server.address, PATCH, BODY, HEADERS)[0] == 200


@pytest.mark.parametrize(
    ("error", "expected"), [(RuntimeError("broken"), 500), (MemoryError(), 503)], ids=["a fault", "no memory"]
)
def test_a_fault_of_the_server_is_no_traceback_to_the_client(
    server: Thread, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: int
) -> None:
    def fail(self: Inspection, asked: Any) -> Any:
        raise error

    monkeypatch.setattr(Inspection, "answer", fail)
    code, headers, answer = ask(server.address, PATCH, BODY, HEADERS)
    assert code == expected
    assert b"broken" not in answer
    assert b"Traceback" not in answer
    assert (expected == 500) == (headers["x-request-id"].encode() in answer)


def test_the_queue_says_when_to_come_again_by_how_long_jobs_take() -> None:
    queue = batching.Queue(3)
    for _ in range(3):
        queue.submit(lambda: None)
    assert queue.retry_after == 2  # 0.5 s each, and one more
    with pytest.raises(batching.Busy):
        queue.submit(lambda: None)
    queue.start()
    queue.close()
    assert queue.waiting == 0


def test_no_more_may_wait_than_are_done_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for longer has given up when his turn comes, and nobody's request is done in time."""
    queue, go = batching.Queue(64), threading.Event()
    queue.start()
    queue.submit(lambda: time.sleep(0.05)).result()
    monkeypatch.setattr(batching, "LONGEST_WAIT", 2.5 * queue._usual)
    queue.submit(go.wait)
    while queue.waiting:  # until it is at work
        time.sleep(0.01)
    for _ in range(3):
        queue.submit(lambda: None)
    with pytest.raises(batching.Busy, match="3 requests wait"):
        queue.submit(lambda: None)
    go.set()
    queue.close()


def test_each_request_is_a_span_where_opentelemetry_is_installed(model: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with serving([model]) as server:
        assert ask(server.address, PATCH, BODY, HEADERS)[0] == 200
    spans = {span.name: span.attributes or {} for span in exporter.get_finished_spans()}
    assert spans["POST /v2/models/{model}/infer"]["http.status_code"] == 200


def test_arrays_of_any_layout_are_sent(server: Thread) -> None:
    picture = np.asfortranarray(ground(80, 96))[::-1, ::1]
    body, headers = encode_request(Request({"picture": picture}))
    assert ask(server.address, PATCH, body, headers)[0] == 200


def test_a_port_that_is_taken_is_a_mistake_that_names_it() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^127\.0\.0\.1:{port}: Address already in use"):
            listen("127.0.0.1", port)
