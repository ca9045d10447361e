"""What must hold of the synthetic defects, Eq 1."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from .kernel import Kernel
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, must
from .strategies import laid_out, layouts, seeds
from .tolerances import assert_close

__all__ = ["PROPERTIES", "drawn"]

SHAPE = ("kind", "grid", "line", "dots", "level", "edge")  # the parameters of the support


def drawn(kernel: Kernel, seed: int, shape: tuple[int, int, int, int], kind: int | None = None) -> Arguments:
    """Pictures (B, C, H, W) and the parameters of their defects.

    The parameters are in float32 or wider: half precision would move the defect.
    """
    batch, _, height, width = shape
    rng = np.random.default_rng(seed)
    size = max(height, width)
    line = np.column_stack([
        rng.uniform(0, width, batch), rng.uniform(0, height, batch), rng.uniform(0, np.pi, batch),
        rng.uniform(0, size, batch), rng.uniform(0, 4, batch), rng.uniform(4, 40, batch), rng.uniform(0, 6, batch),
    ])  # fmt: skip
    dots = rng.uniform((0, 0, 0), (width, height, 5), (batch, rng.integers(1, 4), 3))
    kinds = rng.integers(0, 3, batch) if kind is None else np.full(batch, kind)
    levels = [rng.uniform(0.3, 0.7, batch), -rng.uniform(0.5, 4, batch), np.zeros(batch)]
    return {
        "image": kernel.tensor(rng.random(shape)),
        "source": kernel.tensor(rng.random(shape)),
        "kind": kernel.tensor(kinds, torch.int64),
        "grid": kernel.fine(rng.random((batch, *[rng.integers(1, 7)] * 2))),
        "line": kernel.fine(line),
        "dots": kernel.fine(dots),
        "level": kernel.fine(np.choose(kinds, levels)),
        "edge": kernel.fine(np.where(kinds == 0, rng.uniform(0.05, 0.5, batch), rng.uniform(0.5, 3, batch))),
        "destructive": kernel.fine(rng.integers(0, 2, batch)),
        "opacity": kernel.fine(rng.uniform(0.1, 0.9, batch)),
    }


def _any_shape(data: DataObject) -> tuple[int, int, int, int]:
    side = st.integers(1, 40)
    return data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)), data.draw(side), data.draw(side)


def _scale(arguments: Arguments, sides: tuple[int, int]) -> float:
    """Distances of up to a picture's side are rounded, then divided by the edge."""
    return 1 + max(sides) / float(arguments["edge"].min())


def matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Picture and support are the oracle's for any sizes, strides and kinds of defect."""
    shape = _any_shape(data)
    arguments = drawn(kernel, data.draw(seeds), shape)
    for name in ("image", "source"):
        arguments[name] = laid_out(arguments[name], data.draw(layouts))
    agree_with_oracle(kernel, arguments, _scale(arguments, shape[2:]))


def touches_nothing_outside_the_support(kernel: Kernel, data: DataObject) -> None:
    """Outside the support the picture is as it was, to the bit; inside, a destructive defect is the source."""
    arguments = drawn(kernel, 1, (3, 2, 30, 25), data.draw(st.integers(0, 2)))
    results = kernel(**arguments)
    picture, support = results["I_s"], results["S"]
    must(((support >= 0) & (support <= 1)).all(), "S is not within 0 and 1")
    outside = (support == 0)[:, None].expand_as(picture)
    must(torch.equal(picture[outside], arguments["image"][outside]), "the picture differs where S is 0")
    inside = (support == 1) & (arguments["destructive"] == 1)[:, None, None]
    inside = inside[:, None].expand_as(picture)
    must(torch.equal(picture[inside], arguments["source"][inside]), "a destructive defect is not the source")


