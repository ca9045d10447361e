"""Eq 6 to 9 on tensors: the skip features rebuilt from the memory's textons.

Letters as in `reference.textons`: K texton size; P places (blocks of the skip); N textons (blocks of the
memory features); D = K*K*C numbers in a block; s similarity; G the rearranged features.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._dispatch import TRITON_SMALL, choose

__all__ = ["rearrange_textons"]

NUMBA_FASTER = 1 << 12  # most similarities of one picture with which numba is the faster on a CPU; then eager
NUMBA_LIMIT = 1 << 16  # most similarities of one picture the numba kernel takes: 256 KB
EPS = 1e-12  # least norm in Eq 7: a block of zeros has cosine 0 with everything


def rearrange_textons(
    skip: Tensor,
    memory_features: Tensor,
    *,
    size: int = 2,
    mixing: Tensor | None = None,
    temperature: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """G = sum_i s*_i (deconvolved with) b_i, Eq 9: each block of the skip from the textons it is most like.

    Equivalent to, with ``unfold = partial(F.unfold, kernel_size=size, stride=size)`` and no mixing:
    ``F.fold(unfold(memory_features) @ softmax(normalize(unfold(memory_features), dim=1).mT
    @ normalize(unfold(skip), dim=1) / temperature, dim=1), skip.shape[2:], size, stride=size)``.

    Parameters
    ----------
    skip : (B, C, H, W)
        F_D, contiguous or channels_last (or any strides); H and W divisible by `size`. Magnitudes up to 1e15.
    memory_features : (B, C, H_F, W_F)
        F, of the same dtype; need not have the height and width of the skip.
    size
        K, the side of a texton.
    mixing : None, (3, 3) or (N, N, 3, 3)
        The convolution of the similarity maps: none, one kernel for every map ("shared"), or from every map
        to every map ("dense", [out, in]). Cross-correlation with zero padding 1 and no bias, as torch conv2d.
    temperature
        The cosines are divided by it before the softmax; 1 is Eq 6. From 0.01, below which the rounding of the
        cosines would decide, to 100, where every weight is the same but for 2 %.
    backend
        "eager", "numba", "triton", or None: see `fast._dispatch`.

    Returns
    -------
    G : (B, C, H, W)
        In the dtype and memory format of `skip`; sums are kept in float32 or wider.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit, a temperature out of its range; in CPU tensors NaN, infinity, and magnitudes too
        large for the squares to be summed.
    BackendUnavailable
        `backend` is named and cannot run.
    """
    _check(skip, memory_features, size, mixing, temperature)
    half_on_cpu = skip.device.type == "cpu" and skip.dtype in (torch.bfloat16, torch.float16)
    wide = (
        (skip.float(), memory_features.float())
        if half_on_cpu and backend != "triton"
        else (skip, memory_features)
    )
    name = choose(
        backend,
        wide[0],
        lambda name: _refusal(name, skip, memory_features, size, mixing),
        cpu="numba" if math.prod(_counts(skip, memory_features, size)) <= NUMBA_FASTER else "eager",
        cuda="triton" if _small(skip, memory_features, size) else "eager",
    )
    if mixing is not None:
        mixing = mixing.to(torch.promote_types(skip.dtype, torch.float32))
    if name == "eager":
        result = _eager(*wide, size, mixing, temperature)
    elif name == "triton" and mixing is not None and not _small(skip, memory_features, size):
        plain = _fused(*wide, size, None, temperature, name)
        result = _filter(plain, mixing, size)
    else:
        result = _fused(*wide, size, mixing, temperature, name)
    result = result.to(skip.dtype)
    if name != "numba":  # it looks for itself, with no pass over the result
        _checks.finite(result, _checks.MOST, skip=skip, memory_features=memory_features)
    return result


def _check(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float
) -> None:
    _checks.shaped("skip", skip, "B", "C", "H", "W")
    _checks.shaped("memory_features", memory_features, skip.shape[0], skip.shape[1], "H_F", "W_F")
    _checks.alike(skip=skip, memory_features=memory_features)
    for name, tensor in (("skip", skip), ("memory_features", memory_features)):
        height, width = tensor.shape[2:]
        if size < 1 or height % size or width % size or not height * width:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; "
                f"expected H and W above 0, divisible by the texton size {size}"
            )
    if not 0.01 <= temperature <= 100:
        raise ValueError(f"temperature is {temperature!r}; expected a number from 0.01 to 100")
    if mixing is not None:
        textons = memory_features.shape[2] * memory_features.shape[3] // size**2
        if tuple(mixing.shape) not in ((3, 3), (textons, textons, 3, 3)):
            raise ValueError(
                f"mixing has shape {tuple(mixing.shape)}; expected (3, 3), or ({textons}, {textons}, 3, 3) "
                f"for {textons} textons"
            )


def _refusal(
    name: str, skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None
) -> str | None:
    """Why a fused backend cannot take this call, or None."""
    places, textons = _counts(skip, memory_features, size)
    if name == "numba" and places * textons > NUMBA_LIMIT:
        return (
            f"the numba kernel keeps a picture's {places} x {textons} similarities in cache and takes up to "
            f"{NUMBA_LIMIT}; 'eager' serves larger ones"
        )
    if (
        name == "triton"
        and mixing is not None
        and mixing.ndim == 4
        and not _small(skip, memory_features, size)
    ):
        return (
            f"the Triton kernel takes dense mixing of up to {TRITON_SMALL} places and textons, "
            f"not {places} x {textons}; 'eager' serves more"
        )
    return None


def _small(skip: Tensor, memory_features: Tensor, size: int) -> bool:
    return max(_counts(skip, memory_features, size)) <= TRITON_SMALL


def _counts(skip: Tensor, memory_features: Tensor, size: int) -> tuple[int, int]:
    """P and N"""
    places, textons = (x.shape[2] * x.shape[3] // size**2 for x in (skip, memory_features))
    return places, textons


def _filter(G: Tensor, mixing: Tensor, size: int) -> Tensor:
    """Shared mixing, applied to the result: a filter over the blocks commutes with the deconvolution."""
    return _convolve(G.to(mixing.dtype), mixing, size).to(G.dtype)


def _eager(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float
) -> Tensor:
    compute = torch.promote_types(skip.dtype, torch.float32)
    with _no_autocast(skip.device.type):
        blocks = _blocks(skip, size).to(compute)  # [B, P, D]
        textons = _blocks(memory_features, size).to(compute)  # [B, N, D]
        inverse_p, inverse_n = _inverse_norms(blocks)[:, :, None], _inverse_norms(textons)[:, None]
        cosine = torch.bmm(blocks, textons.mT) * (inverse_p * inverse_n)  # [B, P, N]            Eq 7, 8
        s = torch.softmax(cosine / temperature, dim=2)  #                                          Eq 6
        if mixing is not None:
            s = _mix(s, mixing.to(compute), skip.shape[2] // size, skip.shape[3] // size)
        return _unblock(torch.bmm(s, textons).to(skip.dtype), skip, size)  #                       Eq 9


def _inverse_norms(rows: Tensor) -> Tensor:
    """[B, P, D] -> [B, P]; NaN where a norm is too large for its type: it must show."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=2).clamp_min(EPS)
    return norms.reciprocal() + 0 * norms


