"""An engine whose decoder is elsewhere: features go there, a background comes back, and the picture stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmrnet.config import Config
from fmrnet.deployment.features import SCALES, pack
from fmrnet.deployment.suspect import Box
from fmrnet.engines.engine import Divided, Engine, Found, Part, Seen, filled
from fmrnet.errors import ConfigError

__all__ = ["DecoderElsewhere", "divided"]

CELL = 32  # pixels of a side of EL_5's cells


class DecoderElsewhere:
    """Computes all but the background with another engine. It may be used by several threads at once.

    Parameters
    ----------
    engine : Divided
        One that `divided` gives.
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
        engine: Divided,
        paint: Callable[[bytes], NDArray[np.float32]],
        width: Literal[1, 2] = 2,
        box: Box | None = None,
    ) -> None:
        self._engine = engine
        self._paint, self._width, self._box = paint, width, box

    @property
    def name(self) -> str:
        """That of the engine."""
        return self._engine.name

    @property
    def config(self) -> Config:
        """The settings of the model."""
        return self._engine.config

    def glance(
        self, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None, part: Part | None = None
    ) -> Seen:
        """As `fmrnet.engines.engine.Engine`."""
        return self._engine.glance(picture, inside, part)

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
        return self._engine.compare_with(seen, background)

    def restore(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `fmrnet.engines.engine.Engine`, here."""
        return self._engine.restore(picture)


def divided(engine: Engine) -> Divided:
    """The engine, whose decoder can be elsewhere; ConfigError, in words of what to do, if it or its model cannot."""
    if not engine.config.generator or engine.config.tile != "picture":
        raise ConfigError(
            "features cannot go up: this model has no decoder, or cuts pictures into patches beforehand; send pictures"
        )
    if not isinstance(engine, Divided):
        raise ConfigError(
            f"features cannot go up: engine {engine.name} gives none; use --engine torch, or send pictures"
        )
    return engine
