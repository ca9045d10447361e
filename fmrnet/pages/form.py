"""What the page of a report is made of."""

from __future__ import annotations

import enum

__all__ = ["Form"]


class Form(enum.StrEnum):
    """One file, or one with its pictures in files beside it; `auto` is one file up to a size that mail takes."""

    auto = "auto"
    single = "single"
    folder = "folder"
    none = "none"
