"""`fmrnet serve` in a process of its own, asked by clients that nobody here wrote."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import tritonclient.http as triton
from commands import run
from lines import until
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from raw_files import chunk
from serving import Process, ask
from tiny import ground, make_inspector

import fmrnet
from fmrnet.deployment.endpoints import texts
from fmrnet.deployment.models import version_of
from fmrnet.deployment.protocol import HEADER_LENGTH, Request, decode_response, encode_request
from fmrnet.deployment.server import listen
from fmrnet.deployment.uplink import Unreachable, Uplink
from fmrnet.inspection.inspector import Inspector, Result

PICTURE = ground(seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: one of grey pictures, one of colour, and another version of the first."""
    folder = tmp_path_factory.mktemp("models")
    make_inspector().save(folder / "carpet.fmr")
    make_inspector(3).save(folder / "tile.v2.fmr")
    (folder / "next").mkdir()
    other = make_inspector()
    other.false_alarms = 0.2
    other.save(folder / "next" / "carpet.fmr")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_backend() -> Iterator[None]:
    """The server's: another one rounds otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMRNET_BACKEND", "eager")
        yield


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    process = Process(folder / "carpet.fmr", folder / "tile.v2.fmr", "--megabytes", 1, "--megapixels", 1)
    yield process
    if process.process.poll() is None:
        process.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def client(server: Process) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(server.address)


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Inspector:
    return fmrnet.load(folder / "carpet.fmr", "cpu")


def tensor(name: str, array: NDArray[Any], datatype: str, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput(name, array.shape, datatype)
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def file(content: bytes) -> triton.InferInput:
    return tensor("file", np.array([content], object), "BYTES")


def saved(picture: NDArray[Any], kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, kind, **options)
    return encoded.getvalue()


def every(client: triton.InferenceServerClient, model: str) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(one["name"]) for one in client.get_model_metadata(model)["outputs"]]


def test_health_and_metadata(server: Process, client: triton.InferenceServerClient, folder: Path) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("carpet.decoder")
    (version,) = metadata["versions"]
    assert client.is_model_ready("carpet.decoder", version)
    assert not client.is_model_ready("carpet.decoder", "0")
    assert [one["name"] for one in metadata["inputs"]] == ["el5", "el4", "el3", "features"]
    assert client.is_model_ready("tile.v2.patch")


@pytest.mark.parametrize(
    "picture",
    [PICTURE, PICTURE.astype(np.uint16) * 257, (PICTURE / 255).astype(np.float32), ground(channels=3)],
    ids=["8 bits", "16 bits", "float", "colour"],
)
def test_verdicts_are_those_of_the_inspector(
    client: triton.InferenceServerClient, inspector: Inspector, picture: NDArray[Any]
) -> None:
    datatype = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}[picture.dtype.name]
    for level in ("pixel", "patch"):
        expected = inspector.inspect(picture, level)  # type: ignore[arg-type]
        model = f"carpet.{level}"
        found = client.infer(model, [tensor("picture", picture, datatype)], outputs=every(client, model))
        compare(found, expected)


def compare(found: triton.InferResult, expected: Result) -> None:
    for name in ("score", "p_value", "defective", "settled"):
        assert found.as_numpy(name).tolist() == [getattr(expected, name)]
    assert found.as_numpy("level").tolist() == [expected.level.encode()]
    assert found.as_numpy("reasons").tolist() == [reason.encode() for reason in expected.reasons]
    for name in ("patch_scores", "patch_p_values", "anomaly_map", "mask"):
        if (array := getattr(expected, name)) is not None:
            np.testing.assert_array_equal(found.as_numpy(name), array)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_files_are_read_as_from_the_disk(
    client: triton.InferenceServerClient, inspector: Inspector, tmp_path: Path, kind: str
) -> None:
    content = saved(PICTURE, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "picture").write_bytes(content)
    expected = inspector.inspect(tmp_path / "picture")
    compare(client.infer("carpet.pixel", [file(content)], outputs=every(client, "carpet.pixel")), expected)


def test_json_alone_does_for_everything(server: Process, inspector: Inspector) -> None:
    body = {
        "id": "7",
        "inputs": [
            {"name": "picture", "shape": PICTURE.shape, "datatype": "UINT8", "data": PICTURE.tolist()}
        ],
        "outputs": [{"name": "score"}, {"name": "mask"}],
    }
    code, headers, answer = ask(
        server.address, "/v2/models/carpet.pixel/infer", json.dumps(body, default=list).encode()
    )
    assert code == 200
    found = json.loads(answer)
    expected = inspector.inspect(PICTURE)
    assert expected.mask is not None
    assert found["id"] == "7"
    assert {one["name"]: one["data"] for one in found["outputs"]} == {
        "score": [expected.score],
        "mask": expected.mask.ravel().tolist(),
    }
    assert headers["x-request-id"] == "7"


def test_a_request_decides_at_a_rate_of_its_own(server: Process, inspector: Inspector) -> None:
    def score(parameters: dict[str, Any]) -> float:
        body, headers = encode_request(Request({"picture": PICTURE}, parameters=parameters))
        _, found, answer = ask(server.address, "/v2/models/carpet.pixel/infer", body, headers)
        return float(decode_response(answer, found[HEADER_LENGTH.lower()]).outputs["score"][0])

    usual = inspector.inspect(PICTURE).score
    strict = copy.copy(inspector)
    strict.false_alarms = 0.3
    assert score({"false_alarms": 0.3}) == strict.inspect(PICTURE).score != usual
    assert score({}) == usual  # the next one is not touched


def test_the_decoder_paints_the_background_of_features(
    client: triton.InferenceServerClient, inspector: Inspector
) -> None:
    maps = inspector.engine.features(np.full((1, 64, 64), 0.5, np.float32))  # type: ignore[attr-defined]
    expected = inspector.engine.restore(np.full((1, 64, 64), 0.5, np.float32))
    inputs = [tensor(name, array, "FP32") for name, array in zip(("el5", "el4", "el3"), maps)]
    found = client.infer("carpet.decoder", inputs).as_numpy("reconstruction")
    np.testing.assert_array_equal(found[0], expected)


def bomb(width: int, height: int) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x\x9c") + chunk(b"IEND", b"")


def request_of(**inputs: NDArray[Any]) -> tuple[bytes, dict[str, str]]:
    return encode_request(Request(inputs))


def of_picture(picture: NDArray[Any] = PICTURE, **options: Any) -> tuple[bytes, dict[str, str]]:
    return encode_request(Request({"picture": picture}, **options))


def of_features(*maps: NDArray[Any]) -> tuple[bytes, dict[str, str]]:
    return encode_request(Request(dict(zip(("el5", "el4", "el3"), maps))))


def of_file(content: bytes) -> tuple[bytes, dict[str, str]]:
    return request_of(file=np.array([content], object))


GOOD = of_picture()
BYTES = np.array([b""], object)
FEATURES = [
    np.zeros((1, 4, 2, 2), np.float32),
    np.zeros((1, 4, 4, 4), np.float32),
    np.zeros((1, 4, 8, 8), np.float32),
]
REFUSED: dict[str, tuple[str, tuple[bytes, dict[str, str]], int, str]] = {
    "nothing": ("carpet.pixel", (b"", {}), 400, "Invalid JSON"),
    "no such model": ("rug.pixel", GOOD, 404, "expected one of carpet.decoder, carpet.patch"),
    "no such level": ("carpet.auto", GOOD, 404, "there is no model"),
    "no such version": ("carpet.pixel/versions/1", GOOD, 404, "there is no version '1'"),
    "a malformed header": ("carpet.pixel", (GOOD[0], {HEADER_LENGTH: "-1"}), 400, "expected a number of bytes"),
    "a truncated body": ("carpet.pixel", (GOOD[0][:-9], GOOD[1]), 400, "bytes are left of the body"),
    "two inputs": ("carpet.pixel", request_of(picture=PICTURE, file=BYTES), 400, "either picture or file"),
    "an unknown input": ("carpet.pixel", request_of(image=PICTURE), 400, "inputs 'image'"),
    "two files": ("carpet.pixel", request_of(file=BYTES.repeat(2)), 400, "expected BYTES [1]"),
    "a wrong shape": ("carpet.pixel", of_picture(PICTURE[None, None]), 400, "[height, width, channels]"),
    "four channels": ("carpet.pixel", of_picture(np.zeros((64, 64, 4), np.uint8)), 400, "(H, W, 3)"),
    "a wrong type": ("carpet.pixel", of_picture(PICTURE.astype(np.int32)), 400, "type int32"),
    "NaN": ("carpet.pixel", of_picture(np.full((64, 64), np.nan, np.float32)), 400, "holds NaN"),
    "a small picture": ("carpet.pixel", of_picture(PICTURE[:40]), 400, "smaller than a patch"),
    "a large picture": ("carpet.pixel", of_picture(np.zeros((1001, 1000), np.uint8)), 400, "more than 1000000"),
    "a bomb": ("carpet.pixel", of_file(bomb(30000, 30000)), 400, "more than 134,217,728 pixels"),
    "a small bomb": ("carpet.pixel", of_file(saved(np.zeros((1100, 999), np.uint8), "PNG")), 400, "999x1100 pixels"),
    "no picture": ("carpet.pixel", of_file(b"MZ" * 99), 400, "the picture"),
    "an empty file": ("carpet.pixel", of_file(b""), 400, "the picture"),
    "a cut file": ("carpet.pixel", of_file(saved(PICTURE, "PNG")[:-2000]), 400, "damaged or cut short"),
    "an unknown output": ("carpet.patch", of_picture(outputs={"mask": True}), 400, "output 'mask'"),
    "an unknown parameter": ("carpet.pixel", of_picture(parameters={"rate": 1}), 400, "'rate'"),
    "no rate": ("carpet.pixel", of_picture(parameters={"false_alarms": "x"}), 400, "between 0 and 1"),
    "a rate beyond all": ("carpet.pixel", of_picture(parameters={"false_alarms": 10**400}), 400, "between 0 and 1"),
    "a rate beyond": ("carpet.pixel", of_picture(parameters={"false_alarms": 2}), 400, "between 0 and 1"),
    "too many bytes": ("carpet.pixel", (bytes(2**20 + 1), {}), 413, "expected up to 1048576"),
    "compressed": ("carpet.pixel", (GOOD[0], GOOD[1] | {"Content-Encoding": "gzip"}), 415, "not compressed"),
    "no features": ("carpet.decoder", encode_request(Request({"features": texts(["FMRF"])})), 400, "no Zstandard"),
    "a lone feature": ("carpet.decoder", of_features(FEATURES[0]), 400, "expected el5, el4, el3"),
    "features that do not fit": ("carpet.decoder", of_features(FEATURES[0], *FEATURES[:2]), 400, "[1, 4, 4, 4]"),
    "endless features": ("carpet.decoder", of_features(FEATURES[0] + np.inf, *FEATURES[1:]), 400, "NaN or inf"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "sent", "expected", "reason"), REFUSED.values(), ids=REFUSED)
def test_bad_requests_are_refused_in_one_line(
    server: Process, model: str, sent: tuple[bytes, dict[str, str]], expected: int, reason: str
) -> None:
    code, headers, answer = ask(server.address, f"/v2/models/{model}/infer", *sent)
    message = json.loads(answer)["error"]
    assert (code, headers["content-type"]) == (expected, "application/json")
    assert reason in message
    assert message.isprintable()
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("POST /v2/models/carpet.pixel/infer HTTP/1.1", 413),
        ("POST /v2/models/rug.pixel/infer HTTP/1.1", 404),
        ("POST /v2 HTTP/1.1", 405),
        ("POST /v2/models/carpet.pixel/infer HTTP/1.1\r\nContent-Encoding: gzip", 415),
        ("no HTTP", 400),
    ],
)
@pytest.mark.parametrize("close", [True, False], ids=["close", "keep-alive"])
def test_who_still_sends_what_is_refused_reads_why(
    server: Process, head: str, expected: int, close: bool
) -> None:
    size = 2**24  # more than the system's buffers hold
    closing = "Connection: close\r\n" if close else ""
    with socket.create_connection(server.address.split(":"), timeout=30) as client:
        client.sendall(f"{head}\r\nHost: x\r\n{closing}Content-Length: {size}\r\n\r\n".encode())
        time.sleep(0.05)  # long enough to be refused
        client.sendall(bytes(size))
        assert int(client.recv(65536).split()[1]) == expected


def test_an_id_of_any_letters_is_given_back(server: Process) -> None:
    body, sent = encode_request(Request({"picture": PICTURE}, id="💥 é\n"))
    code, headers, answer = ask(server.address, "/v2/models/carpet.patch/infer", body, sent)
    assert (code, headers["x-request-id"]) == (200, r"\U0001f4a5 \xe9\n")
    assert decode_response(answer, headers[HEADER_LENGTH.lower()]).id == "💥 é\n"


def test_the_guide_says_what_is_so(server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "7.png").write_bytes(saved(PICTURE, "PNG"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet.replace("localhost:8000", server.address), names)
    assert names["answer"].as_numpy("mask").shape == PICTURE.shape
    guide = re.sub(
        r"^ *curl.*?[^\\]$", "", guide, flags=re.DOTALL | re.MULTILINE
    )  # whose options are its own
    shown = run("serve", "--help").output
    assert set(re.findall(r"--[a-z][a-z-]+", guide)) <= set(re.findall(r"--[a-z][a-z-]+", shown))
    table = re.findall(r"\| `NAME\.(\w+)` \|", guide)
    assert [ask(server.address, f"/v2/models/carpet.{kind}")[0] for kind in table] == [200] * 3
    outputs = json.loads(ask(server.address, "/v2/models/carpet.pixel")[2])["outputs"]
    assert all(f"`{one['name']}`" in guide for one in outputs)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_guide_inspects_by_curl(server: Process, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()
    (curl,) = re.findall(r"```sh\n(curl.*?)```", guide, re.DOTALL)
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "7.png").write_bytes(saved(PICTURE, "PNG"))
    command = ["sh", "-ec", curl.replace("localhost:8000", server.address)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    answer, end = json.JSONDecoder().raw_decode(said)
    found = {one["name"]: one["data"] for one in answer["outputs"]}
    body, headers = encode_request(Request({"picture": PICTURE}, {"p_value": True}))
    _, sent, expected = ask(server.address, "/v2/models/carpet.pixel/infer", body, headers)
    assert found["p_value"] == decode_response(expected, sent[HEADER_LENGTH.lower()]).outputs["p_value"]
    assert json.loads(said[end:])["name"] == "carpet.pixel"


def test_metrics_log_and_status_tell_what_happened(server: Process) -> None:
    body, headers = GOOD
    said = {"X-Edge": "press 4", "X-Line": "2", "X-Request-Id": "abc\x9b" + "d" * 999}
    code, answered, _ = ask(server.address, "/v2/models/carpet.patch/infer", body, headers | said)
    assert code == 200
    while not (lines := [line for line in server.log if line.get("edge") == "press 4"]):
        time.sleep(0.01)  # it is written after the answer
    (line,) = lines
    assert line["model"] == "carpet.patch"
    assert line["status"] == 200
    assert line["id"] == answered["x-request-id"]
    assert len(line["id"]) < 120
    assert {"waited", "computed", "seconds", "defective", "version"} <= line.keys()
    text = ask(server.address, "/metrics")[2].decode()
    samples = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["fmrnet_ready", None] == 1
    assert samples["fmrnet_models", None] == 2
    assert samples["fmrnet_bytes_in_hand", None] == 0
    assert samples["fmrnet_compute_seconds_count", "carpet.patch"] >= 1
    shown = json.loads(ask(server.address, "/status")[2])
    assert shown["edges"][0]["name"] == "press 4"
    assert shown["recent"][0]["model"] == "carpet.patch"
    assert {model["name"] for model in shown["models"]} == {"carpet", "tile.v2"}


def test_a_picture_is_followed_from_edge_to_log_though_it_is_refused(server: Process, folder: Path) -> None:
    version = version_of(folder / "carpet.fmr")
    encoded = io.BytesIO()
    Image.fromarray(PICTURE).save(encoded, "PNG")
    for model, edge, status in (("carpet", "press 4", 200), ("carpet", "Presse é", 200), ("rug", "5", 404)):
        uplink = Uplink(f"http://{server.address}", model, version, edge)
        request = f"{edge}-{status}-{version}"
        with suppress(Unreachable):
            uplink.ask(request, encoded.getvalue(), 0.05)
        uplink.close()
        until(lambda sent=request: sent in [unquote(line.get("id", "")) for line in server.log])
        lines = [line for line in server.log if unquote(line.get("id", "")) == request]
        assert [line["status"] for line in lines] == [status]


def test_answers_wait_for_no_acknowledgement() -> None:
    """Nagle's algorithm is off on what is accepted, else the body of an answer comes 40 ms after its head."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow
