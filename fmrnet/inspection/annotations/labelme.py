"""LabelMe: a JSON file a picture, each region a shape of the type "mask"."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image

import fmrnet
from fmrnet.files import as_json
from fmrnet.inspection.annotations.finding import LABEL, Finding
from fmrnet.inspection.annotations.regions import Region

__all__ = ["labelme"]

VERSION = "5.5.0"  # of LabelMe, whose files these are like


def labelme(finding: Finding, folder: Path) -> bytes:
    """The file of a picture, which is to stand in `folder`; the picture is named relative to it."""
    content = {
        "fmrnet": fmrnet.__version__,
        "version": VERSION,
        "flags": {"defective": finding.line["defective"]},
        "shapes": [_shape(region) for region in finding.regions],
        "imagePath": _relative(finding.path, folder),
        "imageData": None,
        "imageHeight": finding.height,
        "imageWidth": finding.width,
    }
    return as_json(content, indent=2).encode() + b"\n"


def _shape(region: Region) -> dict[str, Any]:
    png = io.BytesIO()
    Image.fromarray(region.inside).save(png, format="PNG")
    return {
        "label": LABEL,
        "points": [
            [region.x, region.y],
            [region.x + region.width - 1, region.y + region.height - 1],
        ],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png.getvalue()).decode(),
    }


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()
    except ValueError:  # on another drive
        return str(path.absolute())
