"""What must hold of `rearrange_textons`, Eq 6 to 9."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from torch import Tensor

from .kernel import Kernel
from .oracles import ORACLES
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, must, scaled
from .strategies import fill, laid_out, layouts, seeds, values
from .tolerances import assert_close

__all__ = ["MIXINGS", "PROPERTIES"]

MIXINGS = (None, "shared", "dense")
PLACES = ((4, 4), (8, 8), (12, 10))  # N = 16, 64 and 120: one tile of a kernel, exactly one, several


def _mixing(kernel: Kernel, kind: str | None, count: int, seed: int) -> Tensor | None:
    shapes = {"shared": (3, 3), "dense": (count, count, 3, 3)}
    return None if kind is None else kernel.fine(fill("normal", shapes[kind], seed))


def _drawn(kernel: Kernel, data: DataObject) -> Arguments:
    cells = 4 if kernel.small else 7
    size = data.draw(st.sampled_from(kernel.values("size", (1, 2, 3))))
    batch, channels = data.draw(st.integers(1, 6)), data.draw(st.sampled_from((1, 2, 7, 33)))
    h, w, hm, wm = (data.draw(st.integers(1, cells)) for _ in range(4))
    kinds = data.draw(values), data.draw(values)
    seed = data.draw(seeds)
    skip = kernel.tensor(fill(kinds[0], (batch, channels, h * size, w * size), seed))
    memory = kernel.tensor(fill(kinds[1], (batch, channels, hm * size, wm * size), seed + 1))
    mixing = data.draw(st.sampled_from(kernel.values("mixing", MIXINGS)))
    return {
        "skip": laid_out(skip, data.draw(layouts)),
        "memory_features": laid_out(memory, data.draw(layouts)),
        "size": size,
        "mixing": _mixing(kernel, mixing, hm * wm, seed),
        "temperature": data.draw(st.sampled_from(kernel.values("temperature", (1.0, 0.1, 3.0)))),
    }


def _reach(arguments: Arguments) -> float:
    """The magnitude of what is summed."""
    mixing = arguments.get("mixing")
    return scaled(arguments["memory_features"]) * (1 if mixing is None else scaled(mixing) * 9)


def matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """G is the oracle's for any sizes, strides, values and options."""
    arguments = _drawn(kernel, data)
    right = ORACLES[kernel.name](**arguments)["G"]
    assume(
        np.abs(right).max() < torch.finfo(kernel.dtype).max
    )  # mixing may sum up more than float16 can hold
    agree_with_oracle(kernel, arguments, _reach(arguments))


def _large(kernel: Kernel, data: DataObject) -> Arguments:
    (h, w), mixing = (
        data.draw(st.sampled_from(PLACES)),
        data.draw(st.sampled_from(kernel.values("mixing", MIXINGS))),
    )
    size = kernel.values("size", (2,))[0]
    skip, memory = (kernel.tensor(fill("normal", (2, 5, size * h, size * w), seed)) for seed in (1, 2))
    return {
        "skip": laid_out(skip, "channels_last"),
        "memory_features": laid_out(memory, "channels_last"),
        "size": size,
        "mixing": _mixing(kernel, mixing, h * w, 3),
        "temperature": kernel.values("temperature", (1.0,))[0],
    }


def matches_the_oracle_on_large_pictures(kernel: Kernel, data: DataObject) -> None:
    """G is the oracle's with 16, 64 and 120 textons."""
    arguments = _large(kernel, data)
    mixing = arguments["mixing"]
    agree_with_oracle(kernel, arguments, None if mixing is None else scaled(mixing) * 9)


