"""Pictures of several threads pass a network at once, without waiting for each other.

While a batch passes, calls gather; whoever is next takes with it all that wait with a picture of the same size. Alone,
a call waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Meeting"]


class _Call:
    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.found: list[Tensor] | None = None


class Meeting:
    """A function of a batch of pictures, called with one picture at a time by several threads.

    Parameters
    ----------
    function : callable
        Tensors (B, ...) of pictures (B, C, H, W).
    most_pixels : int
        Of a batch; a larger picture passes alone.
    turn : Lock
        Held while a batch passes; those that share it pass one after the other.
    """

    def __init__(
        self, function: Callable[[Tensor], Sequence[Tensor]], most_pixels: int, turn: threading.Lock
    ) -> None:
        self._function, self._most_pixels, self._turn = function, most_pixels, turn
        self._waiting: list[_Call] = []
        self._changing = threading.Lock()

    def __call__(self, picture: Tensor) -> list[Tensor]:
        """The tensors (1, ...) of one picture (C, H, W). Raises what the function raises."""
        own = _Call(picture)
        with self._changing:
            self._waiting.append(own)
        with self._turn:
            if own.found is None:
                self._pass(own)
        assert own.found is not None
        return own.found

    def _pass(self, own: _Call) -> None:
        """Let a picture pass, and with it others of its size; if they fail together, it passes alone."""
        with self._changing:
            self._waiting.remove(own)
            alike = [call for call in self._waiting if call.picture.shape == own.picture.shape]
            others = alike[: max(0, self._most_pixels // own.picture[0].numel() - 1)]
        try:
            found = self._tensors([own, *others])
        except RuntimeError:  # say there is no memory for all of them
            if not others:
                raise
            found, others = self._tensors([own]), []
        for number, call in enumerate([own, *others]):
            call.found = [tensor[number : number + 1] for tensor in found]
        with self._changing:
            self._waiting = [call for call in self._waiting if call.found is None]

    @torch.no_grad()
    def _tensors(self, calls: list[_Call]) -> Sequence[Tensor]:
        return self._function(torch.stack([call.picture for call in calls]))
