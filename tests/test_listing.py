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
