"""A trained model in one file without pickle: safetensors, with the settings as JSON in its header.

The header holds one entry, `fmrnet`: format version, SHA-256 of everything else, and the metadata. A file
that was cut short, altered or written by a newer release is refused with one line that says which it is.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from fmrnet.config import Config
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.files import replacing

__all__ = [
    "FORMAT_VERSION",
    "Artifact",
    "check_replaceable",
    "check_writable",
    "load",
    "read_tensors",
    "save",
    "write_tensors",
]

FORMAT_VERSION = 1
LARGEST_HEADER = (
    2**24
)  # bytes; a model takes a few thousand, a checkpoint with its loss curve some hundred thousand
_KEY = "fmrnet"


@dataclass(frozen=True)
class Artifact:
    """Everything a trained model is: settings, what counts as a defect, where it comes from, weights."""

    config: Config
    calibration: dict[str, Any]  # the fields of `fmrnet.inspection.calibration.Calibration`
    provenance: dict[str, Any]
    weights: dict[str, torch.Tensor]


def save(artifact: Artifact, path: str | Path) -> None:
    """Write a model to one file, in one step (see `write_tensors`)."""
    metadata = {
        "kind": "model",
        "config": artifact.config.to_dict(),
        "calibration": artifact.calibration,
        "provenance": artifact.provenance,
    }
    write_tensors(path, artifact.weights, metadata)


def load(path: str | Path) -> Artifact:
    """Read a model that `save` wrote; weights come on the CPU.

    Raises
    ------
    ArtifactError : as `read_tensors`, or the file holds a training checkpoint rather than a model, or settings
        that are not valid in this release.
    """
    weights, metadata = read_tensors(path)
    if metadata.get("kind") != "model":
        raise ArtifactError(
            f"{path} holds a {metadata.get('kind', 'file')} of FMR-Net, not a model; "
            "finish the training with `fmrnet train ... --resume`, then use the file given as --out"
        )
    try:
        config = metadata["config"]
        calibration, provenance = dict(metadata["calibration"]), dict(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} lacks the settings of a model ({error}); train it again") from error
    try:
        return Artifact(Config.from_dict(config), calibration, provenance, weights)
    except ConfigError as error:
        raise ArtifactError(f"{path} holds settings that this release does not take: {error}") from error


def check_writable(path: str | Path) -> None:
    """Raise ArtifactError if no file could be written at `path`; to be asked before hours of training."""
    path = Path(path)
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder; expected a file name, such as {path / 'model.fmr'}")
    if not path.parent.is_dir():
        raise ArtifactError(f"{path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise ArtifactError(f"{path}: no permission to write into {path.parent}; name another place")


def check_replaceable(path: str | Path) -> None:
    """Raise ArtifactError if a file stands at `path` that this program did not write; an empty one is nobody's loss."""
    if not os.path.isfile(path):
        return
    beginning = b'{"__metadata__":{"fmrnet":'
    with open(path, "rb") as file:
        head = file.read(8 + len(beginning))
    if head and head[8:] != beginning:
        raise ArtifactError(f"{path} is no model, and is not replaced by one; name another file")


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to one safetensors file; the same content gives the same bytes.

    Parameters
    ----------
    path : the file; written to a temporary name in the same folder, flushed to the disk and renamed.
    tensors : name -> tensor, any shape, type and device.
    metadata : whatever JSON can hold.

    Raises
    ------
    OSError : the folder is missing or cannot be written, or the disk is full. What stood at `path` stays.
    """
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header: dict[str, Any] = {"version": FORMAT_VERSION, "metadata": dict(metadata)}
    header["sha256"] = _digest(content, header)
    data = safetensors.torch.save(content, {_KEY: _canonical(header)})
    if (size := struct.unpack("<Q", data[:8])[0]) > LARGEST_HEADER:
        raise ValueError(f"metadata makes a header of {size} bytes; at most {LARGEST_HEADER} are read")
    with replacing(path) as file:
        file.write(data)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote, checked against its hash before anything is used.

    Returns
    -------
    tensors : name -> tensor on the CPU
    metadata : the JSON metadata

    Raises
    ------
    ArtifactError : the file is missing, no FMR-Net file, cut short, altered, or of a newer format.
    """
    path = Path(path)
    header = _read_header(path)
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy or train it again") from error
    if _digest(tensors, header) != header.pop("sha256", None):
        raise ArtifactError(
            f"{path} was altered since it was written (its SHA-256 differs); copy or train it again"
        )
    return tensors, header["metadata"]


def _read_header(path: Path) -> dict[str, Any]:
    """Our entry of the safetensors header; sizes are checked before anything of that size is read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            text = file.read(length) if 0 < length <= min(LARGEST_HEADER, size - 8) else b""
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; expected a model written by `fmrnet train`") from None
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder; expected a model file written by `fmrnet train`") from None
    if size < 8:
        raise ArtifactError(f"{path} is {'empty' if size == 0 else 'cut short'}; copy or train it again")
    foreign = f"{path} is no FMR-Net model, or it is damaged; expected a file written by `fmrnet train`"
    if length == 0 or length > LARGEST_HEADER:
        raise ArtifactError(foreign)
    if not text:
        raise ArtifactError(
            f"{path} is cut short: {size} bytes, its header alone is {length + 8}; copy it again"
        )
    try:
        entries = json.loads(text)
        header: dict[str, Any] = json.loads(entries.pop("__metadata__")[_KEY])
        missing = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0) - size
        version, metadata = header["version"], header["metadata"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ArtifactError(foreign) from error
    if not isinstance(version, int) or not isinstance(metadata, dict):
        raise ArtifactError(foreign)
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, this release reads up to {FORMAT_VERSION}; upgrade fmrnet"
        )
    if missing > 0:
        raise ArtifactError(f"{path} is cut short: {missing} of {size + missing} bytes miss; copy it again")
    return header


def _digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 over the header without its hash, then name, type, shape and bytes of every tensor by name."""
    digest = hashlib.sha256(_canonical({k: v for k, v in header.items() if k != "sha256"}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