def gradients_agree_on_large_pictures(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64 with 16, 64 and 120 textons."""
    arguments = _large(kernel, data)
    agree_in_gradients(kernel, arguments, _leaves(arguments), beside="memory_features")


def _leaves(arguments: Arguments) -> list[str]:
    return [name for name in ("skip", "memory_features", "mixing") if arguments[name] is not None]


def gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64, for any sizes, strides and options."""
    size = data.draw(st.sampled_from(kernel.values("size", (1, 2, 3))))
    batch, h, w = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    mixing = data.draw(st.sampled_from(kernel.values("mixing", MIXINGS)))
    layout, seed = data.draw(layouts), data.draw(seeds)
    shape = (batch, 5, h * size, w * size)
    skip, memory = (laid_out(kernel.tensor(fill("normal", shape, seed + i)), layout) for i in (0, 1))
    arguments = {
        "skip": skip,
        "memory_features": memory,
        "size": size,
        "mixing": _mixing(kernel, mixing, h * w, seed),
        "temperature": kernel.values("temperature", (0.5,))[0],
    }
    agree_in_gradients(kernel, arguments, _leaves(arguments), beside="memory_features")


def gradient_of_a_block_of_zeros_is_finite(kernel: Kernel, data: DataObject) -> None:
    """Where a block's norm is 0 the gradients are finite."""
    arguments = _plain(kernel, "one-hot")
    learnt = {name: arguments[name].requires_grad_() for name in ("skip", "memory_features")}
    G = kernel.learnable(**arguments | learnt)["G"]
    for name, gradient in zip(learnt, torch.autograd.grad(G.square().sum(), list(learnt.values()))):
        must(torch.isfinite(gradient).all(), f"the gradient to {name} is not finite beside a block of zeros")


def _plain(kernel: Kernel, kind: str = "normal", cells: tuple[int, int] = (2, 2)) -> dict[str, Any]:
    """Two pictures of so many textons, everything else at its first value."""
    size = kernel.values("size", (2,))[0]
    shape = (2, 3, cells[0] * size, cells[1] * size)
    return {
        "skip": kernel.tensor(fill(kind, shape, 1)),
        "memory_features": kernel.tensor(fill("normal", shape, 2)),
        "size": size,
        "mixing": None,
        "temperature": kernel.values("temperature", (1.0,))[0],
    }


def takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No pictures give no pictures."""
    arguments = _plain(kernel)
    arguments |= {name: arguments[name][:0] for name in ("skip", "memory_features")}
    agree_with_oracle(kernel, arguments)


def constant_memory_comes_back(kernel: Kernel, data: DataObject) -> None:
    """The weights of the textons sum to 1: a memory of one value gives that value."""
    arguments = _plain(kernel, cells=(3, 3))
    constant = torch.full_like(arguments["memory_features"], 0.7)
    G = kernel(**arguments | {"memory_features": constant})["G"]
    assert_close(G, constant.double().cpu().numpy(), dtype=kernel.dtype, name="G")


def many_equal_textons_keep_their_value(kernel: Kernel, data: DataObject) -> None:
    """The weights of 1024 textons sum to 1: in bfloat16 they would stop growing on the way."""
    side = 8 if kernel.small else 32
    size = kernel.values("size", (1,))[0]
    skip = kernel.tensor(fill("normal", (1, 2, 8 * size, 8 * size), 1))
    ones = kernel.tensor(np.ones((1, 2, side * size, side * size)))
    arguments = _plain(kernel) | {"skip": skip, "memory_features": ones, "size": size}
    assert_close(kernel(**arguments)["G"], np.ones(tuple(skip.shape)), dtype=kernel.dtype, name="G")


def order_and_scale_change_nothing(kernel: Kernel, data: DataObject) -> None:
    """The order of the textons and the scale of the skip change nothing, and G stays between the memory's extremes."""
    arguments = _plain(kernel, cells=(3, 3))
    size, memory = arguments["size"], arguments["memory_features"]
    G = kernel(**arguments)["G"]
    right = G.detach().double().cpu().numpy()
    turned = memory.roll((size, 2 * size), (2, 3))  # whole textons
    other = kernel(**arguments | {"memory_features": turned})["G"]
    assert_close(other, right, dtype=kernel.dtype, name="G with its textons in another order")
    other = kernel(**arguments | {"skip": arguments["skip"] * 50})["G"]
    assert_close(other, right, dtype=kernel.dtype, name="G of 50 times the skip")
    slack = 8 * torch.finfo(kernel.dtype).eps * scaled(memory)
    must(G.max() <= memory.max() + slack, "G is above all of the memory's values")
    must(G.min() >= memory.min() - slack, "G is below all of the memory's values")


def repeats_to_the_last_bit(kernel: Kernel, data: DataObject) -> None:
    """The same call gives the same bits."""
    arguments = _plain(kernel, cells=(4, 4))
    first = kernel(**arguments)["G"]
    for _ in range(4):  # what differs by a last bit now and then
        must(torch.equal(first, kernel(**arguments)["G"]), "G differs between two equal calls")


PROPERTIES = [
    Property("rearrange_textons", matches_the_oracle, 40),
    Property("rearrange_textons", takes_an_empty_batch),
    Property("rearrange_textons", constant_memory_comes_back),
    Property("rearrange_textons", order_and_scale_change_nothing),
    Property("rearrange_textons", repeats_to_the_last_bit),
    Property("rearrange_textons", matches_the_oracle_on_large_pictures, 30, dtypes=("float64", "float32")),
    Property("rearrange_textons", many_equal_textons_keep_their_value, dtypes=("float32", "bfloat16")),
    Property("rearrange_textons", gradients_agree, 20, True, ("float64", "float32", "bfloat16")),
    Property("rearrange_textons", gradients_agree_on_large_pictures, 30, True, ("float64", "float32")),
    Property("rearrange_textons", gradient_of_a_block_of_zeros_is_finite, 1, True, ("float64", "float32")),
]
