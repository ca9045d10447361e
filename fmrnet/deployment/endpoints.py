"""What a model answers: pixel and patch, a verdict of a picture; decoder, a background from features.

An endpoint checks a request before it waits in the queue, and answers several at once.
"""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmrnet.deployment.features import FeaturesError, unpack
from fmrnet.deployment.protocol import Parameter, ProtocolError, Request
from fmrnet.engines.engine import decoded
from fmrnet.errors import PictureError, shown
from fmrnet.inspection.inspector import Inspector, Result
from fmrnet.inspection.overlay import overlay
from fmrnet.pictures import as_picture, decode_picture, decode_size

__all__ = ["Answer", "Asked", "Decoding", "Endpoint", "Inspection", "texts"]

Arrays = dict[str, NDArray[Any]]
Read = TypeVar("Read")
MAPS_IN = ("el5", "el4", "el3")  # of the decoder
_decoding = threading.Lock()


@dataclass(frozen=True)
class Asked:
    """A request that has been checked.

    Attributes
    ----------
    inputs : dict of str to array
    outputs : tuple of str
        Those that are wanted.
    false_alarms : float, or None
        The rate at which to decide; None: the model's own.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    false_alarms: float | None = None


@dataclass(frozen=True)
class Answer:
    """The outputs, and the verdict if there is one."""

    outputs: Arrays
    result: Result | None = None


@dataclass(frozen=True)
class TensorOf:
    """An input or an output: its type and shape, -1 where it is not fixed, and whether it comes unless asked for."""

    datatype: str
    shape: tuple[int, ...]
    usual: bool = True


class Endpoint(Protocol):
    """Something that a model answers; `file` is the input that a body of nothing else is taken for."""

    name: str
    file: str
    inputs: Mapping[str, TensorOf]
    outputs: Mapping[str, TensorOf]

    def checked(self, request: Request) -> Asked:
        """The request, if it can be answered; else ProtocolError or PictureError."""

    def answer(self, asked: Asked) -> Answer:
        """The answer to a request. Raises as `Inspector.inspect`."""


def texts(values: Sequence[str]) -> NDArray[Any]:
    """Texts as the protocol's BYTES."""
    array = np.empty(len(values), object)
    array[:] = [value.encode() for value in values]
    return array


VERDICT = {
    "score": TensorOf("FP64", (1,)),
    "p_value": TensorOf("FP64", (1,)),
    "defective": TensorOf("BOOL", (1,)),
    "level": TensorOf("BYTES", (1,)),
    "settled": TensorOf("BOOL", (1,)),
    "reasons": TensorOf("BYTES", (-1,)),
    "patch_scores": TensorOf("FP32", (-1, -1)),
    "patch_p_values": TensorOf("FP64", (-1, -1)),
}
MAPS = {
    "anomaly_map": TensorOf("FP32", (-1, -1), usual=False),
    "mask": TensorOf("BOOL", (-1, -1), usual=False),
    "overlay": TensorOf("BYTES", (1,), usual=False),
}


