"""What must hold of what the learned fusion sees: the inputs of its convolutions, and pictures without light."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from torch import Tensor

from .kernel import Kernel
from .oracles import ORACLES
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, must, scaled
from .strategies import fill, laid_out, layouts, pictures, seeds
from .tolerances import assert_close

__all__ = ["PROPERTIES"]

SIZES = ((1, 3, 90, 150), (2, 1, 64, 128), (1, 2, 33, 530), (2, 3, 1, 140), (1, 3, 75, 2), (3, 1, 8, 9))
LEAST, MOST = 0.03125, 0.5  # of the texture's deviation; the oracle's scale is its inverse
FULL = ("float64", "float32")


def _texture(kernel: Kernel, channels: int, seed: int) -> Arguments:
    """Mean and deviation of the texture, as far as the function takes them."""
    rng = np.random.default_rng(seed)
    drawn = {"mean": rng.random(channels), "std": rng.uniform(LEAST, MOST, channels)}
    return {name: kernel.tensor(values) for name, values in drawn.items() if name in kernel.parameters}


def _agree(kernel: Kernel, x: Tensor, y: Tensor, texture: Arguments) -> dict[str, Tensor]:
    """Every result against the oracle, and each plane of the inputs by its own magnitude: a few are far greater.

    An energy of 1 has the logarithm 0, which has the rounding of that 1.
    """
    arguments = {"image": x, "background": y} | texture
    results = agree_with_oracle(kernel, arguments, {"energy": 1.0})
    if "inputs" in results:
        right = ORACLES[kernel.name](**arguments)["inputs"]
        for plane in range(right.shape[1]):
            found, expected = results["inputs"][:, plane], right[:, plane]
            scale = max(1.0, scaled(torch.from_numpy(expected)))
            assert_close(found, expected, dtype=kernel.dtype, scale=scale, name=f"inputs[:, {plane}]")
    return results


def matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Every result is the oracle's for any sizes, strides, pictures and textures; borders are mirrored."""
    image, background = data.draw(pictures(side=12 if kernel.small else 40))
    x = laid_out(kernel.tensor(image), data.draw(layouts))
    y = laid_out(kernel.tensor(background), data.draw(layouts))
    texture = _texture(kernel, x.shape[1], data.draw(seeds))
    _agree(kernel, x, y, texture)


def matches_the_oracle_on_large_pictures(kernel: Kernel, data: DataObject) -> None:
    """Every result is the oracle's on pictures of several tiles, and on those one pixel high or a few wide."""
    batch, channels, height, width = data.draw(st.sampled_from(SIZES))
    shape = (1, 1, min(height, 40), min(width, 70)) if kernel.small else (batch, channels, height, width)
    rng = np.random.default_rng(1)
    x, y = (kernel.tensor(rng.random(shape)) for _ in range(2))
    _agree(kernel, x, y, _texture(kernel, shape[1], 2))


def strong_light_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """The result is the oracle's under light that changes across the picture; unrelated pictures have next to none."""
    shape = (1, 1, 40, 70) if kernel.small else (2, 3, 75, 150)
    rows, cols = np.mgrid[: shape[2], : shape[3]] / max(shape)
    rng = np.random.default_rng(9)
    background = 0.3 + 0.3 * rng.random(shape)
    image = background + 0.25 * np.cos(np.pi * (rows + data.draw(st.sampled_from((-1, 0.5))) * cols))
    _agree(kernel, kernel.tensor(image), kernel.tensor(background), _texture(kernel, shape[1], 10))


def takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No pictures give no results."""
    x = kernel.tensor(np.zeros((0, 3, 6, 5)))
    _agree(kernel, x, x, _texture(kernel, 3, 3))


def equal_pictures_leave_nothing(kernel: Kernel, data: DataObject) -> None:
    """A picture that is its own background has no light, no residual, blurred or not, and no map of differences."""
    image, _ = data.draw(pictures(side=12))
    x = kernel.tensor(image)
    texture = _texture(kernel, x.shape[1], 4)
    results = _agree(kernel, x, x, texture)
    if kernel.name == "without_light":
        must(torch.equal(results["unlit"], x), "a picture without light is not left as it is")
        return
    nothing = results["inputs"][:, 2 * x.shape[1] :].abs()
    must(nothing.max() <= 1e-6, f"the differences of equal pictures go up to {float(nothing.max()):.3g}")


def repeats_to_the_last_bit(kernel: Kernel, data: DataObject) -> None:
    """The same call gives the same bits, and a picture's results do not depend on the others of its batch."""
    rng = np.random.default_rng(5)
    x, y = (kernel.tensor(rng.random((2, 3, 20, 30))) for _ in range(2))
    texture = _texture(kernel, 3, 6)
    first = kernel(image=x, background=y, **texture)
    again = [kernel(image=x, background=y, **texture) for _ in range(4)]
    alone = kernel(image=x[1:], background=y[1:], **texture)
    for name, result in first.items():
        equal = all(torch.equal(result, other[name]) for other in again)
        must(equal, f"{name} differs between two equal calls")
        right = result[1:].double().cpu().numpy()
        assert_close(alone[name], right, dtype=kernel.dtype, name=f"{name} of a picture alone")


def faint_residuals_keep_their_digits(kernel: Kernel, data: DataObject) -> None:
    """The blurred residual of nearly equal bright pictures, to a relative 1e-4: no difference of two blurs."""
    scale = data.draw(st.sampled_from((1e-3, 1e-5)))
    rng = np.random.default_rng(7)
    y = kernel.tensor(0.9 + 0.05 * rng.random((1, 1, 24, 31)))
    x = y + scale * kernel.tensor(fill("normal", tuple(y.shape), 8)).abs()
    std = kernel.tensor([0.25])
    found = kernel(image=x, background=y, mean=std, std=std)["inputs"][:, 3].double().cpu()
    right = torch.from_numpy(ORACLES[kernel.name](image=x, background=y, mean=std, std=std)["inputs"][:, 3])
    off = ((found - right).abs() / right).max()
    must(off <= 1e-4, f"the blurred residual is off by a relative {float(off):.3g}; allowed 1e-4")


def gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64."""
    shape = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12)), 7)
    rng = np.random.default_rng(data.draw(seeds))
    layout = data.draw(layouts)
    x, y = (laid_out(kernel.tensor(rng.random(shape)), layout) for _ in range(2))
    texture = _texture(kernel, shape[1], data.draw(seeds))
    agree_in_gradients(kernel, {"image": x, "background": y} | texture, ["image", "background", *texture])


def _of(function: str) -> list[Property]:
    return [
        Property(function, matches_the_oracle, 24),
        Property(function, takes_an_empty_batch),
        Property(function, matches_the_oracle_on_large_pictures, 20, dtypes=FULL),
        Property(function, equal_pictures_leave_nothing, 6),
        Property(function, repeats_to_the_last_bit, dtypes=FULL),
        Property(function, gradients_agree, 8, True, FULL),
    ]


PROPERTIES = [
    *_of("without_light"),
    Property("without_light", strong_light_matches_the_oracle, 4),
    *_of("fusion_inputs"),
    Property("fusion_inputs", faint_residuals_keep_their_digits, 8, dtypes=("float32",)),
]
