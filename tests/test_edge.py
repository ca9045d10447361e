"""The node beside a line: a verdict at once, the rest decided above or here, nothing lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from lines import Cloud, cloud_of, texture, until, write, write_model, written
from PIL import Image

import fmrnet
from fmrnet.deployment.intake import CLIENTS
from fmrnet.deployment.node import EdgeNode
from fmrnet.deployment.store import QUEUE, Store, now
from fmrnet.deployment.verdict import Verdict
from fmrnet.errors import ConfigError


@pytest.fixture(scope="module")
def line_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("line") / "tiny.fmr")


@pytest.fixture(scope="module")
def cloud(line_model: Path) -> Iterator[Cloud]:
    with cloud_of(line_model) as running:
        yield running


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_verdicts_at_once_and_the_rest_from_the_cloud(line_model, cloud, watched, tmp_path):
    inspector = fmrnet.load(line_model, "cpu")
    before = len(cloud.asked)
    with EdgeNode(
        line_model, tmp_path / "out", watch=watched, cloud=cloud.url, line="A", device="cpu"
    ) as node:
        for seed in range(6):
            write(watched / f"{seed}.png", seed)
            until(lambda seed=seed: node.verdict(seed + 1))
        until(lambda: node.state()["totals"]["open"] == 0)
        assert node.troubles() == []
    verdicts = written(tmp_path / "out")
    assert [one["picture"] for one in verdicts] == [f"{seed}.png" for seed in range(6)]
    assert [one["number"] for one in verdicts] == list(range(1, 7))
    assert len(cloud.asked) - before == 3  # only what is not settled goes up
    assert cloud.asked[before:] == [one["request"] for one in verdicts if one["decided_by"] == "cloud"]
    for seed, one in enumerate(verdicts):
        expected = inspector.inspect(texture(seed), "auto")
        assert one["decided_by"] == ("cloud" if seed % 2 else "early exit")
        assert one["final"]
        assert one["level"] == expected.level
        assert (one["defective"], one["p_value"]) == (expected.defective, expected.p_value)
        assert one["score"] == pytest.approx(expected.score, rel=1e-6)


def edge(model: Path, out: Path, **given: object) -> EdgeNode:
    """A node of line A."""
    return EdgeNode(model, out, line="A", device="cpu", **given)


def file_of(seed: int) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(texture(seed)).save(encoded, format="PNG")
    return encoded.getvalue()


def settled(node: EdgeNode) -> bool:
    return node.state()["totals"]["open"] == 0


def test_without_a_cloud_the_node_decides(line_model, tmp_path):
    with edge(line_model, tmp_path / "out", port=0) as node:
        node.take(file_of(1), "1.png")
        until(lambda: settled(node))
    (one,) = written(tmp_path / "out")
    expected = fmrnet.load(line_model, "cpu").inspect(texture(1), "pixel")
    assert (one["decided_by"], one["level"], one["p_value"]) == ("node", "pixel", expected.p_value)


def test_a_name_that_is_no_text_is_a_picture_as_any_other(line_model, watched, tmp_path):
    for _ in range(2):  # after a new start, too, it is the one that was there
        with edge(line_model, tmp_path / "out", watch=watched) as node:
            write(watched / os.fsdecode(b"bad\xff.png"), 0)
            write(watched / "two\nlines.png", 2)
            until(lambda node=node: node.verdict(2) and settled(node))
    assert {one["picture"] for one in written(tmp_path / "out")} == {"bad\\udcff.png", "two\nlines.png"}


def test_two_nodes_of_one_folder_are_each_a_node_of_its_own(line_model, cloud, watched, tmp_path):
    names = ("good or not", "another rate")
    for name in names:
        with (
            pytest.raises(ConfigError, match="another `fmrnet edge`"),
            edge(line_model, tmp_path / name, port=0),
        ):
            edge(line_model, tmp_path / name, watch=watched)
    with (
        edge(line_model, tmp_path / names[0], watch=watched, cloud=cloud.url) as one,
        edge(line_model, tmp_path / names[1], watch=watched, cloud=cloud.url) as other,
    ):
        for seed in range(4):
            write(watched / f"{seed}.png", seed)
        until(lambda: all(settled(node) and node.state()["totals"]["pictures"] == 4 for node in (one, other)))
    for name in names:
        found = {verdict["picture"]: verdict["decided_by"] for verdict in written(tmp_path / name)}
        assert found == {f"{seed}.png": "cloud" if seed % 2 else "early exit" for seed in range(4)}
    assert len(list(watched.iterdir())) == 4


def test_half_written_files_are_waited_for(line_model, watched, tmp_path, monkeypatch):
    monkeypatch.setattr("fmrnet.deployment.watch.PATIENCE", 1.5)
    data = file_of(0)
    with edge(line_model, tmp_path / "out", watch=watched) as node:
        with open(watched / "slow.png", "wb", buffering=0) as file:
            for start in range(0, len(data), len(data) // 3):
                time.sleep(0.7)  # longer than a file must be still to be tried
                file.write(data[start : start + len(data) // 3])
        (watched / "other.png.part").write_bytes(file_of(2))
        (watched / "notes.txt").write_text("no picture")
        (watched / "other.png.part").rename(watched / "other.png")
        (watched / "broken.png").write_bytes(data[: len(data) // 2])
        until(lambda: node.state()["totals"]["pictures"] == 3)
        shutil.copy2(
            watched / "slow.png", watched / "copy.png"
        )  # which sets the time after it has closed the file
        os.utime(watched / "slow.png")
        until(lambda: node.state()["totals"]["pictures"] == 4)
        time.sleep(1.0)
    found = {one["picture"]: one["decided_by"] for one in written(tmp_path / "out")}
    assert found == {
        "slow.png": "early exit",
        "other.png": "early exit",
        "broken.png": "unreadable",
        "copy.png": "early exit",
    }
    (broken,) = (one for one in written(tmp_path / "out") if one["picture"] == "broken.png")
    assert broken["defective"] is None
    assert "cut short" in broken["reasons"][0]
    with edge(line_model, tmp_path / "out", watch=watched) as node:  # nothing of it is new
        time.sleep(1.0)
        assert node.state()["totals"]["pictures"] == 4


def test_outage_deadline_and_return(line_model, tmp_path, monkeypatch):
    monkeypatch.setattr("fmrnet.deployment.uplink.LONGEST", 0.5)
    with cloud_of(line_model) as cloud:
        cloud.status = 503
        with edge(line_model, tmp_path / "out", port=0, cloud=cloud.url, deadline=1.0) as node:
            node.take(file_of(1), "1.png")
            until(lambda: any("503" in text for text in node.troubles()))
            until(lambda: settled(node))
            cloud.status = 200
            node.take(file_of(3), "3.png")
            until(lambda: settled(node))
            assert node.troubles() == []
            cloud.status = 422
            node.take(file_of(5), "5.png")
            until(lambda: settled(node))
        late, answered, refused = written(tmp_path / "out")
        assert (late["decided_by"], late["level"], late["defective"]) == ("deadline", "patch", True)
        assert (answered["decided_by"], answered["level"], answered["defective"]) == ("cloud", "pixel", False)
        assert (refused["decided_by"], refused["level"], refused["defective"]) == ("refused", "patch", True)
        assert "422" in refused["reasons"][-1]
        assert cloud.asked.count(late["request"]) > 1  # the same id each time
        assert cloud.asked.count(refused["request"]) == 1


def test_a_late_answer_changes_nothing(line_model, tmp_path):
    with cloud_of(line_model) as cloud:
        cloud.delay = 1.5
        with edge(line_model, tmp_path / "out", port=0, cloud=cloud.url, deadline=0.3) as node:
            node.take(file_of(1), "1.png")
            until(lambda: len(cloud.asked) == 1)
            time.sleep(0.2)
        (one,) = written(tmp_path / "out")
        assert one["decided_by"] == "deadline"
        totals = Store(tmp_path / "out", "A", limit=10**7, deadline=1).totals()
        assert totals == {"pictures": 1, "open": 0, "deadline": 1, "defective": 1}


class Heard:
    """A listener that does not always listen."""

    name = "heard"

    def __init__(self, node: object = None) -> None:
        self.firsts: list[Verdict] = []
        self.finals: list[Verdict] = []
        self.deaf = False

    def first(self, verdict: Verdict) -> None:
        self.firsts.append(verdict)

    def final(self, verdict: Verdict) -> bool:
        if not self.deaf:
            self.finals.append(verdict)
        return not self.deaf

    def close(self) -> None:
        pass


def test_final_verdicts_are_told_in_order_once_each(line_model, tmp_path):
    heard = Heard()
    with cloud_of(line_model) as cloud:
        cloud.status = 503
        with edge(
            line_model, tmp_path / "out", port=0, cloud=cloud.url, listeners=[lambda node: heard]
        ) as node:
            for seed in (0, 1, 2, 3, 4):
                node.take(file_of(seed), f"{seed}.png")
            until(lambda: heard.finals)
            time.sleep(0.3)
            assert [one.number for one in heard.firsts] == [1, 2, 3, 4, 5]
            assert [one.number for one in heard.finals] == [1]  # 2 is open, and 3 waits for it
            heard.deaf, cloud.status = True, 200
            until(lambda: settled(node))
        heard.deaf = False
        again = edge(line_model, tmp_path / "out", port=0, cloud=cloud.url, listeners=[lambda node: heard])
        with again as node:
            until(lambda: len(heard.finals) == 5)
            assert [one.number for one in node.finals(2)] == [3, 4, 5]
    assert [one.number for one in heard.finals] == [1, 2, 3, 4, 5]
    assert [str(one.decided_by) for one in heard.finals] == ["early exit", "cloud"] * 2 + ["early exit"]


def test_pictures_by_http(line_model, tmp_path):
    def ask(path: str, data: bytes | None = None, **headers: str) -> tuple[int, dict]:
        url = f"http://127.0.0.1:{node.port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    with edge(line_model, tmp_path / "out", port=0) as node:
        key = {"Idempotency-Key": "shot 1"}
        status, first = ask("/pictures?name=a.png", file_of(0), **key)
        assert (status, first["number"], first["picture"], first["final"]) == (200, 1, "a.png", True)
        assert ask("/pictures?name=a.png", file_of(0), **key) == (200, first)
        assert ask("/pictures", file_of(0))[1]["number"] == 2
        assert ask("/pictures", b"no picture")[1]["decided_by"] == "unreadable"
        assert ask("/verdicts/1") == (200, first)
        assert [one["number"] for one in ask("/verdicts?after=1")[1]["verdicts"]] == [2, 3]
        assert ask("/")[1]["totals"]["pictures"] == 3
        assert ask("/verdicts/4")[0] == ask("/verdicts/x")[0] == ask("/else", b"x")[0] == 404
        assert ask("/pictures", b"x" * 10, Origin="http://page.example")[0] == 403
        with socket.create_connection(("127.0.0.1", node.port)) as huge:
            huge.sendall(b"POST /pictures HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
            assert huge.recv(100).split()[1] == b"413"
        with socket.create_connection(("127.0.0.1", node.port), timeout=30) as huge:
            huge.sendall(f"POST /pictures HTTP/1.1\r\nContent-Length: {2**28 + 1}\r\n\r\n".encode())
            time.sleep(0.05)
            huge.sendall(
                bytes(2**24)
            )  # more than the system's buffers hold: it is read, and so is the answer
            assert huge.recv(100).split()[1] == b"413"
        with ExitStack() as kept:  # by clients that do not close, and are more than are served at a time
            for _ in range(CLIENTS + 1):
                client = kept.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=2))
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert client.recv(100).split()[1] == b"200"


def test_a_disk_that_others_fill_costs_no_verdict_that_somebody_is_still_to_hear(tmp_path, monkeypatch):
    verdict = Verdict(
        "A", 0, "1.png", "", "2026-01-01T00:00:00+00:00", True, 2.0, 0.01, "patch", "early exit", "m 1"
    )
    store = Store(tmp_path, "A", limit=10**7, deadline=5.0)
    store.listeners = {"quick", "slow"}
    for _ in range(3):
        store.add(verdict, b"picture")
    store.tell("quick", 3)
    store.tell("slow", 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=0))
    monkeypatch.setattr("fmrnet.deployment.store.SPARE", 0)
    assert not store._has_room(store.used())
    assert [one.number for one in store.finals(0)] == [2, 3]
    store.tell("slow", 3)
    assert not store._has_room(store.used())
    assert store.finals(0) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    store.add(verdict, b"picture")
    store.limit = store.used() + 1
    assert not store._has_room(store.limit)
    store._has_room(4096)  # of its own limit: the line goes on, whoever listens
    assert store.finals(0) == []
    store.close()


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "http"])
def test_what_a_node_remembers_is_bounded(folder, line_model, tmp_path, monkeypatch):
    """Sources of pictures that have gone: the last ones stay, so that none gets two verdicts, and no more."""
    monkeypatch.setattr("fmrnet.deployment.store.KEPT", 8)
    monkeypatch.setattr("fmrnet.deployment.node.FORGET", 4)
    watched, batch, rounds = tmp_path / "in", 12, 3
    watched.mkdir()
    with edge(line_model, tmp_path / "out", **({"watch": watched} if folder else {"port": 0})) as node:

        def remembered() -> int:
            with closing(sqlite3.connect(tmp_path / "out" / QUEUE)) as queue:
                return queue.execute("SELECT count(*) FROM seen").fetchone()[0]

        for number in range(rounds):
            names = [f"{number}-{one}.png" for one in range(batch)]
            for name in names:
                if folder:
                    write(watched / name, 0)
                else:
                    node.take(file_of(0), name, f"/{name}")
            until(lambda number=number: node.state()["totals"]["pictures"] == (number + 1) * batch)
            until(lambda: remembered() <= 8 + batch)
            assert remembered() >= 8
            for name in names if folder else ():
                (watched / name).unlink()
            time.sleep(0.5 * folder)  # the folder is empty, and when it is looked at again has other pictures
        assert node.take(file_of(0), "again", f"/{names[-1]}").number == rounds * batch + folder


def test_deadlines_hold_whatever_the_clock_on_the_wall_says(tmp_path, monkeypatch):
    verdict = Verdict("A", 0, "1.png", "", "2026-01-01T00:00:00+00:00", True, 2.0, 0.01, "patch", None, "m 1")
    store = Store(tmp_path, "A", limit=10**7, deadline=5.0)
    store.add(verdict, b"picture")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert store.overdue() == []
    start = now()
    monkeypatch.setattr("fmrnet.deployment.store.now", lambda: start + 6)
    assert store.overdue() == [1]
    store.close()
    store = Store(tmp_path, "A", limit=10**7, deadline=5.0)  # started anew in the same boot: time has gone on
    assert store.overdue() == [1]
    store.close()
    monkeypatch.setattr("fmrnet.deployment.store._boot", lambda: "the machine has been started again")
    monkeypatch.setattr("fmrnet.deployment.store.now", lambda: 3.0)
    store = Store(tmp_path, "A", limit=10**7, deadline=5.0)
    assert store.overdue() == []
    monkeypatch.setattr("fmrnet.deployment.store.now", lambda: 8.0)
    assert store.overdue() == [1]
    store.close()


def test_what_does_not_go_is_said(line_model, tmp_path):
    for given, said in [
        ({}, "nothing to inspect"),
        ({"port": 0, "cloud": "cloud:8000"}, "expected a URL"),
        ({"watch": tmp_path / "none"}, "there is no such folder"),
        ({"port": 0, "deadline": 0}, "--deadline"),
        ({"port": 0, "disk": 0}, "--disk"),
    ]:
        with pytest.raises(ConfigError, match=said):
            edge(line_model, tmp_path / "out", **given)
    with edge(line_model, tmp_path / "out", port=0) as node:
        with pytest.raises(ConfigError, match="another `fmrnet edge`"):
            edge(line_model, tmp_path / "out", port=0)
        with pytest.raises(ConfigError, match="cannot be listened on"):
            edge(line_model, tmp_path / "more", port=node.port)
    with pytest.raises(ConfigError, match="is of line A: expected B"):
        EdgeNode(line_model, tmp_path / "out", line="B", port=0, device="cpu")
