"""A graph in the ONNX format from its template, which has the weights' names but not their values.

ONNX files are protocol buffers, in which two messages one after the other are one message with the fields of both. So
what is missing is appended; no library has to read the template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PREFIX", "with_weights"]

GRAPH, INITIALIZER = 7, 5  # numbers of fields in onnx.proto: of ModelProto, of GraphProto,
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # and of TensorProto
NUMBER, LENGTH = 0, 2  # kinds of fields
PREFIX = "model."  # of the names of weights in a graph
TYPES = {"float32": 1, "int64": 7, "bool": 9}


def with_weights(template: bytes, names: Iterable[str], weights: Mapping[str, NDArray[Any]]) -> bytes:
    """The template with these weights; KeyError if one is missing or of a type that no model has."""
    tensors = (_field(INITIALIZER, _tensor(PREFIX + name, weights[name])) for name in names)
    return template + _field(GRAPH, b"".join(tensors))


def _tensor(name: str, values: NDArray[Any]) -> bytes:
    """A TensorProto."""
    dims = b"".join(_varint(DIMS << 3 | NUMBER) + _varint(length) for length in values.shape)
    kind = _varint(DATA_TYPE << 3 | NUMBER) + _varint(TYPES[values.dtype.name])
    data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return dims + kind + _field(NAME, name.encode()) + _field(RAW_DATA, data.tobytes())


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
