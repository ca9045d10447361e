"""JSON for results: what belongs together on one line, so that a reader finds it and a change shows as one line.

python bench/rows.py FILE ...    # writes files anew in this form
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fmrnet.files import replacing

__all__ = ["rounded", "text", "write"]

WIDTH = 120  # columns that a list of numbers fills up
ROW = 320  # columns that a row may have: a picture, a candidate, a set of figures
SHORT = 40  # characters; a list of such entries is filled up line by line, as a loss curve is
DIGITS = 6


def write(path: Path, content: dict[str, Any]) -> None:
    """Write `content` in one step; NaN and infinity are refused (they are not JSON)."""
    with replacing(path) as file:
        file.write(text(content).encode() + b"\n")


def text(content: Any) -> str:
    """`content` as JSON, seconds rounded to six digits.

    A dict of plain values and short lists is a row, on one line; a list of numbers, or of short lists of them, fills up
    lines; everything else has an entry a line.

    >>> print(text({"machine": {"cores": 2, "seconds": 0.12345678}, "curve": [[1, 0.5]] * 20}))
    {
      "machine": {"cores": 2, "seconds": 0.123457},
      "curve": [
        [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5],
        [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5], [1, 0.5]
      ]
    }
    """
    return _laid_out(_with_seconds_rounded(content), 0, 0)


def rounded(content: Any) -> Any:
    """`content` with every number that is no whole one rounded to six digits.

    >>> rounded({"picture": "a.png", "score": 2.76449150792})
    {'picture': 'a.png', 'score': 2.76449}
    """
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return float(f"{content:.{DIGITS}g}") if isinstance(content, float) else content


def _with_seconds_rounded(content: Any) -> Any:
    if isinstance(content, dict):
        pairs = content.items()
        return {k: rounded(v) if k.endswith("seconds") else _with_seconds_rounded(v) for k, v in pairs}
    return (
        [_with_seconds_rounded(value) for value in content] if isinstance(content, list | tuple) else content
    )


def _laid_out(content: Any, indent: int, taken: int) -> str:
    line = json.dumps(content, allow_nan=False)
    if not content or not isinstance(content, dict | list):
        return line
    if indent + taken + len(line) <= (ROW if _is_row(content) else WIDTH):
        return line
    inner = indent + 2
    if isinstance(content, dict):
        keys = [f"{json.dumps(key)}: " for key in content]
        entries = [key + _laid_out(value, inner, len(key)) for key, value in zip(keys, content.values())]
        return _stacked("{}", entries, indent)
    entries = [_laid_out(entry, inner, 0) for entry in content]
    if not any(isinstance(entry, dict) for entry in content) and max(map(len, entries)) <= SHORT:
        entries = _filled(entries, WIDTH - inner)
    return _stacked("[]", entries, indent)


def _is_row(content: Any) -> bool:
    """A dict of plain values and flat lists."""
    return isinstance(content, dict) and not any(
        isinstance(value, dict)
        or (isinstance(value, list) and any(isinstance(x, dict | list) for x in value))
        for value in content.values()
    )


def _filled(entries: list[str], width: int) -> list[str]:
    lines = entries[:1]
    for entry in entries[1:]:
        if len(lines[-1]) + len(", ") + len(entry) < width:
            lines[-1] += f", {entry}"
        else:
            lines.append(entry)
    return lines


def _stacked(brackets: str, entries: list[str], indent: int) -> str:
    start = "\n" + " " * (indent + 2)
    return f"{brackets[0]}{start}{(',' + start).join(entries)}\n{' ' * indent}{brackets[1]}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name), json.loads(Path(name).read_text()))
