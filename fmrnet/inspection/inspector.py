"""The inspection path, from a picture to what is wrong with it.

image -> patches -> encoder -> distance to memory -> early exit, if that settles it -> address memory ->
decoder with texton rearrangement -> stitch -> anomaly map -> threshold.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmrnet import artifact, devices, fast
from fmrnet.config import Config
from fmrnet.errors import ArtifactError, ConfigError, PictureError
from fmrnet.inspection import background
from fmrnet.inspection.calibration import Calibration, calibrate, picture_score
from fmrnet.inspection.limits import few_bits, look
from fmrnet.network.model import FMRNet
from fmrnet.network.weights import restore
from fmrnet.pictures import as_picture, read_picture, to_channels

__all__ = ["Inspector", "Level", "Result", "load"]

Level = Literal["patch", "pixel", "auto"]


@dataclass(frozen=True)
class Result:
    """What an inspection found.

    Attributes
    ----------
    score : float
        How anomalous the picture is, as a multiple of its level's threshold: above 1 is defective. Of a picture that
        passes a limit as a whole, the multiple of that limit if it is more.
    defective : bool
    level : str
        "patch" if the early exit settled it, "pixel" if the anomaly map was made.
    patch_scores : (rows, columns) float32
        Distance of each patch's latent to its nearest memory entry. Patches lie `Config.stride` apart, the last
        of a row or column flush with the border. With general features, how surprising they are, see
        `fmrnet.inspection.background.Glance`; patches lie half a patch apart, the last may reach beyond the border.
    anomaly_map : (H, W) float32, or None at patch level
    mask : (H, W) bool, or None at patch level
        Pixels whose anomaly passes the calibrated k-sigma threshold.
    seconds : float
        Time the inspection took, reading the file included.
    reasons : tuple of str
        The limits of good pictures as a whole that this picture passes, see `fmrnet.inspection.limits`; none for most
        defective pictures, which are like the good ones but for a defect.
    """

    score: float
    defective: bool
    level: str
    patch_scores: NDArray[np.float32]
    anomaly_map: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    seconds: float
    reasons: tuple[str, ...] = ()


class Inspector:
    """A trained, calibrated FMR-Net. Made by `fmrnet.train` or `fmrnet.load`.

    Parameters
    ----------
    model : FMRNet
        With an established memory bank.
    calibration : Calibration
    provenance : dict
        Where the model comes from, JSON-ready.

    Raises
    ------
    ArtifactError
        If the calibration is of another number of channels than the model.
    """

    def __init__(self, model: FMRNet, calibration: Calibration, provenance: dict[str, Any]) -> None:
        if (channels := len(calibration.limits.level)) != model.config.image_channels:
            expected = model.config.image_channels
            raise ArtifactError(f"limits of {channels} channels for a model of {expected}; train it again")
        self.model = model.eval().requires_grad_(False)
        self.calibration = calibration
        self.provenance = provenance

    @property
    def config(self) -> Config:
        """The settings of the network, its training and its inspection."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.mean.device

    @property
    def bits(self) -> int | None:
        """How many bits of a 16-bit picture's values are in use, as `fmrnet.pictures.read_picture` takes it.

        The number that the model was trained with; set it for another camera. It is saved with the model.
        """
        bits: int | None = self.provenance.get("bits")
        return bits

    @bits.setter
    def bits(self, bits: int | None) -> None:
        self.provenance["bits"] = bits

    def inspect(self, image: str | Path | NDArray[Any], level: Level = "pixel") -> Result:
        """Find the defects of one picture.

        Parameters
        ----------
        image : path, or array (H, W) or (H, W, C)
            uint8, uint16 or float in [0, 1]; any size from one patch up; grey, or colour in the order red, green,
            blue (of OpenCV's arrays `image[:, :, ::-1]`). Or a Pillow image.
        level : "patch", "pixel" or "auto"
            "pixel" reconstructs the background, if there is a generator, and makes the map. "patch" stops at the early
            exit's scores. "auto" goes on to "pixel" only if some patch lies beyond the patch threshold: faster, and as
            blind as "patch" to the defects that these do not show. `fmrnet evaluate` tells how many these are.

        Raises
        ------
        PictureError
            If the picture cannot be read, is smaller than a patch, or holds values outside its range.
        ConfigError
            If the level is none of the three.
        """
        if level not in get_args(Level):
            raise ConfigError(f"level {level!r}: expected one of {', '.join(get_args(Level))}")
        started = time.perf_counter()
        calibration = self.calibration
        picture = self._picture(image)
        glance = background.glance(self.model, picture)
        patch_scores = glance.patch_scores.cpu().numpy()
        seen = look(picture)
        score = float(patch_scores.max()) / calibration.patch_threshold
        passed = calibration.limits.passed_by(seen, glance.typical)
        found, mask = None, None
        if level == "pixel" or (level == "auto" and (score > 1 or passed)):
            compared = background.compare(self.model, glance)
            score = picture_score(compared.alarm_map, self.config.patch_size) / calibration.picture_threshold
            found = compared.anomaly_map.cpu().numpy()
            mask = found > calibration.pixel_threshold
            passed = calibration.limits.passed_by(seen, glance.typical, float(mask.mean()))
        score = max(score, *(limit.times for limit in passed), 0.0)
        if not math.isfinite(score):
            raise ArtifactError(background.DAMAGED)
        reasons = tuple(limit.reason for limit in passed)
        if reasons and (hint := few_bits(picture)) is not None:
            reasons = (*reasons, hint)
        return Result(
            score=score,
            defective=score > 1,
            level="patch" if found is None else "pixel",
            patch_scores=patch_scores,
            anomaly_map=found,
            mask=mask,
            seconds=time.perf_counter() - started,
            reasons=reasons,
        )

    def reconstruct(self, image: str | Path | NDArray[Any]) -> NDArray[np.float32]:
        """The restored background of a picture: (H, W, C) float32 in [0, 1].

        Raises as `inspect`, and ConfigError if the model has no generator.
        """
        restored = self._restored(self._picture(image))
        return restored.permute(1, 2, 0).cpu().numpy()

    def modality_maps(self, image: str | Path | NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Each modality's anomaly map before the fusion, by name: (H, W) float32. Raises as `reconstruct`."""
        picture = self._picture(image)
        restored = self._restored(picture)
        _, maps = fast.anomaly_map(
            picture[None], restored[None], median=self.config.median, return_modalities=True
        )
        return {name: values[0].cpu().numpy() for name, values in maps.items()}

    def calibrate(
        self,
        good: Iterable[str | Path | NDArray[Any]],
        *,
        k: float | None = None,
        patch_quantile: float | None = None,
    ) -> Calibration:
        """Set the thresholds anew from good pictures, say of another camera; gives the new calibration.

        See `fmrnet.inspection.calibration.calibrate` for what they are. Of five pictures and more, those that are
        unlike the others are left out and named in `Calibration.suspects`. All are read before the first is used.

        Raises
        ------
        ConfigError
            If `k` or `patch_quantile` is outside its range.
        DatasetError
            If no picture is given.
        PictureError
            As `inspect`; names every picture that cannot be used.
        """
        config = dataclasses.replace(  # which checks them
            self.config,
            k=self.config.k if k is None else k,
            patch_quantile=self.config.patch_quantile if patch_quantile is None else patch_quantile,
        )
        pictures = list(good)
        names = [
            str(image) if isinstance(image, str | Path) else f"picture {n}"
            for n, image in enumerate(pictures)
        ]
        sizes, errors = [], []
        for image, name in zip(pictures, names, strict=True):
            try:
                sizes.append(self._picture(image)[0].numel())
            except PictureError as error:
                errors.append(str(error) if name in str(error) else f"{name}: {error}")
        if errors:
            raise PictureError("; ".join(errors))
        self.calibration = calibrate(
            self.model,
            (self._picture(image) for image in pictures),
            pixels=round(statistics.median(sizes or [0])),
            k=config.k,
            patch_quantile=config.patch_quantile,
            names=names,
        )
        return self.calibration

    def save(self, path: str | Path) -> None:
        """Write the model, its calibration and its provenance to one file.

        Raises
        ------
        ArtifactError
            If `load` would not take the file, say for weights that are not finite, or `path` is no place for one.
        """
        weights = self.model.state_dict()
        try:
            restore(self.config, weights)
        except ArtifactError as error:
            raise ArtifactError(f"{path} is not written: {error}") from error
        artifact.save(
            artifact.Artifact(self.config, self.calibration.to_dict(), self.provenance, weights), path
        )

    def _restored(self, picture: Tensor) -> Tensor:
        if not self.config.generator:
            raise ConfigError(
                "this model has no generator, and restores no background; train one with another preset than instant"
            )
        return background.restore(self.model, background.encode(self.model, picture))

    def _picture(self, image: str | Path | NDArray[Any]) -> Tensor:
        """(C, H, W) in [0, 1] on the network's device, at least a patch large."""
        bits = self.bits
        given = read_picture(image, bits) if isinstance(image, str | Path) else as_picture(image, bits)
        picture = to_channels(given, self.config.image_channels)
        height, width, _ = picture.shape
        size = self.config.patch_size
        if min(height, width) < size:
            named = f"{image}: " if isinstance(image, str | Path) else ""
            raise PictureError(
                f"{named}{width}x{height} pixels, smaller than a patch of {size}x{size}; enlarge it"
            )
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).to(self.device)


def load(path: str | Path, device: str = "auto") -> Inspector:
    """The inspector in a model file.

    Parameters
    ----------
    path : path
        Written by `fmrnet.train` or `Inspector.save`.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ArtifactError
        If the file is missing, no model, truncated, altered, of a newer format, or holds settings, thresholds or
        weights that are out of range or do not fit each other.
    ConfigError
        If there is no such device.
    """
    where = devices.choose_device(device)
    content = artifact.load(path)
    try:
        calibration = Calibration.from_dict(content.calibration)
    except ArtifactError as error:
        raise ArtifactError(f"{path} holds settings that this release does not take: {error}") from error
    try:
        model = restore(content.config, content.weights)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: the weights do not fit the settings: {error}") from error
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Inspector(model, calibration, content.provenance)
