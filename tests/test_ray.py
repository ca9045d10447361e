"""On two machines of a Ray cluster: an archive that is inspected, and the app of one machine in several replicas."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from cluster import Cluster, cluster, free_port
from PIL import Image
from serving import ask, status
from tiny import ground, make_inspector
from tritonclient.utils import InferenceServerException

import fmrnet
from fmrnet.deployment.models import version_of
from fmrnet.deployment.uplink import Backoff, Unreachable, Uplink
from fmrnet.inspection.inspector import Inspector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed; pip install 'fmrnet[ray]'"),
]

TOKEN = "a-token-of-this-test-alone"
MANY = 2000  # pictures of the archive
CLIENTS, PICTURES = 6, 40  # of each client
REPLICA = "ray::ServeReplica"
CONFIG = """\
proxy_location: HeadOnly  # both machines are one, and have one port
http_options: {{port: {port}}}
applications:
  - name: fmrnet
    import_path: fmrnet.deployment.ray_serve:app
    args: {{models: [{model}], token_file: {token}, waiting: 3, megabytes: 1, max_replicas: 2}}
    deployments:  # as with any application of Serve; here, so that the test need not wait
      - name: fmrnet
        autoscaling_config: {{min_replicas: 1, max_replicas: 2, target_ongoing_requests: 2, upscale_delay_s: 1}}
        health_check_period_s: 1
