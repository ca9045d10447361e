"""A trained model in one file without pickle: safetensors, with the settings as JSON in its header.

The header holds one entry, `fmrnet`: format version, SHA-256 of everything else, and the metadata. A file
that was cut short, altered or written by a newer release is refused with one line that says which it is. The hash
shows accidents, not intent: whoever wrote the file chose its content as well, so types, ranges and sizes are checked,
and every size before anything of that size is read or allocated.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import ArrayLike, NDArray

from fmrnet.config import MOST_WEIGHTS, Config
from fmrnet.errors import ArtifactError, ConfigError, in_text, shown
from fmrnet.files import KINDS, replacing

__all__ = [
    "FORMAT_VERSION",
    "Artifact",
    "Graph",
    "check_replaceable",
    "check_weights",
    "load",
    "read_tensors",
    "save",
    "write_tensors",
]

FORMAT_VERSION = 2
LARGEST_HEADER = 2**20  # bytes; a model or a checkpoint takes some tens of thousands
LARGEST_MODEL = 4 * MOST_WEIGHTS + 2**23  # bytes of a file; the rest is norms, biases, small networks, graphs
LARGEST_FILE = 8 * LARGEST_MODEL  # a checkpoint: its model, a discriminator, and two moments of each weight
LONGEST_TEXT = 10_000  # characters of a text in the metadata, such as the command of the training
DEEPEST = 16  # lists and objects within each other
GREATEST_WEIGHT = 1e15  # whose square is finite in float32, many times over
POSITIVE = ("std", "good_std", "rate")  # what weights of these names hold is divided by
RISING = "levels"  # is searched
NOT_NEGATIVE = ("running_var", "num_batches_tracked")  # a variance is divided by after a little is added
WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
GRAPH = "graphs/"  # before the name of a tensor that holds a graph's bytes
_KEY = "fmrnet"


@dataclass(frozen=True)
class Graph:
    """A graph in the ONNX format without its weights, and the names of the weights that belong into it."""

    template: bytes
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Artifact:
    """Everything a trained model is: settings, what counts as a defect, where it comes from, weights.

    Some have the network once more as graphs for a small runtime, which take the same weights.
    """

    config: Config
    calibration: dict[str, Any]  # the fields of `fmrnet.inspection.calibration.Calibration`
    provenance: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    graphs: dict[str, Graph] = field(default_factory=dict)


def save(artifact: Artifact, path: str | Path) -> None:
    """Write a model to one file, in one step (see `write_tensors`), checked as `load` will check it.

    Texts of the provenance that are longer than LONGEST_TEXT characters are cut.

    Raises
    ------
    ArtifactError : a weight or a number is not finite, or there is more of something than `load` takes.
    OSError : as `write_tensors`.
    """
    with _named(path):
        check_weights(artifact.weights)
        metadata = {
            "kind": "model",
            "config": artifact.config.to_dict(),
            "calibration": _as_kept(artifact.calibration),
            "provenance": _as_kept(artifact.provenance),
            "graphs": {name: list(one.weights) for name, one in artifact.graphs.items()},
        }
    graphs = {GRAPH + name: np.frombuffer(one.template, np.uint8) for name, one in artifact.graphs.items()}
    write_tensors(path, artifact.weights | graphs, metadata, largest=LARGEST_MODEL)


def load(path: str | Path) -> Artifact:
    """Read a model that `save` wrote.

    Every weight is finite, deviations can be divided by, and the settings are in their ranges; whether the weights fit
    the settings is for `fmrnet.network.weights` to say.

    Raises
    ------
    ArtifactError : as `read_tensors`, or the file holds a training checkpoint rather than a model, settings
        that are not valid in this release, or weights that are not finite.
    """
    tensors, metadata = read_tensors(path, largest=LARGEST_MODEL)
    if (kind := metadata.get("kind")) != "model":
        named = "checkpoint" if kind == "checkpoint" else f"file of the kind {shown(kind)}"
        raise ArtifactError(
            f"{path} holds a {named} of FMR-Net, not a model; "
            "finish the training with `fmrnet train ... --resume`, then use the file given as --out"
        )
    names = ("config", "calibration", "provenance", "graphs")
    parts: dict[str, Any] = {name: metadata.get(name) for name in names}
    if missing := [name for name, part in parts.items() if not isinstance(part, dict)]:
        raise ArtifactError(f"{path} lacks the settings of a model ({', '.join(missing)}); train it again")
    try:
        config = Config.from_dict(parts["config"])
    except ConfigError as error:
        raise ArtifactError(f"{path} holds settings that this release does not take: {error}") from error
    templates = {name: tensors.pop(name) for name in list(tensors) if name.startswith(GRAPH)}
    with _named(path):
        graphs = _graphs(templates, parts["graphs"], tensors)
        check_weights(tensors)
    return Artifact(config, parts["calibration"], parts["provenance"], tensors, graphs)


def _graphs(
    templates: dict[str, NDArray[Any]], needed: dict[str, Any], weights: dict[str, NDArray[Any]]
) -> dict[str, Graph]:
    """The graphs from the tensors that hold them, and from the names of the weights that each needs."""
    if templates.keys() != {GRAPH + name for name in needed}:
        raise ArtifactError("graphs and the weights they need do not fit each other; train it again")
    for name, names in needed.items():
        if not isinstance(names, list) or not all(isinstance(one, str) and one in weights for one in names):
            raise ArtifactError(f"the graph {shown(name)} needs weights that are not there; train it again")
    return {name: Graph(templates[GRAPH + name].tobytes(), tuple(names)) for name, names in needed.items()}


def check_weights(weights: Mapping[str, NDArray[Any]]) -> None:
    """Hold weights by name against what can be computed with; with other ones, every picture may be good.

    Raises
    ------
    ArtifactError : a weight is NaN, infinite or beyond all sense, a deviation or a variance holds numbers that nothing
        can be divided by, or what is searched does not rise.
    """
    for name, tensor in weights.items():
        if not tensor.size:
            continue
        low, kind = float(tensor.min()), name.rpartition(".")[2]
        # NaN is the least and the greatest of any numbers that hold one.
        high = float(tensor.max())
        if tensor.dtype.kind == "f" and not (low >= -GREATEST_WEIGHT and high <= GREATEST_WEIGHT):
            raise ArtifactError(
                f"the weights {shown(name)} go from {low:.3g} to {high:.3g}: expected finite "
                f"numbers up to {GREATEST_WEIGHT:.0e}; train it again"
            )
        if kind in POSITIVE and not low > 0:
            raise ArtifactError(f"the weights {shown(name)} hold {low:.3g}: expected more than 0")
        if kind in NOT_NEGATIVE and not low >= 0:
            raise ArtifactError(f"the weights {shown(name)} hold {low:.3g}: expected 0 or more")
        if kind == RISING and not (np.diff(tensor) >= 0).all():
            raise ArtifactError(f"the weights {shown(name)} fall: expected numbers that rise")


def check_replaceable(path: str | Path) -> None:
    """Raise ArtifactError if a file stands at `path` that this program did not write; an empty one is nobody's loss."""
    if not os.path.isfile(path):
        return
    beginning = b'{"__metadata__":{"fmrnet":'
    with open(path, "rb") as file:
        head = file.read(8 + len(beginning))
    if head and head[8:] != beginning:
        raise ArtifactError(f"{path} is no model, and is not replaced by one; name another file")


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, ArrayLike],
    metadata: Mapping[str, Any],
    *,
    largest: int = LARGEST_FILE,
) -> None:
    """Write tensors and JSON metadata to one safetensors file; the same content gives the same bytes.

    Parameters
    ----------
    path : the file; written to a temporary name in the same folder, flushed to the disk and renamed.
    tensors : name -> array of any shape, boolean, integer or floating.
    metadata : whatever JSON can hold: numbers must be finite, integers fit 64 bits.
    largest : size in bytes that the file may have.

    Raises
    ------
    ArtifactError : `read_tensors` would not take the file, or `path` is a folder, a device or a pipe. What stood at
        `path` stays.
    OSError : the folder is missing or cannot be written, or the disk is full. What stood at `path` stays.
    """
    content = {name: _contiguous(tensor) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"version": FORMAT_VERSION, "metadata": dict(metadata)}
    with _named(path):
        _parse(_canonical(header))
        header["sha256"] = _digest(content, header)
        data = safetensors.numpy.save(content, {_KEY: _canonical(header)})
    _read_header(io.BytesIO(data), len(data), path, largest)
    with replacing(path) as file:
        file.write(data)


