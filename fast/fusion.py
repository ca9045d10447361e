"""Eq 17-23 on tensors: gradient similarity, structural similarity, residual, and their fused anomaly map.

Letters: g gradient magnitude; mu, sigma Gaussian-weighted mean and standard deviation; A_m1, A_m2, A_m3 the
modality maps. Borders are mirrored with the edge pixel repeated (scipy.ndimage's "reflect"), however small
the picture.
"""

from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

C0 = 0.0026  # GMSD's 170 on a range of 255: 170 / 255^2
MODALITIES = ("gms", "ssim", "residual")


def _reflect(n: int, radius: int, device: torch.device) -> Tensor:
    """Source index of each of the n + 2 * radius positions of a mirrored line, c b a | a b c | c b a."""
    i = torch.arange(-radius, n + radius, device=device) % (2 * n)
    return torch.minimum(i, 2 * n - 1 - i)


def _pad(x: Tensor, radius: int) -> Tensor:
    """(..., H, W) -> (..., H + 2 radius, W + 2 radius), mirrored."""
    height, width = x.shape[-2:]
    rows = x.index_select(-2, _reflect(height, radius, x.device))
    return rows.index_select(-1, _reflect(width, radius, x.device))


def _separable(x: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Correlate padded (B, C, H', W') planes with `column` downwards and `row` along the rows; valid part."""
    c = x.shape[1]
    x = x.contiguous(memory_format=torch.channels_last)  # depthwise convolutions are several times faster so
    x = F.conv2d(x, column.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
    return F.conv2d(x, row.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)


def _gaussian(sigma: float, window: int, like: Tensor) -> Tensor:
    i = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    g = torch.exp(-0.5 * (i / sigma) ** 2)
    return g / g.sum()


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = square > 0
    return torch.where(positive, square, 1).sqrt() * positive


def gms(image: Tensor, reconstruction: Tensor, *, c0: float = C0) -> Tensor:
    """Gradient magnitude similarity (Eq 17-18): (B, C, H, W) pictures in [0, 1] -> (B, H, W) in (0, 1].

    Prewitt gradients per channel, the similarity averaged over channels.

    Equivalent to: `reference.fusion.gms` on each picture.
    """
    smooth = image.new_full((3,), 1 / 3)
    slope = image.new_tensor([-1.0, 0.0, 1.0])
    squares = []
    for x in (image, reconstruction):
        padded = _pad(x, 1)
        squares.append(_separable(padded, smooth, slope) ** 2 + _separable(padded, slope, smooth) ** 2)
    g1, g2 = squares
    return ((2 * _root(g1 * g2) + c0) / (g1 + g2 + c0)).mean(1)


def ssim(
    image: Tensor,
    reconstruction: Tensor,
    *,
    sigma: float = 1.5,
    window: int = 11,
    c1: float = 0.01**2,
    c2: float = 0.03**2,
) -> Tensor:
    """Structural similarity (Eq 20): (B, C, H, W) pictures in [0, 1] -> (B, H, W) in [-1, 1].

    Per channel, Gaussian `window` x `window` (odd), population statistics, variances clamped at 0; averaged.

    Equivalent to: `skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, full=True, channel_axis=-1)[1].mean(-1)`.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"ssim: window is {window}; it must be a positive odd number of pixels, such as 11.")
    shift = (image + reconstruction).mean((2, 3), keepdim=True) / 2  # E[x^2] - mu^2 loses digits far from 0
    x, y = _pad(image - shift, window // 2), _pad(reconstruction - shift, window // 2)
    g = _gaussian(sigma, window, image)
    mx, my, mxx, myy, mxy = _separable(torch.cat((x, y, x * x, y * y, x * y), 1), g, g).chunk(5, 1)
    vx, vy, cov = (mxx - mx * mx).clamp_min(0), (myy - my * my).clamp_min(0), mxy - mx * my
    mx, my = mx + shift, my + shift
    structure = (2 * cov + c2) / (vx + vy + c2)
    return ((2 * mx * my + c1) / (mx * mx + my * my + c1) * structure).mean(1)


def residual(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Per-pixel difference (Eq 22), root mean square over channels: (B, C, H, W) pictures -> (B, H, W) in [0, 1].

    Equivalent to: `(image - reconstruction).square().mean(1).sqrt()`.
    """
    return _root((image - reconstruction).square().mean(1))


def median_filter(maps: Tensor, window: int) -> Tensor:
    """Median over `window` x `window` (odd; 0 or 1: no filter), borders mirrored: (..., H, W) -> (..., H, W).

    Equivalent to: `scipy.ndimage.median_filter(m, size=window, mode="reflect")` on each map.
    """
    if window < 0 or (window > 0 and window % 2 == 0):
        raise ValueError(f"median is {window}; it must be an odd window in pixels, or 0 for no filter.")
    if window < 2:
        return maps
    return _pad(maps, window // 2).unfold(-2, window, 1).unfold(-2, window, 1).flatten(-2).median(-1).values


def modality_maps(
    image: Tensor, reconstruction: Tensor, *, modalities: Sequence[str] = MODALITIES, median: int = 0
) -> dict[str, Tensor]:
    """The modality maps by name, each (B, H, W): 1 - GMS (Eq 19), 1 - SSIM (Eq 21), residual (Eq 22).

    Equivalent to: `reference.fusion.modality_maps` on each picture.
    """
    maps = {}
    for name in modalities:
        if name == "gms":
            a = 1 - gms(image, reconstruction)
        elif name == "ssim":
            a = 1 - ssim(image, reconstruction)
        elif name == "residual":
            a = residual(image, reconstruction)
        else:
            raise ValueError(f"modality {name!r} is unknown; choose from {', '.join(MODALITIES)}.")
        maps[name] = median_filter(a, median)
    return maps


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

    Parameters
    ----------
    image, reconstruction : (B, C, H, W) in [0, 1], finite, same dtype and device.
    modalities : which of "gms", "ssim", "residual" to multiply.
    median : odd window in pixels of the median filter on each modality map; 0 for none.
    return_modalities : also return the modality maps by name.

    Returns
    -------
    A : (B, H, W), and with `return_modalities` the dict of modality maps, each (B, H, W).

    Equivalent to: `reference.fusion.anomaly_map` on each picture.
    """
    maps = modality_maps(image, reconstruction, modalities=modalities, median=median)
    fused = torch.stack(tuple(maps.values())).prod(0)
    return (fused, maps) if return_modalities else fused
