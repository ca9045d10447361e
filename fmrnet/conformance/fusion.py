"""What must hold of the anomaly map and of the maps that it is made of, Eq 17 to 23."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from torch import Tensor

from fmrnet import fast
from fmrnet.fast.fusion import MODALITIES

from .kernel import Kernel
from .oracles import ORACLES
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, must
from .strategies import laid_out, layouts, pictures, seeds
from .tolerances import assert_close

__all__ = ["PROPERTIES"]

CHOICES = (
    ("gms", "ssim", "residual"), ("residual", "gms"), ("ssim",), ("gms",), ("residual",), ("ssim", "residual"),
)  # fmt: skip
SSIM = {"sigma": (1.5, 0.8), "window": (11, 7), "c1": (0.01**2, 0.02), "c2": (0.03**2, 0.03)}
TILES = ((1, 3, 70, 150), (2, 1, 64, 128), (1, 2, 129, 66), (2, 3, 1, 300), (1, 3, 200, 1))
RANGES = {"gms": 1, "ssim": 2, "residual": 1}  # of the modality maps, from 0
FULL = ("float64", "float32")


def _options(kernel: Kernel, data: DataObject) -> dict[str, Any]:
    """Drawn options of the function, whichever of the six it is."""
    known: dict[str, tuple[Any, ...]] = {
        "modalities": CHOICES,
        "median": (0, 1, 3, 5) if not kernel.small else (0,),
        "return_modalities": (True, False),
        "c0": (0.0026, 0.01),
        **SSIM,
    }
    return {
        option: data.draw(st.sampled_from(kernel.values(option, known[option]))) for option in kernel.defaults
    }


def _first(kernel: Kernel, **wanted: Any) -> dict[str, Any]:
    """Each option at the wanted value if it may have it, else at its default or the first it may have."""
    chosen = {}
    for option, default in kernel.defaults.items():
        values = kernel.values(option, (wanted.get(option, default), default))
        chosen[option] = wanted[option] if option in wanted and wanted[option] in values else values[0]
    return chosen


def _agree(kernel: Kernel, x: Tensor, y: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """Every map against the oracle, and the fused one against the product of the others, however small it is."""
    scales = {"A": 1, "gms": 1, "ssim": 1, "map": 1 if kernel.name == "ssim" else None}
    arguments = {"image": x, "reconstruction": y} | options
    results = agree_with_oracle(kernel, arguments, scales)
    maps = [results[name].double().cpu().numpy() for name in MODALITIES if name in results]
    if "A" in results and maps:
        product = np.prod(maps, axis=0)
        scale = max(product.max(initial=0), torch.finfo(kernel.dtype).tiny)
        assert_close(
            results["A"], product, dtype=kernel.dtype, scale=scale, name="A beside the maps' product"
        )
        alone = kernel(**arguments | {"return_modalities": False})["A"]
        must(torch.equal(alone, results["A"]), "A differs when the modality maps are not asked for")
    return results


def matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Every map is the oracle's for any sizes, strides, pictures and options; borders are mirrored."""
    image, reconstruction = data.draw(pictures(side=12 if kernel.small else 40))
    options = _options(kernel, data)
    x = laid_out(kernel.tensor(image), data.draw(layouts))
    y = laid_out(kernel.tensor(reconstruction), data.draw(layouts))
    _agree(kernel, x, y, options)


def matches_the_oracle_on_large_pictures(kernel: Kernel, data: DataObject) -> None:
    """Every map is the oracle's on pictures of several tiles, and on those one pixel high or wide."""
    batch, channels, height, width = data.draw(st.sampled_from(TILES))
    shape = (1, 1, min(height, 40), min(width, 70)) if kernel.small else (batch, channels, height, width)
    rng = np.random.default_rng(1)
    x, y = (kernel.tensor(rng.random(shape)) for _ in range(2))
    _agree(kernel, x, y, _first(kernel, return_modalities=True))


