"""Pictures as they come: folders in folders, patterns, lists, standard input, a real server; and what comes out."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import errors_of, only_error, run
from hypothesis import given
from hypothesis import strategies as st
from tiny import ground, make_sensitive_inspector
from typer.main import get_command
from typer.testing import CliRunner

from fmrnet.cli import app
from fmrnet.errors import ConfigError
from fmrnet.inspection import received
from fmrnet.inspection.gathering import gather, read_list
from fmrnet.pictures import read_picture, write_picture


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "7.png"
    write_picture(path, ground(seed=7))
    return path


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory) -> Path:
    """A model that finds defects in every picture."""
    path = tmp_path_factory.mktemp("models") / "sensitive.fmr"
    make_sensitive_inspector().save(path)
    return path


@pytest.fixture(scope="module")
def server(picture):
    """A real server on this machine: its address."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = picture.read_bytes()
            if self.path == "/missing.png":
                self.send_error(404)
            elif self.path in ("/file.png", "/ftp.png", "/moved.png"):
                self.send_response(302)
                target = {
                    "/file.png": picture.as_uri(),
                    "/ftp.png": "ftp://localhost/a.png",
                    "/moved.png": "/7.png",
                }
                self.send_header("Location", target[self.path])
                self.end_headers()
            elif self.path == "/slow.png":
                self.send_response(200)
                self.end_headers()
                try:
                    for byte in data:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                except OSError:  # the reader has had enough
                    return
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data) + (self.path == "/torn.png")))
                self.end_headers()
                self.wfile.write(b"" if self.path == "/empty.png" else data)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


# lists

names = st.text("ab .\u00e9\udc80\u2028", min_size=1)


@given(st.lists(names.filter(str.strip)), st.sampled_from([b"\n", b"\r\n", b"\0"]))
def test_a_list_names_its_paths(paths, separator):
    content = b"".join(os.fsencode(path) + separator for path in paths)
    assert read_list(content) == paths


# URLs


def test_a_url_is_fetched_once_and_kept_under_its_content(server, picture, tmp_path):
    out = tmp_path / "out"
    found = gather(
        [f"{server}/a%20b.png?size=1", f"{server}/moved.png", picture], out, out / "received", allow_urls=True
    )
    assert not found.unusable
    assert found.paths[2] == picture
    assert list(found.sources.values()) == [f"{server}/a%20b.png?size=1", f"{server}/moved.png"]
    for path in found.paths[:2]:
        assert path.parent == out / "received"
        assert path.read_bytes() == picture.read_bytes()
    before = [path.stat().st_mtime_ns for path in found.paths]
    again = gather(
        [f"{server}/a%20b.png?size=1", f"{server}/moved.png", picture], out, out / "received", allow_urls=True
    )
    assert again.paths == found.paths
    assert [path.stat().st_mtime_ns for path in again.paths] == before


def test_what_a_server_may_not_do(server, picture, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="is a URL; give --allow-urls"):
        gather([f"{server}/7.png"], tmp_path, tmp_path)
    closed = "http://127.0.0.1:9/a.png"
    monkeypatch.setattr(received, "LONGEST", 0.3)
    told = gather(
        [closed, *(f"{server}/{n}.png" for n in ("missing", "file", "ftp", "slow", "torn", "empty"))],
        tmp_path,
        tmp_path,
        allow_urls=True,
    )
    assert told.paths == []
    for name, reason in {
        "a": "cannot be fetched: .*refused",
        "missing": "the server says 404",
        "file": "cannot be fetched",
        "ftp": "unknown url type: ftp",
        "slow": "takes more than 0 s",
        "torn": "broke off after",
        "empty": "broke off|is empty",
    }.items():
        (line,) = (str(why) for given, why in told.unusable.items() if given.endswith(f"/{name}.png"))
        assert re.search(reason, line), line
    monkeypatch.setattr(received, "MOST_BYTES", 1000)
    (why,) = gather([f"{server}/7.png"], tmp_path, tmp_path, allow_urls=True).unusable.values()
    assert "holds more than 0.00 GB" in str(why)


# standard input


def test_standard_input_holds_a_picture_or_nothing(picture, tmp_path):
    given = gather(["-"], tmp_path, tmp_path, standard_input=io.BytesIO(picture.read_bytes()))
    assert given.sources == {given.paths[0]: "-"}
    assert (read_picture(given.paths[0]) == read_picture(picture)).all()
    (why,) = gather(["-"], tmp_path, tmp_path, standard_input=io.BytesIO()).unusable.values()
    assert str(why) == "standard input is empty (0 bytes); expected a picture"


