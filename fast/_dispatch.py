"""Which backend runs a function: one rule, here and nowhere else.

* A backend asked for by name runs or raises `BackendUnavailable`, which says why. It is never replaced.
* The automatic choice (``backend=None``) takes the environment variable ``FMRNET_BACKEND`` if it is set, else
  Triton for CUDA tensors and numba for CPU tensors (for the textons up to `TRITON_SMALL` places and textons, and
  up to `textons.NUMBA_FASTER` similarities; beyond, matrix products are most of the work and eager is measured
  faster), and falls back to eager where that one cannot run.
* `torch.export` (and so ONNX) sees eager PyTorch unless a backend is named: an exported program then holds
  only ATen operations and needs neither this package, numba nor Triton to run.
"""

import importlib.util
import os
from collections.abc import Callable

import torch

__all__ = ["BACKENDS", "TRITON_SMALL", "BackendUnavailable", "choose"]

BACKENDS = ("eager", "numba", "triton")
TRITON_SMALL = 64  # most places or textons of a picture that the Triton texton kernel keeps on chip whole
_INSTALLED = {module: importlib.util.find_spec(module) is not None for module in ("numba", "triton")}


class BackendUnavailable(RuntimeError):
    """A backend asked for by name cannot run this call; the message says why."""


def choose(
    backend: str | None,
    tensor: torch.Tensor,
    refusal: Callable[[str], str | None] = lambda name: None,
    *,
    cpu: str = "numba",
    cuda: str = "triton",
) -> str:
    """The name of the backend that runs this call.

    Parameters
    ----------
    backend
        "eager", "numba", "triton", or None for the automatic choice.
    tensor
        The call's main tensor: its device and dtype decide.
    refusal
        Given a backend's name, why this particular call is beyond it, or None.
    cpu, cuda
        What the automatic choice takes on CPU and CUDA tensors: the backend that is measured to be faster there.

    Raises
    ------
    ValueError
        The name, or the one in ``FMRNET_BACKEND``, is not a backend.
    BackendUnavailable
        ``backend`` was named and cannot run this call.
    """
    if backend is not None:
        _known(backend, "backend")
        reason = _obstacle(backend, tensor) or refusal(backend)
        if reason:
            raise BackendUnavailable(f"backend {backend!r} cannot run this call: {reason}")
        return backend
    if torch.compiler.is_exporting():
        return "eager"
    preferred = _preferred(tensor.device.type, cpu, cuda)
    return "eager" if _obstacle(preferred, tensor) or refusal(preferred) else preferred


def _preferred(device: str, cpu: str, cuda: str) -> str:
    """What the automatic choice tries first on this kind of device."""
    named = os.environ.get("FMRNET_BACKEND", "")
    if named:
        return _known(named, "FMRNET_BACKEND")
    return {"cuda": cuda, "cpu": cpu}.get(device, "eager")


def _known(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where} is {name!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    return name


def _obstacle(name: str, tensor: torch.Tensor) -> str | None:
    """Why the backend cannot run on such a tensor at all, or None."""
    return _obstacle_of(name, tensor.device.type, str(tensor.dtype).removeprefix("torch."))


def _obstacle_of(name: str, device: str, dtype: str) -> str | None:
    if name == "numba":
        if device != "cpu":
            return f"numba runs on CPU tensors; this one is on {device!r}"
        if dtype not in ("float32", "float64"):
            return f"numba takes float32 and float64; this tensor is {dtype}"
        return None if _INSTALLED["numba"] else "numba is not installed"
    if name == "triton":
        if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
            return (
                f"Triton runs on CUDA tensors; this one is on {device!r} "
                "(for the interpreter set TRITON_INTERPRET=1 before the first import of Triton)"
            )
        if dtype not in ("float32", "bfloat16", "float16"):
            return f"the Triton kernels take float32, bfloat16 and float16; this tensor is {dtype}"
        return None if _INSTALLED["triton"] else "Triton is not installed"
    return None
