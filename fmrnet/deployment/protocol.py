"""Requests and responses of the Open Inference Protocol v2, with its binary tensor extension, in NumPy.

A body is JSON, which names the tensors, and after it the bytes of those tensors that the JSON holds no `data` of;
the HTTP header HEADER_LENGTH says how long the JSON is where there are such bytes. Where it says 0, the body is a file,
and nothing else. Client and server alike encode and decode here. The bytes are a stranger's: the JSON is read up to
LARGEST_JSON, and a tensor's size is held against the bytes that are there before anything of that size is made. What is
decoded shares the memory of the body.

https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data.md
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fmrnet.errors import FmrnetError, printable, shown

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "LARGEST_JSON",
    "ProtocolError",
    "Request",
    "RequestHeader",
    "Response",
    "ResponseHeader",
    "datatype_of",
    "decode_raw",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
LARGEST_JSON = (
    4 * 2**20
)  # bytes: a picture of a megapixel as numbers; its objects take up to 20 times as much
MOST_TENSORS = 16  # of a request or a response
MOST_DIMENSIONS = 8
LONGEST_NAME = 200  # characters
DATATYPES: dict[str, np.dtype[Any]] = {  # of the protocol; BYTES are an array of Python's bytes
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_IN_JSON: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}, "O": {str}}

Parameter = bool | int | float | str


class ProtocolError(FmrnetError):
    """A request or a response that is not as the protocol has it, or larger than it may be."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)


_Name = Annotated[str, Field(max_length=LONGEST_NAME)]
_Size = Annotated[int, Field(ge=0, lt=2**40)]


class TensorHeader(_Model):
    """A tensor as the JSON names it: its values are `data`, or the binary part has `binary_data_size` bytes of it."""

    name: _Name
    shape: Annotated[list[_Size], Field(max_length=MOST_DIMENSIONS)]
    datatype: Annotated[str, Field(max_length=LONGEST_NAME)]
    parameters: dict[str, Parameter] = {}
    data: list[Any] | None = None


class OutputHeader(_Model):
    """An output that is asked for; `binary_data` says whether as bytes."""

    name: _Name
    parameters: dict[str, Parameter] = {}


class RequestHeader(_Model):
    """The JSON of a request."""

    id: _Name = ""
    parameters: dict[str, Parameter] = {}
    inputs: Annotated[list[TensorHeader], Field(max_length=MOST_TENSORS)]
    outputs: Annotated[list[OutputHeader], Field(max_length=MOST_TENSORS)] = []


class ResponseHeader(_Model):
    """The JSON of a response."""

    model_name: _Name
    model_version: _Name = ""
    id: _Name = ""
    parameters: dict[str, Parameter] = {}
    outputs: Annotated[list[TensorHeader], Field(max_length=MOST_TENSORS)]


Header = TypeVar("Header", RequestHeader, ResponseHeader)


@dataclass(frozen=True)
class Request:
    """What a model is asked.

    Attributes
    ----------
    inputs : dict of str to array
        Of the types of DATATYPES; BYTES are object arrays of bytes.
    outputs : dict of str to bool
        The outputs that are asked for, and whether as bytes. None: the model's default ones.
    id : str
        Given back with the response.
    parameters : dict
        Of the request, without `binary_data_output`.
    binary : bool
        Whether outputs come as bytes where `outputs` does not say so.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, bool] = field(default_factory=dict)
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary: bool = True


@dataclass(frozen=True)
class Response:
    """What a model answers; the fields are those of `Request`."""

    model: str
    version: str
    outputs: Mapping[str, NDArray[Any]]
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name for the type of an array; ProtocolError if it has none."""
    kind = array.dtype.newbyteorder("<")
    for name, dtype in DATATYPES.items():
        if kind == dtype:
            return name
    raise ProtocolError(f"arrays of {array.dtype} cannot be sent: expected one of {', '.join(DATATYPES)}")


def encode_request(request: Request) -> tuple[bytes, dict[str, str]]:
    """The body of a request, all its inputs as bytes, and the HTTP headers that go with it.

    Raises
    ------
    ProtocolError
        If a tensor is of a type that cannot be sent.
    """
    header: dict[str, Any] = {"id": request.id} if request.id else {}
    header["parameters"] = {**request.parameters, "binary_data_output": request.binary}
    if request.outputs:
        header["outputs"] = [
            {"name": name, "parameters": {"binary_data": binary}} for name, binary in request.outputs.items()
        ]
    return _encoded(header, "inputs", request.inputs, request.inputs.keys())


