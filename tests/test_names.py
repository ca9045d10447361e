"""Names of what an inspection writes: every picture has its own, and no disk refuses or confuses them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.inspection.names import KINDS, LOCK, LONGEST, RECORD, REPORT, _below, output_names

FOLDERS = ["a", "A", "0", "0.mask.png", "0.overlay.png", "report.json", "é", "e\u0301", "x" * 255]
STEMS = ["0", "0.png", "0.mask", "0~2", "ß", "SS", "\udcff", "x" * 240, "x" * 241, "é" * 120]


@given(
    picked=st.lists(
        st.tuples(
            st.lists(st.sampled_from(FOLDERS), max_size=2),
            st.sampled_from(STEMS),
            st.sampled_from([".png", ".jpg", ""]),
        ),
        min_size=1,
    ),
    taken=st.lists(st.sampled_from(["0", "a/0", "x"]), unique=True),
)
def test_no_two_files_stand_in_one_place(picked, taken):
    """Nor does a file stand where a folder must, on a disk that knows no upper and lower case either."""
    paths = list(dict.fromkeys(Path("/in", *folders, stem + suffix) for folders, stem, suffix in picked))
    names = output_names(paths, taken)
    assert list(names) == paths
    written = [f"{name}.{kind}" for name in [*names.values(), *taken] for kind in KINDS]
    folders = {parent.as_posix() for name in written for parent in Path(name).parents}
    folded = [unicodedata.normalize("NFC", name).casefold() for name in [*written, REPORT, RECORD, LOCK]]
    assert len(set(folded)) == len(folded)
    assert not {unicodedata.normalize("NFC", name).casefold() for name in folders} & set(folded)
    for name in written:
        assert len(os.fsencode(Path(name).name)) < 255 - 30  # with room for a temporary name
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts


def test_a_name_is_the_path_below_the_shared_folder():
    assert list(output_names([Path("in/0.png"), Path("in/cut/0.png")]).values()) == ["0", "cut/0"]
    assert list(output_names([Path("0.png")], taken=["0"]).values()) == ["0~2"]
    assert output_names([]) == {}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([r"C:\line\0.png", r"D:\line\0.png"], [r"C\line\0.png", r"D\line\0.png"]),
        ([r"C:\0.png", r"\\server\share\line\0.png"], [r"C\0.png", r"server\share\line\0.png"]),
        ([r"C:\line\0.png", r"c:\line\a\1.png"], [r"0.png", r"a\1.png"]),
    ],
)
def test_pictures_on_two_drives_are_named_by_drive(paths, names):
    assert [str(path) for path in _below([PureWindowsPath(path) for path in paths])] == names


@pytest.mark.parametrize("letter", ["x", "ß", "漢"])
def test_a_long_name_keeps_as_much_as_there_is_room_for(letter):
    width = len(letter.encode())
    for count in (LONGEST // width, LONGEST // width + 1, 300):
        (name,) = output_names([Path("in", letter * count + ".png")]).values()
        whole = count * width <= LONGEST
        assert (name == letter * count) == whole
        assert whole or LONGEST - width < len(name.encode()) <= LONGEST
        assert whole or (name.startswith(letter * 20) and name[-9] == "~")
