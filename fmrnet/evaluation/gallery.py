"""The test pictures that a model is most wrong about, small, with what is marked and what was found."""

from __future__ import annotations

import base64
import heapq
import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fmrnet.pictures import to_channels

__all__ = ["Gallery", "Shown"]

WORST = 12  # of each sort
SIDE = 640  # pixels at most
SLENDER = 3  # times as long as wide; of a longer picture a part is shown
FOUND = np.array([1.0, 0.23, 0.19], np.float32)
TRUTH = np.array([0.10, 0.55, 1.0], np.float32)


@dataclass(frozen=True, order=True)
class Shown:
    """A picture in the gallery: how bad it is, its name, whether it is good, its score and an image as a data URI."""

    rank: float
    picture: str
    good: bool
    score: float = field(compare=False)
    image: str = field(compare=False)


class Gallery:
    """The defective pictures with the lowest scores, and the good ones with the highest.

    Whatever the number of pictures, it holds WORST of each.
    """

    def __init__(self) -> None:
        self._misses: list[Shown] = []
        self._alarms: list[Shown] = []

    def shown(
        self,
        name: str,
        score: float,
        good: bool,
        picture: NDArray[np.float32],
        mask: NDArray[np.bool_],
        truth: NDArray[np.bool_] | None,
    ) -> Shown | None:
        """What `keep` is to keep of a picture; None if it is not among the worst.

        Parameters
        ----------
        picture : (H, W) or (H, W, C) in [0, 1]
        mask, truth : (H, W), what was found and what is marked
        """
        rank = score if good else -score
        heap = self._alarms if good else self._misses
        if len(heap) == WORST and rank <= heap[0].rank:
            return None
        return Shown(rank, name, good, score, _image(picture, mask, truth))

    def keep(self, shown: Shown) -> None:
        """Keep a picture, in the place of the least bad one if there are enough."""
        heap = self._alarms if shown.good else self._misses
        (heapq.heappush if len(heap) < WORST else heapq.heapreplace)(heap, shown)

    @property
    def misses(self) -> list[Shown]:
        """Defective pictures, the lowest score first."""
        return sorted(self._misses, key=_order)

    @property
    def false_alarms(self) -> list[Shown]:
        """Good pictures, the highest score first."""
        return sorted(self._alarms, key=_order)


def _part(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The whole picture, or of a slender one as many of its shorter sides as SLENDER says."""
    sides = marked.shape
    long = int(np.argmax(sides))
    reach = SLENDER * min(sides)
    if sides[long] <= reach:
        return slice(None), slice(None)
    places = np.flatnonzero(marked.any(1 - long))
    middle = int(np.median(places)) if len(places) else sides[long] // 2
    start = min(max(middle - reach // 2, 0), sides[long] - reach)
    cut = slice(start, start + reach)
    return (cut, slice(None)) if long == 0 else (slice(None), cut)


def _order(shown: Shown) -> tuple[float, str]:
    return -shown.rank, shown.picture


def _image(picture: NDArray[np.float32], mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> str:
    """The picture with outlines, as a data URI; what is marked goes over what was found.

    Of a slender picture it is the part around what is marked, or else around what was found.
    """
    part = _part(mask if truth is None or not truth.any() else truth)
    picture, mask, truth = picture[part], mask[part], None if truth is None else truth[part]
    shrink = max(1.0, max(picture.shape[:2]) / SIDE)
    size = tuple(max(1, round(side / shrink)) for side in picture.shape[1::-1])
    grey = np.round(to_channels(picture, 3) * 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), np.float32) / 255
    for marked, colour in ((mask, FOUND), (truth, TRUTH)):
        if marked is not None and marked.any():
            share = Image.fromarray(marked.astype(np.float32)).resize(size, Image.Resampling.BOX)
            inside = np.asarray(share) > 0
            small[ndimage.binary_dilation(inside, np.ones((3, 3), np.bool_), iterations=2) & ~inside] = colour
    encoded = io.BytesIO()
    Image.fromarray(np.round(small * 255).astype(np.uint8)).save(encoded, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