class Inspection:
    """Verdicts of pictures at one level, as `Inspector.inspect` gives them.

    Parameters
    ----------
    inspector : Inspector
    level : "pixel" or "patch"
    most_pixels : int
        Of a picture.
    """

    file = "file"
    inputs: Mapping[str, TensorOf] = {
        "picture": TensorOf("UINT8", (-1, -1, -1)),
        "file": TensorOf("BYTES", (1,)),
    }

    def __init__(self, inspector: Inspector, level: Literal["pixel", "patch"], most_pixels: int) -> None:
        self.name: str = level
        self.outputs: Mapping[str, TensorOf] = VERDICT | MAPS if level == "pixel" else VERDICT
        self._inspector, self._level, self._most_pixels = inspector, level, most_pixels

    def checked(self, request: Request) -> Asked:
        """As `Endpoint`."""
        if len(request.inputs) != 1 or not request.inputs.keys() <= self.inputs.keys():
            raise ProtocolError(
                f"inputs {_listed(request.inputs)}: expected either picture or file, a picture file's bytes"
            )
        (given,) = request.inputs.values()
        if "file" in request.inputs and not (given.dtype.hasobject and given.size == 1):
            raise ProtocolError(
                f"input file is {given.dtype} of shape {list(given.shape)}: expected BYTES [1]"
            )
        if "picture" in request.inputs and (given.dtype.hasobject or given.ndim not in (2, 3)):
            raise ProtocolError(
                f"input picture is {given.dtype} of shape {list(given.shape)}: expected UINT8, UINT16 or FP32, "
                "[height, width] or [height, width, channels]"
            )
        rate = _rate(request.parameters)
        if rate is not None:
            self._inspector.calibration.at(rate)
        return Asked(request.inputs, _wanted(request, self.outputs), rate)

    def answer(self, asked: Asked) -> Answer:
        """As `Endpoint`."""
        inspector = self._inspector
        if asked.false_alarms is not None:
            inspector = copy.copy(inspector)  # of which the rate alone is another
            inspector.false_alarms = asked.false_alarms
        picture = self._picture(asked.inputs, inspector.bits)
        result = inspector.inspect(picture, self._level)
        wanted = {name: _OUTPUT[name](result) for name in asked.outputs if name in _OUTPUT}
        if "overlay" in asked.outputs:
            wanted["overlay"] = np.array([_png(overlay(picture, result.mask))], object)
        return Answer(wanted, result)

    def _picture(self, inputs: Mapping[str, NDArray[Any]], bits: int | None) -> NDArray[np.float32]:
        """The picture in the inputs, whose size is known before it is decoded."""
        (given,) = inputs.values()
        file: bytes | None = given.item() if "file" in inputs else None
        try:
            height, width = given.shape[:2] if file is None else _one_at_a_time(decode_size, file)
            if height * width > self._most_pixels:
                raise PictureError(
                    f"is {width}x{height} pixels, more than {self._most_pixels}; cut it into pieces"
                )
            if file is None:
                return as_picture(given, bits)
            return _one_at_a_time(lambda data: decode_picture(data, bits), file)
        except PictureError as error:
            raise PictureError(
                str(error) if str(error).startswith("array") else f"the picture {error}"
            ) from error


_OUTPUT: dict[str, Callable[[Result], Any]] = {
    "score": lambda result: np.array([result.score]),
    "p_value": lambda result: np.array([result.p_value]),
    "defective": lambda result: np.array([result.defective]),
    "level": lambda result: texts([result.level]),
    "settled": lambda result: np.array([result.settled]),
    "reasons": lambda result: texts(result.reasons),
    "patch_scores": lambda result: result.patch_scores,
    "patch_p_values": lambda result: result.patch_p_values,
    "anomaly_map": lambda result: result.anomaly_map,
    "mask": lambda result: result.mask,
}


