"""A model's graphs in the ONNX format, drawn from its settings alone: they hold the names of weights, not their values.

They say once more what `fmrnet.network` and `fmrnet.engines.background` say, in ONNX's operators, for pictures of any
size whose sides are multiples of `Config.multiple`. `fmrnet.engines.torch_engine.with_graphs` holds them against the
network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import onnx_ir as ir

from fmrnet.artifact import Graph
from fmrnet.config import Config
from fmrnet.engines.background import ALARM_PIXELS, COARSE
from fmrnet.engines.engine import BREADTH, HALF
from fmrnet.engines.graph_engine import MAPS, OPSET, inputs_of, outputs_of
from fmrnet.engines.onnx_layers import Builder, Value, neighbours
from fmrnet.fast.blurs import BLUR_RADIUS, BLUR_SIGMA, CELL
from fmrnet.fast.fusion import C0, C1, C2, SIGMA, WINDOW, gaussian
from fmrnet.fast.learned_fusion import FLOOR, LIGHT_LEAST, LIGHT_RADIUS, LIGHT_SIGMA
from fmrnet.network import backbone, learned_fusion
from fmrnet.network.general import GRIDS, LEVELS, TAIL
from fmrnet.usual import CELL as PLACE
from fmrnet.usual import GAUSSIANS

__all__ = ["graphs"]

IR_VERSION = 10  # of the files; what onnxruntime has read since 1.20
SHAPES: dict[str, tuple[int | str | None, ...]] = {  # None: channels
    "patches": ("patches", None, "side", "side"),
    "picture": (1, None, "height", "width"),
    "background": (1, None, "height", "width"),
    "surprise": ("height", "width"),
    "inside": ("height", "width"),
    "usual": ("witnesses", "cells_down", "cells_across"),
}


def graphs(config: Config) -> dict[str, Graph]:
    """The graphs of `fmrnet.engines.graph_engine`, by name, of models of such settings."""
    drawn = {"glance": _glance, "restore": _restore, "fuse": _fuse}
    if not config.general:
        drawn = {"glance": _distances, "restore": _restore_patches, "fuse": _fuse}
    made = {}
    for name, inputs in inputs_of(config).items():
        builder = Builder()
        given = {one: _input(one, config) for one in inputs}
        found = drawn[name](builder, config, given)
        made[name] = _graph(builder, name, outputs_of(config)[name], list(given.values()), found)
    return made


def _input(name: str, config: Config) -> Value:
    shape = [config.image_channels if length is None else length for length in SHAPES.get(name, ())]
    if name in MAPS:
        level = 4 - MAPS.index(name)
        side = config.patch_size // 2 ** (level + 1)
        shape = ["patches", config.channels[level], side, side]
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _graph(
    builder: Builder, name: str, names: tuple[str, ...], inputs: list[Value], outputs: tuple[Value, ...]
) -> Graph:
    for value, called in zip(outputs, names, strict=True):
        value.name, value.type = called, ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=builder.tape.nodes,
        initializers=builder.tape.initializers,
        opset_imports={"": OPSET},
        name=name,
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION, producer_name="fmrnet"))
    return Graph(proto.SerializeToString(deterministic=True), tuple(builder.weights))


# The early exit: witnesses on general features.


def _glance(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    evidence = _evidence(g, config, given["picture"])
    inside, usual = g.raised(given["inside"], 0, 1), g.raised(given["usual"], 0)
    each = [  # (1, 1, h, w)
        _surprise(g, number, _beyond(g, number, values, usual, cell))
        for number, (values, cell) in enumerate(zip(evidence, GRIDS))
    ]
    surprise = g.op("Mul", g.op("Sum", *(g.enlarged(one, cell) for one, cell in zip(each, GRIDS))), inside)
    counts = [_cells(g, inside, cell) for cell in GRIDS]
    each = [g.op("Where", one, values, g.constant(0)) for one, values in zip(counts, each)]
    readings = [_alarms(g, config, surprise)]
    for number, (values, cell) in enumerate(zip(each, GRIDS)):
        readings.append(_alarms(g, config, values, cell))
        if number == COARSE:
            readings.append(_means(g, config, values, cell))
    return (
        g.op("Concat", *readings, axis=0),
        _median(g, evidence[COARSE], counts[COARSE]),
        g.flat(surprise, 0, 1),
    )


def _evidence(g: Builder, config: Config, picture: Value) -> list[Value]:
    """What each witness says, (1, 1, h, w), as `fmrnet.network.general.General.evidence`."""
    colour = picture if config.image_channels == 3 else g.op("Concat", *3 * [picture], axis=1)
    maps, halved = (_backbone(g, config.backbone, one) for one in (colour, g.averaged(colour, 2)))
    features = backbone.channels(config.backbone)
    fine = g.op("Concat", maps[0], g.enlarged(maps[1], 2), axis=1)
    found = [
        _gaussian(g, "fine", fine, features[:2]),
        _gaussian(g, "coarse", _whole(g, halved), features),
    ]
    return [*found, _head(g, _whole(g, maps))] if config.head_iterations else found


def _backbone(g: Builder, name: str, colour: Value) -> list[Value]:
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (backbone.MEAN, backbone.STD))
    x = g.op("Mul", g.op("Sub", colour, g.constant(mean)), g.constant(1 / std))
    x = _unit(g, x, "general.backbone.stem", 3, 2)
    last: dict[int, Value] = {}  # of each stage
    for stage, number, inputs, outputs, expansion, kernel, stride in backbone.blocks(name):
        body, part, y = f"general.backbone.stages.{stage}.{number}.body", 0, x
        if expansion > 1:
            y, part = _unit(g, y, f"{body}.0", 1, 1), 1
        y = _unit(g, y, f"{body}.{part}", kernel, stride, groups=inputs * expansion)
        y = _unit(g, y, f"{body}.{part + 1}", 1, 1, acts=False)
        x = last[stage] = g.op("Add", y, x) if stride == 1 and inputs == outputs else y
    return [last[stage] for stage in backbone.GIVEN]


def _unit(
    g: Builder, x: Value, name: str, kernel: int, stride: int, *, groups: int = 1, acts: bool = True
) -> Value:
    before = kernel // 2 if stride == 1 else (kernel - stride) // 2
    after = kernel - stride - before
    weight, bias = g.weight(f"{name}.conv.weight"), g.alone(g.weight(f"{name}.conv.bias"))
    around = [before, before, after, after]
    x = g.op("Conv", x, weight, bias, strides=[stride] * 2, pads=around, group=groups)
    return g.clipped(x, 0.0, 6.0) if acts else x


def _whole(g: Builder, maps: list[Value]) -> Value:
    return g.op("Concat", g.averaged(maps[0], 2), maps[1], g.enlarged(maps[2], 2), axis=1)


def _gaussian(g: Builder, name: str, features: Value, channels: tuple[int, ...]) -> Value:
    """Mahalanobis distance, as `fmrnet.network.general.Gaussian`.

    Squares are summed by a convolution: onnxruntime takes three times longer to reduce over channels.
    """
    rows = g.op("Sub", features, g.channels(f"general.{name}.mean"))
    whitening = g.op("Transpose", g.weight(f"general.{name}.whitening"), perm=[1, 0])
    scores = g.op("Conv", rows, g.raised(whitening, 2, 3))
    ones = g.constant(np.ones((1, sum(channels), 1, 1)))
    return g.op("Sqrt", g.op("Conv", g.op("Mul", scores, scores), ones))


def _head(g: Builder, features: Value) -> Value:
    x = g.activated(g.convolved(g.normed(features, "general.head.scale"), "general.head.narrow", bias=True))
    x = g.convolved(g.edged(x, 1), "general.head.around", bias=True)
    return g.convolved(g.activated(g.normed(x, "general.head.norm")), "general.head.output", bias=True)


def _cells(g: Builder, pixels: Value, cell: int) -> Value:
    """As `fmrnet.network.general.cells_of`."""
    return g.op("GreaterOrEqual", g.averaged(pixels, cell), g.constant(0.5))


def _beyond(g: Builder, witness: int, values: Value, usual: Value, cell: int) -> Value:
    """As `fmrnet.network.general.beyond`, of values (1, 1, h, w) and what is usual, (1, witnesses, H / 4, W / 4)."""
    there = g.cut(usual, [witness], [witness + 1], [1])
    if cell > PLACE:
        there = g.averaged(there, cell // PLACE)
    elif cell < PLACE:
        there = g.enlarged(there, PLACE // cell)
    return g.op("Div" if witness < GAUSSIANS else "Sub", values, there)


def _surprise(g: Builder, witness: int, values: Value) -> Value:
    """As `fmrnet.network.general.Surprise`, of values of any shape."""
    shape, values = g.op("Shape", values), g.reshaped(values, -1)
    number = g.constant(witness, np.int64)
    levels, rate = (
        g.op("Gather", g.weight(f"general.surprise.{part}"), number) for part in ("levels", "rate")
    )
    count, step = None, LEVELS // 2
    while step:  # how many of the levels lie below each value; ONNX has no search
        seen = g.cut(levels, [step - 1], [0], [0])
        low = g.cut(seen, [0], [1], [0]) if count is None else g.op("GatherElements", seen, count)
        here = g.op("Where", g.op("Less", low, values), g.constant(step, np.int32), g.constant(0, np.int32))
        count = here if count is None else g.op("Add", count, here)
        step //= 2
    assert count is not None
    above = g.op("Max", count, g.constant(1, np.int32))  # no more than LEVELS - 1 are ever counted
    before = g.op("Sub", above, g.constant(1, np.int32))
    low = g.op("GatherElements", levels, before)
    apart = g.op("Sub", g.op("GatherElements", levels, above), low)
    part = g.op("Div", g.op("Sub", values, low), g.clipped(apart, 1e-30, None))
    part = g.clipped(g.op("Where", g.op("Greater", apart, g.constant(0)), part, g.constant(0)), 0.0, 1.0)
    rank = g.op("Add", g.op("Cast", before, to=ir.DataType.FLOAT), part)
    share = g.mapped(g.op("Log", g.mapped(rank, -TAIL / (LEVELS - 1), 1.0)), -1 / math.log(10))
    last = g.cut(levels, [LEVELS - 1], [0], [0])
    fall = g.mapped(rate, math.log(10))
    beyond = g.mapped(g.op("Div", g.op("Sub", values, last), fall), 1.0, -math.log10(1 - TAIL))
    return g.op("Reshape", g.op("Where", g.op("Greater", values, last), beyond, share), shape)


def _alarms(g: Builder, config: Config, values: Value, cell: int = 1) -> Value:
    """`fmrnet.engines.background.patch_alarms` of (1, 1, H, W): (1, rows, columns).

    A patch is four blocks, and its greatest values are among the greatest of each.
    """
    count = max(1, ALARM_PIXELS // cell**2)
    blocks = _blocks(g, config, values, cell)
    most = min(count, (config.patch_size // 2 // cell) ** 2)
    patches = g.op("Concat", *_quarters(g, g.greatest(blocks, g.integers([most]), 3)), axis=3)
    return g.mean(g.greatest(patches, g.integers([count]), 3), 3, keep=False)


def _means(g: Builder, config: Config, values: Value, cell: int) -> Value:
    """`fmrnet.engines.background.patch_means`, likewise."""
    blocks = g.mean(_blocks(g, config, values, cell), 3)
    return g.flat(g.mapped(g.op("Sum", *_quarters(g, blocks)), 1 / 4), 3)


def _blocks(g: Builder, config: Config, values: Value, cell: int) -> Value:
    """The values of blocks half a patch wide, (1, rows, columns, values)."""
    side = config.patch_size // 2
    if config.multiple % side:  # filled up with 0 to whole patches
        height, width = (
            g.op(
                "Mod",
                g.op("Neg", g.cut(g.op("Shape", values), [axis], [axis + 1], [0])),
                g.integers([side // cell]),
            )
            for axis in (2, 3)
        )
        values = g.op("Pad", values, g.op("Concat", g.integers([0] * 6), height, width, axis=0))
    blocks = g.op("SpaceToDepth", values, blocksize=side // cell) if side > cell else values
    return g.op("Transpose", blocks, perm=[0, 2, 3, 1])


def _quarters(g: Builder, blocks: Value) -> Iterator[Value]:
    """The four blocks of each patch."""
    for i, j in product(range(2), repeat=2):
        yield g.cut(blocks, [i, j], [i - 1, j - 1], [1, 2])


def _median(g: Builder, values: Value, counts: Value) -> Value:
    """The middle one, or the mean of the middle two, of the values that count; infinity if none does."""
    every = g.reshaped(g.op("Where", counts, values, g.constant(np.inf)), -1)
    number = g.op("ReduceSum", g.op("Cast", g.reshaped(counts, -1), to=ir.DataType.INT64), g.integers([0]))
    low = g.op("Div", g.op("Max", g.op("Sub", number, g.integers([1])), g.integers([0])), g.integers([2]))
    high = g.op("Div", number, g.integers([2]))
    ordered = g.ordered(every)
    return g.mean(g.op("Gather", ordered, g.op("Concat", low, high, axis=0)), 0, keep=False)


# The generator: a picture as it would look without defects.


def _restore(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    maps = _encoded(g, given["picture"])
    side, step = _window(config, 32)
    z = g.op("Transpose", g.windows(g.last(maps[4]), side, step), perm=[0, 1, 3, 2])
    restored = _recalled(g, g.reshaped(z, 0, 0, config.latent_size))
    restored = g.reshaped(restored, 0, 0, config.channels[4], side**2)
    x = g.joined(g.op("Transpose", restored, perm=[0, 1, 3, 2]), side, step, config.channels[4])
    return (_decoded(g, x, lambda level, x: _rearranged(g, config, level, maps[3 - level], x)),)


def _restore_patches(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    """From the encoder's maps of patches that were cut beforehand, each its own window."""
    deepest, *skips = (given[name] for name in MAPS)
    restored = _recalled(g, g.reshaped(deepest, 0, config.latent_size))
    side, _ = _window(config, 32)
    x = g.reshaped(restored, -1, config.channels[4], side, side)
    return (_decoded(g, x, lambda level, x: _rearranged_patches(g, config, level, skips[level], x)),)


