"""Where and in which precision to compute."""

from __future__ import annotations

import contextlib
import platform

import torch

from fmrnet.errors import ConfigError

__all__ = ["autocast", "choose_device", "describe", "sent"]


def choose_device(name: str = "auto") -> torch.device:
    """The torch device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    ConfigError
        If the name is not a device, or that device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s); use cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    return device


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bf16 where the device has matrix units for it (training is faster there), else nothing."""
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16) if faster else contextlib.nullcontext()


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host's on a device; a GPU takes it from pinned memory in its own time, and the host goes on."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def describe(device: torch.device) -> str:
    """The device in words, for an artifact's provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.processor() or platform.machine()} CPU, {threads} thread{'s' * (threads != 1)}"
