"""Eq 1 on tensors: synthetic defects rendered on the device from drawn parameters, a batch at a time.

Letters: S support of the defect; I_o defect-free picture (`image`); I_d anomalous picture; I_s synthetic
picture; lambda transparency (`opacity`); I_m mask, here one value per picture (`destructive`).
"""

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._dispatch import choose

__all__ = ["blend", "support", "synthesize"]


def _blob(grid: Tensor, height: int, width: int) -> Tensor:
    # [B, g, g] -> [B, H, W], corner values at the corner pixels
    return F.interpolate(grid[:, None], size=(height, width), mode="bilinear", align_corners=True)[:, 0]


def _line(line: Tensor, x: Tensor, y: Tensor) -> Tensor:
    cx, cy, angle, half_length, amplitude, period, phase = line[:, :, None, None].unbind(1)  # [B, 1, 1] each
    u = (x - cx) * angle.cos() + (y - cy) * angle.sin()
    v = (y - cy) * angle.cos() - (x - cx) * angle.sin()
    across = (v - amplitude * torch.sin(2 * torch.pi * u / period + phase)).abs()
    return -torch.maximum(across, u.abs() - half_length)


def _dots(dots: Tensor, x: Tensor, y: Tensor) -> Tensor:
    field = dots.new_full((len(dots), y.shape[0], x.shape[1]), -torch.inf)
    for dot in dots.unbind(1):  # one at a time: the [B, J, H, W] distances are never held
        cx, cy, r = dot[:, :, None, None].unbind(1)
        field = torch.maximum(field, r - torch.hypot(x - cx, y - cy))
    return field


def support(
    shape: tuple[int, int],
    *,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
) -> Tensor:
    """Where the defect of each picture lies.

    Parameters
    ----------
    shape : (H, W), pixels.
    kind : (B,) integer; 0 blob, 1 line, 2 dots.
    grid : (B, g, g); the blob's field at a coarse grid, spread bilinearly, corners on corners.
    line : (B, 7); cx, cy, angle (radians), half_length, amplitude, period, phase (radians); pixels.
    dots : (B, J, 3); x, y, radius in pixels.
    level : (B,); the field's value at the middle of the edge.
    edge : (B,), positive; width of the soft edge in the field's units.

    Returns
    -------
    S : (B, H, W) in [0, 1].

    Equivalent to: `reference.synthesis.support` on each picture.
    """
    height, width = shape
    x = torch.arange(width, dtype=grid.dtype, device=grid.device)[None, :]
    y = torch.arange(height, dtype=grid.dtype, device=grid.device)[:, None]
    k = kind[:, None, None]
    field = torch.where(
        k == 0, _blob(grid, height, width), torch.where(k == 1, _line(line, x, y), _dots(dots, x, y))
    )
    return (0.5 + (field - level[:, None, None]) / edge[:, None, None]).clamp(0, 1)


def blend(image: Tensor, anomaly: Tensor, mask: Tensor, opacity: Tensor) -> Tensor:
    """Eq 1 as printed: lambda * [(1 - I_m) * I_o + I_m * I_d] + (1 - lambda) * I_d; shapes broadcast.

    Equivalent to: `reference.synthesis.blend`.
    """
    return opacity * ((1 - mask) * image + mask * anomaly) + (1 - opacity) * anomaly


