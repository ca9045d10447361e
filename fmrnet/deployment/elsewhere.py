"""An engine whose decoder is elsewhere: features go there, a background comes back, and the picture stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fmrnet.config import Config
from fmrnet.deployment.features import SCALES, pack
from fmrnet.deployment.suspect import Box
from fmrnet.engines.engine import Engine, Found, Seen, filled
from fmrnet.errors import ConfigError

__all__ = ["DecoderElsewhere", "check"]

CELL = 32  # pixels of a side of EL_5's cells


class DecoderElsewhere:
    """Computes all but the background with another engine. It may be used by several threads at once.

    Parameters
    ----------
    engine : Engine
        One that `check` lets pass.
    paint : function
        From packed features to backgrounds (1, C, H, W), as `fmrnet.engines.engine.decoded`; what it raises, `compare`
        raises.
    width : 1 or 2
        Bytes a value of what goes there.
    box : Box, optional
        What of the filled picture goes there. Outside of it the picture stands for its own background, and nothing
        differs. Default: all of it.
    """

    def __init__(
        self,
        engine: Engine,
        paint: Callable[[bytes], NDArray[np.float32]],
        width: Literal[1, 2] = 2,
        box: Box | None = None,
    ) -> None:
        self._engine: Any = engine
        self._paint, self._width, self._box = paint, width, box

    @property
    def name(self) -> str:
        """That of the engine."""
        return str(self._engine.name)

    @property
    def config(self) -> Config:
        """The settings of the model."""
        config: Config = self._engine.config
        return config

    def glance(self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        seen: Seen = self._engine.glance(picture, inside)
        return seen

    def compare(self, seen: Seen) -> Found:
        """As `fmrnet.engines.engine.Engine`, with the background from elsewhere."""
        maps = self._engine.features(seen.picture)
        background = filled(seen.picture, self.config.multiple)
        box = self._box or (slice(0, background.shape[1]), slice(0, background.shape[2]))
        cut = tuple(
            one[:, :, *(slice(side.start * scale // CELL, side.stop * scale // CELL) for side in box)]
            for one, scale in zip(maps, SCALES, strict=True)
        )
        background[:, *box] = self._paint(pack((cut[0], cut[1], cut[2]), self._width))[0]
        found: Found = self._engine.compare_with(seen, background)
        return found

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Engine`, here."""
        restored: NDArray[np.float32] = self._engine.restore(picture)
        return restored


def check(engine: Engine) -> None:
    """ConfigError, in words of what to do, if an engine or its model cannot have its decoder elsewhere."""
    if not engine.config.generator or engine.config.tile != "picture":
        raise ConfigError(
            "features cannot go up: this model has no decoder, or cuts pictures into patches beforehand; send pictures"
        )
    if not hasattr(engine, "features"):
        raise ConfigError(
            f"features cannot go up: engine {engine.name} gives none; use --engine torch, or send pictures"
        )
