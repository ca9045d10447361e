"""A batch from the outside: what it never touches, what no picture can end, and what a stop leaves."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import errors_of, only_error, run
from tiny import ground

import fmrnet
from fmrnet.inspection.folder import claimed, is_ours
from fmrnet.inspection.names import PAGE, PAGE_FILES
from fmrnet.inspection.record import Record, path_of
from fmrnet.pictures import read_picture, write_map, write_picture

KINDS = ("map.tiff", "mask.png", "overlay.png")


@pytest.fixture
def inspected(monkeypatch):
    """The pictures that the network really looks at, by the seed of their ground."""
    seen, inspect = [], fmrnet.Inspector.inspect

    def watched(self, picture, level):
        found = [n for n in range(9) if np.array_equal(np.round(picture * 255), ground(seed=n))]
        seen.extend(found)
        return inspect(self, picture, level)

    monkeypatch.setattr(fmrnet.Inspector, "inspect", watched)
    return seen


def report_of(out):
    return json.loads((out / "report.json").read_text())


def record_of(out):
    head, *lines = (out / "report.jsonl").read_text().splitlines()
    return json.loads(head), [json.loads(line) for line in lines]


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# what it never touches


def test_nothing_is_written_among_the_pictures(model, tmp_path, monkeypatch):
    """The pictures' folders and those around them, by whatever way they are named."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/00.png", "a/00.mask.png", "b/03.png"):
        Path(name).parent.mkdir(exist_ok=True)
        write_picture(name, ground())
    Path("link").symlink_to("a")
    Path("res").mkdir()
    Path("res/a").symlink_to(tmp_path / "a")
    before = content_of(tmp_path)
    for given, out, named in [
        (["a", "b"], ".", "a/00.mask.overlay.png would lie among the pictures of a"),
        (["a", "b"], "b", "--out b is b, a folder to inspect"),
        (["a"], "link/../a", "--out link/../a is a, a folder to inspect"),
        (["link"], tmp_path / "a", f"--out {tmp_path}/a is link, a folder to inspect"),
        (["a/00.png"], "a", "a/00.overlay.png would lie among the pictures of a"),
        (["a/00.png", "b/03.png"], ".", "a/00.overlay.png would lie among the pictures of a"),
        (["b/03.png", "a/00.png"], ".", "b/03.overlay.png would lie among the pictures of b"),
        (["a/00.png", "b/03.png"], "res", "res/a/00.overlay.png would lie among the pictures of a"),
    ]:
        line = only_error(run("inspect", model, *given, "--out", out))
        assert line.startswith(f"fmrnet: {named}")
        assert "name another" in line
    after = content_of(tmp_path)
    assert {path: data for path, data in after.items() if path.name != ".fmrnet.lock"} == before


def test_results_may_lie_in_a_folder_within_that_of_the_pictures(model, folder, monkeypatch):
    """Where they are not inspected themselves."""
    monkeypatch.chdir(folder)
    for _ in range(2):
        seen = run("inspect", model, ".", "--out", "new/report")
        assert seen.exit_code == 0, seen.output
        report = report_of(folder / "new/report")
        assert [entry["picture"] for entry in report["pictures"]] == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png", "new"]