def test_a_results_folder_is_not_inspected(tmp_path, model):
    """Neither that of this run nor that of another one, wherever it lies."""
    for name in ("0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_picture(tmp_path / name, ground())
    for out in ("a/report", "other", "a/report"):
        seen = run("inspect", model, tmp_path, "-r", "--out", tmp_path / out, "--level", "patch")
        assert seen.exit_code == 0, seen.output
        pictures = json.loads((tmp_path / out / "report.json").read_text())["pictures"]
        assert [line["picture"] for line in pictures] == [str(tmp_path / n) for n in ("0.png", "a/1.png")]


# the command


def program(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "fmrnet", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=False)


@pytest.mark.slow
def test_a_picture_on_standard_input_is_a_json_line_and_nothing_else(sensitive, picture, tmp_path):
    """In a process of its own, with real pipes."""
    ended = program(
        *(
            "inspect",
            sensitive,
            "-",
            "--out",
            tmp_path / "out",
            "--json",
            "--fail-on-defect",
            "--level",
            "patch",
        ),
        given=picture.read_bytes(),
    )
    assert ended.returncode == 1, ended.stderr
    (text,) = ended.stdout.splitlines()
    line = json.loads(text)
    assert (line["source"], line["defective"], line["width"]) == ("-", True, 112)
    assert Path(line["picture"]).read_bytes() == picture.read_bytes()


def json_lines(seen):
    return [json.loads(line) for line in seen.stdout.splitlines()]


def test_without_a_folder_verdicts_are_told_and_nothing_stays(sensitive, folder, tmp_path, monkeypatch):
    """With the figures of a report; what comes as bytes is called as it was given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    (folder / "3.png").write_bytes(b"none")
    before = set(tmp_path.rglob("*"))
    seen = run("inspect", sensitive, folder, "--json", "--fail-on-defect")
    assert seen.exit_code == 2
    assert "3 defective, 0 good, 1 unreadable, 0 failed" in seen.stderr
    one = (folder / "0.png").read_bytes()
    for data, code in ((one, 1), (b"none", 2)):
        piped = CliRunner().invoke(
            app, ["inspect", str(sensitive), "-", "--json", "--quiet", "--fail-on-defect"], input=data
        )
        assert piped.exit_code == code, piped.output
        (line,) = json_lines(piped)
        assert line["picture"] == "-"
        assert line.get("error", "").startswith("- is no picture" if code == 2 else "")
    assert set(tmp_path.rglob("*")) == before
    for option in (("--resume",), ("--format", "coco"), ("--report", "single")):
        assert "needs a folder for it; name one with --out" in only_error(
            run("inspect", sensitive, folder, *option)
        )
    run("inspect", sensitive, folder, "--out", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "report.json").read_text())["pictures"]
    for mine, theirs in zip(json_lines(seen), written, strict=False):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0, "files": {}}
    assert run("inspect", sensitive, folder / "0.png").stdout.startswith("DEFECTIVE ")


def test_a_picture_of_the_wrong_size_is_called_so(model, folder, tmp_path):
    """It can be read, after all. It is smaller than a patch, than the region, or not of the mask's size."""
    write_picture(folder / "1.png", ground(40, 200))
    write_picture(folder / "2.png", ground(150, 200))
    (folder / "3.png").write_bytes(b"none")
    write_picture(tmp_path / "mask.png", ground(150, 200) | 255)
    for roi, wrong in ((None, 1), ("0,0,150,120", 2), (tmp_path / "mask.png", 2)):
        region = () if roi is None else ("--roi", roi)
        seen = run("inspect", model, folder, "--out", tmp_path / "out", "--level", "patch", *region)
        assert seen.exit_code == 2
        assert f"1 unreadable, {wrong} of the wrong size, 0 failed" in seen.stdout
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert (report["summary"]["unreadable"], report["summary"]["wrong_size"]) == (1, wrong)
        assert sorted(error["fault"] for error in report["errors"]) == ["picture", *["size"] * wrong]


def test_a_folder_without_pictures_is_no_unreadable_picture_and_replaces_no_report(model, folder, tmp_path):
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "inner").symlink_to(folder)
    out = tmp_path / "out"
    seen = run("inspect", model, folder, tmp_path / "outer", "--out", out, "--level", "patch")
    assert seen.exit_code == 2
    assert "outer holds no pictures" in seen.stderr
    assert "it has the folders inner" in seen.stderr
    assert "0 unreadable, 0 failed, 1 given without pictures" in seen.stdout
    report = json.loads((out / "report.json").read_text())
    assert [error["fault"] for error in report["errors"]] == ["given"]
    for missed in (tmp_path / "outer", tmp_path / "*.tif"):
        seen = run("inspect", model, missed, "--out", out, "--level", "patch")
        assert seen.exit_code == 2
        assert missed.name in only_error(seen)
        assert json.loads((out / "report.json").read_text()) == report


