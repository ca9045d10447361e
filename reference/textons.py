"""Global feature rearrangement: skip features rebuilt from the memory's textons (section III.D).

F_D  skip features (C, H, W), may hold a defect      F  memory-generated features (C, H_F, W_F)
b_i  textons, the K x K blocks of F, (N, C, K, K)    K  texton size, `size` here, 2 in the paper
d    cosine of each block of F_D and each texton     s  similarity maps (N, H/K, W/K), softmax of d over i
s*   similarity maps after the mixing convolution    G  rearranged features (C, H, W)
"""

import numpy as np
import numpy.typing as npt

from ._checks import Array, numbers

EPS = 1e-12  # least norm in Eq 7: a block of zeros has cosine 0 with everything


def extract_textons(features: npt.ArrayLike, size: int = 2) -> Array:
    """Cut features into their textons B = {b_1 ... b_N}, blocks that do not overlap, row by row.

    Parameters
    ----------
    features : (C, H, W)
        H and W divisible by `size`.
    size : int
        K, the side of a texton.

    Returns
    -------
    textons : (N, C, size, size)
        N = H/size * W/size.

    Raises
    ------
    ValueError
        H or W is not divisible by `size`.
    """
    F = numbers("features", features, "(C, H, W)")
    _, H, W = F.shape
    if size < 1 or H % size or W % size:
        raise ValueError(
            f"features have shape {F.shape}; expected H and W divisible by the texton size {size}"
        )
    return np.stack([F[:, r : r + size, c : c + size] for r in range(0, H, size) for c in range(0, W, size)])


def texton_similarity(
    skip: npt.ArrayLike, textons: npt.ArrayLike, size: int = 2, temperature: float = 1.0
) -> Array:
    """s_i(p, q), Eq 6 to 8: how much the skip's block at (p, q) is like texton i, softmax over the textons.

    Parameters
    ----------
    skip : (C, H, W)
        F_D; H and W divisible by `size`.
    textons : (N, C, size, size)
    size : int
        K, also the stride of the convolution of Eq 8.
    temperature : float
        The cosines are divided by it before the softmax; 1 is Eq 6.

    Returns
    -------
    s : (N, H/size, W/size)
        Not negative; sums to 1 over N at each place.

    Raises
    ------
    ValueError
        Shapes that do not fit, or a temperature that is not above 0.
    """
    F_D, b = numbers("skip", skip, "(C, H, W)"), numbers("textons", textons, "(N, C, size, size)")
    C, H, W = F_D.shape
    if b.shape[1:] != (C, size, size):
        raise ValueError(
            f"textons have shape {b.shape}; expected (N, {C}, {size}, {size}) for skip {F_D.shape}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}; expected a number above 0")

    blocks = extract_textons(F_D, size)  # (P, C, K, K), P places (p, q)
    d = _unit(b) @ _unit(blocks).T  # (N, P)                                  Eq 7, 8
    e = np.exp((d - d.max(axis=0)) / temperature)
    s = e / e.sum(axis=0)  #                                                   Eq 6
    return np.asarray(s.reshape(len(b), H // size, W // size))


def rearrange_textons(
    skip: npt.ArrayLike,
    memory_features: npt.ArrayLike,
    *,
    size: int = 2,
    mixing: npt.ArrayLike | None = None,
    temperature: float = 1.0,
) -> Array:
    """G = sum_i s*_i (deconvolved with) b_i, Eq 9: each block of the skip from the textons it is most like.

    Parameters
    ----------
    skip : (C, H, W)
        F_D.
    memory_features : (C, H_F, W_F)
        F; need not have the size of the skip, except with dense mixing in a trained network.
    size : int
        K, the texton size.
    mixing : None, (3, 3) or (N, N, 3, 3)
        The convolution that turns s into s*: none, one kernel for every map ("shared"), or from every map to
        every map ("dense", [out, in]). Cross-correlation with zero padding 1 and no bias, as torch conv2d.
    temperature : float
        As for `texton_similarity`.

    Returns
    -------
    G : (C, H, W)
        Without mixing each block is a convex combination of textons.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    F_D, F = numbers("skip", skip, "(C, H, W)"), numbers("memory_features", memory_features, "(C, H, W)")
    if len(F_D) != len(F):
        raise ValueError(
            f"skip has {len(F_D)} channels but memory_features {len(F)}; expected the same number"
        )
    b = extract_textons(F, size)  # (N, C, K, K)
    s = texton_similarity(F_D, b, size, temperature)  # (N, H/K, W/K)
    if mixing is not None:
        s = mix(s, mixing)
    G = np.zeros_like(F_D)
    for p in range(s.shape[1]):
        for q in range(s.shape[2]):
            block = np.tensordot(s[:, p, q], b, axes=1)  # (C, K, K)
            G[:, p * size : (p + 1) * size, q * size : (q + 1) * size] = block
    return G


def mix(similarity: npt.ArrayLike, mixing: npt.ArrayLike) -> Array:
    """s -> s*, the "standard convolution" between Eq 8 and Eq 9.

    Parameters
    ----------
    similarity : (N, h, w)
    mixing : (3, 3) or (N, N, 3, 3)
        As for `rearrange_textons`.

    Returns
    -------
    s* : (N, h, w)
    """
    s = numbers("similarity", similarity, "(N, h, w)")
    W = np.asarray(mixing, dtype=np.float64)
    N, h, w = s.shape
    if W.shape not in ((3, 3), (N, N, 3, 3)):
        raise ValueError(f"mixing has shape {W.shape}; expected (3, 3), or ({N}, {N}, 3, 3) for {N} textons")
    padded = np.pad(s, ((0, 0), (1, 1), (1, 1)))
    s_star = np.zeros_like(s)
    for m in range(3):
        for n in range(3):
            shifted = padded[:, m : m + h, n : n + w]  # (N, h, w)
            s_star += W[m, n] * shifted if W.ndim == 2 else np.tensordot(W[:, :, m, n], shifted, axes=1)
    return s_star


def _unit(blocks: Array) -> Array:
    """Flatten blocks (N, C, K, K) to rows of length 1."""
    rows = blocks.reshape(len(blocks), -1)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), EPS))
