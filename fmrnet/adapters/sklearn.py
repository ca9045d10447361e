"""FMR-Net as an outlier detector of scikit-learn.

>>> from fmrnet.adapters.sklearn import FMRNetDetector
>>> detector = FMRNetDetector(preset="instant").fit("good")  # doctest: +SKIP
>>> detector.predict(["panels/7.png", "panels/8.png"])  # doctest: +SKIP
array([ 1, -1])
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from fmrnet.config import preset as settings
from fmrnet.inspection.inspector import Inspector, Level
from fmrnet.learning.training import train
from fmrnet.listing import list_pictures
from fmrnet.pictures import as_picture, read_picture

__all__ = ["FMRNetDetector"]

Pictures = str | Path | Iterable[str | Path | NDArray[Any]]


class FMRNetDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns good pictures; a defective one is an outlier, -1, and a good one an inlier, 1.

    Pictures are given as a folder, or as paths or arrays (H, W) or (H, W, 3) as `fmrnet.Inspector.inspect` takes them,
    of any sizes.

    Parameters
    ----------
    preset : str
        See `fmrnet.preset`; "instant" takes seconds.
    iterations : int, optional
        Training steps; default: those of the preset.
    false_alarms : float
        Share of good pictures that may be called defective: scikit-learn's `contamination` of what is good.
    level : str
        "pixel", "patch" or "auto", see `fmrnet.Inspector.inspect`.
    roi : str, optional
        Region of interest, see `fmrnet.train`.
    bits : int, optional
        In use of a 16-bit value.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    random_state : int
        The seed of the training.

    Attributes
    ----------
    inspector_ : fmrnet.Inspector
        What was learnt; `inspector_.save` writes it to a model file.
    offset_ : float
        -1: `decision_function` is `score_samples` less this.
    """

    def __init__(
        self,
        preset: str = "general",
        *,
        iterations: int | None = None,
        false_alarms: float = 0.05,
        level: Level = "pixel",
        roi: str | None = None,
        bits: int | None = None,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.preset = preset
        self.iterations = iterations
        self.false_alarms = false_alarms
        self.level = level
        self.roi = roi
        self.bits = bits
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # pictures of any size are no matrix
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: Pictures, y: object = None) -> FMRNetDetector:
        """Learn from good pictures alone. Raises as `fmrnet.train`; `y` is ignored."""
        config = dataclasses.replace(settings(self.preset), false_alarms=self.false_alarms)
        with TemporaryDirectory(prefix="fmrnet-") as folder:
            self.inspector_: Inspector = train(
                _as_folder(X, Path(folder) / "good", self.bits),
                Path(folder) / "model.fmr",
                config=config,
                iterations=self.iterations,
                seed=self.random_state,
                device=self.device,
                bits=self.bits,
                roi=self.roi,
            )
        self.offset_ = -1.0
        return self

    def score_samples(self, X: Pictures) -> NDArray[np.float64]:
        """How good each picture is, (N,): minus its score, a multiple of the threshold.

        Raises as `Inspector.inspect`, and NotFittedError before `fit`.
        """
        check_is_fitted(self, "inspector_")
        pictures = list_pictures(X) if isinstance(X, str | Path) else X
        results = (self.inspector_.inspect(picture, self.level) for picture in pictures)
        return np.array([-result.score for result in results], np.float64)

    def decision_function(self, X: Pictures) -> NDArray[np.float64]:
        """Below 0 for defective pictures, (N,). Raises as `score_samples`."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Pictures) -> NDArray[np.int64]:
        """-1 for each defective picture and 1 for each good one, (N,). Raises as `score_samples`."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _as_folder(pictures: Pictures, folder: Path, bits: int | None) -> Path:
    """A folder with these pictures: itself, or `folder`, into which they are written in their order and to the bit."""
    if isinstance(pictures, str | Path):
        return Path(pictures)
    import tifffile

    folder.mkdir()
    for number, picture in enumerate(pictures):
        if isinstance(picture, str | Path):
            read_picture(picture, bits)  # says what is wrong under the name that was given
            shutil.copy(picture, folder / f"{number:06}-{Path(picture).name}")
        else:
            values = as_picture(picture, bits)
            kind = "minisblack" if values.ndim == 2 else "rgb"
            tifffile.imwrite(folder / f"{number:06}.tif", values, photometric=kind)
    return folder
