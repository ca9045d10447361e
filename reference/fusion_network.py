"""The U-Net of the learned fusion (not in the paper) in plain NumPy, from a trained model's own weights."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers
from .network import batch_norm, leaky_relu

FOLD = 2  # the convolutions work on blocks of 2 x 2 pixels
MULTIPLE = 8  # pixels


def fusion_logit(inputs: npt.ArrayLike, weights: Mapping[str, npt.ArrayLike]) -> Array:
    """A small U-Net on blocks of 2 x 2 pixels.

    Down: a block at 1/2 of the picture's size, two at 1/4, three at 1/8, the last of them dilated. Up: the coarser map
    through a 1 x 1 convolution, drawn twice as large, is added to the finer one, and a block follows.

    Parameters
    ----------
    inputs : (channels, H, W)
        From `fusion_inputs`.
    weights : mapping of str to array
        The model's state: fusion.stem, fusion.down.0.{0,1}, fusion.down.1.{0,1,2} and fusion.refine.{0,1} are blocks
        (see `conv_block`), fusion.up.{0,1}.weight (out, in, 1, 1), fusion.output.weight (4, in, 3, 3) and .bias (4,).

    Returns
    -------
    (H, W)

    Raises
    ------
    ValueError
        A weight is missing.
    """
    x = numbers("inputs", inputs, "(channels, H, W)")
    _, height, width = x.shape
    x = np.pad(x, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")
    half = conv_block(space_to_depth(x, FOLD), weights, "fusion.stem")
    quarter = conv_block(half, weights, "fusion.down.0.0", stride=2)
    quarter = conv_block(quarter, weights, "fusion.down.0.1")
    eighth = conv_block(quarter, weights, "fusion.down.1.0", stride=2)
    eighth = conv_block(eighth, weights, "fusion.down.1.1")
    eighth = conv_block(eighth, weights, "fusion.down.1.2", dilation=2)
    quarter = quarter + _drawn_larger(eighth, _weight(weights, "fusion.up.0.weight"))
    quarter = conv_block(quarter, weights, "fusion.refine.0")
    half = half + _drawn_larger(quarter, _weight(weights, "fusion.up.1.weight"))
    half = conv_block(half, weights, "fusion.refine.1")
    logit = conv(half, _weight(weights, "fusion.output.weight"))
    logit = logit + _weight(weights, "fusion.output.bias")[:, None, None]
    return depth_to_space(logit, FOLD)[0, :height, :width]


def conv_block(
    x: npt.ArrayLike, weights: Mapping[str, npt.ArrayLike], name: str, *, stride: int = 1, dilation: int = 1
) -> Array:
    """3 x 3 convolution, batch normalisation with the statistics of training, leaky ReLU.

    Parameters
    ----------
    x : (in, H, W)
    weights : mapping of str to array
        `name`.conv.weight (out, in, 3, 3); `name`.norm.weight, .bias, .running_mean and .running_var (out,).
    name : str
    stride, dilation : int, positive

    Returns
    -------
    (out, H / stride, W / stride)

    Raises
    ------
    ValueError
        A weight is missing.
    """
    y = conv(x, _weight(weights, f"{name}.conv.weight"), stride=stride, dilation=dilation)
    parts = ("weight", "bias", "running_mean", "running_var")
    return leaky_relu(batch_norm(y, *(_weight(weights, f"{name}.norm.{part}") for part in parts)))


def conv(x: npt.ArrayLike, weight: npt.ArrayLike, *, stride: int = 1, dilation: int = 1) -> Array:
    """3 x 3 convolution whose taps lie `dilation` pixels apart, edge pixels repeated, at every `stride`-th pixel.

    Parameters
    ----------
    x : (in, H, W)
    weight : (out, in, 3, 3)
    stride, dilation : int, positive
        The stride divides H and W.

    Returns
    -------
    (out, H / stride, W / stride)
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(out, in, 3, 3)")
    if W.shape[1:] != (len(x), 3, 3):
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, H, W) and (out, in, 3, 3)")
    _, height, width = x.shape
    d = dilation
    padded = np.pad(x, ((0, 0), (d, d), (d, d)), mode="edge")
    y = np.zeros((len(W), height // stride, width // stride))
    for m in range(3):
        for n in range(3):
            window = padded[:, m * d : m * d + height : stride, n * d : n * d + width : stride]
            y += np.tensordot(W[:, :, m, n], window, axes=1)
    return y


def space_to_depth(x: npt.ArrayLike, size: int) -> Array:
    """Blocks of size x size pixels as channels: (C, H, W) to (C size^2, H / size, W / size).

    Parameters
    ----------
    x : (C, H, W)
    size : int
        Divides H and W.

    Returns
    -------
    (C size^2, H / size, W / size)
        Channel c size^2 + size row + column.
    """
    x = numbers("x", x, "(C, H, W)")
    return np.concatenate(
        [x[c : c + 1, m::size, n::size] for c in range(len(x)) for m in range(size) for n in range(size)]
    )


def depth_to_space(x: npt.ArrayLike, size: int) -> Array:
    """The opposite of `space_to_depth`.

    Parameters
    ----------
    x : (C size^2, H, W)
    size : int

    Returns
    -------
    (C, H size, W size)
    """
    x = numbers("x", x, "(C size^2, H, W)")
    channels, height, width = x.shape
    y = np.zeros((channels // size**2, height * size, width * size))
    for i, plane in enumerate(x):
        c, m, n = i // size**2, i // size % size, i % size
        y[c, m::size, n::size] = plane
    return y


def _drawn_larger(x: Array, weight: Array) -> Array:
    """A 1 x 1 convolution of x (in, H, W), each value repeated twice down and across: (out, 2 H, 2 W)."""
    mixed = np.tensordot(weight[:, :, 0, 0], x, axes=1)
    return np.asarray(mixed.repeat(2, axis=1).repeat(2, axis=2))


def _weight(weights: Mapping[str, npt.ArrayLike], name: str) -> Array:
    if name not in weights:
        raise ValueError(f"weights have no {name!r}; expected a model with a learned fusion")
    return np.asarray(weights[name], dtype=np.float64)
