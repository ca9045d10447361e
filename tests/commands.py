"""The commands as a shell sees them: run in this process, with what they print and how they end."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from fmrnet.cli import app


def run(*arguments: object) -> Result:
    """What `fmrnet` with these arguments prints and returns."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def errors_of(seen: Result) -> list[str]:
    """What a command said went wrong, line by line; other lines on standard error tell its progress."""
    assert "Traceback" not in seen.output
    return [line for line in seen.stderr.splitlines() if line.startswith("fmrnet: ")]


def only_error(seen: Result, code: int = 2) -> str:
    """The one line of a command that failed."""
    assert seen.exit_code == code, seen.output
    (line,) = errors_of(seen)
    return line
