"""Weights that come with a file, held against the network that the settings ask for before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmrnet.artifact import check_weights
from fmrnet.config import Config
from fmrnet.errors import ArtifactError, shown
from fmrnet.network.model import FMRNet

__all__ = ["arrays", "restore", "tensors"]


def restore(config: Config, given: Mapping[str, NDArray[Any]]) -> FMRNet:
    """The network of these settings with these weights, on the CPU; it takes no more memory than the weights do.

    Raises
    ------
    ArtifactError : a tensor is missing or there is one too many, or one has another shape or type, or holds
        numbers as `fmrnet.artifact.check_weights` refuses them.
    """
    weights = tensors(given)
    if (count := sum(tensor.numel() for tensor in weights.values())) < config.weights:
        raise ArtifactError(f"there are {count} numbers: expected more than {config.weights}")
    model = FMRNet(config)
    if model.general is not None and "general.place" in weights:
        model.general.make_places(tuple(weights["general.place"].shape))
    expected = model.state_dict()
    if missing := expected.keys() - weights.keys():
        raise ArtifactError(f"{len(missing)} tensors miss, such as {min(missing)}")
    if foreign := weights.keys() - expected.keys():
        raise ArtifactError(f"{len(foreign)} tensors are too many, such as {shown(min(foreign))}")
    for name, wanted in expected.items():
        found = weights[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise ArtifactError(f"{name} is {_described(found)}: expected {_described(wanted)}")
    check_weights(given)
    model.load_state_dict(weights)
    return model


def arrays(state: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as a file holds them."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def tensors(given: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """The opposite of `arrays`; they lie on the CPU."""
    return {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in given.items()}


def _described(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'one number'} of {str(tensor.dtype).removeprefix('torch.')}"
