"""Requests of a stranger's bytes: decoded, or refused in one line, in memory that their size bounds.

Hypothesis makes them up: seconds of it with the tests, hours with `FUZZ=long`. `decoder.py` beside this file has
atheris look where the decoder branches.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.deployment.protocol import (
    DATATYPES,
    HEADER_LENGTH,
    ProtocolError,
    Request,
    decode_request,
    decode_response,
    encode_request,
)

MEMORY = 2**20  # bytes that a request of a few hundred bytes may take
numbers = st.integers(-2, 9) | st.sampled_from([2**31, 2**40, 2**63, 2**64, 10**400, 1e400, 0.5, True])
hostile = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "picture", "file"]) | hostile},
    optional={
        "shape": st.lists(numbers, max_size=4) | hostile,
        "datatype": st.sampled_from([*DATATYPES, "BF16"]) | hostile,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": numbers}) | hostile,
        "data": st.lists(numbers | st.text(max_size=4), max_size=6) | hostile,
    },
)
headers = st.fixed_dictionaries(
    {"inputs": st.lists(entries, max_size=3) | hostile},
    optional={
        "id": hostile,
        "parameters": hostile,
        "outputs": st.lists(entries, max_size=2) | hostile,
        "model_name": hostile,
    },
)


def check(body: bytes, length: str | None) -> None:
    """A body is decoded or refused, and no more than that."""
    tracemalloc.start()
    try:
        for decode in (decode_request, decode_response):
            reason = ""
            try:
                found: Any = decode(body, length)
                tensors = found.inputs if isinstance(found, Request) else found.outputs
                assert all(isinstance(array, np.ndarray) for array in tensors.values())
            except ProtocolError as error:
                reason = str(error)
            assert not reason or reason.isprintable()
            assert len(reason) < 1000
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=400), st.none() | st.text(max_size=6) | st.integers(-1, 500).map(str))
def test_any_bytes(body: bytes, length: str | None) -> None:
    check(body, length)


@given(headers, st.binary(max_size=64), st.integers(-2, 2))
def test_any_json_and_bytes_after_it(header: dict[str, Any], rest: bytes, off: int) -> None:
    text = json.dumps(header).encode()
    check(text, None)
    check(text + rest, str(max(0, len(text) + off * (len(rest) % 3))))


GOOD = [
    encode_request(
        Request({"file": np.array([b"abc", b""], object)}, {"score": True}, "x", {"false_alarms": 0.1})
    ),
    encode_request(
        Request({"picture": np.arange(12, dtype=np.uint16).reshape(3, 4), "b": np.zeros(3, np.bool_)})
    ),
]


@given(st.data(), st.sampled_from(GOOD), st.integers(1, 4))
def test_damaged_requests(data: st.DataObject, request: tuple[bytes, dict[str, str]], faults: int) -> None:
    body = bytearray(request[0])
    for _ in range(faults):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    check(bytes(body), request[1].get(HEADER_LENGTH))