def synthesize(
    image: Tensor,
    source: Tensor,
    *,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
    destructive: Tensor,
    opacity: Tensor,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Put one synthetic defect on each picture (Eq 1).

    Parameters
    ----------
    image, source : (B, C, H, W) in [0, 1]; defect-free pictures, and pictures to cut defects from.
    kind, grid, line, dots, level, edge : the drawn shape, see `support`.
    destructive : (B,); 1 replaces the texture inside the support, 0 covers it with a translucent layer.
    opacity : (B,) in (0, 1); the paper's lambda: how much of the texture shows through an occlusion.

    Returns
    -------
    I_s : (B, C, H, W) in [0, 1], and S : (B, H, W) in [0, 1], in the dtype of `image`.

    Raises
    ------
    TypeError
        Dtypes that are not floating point or differ.
    ValueError
        Shapes that do not fit; on the CPU also an unknown kind, an edge that is not above 0, a line with a period of 0,
        shares outside [0, 1], NaN or infinity.
    BackendUnavailable
        `backend` is named and cannot run, or gradients are asked of another than eager.

    Equivalent to: `reference.synthesis.synthesize` on each picture.
    """
    _checks.shaped("image", image, "B", "C", "H", "W")
    _checks.shaped("source", source, *image.shape)
    _checks.alike(image=image, source=source)
    compute = torch.promote_types(image.dtype, torch.float32)
    grid, line, dots, level, edge = (t.to(compute) for t in (grid, line, dots, level, edge))
    destructive, opacity = destructive.to(compute), opacity.to(compute)
    _check(image, kind, grid, line, dots, level=level, edge=edge, destructive=destructive, opacity=opacity)
    edge = edge.clamp_min(LEAST_EDGE)
    shade = 1 - opacity * (1 - destructive)  # Eq 1 is I_o + shade * S * (source - I_o)
    chosen = choose(
        backend, image, lambda name: GRADIENT if name != "eager" and _learns(image, source) else None
    )
    if chosen == "eager":
        result, s = _eager(image, source, kind, grid, line, dots, level, edge, shade)
    else:
        result, s = _synthesize(image, source, kind, grid, line, dots, level, edge, shade, chosen)
    _checks.finite(result, image=image, source=source)
    return result, s


LEAST_EDGE = 1e-30  # as sharp as any: by a smaller one float32 overflows in the division
LEAST_PERIOD = 1e-6  # pixels; of a shorter wave float32 has no phase left
GRADIENT = "only eager has gradients; detach the pictures"


def _learns(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _check(image: Tensor, kind: Tensor, grid: Tensor, line: Tensor, dots: Tensor, **scalars: Tensor) -> None:
    batch = image.shape[0]
    _checks.shaped("grid", grid, batch, "g", "g")
    _checks.shaped("line", line, batch, 7)
    _checks.shaped("dots", dots, batch, "J", 3)
    for name, tensor in scalars.items():
        _checks.shaped(name, tensor, batch)
    if kind.shape != (batch,) or kind.is_floating_point():
        raise ValueError(f"kind is {kind.dtype} {tuple(kind.shape)}; expected integers ({batch},)")
    if image.device.type == "cpu" and not torch.compiler.is_compiling():
        if ((kind < 0) | (kind > 2)).any():
            raise ValueError(f"kind is {kind.tolist()}; expected 0 (blob), 1 (line) or 2 (dots)")
        shapes = {"grid": grid[kind == 0], "line": line[kind == 1], "dots": dots[kind == 2]}
        for name, tensor in (shapes | scalars).items():  # a kernel's clamp may hide NaN
            _checks.finite(tensor, **{name: tensor})
        if not (scalars["edge"] > 0).all():
            raise ValueError(f"edge is {scalars['edge'].tolist()}; expected widths above 0")
        if ((kind == 1) & (line[:, 5].abs() < LEAST_PERIOD)).any():
            raise ValueError(
                f"line has periods {line[:, 5].tolist()}; expected none nearer 0 than {LEAST_PERIOD}"
            )
        for name in ("destructive", "opacity"):
            if ((scalars[name] < 0) | (scalars[name] > 1)).any():
                raise ValueError(f"{name} is {scalars[name].tolist()}; expected values in [0, 1]")


def _eager(
    image: Tensor,
    source: Tensor,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
    shade: Tensor,
) -> tuple[Tensor, Tensor]:
    height, width = image.shape[2:]
    s = support((height, width), kind=kind, grid=grid, line=line, dots=dots, level=level, edge=edge)
    weight = shade[:, None, None, None] * s[:, None]  # [B, 1, H, W]
    return (weight * source + (1 - weight) * image).to(image.dtype), s.to(image.dtype)


@torch.library.custom_op("fmrnet::synthesize", mutates_args=())
def _synthesize(
    image: Tensor,
    source: Tensor,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
    shade: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    result, s = _empty(image)
    kernels = importlib.import_module(f"{__package__}._synthesis_{backend}")
    kernels.synthesize(
        image.contiguous(), source.contiguous(), kind.long(), grid.contiguous(), line.contiguous(),
        dots.contiguous(), level.contiguous(), edge.contiguous(), shade.contiguous(), result=result, s=s,
    )  # fmt: skip
    return result, s


@_synthesize.register_fake
def _(
    image: Tensor,
    source: Tensor,
    kind: Tensor,
    grid: Tensor,
    line: Tensor,
    dots: Tensor,
    level: Tensor,
    edge: Tensor,
    shade: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _empty(image)


def _empty(image: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, height, width = image.shape
    return torch.empty_like(image, memory_format=torch.contiguous_format), image.new_empty(
        batch, height, width
    )