def read_tensors(
    path: str | Path, *, largest: int = LARGEST_FILE
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_tensors` wrote, checked against its hash before anything is used.

    Parameters
    ----------
    path : the file
    largest : size in bytes up to which it is read.

    Returns
    -------
    tensors : name -> array
    metadata : the JSON metadata: finite numbers, integers of 64 bits, texts up to LONGEST_TEXT

    Raises
    ------
    ArtifactError : the file is missing, no FMR-Net file, cut short, altered, too large, or of a newer format.
    OSError : the disk fails.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            header = _read_header(file, size, path, largest)
            file.seek(0)
            data = file.read(size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        except MemoryError as error:
            raise OSError(errno.ENOMEM, f"no memory for its {size} bytes", os.fspath(path)) from error
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy or train it again") from error
    if _digest(tensors, header) != header["sha256"]:
        raise ArtifactError(
            f"{path} was altered since it was written (its SHA-256 differs); copy or train it again"
        )
    return tensors, header["metadata"]


def _open(path: str | Path) -> BinaryIO:
    """Open a regular file for reading."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFREG:
            nonblocking = getattr(os, "O_NONBLOCK", 0)  # it may be a pipe by now, which would be waited for
            return open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; expected a model written by `fmrnet train`") from None
    except (OSError, ValueError) as error:  # ValueError: no name can hold a NUL or half a surrogate
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{path} cannot be opened ({reason}); expected a model written by `fmrnet train`"
        ) from error
    named = KINDS.get(kind, "no regular file")
    raise ArtifactError(f"{path} is {named}; expected a model file written by `fmrnet train`")


def _read_header(file: BinaryIO, size: int, path: str | Path, largest: int) -> dict[str, Any]:
    """Our entry of the safetensors header of a file of `size` bytes; sizes are checked before they are believed."""
    if size > largest:
        raise ArtifactError(f"{path} has {size} bytes, and at most {largest} are read; no model is as large")
    if size == 0:
        raise ArtifactError(f"{path} is empty; copy or train it again")
    foreign = f"{path} is no FMR-Net model, or it is damaged; expected a file written by `fmrnet train`"
    if size < 8:
        raise ArtifactError(
            f"{path} is cut short: {size} of the 8 bytes that any model begins with; copy it again"
        )
    (length,) = struct.unpack("<Q", file.read(8))
    if length == 0 or length > LARGEST_HEADER:
        raise ArtifactError(foreign)
    text = file.read(length)
    if len(text) < length:
        raise ArtifactError(
            f"{path} is cut short: {size} bytes, its header alone is {length + 8}; copy it again"
        )
    try:
        entries = _parse(text)
        ((key, own),) = entries.pop("__metadata__").items()
        header: dict[str, Any] = _parse(own) if key == _KEY else {}
        version = header["version"]
        end = max((_end(entry) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(foreign) from error
    if type(version) is not int or version < 1:
        raise ArtifactError(foreign)
    if version < FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}; train it again"
        )
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, this release reads up to {FORMAT_VERSION}; upgrade fmrnet"
        )
    if header.keys() != {"version", "metadata", "sha256"} or not isinstance(header["metadata"], dict):
        raise ArtifactError(foreign)
    with _named(path):
        _check_texts(header["metadata"])
    if (missing := 8 + length + end - size) > 0:
        raise ArtifactError(f"{path} is cut short: {missing} of {size + missing} bytes miss; copy it again")
    if missing < 0:
        raise ArtifactError(f"{path} is damaged: {-missing} bytes too many; copy or train it again")
    return header


def _end(entry: dict[str, Any]) -> int:
    """Where a tensor ends in the data, from its entry in the header; some error of Python's if that is none."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError("negative or no integers")
    if len(shape) > DEEPEST or end - begin != math.prod(shape) * WIDTHS[entry["dtype"]]:
        raise ValueError("bytes do not fit the shape")
    return int(end)


def _parse(text: str | bytes) -> Any:
    """JSON as the standard has it, with finite numbers, integers of 64 bits and no name twice; else ValueError."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
            raise ValueError("an integer of more than 64 bits")
        return number

    def real(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            raise ValueError("a number beyond all floats")
        return number

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(content := dict(pairs)) < len(pairs):
            raise ValueError("a name twice")
        return content

    whole = text if isinstance(text, str) else text.decode()
    return json.loads(
        whole, parse_constant=refuse, parse_int=integer, parse_float=real, object_pairs_hook=unique
    )


def _check_texts(content: Any, depth: int = 0) -> None:
    """Raise ArtifactError if the metadata are nested too deep or hold a text that is too long."""
    if depth > DEEPEST:
        raise ArtifactError(f"metadata nested more than {DEEPEST} deep; train it again")
    if isinstance(content, str) and len(content) > LONGEST_TEXT:
        raise ArtifactError(
            f"a text of {len(content)} characters, {shown(content)}: expected up to {LONGEST_TEXT}"
        )
    for part in _parts(content):
        _check_texts(part, depth + 1)


def _parts(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        yield from content
        yield from content.values()
    elif isinstance(content, list):
        yield from content


def _as_kept(content: Any) -> Any:
    """The content with its texts in UTF-8 and cut to LONGEST_TEXT: a long command line is not to cost a training."""
    if isinstance(content, str):
        text = in_text(content)
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
    if isinstance(content, dict):
        return {_as_kept(name): _as_kept(part) for name, part in content.items()}
    return [_as_kept(part) for part in content] if isinstance(content, list | tuple) else content


def _contiguous(tensor: ArrayLike) -> NDArray[Any]:
    array = np.asarray(tensor)
    return array if array.flags.c_contiguous else array.copy()


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its content."""
    try:
        yield
    except (ArtifactError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}") from error


def _digest(tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> str:
    """SHA-256 over the header without its hash, then name, type, shape and bytes of every tensor by name."""
    digest = hashlib.sha256(_canonical({k: v for k, v in header.items() if k != "sha256"}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).data)
    return digest.hexdigest()


def _canonical(content: Mapping[str, Any]) -> str:
    """JSON that is the same for the same content; ValueError for NaN and infinity, which are none."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
