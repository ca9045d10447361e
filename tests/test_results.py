"""The recorded results: each in the form in which the experiments write them, few lines and one a row."""

import json
from pathlib import Path

import pytest
import rows
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[1] / "bench"
RESULTS = sorted((BENCH / "results").glob("*.json"))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=5), inner, max_size=9),
)


@given(content=st.dictionaries(st.text(max_size=5), values))
def test_what_is_written_is_read_again(content):
    assert (
        json.loads(rows.text(content)) == content
    )  # no key is so long as "seconds", which alone are rounded


def test_rows_and_curves_are_few_lines():
    picture = {"picture": "test/cut/000.png", "score": 2.5, "defective": True, "seconds": 0.123456789}
    found = {
        "each": [picture] * 100,
        "curve": [[1, step, 0.5] for step in range(600)],
        "classes": {"cut": picture},
    }
    lines = rows.text(found).splitlines()
    assert len(lines) < 200
    assert sum("test/cut/000.png" in line for line in lines) == 101
    assert '"seconds": 0.123457}' in lines[2]


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    rows.write(tmp_path / "a.json", {"score": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        rows.write(tmp_path / "a.json", {"score": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"score": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_each_result_is_written_so(path):
    text = path.read_text(encoding="ascii")
    assert text == rows.text(json.loads(text)) + "\n", (
        f"run python bench/rows.py {path.relative_to(BENCH.parent)}"
    )


def test_all_results_together_stay_readable():
    assert sum(len(path.read_text().splitlines()) for path in RESULTS) < 10_000