def test_a_file_of_somebody_else_is_never_replaced(model, folder, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.mkdir()
    out.mkdir()
    write_picture(mine / "of_ours.png", ground())
    (mine / "theirs.png").write_bytes((folder / "0.png").read_bytes().replace(b"fmrnet", b"camera"))
    places = [out / name for name in (*(f"1.{kind}" for kind in KINDS), "report.json", "report.jsonl", PAGE)]
    for place in places:
        for put in (
            lambda place: place.write_text("mine"),
            lambda place: place.write_bytes((mine / "theirs.png").read_bytes()),
            lambda place: place.write_text('{"pictures": []}'),
            lambda place: place.symlink_to(mine / "of_ours.png"),
            lambda place: place.symlink_to("nowhere"),
            lambda place: place.mkdir(),
            os.mkfifo,
        ):
            put(place)
            before = content_of(mine)
            line = only_error(run("inspect", model, folder, "--out", out))
            assert (
                line
                == f"fmrnet: {place} was not written by fmrnet, and is not replaced; name another folder as --out"
            )
            assert content_of(mine) == before
            assert sorted(path.name for path in out.iterdir()) == sorted([".fmrnet.lock", place.name])
            place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


def test_a_new_run_replaces_the_earlier_one_and_nothing_else(model, folder, tmp_path):
    out = tmp_path / "out"
    assert run("inspect", model, folder, "--out", out).exit_code == 0
    (out / "notes.txt").write_text("mine")
    (folder / "2.png").unlink()
    (out / "0.mask.png").write_bytes(b"drawn anew")
    assert "0.mask.png was not written by fmrnet" in only_error(run("inspect", model, folder, "--out", out))
    assert len(report_of(out)["pictures"]) == 3
    (out / "0.mask.png").unlink()
    seen = run("inspect", model, folder, "--out", out)
    assert seen.exit_code == 0, seen.output
    assert f"replacing the report of 3 pictures in {out}" in seen.stderr
    kept = [f"{n}.{kind}" for n in (0, 1) for kind in KINDS]
    assert sorted(path.name for path in out.iterdir()) == [
        *(".fmrnet.lock", *kept, "notes.txt", PAGE, "report.json", "report.jsonl", PAGE_FILES)
    ]
    assert {path.name[0] for path in (out / PAGE_FILES).iterdir()} == {"0", "1"}


def test_a_large_map_is_known_as_ours(tmp_path):
    """In a TIFF of many strips their places come before what says who wrote it."""
    write_map(tmp_path / "large.tiff", np.zeros((4000, 4096), np.float32))
    assert is_ours(tmp_path / "large.tiff")


# what no picture can end

FAILURES = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("an operator failed\n\x1b[2J" + "x" * 10_000),
    RecursionError("too deep"),
    OSError(36, "File name too long", "1.overlay.png"),
    KeyError("a fault of ours"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_no_picture_ends_a_batch(model, folder, tmp_path, monkeypatch, failure):
    inspect = fmrnet.Inspector.inspect

    def fails(self, picture, level):
        if np.array_equal(np.round(picture * 255), ground(seed=1)):
            raise failure
        return inspect(self, picture, level)

    monkeypatch.setattr(fmrnet.Inspector, "inspect", fails)
    seen = run("inspect", model, folder, "--out", tmp_path / "out")
    line = only_error(seen, code=3)
    assert str(folder / "1.png") in line
    assert len(line) < 1100
    assert "\x1b" not in seen.output
    report = report_of(tmp_path / "out")
    assert [entry["picture"] for entry in report["pictures"]] == [
        str(folder / "0.png"),
        str(folder / "2.png"),
    ]
    (error,) = report["errors"]
    assert (error["picture"], error["fault"]) == (str(folder / "1.png"), "machine")
    assert ("traceback" in error) == isinstance(failure, (KeyError, RecursionError)) or "operator" in line
    assert report["summary"]["failed"] == 1
    assert "1 failed" in seen.stdout
    names = [f"{n}.{kind}" for n in (0, 2) for kind in KINDS]
    assert sorted(path.name for path in (tmp_path / "out").glob("?.*")) == names


def test_names_that_are_long_or_in_the_way(model, tmp_path):
    names = ["a.png", "a.mask.png/b.png", "report.json/c.png", "x" * 235 + ".png", "x" * 234 + "y.png"]
    for seed, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / "in" / name, ground(seed=seed))
    given = [tmp_path / "in" / name for name in names]
    seen = run("inspect", model, *given, tmp_path / ("z" * 300), "--out", tmp_path / "out")
    assert "File name too long" in only_error(seen)
    entries = report_of(tmp_path / "out")["pictures"]
    assert [entry["picture"] for entry in entries] == [str(path) for path in given]
    files = [tmp_path / "out" / name for entry in entries for name in entry["files"].values()]
    assert len(set(files)) == len(files) >= 5 * len(KINDS)
    assert all(path.is_file() for path in files)


def test_what_looks_like_a_picture_and_is_none_is_named(model, folder, tmp_path):
    (folder / "01.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    for suffix in ("psd", "heic", "dng"):
        (folder / f"a.{suffix}").write_bytes(bytes(999))
    seen = run("inspect", model, folder, "--out", tmp_path / "out")
    assert seen.exit_code == 2
    odd = ["01.png", "a.dng", "a.heic", "a.psd", "loop.png", "pipe.png"]
    assert [error["picture"] for error in report_of(tmp_path / "out")["errors"]] == [
        str(folder / n) for n in odd
    ]
    assert len(errors_of(seen)) == 6
    assert "3 good, 6 unreadable" in seen.stdout


def test_why_a_picture_is_defective_as_a_whole_is_told(model, tmp_path):
    write_picture(tmp_path / "flat.png", np.full((96, 112), 250, np.uint8))
    seen = run("inspect", model, tmp_path / "flat.png", "--out", tmp_path / "out")
    (entry,) = report_of(tmp_path / "out")["pictures"]
    assert entry["defective"]
    assert entry["reasons"]
    assert all(reason in seen.stdout for reason in entry["reasons"])


def test_one_file_given_twice_is_inspected_once(model, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    seen = run("inspect", model, "0.png", folder / "0.png", folder, "--out", tmp_path / "out")
    assert seen.exit_code == 0, seen.output
    entries = report_of(tmp_path / "out")["pictures"]
    assert [entry["picture"] for entry in entries] == ["0.png", *(str(folder / f"{n}.png") for n in (1, 2))]


# going on


def test_resume_leaves_out_what_is_done_and_unchanged(model, folder, tmp_path, inspected):
    out = ("--out", tmp_path / "out", "--resume")
    seen = run("inspect", model, folder, *out)
    assert seen.exit_code == 0, seen.output
    assert "nothing to go on from" in seen.stderr
    assert inspected == [0, 1, 2]
    before = content_of(tmp_path / "out")
    write_picture(folder / "3.png", ground(seed=3))
    write_picture(folder / "1.png", ground(seed=4))
    (tmp_path / "out" / "2.map.tiff").unlink()
    seen = run("inspect", model, folder, *out)
    assert seen.exit_code == 0, seen.output
    assert "1 of 4 pictures are in the report already" in seen.stderr
    assert inspected == [0, 1, 2, 4, 2, 3]
    after = content_of(tmp_path / "out")
    for kind in KINDS:
        assert after[tmp_path / "out" / f"0.{kind}"] == before[tmp_path / "out" / f"0.{kind}"]
    pictures = report_of(tmp_path / "out")["pictures"]
    assert sorted(entry["picture"] for entry in pictures) == [str(folder / f"{n}.png") for n in range(4)]
    assert pictures == record_of(tmp_path / "out")[1]
    (tmp_path / "more").mkdir()
    write_picture(tmp_path / "more" / "0.png", ground(seed=5))
    seen = run("inspect", model, tmp_path / "more", *out)
    assert seen.exit_code == 0, seen.output
    assert "0 of 1 pictures are in the report already" in seen.stderr, "and what is in it stays"
    entries = report_of(tmp_path / "out")["pictures"]
    assert len(entries) == 5
    assert entries[-1]["files"]["mask"] == "0~2.mask.png"


def test_resume_tries_again_what_failed(model, folder, tmp_path):
    (folder / "1.png").write_bytes(b"")
    assert run("inspect", model, folder, "--out", tmp_path / "out").exit_code == 2
    write_picture(folder / "1.png", ground(seed=1))
    assert run("inspect", model, folder, "--out", tmp_path / "out", "--resume").exit_code == 0
    assert report_of(tmp_path / "out")["summary"]["good"] == 3


def test_resume_takes_no_report_of_another_kind(model, folder, tmp_path):
    out = tmp_path / "out"
    assert run("inspect", model, folder, "--out", out, "--level", "patch").exit_code == 0
    before = content_of(out)
    assert "holds a report of another level; leave out --resume" in only_error(
        run("inspect", model, folder, "--out", out, "--resume")
    )
    again = ("inspect", model, folder, "--out", out, "--level", "patch", "--resume")
    assert "holds a report of another number of bits; leave out --resume" in only_error(
        run(*again, "--bits", "12")
    )
    assert run("calibrate", model, folder, "--out", tmp_path / "b.fmr", "--k", "4").exit_code == 0
    again = ("inspect", tmp_path / "b.fmr", folder, "--out", out, "--level", "patch", "--resume")
    assert "holds a report of another model; leave out --resume" in only_error(run(*again))
    assert content_of(out) == before
    head, lines = record_of(out)
    (out / "report.jsonl").write_text(
        "\n".join([json.dumps(head), json.dumps({"picture": "a", "files": {}}), ""])
    )
    assert "report.jsonl is damaged; remove it" in only_error(run("inspect", model, folder, "--out", out))
    lines[0]["files"]["overlay"] = "../in/0.png"
    (out / "report.jsonl").write_text("\n".join([json.dumps(head), json.dumps(lines[0]), ""]))
    assert "report.jsonl is damaged; remove it" in only_error(run("inspect", model, folder, "--out", out))
    assert len(list(folder.iterdir())) == 3


def test_a_folder_belongs_to_one_run_at_a_time(model, folder, tmp_path):
    with claimed(tmp_path / "out"):
        line = only_error(run("inspect", model, folder, "--out", tmp_path / "out"))
    assert line.startswith(f"fmrnet: another `fmrnet inspect` is writing to {tmp_path / 'out'}; wait")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".fmrnet.lock"]
    assert run("inspect", model, folder, "--out", tmp_path / "out").exit_code == 0


# stopped, for real


@contextlib.contextmanager
def started(*arguments, **options):
    """The program at work, as a process."""
    process = subprocess.Popen([sys.executable, "-m", "fmrnet", *map(str, arguments)], text=True, **options)
    with process:  # which closes its pipes
        try:
            yield process
        finally:
            process.kill()


def wait_for(out, folder, count):
    """Until so many pictures of a folder are in the record."""
    until = time.monotonic() + 200
    while (out / "report.jsonl").read_bytes().count(json.dumps(f"{folder}/")[1:-1].encode()) < count:
        assert time.monotonic() < until, "nothing was inspected"
        time.sleep(0.01)


@pytest.fixture
def many(tmp_path):
    """Enough pictures to stop among them."""
    (tmp_path / "many").mkdir()
    for index in range(40):
        write_picture(tmp_path / "many" / f"{index:02}.png", ground(200, 200, seed=index))
    return tmp_path / "many"


@pytest.mark.slow
def test_killed_it_leaves_whole_lines_and_goes_on(model, many, folder, tmp_path):
    out = tmp_path / "out"
    assert run("inspect", model, folder, "--out", out).exit_code == 0
    with started("inspect", model, many, "--out", out, stdout=subprocess.DEVNULL) as process:
        wait_for(out, many, 2)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (out / "report.json").exists()
    _, lines = record_of(out)
    assert 2 <= len(lines) < 40
    assert [line["picture"] for line in lines] == [str(many / f"{n:02}.png") for n in range(len(lines))]
    for line in lines:
        for name in line["files"].values():
            read_picture(out / name) if name.endswith(".png") else None
    assert not (out / "2.overlay.png").exists()
    with started("inspect", model, many, "--out", out, "--resume", stdout=subprocess.DEVNULL) as process:
        wait_for(out, many, len(lines) + 2)  # the last may not be on the disk yet
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 143
    report = report_of(out)
    done = len(report["pictures"])
    assert done > len(lines)
    assert report["summary"]["not_reached"] == 40 - done
    assert report["pictures"][: len(lines)] == lines
    seen = run("inspect", model, many, "--out", out, "--resume")
    assert seen.exit_code == 0, seen.output
    assert f"{done} of 40 pictures are in the report already" in seen.stderr
    assert len(seen.stdout.splitlines()) == 40 - done + 1
    assert run("inspect", model, many, "--out", tmp_path / "at_once").exit_code == 0
    scores = [
        [entry["score"] for entry in report_of(place)["pictures"]] for place in (out, tmp_path / "at_once")
    ]
    assert scores[0] == scores[1]
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "at_once").iterdir()}


