"""Eq 17-23 on tensors: gradient similarity, structural similarity, residual, and their fused anomaly map.

Letters: g gradient magnitude; mu, var Gaussian-weighted mean and variance; A_m1, A_m2, A_m3 modality maps.
Borders are mirrored with the edge pixel repeated (scipy.ndimage's "reflect"), however small the picture.

Every backend computes the modality maps 1 - GMS and 1 - SSIM themselves, not the similarities, and from the
sum s = x + y and the difference d = x - y of the pictures: four blurs instead of five, and no digits lost
where the pictures are nearly equal.

    1 - GMS  = (g_x - g_y)^2 / (g_x^2 + g_y^2 + c0)
    1 - SSIM = 2 (k var_d + (var_s - var_d + 2 c2) mu_d^2) / (k (var_s + var_d + 2 c2))
           k = mu_s^2 + mu_d^2 + 2 c1

because mu_x^2 + mu_y^2 = (mu_s^2 + mu_d^2) / 2, 2 mu_x mu_y = (mu_s^2 - mu_d^2) / 2, and alike for variances.
"""

import importlib
import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._dispatch import choose

__all__ = ["C0", "MODALITIES", "anomaly_map", "gms", "median_filter", "modality_maps", "residual", "ssim"]

MODALITIES = ("gms", "ssim", "residual")
C0 = 0.0026  # GMSD's 170 on a range of 255: 170 / 255^2
C1, C2 = 0.01**2, 0.03**2
SIGMA, WINDOW = 1.5, 11


def gms(image: Tensor, reconstruction: Tensor, *, c0: float = C0) -> Tensor:
    """Gradient magnitude similarity (Eq 17-18): (B, C, H, W) pictures in [0, 1] -> (B, H, W) in (0, 1].

    Prewitt gradients per channel, the similarity averaged over channels.

    Equivalent to: `reference.fusion.gms` on each picture.
    """
    _check(image, reconstruction)
    _positive(c0=c0)
    similarity = 1 - _gms_map(*_wide(image, reconstruction), c0)
    return _finite(similarity.to(image.dtype), image, reconstruction)


def ssim(
    image: Tensor,
    reconstruction: Tensor,
    *,
    sigma: float = SIGMA,
    window: int = WINDOW,
    c1: float = C1,
    c2: float = C2,
) -> Tensor:
    """Structural similarity (Eq 20): (B, C, H, W) pictures in [0, 1] -> (B, H, W) in [-1, 1].

    Per channel, Gaussian `window` x `window` (odd), population statistics, variances clamped at 0; averaged.

    Equivalent to: `skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, full=True, channel_axis=-1)[1].mean(-1)`.
    """
    _check(image, reconstruction)
    _odd("window", window)
    _positive(sigma=sigma, c1=c1, c2=c2)
    similarity = 1 - _ssim_map(*_wide(image, reconstruction), gaussian(sigma, window), c1, c2)
    return _finite(similarity.to(image.dtype), image, reconstruction)


