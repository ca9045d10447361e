"""Every hypothesis strategy of the kernel tests: shapes, values, dtypes and memory layouts."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["LAYOUTS", "VALUES", "features", "fill", "laid_out", "layouts", "pictures", "seeds", "values"]

LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed", "expanded batch")
VALUES = ("normal", "zeros", "constant", "huge", "tiny", "one-hot")

seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)
values = st.sampled_from(VALUES)


def fill(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
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
    """The same values (of a tensor with 4 axes) in another memory layout."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":  # a window of a larger tensor: every stride is wider than the shape says
        b, c, h, w = tensor.shape
        larger = tensor.new_full((b + 1, c + 1, h + 3, w + 2), torch.nan)
        larger[1:, :c, 2 : h + 2, 1 : w + 1] = tensor
        return larger[1:, :c, 2 : h + 2, 1 : w + 1]
    if layout == "transposed":
        return tensor.mT.contiguous().mT
    if layout == "expanded batch" and len(tensor) == 1:  # stride 0
        return tensor[0].expand(1, *tensor.shape[1:])
    return tensor.contiguous()


@st.composite
def features(
    draw: st.DrawFn, *, batch: st.SearchStrategy[int], channels: int, cells: int, size: int
) -> np.ndarray:
    """Feature maps (B, C, H, W), H and W up to `cells` textons of `size` pixels, one kind of values."""
    shape = (
        draw(batch),
        draw(st.integers(1, channels)),
        draw(st.integers(1, cells)) * size,
        draw(st.integers(1, cells)) * size,
    )
    return fill(draw(values), shape, draw(seeds))


@st.composite
def pictures(draw: st.DrawFn, *, side: int = 20, channels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures (B, C, H, W) in [0, 1]: unrelated, nearly equal, equal, constant, black, or binary."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, channels)),
        draw(st.integers(1, side)),
        draw(st.integers(1, side)),
    )
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(("unrelated", "nearly equal", "equal", "constant", "black", "binary")))
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
