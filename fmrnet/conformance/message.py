"""What a failure says: what must hold, the smallest input found, what came and what is right, how to see it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .kernel import Kernel, source
from .properties import Property
from .tolerances import TOLERANCES, Mismatch

__all__ = ["explained"]

SHOWN = 24  # most numbers of an array that are shown
WRITTEN = 160  # most numbers of all inputs that are written out in the snippet


def explained(
    prop: Property, kernel: Kernel, mismatch: Mismatch, arguments: Mapping[str, Any], seed: int
) -> str:
    """Everything there is to say of a failure, over several lines."""
    dtype = str(kernel.dtype).removeprefix("torch.")
    lines = [
        f"{kernel.name} in {dtype} on {kernel.device}: {prop.name.replace('_', ' ')}: NO",
        f"  expected  {prop.says}",
        f"  found     {str(mismatch).replace(': off by', f',{chr(10)}            off by')}",
    ]
    if mismatch.__cause__ is not None:
        lines.append(f"            {_raised_at(mismatch.__cause__)}")
        lines.append("            (a call that yours does not support: raise NotImplementedError)")
    lines += ["", "  the smallest input found:"]
    width = max(map(len, arguments), default=0)
    for name, value in arguments.items():
        if name in kernel.defaults and not kernel.takes(name):
            continue
        first, *rest = _described(value)
        lines.append(f"    {name:{width}}  {first}")
        lines += [f"    {'':{width}}  {line}" for line in rest]
    if mismatch.expected is not None and np.size(mismatch.actual) <= SHOWN:
        lines += ["", "  yours", *_indented(_numbers(np.asarray(mismatch.actual)))]
        lines += ["  right", *_indented(_numbers(np.asarray(mismatch.expected)))]
    if mismatch.expected is not None:
        lines += ["", f"  tolerance of {dtype}: {TOLERANCES[dtype].reason}"]
    lines += ["", "  to see it again:", "", *_indented(_snippet(prop, kernel, arguments, seed, dtype))]
    return "\n".join(lines) + "\n"


def _described(value: Any) -> list[str]:
    if not isinstance(value, torch.Tensor):
        return [repr(value)]
    layout = "contiguous" if value.is_contiguous() else f"strides {value.stride()}"
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}, {layout}"
    array = value.detach().cpu().double().numpy()
    if not array.size:
        return [kind]
    if array.size <= SHOWN:
        return [kind, *_numbers(array)]
    flat = array.ravel()
    few = " ".join(f"{number:.6g}" for number in flat[:6])
    return [f"{kind}, values {flat.min():.6g} to {flat.max():.6g}: {few} ..."]


def _numbers(array: np.ndarray[Any, Any]) -> list[str]:
    text = np.array2string(array, precision=7, max_line_width=90)
    return [line for line in text.splitlines() if line.strip()]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


def _raised_at(error: BaseException) -> str:
    """The innermost line of the function that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""


def _snippet(
    prop: Property, kernel: Kernel, arguments: Mapping[str, Any], seed: int, dtype: str
) -> list[str]:
    """Python that shows the failure: the input itself where it is small, else the search for it."""
    place = source(kernel.function)
    module, _, attribute = (place or "").partition(":")
    whose = f"from {module} import {attribute}" if place else f"{kernel.name} = ...  # yours"
    yours = attribute or kernel.name
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    if "oracle" not in prop.name or sum(map(torch.Tensor.numel, tensors.values())) > WRITTEN:
        chosen = f"dtypes=({dtype!r},), only={prop.name!r}, seed={seed}"
        device = "" if kernel.device.type == "cpu" else f", device={str(kernel.device)!r}"
        return [
            "from fmrnet import conformance",
            whose,
            "",
            f"conformance.check({kernel.name!r}, {yours}, {chosen}{device})",
        ]
    lines = ["import torch", "from fmrnet import fast", whose, ""]
    positional, keywords = [], []
    for name, value in arguments.items():
        if name in kernel.defaults and not kernel.takes(name):
            continue
        if isinstance(value, torch.Tensor):
            lines += [f"{name} = {_literal(value)}"]
            written = name
        else:
            written = repr(value)
        parameter = kernel.parameters[name]
        if name in kernel.defaults or parameter.kind is parameter.KEYWORD_ONLY:
            keywords.append(f"{name}={written}")
        else:
            positional.append(written)
    words = ", ".join([*positional, *keywords])
    right = ", ".join([words, "backend='eager'"]) if "backend" in kernel.parameters else words
    return [*lines, f"print({yours}({words}))", f"print(fast.{kernel.name}({right}))  # right"]


def _literal(tensor: torch.Tensor) -> str:
    """Python for the very same values and strides."""
    values = tensor.detach().cpu()
    kind = f", dtype={tensor.dtype}" if tensor.dtype != torch.float32 else ""
    written = f"torch.tensor({values.tolist()}{kind})"
    if not tensor.numel():
        written = f"torch.empty({tuple(tensor.shape)}{kind})"
    elif not tensor.is_contiguous():
        length = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride()))
        holder = f"torch.full(({length},), float('nan'){kind})"
        written = f"{holder}.as_strided({tuple(tensor.shape)}, {tensor.stride()}).copy_({written})"
    return written + ("" if tensor.device.type == "cpu" else f".to({str(tensor.device)!r})")
