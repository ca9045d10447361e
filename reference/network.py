"""The whole generator in NumPy, from the trained model's own weights (section III, Fig 2): its oracle.

x    picture (H, W, C) in [0, 1]           EL1 ... EL5  encoder features (c_i, H/2^i, W/2^i)
z    latent, EL5 in one row (K,)           Q, z_hat     query (L,) and recalled latent (K,), Eq 4, 5
F4 ... F1  decoder features (c_i, H/2^i, W/2^i)   G4, G3  rearranged skip features, Eq 6-9
y    last layer's output (C, H, W), in the network's normalised units

The paper passes patches. A larger picture passes through all layers once; its latents and textons are those of windows
as large as a patch, and where windows overlap their mean is taken: not in the paper, and the same for one patch.
`weights` maps the names of the model's state to arrays; see `generate` for the names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers
from ._checks import picture as image
from .memory import address, recall
from .textons import rearrange_textons

SLOPE = 0.2  # of every leaky ReLU
BN_EPS = 1e-5  # of every batch norm

Weights = Mapping[str, npt.ArrayLike]


def generate(
    picture: npt.ArrayLike,
    weights: Weights,
    *,
    patch: int | None = None,
    step: int = 32,
    use_memory: bool = True,
    rearrange: bool = True,
    texton_size: int = 2,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Reconstruct the background of a picture: encode, address, recall, decode with rearrangement.

    Parameters
    ----------
    picture : (H, W, C) in [0, 1]
        H and W divisible by 32, 64 in the paper.
    weights : mapping of str to array
        mean, std (C,): normalisation of the picture;
        encoder.{0..4}.conv.weight (out, in, 4, 4), encoder.{0..4}.norm.{weight, bias, running_mean,
        running_var}; addressing.{hidden, output}.{weight, bias}; memory (L, K);
        decoder.{0..3}.conv.weight (in, out, 4, 4), decoder.{0..3}.norm.*; output.weight (c1, C, 4, 4),
        output.bias (C,); mixing.{0, 1}, (3, 3) or (N, N, 3, 3), absent without a mixing convolution.
    patch : int, optional
        Side of the windows in pixels, a multiple of 32. Default: the picture is one patch, as in the paper.
    step : int
        Pixels between windows, a multiple of 32; H and W are `patch` and a multiple of it.
    use_memory : bool
        False decodes z itself: training phase 1, before there is a memory.
    rearrange : bool
        False hands EL4 and EL3 on as they are (the ablation without GFRM).
    texton_size : int
        K of the textons.
    temperature : float
        Of the texton softmax.

    Returns
    -------
    dict of arrays
        z, with memory query and recalled, then all of `decode`: F4, G4, F3, G3, F2, F1, y and
        reconstruction (H, W, C) in [0, 1].

    Raises
    ------
    ValueError
        A size not divisible by 32 or not filled by windows, a weight that is missing or does not fit.
    """
    features, z = encode(picture, weights, patch=patch, step=step)
    result = {"z": z}
    latent = z
    if use_memory:
        hidden, output = "addressing.hidden", "addressing.output"
        layers = [
            _weight(weights, f"{layer}.{part}") for layer in (hidden, output) for part in ("weight", "bias")
        ]
        query = [address(one, *layers) for one in z.reshape(-1, z.shape[-1])]
        recalled = [recall(one, _weight(weights, "memory")) for one in query]
        result["query"] = np.reshape(query, (*z.shape[:-1], -1))
        result["recalled"] = latent = np.reshape(recalled, (*z.shape[:-1], -1))
    return result | decode(
        latent,
        features,
        weights,
        patch=patch,
        step=step,
        rearrange=rearrange,
        texton_size=texton_size,
        temperature=temperature,
    )


