"""The general features in plain NumPy, from the weights of a network that was taught on photographs (not in the paper).

The network is an EfficientNet-Lite (Tan and Le, EfficientNet, 2019; EfficientNet-Lite of the TensorFlow TPU models,
2020) up to its fifth stage, as deep and as wide as its weights say. It is never trained here.

x         a picture or features (channels, H, W)
maps      what stages 2, 3 and 5 give, at 1/4, 1/8 and 1/16 of the picture's size
F1 to F3  channels of each: 24, 40 and 112 in EfficientNet-Lite0, and F all together
`weights` maps the names of the backbone's state to arrays; see `maps` for the names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers, picture

STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1))  # expansion, kernel size, stride
GIVEN = (1, 2, 4)  # stages whose maps are given
STEM = 32  # channels of the first convolution
MULTIPLE = 16  # pixels; the last stride
MEAN = (0.485, 0.456, 0.406)  # taken off red, green and blue
STD = (0.229, 0.224, 0.225)  # that they are divided by then
NORM_EPS = 1e-3  # of every batch norm, in the network as it was published

Weights = Mapping[str, npt.ArrayLike]


def maps(image: npt.ArrayLike, weights: Weights) -> list[Array]:
    """Normalise a picture, grey as three equal channels, and take it through stem and stages.

    Parameters
    ----------
    image : (H, W, C) in [0, 1]
        C is 1 or 3. The sides are multiples of MULTIPLE.
    weights : mapping of str to array
        stem (see `unit`), and stages.{s}.{b} (see `bottleneck`) for blocks b of stages s, one or more of each.

    Returns
    -------
    [(F1, H / 4, W / 4), (F2, H / 8, W / 8), (F3, H / 16, W / 16)]

    Raises
    ------
    ValueError
        Two channels or more than three, sides that are no multiples, a weight that is missing or does not fit.
    """
    I = picture("image", image)
    if I.shape[2] not in (1, 3):
        raise ValueError(f"image has shape {I.shape}; expected 1 or 3 channels")
    if any(side % MULTIPLE for side in I.shape[:2]):
        raise ValueError(f"image has shape {I.shape}; expected sides that are multiples of {MULTIPLE}")
    x = (np.broadcast_to(I, (*I.shape[:2], 3)) - MEAN) / STD
    x = unit(x.transpose(2, 0, 1), weights, "stem", (STEM, 3, 3, 3), stride=2)
    given = []
    for s, (expansion, kernel, stride) in enumerate(STAGES):
        last = 2 if expansion > 1 else 1
        blocks = len({name.split(".")[2] for name in weights if name.startswith(f"stages.{s}.")})
        for b in range(max(blocks, 1)):
            block = f"stages.{s}.{b}"
            channels = len(_weight(weights, f"{block}.body.{last}.conv.weight"))
            x = bottleneck(x, weights, block, expansion, kernel, stride if b == 0 else 1, channels)
        if s in GIVEN:
            given.append(x)
    return given


def bottleneck(
    x: npt.ArrayLike, weights: Weights, name: str, expansion: int, kernel: int, stride: int, channels: int
) -> Array:
    """Inverted bottleneck: more channels, each filtered alone, then fewer, which are added to x if they fit it.

    Parameters
    ----------
    x : (in, H, W)
    weights : mapping of str to array
        `name`.body.{0, 1, 2} are units (see `unit`): 1 x 1 to in times `expansion` channels, `kernel` x `kernel` on
        each channel with the stride, and 1 x 1 to `channels`, which has no ReLU6. At expansion 1 there is no first
        one, and the others are 0 and 1.
    name : str
    expansion, kernel, stride, channels : int, positive

    Returns
    -------
    (channels, ceil(H / stride), ceil(W / stride))

    Raises
    ------
    ValueError
        A weight is missing or does not fit.
    """
    x = numbers("x", x, "(in, H, W)")
    wide = len(x) * expansion
    y, number = x, 0
    if expansion > 1:
        y = unit(y, weights, f"{name}.body.0", (wide, len(x), 1, 1))
        number = 1
    y = unit(y, weights, f"{name}.body.{number}", (wide, 1, kernel, kernel), stride=stride)
    y = unit(y, weights, f"{name}.body.{number + 1}", (channels, wide, 1, 1), relu=False)
    return x + y if y.shape == x.shape else y


def unit(
    x: npt.ArrayLike,
    weights: Weights,
    name: str,
    shape: tuple[int, int, int, int],
    *,
    stride: int = 1,
    relu: bool = True,
) -> Array:
    """Convolution with its bias, and ReLU6.

    Parameters
    ----------
    x : (in, H, W)
    weights : mapping of str to array
        `name`.conv.weight of the shape that is given, and `name`.conv.bias (out,); or in the bias's place, as the
        network was published, `name`.norm.{weight, bias, running_mean, running_var} (out,) of a batch norm that
        comes after the convolution.
    name : str
    shape : (out, in, k, k), or (in, 1, k, k) to filter each channel alone
    stride : int, positive
    relu : bool
        False leaves out the ReLU6.

    Returns
    -------
    (out, ceil(H / stride), ceil(W / stride))

    Raises
    ------
    ValueError
        A weight is missing or does not fit.
    """
    y = conv(x, _weight(weights, f"{name}.conv.weight", shape), stride=stride)
    if f"{name}.norm.weight" in weights:
        gamma, beta, mu, var = (
            _weight(weights, f"{name}.norm.{part}", shape[:1])[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        y = (y - mu) / np.sqrt(var + NORM_EPS) * gamma + beta
    else:
        y = y + _weight(weights, f"{name}.conv.bias", shape[:1])[:, None, None]
    return np.asarray(np.clip(y, 0, 6) if relu else y)


def conv(x: npt.ArrayLike, weight: npt.ArrayLike, *, stride: int = 1) -> Array:
    """k x k convolution at every `stride`-th pixel, among zeros, as TensorFlow's padding "SAME" lays them.

    There are ceil(n / s) outputs along a side of n, so (ceil(n / s) - 1) s + k - n zeros if that is positive: half of
    them before the first pixel, and the odd one after the last.

    Parameters
    ----------
    x : (in, H, W)
    weight : (out, in, k, k), or (in, 1, k, k) to filter each channel alone
    stride : int, positive

    Returns
    -------
    (out, ceil(H / stride), ceil(W / stride))

    Raises
    ------
    ValueError
        x and weight do not fit.
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(out, in, k, k)")
    alone = W.shape[:2] == (len(x), 1)
    size = W.shape[2]
    if W.shape[3] != size or not (alone or W.shape[1] == len(x)):
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, H, W) and (out, in, k, k)")
    height, width = (-(-n // stride) for n in x.shape[1:])
    zeros = [max((n - 1) * stride + size - m, 0) for n, m in zip((height, width), x.shape[1:])]
    padded = np.pad(x, ((0, 0), *((count // 2, count - count // 2) for count in zeros)))
    y = np.zeros((len(W), height, width))
    for m in range(size):
        for n in range(size):
            tap = padded[
                :, m : m + (height - 1) * stride + 1 : stride, n : n + (width - 1) * stride + 1 : stride
            ]
            y += W[:, 0, m, n, None, None] * tap if alone else np.tensordot(W[:, :, m, n], tap, axes=1)
    return y


def halved(x: npt.ArrayLike) -> Array:
    """The means of blocks of 2 x 2.

    Parameters
    ----------
    x : (C, H, W)
        H and W even.

    Returns
    -------
    (C, H / 2, W / 2)
    """
    x = numbers("x", x, "(C, H, W)")
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def larger(x: npt.ArrayLike, factor: int) -> Array:
    """Draw maps larger: each pixel becomes factor x factor of them.

    Values lie at the middle of their pixel and on straight lines between two of them, along both axes; from the middle
    of an outermost pixel to the border they stay.

    Parameters
    ----------
    x : (C, H, W)
    factor : int, positive

    Returns
    -------
    (C, factor H, factor W)
    """
    x = numbers("x", x, "(C, H, W)")
    _, height, width = x.shape

    def shares(count: int) -> Array:
        """(factor count, count): of each value in each drawn one."""
        middles = (np.arange(factor * count) + 0.5) / factor - 0.5
        return np.stack([np.interp(middles, np.arange(count), one) for one in np.eye(count)], axis=1)

    return np.asarray(shares(height) @ x @ shares(width).T)


def fine(maps: Sequence[npt.ArrayLike]) -> Array:
    """The first two maps at the size of the first: what a few pixels look like.

    Parameters
    ----------
    maps : [(F1, H / 4, W / 4), (F2, H / 8, W / 8), (F3, H / 16, W / 16)]

    Returns
    -------
    (F1 + F2, H / 4, W / 4)
    """
    quarter, eighth = (numbers("maps", one, "(C, H, W)") for one in maps[:2])
    return np.concatenate([quarter, larger(eighth, 2)])


def whole(maps: Sequence[npt.ArrayLike]) -> Array:
    """All three maps at the size of the second.

    Parameters
    ----------
    maps : [(F1, H / 4, W / 4), (F2, H / 8, W / 8), (F3, H / 16, W / 16)]

    Returns
    -------
    (F, H / 8, W / 8)
    """
    quarter, eighth, sixteenth = (numbers("maps", one, "(C, H, W)") for one in maps)
    return np.concatenate([halved(quarter), eighth, larger(sixteenth, 2)])


def _weight(weights: Weights, name: str, shape: tuple[int, ...] | None = None) -> Array:
    if name not in weights:
        raise ValueError(f"weights have no {name!r}; expected the names that `maps` lists")
    array = np.asarray(weights[name], dtype=np.float64)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return array
