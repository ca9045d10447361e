"""Weights that come with a file, held against the network that the settings ask for before it is made."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fmrnet.config import Config
from fmrnet.errors import ArtifactError, shown
from fmrnet.network.model import FMRNet

__all__ = ["restore"]

POSITIVE = ("std", "good_std", "rate")  # divided by
RISING = "levels"  # searched
NOT_NEGATIVE = ("running_var", "num_batches_tracked")  # a variance is divided by after a little is added


def restore(config: Config, weights: Mapping[str, Tensor]) -> FMRNet:
    """The network of these settings with these weights, on the CPU; it takes no more memory than the weights do.

    Raises
    ------
    ArtifactError : a tensor is missing or there is one too many, or one has another shape or type, or a deviation or a
        variance holds numbers that nothing can be divided by.
    """
    if (count := sum(tensor.numel() for tensor in weights.values())) < config.weights:
        raise ArtifactError(f"there are {count} numbers: expected more than {config.weights}")
    model = FMRNet(config)
    expected = model.state_dict()
    if missing := expected.keys() - weights.keys():
        raise ArtifactError(f"{len(missing)} tensors miss, such as {min(missing)}")
    if foreign := weights.keys() - expected.keys():
        raise ArtifactError(f"{len(foreign)} tensors are too many, such as {shown(min(foreign))}")
    for name, wanted in expected.items():
        given = weights[name]
        if (given.shape, given.dtype) != (wanted.shape, wanted.dtype):
            raise ArtifactError(f"{name} is {_described(given)}: expected {_described(wanted)}")
    _check_ranges(weights)
    model.load_state_dict(weights)
    return model


def _check_ranges(weights: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError if a deviation or a variance holds numbers that nothing can be divided by."""
    for name, tensor in weights.items():
        kind = name.rpartition(".")[2]
        if kind in POSITIVE and not tensor.min() > 0:
            raise ArtifactError(f"{name} holds {tensor.min().item():.3g}: expected more than 0")
        if kind in NOT_NEGATIVE and not tensor.min() >= 0:
            raise ArtifactError(f"{name} holds {tensor.min().item():.3g}: expected 0 or more")
        if kind == RISING and not (tensor.diff() >= 0).all():
            raise ArtifactError(f"{name} falls: expected numbers that rise")


def _described(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'one number'} of {str(tensor.dtype).removeprefix('torch.')}"
