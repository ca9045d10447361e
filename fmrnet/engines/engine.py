"""What every engine gives, in NumPy: readings of a picture's patches, its background, its anomaly map.

An engine computes with a model. Which one it is is to make no difference to a verdict.

    Engine     what every one gives
    InParts    that a picture may be compared in parts: PyTorch, and the runtimes on graphs
    Divided    encoder and decoder apart: PyTorch
    OfNetwork  the network itself: PyTorch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.config import Config
from fmrnet.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from fmrnet.network.model import FMRNet

__all__ = [
    "BREADTH",
    "DAMAGED",
    "HALF",
    "Divided",
    "Engine",
    "Found",
    "InParts",
    "OfNetwork",
    "Part",
    "Seen",
    "all_readings",
    "decoded",
    "filled",
    "patches",
    "readings_of",
    "unpainted",
]

HALF = 6.0  # sum of the surprises, where the map is 1/2
BREADTH = 4.0  # of its slope there: few pixels are to come so near to 1 that they cannot be told apart

DAMAGED = "the model gives no number for this picture: its weights are damaged; train it again"


@dataclass(frozen=True)
class Part:
    """Where in a picture a part of it lies: what is usual there is not what is usual in the middle of a picture.

    Attributes
    ----------
    size : (H, W)
        Of the whole picture, before it is filled up.
    corner : (row, column)
        Of the part's first pixel: multiples of `fmrnet.usual.CELL`.
    """

    size: tuple[int, int]
    corner: tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """What the early exit sees of a picture.

    Attributes
    ----------
    picture : (C, H, W) float32 in [0, 1]
    readings : (K, rows, columns) float32, 0 or more
        What is known of each patch: the distance of its latent to the nearest memory entry; or what the witnesses on
        general features say together, each alone, and the coarse one of the patch as a whole. The patches are those of
        the picture filled up to `Config.multiple`: the last may reach beyond its border.
    typical : float
        The median distance of the picture's patches to memory, or of its general features to those of good pictures.
    kept : object
        What the engine needs to go on with `compare`.
    inside : (H, W) bool, or None
        Which pixels of the picture count; None: all.
    part : Part, or None
        Of which picture this is a part; None: it is a whole one.
    """

    picture: NDArray[np.float32]
    readings: NDArray[np.float32]
    typical: float
    kept: Any = None
    inside: NDArray[np.bool_] | None = None
    part: Part | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.readings).all() and np.isfinite(self.typical)):
            raise ArtifactError(DAMAGED)


@dataclass(frozen=True)
class Found:
    """What the pixel level finds in a picture.

    Attributes
    ----------
    anomaly_map : (H, W) float32
    evidence : (H, W) float32
        The same before it was brought to [0, 1].
    readings : (K, rows, columns) float32, 0 or more
        As of `Seen`: of all witnesses together, of those of the early exit, of the network's own alone.
    background : (C, H, W) float32 in [0, 1], or None
        The picture without its defects; None of a model without a generator.
    """

    anomaly_map: NDArray[np.float32]
    evidence: NDArray[np.float32]
    readings: NDArray[np.float32]
    background: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        evidence = self.evidence
        finite = all(np.isfinite(evidence[rows]).all() for rows in large.bands(evidence))
        if not (finite and np.isfinite(self.readings).all()):
            raise ArtifactError(DAMAGED)


class Engine(Protocol):
    """What computes with a model. It may be used by several threads at once."""

    @property
    def name(self) -> str:
        """Such as "torch cpu"."""

    @property
    def config(self) -> Config:
        """The settings of the model."""

    def glance(
        self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None, part: Part | None = None
    ) -> Seen:
        """What the early exit sees of a picture (C, H, W) in [0, 1]; ArtifactError if something is not finite.

        What lies outside of the mask `inside`, (H, W), does not count. `part` says of which picture it is a part, if
        it is no whole one.
        """

    def compare(self, seen: Seen) -> Found:
        """The pixel level after it. Raises as `glance`."""

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """The picture (C, H, W) as it would look without defects, of a model with a generator."""


@runtime_checkable
class InParts(Engine, Protocol):
    """An engine by which a picture, once it has been seen, may be compared in parts."""

    def surprise(self, seen: Seen) -> NDArray[np.float32]:
        """The sum of the surprises of all witnesses on general features, of a model that has them.

        (H', W'), of the picture as it is filled up.
        """

    def recalled(
        self,
        picture: NDArray[np.float32],
        readings: NDArray[np.float32],
        typical: float,
        surprise: NDArray[np.float32] | None,
        inside: NDArray[np.bool_] | None = None,
        part: Part | None = None,
    ) -> Seen:
        """What `glance` gave of a picture, from what is known of it: its surprise as `surprise` gives it."""

    def give_back(self) -> None:
        """Give the system the memory back that is kept for further pictures of the same size."""


@runtime_checkable
class Divided(Engine, Protocol):
    """An engine whose encoder and decoder can be used apart, on two machines, with a model that has a generator."""

    def features(self, picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """EL_5, EL_4 and EL_3 of a picture (C, H, W) in [0, 1], each (B, C', h, w)."""

    def decode(self, maps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> NDArray[np.float32]:
        """The backgrounds (B, C, H, W) in [0, 1] of what `features` gives, in float16 or float32."""

    def compare_with(self, seen: Seen, restored: NDArray[np.float32]) -> Found:
        """`compare` with a background (C, H, W), filled, that another engine has painted from `features`."""


@runtime_checkable
class OfNetwork(Engine, Protocol):
    """An engine that computes with a network of PyTorch, whose weights may be changed."""

    @property
    def model(self) -> FMRNet:
        """The network."""

    def gather(self) -> bool:
        """From now on, pictures of several threads pass the network at once, where the model can; whether it can."""


def decoded(engine: Engine, maps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> NDArray[np.float32]:
    """The backgrounds that the decoder alone paints, (B, C, H, W) in [0, 1], from EL_5, EL_4 and EL_3.

    Raises
    ------
    ConfigError
        If the model has no decoder, or the engine does not offer it alone.
    """
    if not engine.config.generator:
        raise ConfigError("this model has no generator, and so no decoder")
    if not isinstance(engine, Divided):
        raise ConfigError(f"engine {engine.name} does not offer the decoder alone: expected engine torch")
    return engine.decode(maps)


def filled(picture: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """A picture (C, H, W), mirrored at its lower and right border as `FMRNet.filled` does it: (C, H', W')."""
    missing = [(0, -side % multiple) for side in picture.shape[1:]]
    return np.pad(picture, ((0, 0), *missing), mode="reflect")


def all_readings(config: Config, seen: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """The readings at pixel level from those of the early exit and those that the pixel level adds."""
    if not config.generator:
        return seen
    return np.concatenate((own[:1], seen[1:], own[1:])) if config.general else own


def patches(length: int, size: int, step: int) -> int:
    """How many patches, `step` apart, it takes to cover so many pixels; the last may reach beyond them.

    >>> patches(64, 64, 32), patches(65, 64, 32), patches(128, 64, 32)
    (1, 2, 3)
    """
    return 1 - -max(length - size, 0) // step


def readings_of(
    config: Config, readings: NDArray[np.float32], rows: slice, columns: slice
) -> NDArray[np.float32]:
    """The readings of a part of a picture, in whole cells: those of patches half a patch apart.

    Without general features, those of the early exit are no part of what the pixel level says: then they are left.
    """
    if not config.general:
        return readings
    size = config.patch_size
    places = (
        slice(
            side.start // (size // 2),
            side.start // (size // 2) + patches(side.stop - side.start, size, size // 2),
        )
        for side in (rows, columns)
    )
    return readings[:, *places]


def unpainted(config: Config, seen: Seen, surprise: NDArray[np.float32]) -> Found:
    """What the pixel level would find if the network's own witnesses were not surprised anywhere.

    Parameters
    ----------
    config : Config
        With general features and a generator.
    seen : Seen
    surprise : (H, W) float32
        The sum of the surprises of all witnesses on general features.
    """
    mapped = 1 / (1 + np.exp((HALF - surprise) / BREADTH))
    own = np.stack((seen.readings[0], np.zeros_like(seen.readings[0])))
    if seen.inside is not None:
        mapped = mapped * seen.inside
    return Found(
        mapped.astype(np.float32), surprise, all_readings(config, seen.readings, own), seen.picture.copy()
    )
