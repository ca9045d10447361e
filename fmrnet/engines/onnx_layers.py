"""Operators of the ONNX format put together into what the networks are made of.

A `Builder` collects operators one after the other. Pictures and maps are (1, C, H, W) or (H, W), of sizes that are not
known; borders, windows and textons are as in `fmrnet.network.model` and `fmrnet.fast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray
from onnx_ir.tape import Tape

from fmrnet.config import SLOPE
from fmrnet.engines.onnx_bytes import PREFIX

__all__ = ["Builder", "Value", "neighbours"]

Value = ir.Value
END = 2**31 - 1  # beyond every side
EPSILON = 1e-5  # of PyTorch's batch normalisation


class Builder:
    """A graph under construction.

    Attributes
    ----------
    weights : dict
        Those that are used, by their name in the network's `state_dict`.
    """

    def __init__(self) -> None:
        self.tape = Tape()
        self.weights: dict[str, Value] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """One operator with one output."""
        return self.tape.op(kind, inputs, attributes or None)

    def weight(self, name: str) -> Value:
        """A weight of the network."""
        return self.weights.setdefault(name, ir.Value(name=PREFIX + name))

    def constant(self, values: ArrayLike, kind: type[np.generic] = np.float32) -> Value:
        """Numbers that are the same for all weights."""
        array = np.asarray(values, kind)
        key = (kind, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant{len(self._constants)}"
            self._constants[key] = self.tape.initializer(ir.tensor(array, name=name))
        return self._constants[key]

    def integers(self, values: ArrayLike) -> Value:
        """The same, for shapes, axes and places."""
        return self.constant(values, np.int64)

    def reshaped(self, x: Value, *shape: int) -> Value:
        """In another shape; 0 keeps the length that stands there, -1 takes the rest."""
        return self.op("Reshape", x, self.integers(shape))

    def channels(self, name: str) -> Value:
        """A weight (C,) as (C, 1, 1), for maps."""
        return self.reshaped(self.weight(name), -1, 1, 1)

    def clipped(self, x: Value, low: float | None, high: float | None) -> Value:
        """No less and no more than that."""
        return self.op("Clip", x, *(None if end is None else self.constant(end) for end in (low, high)))

    def mapped(self, x: Value, factor: float, term: float = 0.0) -> Value:
        """factor x + term."""
        scaled = x if factor == 1 else self.op("Mul", x, self.constant(factor))
        return self.op("Add", scaled, self.constant(term)) if term else scaled

    def cut(
        self,
        x: Value,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Value:
        """A slice; an end of 0 is that of the axis."""
        limits = [end or END for end in ends]
        given = [starts, limits, axes, steps or [1] * len(axes)]
        return self.op("Slice", x, *map(self.integers, given))

    def flat(self, x: Value, *axes: int) -> Value:
        """Without these axes of length 1."""
        return self.op("Squeeze", x, self.integers(axes))

    def raised(self, x: Value, *axes: int) -> Value:
        """With these axes of length 1."""
        return self.op("Unsqueeze", x, self.integers(axes))

    def convolved(self, x: Value, name: str, *, bias: bool = False, **attributes: Any) -> Value:
        """A convolution with the weights of a layer.

        Without a bias there is no third input: onnxruntime takes an empty one for a bias that is not known, and neither
        joins the layer with the norm behind it nor brings it to the layout that it is fastest in.
        """
        parts = ("weight", "bias") if bias else ("weight",)
        return self.op("Conv", x, *(self.weight(f"{name}.{part}") for part in parts), **attributes)

    def alone(self, weight: Value) -> Value:
        """The same numbers, which nothing else reads once constants are folded.

        OpenVINO joins no bias to a convolution that two of them share.
        """
        return self.op("Neg", self.op("Neg", weight))

    def normed(self, x: Value, name: str) -> Value:
        """Batch normalisation with the statistics of training."""
        parts = (self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
        return self.op("BatchNormalization", x, *parts, epsilon=EPSILON)

    def activated(self, x: Value) -> Value:
        """Leaky ReLU."""
        return self.op("LeakyRelu", x, alpha=SLOPE)

    def edged(self, x: Value, width: int) -> Value:
        """(1, C, H, W) with the edge pixels repeated around."""
        return self.op("Pad", x, self.integers(2 * [0, 0, width, width]), mode="edge")

    def enlarged(self, x: Value, times: int, mode: str = "linear") -> Value:
        """(1, C, H, W), drawn larger, as `torch.nn.functional.interpolate` does it by bilinear or nearest."""
        how = "half_pixel" if mode == "linear" else "asymmetric"
        nearest = {} if mode == "linear" else {"nearest_mode": "floor"}
        scales = self.constant([1, 1, times, times])
        return self.op("Resize", x, None, scales, mode=mode, coordinate_transformation_mode=how, **nearest)

    def averaged(self, x: Value, size: int) -> Value:
        """(1, C, H, W) -> means over squares of `size` x `size` pixels."""
        return self.op("AveragePool", x, kernel_shape=[size, size], strides=[size, size])

    def mean(self, x: Value, *axes: int, keep: bool = True) -> Value:
        """The mean over some axes."""
        return self.op("ReduceMean", x, self.integers(axes), keepdims=int(keep))

    def greatest(self, x: Value, count: Value, axis: int) -> Value:
        """The `count` greatest values along an axis, in any order."""
        values, _ = self.tape.op_multi_out("TopK", [x, count], {"axis": axis, "sorted": 0}, num_outputs=2)
        return values

    def ordered(self, x: Value) -> Value:
        """All values along the only axis, the least first."""
        values, _ = self.tape.op_multi_out(
            "TopK", [x, self.op("Shape", x)], {"axis": 0, "largest": 0}, num_outputs=2
        )
        return values

    def mirrored(self, x: Value, radius: int, axis: int) -> Value:
        """Longer by `radius` at either end of an axis, the edge pixel repeated; the axis is no shorter than that."""
        first = self.cut(x, [radius - 1], [-END], [axis], [-1])
        last = self.cut(x, [-1], [-radius - 1], [axis], [-1])
        return self.op("Concat", first, x, last, axis=axis)

    def blurred(self, x: Value, count: int, kernel: Sequence[float]) -> Value:
        """Maps (1, `count`, H, W), correlated with a kernel of odd length along columns and rows; mirrored borders."""
        for axis in (2, 3):
            shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
            taps = np.tile(np.reshape(np.asarray(kernel, np.float32), shape), (count, 1, 1, 1))
            x = self.op("Conv", self.mirrored(x, len(kernel) // 2, axis), self.constant(taps), group=count)
        return x

    def windows(self, x: Value, side: int, step: int) -> Value:
        """Square windows of maps, `step` apart: (H, W, D) -> (rows, columns, side^2, D)."""
        cut = [
            self.cut(x, [i, j], [i + 1 - side, j + 1 - side], [0, 1], [step, step])
            for i, j in product(range(side), repeat=2)
        ]
        return self.op("Concat", *(self.raised(one, 2) for one in cut), axis=2)

    def joined(self, cut: Value, side: int, step: int, depth: int) -> Value:
        """Maps (1, D, H, W) of such windows (rows, columns, side^2, D): their mean where they overlap."""
        parts = (
            side // step
        )  # a window is a square of so many blocks, and a map has a block more for each window
        ones = self.op(
            "ConstantOfShape",
            self.cut(self.op("Shape", cut), [0], [2], [0]),
            value=ir.tensor(np.ones(1, np.float32)),
        )
        totals, counts = [], []
        for i, j in product(range(parts), repeat=2):
            places = [(i * step + y) * side + j * step + x for y, x in product(range(step), repeat=2)]
            block = self.op("Gather", cut, self.integers(places), axis=2)
            around = [i, j, parts - 1 - i, parts - 1 - j]
            totals.append(self.op("Pad", block, self.integers([*around[:2], 0, 0, *around[2:], 0, 0])))
            counts.append(self.op("Pad", ones, self.integers(around)))
        if parts == 1:
            mean = totals[0]
        else:
            mean = self.op("Div", self.op("Sum", *totals), self.raised(self.op("Sum", *counts), 2, 3))
        spread = self.reshaped(self.op("Transpose", mean, perm=[2, 3, 0, 1]), 1, step**2 * depth, 0, 0)
        return spread if step == 1 else self.op("DepthToSpace", spread, blocksize=step)

    def last(self, x: Value) -> Value:
        """(1, D, H, W) -> (H, W, D)."""
        return self.flat(self.op("Transpose", x, perm=[0, 2, 3, 1]), 0)


def neighbours(side: int) -> NDArray[np.float32]:
    """Which places of a square a 3 x 3 kernel's taps reach, zeros around: (9, side^2 side^2)."""
    found = np.zeros((3, 3, side, side, side, side), np.float32)
    for m, n, y, x in product(range(3), range(3), range(side), range(side)):
        row, column = y + m - 1, x + n - 1
        if 0 <= row < side and 0 <= column < side:
            found[m, n, y, x, row, column] = 1
    return found.reshape(9, -1)
