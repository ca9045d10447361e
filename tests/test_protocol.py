"""Requests and responses of the Open Inference Protocol: what goes in comes out, and no bytes break the decoder."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.typing import NDArray

from fmrnet.deployment.protocol import (
    DATATYPES,
    HEADER_LENGTH,
    LARGEST_JSON,
    ProtocolError,
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

shapes = drawn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = [dtype for dtype in DATATYPES.values() if dtype.kind != "O"]


@st.composite
def texts(draw: st.DrawFn, elements: st.SearchStrategy[bytes]) -> NDArray[Any]:
    shape = draw(shapes)
    array = np.empty(int(np.prod(shape)), object)
    array[:] = draw(st.lists(elements, min_size=array.size, max_size=array.size))
    return array.reshape(shape)


arrays = st.sampled_from(NUMBERS).flatmap(lambda dtype: drawn.arrays(dtype, shapes)) | texts(
    st.binary(max_size=9)
)
finite = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: drawn.arrays(
        dtype,
        shapes,
        elements={"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None,
    )
) | texts(st.text(max_size=5).map(str.encode))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
parameters = st.dictionaries(
    names.filter(lambda name: name != "binary_data_output"),
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    max_size=3,
)


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return (
        found.tolist() == expected.tolist()
        if found.dtype == object
        else found.tobytes() == expected.tobytes()
    )


@given(
    st.dictionaries(names, arrays, max_size=3),
    st.dictionaries(names, st.booleans(), max_size=3),
    names,
    parameters,
    st.booleans(),
)
def test_a_request_comes_out_as_it_went_in(inputs, outputs, id, parameters, binary):  # type: ignore[no-untyped-def]
    body, headers = encode_request(Request(inputs, outputs, id, parameters, binary))
    found = decode_request(body, headers.get(HEADER_LENGTH))
    assert (found.outputs, found.id, found.parameters, found.binary) == (outputs, id, parameters, binary)
    assert found.inputs.keys() == inputs.keys()
    assert all(same(found.inputs[name], array) for name, array in inputs.items())


@given(st.dictionaries(names, finite, max_size=3), st.sets(names), names, parameters)
def test_a_response_does_in_json_and_in_bytes(outputs, binary, id, parameters):  # type: ignore[no-untyped-def]
    response = Response("carpet.pixel", "1", outputs, id, parameters)
    for chosen in (None, {}, {name: index % 2 == 0 for index, name in enumerate(outputs)}):
        body, headers = encode_response(response, chosen)
        found = decode_response(body, headers.get(HEADER_LENGTH))
        assert (found.model, found.version, found.id) == ("carpet.pixel", "1", id)
        assert found.parameters == parameters
        assert all(same(found.outputs[name], array) for name, array in outputs.items())


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "shape": [2], "datatype": "FP32", "data": [0.5, 1]} | changes


def body_of(*entries: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(entries), **more}).encode()


def test_json_alone_and_nested_lists() -> None:
    flat = decode_request(body_of(entry(shape=[2, 2], data=[1, 2, 3, 4]), id="x")).inputs["a"]
    nested = decode_request(body_of(entry(shape=[2, 2], data=[[1, 2], [3, 4]]))).inputs["a"]
    assert same(flat, nested)
    assert same(nested, np.array([[1, 2], [3, 4]], np.float32))
    assert decode_request(body_of(entry(datatype="BYTES", data=["ä", ""]))).inputs["a"].tolist() == [
        "ä".encode(),
        b"",
    ]


BYTES = {"data": None, "parameters": {"binary_data_size": 8}}
REFUSED = {
    "no JSON": (b"{", None, "Invalid JSON"),
    "no inputs": (b"{}", None, "inputs: Field required"),
    "a length that is no number": (body_of(entry()), "1e3", "expected a number of bytes"),
    "a length beyond the body": (body_of(entry()), "999", "the body has"),
    "a large length": (b"", "9" * 5000, "expected a number of bytes"),
    "too much JSON": (b" " * (LARGEST_JSON + 1), None, "send tensors in binary"),
    "too deep": (b"[" * 100_000, None, "recursion"),
    "a tensor twice": (body_of(entry(), entry()), None, "twice"),
    "an unknown type": (body_of(entry(datatype="BF16")), None, "'BF16': expected one of BOOL"),
    "neither data nor bytes": (body_of(entry(data=None)), None, "either data or binary_data_size"),
    "both": (body_of(entry(parameters={"binary_data_size": 8})), None, "either data or binary_data_size"),
    "bytes that are not there": (body_of(entry(**BYTES)), None, "0 bytes are left"),
    "a huge size": (body_of(entry(data=None, parameters={"binary_data_size": 2**62})), None, "are left"),
    "a negative size": (body_of(entry(data=None, parameters={"binary_data_size": -1})), None, "are left"),
    "a size that is none": (body_of(entry(data=None, parameters={"binary_data_size": True})), None, "left"),
    "a huge shape": (body_of(entry(shape=[2**39] * 8)), None, "has 2 values"),
    "a shape beyond all": (body_of(entry(shape=[2**70])), None, "inputs.0.shape.0"),
    "a negative shape": (body_of(entry(shape=[-1])), None, "greater than or equal to 0"),
    "too few values": (body_of(entry(data=[1])), None, "has 1 values"),
    "ragged lists": (body_of(entry(shape=[2, 2], data=[[1, 2], [3]])), None, "do not fit its shape [2, 2]"),
    "text for numbers": (body_of(entry(data=["1", 2])), None, "holds '1', which is no FP32"),
    "false for a number": (body_of(entry(data=[False, 2])), None, "holds False, which is no FP32"),
    "a long text among numbers": (body_of(entry(data=["1" * 10**6, 2])), None, "which is no FP32"),
    "a number beyond the type": (body_of(entry(datatype="UINT8", data=[1, 256])), None, "beyond UINT8"),
    "a real beyond the type": (body_of(entry(datatype="FP16", data=[1, 1e6])), None, "beyond FP16"),
    "NaN": (body_of(entry(data=[1, float("nan")])), None, "not finite"),
    "a binary flag that is none": (body_of(parameters={"binary_data_output": 1}), None, "true or false"),
    "an unknown parameter": (body_of(outputs=[{"name": "b", "parameters": {"classification": 2}}]), None, "alone"),
    "too many tensors": (body_of(*[entry(name=str(n)) for n in range(17)]), None, "at most 16"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "length", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_said_in_one_line(body: bytes, length: str | None, reason: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_request(body, length)
    message = str(refused.value)
    assert reason in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "reason"),
    [
        ("FP32", [2], b"1234567", "7 bytes: expected 8"),
        ("FP32", [2**30, 2**30], b"12345678", "expected 4611686018427387904"),
        ("BOOL", [2], b"\x00\x02", "neither 0 nor 1"),
        ("BYTES", [2**39], b"\0" * 8, "too few for its texts"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "a text of 4294967295 bytes"),
        ("BYTES", [1], b"\x01\0\0\0ab", "1 bytes after its last text"),
        ("BYTES", [2], b"\x04\0\0\0abcd", "ends before its last text"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype: str, shape: list[int], data: bytes, reason: str) -> None:
    size = {"binary_data_size": len(data)}
    header = body_of(entry(data=None, datatype=datatype, shape=shape, parameters=size))
    with pytest.raises(ProtocolError, match=reason):
        decode_request(header + data, str(len(header)))
    with pytest.raises(ProtocolError, match=r"belong to no tensor|neither|few|text|expected"):
        decode_request(header + data + b"more", str(len(header)))


def test_what_json_has_no_place_for_is_refused_by_the_encoder() -> None:
    for array in (np.array([np.nan]), np.array([b"\xff"], object), np.zeros(1, complex)):
        with pytest.raises(ProtocolError):
            encode_response(Response("m", "1", {"a": array}), {})
