"""Files come whole or not at all, last through a power cut, and what stood in their place hands on what it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fmrnet import files
from fmrnet.artifact import write_tensors
from fmrnet.errors import ArtifactError
from fmrnet.files import check_writable, replacing, write_json

posix = pytest.mark.skipif(os.name != "posix", reason="a system without these kinds of file")


def write(path: str | Path, content: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(content)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_full_disk_is_named_and_what_stood_there_stays(small_disk):
    path = small_disk / "figures.json"
    write(path, b"old")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(path, bytes(50_000))  # of which 28 kB go onto the disk
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(small_disk) == [path.name]
    with pytest.raises(OSError, match=r"No space .*model\.fmr"):
        write_tensors(small_disk / "model.fmr", {"a": np.zeros(9000, np.float32)}, {})
    assert os.listdir(small_disk) == [path.name]
    write(path, bytes(20_000))  # there is room for this
    assert path.read_bytes() == bytes(20_000)


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "a.json"
    with pytest.raises(FileNotFoundError) as caught:
        write_json(path, {})
    assert caught.value.filename == str(path)


def test_an_encoder_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "file"

    def encode() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError("no such colour")

    with pytest.raises(RuntimeError, match="no such colour"):
        encode()
    assert not list(tmp_path.iterdir())


@posix
def test_content_is_flushed_then_renamed_then_the_folder_is_flushed(tmp_path, monkeypatch):
    """What stands at each place when, seen from outside: a rename before the flush may leave an empty file."""
    path, seen = tmp_path / "file", []
    write(path, b"old")
    fsync, rename = os.fsync, os.replace

    def watch_fsync(file: int) -> None:
        state = os.fstat(file)
        what = "folder" if stat.S_ISDIR(state.st_mode) else state.st_size
        seen.append(("flush", what, path.read_bytes()))
        fsync(file)

    def watch_rename(source: str, target: str) -> None:
        seen.append(("rename", Path(source).read_bytes(), path.read_bytes()))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_rename)
    write(path, b"newer")
    assert seen == [("flush", 5, b"old"), ("rename", b"newer", b"old"), ("flush", "folder", b"newer")]


OUTPUTS = """
import numpy as np
from fmrnet import artifact, config, files, pictures
weights = {"a": np.zeros(70_000, np.float32)}
artifact.write_tensors("a.fmr.checkpoint", weights, {"kind": "checkpoint"})
artifact.save(artifact.Artifact(config.preset("edge"), {}, {}, weights), "a.fmr")
files.write_json("figures.json", {"pictures": list(range(9000))})
pictures.write_picture("a.mask.png", np.zeros((200, 200), np.uint8))
pictures.write_map("a.map.tiff", np.zeros((200, 200), np.float32))
"""
NAMES = ("a.fmr.checkpoint", "a.fmr", "figures.json", "a.mask.png", "a.map.tiff")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace, as in `apt-get install strace`")
def test_every_output_lasts_through_a_power_cut(tmp_path):
    """The system calls themselves, of every kind of output: write, flush, rename, flush the folder."""
    log = tmp_path / "calls.txt"
    calls = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2"
    trace = ["strace", "-f", "--seccomp-bpf", "-y", "-s", "0", "-o", log, "-e", f"trace={calls}"]
    if subprocess.run([*trace, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody watch system calls")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        [*trace, sys.executable, "-c", OUTPUTS],
        cwd=out,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    renamed = re.compile(
        rf'rename.*"{re.escape(str(out))}/(\.fmrnet-\w+\.tmp)".*"{re.escape(str(out))}/([^"]+)"'
    )
    lines = log.read_text().splitlines()
    found = []
    for number, line in enumerate(lines):
        if match := renamed.search(line):
            temporary, name = match.groups()
            touched = [entry for entry in lines[:number] if f"{out}/{temporary}>" in entry]
            assert " write(" in touched[1], f"{name}: {touched}"
            assert " fsync(" in touched[-1], f"{name}: its content is not flushed before it is renamed"
            rest = (entry for entry in lines[number + 1 :] if " fsync(" in entry or ".fmrnet-" in entry)
            assert f"<{out}>)" in next(rest, ""), f"{name}: its folder is not flushed"
            found.append(name)
    assert tuple(found) == NAMES
    assert sorted(os.listdir(out)) == sorted(NAMES)


@posix
@pytest.mark.parametrize("given", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_hands_its_mode_on(tmp_path, given):
    path = tmp_path / "model.fmr"
    path.write_bytes(b"old")
    path.chmod(given)
    write(path)
    assert (path.read_bytes(), mode(path)) == (b"new", given)


@posix
def test_a_new_file_has_the_mode_that_the_user_asks_of_all(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "model.fmr")
    finally:
        os.umask(before)
    assert mode(tmp_path / "model.fmr") == 0o640


@posix
def test_nobody_reads_a_private_file_while_it_is_written(tmp_path, monkeypatch):
    path, modes = tmp_path / "model.fmr", []
    write(path)
    path.chmod(0o600)
    opened = os.open
    monkeypatch.setattr(os, "open", lambda *given: modes.append(given[2:]) or opened(*given))
    write(path)
    assert modes[0] == (0o600,)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_is_replaced_hands_its_owner_on(tmp_path):
    path = tmp_path / "model.fmr"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    check_writable(path)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (1234, 2345, b"new")


@posix
def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "models").mkdir()
    target, link = tmp_path / "models" / "7.fmr", tmp_path / "latest.fmr"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to("models/7.fmr")
    check_writable(link)
    write(link)
    assert link.is_symlink()
    assert (target.read_bytes(), mode(target)) == (b"new", 0o600)
    target.unlink()  # now it points to a file that is to be made
    write(link, b"newer")
    assert link.is_symlink()
    assert target.read_bytes() == b"newer"


def special_files(folder: Path) -> dict[str, Path]:
    """One file of each kind that no output may replace."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")
    (folder / "link").symlink_to(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(folder / "socket"))
    return {
        "a folder; expected a file name": folder / "folder",
        "a named pipe": folder / "pipe",
        "no file can be here": folder / "one",
        "link is a named pipe": folder / "link",
        "a socket": folder / "socket",
        "a device": Path(os.devnull),
    }


