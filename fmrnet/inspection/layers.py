"""What a page shows of an inspected picture, as files that a browser reads: JPEG, and PNG where something is clear."""

from __future__ import annotations

import base64
import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from fmrnet.files import replacing
from fmrnet.inspection.defects import Defect
from fmrnet.inspection.overlay import RED, breadth, outline, overlay
from fmrnet.pictures import SOFTWARE, to_channels

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector
    from fmrnet.inspection.reduced import Shown

__all__ = ["as_data", "layers", "thumb", "write_layer"]

Pixels = NDArray[np.float32]

LONGEST_SIDE = 2**14  # pixels; browsers show no longer ones
MODALITY_PIXELS = 2**19  # a modality is shown with no more: it is grain, which JPEG does not make small
TOPS = {"gms": 0.5, "ssim": 1.0, "residual": 0.25}  # of modalities, shown brightest; the same in all pictures
THUMB = (240, 120)  # width and height, within which
SLENDEREST = 4  # sides of a thumbnail; of a longer picture it shows a part
QUALITIES = {"picture": 88}  # of JPEG
QUALITY = 80  # of the others
FAINT = 0.15  # of the brightest, where a map is half of its threshold; at the threshold it is in the middle


def layers(inspector: Inspector, shown: Shown, scale: float) -> dict[str, Image.Image]:
    """The pictures by name: as `fmrnet.inspection.names.PAGE_KINDS` has them, those that there are.

    Parameters
    ----------
    inspector : what has inspected the picture.
    shown : what is shown of it; `mask` is outlined in the thumbnail, `outlined` in the picture.
    scale : pixels of what is shown to one of the picture's; below 1 there are no modalities, which are grain.
    """
    picture, result, outlined = shown.picture, shown.result, shown.outlined
    found = {"picture": _image(picture), "thumb": thumb(picture, shown.mask, shown.surest)}
    if outlined.any():
        found["outline"] = _outline(outlined, breadth(outlined.shape))
        if breadth(outlined.shape) > 1:
            found["edge"] = _outline(outlined, 1)
    if result.anomaly_map is not None:
        threshold = inspector.calibration.pixel_threshold
        top = 1.0 if inspector.config.standard_map else 4 * threshold
        levels = np.interp(result.anomaly_map, [0, threshold / 2, threshold, top], [0, FAINT, 0.5, 1])
        found["heat"] = _heat(levels.astype(np.float32))
    if result.background is not None:
        found["background"] = _image(result.background)
        modalities = _modalities(inspector, picture, result.background) if scale == 1 else {}
        for name, values in modalities.items():
            found[name] = _heat(np.clip(values / np.float32(TOPS[name]), 0, 1), MODALITY_PIXELS)
    return {name: _shrunk(image, LONGEST_SIDE / max(image.size)) for name, image in found.items()}


def write_layer(path: Path, image: Image.Image) -> None:
    """Write a picture of a page in one step, as the suffix says; it says that it is ours. Raises as `replacing`."""
    encoded = io.BytesIO()  # Pillow writes into a file's descriptor, and would not see a full disk
    if path.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Software", SOFTWARE)
        image.save(encoded, "PNG", pnginfo=text, transparency=0)
    else:
        quality = QUALITIES.get(path.suffixes[-2].lstrip("."), QUALITY)
        image.save(encoded, "JPEG", quality=quality, comment=SOFTWARE.encode())
    with replacing(path) as file:
        file.write(encoded.getbuffer())


def as_data(image: Image.Image) -> str:
    """A small picture as a URL that holds it."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _modalities(inspector: Inspector, picture: Pixels, background: Pixels) -> dict[str, Pixels]:
    """Each modality's map (H, W); where PyTorch is not installed, the residual alone."""
    given, restored = (
        to_channels(one, inspector.config.image_channels).transpose(2, 0, 1) for one in (picture, background)
    )
    if find_spec("torch") is None:
        return {"residual": np.sqrt(np.square(given - restored).mean(0))}
    from fmrnet.engines.torch_engine import modality_maps

    return modality_maps(given, restored, inspector.config.median)


def thumb(picture: Pixels, mask: NDArray[np.bool_], surest: Defect | None) -> Image.Image:
    """A picture (H, W) or (H, W, C) in [0, 1], small, and its mask (H, W) outlined.

    Of a slender picture the part about the surest defect, or in the middle.
    """
    height, width = picture.shape[:2]
    long = SLENDEREST * min(height, width)
    middle = (height // 2, width // 2)
    if surest:
        middle = (surest.row + surest.height // 2, surest.column + surest.width // 2)
    rows, columns = (_part(side, long, about) for side, about in zip((height, width), middle, strict=True))
    part, marked = picture[rows, columns], mask[rows, columns]
    shrink = max(1, round(max(part.shape[1] / THUMB[0], part.shape[0] / THUMB[1])))
    small = _image(part).reduce(shrink)
    kept = np.zeros((small.height, small.width), np.bool_)
    kept[tuple(places // shrink for places in np.nonzero(marked))] = True
    return Image.fromarray(overlay(np.asarray(small, dtype=np.float32) / np.float32(255), kept))


def _part(side: int, length: int, middle: int) -> slice:
    """Of so many places in a row up to `length`, about the middle as far as they reach."""
    start = min(max(middle - length // 2, 0), max(side - length, 0))
    return slice(start, start + length)


def _image(values: Pixels) -> Image.Image:
    squeezed = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return Image.fromarray(np.round(squeezed * 255).astype(np.uint8))


def _outline(mask: NDArray[np.bool_], reach: int) -> Image.Image:
    """Line and rim on clear ground."""
    line, rim = outline(mask, reach)
    image = Image.fromarray(line.view(np.uint8) + np.uint8(2) * rim.view(np.uint8))
    image.putpalette([0, 0, 0, *np.round(RED * 255).astype(int).tolist(), 255, 255, 255])
    return image


def _heat(values: Pixels, most: float = np.inf) -> Image.Image:
    """Values from 0 to 1, (H, W), from dark to bright, in no more than so many pixels."""
    image = _image(values)
    image = _shrunk(image, (most / (image.width * image.height)) ** 0.5)
    return ImageOps.colorize(image, "#05030f", "#fff6c8", mid="#d6456b")


def _shrunk(image: Image.Image, share: float) -> Image.Image:
    if share >= 1:
        return image
    width, height = (max(1, int(side * share)) for side in image.size)
    filtered = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BOX
    return image.resize((width, height), filtered)