def test_a_reader_who_stops_reading_is_no_error(model, folder, tmp_path):
    """`fmrnet inspect ... | head -1`, with names that would forge lines or hold no text."""
    (folder / "a\nDEFECTIVE \x1b[2Jb.png").write_bytes((folder / "0.png").read_bytes())
    odd = os.fsencode(folder) + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write((folder / "0.png").read_bytes())
    command = ("inspect", model, folder, "--out", tmp_path / "out")
    with started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(300) == 0, errors
    assert "0.png" in first
    assert "Error" not in errors
    pictures = report_of(tmp_path / "out")["pictures"]
    assert len(pictures) == 5
    assert odd in [os.fsencode(path_of(line)) for line in pictures]
    seen = run(*command)
    lines = seen.stdout.splitlines()
    assert len(lines) == 6
    assert not [line for line in lines[:-1] if line.startswith("DEFECTIVE ")]
    assert r"a\nDEFECTIVE \x1b[2Jb.png" in seen.stdout
    assert r"\udcff.png" in seen.stdout


@pytest.mark.parametrize(("moment", "count"), [("before", 0), ("meanwhile", 0), ("after", 1)])
def test_an_interruption_leaves_line_and_files_or_neither(
    model, folder, tmp_path, monkeypatch, moment, count
):
    """Wherever it comes: before the line is written, while it is seen to the disk, and right after."""
    fsync, append = os.fsync, Record.append

    def before(self, line):
        raise KeyboardInterrupt

    def meanwhile(self, line):
        monkeypatch.setattr(os, "fsync", lambda file: before(self, line))
        try:
            append(self, line)
        finally:
            monkeypatch.setattr(os, "fsync", fsync)

    def after(self, line):
        append(self, line)
        raise KeyboardInterrupt

    monkeypatch.setattr(Record, "append", {"before": before, "meanwhile": meanwhile, "after": after}[moment])
    assert run("inspect", model, folder, "--out", tmp_path / "out").exit_code == 130
    lines = record_of(tmp_path / "out")[1]
    assert report_of(tmp_path / "out")["pictures"] == lines
    assert len(lines) == count
    assert len(list((tmp_path / "out").glob("?.*"))) == 3 * count


