"""A model's graphs as files for other people's runtimes, and beside them what they leave out: the thresholds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fmrnet
from fmrnet.config import Config
from fmrnet.engines.graph_engine import OPSET, inputs_of, outputs_of, whole
from fmrnet.errors import ConfigError
from fmrnet.files import as_json
from fmrnet.inspection.calibration import PEAK
from fmrnet.usual import ALIKE, BANDS, CELL, GAUSSIANS, Usual

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from fmrnet.inspection.inspector import Inspector

__all__ = ["ABOUT", "FORMATS", "export"]

ABOUT = "model.json"
USUAL = "usual.json"
USUALLY = (
    f"The input usual is (witnesses, H / {CELL}, W / {CELL}), what each witness usually says in each cell of "
    f"{CELL} x {CELL} pixels. {USUAL} holds near, (witnesses, {BANDS}): take the number at the distance of the cell's "
    "middle from the border of the picture as it was before it was filled up, in cells, rounded down, 0 beyond the "
    f"border, {BANDS - 1} at most. To it place, (witnesses, rows, columns), is added if it is not empty and neither "
    "rows nor columns differ from those of the picture before it was filled up, in cells, rounded up, by more than "
    f"{ALIKE:.0%} of the rows and columns of place: it is drawn to the picture's rows and columns, on straight lines "
    "between the middles of cells, and in cells beyond these as in the last ones. "
    f"Of the first {GAUSSIANS} witnesses the exponential is taken."
)
PATCHES = (
    "The graph glance takes patches, (N, C, side, side), picture.stride apart, the last of a row or column flush with "
    "the border, N as you like. The distances are its readings, row by row, 0 where less than half of a patch counts. "
    "The graph restore takes the other outputs of glance. Lay the backgrounds back for fuse: where they overlap, their "
    "mean, pixel i and j of a patch weighing min(i + 1, side - i) min(j + 1, side - j)."
)


def _onnx(graph: bytes, path: Path) -> None:
    path.with_suffix(".onnx").write_bytes(graph)


def _openvino(graph: bytes, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.Core().read_model(graph), path.with_suffix(".xml"), compress_to_fp16=False)


FORMATS: dict[str, tuple[Callable[[bytes, Path], None], str]] = {
    "onnx": (_onnx, ".onnx"),
    "openvino": (_openvino, ".xml"),
}


def export(inspector: Inspector, to: str, folder: Path) -> list[Path]:
    """Write a model's graphs, weights included, and ABOUT into a folder that is made for them, or is empty.

    Parameters
    ----------
    inspector : a calibrated model with graphs.
    to : one of FORMATS.
    folder : appears when everything in it is written.

    Returns
    -------
    The files.

    Raises
    ------
    ConfigError : the folder is a file or holds something, or what the format needs is not installed.
    OSError : it cannot be written.
    """
    write, suffix = FORMATS[to]
    content = inspector.content
    with _made(folder) as made:
        for name in content.graphs:
            write(whole(content, name), made / name)
        about = _about(inspector, to, suffix)
        (made / ABOUT).write_text(as_json(about, indent=2) + "\n")
        if inspector.config.general:
            (made / USUAL).write_text(as_json(_usual(content.weights)) + "\n")
    return sorted(folder.iterdir())


def _about(inspector: Inspector, to: str, suffix: str) -> dict[str, Any]:
    """What a program needs to give the verdicts of this model, JSON-ready."""
    config, calibration = inspector.config, inspector.calibration
    rate = calibration.false_alarms
    level = calibration.early_exit.level(rate)
    return {
        "fmrnet": fmrnet.__version__,
        "format": to,
        "opset": OPSET,
        "picture": {
            "shape": [1, config.image_channels, "height", "width"],
            "order": "red, green, blue" if config.image_channels == 3 else "grey",
            "range": [0, 1],
            "bits": inspector.bits,
            "multiple": config.multiple,
            "least_side": config.patch_size,
            "stride": config.stride,
            "region": inspector.provenance.get("region"),
        },
        "graphs": {
            name: {"file": name + suffix, "inputs": list(names), "outputs": list(outputs_of(config)[name])}
            for name, names in inputs_of(config).items()
        },
        "verdict": {
            "false_alarms": rate,
            "pixels": None if calibration.picture.parts == 1 else calibration.pixels,
            "patch": calibration.patch.thresholds(rate),
            "pixel": calibration.picture.thresholds(rate),
            "settled": None if level == 1 else calibration.patch.thresholds(max(level, rate)),
            "anomaly_map": calibration.pixel_threshold,
            "evidence": 0.0 if calibration.k else PEAK,
        },
        "how": _how(config),
    }


def _usual(weights: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    known = Usual.of(weights)
    return {"near": known.near.tolist(), "place": known.place.tolist()}


def _how(config: Config) -> list[str]:
    """The use of all this, a sentence a step."""
    readings = "those of the graph fuse"
    if not config.generator:
        readings = "those of the graph glance again"
    elif config.general:
        readings = (
            "the first of the graph fuse, then all but the first of the graph glance, then the second of fuse"
        )
    return [
        "Fill the picture up: mirror it at its lower and right border, without repeating the border itself, until both "
        "sides are multiples of picture.multiple; what lies beyond the border is cut off the maps.",
        *(() if config.general else (PATCHES,)),
        "The input inside is (H, W), like the picture as it is filled up: 1 where a pixel counts, 0 elsewhere.",
        "If picture.region is given, cut its rectangle out before anything else; of a mask, inside says which of its "
        "pixels count, by the lengths of runs of 0 and 1, taking turns, along the rows of the rectangle. What lies "
        "beyond the border of the cut-out does not count then. Without a mask, inside is 1 everywhere.",
        *((USUALLY,) if config.general else ()),
        "Outputs come in the order given here, whatever the file calls them. Readings are (K, rows, columns), one of "
        "each patch of the picture, and each of the K has a threshold of its own.",
        "Level patch: the picture is defective if a reading of the graph glance is above its threshold in "
        "verdict.patch.",
        "Level auto: go on to level pixel unless verdict.settled is given and no reading of the graph glance is above "
        "its number there.",
        f"Level pixel: the readings are {readings}; the picture is defective if one is above its threshold in "
        "verdict.pixel.",
        "The mask of a defective picture: where the anomaly map is above verdict.anomaly_map, and the evidence above "
        "verdict.evidence times its greatest value.",
        "verdict.pixels: the thresholds are of pictures of about so many pixels, or of any size if it is null.",
        "The limits of brightness, contrast and distance that a picture as a whole has to keep are left out.",
    ]


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends well."""
    target = Path(os.path.realpath(folder))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{folder} is a file or not empty; name a folder that is to be made")
    if not target.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {target.parent}; create it first")
    made = Path(tempfile.mkdtemp(prefix=".fmrnet-", dir=target.parent))
    try:
        yield made
        made.chmod(0o777 & ~_umask())
        if target.exists():
            target.rmdir()
        os.replace(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