def encode(
    picture: npt.ArrayLike, weights: Weights, *, patch: int | None = None, step: int = 32
) -> tuple[list[Array], Array]:
    """Five blocks of 4 x 4 convolution with stride 2, batch norm and leaky ReLU.

    Parameters
    ----------
    picture : (H, W, C) in [0, 1]
    weights, patch, step : as for `generate`

    Returns
    -------
    features : [EL1 ... EL5]
        EL_i is (c_i, H/2^i, W/2^i).
    z : (K,), or (rows, columns, K) if there is a `patch`
        EL5, or each window of it, in one row, channel after channel.
    """
    x = image("picture", picture)
    if x.shape[0] % 32 or x.shape[1] % 32:
        raise ValueError(f"picture has shape {x.shape}; expected H and W divisible by 32, such as 64 x 64")
    x = (x - _weight(weights, "mean")) / _weight(weights, "std")
    x = x.transpose(2, 0, 1)  # (C, H, W)
    features = []
    for i in range(5):
        x = conv(x, _weight(weights, f"encoder.{i}.conv.weight"))
        x = leaky_relu(_norm(x, weights, f"encoder.{i}.norm"))
        features.append(x)
    if patch is None:
        return features, x.ravel()
    cut = windows(x, patch // 32, step // 32)
    return features, cut.reshape(*cut.shape[:2], -1)


def decode(
    latent: npt.ArrayLike,
    skips: Sequence[npt.ArrayLike],
    weights: Weights,
    *,
    patch: int | None = None,
    step: int = 32,
    rearrange: bool = True,
    texton_size: int = 2,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Four blocks of 4 x 4 deconvolution, rearranged skips beside the two deepest, and a linear last layer.

    Parameters
    ----------
    latent : (K,), or (rows, columns, K) if there is a `patch`
        z_hat, or z in training phase 1.
    skips : [EL1 ... EL5]
        Of `encode`; only EL4 and EL3 are read.
    weights, patch, step, rearrange, texton_size, temperature
        As for `generate`.

    Returns
    -------
    dict of arrays
        F4, G4, F3, G3, F2, F1, y, reconstruction.
    """
    EL3, EL4 = numbers("skips[2]", skips[2], "(C, H, W)"), numbers("skips[3]", skips[3], "(C, H, W)")
    h, w = EL4.shape[1] // 2, EL4.shape[2] // 2
    if patch is None:
        z_hat = numbers("latent", latent, "(K,)")
        if z_hat.size % (h * w):
            raise ValueError(
                f"latent has {z_hat.size} values; expected a multiple of {h * w}, (c5, {h}, {w})"
            )
        x = z_hat.reshape(-1, h, w)
    else:
        z_hat, side = numbers("latent", latent, "(rows, columns, K)"), patch // 32
        x = joined(z_hat.reshape(*z_hat.shape[:2], -1, side, side), step // 32)

    def rearranged(skip: Array, features: Array, mixing: str, scale: int) -> Array:
        def one(skip: Array, features: Array) -> Array:
            return rearrange_textons(
                skip, features, size=texton_size, mixing=weights.get(mixing), temperature=temperature
            )

        if not rearrange:
            return skip
        if patch is None:
            return one(skip, features)
        cut = [windows(maps, patch // scale, step // scale) for maps in (skip, features)]
        return joined([[one(a, b) for a, b in zip(*row)] for row in zip(*cut)], step // scale)

    F4 = _up(x, weights, 0)
    G4 = rearranged(EL4, F4, "mixing.0", 16)
    F3 = _up(np.concatenate([F4, G4]), weights, 1)
    G3 = rearranged(EL3, F3, "mixing.1", 8)
    F2 = _up(np.concatenate([F3, G3]), weights, 2)
    F1 = _up(F2, weights, 3)
    bias = _weight(weights, "output.bias")
    y = deconv(F1, _weight(weights, "output.weight")) + bias[:, None, None]  # (C, H, W)
    restored = y.transpose(1, 2, 0) * _weight(weights, "std") + _weight(weights, "mean")
    reconstruction = np.clip(restored, 0, 1)
    return {
        "F4": F4, "G4": G4, "F3": F3, "G3": G3, "F2": F2, "F1": F1, "y": y, "reconstruction": reconstruction,
    }  # fmt: skip


def windows(x: npt.ArrayLike, side: int, step: int) -> Array:
    """Square windows of maps, `step` apart.

    Parameters
    ----------
    x : (C, H, W)
    side, step : int
        Of a window, and between windows, in the maps' own pixels; H and W are `side` and a multiple of `step`.

    Returns
    -------
    (rows, columns, C, side, side)
    """
    x = numbers("x", x, "(C, H, W)")
    if any(length < side or (length - side) % step for length in x.shape[1:]):
        raise ValueError(
            f"maps of {x.shape[1]} x {x.shape[2]}; expected {side} and a multiple of {step} more"
        )
    starts = [range(0, length - side + 1, step) for length in x.shape[1:]]
    return np.array([[x[:, r : r + side, c : c + side] for c in starts[1]] for r in starts[0]])


def joined(cut: npt.ArrayLike, step: int) -> Array:
    """Maps of such windows: their mean where they overlap.

    Parameters
    ----------
    cut : (rows, columns, C, side, side)
    step : int
        Between windows.

    Returns
    -------
    (C, H, W)
    """
    cut = numbers("cut", cut, "(rows, columns, C, side, side)")
    rows, columns, channels, side, _ = cut.shape
    total = np.zeros((channels, (rows - 1) * step + side, (columns - 1) * step + side))
    count = np.zeros(total.shape[1:])
    for i in range(rows):
        for j in range(columns):
            here = (slice(i * step, i * step + side), slice(j * step, j * step + side))
            total[:, *here] += cut[i, j]
            count[here] += 1
    return total / count


def conv(x: npt.ArrayLike, weight: npt.ArrayLike) -> Array:
    """4 x 4 convolution with stride 2 and zero padding 1, no bias: halves the size.

    Parameters
    ----------
    x : (in, H, W)
        H and W even.
    weight : (out, in, 4, 4)

    Returns
    -------
    (out, H/2, W/2)
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(out, in, 4, 4)")
    if W.shape[1:] != (len(x), 4, 4) or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, even, even) and (out, in, 4, 4)")
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(W), height // 2, width // 2))
    for m in range(4):
        for n in range(4):
            y += np.tensordot(W[:, :, m, n], padded[:, m : m + height : 2, n : n + width : 2], axes=1)
    return y


def deconv(x: npt.ArrayLike, weight: npt.ArrayLike) -> Array:
    """4 x 4 transposed convolution with stride 2 and padding 1, no bias: doubles the size.

    Parameters
    ----------
    x : (in, H, W)
    weight : (in, out, 4, 4)

    Returns
    -------
    (out, 2H, 2W)
    """
    x, W = numbers("x", x, "(in, H, W)"), numbers("weight", weight, "(in, out, 4, 4)")
    if W.shape[0] != len(x) or W.shape[2:] != (4, 4):
        raise ValueError(f"x {x.shape} and weight {W.shape}; expected (in, H, W) and (in, out, 4, 4)")
    _, height, width = x.shape
    y = np.zeros((W.shape[1], 2 * height + 2, 2 * width + 2))
    for m in range(4):
        for n in range(4):
            y[:, m : m + 2 * height : 2, n : n + 2 * width : 2] += np.tensordot(W[:, :, m, n].T, x, axes=1)
    return y[:, 1:-1, 1:-1]


def batch_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
) -> Array:
    """Batch norm with its running statistics, as at inspection.

    Parameters
    ----------
    x : (C, H, W)
    weight, bias, running_mean, running_var : (C,)

    Returns
    -------
    (C, H, W)
    """
    x = numbers("x", x, "(C, H, W)")
    gamma, beta, mu, var = (
        numbers(name, value, "(C,)")[:, None, None]
        for name, value in zip(
            ("weight", "bias", "running_mean", "running_var"), (weight, bias, running_mean, running_var)
        )
    )
    return np.asarray((x - mu) / np.sqrt(var + BN_EPS) * gamma + beta)


def leaky_relu(x: npt.ArrayLike) -> Array:
    """x where x > 0, 0.2 x elsewhere."""
    x = np.asarray(x, dtype=np.float64)
    return np.where(x > 0, x, SLOPE * x)


def _up(x: Array, weights: Weights, j: int) -> Array:
    y = deconv(x, _weight(weights, f"decoder.{j}.conv.weight"))
    return leaky_relu(_norm(y, weights, f"decoder.{j}.norm"))


def _norm(x: Array, weights: Weights, name: str) -> Array:
    parts = ("weight", "bias", "running_mean", "running_var")
    return batch_norm(x, *(_weight(weights, f"{name}.{part}") for part in parts))


def _weight(weights: Weights, name: str) -> Array:
    if name not in weights:
        raise ValueError(f"weights have no {name!r}; expected the names that `generate` lists")
    return np.asarray(weights[name], dtype=np.float64)
