"""CVAT: one XML file, "CVAT for images 1.1", each region a mask."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as xml

import fmrnet
from fmrnet.errors import printable
from fmrnet.inspection.annotations.finding import LABEL, Finding
from fmrnet.inspection.annotations.regions import Region, run_lengths

__all__ = ["cvat"]


def cvat(found: Iterable[Finding]) -> bytes:
    """All findings. `name` is below the folder that all pictures share; XML has no place for what cannot be printed."""
    root = xml.Element("annotations")
    root.append(xml.Comment(f"fmrnet {fmrnet.__version__}"))
    xml.SubElement(root, "version").text = "1.1"
    labels = xml.SubElement(xml.SubElement(xml.SubElement(root, "meta"), "task"), "labels")
    label = xml.SubElement(labels, "label")
    for name, text in (("name", LABEL), ("type", "mask"), ("attributes", "")):
        xml.SubElement(label, name).text = text
    for number, finding in enumerate(found):
        image = xml.SubElement(root, "image", id=str(number), name=printable(finding.name))
        image.set("width", str(finding.width))
        image.set("height", str(finding.height))
        for region in finding.regions:
            xml.SubElement(image, "mask", _mask(region))
    xml.indent(root)
    return bytes(xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _mask(region: Region) -> dict[str, str]:
    """Lengths of runs along the rows of the rectangle."""
    return {
        "label": LABEL,
        "source": "auto",
        "occluded": "0",
        "z_order": "0",
        "rle": ", ".join(map(str, run_lengths(region.inside.ravel()))),
        "left": str(region.x),
        "top": str(region.y),
        "width": str(region.width),
        "height": str(region.height),
    }