def decode_request(body: bytes | bytearray, header_length: str | None = None) -> Request:
    """The request in a body.

    Parameters
    ----------
    body : bytes
    header_length : str, optional
        The value of the HTTP header HEADER_LENGTH. None: the body is JSON alone.

    Raises
    ------
    ProtocolError
        If the body is not as the protocol has it, whatever its bytes are.
    """
    header, rest = _header(RequestHeader, body, header_length)
    parameters = dict(header.parameters)
    binary = _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    outputs = {}
    for one in header.outputs:
        if unknown := one.parameters.keys() - {"binary_data"}:
            raise ProtocolError(
                f"output {shown(one.name)} has the parameter {shown(min(unknown))}: expected binary_data alone"
            )
        outputs[one.name] = _flag(one.parameters.get("binary_data", binary), "binary_data")
    return Request(_tensors(header.inputs, rest), outputs, header.id, parameters, binary)


def decode_raw(body: bytes | bytearray, name: str) -> Request:
    """The request in a body that is nothing but a file: the input `name`, BYTES [1]. HEADER_LENGTH is 0 then."""
    content = np.empty(1, object)
    content[0] = bytes(body)
    return Request({name: content}, binary=False)


def encode_response(
    response: Response, binary: Mapping[str, bool] | None = None
) -> tuple[bytes, dict[str, str]]:
    """The body of a response, and the HTTP headers that go with it.

    Parameters
    ----------
    response : Response
    binary : dict of str to bool, optional
        Which outputs go as bytes. Default: all.

    Raises
    ------
    ProtocolError
        If a tensor is of a type that cannot be sent, or has no place in JSON: no finite number, no text.
    """
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    if response.parameters:
        header["parameters"] = dict(response.parameters)
    names = [name for name in response.outputs if binary is None or binary.get(name, False)]
    return _encoded(header, "outputs", response.outputs, names)


def decode_response(body: bytes | bytearray, header_length: str | None = None) -> Response:
    """The response in a body; parameters and errors as of `decode_request`."""
    header, rest = _header(ResponseHeader, body, header_length)
    tensors = _tensors(header.outputs, rest)
    return Response(header.model_name, header.model_version, tensors, header.id, header.parameters)


def _encoded(
    header: dict[str, Any], key: str, tensors: Mapping[str, NDArray[Any]], binary: Collection[str]
) -> tuple[bytes, dict[str, str]]:
    entries, parts = [], []
    for name, given in tensors.items():
        array = np.asarray(given)
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array)}
        if name in binary:
            parts.append(_bytes(array))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = _values(name, array)
        entries.append(entry)
    try:
        text = json.dumps(header | {key: entries}, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise ProtocolError("JSON has no NaN and no infinity; ask for the output as bytes") from error
    headers = {"Content-Type": "application/octet-stream" if parts else "application/json"}
    if parts:
        headers[HEADER_LENGTH] = str(len(text))
    return b"".join([text, *parts]), headers


def _bytes(array: NDArray[Any]) -> bytes:
    if not array.dtype.hasobject:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in array.flat)


def _values(name: str, array: NDArray[Any]) -> list[Any]:
    if not array.dtype.hasobject:
        return array.ravel().tolist()
    try:
        return [value.decode() for value in array.flat]
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{shown(name)} holds bytes that are no text; ask for it as bytes") from error


