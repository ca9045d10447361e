"""Every hypothesis strategy of the kernel tests: shapes, values, dtypes and memory layouts. The simplest come first."""

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LAYOUTS", "PICTURES", "VALUES", "fill", "laid_out", "layouts", "pictures", "seeds", "values"]

Array = NDArray[np.float64]

LAYOUTS = ("contiguous", "transposed", "sliced", "expanded batch", "channels_last")
VALUES = ("zeros", "one-hot", "constant", "normal", "tiny", "huge")
PICTURES = ("unrelated", "nearly equal", "equal", "constant", "black", "binary")

seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)
values = st.sampled_from(VALUES)


def fill(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    """float64 data of one kind: what a network sees on good days, and the extremes."""
    rng = np.random.default_rng(seed)
    if kind == "zeros":
        return np.zeros(shape)
    if kind == "constant":
        return np.full(shape, rng.normal())
    if kind == "one-hot":  # almost all zeros: blocks of norm 0 beside blocks of norm 1
        data = np.zeros(shape)
        if data.size:
            data.flat[rng.integers(data.size)] = 1.0
        return data
    return rng.normal(size=shape) * {"normal": 1.0, "huge": 3e3, "tiny": 1e-3}[kind]


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values (of a tensor with 2 to 4 axes) in another memory layout, where it has one."""
    if layout == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":  # a window of a larger tensor: every stride is wider than the shape says
        ends = [(1, 0), (0, 1), (2, 1), (1, 1)][-tensor.ndim :]
        larger = tensor.new_full([n + a + b for n, (a, b) in zip(tensor.shape, ends)], torch.nan)
        window = larger[tuple(slice(a, a + n) for n, (a, _) in zip(tensor.shape, ends))]
        window.copy_(tensor)
        return window
    if layout == "transposed":
        return tensor.mT.contiguous().mT
    if layout == "expanded batch" and len(tensor) == 1:  # stride 0
        return tensor[0].expand(1, *tensor.shape[1:])
    return tensor.contiguous()


@st.composite
def pictures(draw: st.DrawFn, *, side: int = 20, channels: int = 4) -> tuple[Array, Array]:
    """Two pictures (B, C, H, W) in [0, 1]: unrelated, nearly equal, equal, constant, black, or binary."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, channels)),
        draw(st.integers(1, side)),
        draw(st.integers(1, side)),
    )
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(PICTURES))
    image = rng.random(shape)
    if kind == "constant":
        image = np.full(shape, rng.random())
    elif kind == "black":
        image = np.zeros(shape)
    elif kind == "binary":
        image = np.round(image)
    if kind == "equal":
        return image, image.copy()
    if kind == "nearly equal":
        return image, np.clip(image + 1e-3 * rng.normal(size=shape), 0, 1)
    return image, rng.random(shape)