def _mix(s: Tensor, mixing: Tensor, h: int, w: int) -> Tensor:
    """s [B, P, N] -> s*, the convolution over the places."""
    batch, places, textons = s.shape
    maps = s.mT.reshape(batch, textons, h, w)
    return _convolve(maps, mixing, 1).reshape(batch, textons, places).mT


def _convolve(maps: Tensor, mixing: Tensor, step: int) -> Tensor:
    """maps (B, N, h, w) with (3, 3), each map alone, or with (N, N, 3, 3), the taps `step` apart and zeros around."""
    if maps.is_cuda:  # cuDNN would round to TF32 unless told otherwise
        return _by_taps(maps, mixing, step)
    if mixing.ndim == 4:
        return F.conv2d(maps, mixing, padding=step, dilation=step)
    planes = maps.reshape(-1, 1, *maps.shape[2:])
    return F.conv2d(planes, mixing[None, None], padding=step, dilation=step).reshape(maps.shape)


def _by_taps(maps: Tensor, mixing: Tensor, step: int) -> Tensor:
    """The convolution as a sum over its nine taps of shifted maps."""
    height, width = maps.shape[2:]
    padded = F.pad(maps, (step, step, step, step))
    mixed = torch.zeros_like(maps)
    for m in range(3):
        for n in range(3):
            near = padded[:, :, m * step : m * step + height, n * step : n * step + width]
            tap = mixing[..., m, n]
            mixed = mixed + (
                tap * near if tap.ndim == 0 else (tap @ near.flatten(2)).unflatten(2, (height, width))
            )
    return mixed