@posix
def test_pipes_devices_folders_and_circles_are_refused_and_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    for expected, path in special_files(Path()).items():
        before = os.lstat(path)
        for attempt in (check_writable, write):
            with pytest.raises(ArtifactError, match=expected) as caught:
                attempt(path)
            assert str(path) in str(caught.value)
        assert os.lstat(path).st_ino == before.st_ino
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    for attempt in (check_writable, write):
        with pytest.raises(ArtifactError, match="no file can be here"):
            attempt(tmp_path / name)


def test_a_name_of_greatest_length_is_written(tmp_path):
    path = tmp_path / ("x" * 255)
    write(path)
    assert path.read_bytes() == b"new"


def test_places_where_nothing_can_be_written_are_told_beforehand(tmp_path):
    check_writable(tmp_path / "a.fmr")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="is a folder; expected a file name"):
        check_writable(tmp_path)
    with pytest.raises(ArtifactError, match="there is no folder"):
        check_writable(tmp_path / "none" / "a.fmr")
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="Not a directory"):
        check_writable(tmp_path / "file" / "a.fmr")


AS_NOBODY = """
import os, sys
from fmrnet.errors import ArtifactError
from fmrnet.files import check_writable, replacing
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    for attempt in (check_writable, lambda path: replacing(path).__enter__()):
        try:
            attempt(path)
            print("taken")
        except ArtifactError as error:
            print(str(error).rpartition("/")[2])
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may become another user")
def test_files_of_others_and_read_only_files_are_told_beforehand(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o755)
    paths = [tmp_path / name for name in ("of others", "read-only", "own", "new", "kept/new")]
    for path, owner, given in ((paths[0], 0, 0o666), (paths[1], 65534, 0o444), (paths[2], 65534, 0o600)):
        path.touch()
        os.chown(path, owner, owner)
        path.chmod(given)
    for folder in tmp_path.parents[:-2]:
        folder.chmod(0o755)
    program = [sys.executable, "-c", AS_NOBODY, *paths]
    root = Path(__file__).parents[1]
    found = subprocess.run(program, capture_output=True, text=True, check=True, cwd=root).stdout.splitlines()
    assert found == [
        "of others belongs to another user, and would not any more; name another place",
        "taken",  # where the disk knows no owners it can be done
        *["read-only: no permission to change this file; name another place"] * 2,
        *["taken"] * 4,
        "kept; name another place",
        "taken",  # fails when it is written
    ]


KILLED = """
import os, sys
from fmrnet import files
hang = lambda *names: (print("there", flush=True), sys.stdin.read())
os.replace = hang
with files.replacing(sys.argv[1]) as file:
    file.write(bytes(1000))
"""


@posix
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, monkeypatch):
    program, pipe = [sys.executable, "-c", KILLED, tmp_path / "a.fmr"], subprocess.PIPE
    with ExitStack() as both:
        runs, names = [], []
        for _ in range(2):
            runs.append(both.enter_context(subprocess.Popen(program, stdin=pipe, stdout=pipe)))
            assert runs[-1].stdout.readline() == b"there\n"
            names += [path.name for path in tmp_path.iterdir() if path.name not in names]
        runs[0].kill()
        assert runs[0].wait() == -signal.SIGKILL
        (tmp_path / ".fmrnet-not-ours.tmp").touch()
        (tmp_path / ".fmrnet-0123456789abcdef.tmp").mkdir()
        monkeypatch.setattr(files, "_swept", set())
        write_json(tmp_path / "other.json", {})
        kept = {path.name for path in tmp_path.iterdir()}
        assert kept == {names[1], "other.json", ".fmrnet-not-ours.tmp", ".fmrnet-0123456789abcdef.tmp"}
        runs[1].communicate(b"")
        assert runs[1].returncode == 0


@posix
def test_a_file_swept_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Another run may take it for a dead one's in the instant between its making and its locking."""
    lock, asked = files._lock, []

    def sweep_first(file: int, *, wait: bool) -> bool:
        if not asked:
            asked.append(file)
            for path in tmp_path.glob(".fmrnet-*"):
                path.unlink()
        return lock(file, wait=wait)

    monkeypatch.setattr(files, "_lock", sweep_first)
    write(tmp_path / "a.fmr")
    assert asked
    assert {path.name for path in tmp_path.iterdir()} == {"a.fmr"}
    assert (tmp_path / "a.fmr").read_bytes() == b"new"
