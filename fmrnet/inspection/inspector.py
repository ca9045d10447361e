"""The inspection path, from a picture to what is wrong with it.

image -> patches -> encoder -> distance to memory -> early exit, if that settles it -> address memory ->
decoder with texton rearrangement -> stitch -> anomaly map -> threshold.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fmrnet import artifact, large
from fmrnet.config import Config
from fmrnet.engines import tiles
from fmrnet.engines.choice import choose
from fmrnet.engines.engine import DAMAGED, Engine, OfNetwork, filled
from fmrnet.errors import ArtifactError, ConfigError, DatasetError, PictureError, SizeError
from fmrnet.inspection.calibration import Calibration, calibrate
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.limits import Look, few_bits, look
from fmrnet.inspection.region import Region
from fmrnet.pictures import as_picture, read_picture, to_channels

if TYPE_CHECKING:
    from fmrnet.network.model import FMRNet

__all__ = ["Inspector", "Level", "Result", "load"]

FEWEST_GOOD = 2  # pictures to calibrate on
Level = Literal["patch", "pixel", "auto"]


@dataclass(frozen=True)
class Result:
    """What an inspection found.

    Attributes
    ----------
    score : float
        How surprising the picture is, as a multiple of its level's threshold: above 1 is defective. Surprise is a
        logarithm of a probability, see `fmrnet.inspection.good_scores`. Of a picture that passes a limit as a whole,
        the multiple of that limit if it is more.
    defective : bool
    p_value : float
        The share of good pictures that are as surprising, see `fmrnet.inspection.good_scores`. A picture is defective
        if this is at most the rate of false alarms.
    level : str
        "patch" if the early exit settled it, "pixel" if the anomaly map was made.
    patch_scores : (rows, columns) float32
        Distance of each patch's latent to its nearest memory entry. Patches lie `Config.stride` apart, the last
        of a row or column flush with the border of the picture as it is filled up. With general features, how
        surprising they are; patches lie half a patch apart. See `fmrnet.engines.engine.Seen`.
    patch_p_values : (rows, columns) float64
        The share of good pictures with a patch as surprising as this one anywhere.
    anomaly_map : (H, W) float32, or None at patch level
    mask : (H, W) bool, or None at patch level
        `Calibration.mask`; none in a picture that is not defective.
    marked : (H, W) bool, or None at patch level
        The mask that the picture has at a rate of false alarms at which it is defective.
    background : (H, W, C) float32 in [0, 1], or None at patch level and of a model without a generator
        The picture as it would look without defects, which it was compared with.
    pixel_p_values : (rows, columns) float64, or None at patch level
        As `patch_p_values`, with all that the pixel level knows; patches lie half a patch apart.
    seconds : float
        Time the inspection took, reading the file included.
    look : Look
        What the picture looks like as a whole, see `fmrnet.inspection.limits`.
    reasons : tuple of str
        The limits of good pictures as a whole that this picture passes, see `fmrnet.inspection.limits`; none for most
        defective pictures, which are like the good ones but for a defect.
    settled : bool
        Whether level "auto" would ask no further: the early exit is sure that the picture is good, or the anomaly map
        was made.
    """

    score: float
    defective: bool
    p_value: float
    level: str
    patch_scores: NDArray[np.float32]
    patch_p_values: NDArray[np.float64]
    anomaly_map: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    seconds: float
    look: Look
    reasons: tuple[str, ...] = ()
    settled: bool = False
    marked: NDArray[np.bool_] | None = None
    background: NDArray[np.float32] | None = None
    pixel_p_values: NDArray[np.float64] | None = None

    @property
    def pred_score(self) -> float:
        """The score as anomalib has it, from 0 to 1, above 0.5 where the picture is defective: score / (1 + score)."""
        return self.score / (1 + self.score)

    @property
    def pred_label(self) -> bool:
        """anomalib's name of `defective`."""
        return self.defective

    @property
    def pred_mask(self) -> NDArray[np.bool_] | None:
        """anomalib's name of `mask`."""
        return self.mask


