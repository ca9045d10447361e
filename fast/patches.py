"""Slice a picture into patches with a sliding window (section IV.B), and stitch patches back."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _checks

__all__ = ["slice_patches", "stitch_patches"]


def slice_patches(image: Tensor, size: int = 64, stride: int = 64) -> tuple[Tensor, Tensor]:
    """Cut a picture into square patches, row by row.

    Equivalent to: `reference.patches.slice_patches`, channels first; where the patches end flush with the
    border, ``image.unfold(1, size, stride).unfold(2, size, stride)``.

    Parameters
    ----------
    image : (C, H, W)
        H and W at least `size`.
    size
        Side of a patch in pixels.
    stride
        Step between patches in pixels, 1 to `size`; below `size` patches overlap. The last patch of each axis
        lies flush with the border.

    Returns
    -------
    patches : (N, C, size, size)
        A copy, contiguous per patch.
    origins : (N, 2) int64
        Row and column of each patch's upper left pixel.

    Raises
    ------
    ValueError
        The picture is smaller than a patch, or the stride would leave gaps.
    """
    _checks.shaped("image", image, "C", "H", "W")
    height, width = image.shape[1:]
    if size < 1 or not 1 <= stride <= size:
        raise ValueError(
            f"size {size} and stride {stride}; expected size >= 1 and stride 1 to size: more skips pixels"
        )
    if min(height, width) < size:
        raise ValueError(
            f"image is {height} x {width} pixels, smaller than a patch of {size} x {size}; "
            "give a larger picture or scale it up"
        )
    rows = _starts(height, size, stride)
    columns = _starts(width, size, stride)
    windows = image.unfold(1, size, 1).unfold(
        2, size, 1
    )  # (C, H - size + 1, W - size + 1, size, size), a view
    origins = torch.cartesian_prod(torch.tensor(rows), torch.tensor(columns)).to(image.device)
    if image.is_cuda:  # there what takes the time is how many calls there are
        return _cut_together(windows, origins), origins
    return torch.stack([windows[:, r, c] for r in rows for c in columns]), origins


def _cut_together(windows: Tensor, origins: Tensor) -> Tensor:
    """The windows (C, ..., size, size) at the origins, (N, C, size, size)."""
    return windows[:, origins[:, 0], origins[:, 1]].transpose(0, 1).contiguous()


def stitch_patches(patches: Tensor, origins: Tensor, shape: Sequence[int]) -> Tensor:
    """Lay patches back at their origins; where they overlap, take the weighted mean.

    A pixel (i, j) of a patch weighs w(i) w(j) with the triangle w(i) = min(i + 1, size - i): a patch fades
    towards its border and no seam shows. Stitching what `slice_patches` cut gives the picture back.

    Equivalent to: `reference.patches.stitch_patches`, channels first.

    Parameters
    ----------
    patches : (N, C, size, size)
    origins : (N, 2) int64
    shape : (H, W)
        Size of the picture.

    Returns
    -------
    (C, H, W)
        In the dtype of `patches`; means are kept in float32 or wider.

    Raises
    ------
    ValueError
        Shapes do not fit, origins are no integers, a patch lies outside the picture, or a pixel lies in no patch.
    """
    _checks.shaped("patches", patches, "N", "C", "size", "side")
    count, channels, size, side = patches.shape
    height, width = shape[:2]
    if side != size:
        raise ValueError(
            f"patches have shape {tuple(patches.shape)}; expected square ones, (N, C, size, size)"
        )
    if tuple(origins.shape) != (count, 2) or origins.is_floating_point():
        raise ValueError(
            f"origins is {origins.dtype} of shape {tuple(origins.shape)}; expected ({count}, 2), "
            "integers, row and column of each patch"
        )
    corners: list[tuple[int, int]] = [(r, c) for r, c in origins.tolist()]
    if any(not (0 <= r <= height - size and 0 <= c <= width - size) for r, c in corners):
        raise ValueError(f"a patch of {size} x {size} lies outside the picture of {height} x {width} pixels")

    i = torch.arange(size, device=patches.device)
    compute = torch.promote_types(patches.dtype, torch.float32)
    triangle = torch.minimum(i + 1, size - i).to(compute)
    weight = torch.outer(triangle, triangle)  # (size, size)
    mean = patches.new_zeros(channels, height, width, dtype=compute)
    total = patches.new_zeros(height, width, dtype=compute)
    if patches.is_cuda:  # there what takes the time is how many calls there are
        _lay_together(patches, corners, weight, mean, total)
        corners = []
    for patch, (r, c) in zip(patches, corners):
        here = (slice(r, r + size), slice(c, c + size))
        total[here] += weight
        window = mean[(slice(None), *here)]
        mean[(slice(None), *here)] = window + (patch - window) * (
            weight / total[here]
        )  # equal values stay exact
    missing = int((total == 0).sum())
    if missing:
        raise ValueError(
            f"{missing} of {height * width} pixels lie in no patch; give the origins of slice_patches"
        )
    return mean.to(patches.dtype)


def _lay_together(
    patches: Tensor, corners: list[tuple[int, int]], weight: Tensor, mean: Tensor, total: Tensor
) -> None:
    """Add patches to the means and the weights of a picture, those that do not overlap at once."""
    size, width = len(weight), total.shape[1]
    i = torch.arange(size, device=patches.device)
    pixels, sums = mean.flatten(1), total.flatten()  # views
    for layer in _layers(corners, size):
        first = torch.tensor([corners[n][0] * width + corners[n][1] for n in layer], device=patches.device)
        at = first[:, None, None] + i[:, None] * width + i  # (n, size, size)
        together = sums[at] + weight
        sums[at] = together
        window, patch = pixels[:, at], patches[torch.tensor(layer, device=patches.device)].transpose(0, 1)
        pixels[:, at] = window + (patch - window) * (weight / together)


def _layers(corners: list[tuple[int, int]], size: int) -> list[list[int]]:
    """The numbers of the patches, in lists of some that do not overlap; on a grid these are few."""
    rows, columns = (_phases({corner[axis] for corner in corners}, size) for axis in (0, 1))
    layers: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    before: Counter[tuple[int, int]] = Counter()
    for n, (r, c) in enumerate(corners):
        layers[rows[r], columns[c], before[r, c]].append(n)
        before[r, c] += 1
    return list(layers.values())


def _phases(starts: set[int], size: int) -> dict[int, int]:
    """A number for each start, such that starts of one number lie at least `size` apart."""
    line = sorted(starts)
    most = max((bisect_left(line, start + size) - n for n, start in enumerate(line)), default=1)
    return {start: n % most for n, start in enumerate(line)}


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    return starts if starts[-1] == length - size else [*starts, length - size]
