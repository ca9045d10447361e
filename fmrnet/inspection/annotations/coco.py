"""COCO: one JSON file, each region with its rectangle and its exact pixels as lengths of runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fmrnet
from fmrnet.files import as_json
from fmrnet.inspection.annotations.finding import LABEL, Finding
from fmrnet.inspection.annotations.regions import Region, run_lengths

__all__ = ["coco"]


def coco(found: Iterable[Finding]) -> bytes:
    """All findings as COCO's "object detection" JSON. `file_name` is below the folder that all pictures share.

    Pixels are lengths of runs down the columns, uncompressed. `iscrowd` is 0 nevertheless: what learns from COCO leaves
    crowds out, and readers tell runs from polygons by what they are.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for finding in found:
        image = len(images) + 1
        images.append(
            {"id": image, "file_name": finding.name, "width": finding.width, "height": finding.height}
        )
        for region in finding.regions:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": image, **_annotation(finding, region)})
    content = {
        "fmrnet": fmrnet.__version__,
        "info": {"description": "defects found by FMR-Net"},
        "licenses": [],
        "categories": [{"id": 1, "name": LABEL, "supercategory": ""}],
        "images": images,
        "annotations": annotations,
    }
    return as_json(content).encode() + b"\n"


def _annotation(finding: Finding, region: Region) -> dict[str, Any]:
    whole = region.on(finding.height, finding.width)
    return {
        "category_id": 1,
        "segmentation": {
            "size": [finding.height, finding.width],
            "counts": run_lengths(whole.ravel(order="F")),
        },
        "area": region.area,
        "bbox": [region.x, region.y, region.width, region.height],
        "iscrowd": 0,
        "score": finding.line["score"],
    }