def test_exit_codes_of_good_defective_unreadable_and_failed(model, sensitive, folder, tmp_path, monkeypatch):
    def ended(which, *more):
        seen = run("inspect", which, folder, "--out", tmp_path / "out", "--level", "patch", "--json", *more)
        return seen.exit_code, seen

    assert ended(sensitive)[0] == 0
    assert ended(sensitive, "--fail-on-defect")[0] == 1
    code, seen = ended(model, "--fail-on-defect", "--false-alarms", 1e-6)
    assert (code, [line["defective"] for line in json_lines(seen)]) == (0, [False] * 3)
    (folder / "3.png").write_bytes(b"none")
    code, seen = ended(sensitive, "--fail-on-defect")
    assert code == 2
    assert [line["picture"][-5:] for line in json_lines(seen)] == ["0.png", "1.png", "2.png", "3.png"]
    assert "error" in json_lines(seen)[3]
    monkeypatch.setattr("fmrnet.inspection.batch.read_picture", lambda path, bits: 1 / 0)
    assert ended(sensitive, "--fail-on-defect")[0] == 3


def test_quiet_says_what_is_wrong_alone(model, folder, tmp_path):
    (folder / "1.png").write_bytes(b"none")
    seen = run("inspect", model, folder, "--out", tmp_path / "out", "--level", "patch", "--quiet")
    assert seen.exit_code == 2
    assert seen.stdout == ""
    assert seen.stderr.splitlines() == errors_of(seen)
    assert len(errors_of(seen)) == 1


def test_several_jobs_give_the_lines_of_one_in_their_order(sensitive, tmp_path, monkeypatch):
    """Though some pictures take longer than those after them, and some cannot be read."""
    (tmp_path / "in").mkdir()
    for n in range(5):
        write_picture(tmp_path / "in" / f"{n}.png", ground(96 + 64 * (n % 3 == 0), 112, seed=n))
    (tmp_path / "in" / "2.png").write_bytes(b"none")

    def lines(jobs, level):
        out = tmp_path / f"out{jobs}{level}"
        seen = run(
            "inspect", sensitive, tmp_path / "in", "--out", out, "--json", "--jobs", jobs, "--level", level
        )
        assert seen.exit_code == 2, seen.output
        assert json_lines(seen) == [
            json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()[1:]
        ]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in json_lines(seen)]

    assert lines(3, "pixel") == lines(1, "pixel")


def test_paths_from_a_list_and_from_standard_input(model, folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder}/2.png\n\n{folder}/[01].png\n")
    options = ("--out", str(tmp_path / "out"), "--json", "--level", "patch")
    seen = run("inspect", model, "--from-list", listed, *options)
    assert [Path(line["picture"]).name for line in json_lines(seen)] == ["2.png", "0.png", "1.png"]
    seen = CliRunner().invoke(
        app, ["inspect", str(model), "--from-list", "-", *options], input=f"{folder}/1.png\n"
    )
    assert [Path(line["picture"]).name for line in json_lines(seen)] == ["1.png"]
    assert "give - once" in only_error(run("inspect", model, "-", "--from-list", "-", *options))
    assert "no pictures: give files" in only_error(run("inspect", model, *options))
    seen = run("inspect", model, folder / "*.tif", folder / "0.png", *options)
    assert seen.exit_code == 2
    assert ["error" in line for line in json_lines(seen)] == [True, False]
    missing = only_error(run("inspect", model, "--from-list", tmp_path / "none.txt", *options))
    assert "none.txt" in missing


def test_the_page_names_options_that_exist():
    page = (Path(__file__).parents[1] / "docs" / "inspect.md").read_text()
    commands = get_command(app).commands.values()
    known = {name for command in commands for one in command.params for name in one.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - known == {"--output"}  # of LabelMe
