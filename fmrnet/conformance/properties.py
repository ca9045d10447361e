"""What a property of a function is, and the ways in which several functions are held to theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis.strategies import DataObject
from torch import Tensor

from fmrnet import fast

from .kernel import Kernel, named_results
from .oracles import ORACLES
from .strategies import fill, laid_out
from .tolerances import Mismatch, assert_close

__all__ = ["EVERY", "Property", "agree_in_gradients", "agree_with_oracle", "must", "scaled"]

EVERY = ("float64", "float32", "bfloat16", "float16")
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Property:
    """Something that must hold of a function: `holds` draws inputs, calls the kernel and raises unless it does.

    The first line of the docstring of `holds` says it in words.
    """

    function: str
    holds: Callable[[Kernel, DataObject], None]
    examples: int = 12
    gradients: bool = False
    dtypes: Sequence[str] = EVERY  # in which it can be asked

    @property
    def name(self) -> str:
        """As in a test's name: ``matches_the_oracle``."""
        return self.holds.__name__

    @property
    def says(self) -> str:
        """What must hold, in one sentence."""
        return (self.holds.__doc__ or "").strip().splitlines()[0]


def must(condition: bool | Tensor, says: str) -> None:
    """Raise Mismatch unless the condition holds."""
    if not bool(condition):
        raise Mismatch(says)


def agree_with_oracle(
    kernel: Kernel,
    arguments: Arguments,
    scales: float | Mapping[str, float | None] | None = None,
) -> dict[str, Tensor]:
    """Call the kernel and hold every result to the oracle's on the very numbers that the kernel was given."""
    results = kernel(**arguments)
    right = ORACLES[kernel.name](**arguments)
    must(
        list(results) == list(right),
        f"it returned {', '.join(results)}; expected {', '.join(right)}, in this order",
    )
    for name, expected in right.items():
        scale = scales.get(name) if isinstance(scales, Mapping) else scales
        if results[name].is_floating_point():
            assert_close(results[name], expected, dtype=kernel.dtype, scale=scale, name=name)
        else:
            same(results[name], expected, name)
    return results


def same(result: Tensor, expected: Any, name: str) -> None:
    """Raise Mismatch unless the values are equal."""
    values = result.detach().cpu().double().numpy()
    if values.shape != np.shape(expected):
        raise Mismatch(f"{name} has shape {values.shape}, right is {np.shape(expected)}")
    if not np.array_equal(values, expected):
        at = tuple(map(int, np.argwhere(values != expected)[0]))
        raise Mismatch(f"{name}{list(at)} is {values[at]:.9g}, right is {expected[at]:.9g}", values, expected)


def agree_in_gradients(
    kernel: Kernel, arguments: Arguments, leaves: Sequence[str], *, beside: str = ""
) -> None:
    """Hold the gradients to those of eager PyTorch in float64 on the CPU, whose results are held to the oracle.

    Where a gradient may be a difference of equals, it has the rounding of the one to `beside`, too.
    """
    exact = {
        name: value.detach().cpu() if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }
    exact |= {
        name: value.double()
        for name, value in exact.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    for name in leaves:
        exact[name].requires_grad_()
    eager = {"backend": "eager"} if "backend" in kernel.parameters else {}
    wide = named_results(kernel.name, getattr(fast, kernel.name)(**exact, **eager))
    wide = {name: result for name, result in wide.items() if result.requires_grad}
    learnt = {name: arguments[name].detach().requires_grad_() for name in leaves}
    results = kernel.learnable(**arguments | learnt)
    for name in wide:
        must(results[name].requires_grad, f"{name} has no gradient")
    upstream = [torch.as_tensor(fill("normal", tuple(r.shape), 9)).to(results[n]) for n, r in wide.items()]
    right = torch.autograd.grad(
        list(wide.values()), [exact[name] for name in leaves], [u.double().cpu() for u in upstream]
    )
    found = torch.autograd.grad(
        [results[name] for name in wide],
        list(learnt.values()),
        [laid_out(u, "transposed") if u.ndim > 1 else u for u in upstream],
        allow_unused=True,
    )
    least = max((scaled(theirs) for name, theirs in zip(leaves, right) if name == beside), default=0.0)
    for name, ours, theirs in zip(leaves, found, right):
        if ours is None:
            raise Mismatch(f"the gradient to {name} is missing")
        must(ours.dtype == learnt[name].dtype, f"the gradient to {name} is {ours.dtype}")
        scale = max(least, scaled(theirs))
        assert_close(ours, theirs.numpy(), dtype=kernel.dtype, scale=scale, name=f"gradient to {name}")


def scaled(value: Tensor) -> float:
    """The largest magnitude of a tensor, 0 for an empty one."""
    return float(value.abs().max()) if value.numel() else 0.0