def _distances(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    """The early exit without general features: distances of patches to memory, (N,), and the encoder's maps."""
    maps = _encoded(g, given["patches"])
    z = g.reshaped(maps[4], 0, config.latent_size)
    memory = g.weight("memory")
    centre = g.mean(memory, 0)  # distances do not change; the products shrink, and with them their rounding
    centred = g.op("Sub", memory, centre)
    norms = g.op("ReduceSumSquare", centred, g.integers([1]), keepdims=0)
    products = g.op("MatMul", g.op("Sub", z, centre), g.op("Transpose", centred, perm=[1, 0]))
    nearest = g.op("ArgMin", g.op("Add", norms, g.mapped(products, -2.0)), axis=1, keepdims=0)
    apart = g.op("Sub", z, g.op("Gather", memory, nearest))
    return g.op("ReduceL2", apart, g.integers([1]), keepdims=0), maps[4], maps[3], maps[2]


def _encoded(g: Builder, picture: Value) -> list[Value]:
    """The encoder's five maps."""
    x = g.op("Div", g.op("Sub", picture, g.channels("mean")), g.channels("std"))
    maps = []
    for number in range(5):
        x = g.convolved(x, f"encoder.{number}.conv", strides=[2, 2], pads=[1, 1, 1, 1])
        x = g.activated(g.normed(x, f"encoder.{number}.norm"))
        maps.append(x)
    return maps


def _decoded(g: Builder, x: Value, rearranged: Callable[[int, Value], Value]) -> Value:
    """The decoder's pictures in [0, 1], from its first map; `rearranged` rebuilds the skip of a level."""
    for level in range(4):
        x = _doubled(g, x, f"decoder.{level}")
        if level < 2:
            x = g.op("Concat", x, rearranged(level, x), axis=1)
    weights = (g.weight(f"output.{part}") for part in ("weight", "bias"))
    x = g.op("ConvTranspose", x, *weights, strides=[2, 2], pads=[1, 1, 1, 1])
    return g.clipped(g.op("Add", g.op("Mul", x, g.channels("std")), g.channels("mean")), 0.0, 1.0)


def _doubled(g: Builder, x: Value, name: str) -> Value:
    """A block of the decoder. Its transposed convolution is four small ones, one for each pixel of 2 x 2.

    Runtimes are several times faster so.
    """
    phases = []
    for i, j in product(range(2), repeat=2):
        weight = g.weight(f"{name}.conv.weight")
        for axis, phase in ((2, i), (3, j)):
            weight = g.op("Gather", weight, g.integers([[3, 1], [2, 0]][phase]), axis=axis)
        taps = g.op("Transpose", weight, perm=[1, 0, 2, 3])
        pixel = g.op("Conv", x, taps, kernel_shape=[2, 2], pads=[1 - i, 1 - j, i, j])
        phases.append(g.activated(g.normed(pixel, f"{name}.norm")))
    return g.op("DepthToSpace", g.op("Concat", *phases, axis=1), blocksize=2)


def _window(config: Config, scale: int) -> tuple[int, int]:
    return config.patch_size // scale, config.stride // scale


def _recalled(g: Builder, x: Value) -> Value:
    """Eq 4 and 5 of latents, (..., K)."""
    for layer in ("hidden", "output"):
        weight = g.op("Transpose", g.weight(f"addressing.{layer}.weight"), perm=[1, 0])
        x = g.op("Add", g.op("MatMul", x, weight), g.weight(f"addressing.{layer}.bias"))
        x = g.activated(x) if layer == "hidden" else g.op("Softmax", x, axis=-1)
    return g.op("MatMul", x, g.weight("memory"))


def _rearranged(g: Builder, config: Config, level: int, skip: Value, features: Value) -> Value:
    """Eq 6 to 9 in every window, whose textons are those of the whole map: (1, C, h, w).

    Products are divided by the textons' lengths afterwards: so the features are cut into windows once.
    """
    if not config.rearrange:
        return skip
    size = config.texton_size
    side, step = (length // size for length in _window(config, 16 // 2**level))
    places, textons = (
        g.last(g.op("SpaceToDepth", x, blocksize=size) if size > 1 else x) for x in (skip, features)
    )
    skips, rows = (g.windows(x, side, step) for x in (places, textons))
    across, along = (
        g.windows(g.clipped(g.op("ReduceL2", x, g.integers([2]), keepdims=1), 1e-12, None), side, step)
        for x in (places, textons)
    )
    turn = [0, 1, 3, 2]
    products = g.op("MatMul", skips, g.op("Transpose", rows, perm=turn))
    cosine = g.op("Div", g.op("Div", products, across), g.op("Transpose", along, perm=turn))
    s = _similarities(g, config, level, cosine, side)
    depth = size**2 * config.channels[3 - level]
    found = g.joined(g.op("MatMul", s, rows), side, step, depth)
    return g.op("DepthToSpace", found, blocksize=size) if size > 1 else found


def _rearranged_patches(g: Builder, config: Config, level: int, skip: Value, features: Value) -> Value:
    """The same in patches, (N, C, side, side)."""
    if not config.rearrange:
        return skip
    size = config.texton_size
    side = _window(config, 16 // 2**level)[0] // size
    depth = size**2 * config.channels[3 - level]
    places, textons = (  # (N, D, side^2)
        g.reshaped(g.op("SpaceToDepth", x, blocksize=size) if size > 1 else x, 0, depth, side**2)
        for x in (skip, features)
    )
    skips, likes = (
        g.op("Div", x, g.clipped(g.op("ReduceL2", x, g.integers([1]), keepdims=1), 1e-12, None))
        for x in (places, textons)
    )
    cosine = g.op("MatMul", g.op("Transpose", skips, perm=[0, 2, 1]), likes)
    s = _similarities(g, config, level, cosine, side)
    found = g.reshaped(g.op("MatMul", textons, g.op("Transpose", s, perm=[0, 2, 1])), 0, depth, side, side)
    return g.op("DepthToSpace", found, blocksize=size) if size > 1 else found


def _similarities(g: Builder, config: Config, level: int, cosine: Value, side: int) -> Value:
    """Softmax over the textons, then the convolution over the places: (..., places, textons)."""
    s = g.op("Softmax", g.mapped(cosine, 1 / config.temperature), axis=-1)
    if config.mixing == "none":
        return s
    mixing = g.op("MatMul", g.reshaped(g.weight(f"mixing.{level}"), 1, 9), g.constant(neighbours(side)))
    return g.op("MatMul", g.reshaped(mixing, side**2, side**2), s)


# The learned fusion, and what all witnesses say together.


def _fuse(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    if not config.general:
        return _own_map(g, config, given)
    surprise = g.raised(given["surprise"], 0, 1)
    if not config.generator:
        return (
            _logistic(g, given["surprise"]),
            g.op("Identity", given["surprise"]),
            g.op("Identity", g.constant([])),
        )
    scores = _standard_scores(g, config, given["picture"], given["background"])
    first = 3 if config.head_iterations else 2
    inside, usual = g.raised(given["inside"], 0, 1), g.raised(given["usual"], 0)
    mapped, alarms = (
        _surprise(g, first + number, _beyond(g, first + number, values, usual, 1))
        for number, values in enumerate(_own(g, *scores))
    )
    mapped, alarms = (g.op("Mul", one, inside) for one in (mapped, alarms))
    found = g.flat(g.op("Add", surprise, mapped), 0, 1)
    readings = [_alarms(g, config, one) for one in (g.op("Add", surprise, alarms), alarms)]
    return _logistic(g, found), found, g.op("Concat", *readings, axis=0)


def _own_map(g: Builder, config: Config, given: dict[str, Value]) -> tuple[Value, ...]:
    """Without general features: what the learned fusion says, or the product of Eq 23."""
    picture, background = given["picture"], given["background"]
    if config.learned_fusion:
        found, alarms = _own(g, *_standard_scores(g, config, picture, background))
        mapped = g.op("Sigmoid", g.mapped(found, 1.0, -learned_fusion.HALF))
    else:
        difference = g.op("Sub", picture, background)
        residual = g.op("Sqrt", _over_channels(g, config, g.op("Mul", difference, difference)))
        maps = [_gms(g, config, picture, background), _ssim(g, config, picture, background), residual]
        gms, ssim, rest = (_median_filtered(g, one, config.median) for one in maps)
        alarms = g.op("Mul", g.op("Mul", gms, ssim), rest)
        found = mapped = alarms
    readings = _alarms(g, config, g.op("Mul", alarms, g.raised(given["inside"], 0, 1)))
    return g.flat(mapped, 0, 1), g.flat(g.op("Identity", found), 0, 1), readings


def _median_filtered(g: Builder, values: Value, window: int) -> Value:
    """The median over `window` x `window` pixels, borders mirrored: (1, 1, H, W)."""
    if window < 2:
        return values
    for axis in (2, 3):
        values = g.mirrored(values, window // 2, axis)
    shifted = [
        g.cut(values, [i, j], [i + 1 - window, j + 1 - window], [2, 3])
        for i, j in product(range(window), repeat=2)
    ]
    upper = g.greatest(g.op("Concat", *shifted, axis=1), g.integers([window**2 // 2 + 1]), 1)
    return g.op("ReduceMin", upper, g.integers([1]), keepdims=1)


def _logistic(g: Builder, found: Value) -> Value:
    return g.op("Sigmoid", g.mapped(found, 1 / BREADTH, -HALF / BREADTH))


def _own(g: Builder, logit: Value, around: Value, energy: Value) -> tuple[Value, Value]:
    """`fmrnet.network.learned_fusion.beyond_good` and `alarm`."""
    near = g.mapped(around, learned_fusion.NEIGHBOURHOOD_SHARE)

    def mean(answer: Value, share: float) -> Value:
        return g.op("Add", g.mapped(g.op("Max", answer, near), share), g.mapped(energy, 1 - share))

    halo = g.mapped(g.op("Relu", around), learned_fusion.AROUND_SHARE)
    lone = g.op("Sub", logit, halo)
    return mean(logit, learned_fusion.ANSWER_SHARE), g.op("Relu", mean(lone, learned_fusion.ALARM_SHARE))


def _standard_scores(g: Builder, config: Config, picture: Value, background: Value) -> Iterator[Value]:
    """Logit, logit of the neighbourhood and energy of each pixel in standard deviations, (1, 1, H, W) each."""
    unlit = _without_light(g, config, picture, background)
    inputs, energy = _fusion_inputs(g, config, unlit, background)
    logit = _answers(g, inputs, 4 * config.image_channels + 3)
    around = _broadly_blurred(
        g, logit, 1, learned_fusion.NEIGHBOURHOOD_SIGMA, learned_fusion.NEIGHBOURHOOD_RADIUS
    )
    for number, values in enumerate((logit, around, energy)):
        mean, std = (
            g.cut(g.weight(f"fusion.good_{part}"), [number], [number + 1], [0]) for part in ("mean", "std")
        )
        yield g.op("Div", g.op("Sub", values, mean), std)


def _without_light(g: Builder, config: Config, picture: Value, background: Value) -> Value:
    scale = g.channels("std")
    residual = g.op("Div", g.op("Sub", picture, background), scale)
    slow = _broadly_blurred(g, residual, config.image_channels, LIGHT_SIGMA, LIGHT_RADIUS)
    light = g.op("Mul", g.op("Sub", slow, g.clipped(slow, -LIGHT_LEAST, LIGHT_LEAST)), scale)
    return g.clipped(g.op("Sub", picture, light), 0.0, 1.0)


def _broadly_blurred(g: Builder, x: Value, count: int, sigma: float, radius: int) -> Value:
    return g.enlarged(g.blurred(g.averaged(x, CELL), count, gaussian(sigma, 2 * radius + 1)), CELL)


def _fusion_inputs(g: Builder, config: Config, x: Value, y: Value) -> tuple[Value, Value]:
    """As `fmrnet.fast.fusion_inputs`."""
    channels = config.image_channels
    centre, scale, deviation = g.channels("mean"), g.channels("std"), g.mean(g.weight("std"), 0)
    difference = g.op("Sub", x, y)
    square = _over_channels(g, config, g.op("Mul", difference, difference))
    energy = g.clipped(g.op("Div", square, g.op("Mul", deviation, deviation)), None, 1.0)
    together = g.op("Concat", y, difference, energy, axis=1)
    blurred = g.blurred(together, 2 * channels + 1, gaussian(BLUR_SIGMA, 2 * BLUR_RADIUS + 1))
    ends = [channels, 2 * channels, 0]
    behind, rest, energy = (
        g.cut(blurred, [start], [end], [1]) for start, end in zip((0, channels, 2 * channels), ends)
    )
    inputs = [
        g.op("Div", g.op("Sub", x, behind), scale),
        g.op("Div", g.op("Sub", g.op("Add", behind, rest), centre), scale),
        g.op("Div", difference, scale),
        g.op("Div", rest, scale),
        _gms(g, config, x, y),
        _ssim(g, config, x, y),
        g.op("Div", g.op("Sqrt", square), deviation),
    ]
    logarithm = g.op("Log", g.mapped(g.op("Relu", energy), 1.0, FLOOR))
    return g.op("Concat", *inputs, axis=1), g.mapped(logarithm, 0.5)


def _gms(g: Builder, config: Config, x: Value, y: Value) -> Value:
    """1 - GMS, Eq 17 to 19."""
    channels = config.image_channels
    flat, step = np.ones(3) / 3, np.array([-1, 0, 1])
    both = g.edged(g.op("Concat", x, y, axis=1), 1)
    squares = []
    for kernel in (np.outer(flat, step), np.outer(step, flat)):
        taps = g.constant(np.tile(kernel, (2 * channels, 1, 1, 1)))
        change = g.op("Conv", both, taps, group=2 * channels)
        squares.append(g.op("Mul", change, change))
    square = g.op("Add", *squares)
    root = g.op("Sqrt", square)
    (one, other), (first, second) = (
        [g.cut(values, [start], [end], [1]) for start, end in ((0, channels), (channels, 0))]
        for values in (square, root)
    )
    apart = g.op("Sub", first, second)
    total = g.mapped(g.op("Add", one, other), 1.0, C0)
    return _over_channels(g, config, g.op("Div", g.op("Mul", apart, apart), total))


def _ssim(g: Builder, config: Config, x: Value, y: Value) -> Value:
    """1 - SSIM, Eq 20 and 21, from sum and difference."""
    channels = config.image_channels
    parts = [g.op("Add", x, y), g.op("Sub", x, y)]
    shifts = [g.mean(part, 2, 3) for part in parts]
    moved = [g.op("Sub", part, shift) for part, shift in zip(parts, shifts)]
    every = g.op("Concat", *moved, *(g.op("Mul", part, part) for part in moved), axis=1)
    blurred = g.blurred(every, 4 * channels, gaussian(SIGMA, WINDOW))
    means = [g.cut(blurred, [i * channels], [(i + 1) * channels], [1]) for i in range(2)]
    variances = [
        g.op(
            "Relu",
            g.op("Sub", g.cut(blurred, [(i + 2) * channels], [(i + 3) * channels], [1]), g.op("Mul", m, m)),
        )
        for i, m in enumerate(means)
    ]
    levels = [g.op("Add", mean, shift) for mean, shift in zip(means, shifts)]
    mu_s, mu_d = (g.op("Mul", level, level) for level in levels)
    var_s, var_d = variances
    k = g.mapped(g.op("Add", mu_s, mu_d), 1.0, 2 * C1)
    apart = g.op("Mul", g.mapped(g.op("Sub", var_s, var_d), 1.0, 2 * C2), mu_d)
    above = g.mapped(g.op("Add", g.op("Mul", k, var_d), apart), 2.0)
    below = g.op("Mul", k, g.mapped(g.op("Add", var_s, var_d), 1.0, 2 * C2))
    return _over_channels(g, config, g.op("Div", above, below))


def _over_channels(g: Builder, config: Config, x: Value) -> Value:
    """The mean over the picture's channels, (1, 1, H, W)."""
    return x if config.image_channels == 1 else g.mean(x, 1)


def _answers(g: Builder, inputs: Value, count: int) -> Value:
    """The small U-Net's logit of each pixel, (1, 1, H, W)."""
    fold = learned_fusion.FOLD
    fine = learned_fusion.WIDTHS[0]
    # A block's pixels come first in ONNX, its channels in PyTorch.
    stem = g.reshaped(g.weight("fusion.stem.conv.weight"), fine, count, fold**2, 3, 3)
    stem = g.reshaped(g.op("Transpose", stem, perm=[0, 2, 1, 3, 4]), fine, fold**2 * count, 3, 3)
    x = g.op("Conv", g.edged(g.op("SpaceToDepth", inputs, blocksize=fold), 1), stem)
    x = g.activated(g.normed(x, "fusion.stem.norm"))
    maps = [x]
    for number, (strides, dilations) in enumerate((((2, 1), (1, 1)), ((2, 1, 1), (1, 1, 2)))):
        for part, (stride, dilation) in enumerate(zip(strides, dilations)):
            x = _block(g, x, f"fusion.down.{number}.{part}", stride, dilation)
        maps.append(x)
    x = maps.pop()
    for number in range(2):
        narrow = g.enlarged(g.convolved(x, f"fusion.up.{number}"), 2, "nearest")
        x = _block(g, g.op("Add", maps.pop(), narrow), f"fusion.refine.{number}")
    x = g.convolved(g.edged(x, 1), "fusion.output", bias=True)
    return g.op("DepthToSpace", x, blocksize=fold, mode="CRD")


def _block(g: Builder, x: Value, name: str, stride: int = 1, dilation: int = 1) -> Value:
    x = g.convolved(g.edged(x, dilation), f"{name}.conv", strides=[stride] * 2, dilations=[dilation] * 2)
    return g.activated(g.normed(x, f"{name}.norm"))