def _blocks(x: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> [B, P, D], the blocks row by row; in a block row, column, channel."""
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(batch, (height // size) * (width // size), size * size * channels)


def _unblock(blocks: Tensor, like: Tensor, size: int) -> Tensor:
    """[B, P, D] -> (B, C, H, W) in the shape and memory format of `like`."""
    batch, channels, height, width = like.shape
    x = blocks.reshape(batch, height // size, width // size, size, size, channels).transpose(2, 3)
    x = x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
    return x if like.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Sums stay in float32 under autocast too."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


# The fused backends as operators of torch: `torch.compile` and `torch.export` take them as they are.


@torch.library.custom_op("fmrnet::rearrange_textons", mutates_args=())
def _fused(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float, backend: str
) -> Tensor:
    with torch.cuda.device_of(skip):
        result: Tensor = _kernels(backend).forward(skip, memory_features, size, mixing, temperature)
    return result


@torch.library.custom_op("fmrnet::rearrange_textons_backward", mutates_args=())
def _fused_backward(
    gradient: Tensor,
    skip: Tensor,
    memory_features: Tensor,
    size: int,
    mixing: Tensor | None,
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to skip, memory_features and mixing (of no elements where there is no mixing)."""
    result: tuple[Tensor, Tensor, Tensor]
    with torch.cuda.device_of(skip):
        result = _kernels(backend).backward(gradient, skip, memory_features, size, mixing, temperature)
    return result


def _kernels(backend: str) -> ModuleType:
    if backend == "numba":
        from . import _textons_numba

        return _textons_numba
    from . import _textons_triton

    return _textons_triton


@_fused.register_fake
def _(
    skip: Tensor, memory_features: Tensor, size: int, mixing: Tensor | None, temperature: float, backend: str
) -> Tensor:
    return torch.empty_like(skip)


@_fused_backward.register_fake
def _(
    gradient: Tensor,
    skip: Tensor,
    memory_features: Tensor,
    size: int,
    mixing: Tensor | None,
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    d_mixing = skip.new_empty(0) if mixing is None else torch.empty_like(mixing)
    return torch.empty_like(skip), torch.empty_like(memory_features), d_mixing


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    skip, memory_features, ctx.size, mixing, ctx.temperature, ctx.backend = inputs
    ctx.save_for_backward(skip, memory_features, mixing)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    skip, memory_features, mixing = ctx.saved_tensors
    d_skip, d_memory, d_mixing = _fused_backward(
        gradient, skip, memory_features, ctx.size, mixing, ctx.temperature, ctx.backend
    )
    return d_skip, d_memory, None, None if mixing is None else d_mixing, None, None


_fused.register_autograd(_gradients, setup_context=_setup_context)
