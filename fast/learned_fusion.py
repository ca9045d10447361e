"""What the learned fusion sees of a picture and its background, on tensors: no light, and a few blurs and maps.

Letters as in `reference.learned_fusion`: I, R picture and background; m, s mean and deviation of the texture; A_m1,
A_m2, A_m3 modality maps. Backends blur s = I + R and d = I - R (eager R and d), of which all else is made: a blur is
linear.
"""

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import _checks, fusion
from ._dispatch import choose
from .blurs import BLUR_RADIUS, BLUR_SIGMA, blurred, broadly_blurred
from .fusion import C0, C1, C2, SIGMA, WINDOW, gaussian

__all__ = ["fusion_inputs", "without_light"]

LIGHT_SIGMA = 4.0  # cells: 32 pixels, half the smallest patch
LIGHT_RADIUS = 8  # cells: the smallest picture
LIGHT_LEAST = (
    0.25  # deviations of the texture; slow changes up to here stay: they may be a faint broad defect
)
FLOOR = 1e-3  # of the residual's energy, in the texture's variances


def without_light(image: Tensor, background: Tensor, std: Tensor, *, backend: str | None = None) -> Tensor:
    """Pictures less the light that their backgrounds do not have: the residual's slow part.

    Slow is what is left of it after a blur half a patch wide, of the means of 8 x 8 cells. Of that, what is more
    than a quarter of the texture's deviation either way is light.

    Equivalent to: `reference.learned_fusion.without_light` on each picture.

    Parameters
    ----------
    image, background : (B, C, H, W)
        In [0, 1], of one dtype and device, any memory layout.
    std : (C,)
        The texture's deviation, positive, of the same dtype and device.
    backend
        "eager", "numba", "triton", or None: see `fast._dispatch`.

    Returns
    -------
    (B, C, H, W) in [0, 1]
        In the dtype of `image`; sums are kept in float32 or wider.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit; NaN or infinity, and deviations that are not positive, on the CPU.
    BackendUnavailable
        `backend` is named and cannot run.
    """
    _check(image, background, std=std)
    chosen = choose(backend, image)
    if chosen == "eager":
        _checks.finite(
            image - background, image=image, background=background
        )  # in the result it may be clamped
        return _eager_without_light(image, background, std)
    unlit: Tensor = _without_light(image, background, std, chosen)
    return unlit


