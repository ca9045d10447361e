"""The whole generator in NumPy, from the trained model's own weights (section III, Fig 2): its oracle.

x    picture patch (H, W, C) in [0, 1]     EL1 ... EL5  encoder features (c_i, H/2^i, W/2^i)
z    latent, EL5 in one row (K,)           Q, z_hat     query (L,) and recalled latent (K,), Eq 4, 5
F4 ... F1  decoder features (c_i, H/2^i, W/2^i)   G4, G3  rearranged skip features, Eq 6-9
y    last layer's output (C, H, W), in the network's normalised units
`weights` maps the names of the model's state to arrays; see `generate` for the names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers, picture
from .memory import address, recall
from .textons import rearrange_textons

SLOPE = 0.2  # of every leaky ReLU
BN_EPS = 1e-5  # of every batch norm

Weights = Mapping[str, npt.ArrayLike]


def generate(
    patch: npt.ArrayLike,
    weights: Weights,
    *,
    use_memory: bool = True,
    rearrange: bool = True,
    texton_size: int = 2,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Reconstruct the background of a patch: encode, address, recall, decode with rearrangement.

    Parameters
    ----------
    patch : (H, W, C) in [0, 1]
        H and W divisible by 32, 64 in the paper.
    weights : mapping of str to array
        mean, std (C,): normalisation of the picture;
        encoder.{0..4}.conv.weight (out, in, 4, 4), encoder.{0..4}.norm.{weight, bias, running_mean,
        running_var}; addressing.{hidden, output}.{weight, bias}; memory (L, K);
        decoder.{0..3}.conv.weight (in, out, 4, 4), decoder.{0..3}.norm.*; output.weight (c1, C, 4, 4),
        output.bias (C,); mixing.{0, 1}, (3, 3) or (N, N, 3, 3), absent without a mixing convolution.
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
        A size not divisible by 32, a weight that is missing or does not fit.
    """
    features, z = encode(patch, weights)
    result = {"z": z}
    latent = z
    if use_memory:
        hidden, output = "addressing.hidden", "addressing.output"
        result["query"] = address(
            z,
            *(
                _weight(weights, f"{layer}.{part}")
                for layer in (hidden, output)
                for part in ("weight", "bias")
            ),
        )
        result["recalled"] = latent = recall(result["query"], _weight(weights, "memory"))
    return result | decode(
        latent, features, weights, rearrange=rearrange, texton_size=texton_size, temperature=temperature
    )


def encode(patch: npt.ArrayLike, weights: Weights) -> tuple[list[Array], Array]:
    """Five blocks of 4 x 4 convolution with stride 2, batch norm and leaky ReLU.

    Parameters
    ----------
    patch : (H, W, C) in [0, 1]
    weights : mapping, as for `generate`

    Returns
    -------
    features : [EL1 ... EL5]
        EL_i is (c_i, H/2^i, W/2^i).
    z : (K,)
        EL5 in one row, channel after channel.
    """
    x = picture("patch", patch)
    if x.shape[0] % 32 or x.shape[1] % 32:
        raise ValueError(f"patch has shape {x.shape}; expected H and W divisible by 32, such as 64 x 64")
    x = (x - _weight(weights, "mean")) / _weight(weights, "std")
    x = x.transpose(2, 0, 1)  # (C, H, W)
    features = []
    for i in range(5):
        x = conv(x, _weight(weights, f"encoder.{i}.conv.weight"))
        x = leaky_relu(_norm(x, weights, f"encoder.{i}.norm"))
        features.append(x)
    return features, x.ravel()


def decode(
    latent: npt.ArrayLike,
    skips: Sequence[npt.ArrayLike],
    weights: Weights,
    *,
    rearrange: bool = True,
    texton_size: int = 2,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Four blocks of 4 x 4 deconvolution, rearranged skips beside the two deepest, and a linear last layer.

    Parameters
    ----------
    latent : (K,)
        z_hat, or z in training phase 1.
    skips : [EL1 ... EL5]
        Of `encode`; only EL4 and EL3 are read.
    weights, rearrange, texton_size, temperature
        As for `generate`.

    Returns
    -------
    dict of arrays
        F4, G4, F3, G3, F2, F1, y, reconstruction.
    """
    EL3, EL4 = numbers("skips[2]", skips[2], "(C, H, W)"), numbers("skips[3]", skips[3], "(C, H, W)")
    z_hat = numbers("latent", latent, "(K,)")
    h, w = EL4.shape[1] // 2, EL4.shape[2] // 2
    if z_hat.size % (h * w):
        raise ValueError(f"latent has {z_hat.size} values; expected a multiple of {h * w}, (c5, {h}, {w})")

    def rearranged(skip: Array, features: Array, mixing: str) -> Array:
        if not rearrange:
            return skip
        return rearrange_textons(
            skip, features, size=texton_size, mixing=weights.get(mixing), temperature=temperature
        )

    F4 = _up(z_hat.reshape(-1, h, w), weights, 0)
    G4 = rearranged(EL4, F4, "mixing.0")
    F3 = _up(np.concatenate([F4, G4]), weights, 1)
    G3 = rearranged(EL3, F3, "mixing.1")
    F2 = _up(np.concatenate([F3, G3]), weights, 2)
    F1 = _up(F2, weights, 3)
    bias = _weight(weights, "output.bias")
    y = deconv(F1, _weight(weights, "output.weight")) + bias[:, None, None]  # (C, H, W)
    restored = y.transpose(1, 2, 0) * _weight(weights, "std") + _weight(weights, "mean")
    reconstruction = np.clip(restored, 0, 1)
    return {
        "F4": F4, "G4": G4, "F3": F3, "G3": G3, "F2": F2, "F1": F1, "y": y, "reconstruction": reconstruction,
    }  # fmt: skip


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