def test_a_replaced_model_is_taken_up_without_a_dropped_request(server: Process, folder: Path) -> None:
    versions: list[str] = []
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            code, headers, answer = ask(server.address, "/v2/models/carpet.patch/infer", *GOOD)
            assert code == 200
            versions.append(decode_response(answer, headers[HEADER_LENGTH.lower()]).version)

    asker = threading.Thread(target=ask_on)
    asker.start()
    before = (folder / "carpet.fmr").read_bytes()
    (folder / "carpet.fmr").write_bytes(b"no model")
    deadline = time.monotonic() + 20
    while not any("is not taken up" in line["message"] for line in server.log):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.copy(folder / "next" / "carpet.fmr", folder / "new.tmp")
    (folder / "new.tmp").rename(folder / "carpet.fmr")
    while len(set(versions)) < 2:
        assert time.monotonic() < deadline
        assert asker.is_alive()
        time.sleep(0.05)
    stop.set()
    asker.join()
    first, last = versions[0], versions[-1]
    assert versions == [first] * versions.count(first) + [last] * versions.count(last)
    rate = next(
        one for one in json.loads(ask(server.address, "/status")[2])["models"] if one["name"] == "carpet"
    )
    assert rate["false_alarms"] == 0.2
    (folder / "carpet.fmr").write_bytes(before)


@pytest.mark.slow
def test_sigterm_finishes_what_is_in_hand(server: Process) -> None:
    """The last test of this file, for it ends the server."""
    answers: list[int] = []
    askers = [
        threading.Thread(
            target=lambda: answers.append(ask(server.address, "/v2/models/carpet.pixel/infer", *GOOD)[0])
        )
        for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    while not json.loads(ask(server.address, "/status")[2])["queue"]["waiting"]:
        assert len(answers) < len(askers)
    assert server.stop() == 0
    for asker in askers:
        asker.join()
    assert answers == [200] * 8
    assert not [line for line in server.log if "traceback" in line]
    assert [line for line in server.lines if not line.startswith(("{", "fmrnet: serving at"))] == []