def residual(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Per-pixel difference (Eq 22), the root mean square over channels: (B, C, H, W) -> (B, H, W) in [0, 1].

    Equivalent to: `(image - reconstruction).square().mean(1).sqrt()`.
    """
    _check(image, reconstruction)
    difference = _residual_map(*_wide(image, reconstruction))
    return _finite(difference.to(image.dtype), image, reconstruction)


def median_filter(maps: Tensor, window: int) -> Tensor:
    """Median over `window` x `window` pixels (odd), borders mirrored: (..., H, W) -> (..., H, W).

    Equivalent to: `scipy.ndimage.median_filter(m, size=window, mode="reflect")` on each map.
    """
    _odd("window", window)
    radius = window // 2
    windows = _pad(maps, radius).unfold(-2, window, 1).unfold(-2, window, 1).flatten(-2)
    if torch.compiler.is_exporting():  # ONNX knows no median; a sort hides NaN behind the numbers
        return windows.sort(-1).values[..., window * window // 2]
    if windows.is_cuda:  # there torch has no median for those who ask for deterministic algorithms
        return _middle(windows)
    return windows.median(-1).values


def _middle(windows: Tensor) -> Tensor:
    """The median of an odd number of values (..., n), by a sort; NaN, which a sort puts last, shows."""
    ordered = windows.sort(-1).values
    return ordered[..., windows.shape[-1] // 2] + 0 * ordered[..., -1]


def modality_maps(
    image: Tensor,
    reconstruction: Tensor,
    *,
    modalities: Sequence[str] = MODALITIES,
    median: int = 0,
    backend: str | None = None,
) -> dict[str, Tensor]:
    """The modality maps by name, each (B, H, W): 1 - GMS (Eq 19), 1 - SSIM (Eq 21), residual (Eq 22).

    Equivalent to: `reference.fusion.modality_maps` on each picture.
    """
    return _maps(image, reconstruction, modalities, median, True, backend)[1]


@overload
def anomaly_map(
    image: Tensor,
    reconstruction: Tensor,
    *,
    modalities: Sequence[str] = ...,
    median: int = ...,
    return_modalities: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def anomaly_map(
    image: Tensor,
    reconstruction: Tensor,
    *,
    modalities: Sequence[str] = ...,
    median: int = ...,
    return_modalities: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def anomaly_map(
    image: Tensor,
    reconstruction: Tensor,
    *,
    modalities: Sequence[str] = MODALITIES,
    median: int = 0,
    return_modalities: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Fused anomaly map (Eq 23): the product of the modality maps.

    Equivalent to: `reference.fusion.anomaly_map` on each picture.

    Parameters
    ----------
    image, reconstruction : (B, C, H, W)
        In [0, 1], of one dtype and device, any memory layout.
    modalities
        Which of "gms", "ssim", "residual" to multiply.
    median
        Side in pixels, odd, of the median filter on each modality map; 0 for none.
    return_modalities
        Return the modality maps by name as well.
    backend
        "eager", "numba", "triton", or None: see `fast._dispatch`.

    Returns
    -------
    A : (B, H, W)
        In the dtype of `image`; sums are kept in float32 or wider. 0 where the pictures are the same.
    maps : dict of (B, H, W)
        Only with `return_modalities`.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit, unknown or repeated modalities, an even median; NaN or infinity on the CPU.
    BackendUnavailable
        `backend` is named and cannot run.
    """
    fused, maps = _maps(image, reconstruction, modalities, median, return_modalities, backend)
    return (fused, maps) if return_modalities else fused


def _maps(
    image: Tensor,
    reconstruction: Tensor,
    modalities: Sequence[str],
    median: int,
    keep: bool,
    backend: str | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The fused map and, if they are to be kept, the modality maps."""
    _check(image, reconstruction)
    if not modalities or len(set(modalities)) < len(modalities) or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities are {modalities!r}; expected one or more of {MODALITIES}, each once")
    if median:
        _odd("median", median)
    wanted = [name in modalities for name in MODALITIES]
    chosen = choose(backend, image)
    if chosen == "eager":
        fused, maps = _eager(image, reconstruction, wanted, median)
        _finite(fused, image, reconstruction)
    else:
        fused, maps = _anomaly_map(image, reconstruction, wanted, median, keep, chosen)
    by_name = dict(zip([name for name in MODALITIES if name in modalities], maps.unbind(1)))
    return fused, {name: by_name[name] for name in modalities} if keep else {}


@torch.library.custom_op("fmrnet::anomaly_map", mutates_args=())
def _anomaly_map(
    image: Tensor, reconstruction: Tensor, wanted: list[bool], median: int, keep: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Fused (B, H, W) and the wanted modality maps (B, M, H, W), or (B, 0, H, W) if not kept."""
    fused, maps = _empty(image, wanted, keep or median > 1)
    kernels = importlib.import_module(f"{__package__}._fusion_{backend}")
    seen = kernels.anomaly_map(
        image, reconstruction, wanted, gaussian(SIGMA, WINDOW), (C0, C1, C2), fused=fused, maps=maps
    )
    _finite(seen, image, reconstruction)
    if median > 1:
        raw, maps = maps, torch.empty_like(maps)
        kernels.median_filter(raw, median, filtered=maps)
        fused = maps.prod(1)
    return fused, maps if keep else _empty(image, wanted, False)[1]


@_anomaly_map.register_fake
def _(
    image: Tensor, reconstruction: Tensor, wanted: list[bool], median: int, keep: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return _empty(image, wanted, keep)


def _empty(image: Tensor, wanted: list[bool], keep: bool) -> tuple[Tensor, Tensor]:
    batch, _, height, width = image.shape
    return (
        image.new_empty(batch, height, width),
        image.new_empty(batch, sum(wanted) if keep else 0, height, width),
    )


def _setup_context(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Tensor, list[bool], int, bool, str],
    output: tuple[Tensor, Tensor],
) -> None:
    image, reconstruction, ctx.wanted, ctx.median, ctx.keep, _ = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(image, reconstruction)


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad_fused: Tensor, grad_maps: Tensor
) -> tuple[Tensor | None, ...]:
    """Through eager, computed again: the maps are read far more often than they are learnt through."""

    def forward(image: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        fused, maps = _eager(image, reconstruction, ctx.wanted, ctx.median)  # type: ignore[attr-defined]
        return fused, maps if ctx.keep else maps[:, :0]  # type: ignore[attr-defined]

    pull = torch.func.vjp(forward, *ctx.saved_tensors)[1]  # type: ignore[attr-defined]
    grad_image, grad_reconstruction = pull((grad_fused, grad_maps))
    return grad_image, grad_reconstruction, None, None, None, None


_anomaly_map.register_autograd(_backward, setup_context=_setup_context)


def _eager(image: Tensor, reconstruction: Tensor, wanted: list[bool], median: int) -> tuple[Tensor, Tensor]:
    x, y = _wide(image, reconstruction)
    maps = []
    if wanted[0]:
        maps.append(_gms_map(x, y, C0))  #                                                    Eq 19
    if wanted[1]:
        maps.append(_ssim_map(x, y, gaussian(SIGMA, WINDOW), C1, C2))  #                      Eq 21
    if wanted[2]:
        maps.append(_residual_map(x, y))  #                                                   Eq 22
    stack = torch.stack(maps, 1)
    if median > 1:
        stack = median_filter(stack, median)
    return reduce(torch.mul, stack.unbind(1)).to(image.dtype), stack.to(image.dtype)  #       Eq 23


def _wide(image: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """In float32 or wider, as every sum is kept."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    return image.to(dtype), reconstruction.to(dtype)


def _gms_map(x: Tensor, y: Tensor, c0: float) -> Tensor:
    flat, step = [1 / 3, 1 / 3, 1 / 3], [-1.0, 0.0, 1.0]
    g = [
        _separable(padded, flat, step).square() + _separable(padded, step, flat).square()
        for padded in (_pad(x, 1), _pad(y, 1))
    ]
    return ((_root(g[0]) - _root(g[1])).square() / (g[0] + g[1] + c0)).mean(1)


def _ssim_map(x: Tensor, y: Tensor, weights: list[float], c1: float, c2: float) -> Tensor:
    shift_s, shift_d = (x + y).mean((2, 3), keepdim=True), (x - y).mean((2, 3), keepdim=True)
    s, d = (_pad(t, len(weights) // 2) for t in (x + y - shift_s, x - y - shift_d))
    mu_s, mu_d, square_s, square_d = _separable(torch.cat((s, d, s * s, d * d), 1), weights, weights).chunk(
        4, 1
    )
    var_s, var_d = (square_s - mu_s.square()).clamp_min(0), (square_d - mu_d.square()).clamp_min(0)
    mu_s, mu_d = (mu_s + shift_s).square(), (mu_d + shift_d).square()
    k = mu_s + mu_d + 2 * c1
    return (2 * (k * var_d + (var_s - var_d + 2 * c2) * mu_d) / (k * (var_s + var_d + 2 * c2))).mean(1)


def _residual_map(x: Tensor, y: Tensor) -> Tensor:
    return _root((x - y).square().mean(1))


def gaussian(sigma: float, window: int) -> list[float]:
    """The weights of a Gaussian over an odd window, summing to 1."""
    steps = [(i - window // 2) / sigma for i in range(window)]
    g = [math.exp(-0.5 * step * step) for step in steps]
    return [weight / sum(g) for weight in g]


def _separable(x: Tensor, down: list[float], across: list[float]) -> Tensor:
    """Correlate padded (B, C, H', W') planes with `down` along the columns and `across` along the rows."""
    if x.is_cuda:  # cuDNN would round to TF32 unless told otherwise
        return _correlated(_correlated(x, down, 2), across, 3)
    c = x.shape[1]
    x = x.contiguous(memory_format=torch.channels_last)  # depthwise convolutions are several times faster so
    with torch.autocast(x.device.type, enabled=False):
        x = F.conv2d(x, x.new_tensor(down).view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
        return F.conv2d(x, x.new_tensor(across).view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)


def _correlated(x: Tensor, weights: list[float], axis: int) -> Tensor:
    """Correlate along one axis, as a sum of shifted slices."""
    length = x.shape[axis] - len(weights) + 1
    total = weights[0] * x.narrow(axis, 0, length)
    for i, weight in enumerate(weights[1:], 1):
        if weight:
            total = torch.add(total, x.narrow(axis, i, length), alpha=weight)
    return total


def _pad(x: Tensor, radius: int) -> Tensor:
    """(..., H, W) -> (..., H + 2 radius, W + 2 radius), mirrored."""
    for axis in (-2, -1):
        n = x.shape[axis]
        period = torch.full((), 2 * n, device=x.device)  # a tensor, for in a graph n is not known
        i = torch.arange(-radius, n + radius, device=x.device) % period
        x = x.index_select(axis, torch.minimum(i, 2 * n - 1 - i))
    return x


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = square != 0  # NaN too: it must show
    return torch.where(positive, square, 1).sqrt() * positive


def _check(image: Tensor, reconstruction: Tensor) -> None:
    _checks.shaped("image", image, "B", "C", "H", "W")
    if 0 in image.shape[1:]:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected C, H and W above 0")
    _checks.shaped("reconstruction", reconstruction, *image.shape)
    _checks.alike(image=image, reconstruction=reconstruction)


def _finite(result: Tensor, image: Tensor, reconstruction: Tensor) -> Tensor:
    _checks.finite(result, image=image, reconstruction=reconstruction)
    return result


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number!r}; expected a number above 0")


def _odd(name: str, window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise ValueError(
            f"{name} is {window}; expected an odd number of pixels, such as {max(window, 0) | 1}"
        )