# a full disk

ROOM = 32_768


@pytest.mark.parametrize("level", ["pixel", "patch"])
def test_a_disk_that_fills_is_named_and_cuts_no_file_short(model, folder, small_disk, level):
    """With room for more and more, so that each kind of file is the one that finds no more of it."""
    out, failed = small_disk / "out", set()
    (small_disk / "filling").touch()
    for path in folder.iterdir():
        write_picture(path, ground(64, 64, seed=int(path.stem)))  # whose map takes 16 kB, and the overlay 8
    for room in range(0, ROOM, 4096):
        (small_disk / "filling").write_bytes(bytes(ROOM - room))
        seen = run("inspect", model, folder, "--out", out, "--level", level, "--report", "none")
        if seen.exit_code == 0:
            break
        line = only_error(seen, code=3)
        assert "No space left on device" in line, seen.output
        place, _, _ = line.removeprefix("fmrnet: ").partition(": ")
        assert Path(place).is_relative_to(small_disk)
        failed.add(Path(place).name.partition(".")[2])
        assert "report.json" not in seen.stdout  # no success is told
        lines = record_of(out)[1] if (out / "report.jsonl").exists() else []
        whole = out / ("report.json" if (out / "report.json").exists() else "report.jsonl")
        assert not lines or f"what is done is in {whole}, and --resume goes on" in line
        assert whole.suffix == ".jsonl" or report_of(out)["pictures"] == lines
        files = [name for line in lines for name in line["files"].values()]
        assert sorted(path.name for path in out.glob("?.*")) == sorted(files)
        for name in files:
            read_picture(out / name) if name.endswith(".png") else None
        for path in out.glob("*"):
            path.unlink()
    assert failed >= ({"map.tiff", "overlay.png", "jsonl"} if level == "pixel" else {"overlay.png", "jsonl"})


@pytest.mark.parametrize("small_disk", ["128k"], indirect=True)
def test_a_disk_without_room_for_the_page_has_all_else(model, folder, small_disk):
    seen = run("inspect", model, folder / "0.png", "--out", small_disk, "--level", "patch")
    line = only_error(seen, code=3)
    assert f"{PAGE}: No space left on device" in line
    assert len(report_of(small_disk)["pictures"]) == 1
    assert not (small_disk / PAGE).exists()
    assert not list(small_disk.glob("*.tmp"))


def test_a_disk_that_fills_line_by_line(small_disk):
    """The record itself finds no more room: what it holds stays whole, and the picture's files go."""
    record = Record(small_disk / "report.jsonl", {"fmrnet": "0"}, [])
    line = {"picture": "x" * 3000, "error": "none"}
    with pytest.raises(OSError, match=r"No space left.*report\.jsonl"):
        collections.deque(map(record.append, [line] * 100))
    record.close()
    lines = record_of(small_disk)[1]
    assert lines == [line] * (ROOM // len(json.dumps(line) + "\n"))