"""


class Served:
    """The server, and what its model says in one process."""

    def __init__(self, folder: Path, on: Cluster) -> None:
        self.model, self.on, port = folder / "carpet.fmr", on, free_port()
        self.address = f"127.0.0.1:{port}"
        make_inspector().save(self.model)
        (folder / "token").write_text(TOKEN)
        (folder / "serve.yaml").write_text(CONFIG.format(port=port, model=self.model, token=folder / "token"))
        self.inspector: Inspector = fmrnet.load(self.model, "cpu")
        serve = shutil.which("serve", path=on.programs)
        assert serve is not None
        on.run(serve, "run", str(folder / "serve.yaml"))
        until(lambda: status(self.address, "/v2/health/ready") == 200, 180, on.log)


@pytest.fixture(scope="module")
def on() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, cluster() as found:
        patch.setenv("FMRNET_BACKEND", "eager")  # as on the cluster: another one rounds otherwise
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, on: Cluster) -> Served:
    return Served(tmp_path_factory.mktemp("served"), on)


def test_an_archive_goes_on_where_it_was_killed(on: Cluster, tmp_path: Path) -> None:
    """The program is killed, and then a worker; every picture has one verdict, and none is made twice."""
    model, pictures, out = tmp_path / "carpet.fmr", tmp_path / "in", tmp_path / "out"
    make_inspector().save(model)
    pictures.mkdir()
    for seed in range(MANY):
        Image.fromarray(ground(64, 64, seed=seed)).save(pictures / f"{seed}.png", compress_level=1)
    (pictures / "broken.png").write_bytes(b"no picture")
    record = out / "verdicts.jsonl"

    def start() -> subprocess.Popen[str]:
        return on.run(
            "-m", "fmrnet", "archive", str(model), str(pictures), "--out", str(out), "--level", "patch"
        )

    def lines() -> list[bytes]:
        return record.read_bytes().splitlines()[1:] if record.exists() else []

    first = start()
    until(lambda: len(lines()) > MANY // 4, 180, on.log)
    first.kill()
    first.wait()
    before = lines()
    assert len(before) < MANY  # killed in the middle
    Image.fromarray(ground(64, 64, seed=MANY)).save(
        json.loads(before[0])["picture"]
    )  # another picture by now
    second = start()
    until(lambda: len(lines()) > len(before) + MANY // 8, 180, on.log)
    on.workers("ray::MapWorker")[-1].kill()
    assert second.wait(180) == 2, on.log()  # for the one that is broken
    after = list(map(json.loads, lines()))
    assert sorted(Path(line["picture"]).name for line in after) == sorted(
        path.name for path in pictures.iterdir()
    )
    known = [json.loads(line) for line in before if b'"error"' not in line][1:]
    assert after[: len(known)] == known  # and not done again
    assert f"{len(known)} of {MANY + 1} pictures are done already" in on.log()
    inspector = fmrnet.load(model, "cpu")
    for line in [*after[::100], after[-1]]:
        if "error" in line:
            continue
        expected = inspector.inspect(line["picture"], "patch")
        assert (line["score"], line["defective"]) == (expected.score, expected.defective)
    (broken,) = (line for line in after if "error" in line)
    assert (Path(broken["picture"]).name, broken["fault"]) == ("broken.png", "picture")


def until(holds: Callable[[], object], seconds: float, log: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, log()
        time.sleep(0.2)


def png(seed: int) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(ground(seed=seed)).save(encoded, "PNG")
    return encoded.getvalue()


BEARER = {"Authorization": f"Bearer {TOKEN}"}
INFER = "/v2/models/carpet.pixel/infer"


def test_routes_errors_and_tokens_are_those_of_one_machine(served: Served) -> None:
    client = triton.InferenceServerClient(served.address)
    assert client.is_server_ready()
    assert client.get_model_metadata("carpet.pixel", headers=dict(BEARER))["versions"] == [
        version_of(served.model)
    ]
    picture = triton.InferInput("picture", list(ground().shape), "UINT8").set_data_from_numpy(ground())
    wanted = [triton.InferRequestedOutput(name) for name in ("score", "mask", "anomaly_map")]
    found = client.infer("carpet.pixel", [picture], outputs=wanted, headers=dict(BEARER))
    expected = served.inspector.inspect(ground())
    assert found.as_numpy("score").tolist() == [expected.score]
    np.testing.assert_array_equal(found.as_numpy("mask"), expected.mask)
    np.testing.assert_array_equal(found.as_numpy("anomaly_map"), expected.anomaly_map)
    for path, body, headers, code, said in (
        (INFER, b"{}", {}, 401, "a token is needed"),
        (INFER, b"{}", BEARER, 400, "inputs: Field required"),
        (INFER, bytes(2**20 + 1), BEARER, 413, "expected up to 1048576"),
        ("/v2/models/tile.pixel/infer", b"{}", BEARER, 404, "there is no model 'tile.pixel'"),
        ("/v3", None, BEARER, 404, "GET /v3"),
    ):
        found_code, _, answer = ask(served.address, path, body, headers)
        assert (found_code, said in json.loads(answer)["error"]) == (code, True), answer


class Load:
    """Clients that ask for verdicts at once, each again until it has one."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.verdicts: dict[tuple[int, int], float] = {}
        self.again: Counter[str] = Counter()  # what was said to those that had to ask again
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._client, args=(one,)) for one in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Until every client has all its verdicts."""
        for thread in self._threads:
            thread.join(120)
        assert not self.failures
        assert not any(thread.is_alive() for thread in self._threads), self.served.on.log()

    def _client(self, one: int) -> None:
        asked = self._by_triton() if one % 2 else self._by_uplink()
        try:
            for number in range(PICTURES):
                backoff = Backoff()
                while (score := asked(number % 8, f"{one}-{number}")) is None:
                    backoff.failed()
                    time.sleep(backoff.left())
                self.verdicts[one, number] = score
        except BaseException as error:
            self.failures.append(error)

    def _by_uplink(self) -> Callable[[int, str], float | None]:
        """As a node asks."""
        uplink = Uplink(
            f"http://{self.served.address}", "carpet", version_of(self.served.model), "A", token=TOKEN
        )

        def asked(seed: int, name: str) -> float | None:
            try:
                return uplink.ask(name, png(seed), 0.05).score
            except Unreachable as error:
                self.again[str(error)[:120]] += 1
                return None

        return asked

    def _by_triton(self) -> Callable[[int, str], float | None]:
        client = triton.InferenceServerClient(self.served.address)
        score = [triton.InferRequestedOutput("score")]

        def asked(seed: int, name: str) -> float | None:
            file = triton.InferInput("file", [1], "BYTES")
            file.set_data_from_numpy(np.array([png(seed)], object))
            parameters = {"false_alarms": 0.05}
            try:
                found = client.infer(
                    "carpet.pixel",
                    [file],
                    outputs=score,
                    request_id=name,
                    parameters=parameters,
                    headers=dict(BEARER),  # which the client writes into
                )
            except InferenceServerException as error:
                self.again[f"{error.status()} {error.message()}"[:120]] += 1
                return None
            return float(found.as_numpy("score")[0])

        return asked


def test_a_replica_is_killed_under_load_and_every_request_is_answered(served: Served) -> None:
    """Serve adds a second replica on the other machine; killed, it costs its requests an answer, not a verdict."""
    load = Load(served)
    until(lambda: len(served.on.workers(REPLICA)) == 2, 60, served.on.log)
    until(lambda: len(load.verdicts) > CLIENTS * PICTURES // 4, 60, served.on.log)
    killed = min(served.on.workers(REPLICA), key=lambda one: one.create_time())  # which is busy for sure
    killed.kill()
    load.wait()
    assert any("429" in said for said in load.again), load.again  # one replica was too few for them
    expected = [served.inspector.inspect(ground(seed=seed)).score for seed in range(8)]
    assert load.verdicts == {
        (one, number): expected[number % 8] for one in range(CLIENTS) for number in range(PICTURES)
    }
