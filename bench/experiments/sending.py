"""What may go up of an open picture, on all test pictures of a surface: bytes, verdicts that change, pixel ROC-AUC.

    python bench/experiments/sending.py MODEL DATASET [--name NAME] [--out FOLDER]

Every picture is decided by the pixel level here, by its suspect part as a picture of its own, and by features that are
packed, unpacked and decoded as an edge and a cloud do it. `window` is what the suspect windows take as lossless WebP,
each for itself. Writes NAME-sending.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import common
import numpy as np
import record
import rows
from numpy.typing import NDArray

import fmrnet
from fmrnet.deployment.compress import lossless, lossless_part, webp
from fmrnet.deployment.elsewhere import DecoderElsewhere
from fmrnet.deployment.features import unpack
from fmrnet.deployment.suspect import Box, rectangle, suspect, windows
from fmrnet.engines.engine import Seen, decoded
from fmrnet.evaluation.metrics import PixelCounts
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.pictures import decode_picture
from fmrnet.progress import Bar

WAYS: dict[str, tuple[Literal[1, 2], bool]] = {  # bytes a value, and whether of the suspect part alone
    "features float16": (2, False),
    "features 8 bits": (1, False),
    "suspect features float16": (2, True),
}


class Once:
    """An engine that looks at a picture once, however often it is asked in a row."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.name, self.config = engine, engine.name, engine.config
        self._seen: Any = None
        self._features: Any = None

    def glance(self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        if self._seen is None or not np.array_equal(self._seen.picture, picture):
            self._seen, self._features = self._engine.glance(picture, inside), None
        seen: Seen = self._seen
        return seen

    def features(self, picture: NDArray[np.float32]) -> Any:
        """As `fmrnet.engines.torch_engine.TorchEngine`, of the picture that was looked at last."""
        if self._features is None:
            self._features = self._engine.features(picture)
        return self._features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main() -> None:
    """Read the command line, measure each picture, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path, help="folder in the MVTec layout")
    parser.add_argument("--name", help="in the file's name; default: the folder's")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    given = parser.parse_args()
    loaded = fmrnet.load(given.model, "cpu", engine="torch")
    inspector = Inspector(Once(loaded.engine), loaded.calibration, loaded.provenance)
    counts: dict[str, PixelCounts] = {}
    measured: list[dict[str, Any]] = []
    with Bar() as bar:
        examples = common.load_dataset(given.dataset).examples
        done = bar.counter("measuring")
        for number, example in enumerate(examples):
            row, maps = measure(inspector, example.picture)
            truth = example.truth(maps["whole"].shape)
            for name, found in maps.items():
                if truth is not None:
                    counts.setdefault(name, PixelCounts()).add(found, np.zeros_like(truth), truth)
            measured.append({"picture": str(example.picture.relative_to(given.dataset)), **row})
            done(number + 1, len(examples))
    found = record.record() | {
        "pictures": len(measured),
        "open": sum(row["open"] for row in measured),
        "changed": changed(measured),
        "changed of the open": changed([row for row in measured if row["open"]]),
        "bytes of the open, in the mean": {
            name: round(float(np.mean([row["bytes"][name] for row in measured if row["open"]])))
            for name in measured[0]["bytes"]
        },
        "pixel_roc_auc": {name: count.roc_auc() for name, count in counts.items()},
        "each": columns(measured),
    }
    name = given.name or given.dataset.resolve().name
    rows.write(given.out / f"{name}-sending.json", found)
    print(
        {key: found[key] for key in found if key in ("pictures", "open") or "changed" in key or "auc" in key}
    )
    print(found["bytes of the open, in the mean"])


def columns(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """A list over the pictures for each figure, which takes fewer lines than a row for each picture."""
    return {
        key: columns([row[key] for row in measured])
        if isinstance(value, dict)
        else [row[key] for row in measured]
        for key, value in measured[0].items()
    }


def changed(measured: list[dict[str, Any]]) -> dict[str, int]:
    """How many verdicts of each way are not those of the pixel level on the whole picture."""
    return {
        name: sum(row[name] != row["whole"] for row in measured)
        for name in measured[0]["p_value"]
        if name != "whole"
    }


def measure(inspector: Inspector, path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Verdicts, bytes and scores of one picture, and its maps."""
    data = path.read_bytes()
    picture = decode_picture(data, inspector.bits)
    first = inspector.inspect(picture, "patch")
    place, box = rectangle(inspector, picture.shape, first), suspect(inspector, picture.shape, first)
    part = lossless_part(data, place, inspector.bits)
    assert part is not None
    whole = inspector.inspect(picture, "pixel")
    found: dict[str, Result] = {"patch": first, "whole": whole}
    sent = {"file": len(data), "whole": len(lossless(data, inspector.bits)), "part": len(part)}
    for name, (width, alone) in WAYS.items():
        found[name], sent[name] = by_features(inspector, picture, width, box if alone else None)
    found["part"] = inspector.inspect(decode_picture(part, inspector.bits), "pixel")
    pixels = np.rint(picture * 255).astype(np.uint8)
    each = [len(webp(pixels[one])) for one in windows(inspector, picture.shape, first)]
    sent |= {"windows": sum(each)}
    row = {
        "open": not first.settled,
        **{name: one.defective for name, one in found.items()},
        "p_value": {name: round(one.p_value, 6) for name, one in found.items()},
        "suspect windows": len(each),
        "rectangle": list(place),
        "bytes": sent,
    }
    maps = {name: one.anomaly_map for name, one in found.items() if name not in ("patch", "part")}
    return row, {name: one for name, one in maps.items() if one is not None}


def by_features(
    inspector: Inspector, picture: NDArray[np.float32], width: Literal[1, 2], box: Box | None
) -> tuple[Result, int]:
    """What the edge finds with a background from packed features, and their bytes."""
    sent = 0

    def paint(packed: bytes) -> NDArray[np.float32]:
        nonlocal sent
        sent = len(packed)
        return decoded(inspector.engine, unpack(packed, inspector.config.channels[4:1:-1], picture.size))

    engine = DecoderElsewhere(inspector.engine, paint, width, box)
    return Inspector(engine, inspector.calibration, inspector.provenance).inspect(picture, "pixel"), sent


if __name__ == "__main__":
    common.command(main)
