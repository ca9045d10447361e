"""The memory of normal patterns: K-means bank, addressing (Eq 4), recall (Eq 5), patch score (section III.C).

z      latent of a patch (K,)          M  memory bank (L, K), one normal pattern per row
Q      affinity query (L,), not negative, sums to 1
z_hat  restored latent (K,)            A_N  addressing network: fully connected A and L neurons, softmax
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from ._checks import Array, numbers

SLOPE = 0.2  # of the leaky ReLU


def build_bank(latents: npt.ArrayLike, entries: int = 512, seed: int = 0) -> Array:
    """Cluster the latents of normal patches; the centroids are the memory M (Algorithm 1, lines 12 to 16).

    K-means: k-means++ starting centres, then Lloyd's iteration until nothing changes.

    Parameters
    ----------
    latents : (P, K)
        R+ = E(P+) of every normal patch.
    entries : int
        L, the number of clusters.
    seed : int

    Returns
    -------
    M : (L, K)

    Raises
    ------
    ValueError
        Fewer (distinct) latents than entries.
    """
    R = numbers("latents", latents, "(P, K)")
    distinct = len(np.unique(R, axis=0))
    if not 1 <= entries <= distinct:
        raise ValueError(
            f"{len(R)} latents, {distinct} of them distinct, for {entries} memory entries; expected at "
            "least as many latents: add normal pictures, let patches overlap, or ask for fewer entries"
        )
    return lloyd(R, _plus_plus(R, entries, np.random.default_rng(seed)))


def lloyd(latents: npt.ArrayLike, centres: npt.ArrayLike, iterations: int = 300) -> Array:
    """Move each centre to the mean of the latents nearest to it until no latent changes its centre.

    A centre that loses all its latents moves to the latent farthest from its own centre.

    Parameters
    ----------
    latents : (P, K)
    centres : (L, K)
        Starting centres.
    iterations : int
        The most to take.

    Returns
    -------
    (L, K)
    """
    R = numbers("latents", latents, "(P, K)")
    M = numbers("centres", centres, "(L, K)").copy()
    if M.shape[1] != R.shape[1]:
        raise ValueError(
            f"centres have {M.shape[1]} features but latents {R.shape[1]}; expected the same number"
        )
    labels = np.full(len(R), -1)
    for _ in range(iterations):
        distance = cdist(R, M)  # (P, L)
        nearest = distance.argmin(axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        away = distance[np.arange(len(R)), labels]
        for i in range(len(M)):
            if (labels == i).any():
                M[i] = R[labels == i].mean(axis=0)
            else:
                M[i] = R[away.argmax()]
                away[away.argmax()] = 0.0
    return M


def address(
    z: npt.ArrayLike, w1: npt.ArrayLike, b1: npt.ArrayLike, w2: npt.ArrayLike, b2: npt.ArrayLike
) -> Array:
    """Q = A_N(z), Eq 4: fully connected, leaky ReLU of slope 0.2, fully connected, softmax.

    Parameters
    ----------
    z : (K,)
    w1, b1 : (A, K), (A,)
        First layer; A = 256 in the paper.
    w2, b2 : (L, A), (L,)
        Second layer; L = 512 in the paper.

    Returns
    -------
    Q : (L,)
        Not negative, sums to 1.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    z = numbers("z", z, "(K,)")
    w1, b1 = numbers("w1", w1, "(A, K)"), numbers("b1", b1, "(A,)")
    w2, b2 = numbers("w2", w2, "(L, A)"), numbers("b2", b2, "(L,)")
    if w1.shape != (len(b1), len(z)) or w2.shape != (len(b2), len(b1)):
        raise ValueError(
            f"z {z.shape}, w1 {w1.shape}, b1 {b1.shape}, w2 {w2.shape}, b2 {b2.shape} do not fit; "
            "expected (K,), (A, K), (A,), (L, A), (L,)"
        )
    hidden = w1 @ z + b1  # (A,)
    hidden = np.where(hidden > 0, hidden, SLOPE * hidden)
    affinity = w2 @ hidden + b2  # (L,)
    e = np.exp(affinity - affinity.max())
    return np.asarray(e / e.sum())


def recall(query: npt.ArrayLike, memory: npt.ArrayLike) -> Array:
    """z_hat = Q M = sum_i Q_i M_i, Eq 5: a convex combination of normal patterns.

    Parameters
    ----------
    query : (L,)
    memory : (L, K)

    Returns
    -------
    z_hat : (K,)
    """
    Q, M = numbers("query", query, "(L,)"), numbers("memory", memory, "(L, K)")
    if len(Q) != len(M):
        raise ValueError(
            f"query has {len(Q)} weights but memory {len(M)} entries; expected one weight per entry"
        )
    return np.asarray(Q @ M)


def nearest_distance(z: npt.ArrayLike, memory: npt.ArrayLike) -> tuple[float, int]:
    """Score a patch: the Euclidean distance of its latent to the nearest memory entry (sections III.C, IV.F).

    Parameters
    ----------
    z : (K,)
    memory : (L, K)

    Returns
    -------
    distance : float
    index : int
        The nearest entry; of equally near ones the first.
    """
    z, M = numbers("z", z, "(K,)"), numbers("memory", memory, "(L, K)")
    if len(z) != M.shape[1]:
        raise ValueError(
            f"z has {len(z)} features but memory entries have {M.shape[1]}; expected the same number"
        )
    distances = np.sqrt(((M - z) ** 2).sum(axis=1))  # (L,)
    index = int(distances.argmin())
    return float(distances[index]), index


def _plus_plus(R: Array, entries: int, rng: np.random.Generator) -> Array:
    """k-means++: draw each next centre with a chance proportional to its squared distance to those drawn."""
    chosen = [int(rng.integers(len(R)))]
    squared = ((R - R[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < entries:
        chosen.append(int(rng.choice(len(R), p=squared / squared.sum())))
        squared = np.minimum(squared, ((R - R[chosen[-1]]) ** 2).sum(axis=1))
    return R[chosen]
