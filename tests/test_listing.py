"""Which pictures a command is given, and that none is passed over in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fmrnet.errors import DatasetError
from fmrnet.listing import list_pictures


def test_listing_is_sorted_flat_and_without_hidden_or_foreign_files(tmp_path):
    for name in ("b.png", "a.JPG", "c.tiff", ".hidden.png", "._b.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_pictures(tmp_path)]
    assert names == ["a.JPG", "b.png", "c.tiff"]
    assert list_pictures([tmp_path / "b.png", tmp_path, tmp_path / "odd.name"]) == [
        tmp_path / name for name in ("b.png", "a.JPG", "c.tiff", "odd.name")
    ]


def test_a_folder_without_pictures_names_the_folders_that_have_some(tmp_path):
    (tmp_path / "good").mkdir()
    (tmp_path / "notes").write_text("none")
    with pytest.raises(DatasetError, match=r"holds no pictures \(\.png .* others\)$"):
        list_pictures(tmp_path)
    (tmp_path / "good" / "a.png").touch()
    with pytest.raises(DatasetError, match="it has the folders good: name one"):
        list_pictures([tmp_path])
    for name in "bcdef":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    with pytest.raises(DatasetError, match="it has the folders b, c, d, e, f: name one"):
        list_pictures([tmp_path])


@pytest.mark.parametrize("suffix", ["pnm", "tga", "jpe", "dib", "PNG", "heic", "psd"])
def test_whatever_looks_like_a_picture_is_listed(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    (tmp_path / "b.png").symlink_to("nowhere")
    (tmp_path / "c.png").symlink_to("c.png")
    os.mkfifo(tmp_path / "d.png")
    assert [path.name for path in list_pictures(tmp_path)] == [f"a.{suffix}", "b.png", "c.png", "d.png"]


def test_two_spellings_of_one_file_are_one_picture(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "same").symlink_to(".")
    (tmp_path / "below").mkdir()
    (tmp_path / "c.png").symlink_to("b.png")
    monkeypatch.chdir(tmp_path)
    given = ["b.png", tmp_path / "b.png", "same/b.png", "./below/../b.png", tmp_path]
    assert list_pictures(given) == [Path("b.png"), tmp_path / "a.png", tmp_path / "c.png"]


@pytest.mark.parametrize("path", ["\ud800/a.png", "a\0/b.png"])
def test_what_is_no_path_is_an_error_of_ours(path):
    with pytest.raises(DatasetError, match=r"[ab]\.png' is no path"):
        list_pictures(path)


def test_a_name_that_is_too_long_is_a_picture_to_be_read_in_vain(tmp_path):
    assert list_pictures(tmp_path / ("a" * 300)) == [tmp_path / ("a" * 300)]


def names(found, root):
    return [path.relative_to(root).as_posix() for path in found]


def test_folders_below_are_taken_on_request_each_once_and_without_hidden_ones(tmp_path):
    for name in (
        "b.png",
        "a/2.png",
        "a/1.png",
        "a/x/3.tif",
        "c/4.png",
        ".git/5.png",
        "results/6.png",
        "d/no.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "x" / "up").symlink_to(tmp_path)  # a circle
    (tmp_path / "e").symlink_to("c")
    found = list_pictures(tmp_path, recursive=True, passed_over=lambda folder: folder.name == "results")
    assert names(found, tmp_path) == ["b.png", "a/1.png", "a/2.png", "a/x/3.tif", "c/4.png"]
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"holds no pictures .* nor do the folders below it"):
        list_pictures(tmp_path / "empty", recursive=True)


def test_a_folder_below_that_cannot_be_listed_is_told_and_the_others_are_taken(tmp_path, monkeypatch):
    for name in ("a/1.png", "b/2.png", "c/3.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    real = Path.iterdir

    def iterdir(path):  # root may list every folder
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    told = []
    found = list_pictures(tmp_path, recursive=True, unlisted=lambda folder, error: told.append(str(error)))
    assert names(found, tmp_path) == ["a/1.png", "c/3.png"]
    assert told == [f"{tmp_path / 'b'} cannot be listed: Permission denied"]
    with pytest.raises(DatasetError, match="b cannot be listed"):
        list_pictures(tmp_path, recursive=True)


def test_a_pattern_gives_what_a_shell_gives_and_a_file_called_so_goes_before(tmp_path):
    for name in ("a1.png", "a2.png", "b[1].png", "x/a3.png", "x/y/a4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(list_pictures(tmp_path / "a?.png"), tmp_path) == ["a1.png", "a2.png"]
    assert names(list_pictures(f"{tmp_path}/**/a*.png"), tmp_path) == [
        "a1.png",
        "a2.png",
        "x/a3.png",
        "x/y/a4.png",
    ]
    assert names(list_pictures(tmp_path / "b[1].png"), tmp_path) == ["b[1].png"]
    with pytest.raises(DatasetError, match=r"\*.tif: nothing fits this pattern"):
        list_pictures(tmp_path / "*.tif")
