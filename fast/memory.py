"""The memory of normal patterns on tensors: addressing (Eq 4), recall (Eq 5), nearest distance."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._dispatch import choose

__all__ = ["address", "nearest_distance", "recall"]

SLOPE = 0.2  # of the leaky ReLU
CHUNK = 1 << 22  # most numbers in a temporary: 16 MB of float32


def address(z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Q = A_N(z), Eq 4: fully connected, leaky ReLU of slope 0.2, fully connected, softmax.

    Equivalent to: ``F.softmax(F.linear(F.leaky_relu(F.linear(z, w1, b1), 0.2), w2, b2), dim=1)``.

    Parameters
    ----------
    z : (B, K)
    w1, b1 : (A, K), (A,)
    w2, b2 : (L, A), (L,)

    Returns
    -------
    Q : (B, L)
        Not negative, each row sums to 1.
    """
    _checks.shaped("z", z, "B", "K")
    _checks.shaped("w1", w1, "A", z.shape[1])
    _checks.shaped("b1", b1, w1.shape[0])
    _checks.shaped("w2", w2, "L", w1.shape[0])
    _checks.shaped("b2", b2, w2.shape[0])
    query = F.softmax(F.linear(F.leaky_relu(F.linear(z, w1, b1), SLOPE), w2, b2), dim=1)
    _checks.finite(query, z=z, w1=w1, b1=b1, w2=w2, b2=b2)
    return query


def recall(query: Tensor, memory: Tensor) -> Tensor:
    """z_hat = Q M = sum_i Q_i M_i, Eq 5: a convex combination of normal patterns.

    Equivalent to: ``query @ memory``.

    Parameters
    ----------
    query : (B, L)
    memory : (L, K)

    Returns
    -------
    z_hat : (B, K)
    """
    _checks.shaped("query", query, "B", "L")
    _checks.shaped("memory", memory, query.shape[1], "K")
    recalled = query @ memory
    _checks.finite(recalled, query=query, memory=memory)
    return recalled


def nearest_distance(z: Tensor, memory: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Score patches: the Euclidean distance of each latent to the nearest memory entry (section IV.F).

    The matrix of all distances is never held: |z|^2 - 2 z.m + |m|^2 in chunks finds the entries that may be
    nearest, and their distances are then taken from the differences, without cancellation. Magnitudes up to 1e15.

    Equivalent to: ``torch.cdist(z, memory).min(dim=1)``.

    Parameters
    ----------
    z : (B, K)
    memory : (L, K)
    backend
        "eager", "numba", "triton", or None: see `fast._dispatch`.

    Returns
    -------
    distance : (B,)
        In the dtype of `z`. Differentiable in `z` and `memory`.
    index : (B,) int64
        The nearest entry; of equally near ones any.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit; in CPU tensors NaN, infinity, and magnitudes too large for the squares to be summed.
    BackendUnavailable
        `backend` is named and cannot run.
    """
    _checks.shaped("z", z, "B", "K")
    _checks.shaped("memory", memory, "L", z.shape[1])
    _checks.alike(z=z, memory=memory)
    if not memory.shape[0]:
        raise ValueError(f"memory has shape {tuple(memory.shape)}; expected at least one entry")
    half_on_cpu = z.device.type == "cpu" and z.dtype in (torch.bfloat16, torch.float16)
    wide = (z.float(), memory.float()) if half_on_cpu and backend != "triton" else (z, memory)
    name = choose(backend, wide[0])
    distance, index = _eager(*wide) if name == "eager" else _fused(*wide, name)
    distance = distance.to(z.dtype)
    if name == "eager" or not len(z):  # elsewhere an entry that is not finite shows in every distance
        _checks.finite(memory.detach().sum(), memory=memory)
    _checks.finite(distance, _checks.MOST, z=z, memory=memory)
    return distance, index


def _eager(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    compute = torch.promote_types(z.dtype, torch.float32)
    wide = memory.to(compute)
    with torch.no_grad():
        centre = wide.mean(0)  # distances do not change; the products shrink, and with them their rounding
        centred = wide - centre
    found = [
        _nearest(chunk.to(compute), wide, centre, centred)
        for chunk in z.split(max(1, CHUNK // max(memory.shape)))
    ]
    distances, indices = zip(*found)
    return torch.cat(distances).to(z.dtype), torch.cat(indices)


def _nearest(z: Tensor, memory: Tensor, centre: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
    """(distance, index) of the nearest entry to each row of z."""
    with torch.no_grad():
        shifted = z - centre
        norms = torch.linalg.vector_norm(centred, dim=1)  # [L]
        scores = torch.addmm(norms.square(), shifted, centred.mT, alpha=-2)  # |z - m|^2 - |z|^2      [B, L]
        index = scores.argmin(1)
        if (
            not torch.compiler.is_compiling()
        ):  # which entries come so close that rounding may have swapped them?
            unit = torch.finfo(scores.dtype).eps * 4 * z.shape[1] ** 0.5
            largest = norms.max()
            slack = unit * (
                torch.linalg.vector_norm(shifted, dim=1, keepdim=True) * largest + largest.square()
            )
            rivals = scores <= scores.amin(1, keepdim=True) + slack
            for row in (rivals.sum(1) > 1).nonzero()[:, 0].tolist():
                entries = rivals[row].nonzero()[:, 0]
                index[row] = entries[torch.linalg.vector_norm(z[row] - memory[entries], dim=1).argmin()]
    distance = torch.linalg.vector_norm(z - memory[index], dim=1)
    return distance + 0 * norms.sum(), index  # squares too large for their type show in every distance


# The fused backends as an operator of torch: `torch.compile` and `torch.export` take it as it is.


@torch.library.custom_op("fmrnet::nearest_distance", mutates_args=())
def _fused(z: Tensor, memory: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "numba":
        from ._memory_numba import nearest
    else:
        from ._memory_triton import nearest
    with torch.cuda.device_of(z):
        return nearest(z, memory)


@_fused.register_fake
def _(z: Tensor, memory: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape[0]), z.new_empty(z.shape[0], dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    z, memory, _ = inputs
    distance, index = output
    ctx.mark_non_differentiable(index)
    ctx.save_for_backward(z, memory, distance, index)


def _gradients(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    z, memory, distance, index = ctx.saved_tensors
    share = torch.where(distance > 0, gradient / distance, 0)  # at distance 0 the gradient is taken as 0
    d_z = share[:, None] * (z - memory[index])
    return d_z, torch.zeros_like(memory).index_add_(0, index, -d_z), None


_fused.register_autograd(_gradients, setup_context=_setup_context)