class Inspector:
    """A trained, calibrated FMR-Net. Made by `fmrnet.train` or `fmrnet.load`.

    Parameters
    ----------
    engine : Engine
        What computes; `fmrnet.engines.torch_engine.TorchEngine` of a network, or one on graphs.
    calibration : Calibration, or None
        None of a model that is to be calibrated before it can inspect.
    provenance : dict
        Where the model comes from, JSON-ready.
    content : Artifact, optional
        The model file, whose graphs `save` writes again, and its weights if the engine has no network. Default: there
        are no graphs.

    Raises
    ------
    ArtifactError
        If the calibration is of another number of channels than the model.
    """

    def __init__(
        self,
        engine: Engine,
        calibration: Calibration | None,
        provenance: dict[str, Any],
        content: artifact.Artifact | None = None,
    ) -> None:
        if calibration and (channels := len(calibration.limits.level)) != engine.config.image_channels:
            expected = engine.config.image_channels
            raise ArtifactError(f"limits of {channels} channels for a model of {expected}; train it again")
        self.engine = engine
        self._calibration = calibration
        self.provenance = provenance
        self._content = content
        stored = provenance.get("region")
        self._region = None if stored is None else Region.from_dict(stored)

    @property
    def calibration(self) -> Calibration:
        """What good pictures score; ArtifactError if the model has not been calibrated."""
        if self._calibration is None:
            raise ArtifactError("the model is not calibrated; run `fmrnet calibrate` with good pictures")
        return self._calibration

    @property
    def false_alarms(self) -> float:
        """The share of good pictures that may be called defective; set it to decide otherwise.

        ConfigError if it is set to something that is not between 0 and 1. It is saved with the model.
        """
        return self.calibration.false_alarms

    @false_alarms.setter
    def false_alarms(self, rate: float) -> None:
        self._calibration = self.calibration.at(rate)

    @property
    def model(self) -> FMRNet:
        """The network in PyTorch, which computes from then on, for its weights may be changed.

        Raises
        ------
        ConfigError
            If PyTorch is not installed, or the inspector was made without it and without a model file.
        """
        if not isinstance(self.engine, OfNetwork) and self._content is not None:
            self.engine = choose(self._content, "cpu", "torch")
        from fmrnet.engines.torch_engine import model_of

        return model_of(self.engine)

    @property
    def config(self) -> Config:
        """The settings of the network, its training and its inspection."""
        return self.engine.config

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

    @property
    def region(self) -> Region | None:
        """The part of a picture that is inspected, see `fmrnet.inspection.region`; None: all of it.

        That of the good pictures; set it to inspect another one. ConfigError if no patch lies in it. It is saved with
        the model.
        """
        return self._region

    @region.setter
    def region(self, region: Region | None) -> None:
        if region is not None:
            region.check(self.config.patch_size)
        self._region = region
        self.provenance["region"] = None if region is None else region.to_dict()

    def inspect(self, image: str | Path | NDArray[Any], level: Level = "pixel") -> Result:
        """Find the defects of one picture.

        Parameters
        ----------
        image : path, or array (H, W) or (H, W, C)
            uint8, uint16 or float in [0, 1]; any size from one patch up; grey, or colour in the order red, green,
            blue (of OpenCV's arrays `image[:, :, ::-1]`). Or a Pillow image.
        level : "patch", "pixel" or "auto"
            "pixel" reconstructs the background, if there is a generator, and makes the map. "patch" stops at the early
            exit's scores. "auto" goes on to "pixel" unless the exit is sure that the picture is good: of the pictures
            that "pixel" would call defective, at most 1 % are to leave so, see `fmrnet.inspection.early_exit`.

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
        whole = self._whole(image)
        picture, inside = self._picture(image, whole), self._inside
        calibration = self.calibration.of_size(picture[0].size if inside is None else int(inside.sum()))
        glance = tiles.glance(self.engine, picture, inside)
        seen = look(picture, inside)
        passed = calibration.limits.passed_by(seen, glance.typical)
        good = calibration.patch
        surprises = good.surprise(glance.readings)
        patch_p_values = good.p_values(surprises)
        surprise, found, mask, background, pixel_p_values = float(surprises.max()), None, None, None, None
        settled = not passed and calibration.is_settled(surprise)
        if level == "pixel" or (level == "auto" and not settled):
            suspect = self._suspect(patch_p_values) if level == "auto" and not passed else None
            compared = tiles.compare(self.engine, glance, suspect)
            good = calibration.picture
            surprises = good.surprise(compared.readings)
            pixel_p_values = good.p_values(surprises)
            surprise = float(surprises.max())
            found = compared.anomaly_map
            if compared.background is not None:
                background = compared.background.transpose(1, 2, 0)
            mask = calibration.mask(compared)
            marked = large.by_bands(lambda values: values > calibration.pixel_threshold, found)
            share = float((marked if inside is None else marked[inside]).mean())
            passed = calibration.limits.passed_by(seen, glance.typical, share)
        threshold = good.threshold(calibration.false_alarms)
        times = max(surprise / threshold, *(limit.times for limit in passed), 0.0)
        if not math.isfinite(times):
            raise ArtifactError(DAMAGED)
        reasons = tuple(limit.reason for limit in passed)
        if self.region is not None and found is not None and mask is not None:
            found, mask = (self.region.spread(values, *whole.shape[:2]) for values in (found, mask))
        if self.region is not None and background is not None:
            background = self.region.laid(background, whole)
        if reasons and (hint := few_bits(picture)) is not None:
            reasons = (*reasons, hint)
        return Result(
            score=times,
            defective=times > 1,
            p_value=good.p_value(max(surprise, times * threshold) if passed else surprise),
            level="patch" if found is None else "pixel",
            patch_scores=glance.readings[0],
            patch_p_values=patch_p_values,
            anomaly_map=found,
            mask=mask if mask is None or times > 1 else large.zeros(mask.shape, np.bool_),
            seconds=time.perf_counter() - started,
            look=seen,
            reasons=reasons,
            settled=settled or found is not None,
            marked=mask,
            background=background,
            pixel_p_values=pixel_p_values,
        )

    def reconstruct(self, image: str | Path | NDArray[Any]) -> NDArray[np.float32]:
        """The restored background of a picture: (H, W, C) float32 in [0, 1]; outside of the region, as it is.

        Raises as `inspect`, and ConfigError if the model has no generator.
        """
        whole = self._whole(image)
        restored = self._restored(self._picture(image, whole)).transpose(1, 2, 0)
        return restored if self.region is None else self.region.laid(restored, whole)

    def modality_maps(self, image: str | Path | NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Each modality's anomaly map before the fusion, by name: (H, W) float32; 0 outside of the region. By PyTorch.

        Raises as `reconstruct`.
        """
        given = self._whole(image)
        picture = self._picture(image, given)
        whole = filled(picture, self.config.multiple)
        restored = self._restored(whole)
        from fmrnet.engines.torch_engine import modality_maps

        maps = modality_maps(whole, restored, self.config.median)
        _, height, width = picture.shape
        cut = {name: values[:height, :width] for name, values in maps.items()}
        if self.region is None:
            return cut
        return {name: self.region.spread(values, *given.shape[:2]) for name, values in cut.items()}

    def calibrate(
        self,
        good: Iterable[str | Path | NDArray[Any]],
        *,
        false_alarms: float | None = None,
        k: float | None = None,
        keep_suspects: bool = False,
    ) -> Calibration:
        """Learn anew what good pictures score, say those of another camera; gives the new calibration.

        Of five pictures and more, those that are unlike the others are left out and named in `Calibration.suspects`.
        All are read before the first is used. What is known of the early exit stays.

        Parameters
        ----------
        good : iterable of paths or arrays, as `inspect` takes them
            At least two pictures.
        false_alarms, k : float, optional
            As in `fmrnet.Config`. Default: as before.
        keep_suspects : bool
            Count pictures that are unlike the others as good ones, too.

        Raises
        ------
        ConfigError
            If `false_alarms` or `k` is outside its range.
        DatasetError
            If fewer than two pictures are given.
        PictureError
            As `inspect`; names every picture that cannot be used.
        """
        before = self._calibration
        if false_alarms is None:
            false_alarms = before.false_alarms if before else self.config.false_alarms
        config = dataclasses.replace(  # which checks them
            self.config, k=self.config.k if k is None else k, false_alarms=false_alarms
        )
        pictures = list(good)
        names = [
            str(image) if isinstance(image, str | Path) else f"picture {n}"
            for n, image in enumerate(pictures)
        ]
        if len(pictures) < FEWEST_GOOD:
            raise DatasetError(
                f"{len(pictures)} good pictures to calibrate on: expected {FEWEST_GOOD} or more, "
                "for one alone does not tell how good pictures differ"
            )
        errors = []
        for image, name in zip(pictures, names, strict=True):
            try:
                self._picture(image)
            except PictureError as error:
                errors.append(str(error) if name in str(error) else f"{name}: {error}")
        if errors:
            raise PictureError("; ".join(errors))
        self._calibration = calibrate(
            self.engine,
            ((name, self._picture(image)) for name, image in zip(names, pictures, strict=True)),
            false_alarms=config.false_alarms,
            k=config.k,
            early_exit=before.early_exit if before else EarlyExit(),
            keep_suspects=keep_suspects,
            inside=self._inside,
            corner=(0, 0) if self.region is None else (self.region.y, self.region.x),
        )
        return self._calibration

    def add_graphs(self) -> None:
        """Make the graphs by which a small runtime inspects without PyTorch; `save` writes them.

        What PyTorch alone can count is noted in the provenance beside them.

        Raises as `fmrnet.engines.torch_engine.with_graphs`.
        """
        from fmrnet.engines.torch_engine import with_graphs

        self._content, self.provenance["graphs"] = with_graphs(self._held())

    def on(self, engine: str) -> Inspector:
        """The same model as it was loaded, or given graphs, on another engine of `fmrnet.engines.choice.ENGINES`.

        Raises as `fmrnet.engines.choice.choose`.
        """
        content = self.content
        return Inspector(choose(content, "cpu", engine), self._calibration, self.provenance, content)

    @property
    def content(self) -> artifact.Artifact:
        """Settings, weights and graphs, as they were loaded or made; its calibration is not the one in force."""
        if self._content is None:
            from fmrnet.engines.torch_engine import content_of

            return content_of(self.engine)
        return self._content

    def save(self, path: str | Path) -> None:
        """Write the model, its calibration and its provenance to one file.

        Raises
        ------
        ArtifactError
            If `load` would not take the file, say for weights that are not finite, or `path` is no place for one.
        """
        try:
            held = self._held()
        except ArtifactError as error:
            raise ArtifactError(f"{path} is not written: {error}") from error
        written = dataclasses.replace(
            held, calibration=self.calibration.to_dict(), provenance=self.provenance
        )
        artifact.save(written, path)

    def _held(self) -> artifact.Artifact:
        """Settings, weights as they are now, and graphs; ArtifactError if `load` would not take the weights."""
        if self._content is not None and not isinstance(self.engine, OfNetwork):
            return self._content
        from fmrnet.engines.torch_engine import content_of  # the network's weights may have changed

        graphs = {} if self._content is None else self._content.graphs
        return dataclasses.replace(content_of(self.engine), graphs=graphs)

    def _restored(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.config.generator:
            raise ConfigError(
                "this model has no generator, and restores no background; train one with another preset than instant"
            )
        return tiles.restore(self.engine, picture)

    def _suspect(self, patch_p_values: NDArray[np.float64]) -> list[tiles.Box] | None:
        """The windows that keep a picture from leaving early; None if none does, or if no picture may leave."""
        size, found = self.config.patch_size, np.argwhere(self.calibration.suspect(patch_p_values))
        if self.calibration.exit_level == 1 or not len(found):
            return None
        corners = size // 2 * found
        return [(slice(row, row + size), slice(column, column + size)) for row, column in corners.tolist()]

    @property
    def _inside(self) -> NDArray[np.bool_] | None:
        return None if self.region is None else self.region.inside

    def _whole(self, image: str | Path | NDArray[Any]) -> NDArray[np.float32]:
        """A picture as it is given, (H, W, C) in [0, 1]."""
        given = (
            read_picture(image, self.bits) if isinstance(image, str | Path) else as_picture(image, self.bits)
        )
        return to_channels(given, self.config.image_channels)

    def _picture(
        self, image: str | Path | NDArray[Any], whole: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """What is inspected of a picture, (C, H, W) in [0, 1], at least a patch large."""
        named = f"{image}: " if isinstance(image, str | Path) else ""
        picture = self._whole(image) if whole is None else whole
        if self.region is not None:
            try:
                picture = self.region.cut(picture)
            except SizeError as error:
                raise SizeError(f"{named}{error}") from None
        height, width, _ = picture.shape
        size = self.config.patch_size
        if min(height, width) < size:
            raise SizeError(
                f"{named}{width}x{height} pixels, smaller than a patch of {size}x{size}; enlarge it"
            )
        upright = picture.transpose(2, 0, 1)
        return upright if large.is_large(upright) else np.ascontiguousarray(upright)


def load(
    path: str | Path, device: str = "auto", *, engine: str = "auto", calibrated: bool = True
) -> Inspector:
    """The inspector in a model file.

    Parameters
    ----------
    path : path
        Written by `fmrnet.train` or `Inspector.save`.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    engine : str
        "auto" or one of `fmrnet.engines.choice.ENGINES`, see there.
    calibrated : bool
        Whether the model must be calibrated. One that is to be calibrated anew need not be.

    Raises
    ------
    ArtifactError
        If the file is missing, no model, truncated, altered, of a newer format, or holds settings, thresholds or
        weights that are out of range or do not fit each other.
    ConfigError
        If there is no such device or engine, or what it needs is not installed.
    """
    content = artifact.load(path)
    calibration = None
    try:
        calibration = Calibration.from_dict(content.calibration)
    except ArtifactError as error:
        if calibrated:
            raise ArtifactError(
                f"{path} is not calibrated as this release does it; run `fmrnet calibrate {path} GOOD`: {error}"
            ) from error
    try:
        chosen = choose(content, device, engine)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return Inspector(chosen, calibration, content.provenance, content)
