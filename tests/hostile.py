"""Model files that someone else made: right in their hash, and whatever he likes in their content."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from fmrnet.artifact import FORMAT_VERSION


def signed(tensors: Mapping[str, NDArray[Any]], metadata: Any, version: Any = FORMAT_VERSION) -> str:
    """Our entry of the header, with the hash that belongs to it; nothing is checked, NaN and all are written."""
    header = {"version": version, "metadata": metadata}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.tobytes())
    return json.dumps(header | {"sha256": digest.hexdigest()}, sort_keys=True, separators=(",", ":"))


def forge(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Any, version: Any = FORMAT_VERSION
) -> Path:
    """Write a model file with the right hash."""
    path.write_bytes(safetensors.numpy.save(dict(tensors), {"fmrnet": signed(tensors, metadata, version)}))
    return path


def assemble(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a file from a header, as JSON or as text, and the bytes of its tensors."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path