def _header(
    kind: type[Header], body: bytes | bytearray, header_length: str | None
) -> tuple[Header, memoryview]:
    """The JSON of a body, checked, and what follows it."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= 10):
            raise ProtocolError(f"{HEADER_LENGTH} {shown(header_length)}: expected a number of bytes")
        if int(header_length) > length:
            raise ProtocolError(f"{HEADER_LENGTH} {int(header_length)}: the body has {length} bytes alone")
        length = int(header_length)
    if length > LARGEST_JSON:
        raise ProtocolError(
            f"JSON of {length} bytes: expected up to {LARGEST_JSON}; send tensors in binary, after {HEADER_LENGTH}"
        )
    view = memoryview(body)
    try:
        header = kind.model_validate_json(bytes(view[:length]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ProtocolError(printable(f"{place}: {first['msg']}" if place else first["msg"], 300)) from error
    return header, view[length:]


def _tensors(entries: Sequence[TensorHeader], rest: memoryview) -> dict[str, NDArray[Any]]:
    """The tensors that the JSON names, from it or from the bytes that follow it."""
    found: dict[str, NDArray[Any]] = {}
    for entry in entries:
        name = f"tensor {shown(entry.name)}"
        if entry.name in found:
            raise ProtocolError(f"{name} is there twice")
        if entry.datatype not in DATATYPES:
            raise ProtocolError(
                f"{name} is of type {shown(entry.datatype)}: expected one of {', '.join(DATATYPES)}"
            )
        if unknown := entry.parameters.keys() - {"binary_data_size"}:
            raise ProtocolError(
                f"{name} has the parameter {shown(min(unknown))}: expected binary_data_size alone"
            )
        size = entry.parameters.get("binary_data_size")
        if (size is None) == (entry.data is None):
            raise ProtocolError(f"{name}: expected either data or binary_data_size")
        dtype, shape = DATATYPES[entry.datatype], tuple(entry.shape)
        if entry.data is not None:
            found[entry.name] = _from_json(name, entry.data, shape, dtype)
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise ProtocolError(
                f"{name}: binary_data_size {shown(size)}, and {len(rest)} bytes are left of the body"
            )
        found[entry.name] = _from_bytes(name, rest[:size], shape, dtype)
        rest = rest[size:]
    if rest:
        raise ProtocolError(f"{len(rest)} bytes of the body belong to no tensor")
    return found


def _from_bytes(name: str, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    count = math.prod(shape)
    if dtype.hasobject:
        if 4 * count > len(data):
            raise ProtocolError(f"{name} of shape {list(shape)} has {len(data)} bytes: too few for its texts")
        values = np.empty(count, object)
        values[:] = list(_texts(name, data, count))
        return values.reshape(shape)
    if count * dtype.itemsize != len(data):
        raise ProtocolError(
            f"{name} of shape {list(shape)} has {len(data)} bytes: expected {count * dtype.itemsize}"
        )
    if dtype == np.bool_ and (np.frombuffer(data, np.uint8) > 1).any():
        raise ProtocolError(f"{name} holds bytes that are neither 0 nor 1: expected BOOL")
    return np.frombuffer(data, dtype).reshape(shape)


def _texts(name: str, data: memoryview, count: int) -> Iterator[bytes]:
    """Texts, each after its length in four bytes."""
    at = 0
    for _ in range(count):
        if at + 4 > len(data):
            raise ProtocolError(f"{name} ends before its last text")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise ProtocolError(f"{name} has a text of {length} bytes, and {len(data) - at} are left of it")
        yield bytes(data[at : at + length])
        at += length
    if at != len(data):
        raise ProtocolError(f"{name} has {len(data) - at} bytes after its last text")


def _from_json(name: str, data: list[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array from its values in one list or in nested ones. NumPy is to guess nothing about what a stranger sent."""
    values = data
    if data and isinstance(data[0], list):
        values = [data]
        for size in shape:
            if not all(isinstance(row, list) and len(row) == size for row in values):
                raise ProtocolError(f"{name} has lists that do not fit its shape {list(shape)}")
            values = list(chain.from_iterable(values))
    if len(values) != math.prod(shape):
        raise ProtocolError(f"{name} of shape {list(shape)} has {len(values)} values")
    expected = _IN_JSON[dtype.kind]
    for value in values:
        if type(value) not in expected:
            raise ProtocolError(f"{name} holds {shown(value)}, which is no {_datatype(dtype)}")
    try:
        if dtype.hasobject:
            array = np.empty(len(values), object)
            array[:] = [text.encode() for text in values]
        else:
            with np.errstate(over="raise"):
                array = np.array(values, dtype)
    except (OverflowError, FloatingPointError) as error:
        raise ProtocolError(f"{name} holds a number that is beyond {_datatype(dtype)}") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(f"{name} holds a number that is not finite")
    return array.reshape(shape)


def _datatype(dtype: np.dtype[Any]) -> str:
    return next(name for name, known in DATATYPES.items() if known == dtype)


def _flag(value: Parameter, name: str) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(f"{name} {shown(value)}: expected true or false")
    return value