class Decoding:
    """Backgrounds from features: EL_5 and the two deepest skips, of a whole picture, of windows of it, or of patches.

    Parameters
    ----------
    inspector : Inspector
        Of a model with a generator, on an engine that offers the decoder alone.
    most_pixels : int
        Of all backgrounds together.
    """

    name = "decoder"
    file = "features"

    def __init__(self, inspector: Inspector, most_pixels: int) -> None:
        self._engine, self._most_pixels = inspector.engine, most_pixels
        config = inspector.config
        self._least = config.patch_size // 32
        self.inputs: Mapping[str, TensorOf] = {
            name: TensorOf("FP32", (-1, config.channels[int(name[2:]) - 1], -1, -1)) for name in MAPS_IN
        }
        self.outputs: Mapping[str, TensorOf] = {
            "reconstruction": TensorOf("FP32", (-1, config.image_channels, -1, -1))
        }
        self._step = config.stride // 32 if config.tile == "picture" else 0
        self._channels = [self.inputs[name].shape[1] for name in self.inputs]
        self.inputs = {**self.inputs, "features": TensorOf("BYTES", (1,))}

    def checked(self, request: Request) -> Asked:
        """As `Endpoint`."""
        inputs = self._maps(request.inputs)
        if request.parameters:
            raise ProtocolError(f"parameter {shown(min(request.parameters))}: the decoder takes none")
        deepest = inputs["el5"]
        if deepest.ndim != 4 or 0 in deepest.shape:
            raise ProtocolError(
                f"input el5 has the shape {list(deepest.shape)}: expected {self._shape('el5')}"
            )
        count, _, height, width = deepest.shape
        if min(height, width) < self._least or any(self._is_odd(side) for side in (height, width)):
            raise ProtocolError(
                f"input el5 is {height} high and {width} wide: expected {self._least}"
                + (" or more" if self._step else "")
            )
        if count * height * width * 32**2 > self._most_pixels:
            raise PictureError(
                f"features of {count * height * width * 32**2} pixels: this server takes up to {self._most_pixels}"
            )
        for times, (name, array) in zip((1, 2, 4), ((key, inputs[key]) for key in MAPS_IN)):
            expected = (count, self.inputs[name].shape[1], times * height, times * width)
            if array.shape != expected:
                raise ProtocolError(
                    f"input {name} has the shape {list(array.shape)}: expected {list(expected)}"
                )
            if array.dtype not in (np.float16, np.float32):
                raise ProtocolError(f"input {name} is {array.dtype}: expected FP16 or FP32")
            if not np.isfinite(array).all():
                raise ProtocolError(f"input {name} holds NaN or infinity: expected finite numbers")
        return Asked(inputs, _wanted(request, self.outputs))

    def answer(self, asked: Asked) -> Answer:
        """As `Endpoint`."""
        deepest, middle, shallow = (asked.inputs[name] for name in MAPS_IN)
        return Answer({"reconstruction": decoded(self._engine, (deepest, middle, shallow))})

    def _maps(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The three maps, as they are given or packed in one."""
        if inputs.keys() == set(MAPS_IN):
            return inputs
        if inputs.keys() != {"features"}:
            raise ProtocolError(
                f"inputs {_listed(inputs)}: expected {', '.join(MAPS_IN)}, or features, all three packed"
            )
        packed = inputs["features"]
        if not (packed.dtype.hasobject and packed.size == 1):
            raise ProtocolError(
                f"input features is {packed.dtype} of shape {list(packed.shape)}: expected BYTES [1]"
            )
        try:
            maps = unpack(packed.item(), self._channels, self._most_pixels // 32**2)
        except FeaturesError as error:
            raise ProtocolError(f"input features: {error}") from error
        return dict(zip(MAPS_IN, maps, strict=True))

    def _is_odd(self, side: int) -> bool:
        """Whether windows do not fill a side, or a patch has another one."""
        return (side - self._least) % self._step > 0 if self._step else side != self._least

    def _shape(self, name: str) -> str:
        return str(list(self.inputs[name].shape))


def _one_at_a_time(read: Callable[[bytes], Read], data: bytes) -> Read:
    """Decoders hold warnings back, which they cannot do in two threads at once."""
    with _decoding:
        return read(data)


def _wanted(request: Request, outputs: Mapping[str, TensorOf]) -> tuple[str, ...]:
    if unknown := [name for name in request.outputs if name not in outputs]:
        raise ProtocolError(f"output {shown(unknown[0])}: expected some of {', '.join(outputs)}")
    return tuple(request.outputs) or tuple(name for name, one in outputs.items() if one.usual)


def _rate(parameters: Mapping[str, Parameter]) -> float | None:
    if unknown := parameters.keys() - {"false_alarms"}:
        raise ProtocolError(f"parameter {shown(min(unknown))}: expected false_alarms alone")
    rate = parameters.get("false_alarms")
    if rate is None:
        return None
    if isinstance(rate, str | bool) or not 0 < rate < 1:  # which no float need hold
        raise ProtocolError(f"false_alarms = {shown(rate)}: expected a number between 0 and 1")
    return float(rate)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(shown, names)) or "none"


def _png(picture: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