def median_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """The median filter is the oracle's, in pictures smaller than its window too."""
    window, shape = data.draw(st.sampled_from([(3, (1, 1, 9, 7)), (5, (1, 1, 2, 3)), (3, (1, 1, 1, 1))]))
    rng = np.random.default_rng(2)
    x, y = (kernel.tensor(rng.random(shape)) for _ in range(2))
    _agree(kernel, x, y, _first(kernel, modalities=("residual",), median=window, return_modalities=True))


def takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No pictures give no maps."""
    x = kernel.tensor(np.zeros((0, 3, 6, 5)))
    _agree(kernel, x, x, _first(kernel, median=3, return_modalities=True))


def symmetric_and_in_range(kernel: Kernel, data: DataObject) -> None:
    """The pictures may be swapped, mirrored or turned; every map stays in its range; equal pictures have no defect."""
    x, y = (kernel.tensor(t) for t in data.draw(pictures(side=10)))
    options = _first(kernel, return_modalities=True)
    results = kernel(image=x, reconstruction=y, **options)
    slack = 1 + 8 * torch.finfo(kernel.dtype).eps
    for name, result in results.items():
        low, high = _range(kernel.name, name)
        must(
            result.min() >= low * slack,
            f"{name} goes down to {float(result.min()):.9g}, expected {low} or more",
        )
        must(
            result.max() <= high * slack,
            f"{name} goes up to {float(result.max()):.9g}, expected {high} at most",
        )
    name, result = next(iter(results.items()))
    right = result.detach().double().cpu().numpy()

    def again(first: Tensor, second: Tensor) -> Tensor:
        return kernel(image=first, reconstruction=second, **options)[name]

    for change, other in (
        ("the pictures swapped", again(y, x)),
        ("both pictures mirrored", again(x.flip(3), y.flip(3)).flip(2)),
        ("both pictures turned", again(x.mT, y.mT).mT),
    ):
        assert_close(other, right, dtype=kernel.dtype, scale=1, name=f"{name} with {change}")
    same = again(x, x)
    if kernel.name == "anomaly_map" and "residual" in options["modalities"]:
        must(not same.any(), "A of a picture and itself is not exactly 0 everywhere")
    else:
        right = ORACLES[kernel.name](image=x, reconstruction=x, **options)[name]
        assert_close(same, right, dtype=kernel.dtype, scale=1, name=f"{name} of a picture and itself")


def _range(function: str, name: str) -> tuple[float, float]:
    if function == "ssim":
        return -1, 1
    return 0, 2 if name in ("ssim", "A") else 1


def repeats_to_the_last_bit(kernel: Kernel, data: DataObject) -> None:
    """The same call gives the same bits, and a picture's map does not depend on the others of its batch."""
    rng = np.random.default_rng(3)
    x, y = (kernel.tensor(rng.random((2, 3, 20, 30))) for _ in range(2))
    options = _first(kernel)
    first = kernel(image=x, reconstruction=y, **options)
    again = [kernel(image=x, reconstruction=y, **options) for _ in range(4)]
    alone = kernel(image=x[1:], reconstruction=y[1:], **options)
    for name, result in first.items():
        equal = all(torch.equal(result, other[name]) for other in again)
        must(equal, f"{name} differs between two equal calls")
        right = result[1:].double().cpu().numpy()
        assert_close(alone[name], right, dtype=kernel.dtype, scale=1, name=f"{name} of a picture alone")


