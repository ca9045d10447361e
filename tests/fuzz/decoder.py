"""The decoder of requests and responses under atheris, which looks where the code branches.

pip install atheris
python tests/fuzz/decoder.py -max_total_time=3600 -max_len=4096
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["fmrnet.deployment.protocol"]):
    from fmrnet.deployment import protocol

import numpy as np

SEEDS = [
    protocol.encode_request(
        protocol.Request({"file": np.array([b"abc", b""], object)}, {"score": True}, "x")
    ),
    protocol.encode_request(protocol.Request({"picture": np.zeros((3, 4), np.uint16)})),
]


def one(data: bytes) -> None:
    """Decode: the first byte says how, two more how long the header is."""
    kind, length, body = data[:1], int.from_bytes(data[1:3], "little"), data[3:]
    decode = protocol.decode_response if kind[:1] > b"\x7f" else protocol.decode_request
    reason = ""
    try:
        decode(body, None if kind[:1] in (b"", b"\0") else str(length))
    except protocol.ProtocolError as error:
        reason = str(error)
    assert not reason or reason.isprintable()


def seeds(folder: str) -> None:
    """Good requests to begin with."""
    from pathlib import Path

    Path(folder).mkdir(exist_ok=True)
    for number, (body, headers) in enumerate(SEEDS):
        length = int(headers[protocol.HEADER_LENGTH])
        (Path(folder) / f"{number}").write_bytes(b"\1" + length.to_bytes(2, "little") + body)


if __name__ == "__main__":
    import tempfile

    corpus = tempfile.mkdtemp()
    seeds(corpus)
    atheris.Setup([*sys.argv, corpus], one)
    atheris.Fuzz()