def fusion_inputs(
    image: Tensor, background: Tensor, mean: Tensor, std: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """What the convolutions see of pictures and their backgrounds, and the logarithm of the residual's energy.

    In units of the texture's deviation: the picture less the blurred background, the blurred picture less the
    texture's mean, the residual with its sign, and the residual blurred; then 1 - GMS, 1 - SSIM and the residual's
    size, Eq 19, 21 and 22. The energy is the residual's squared size, blurred; the unit is mean(std)^2, and no pixel
    counts for more than one: a speck of noise is not to outshine a broad defect.

    Equivalent to: `reference.learned_fusion.fusion_inputs` on each picture.

    Parameters
    ----------
    image, background : (B, C, H, W)
        In [0, 1], of one dtype and device, any memory layout.
    mean, std : (C,)
        Of the texture, std positive, of the same dtype and device.
    backend
        "eager", "numba", "triton", or None: see `fast._dispatch`.

    Returns
    -------
    inputs : (B, 4 C + 3, H, W)
        In the dtype of `image`; sums are kept in float32 or wider.
    energy : (B, H, W)
        Half the logarithm of the energy and 1/1000.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit; NaN or infinity, and deviations that are not positive, on the CPU.
    BackendUnavailable
        `backend` is named and cannot run.
    """
    _check(image, background, mean=mean, std=std)
    chosen = choose(backend, image)
    if chosen == "eager":
        _checks.finite(image - background, image=image, background=background)
        return _eager_fusion_inputs(image, background, mean, std)
    inputs, energy = _fusion_inputs(image, background, mean, std, chosen)
    return inputs, energy


def _check(image: Tensor, background: Tensor, **texture: Tensor) -> None:
    _checks.shaped("image", image, "B", "C", "H", "W")
    if 0 in image.shape[1:]:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected C, H and W above 0")
    _checks.shaped("background", background, *image.shape)
    for name, values in texture.items():
        _checks.shaped(name, values, image.shape[1])
    _checks.alike(image=image, background=background, **texture)
    if image.device.type == "cpu" and not torch.compiler.is_compiling():
        for name, values in texture.items():
            _checks.finite(values, **{name: values})
        if not bool((texture["std"] > 0).all()):
            raise ValueError(f"std is {texture['std'].tolist()}; expected deviations above 0")


def _eager_without_light(image: Tensor, background: Tensor, std: Tensor) -> Tensor:
    x, y, s = _wide(image, background, std)
    scale = s[:, None, None]
    slow = broadly_blurred((x - y) / scale, LIGHT_SIGMA, LIGHT_RADIUS)
    light = (slow - slow.clamp(-LIGHT_LEAST, LIGHT_LEAST)) * scale
    return (x - light).clamp(0, 1).to(image.dtype)


def _eager_fusion_inputs(
    image: Tensor, background: Tensor, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    x, y, m, s = _wide(image, background, mean, std)
    _, maps = fusion._eager(x, y, [True, True, True], 0)
    centre, scale = m[:, None, None], s[:, None, None]
    difference = x - y
    square = (difference.square().mean(1, keepdim=True) / s.mean() ** 2).clamp_max(1)
    behind, rest, energy = blurred(torch.cat((y, difference, square), 1)).split((len(m), len(m), 1), 1)
    channels = ((x - behind) / scale, (behind + rest - centre) / scale, difference / scale, rest / scale)
    inputs = torch.cat((*channels, maps[:, :2], maps[:, 2:] / s.mean()), 1)
    return inputs.to(image.dtype), (energy.squeeze(1).clamp_min(0).add(FLOOR).log() / 2).to(image.dtype)


def _wide(*tensors: Tensor) -> list[Tensor]:
    """In float32 or wider, as every sum is kept."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


# The fused backends as operators of torch: `torch.compile` takes them as they are.


@torch.library.custom_op("fmrnet::without_light", mutates_args=())
def _without_light(image: Tensor, background: Tensor, std: Tensor, backend: str) -> Tensor:
    unlit = image.new_empty(image.shape)
    seen = _kernels(backend).without_light(
        image, background, std, gaussian(LIGHT_SIGMA, 2 * LIGHT_RADIUS + 1), LIGHT_LEAST, unlit=unlit
    )
    _checks.finite(seen, image=image, background=background)
    return unlit


@torch.library.custom_op("fmrnet::fusion_inputs", mutates_args=())
def _fusion_inputs(
    image: Tensor, background: Tensor, mean: Tensor, std: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    inputs, energy = _empty(image)
    seen = _kernels(backend).fusion_inputs(
        image,
        background,
        mean,
        std,
        (gaussian(BLUR_SIGMA, 2 * BLUR_RADIUS + 1), gaussian(SIGMA, WINDOW)),
        (C0, C1, C2, FLOOR),
        inputs=inputs,
        energy=energy,
    )
    _checks.finite(seen, image=image, background=background)
    return inputs, energy


def _kernels(backend: str) -> ModuleType:
    return importlib.import_module(f"{__package__}._learned_fusion_{backend}")


def _empty(image: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = image.shape
    return (
        image.new_empty(batch, 4 * channels + 3, height, width),
        image.new_empty(batch, height, width),
    )


@_without_light.register_fake
def _(image: Tensor, background: Tensor, std: Tensor, backend: str) -> Tensor:
    return image.new_empty(image.shape)


@_fusion_inputs.register_fake
def _(image: Tensor, background: Tensor, mean: Tensor, std: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return _empty(image)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1])


def _without_light_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Through eager, computed again: neither training nor inspection asks for it."""
    return (*torch.func.vjp(_eager_without_light, *ctx.saved_tensors)[1](gradient), None)


def _fusion_inputs_backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.func.vjp(_eager_fusion_inputs, *ctx.saved_tensors)[1](gradients), None)


_without_light.register_autograd(_without_light_backward, setup_context=_setup_context)
_fusion_inputs.register_autograd(_fusion_inputs_backward, setup_context=_setup_context)