def _ssim_alone(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    options = _first(kernel, modalities=("ssim",))
    return next(iter(kernel(image=x, reconstruction=y, **options).values()))


def beside_a_defect_nothing_is_negative(kernel: Kernel, data: DataObject) -> None:
    """Where the pictures are equal beside a defect, 1 - SSIM is 0 but for rounding, and never below."""
    rng = np.random.default_rng(9)
    x, y = (kernel.tensor(rng.random((8, 1, 12, 40))) for _ in range(2))
    y[..., :20] = x[..., :20]
    found = _ssim_alone(kernel, x, y)
    must(found.min() >= 0, f"1 - SSIM goes down to {float(found.min()):.3g}")
    must(
        found[..., :15].max() <= 1e-6,
        f"1 - SSIM of equal pixels goes up to {float(found[..., :15].max()):.3g}",
    )


def faint_defects_keep_their_digits(kernel: Kernel, data: DataObject) -> None:
    """1 - SSIM of nearly equal pictures, to a relative 1 %: the similarity itself would round to 1."""
    scale = data.draw(st.sampled_from((1e-3, 1e-6, 1e-18)))
    rng = np.random.default_rng(4)
    image = rng.random((1, 1, 16, 16)) * 0.1
    x, y = kernel.tensor(image), kernel.tensor(image + scale * rng.random(image.shape))
    _digits(kernel, x, y, 1e-2)


def bright_pictures_keep_their_digits(kernel: Kernel, data: DataObject) -> None:
    """1 - SSIM far from 0: the variance is a small difference of large squares, unless the mean is taken off first."""
    low, contrast = data.draw(st.sampled_from(((0.9, 0.1), (0.95, 0.01))))
    rng = np.random.default_rng(5)
    image = low + contrast * rng.random((1, 1, 48, 48))
    x, y = kernel.tensor(image), kernel.tensor(image + 1e-3 * (rng.random(image.shape) - 0.5))
    _digits(kernel, x, y, 2e-5)


def _digits(kernel: Kernel, x: Tensor, y: Tensor, relative: float) -> None:
    found = _ssim_alone(kernel, x, y).double().cpu()
    exact = fast.modality_maps(x.double().cpu(), y.double().cpu(), modalities=("ssim",), backend="eager")[
        "ssim"
    ]
    off = (found - exact).abs() - relative * exact - 1e-13
    must(
        (off <= 0).all(),
        f"1 - SSIM is {float(found.flatten()[off.argmax()]):.9g} at worst, "
        f"right is {float(exact.flatten()[off.argmax()]):.9g}; allowed {relative:g} of it",
    )


def gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64."""
    shape = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), 7)
    rng = np.random.default_rng(data.draw(seeds))
    layout = data.draw(layouts)
    x, y = (laid_out(kernel.tensor(rng.random(shape)), layout) for _ in range(2))
    arguments: Arguments = {"image": x, "reconstruction": y} | _options(kernel, data)
    agree_in_gradients(kernel, arguments, ["image", "reconstruction"])


def gradients_of_equal_pictures_are_finite(kernel: Kernel, data: DataObject) -> None:
    """Where the pictures are flat and equal, every root is one of 0: the gradients are finite all the same."""
    flat = kernel.tensor(np.full((1, 1, 4, 3), 0.5)).requires_grad_()
    results = kernel.learnable(image=flat, reconstruction=flat, **_first(kernel))
    total = torch.stack([result.sum() for result in results.values()]).sum()
    (gradient,) = torch.autograd.grad(total, flat)
    must(gradient.isfinite().all(), "the gradient to two equal, flat pictures is not finite")


def _of(function: str) -> list[Property]:
    shared = [
        Property(function, matches_the_oracle, 24),
        Property(function, takes_an_empty_batch),
        Property(function, matches_the_oracle_on_large_pictures, 20, dtypes=FULL),
        Property(function, symmetric_and_in_range, 6),
        Property(function, repeats_to_the_last_bit, dtypes=FULL),
        Property(function, gradients_agree, 8, True, FULL),
        Property(function, gradients_of_equal_pictures_are_finite, 1, True, FULL),
    ]
    if function not in ("anomaly_map", "modality_maps"):
        return shared
    return [
        *shared,
        Property(function, median_matches_the_oracle, 12, dtypes=FULL),
        Property(function, beside_a_defect_nothing_is_negative, dtypes=("float32",)),
        Property(function, faint_defects_keep_their_digits, 12, dtypes=("float32",)),
        Property(function, bright_pictures_keep_their_digits, 12, dtypes=("float32",)),
    ]


PROPERTIES = [
    prop for name in ("anomaly_map", "modality_maps", "gms", "ssim", "residual") for prop in _of(name)
]