def no_dots_no_defect(kernel: Kernel, data: DataObject) -> None:
    """A defect of no dots is none."""
    arguments = drawn(kernel, 3, (2, 1, 8, 9), kind=2)
    arguments["dots"] = arguments["dots"][:, :0]
    results = kernel(**arguments)
    must(not results["S"].any(), "S is not 0 everywhere")
    must(torch.equal(results["I_s"], arguments["image"]), "the picture changed")


def takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No pictures give no pictures."""
    arguments = {name: t[:0] for name, t in drawn(kernel, 3, (2, 1, 8, 9)).items()}
    agree_with_oracle(kernel, arguments)


def is_equation_1(kernel: Kernel, data: DataObject) -> None:
    """I_s = lambda [(1 - I_m) I_o + I_m I_d] + (1 - lambda) I_d with I_d = S source + (1 - S) I_o."""
    arguments = drawn(kernel, 2, (6, 3, 20, 22))
    results = kernel(**arguments)
    s, I_o, source = (t.double() for t in (results["S"][:, None], arguments["image"], arguments["source"]))
    mask, opacity = (arguments[name].double()[:, None, None, None] for name in ("destructive", "opacity"))
    I_d = s * source + (1 - s) * I_o
    printed = opacity * ((1 - mask) * I_o + mask * I_d) + (1 - opacity) * I_d
    assert_close(results["I_s"], printed.cpu().numpy(), dtype=kernel.dtype, scale=1, name="I_s")


def support_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """S is the oracle's for any size and kind of defect."""
    shape = _any_shape(data)
    parameters = drawn(kernel, data.draw(seeds), shape)
    arguments = {"shape": shape[2:]} | {name: parameters[name] for name in SHAPE}
    agree_with_oracle(kernel, arguments, _scale(parameters, shape[2:]))


def blend_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """I_s is the oracle's: a mask of 1 puts the anomaly in the picture's place, one of 0 lays it over."""
    agree_with_oracle(kernel, _to_blend(kernel, data), 1)


def _to_blend(kernel: Kernel, data: DataObject) -> Arguments:
    shape = _any_shape(data)
    rng = np.random.default_rng(data.draw(seeds))
    image, anomaly = (laid_out(kernel.tensor(rng.random(shape)), data.draw(layouts)) for _ in range(2))
    whole = data.draw(st.booleans())  # one mask value a picture, or one a pixel
    mask = rng.integers(0, 2, (shape[0], 1, *((1, 1) if whole else shape[2:])))
    opacity = rng.uniform(0.1, 0.9, (shape[0], 1, 1, 1))
    return {
        "image": image,
        "anomaly": anomaly,
        "mask": kernel.tensor(mask),
        "opacity": kernel.tensor(opacity),
    }


def blend_takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No pictures give no pictures."""
    picture, number = kernel.tensor(np.zeros((0, 2, 4, 5))), kernel.tensor(np.zeros((0, 1, 1, 1)))
    arguments = {"image": picture, "anomaly": picture, "mask": number, "opacity": number}
    agree_with_oracle(kernel, arguments)


def blend_gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64."""
    agree_in_gradients(kernel, _to_blend(kernel, data), ["image", "anomaly"])


def gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients to the pictures are those of eager PyTorch in float64."""
    arguments = drawn(kernel, data.draw(seeds), (2, 2, 8, 9))
    agree_in_gradients(kernel, arguments, ["image", "source"])


FULL = ("float64", "float32")
PROPERTIES = [
    Property("synthesize", matches_the_oracle, 12),
    Property("synthesize", touches_nothing_outside_the_support, 12),
    Property("synthesize", is_equation_1, dtypes=FULL),
    Property("synthesize", no_dots_no_defect),
    Property("synthesize", takes_an_empty_batch),
    Property("synthesize", gradients_agree, 4, True, FULL),
    Property("support", support_matches_the_oracle, 24, dtypes=FULL),
    Property("blend", blend_matches_the_oracle, 24),
    Property("blend", blend_takes_an_empty_batch),
    Property("blend", blend_gradients_agree, 6, True, FULL),
]
