"""Shape, dtype, device and NaN errors, shared by every backend."""

import math

import torch

__all__ = ["MOST", "alike", "finite", "shaped"]

MOST = 1e15  # magnitudes up to here can be squared and summed in float32, whatever their number


def shaped(name: str, tensor: torch.Tensor, *axes: str | int) -> None:
    """Raise unless `tensor` is floating point with these axes.

    A name stands for any length, the same wherever the name is; an int for that length.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(
            f"{name} is a {type(tensor).__name__}; expected a torch.Tensor (torch.as_tensor makes one)"
        )
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected a floating-point tensor (.float() makes one)"
        )
    lengths = {axis: length for axis, length in zip(axes, tensor.shape) if isinstance(axis, str)}
    fits = tensor.ndim == len(axes) and all(
        length == (lengths[axis] if isinstance(axis, str) else axis)
        for length, axis in zip(tensor.shape, axes)
    )
    if not fits:
        expected = ", ".join(map(str, axes))
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({expected})")


def alike(**tensors: torch.Tensor) -> None:
    """Raise unless all tensors share one dtype and one device."""
    (first, model), *others = tensors.items()
    for name, tensor in others:
        if tensor.dtype != model.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but {first} is {model.dtype}; convert one of them with .to()"
            )
        if tensor.device != model.device:
            raise ValueError(
                f"{name} is on {tensor.device} but {first} is on {model.device}; move one with .to()"
            )


def finite(result: torch.Tensor, most: float = math.inf, /, **inputs: torch.Tensor) -> None:
    """Raise if an input holds NaN, infinity or, in a result that is not finite for it, magnitudes above `most`.

    Cheap: the inputs are read only when the result is not finite. NaN in an input must reach `result` for this to
    see it. Nothing is checked on CUDA, where reading a flag makes the host wait for the device, nor under
    `torch.compile`: there NaN passes through into the result.
    """
    if torch.compiler.is_compiling() or result.device.type != "cpu" or not result.numel():
        return
    if bool(torch.isfinite(result.detach().sum())):
        return
    for name, tensor in inputs.items():
        bad = tensor.numel() - int(torch.isfinite(tensor).sum())
        if bad:
            raise ValueError(
                f"{name} holds {bad} values that are NaN or infinite (of {tensor.numel()}); "
                "expected finite values: check the picture or the weights it came from"
            )
    for name, tensor in inputs.items():
        greatest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
        if greatest > most:
            raise ValueError(
                f"{name} holds magnitudes up to {greatest:.3g}; expected up to {most:g}: scale it down"
            )
