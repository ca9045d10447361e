"""What pages say of a model: where it comes from, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmrnet.config import Config
from fmrnet.errors import printable
from fmrnet.pages.render import strings

__all__ = ["Facts", "model_facts", "settings_facts"]

Facts = list[tuple[str, str]]  # names and values


def model_facts(provenance: Mapping[str, Any], file: str, sha256: str) -> Facts:
    """Where a model comes from. The provenance is whatever the author of its file wrote."""
    names = strings()["model"]
    found = [(names["file"], printable(file)), (names["sha256"], sha256)]
    for key, value in provenance.items():
        if key not in ("loss_curve", "graphs"):
            found.append((names.get(key, printable(key, 40)), _said(value)))
    return found


def settings_facts(config: Config) -> Facts:
    """The settings, each by its name in `fmrnet.Config`."""
    return [(name, _said(value)) for name, value in config.to_dict().items()]


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return printable(", ".join(f"{key} {_said(part)}" for key, part in value.items()), 500)
    if isinstance(value, list | tuple):
        return printable(", ".join(map(_said, value)), 500)
    return "–" if value is None else printable(value, 500)
