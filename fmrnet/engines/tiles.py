"""Large pictures in tiles, and the pixel level on suspect windows alone.

A picture of more than PIXELS passes in tiles that overlap, so that what an engine takes is bounded. Tiles begin where
cells of the network and patches begin, and what each says of its core is kept. The core lies so far from where its
tile was cut that hardly anything of the cut is felt there (bench/results/panels.json); 352 pixels away, with patches
of 64, all but rounding is gone. The typical distance is the median of the tiles', by their size.

What has been seen of a picture can be compared in parts, for the witnesses on general features have seen it already:
only what generator and fusion see is to be laid around them, which is less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmrnet import large
from fmrnet.config import Config
from fmrnet.engines.engine import Engine, Found, InParts, Part, Seen, patches, readings_of, unpainted

__all__ = ["PIXELS", "Box", "compare", "glance", "restore"]

PIXELS = (
    10 * 2**20
)  # that pass at once, such as a panel of 2560 x 3840; an engine takes up to 400 bytes for each
FEWER = {"openvino": 2**22}  # of an engine that takes a thousand
LARGE_GLANCED = 2**21  # the same of a picture too large for memory, for the early exit
LARGE_COMPARED = 5 * 2**18  # and for the pixel level
SEEN = 256  # pixels around a core, and a patch more, for the early exit
PAINTED = 128  # the same for the pixel level
AROUND = 64  # the same for a suspect window
PARTS = 0.5  # of a picture that is compared in parts; if they are more, the whole is

Box = tuple[slice, slice]  # rows and columns of a picture as it is filled up


@dataclass(frozen=True)
class _InTiles:
    """What is kept of a picture that was seen in tiles.

    Attributes
    ----------
    surprise : (H', W') float32, or None
        Of the witnesses on general features, if the model has them, on the picture as it is filled up.
    """

    surprise: NDArray[np.float32] | None


def glance(engine: Engine, picture: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Seen:
    """As `Engine.glance`, in tiles if the picture is large and has no mask; raises as `fmrnet.large.empty`, too."""
    if picture[0].size <= _pixels(engine) or inside is not None or not isinstance(engine, InParts):
        return engine.glance(picture, inside)
    config, around = engine.config, SEEN + engine.config.patch_size
    size, step = _filled(picture, config), config.patch_size // 2 if config.general else config.stride
    readings: _Readings | None = None
    surprise = large.empty(size, np.float32) if config.general else None
    typical = []
    for core, box in _tiles(picture, engine, around, LARGE_GLANCED):
        seen = engine.glance(np.ascontiguousarray(picture[:, *box]), None, _where(picture, None, box))
        readings = readings or _Readings(len(seen.readings), size, config.patch_size, step)
        readings.place(seen.readings, core, box)
        typical.append((seen.typical, _area(core)))
        if surprise is not None:
            surprise[core] = engine.surprise(seen)[_from(box, core)]
    assert readings is not None
    _end(engine, picture)
    return Seen(picture, readings.values, _middle(typical), _InTiles(surprise))


def compare(engine: Engine, seen: Seen, suspect: Sequence[Box] | None = None) -> Found:
    """As `Engine.compare`, in tiles if the picture was seen in tiles.

    Parameters
    ----------
    engine : Engine
    seen : Seen
        What `glance` gave.
    suspect : sequence of Box, optional
        The windows that are held against their background, where the model has general features and a generator.
        Elsewhere the picture is its own background, and the map tells what the early exit knows. Default: all of it.
    """
    config: Config = engine.config
    if not isinstance(seen.kept, _InTiles):
        if suspect is not None and config.general and config.generator and isinstance(engine, InParts):
            return _in_parts(engine, seen, suspect)
        return engine.compare(seen)
    assert isinstance(engine, InParts)
    channels, height, width = seen.picture.shape
    anomaly_map, evidence = (large.empty((height, width), np.float32) for _ in range(2))
    background = large.empty((channels, height, width), np.float32) if config.generator else None
    readings: _Readings | None = None
    for core, box in _tiles(seen.picture, engine, PAINTED + config.patch_size, LARGE_COMPARED):
        within = None if suspect is None else [_from(box, one) for one in suspect if _meet(one, box)]
        found = compare(engine, _part(engine, seen, seen.kept.surprise, box), within)
        there = _from(box, core)
        anomaly_map[core], evidence[core] = found.anomaly_map[there], found.evidence[there]
        if background is not None and found.background is not None:
            background[:, *core] = found.background[:, *there]
        readings = readings or _of_pixels(len(found.readings), seen, config)
        readings.place(found.readings, core, box)
    assert readings is not None
    _end(engine, seen.picture)
    return Found(anomaly_map, evidence, readings.values, background)


def restore(engine: Engine, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `Engine.restore`, in tiles if the picture is large."""
    if picture[0].size <= _pixels(engine):
        return engine.restore(picture)
    config, restored = engine.config, large.empty(picture.shape, np.float32)
    for core, box in _tiles(picture, engine, PAINTED + config.patch_size, LARGE_COMPARED):
        painted = engine.restore(np.ascontiguousarray(picture[:, *box]))
        restored[:, *core] = painted[:, *_from(box, core)]
    return restored


def _end(engine: InParts, picture: NDArray[np.float32]) -> None:
    """After the tiles of a picture too large for memory what follows is to have the room that they took."""
    if large.is_large(picture):
        engine.give_back()


def _part(engine: InParts, seen: Seen, surprise: NDArray[np.float32] | None, box: Box) -> Seen:
    """What has been seen of a part of a picture, in whole cells of it as it is filled up."""
    return engine.recalled(
        np.ascontiguousarray(seen.picture[:, *box]),
        readings_of(engine.config, seen.readings, *box),
        seen.typical,
        None if surprise is None else surprise[box],
        None if seen.inside is None else seen.inside[box],
        _where(seen.picture, seen.part, box),
    )


def _where(picture: NDArray[np.float32], part: Part | None, box: Box) -> Part:
    """Where a box of a picture lies, which may be a part of another one itself."""
    part = part or Part((picture.shape[1], picture.shape[2]), (0, 0))
    return Part(part.size, (part.corner[0] + box[0].start, part.corner[1] + box[1].start))


class _Readings:
    """The readings of a picture, (count, rows, columns), put together from those of its parts."""

    def __init__(self, count: int, size: tuple[int, int], side: int, step: int) -> None:
        self._size, self._side, self._step = size, side, step
        self.values = np.zeros((count, *(patches(length, side, step) for length in size)), np.float32)

    def place(self, found: NDArray[np.float32], core: Box, box: Box) -> None:
        """Keep, of what was found in a box, what is said of the patches that begin in its core."""
        here, there = [], []
        for inner, outer, length in zip(core, box, self._size):
            start, shift = inner.start // self._step, outer.start // self._step
            stop = None if inner.stop >= length else inner.stop // self._step
            here.append(slice(start, stop))
            there.append(slice(start - shift, None if stop is None else stop - shift))
        self.values[:, *here] = found[:, *there]


def _of_pixels(count: int, seen: Seen, config: Config) -> _Readings:
    return _Readings(count, _filled(seen.picture, config), config.patch_size, config.patch_size // 2)


def _in_parts(engine: InParts, seen: Seen, suspect: Sequence[Box]) -> Found:
    """The pixel level of suspect windows alone; of all, if they are many."""
    config = engine.config
    size, cell, around = _filled(seen.picture, config), _cell(config), AROUND + config.patch_size
    windows = [_around(one, size, cell, config.patch_size // 2) for one in suspect]
    cores = _joined(windows, size, cell, around)
    boxes = [_around(core, size, cell, around) for core in cores]
    if sum(_area(box) for box in boxes) > PARTS * size[0] * size[1]:
        return engine.compare(seen)
    _, height, width = seen.picture.shape
    surprise = engine.surprise(seen)
    found = unpainted(config, seen, surprise[:height, :width])
    for core, box in zip(cores, boxes, strict=True):
        part = engine.compare(_part(engine, seen, surprise, box))
        there = _from(box, core)
        found.anomaly_map[core], found.evidence[core] = part.anomaly_map[there], part.evidence[there]
        assert found.background is not None
        assert part.background is not None
        found.background[:, *core] = part.background[:, *there]
        _place_inner(found.readings, part.readings, core, box, config.patch_size)
    return found


def _place_inner(
    readings: NDArray[np.float32], found: NDArray[np.float32], core: Box, box: Box, side: int
) -> None:
    """Put what was found in a box into the readings of a picture, of the patches that lie in its core."""
    step = side // 2
    here, there = [], []
    for inner, outer, count in zip(core, box, readings.shape[1:], strict=True):
        start, shift = inner.start // step, outer.start // step
        stop = min(start + patches(inner.stop - inner.start, side, step), count)
        here.append(slice(start, stop))
        there.append(slice(start - shift, stop - shift))
    readings[:, *here] = found[:, *there]


def _joined(windows: Sequence[Box], size: tuple[int, int], cell: int, around: int) -> list[Box]:
    """The least rectangles that hold windows, so many that what lies around them does not meet."""
    from scipy.ndimage import label

    held = list(windows)
    while True:
        taken = np.zeros([-(-length // cell) for length in size], np.bool_)
        cells = [
            tuple(
                slice(side.start // cell, -(-side.stop // cell)) for side in _around(one, size, cell, around)
            )
            for one in held
        ]
        for place in cells:
            taken[place] = True
        labels, _ = label(taken, np.ones((3, 3)))
        groups: dict[int, list[Box]] = {}
        for one, (rows, columns) in zip(held, cells, strict=True):
            groups.setdefault(int(labels[rows.start, columns.start]), []).append(one)
        if len(groups) == len(held):
            return held
        held = [_bounds(group) for group in groups.values()]


def _bounds(boxes: Sequence[Box]) -> Box:
    rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1)
    )
    return rows, columns


def _filled(picture: NDArray[np.float32], config: Config) -> tuple[int, int]:
    """Height and width of a picture as it is filled up."""
    height, width = (side + -side % config.multiple for side in picture.shape[1:])
    return height, width


def _cell(config: Config) -> int:
    """Pixels between places where a picture may be cut: whole cells of the network's, and whole steps of patches."""
    return math.lcm(config.multiple, config.patch_size // 2, config.stride)


def _pixels(engine: Engine) -> int:
    """How many pixels of a picture pass at once, if it is not too large for memory."""
    return min(FEWER.get(engine.name.partition(" ")[0], PIXELS), PIXELS)


def _tiles(
    picture: NDArray[np.float32], engine: Engine, around: int, pixels: int
) -> Iterator[tuple[Box, Box]]:
    """The cores of a picture and their tiles; those of one too large for memory have at most so many pixels."""
    size, cell = _filled(picture, engine.config), _cell(engine.config)
    cores = list(_cores(size, cell, around, pixels if large.is_large(picture) else _pixels(engine)))
    boxes = [_around(core, size, cell, around) for core in cores]
    return zip(cores, _evened(boxes, size, cell), strict=True)


def _evened(boxes: Sequence[Box], size: tuple[int, int], cell: int) -> list[Box]:
    """Tiles all as large as the largest, but for a part of a cell: runtimes keep memory for every size they meet."""
    sides = [max(box[axis].stop - box[axis].start for box in boxes) for axis in (0, 1)]

    def evened(side: slice, most: int, length: int) -> slice:
        start = max(min(side.start, (length - most) // cell * cell), 0)
        return slice(start, max(side.stop, min(start + most, length)))

    return [(evened(rows, sides[0], size[0]), evened(columns, sides[1], size[1])) for rows, columns in boxes]


def _cores(size: tuple[int, int], cell: int, around: int, pixels: int) -> Iterator[Box]:
    """A picture in parts, in rows and columns, so that all of it with what is around them is the least to compute.

    A part has at most so many pixels with what is around it, or is a single cell.
    """
    most, around = [-(-length // cell) for length in size], -(-around // cell) * cell
    least, sides = math.inf, (cell, cell)
    for rows in range(1, most[0] + 1):
        side = -(-most[0] // rows) * cell
        high = min(side + 2 * around, size[0])
        room = pixels // high
        across = size[1] if room >= size[1] else (room - 2 * around) // cell * cell
        if across < cell:
            continue
        columns = -(-size[1] // across)
        across = -(-most[1] // columns) * cell
        total = (size[0] + 2 * around * (rows - 1)) * (size[1] + 2 * around * (columns - 1))
        if total < least:
            least, sides = total, (side, across)
    for row in range(0, size[0], sides[0]):
        for column in range(0, size[1], sides[1]):
            yield (
                slice(row, min(row + sides[0], size[0])),
                slice(column, min(column + sides[1], size[1])),
            )


def _around(core: Box, size: tuple[int, int], cell: int, around: int) -> Box:
    """A core with so many pixels around it, or a few more, in whole cells within a picture."""
    rows, columns = (
        slice(
            max(side.start - around, 0) // cell * cell, min(-(-(side.stop + around) // cell) * cell, length)
        )
        for side, length in zip(core, size, strict=True)
    )
    return rows, columns


def _from(box: Box, inner: Box) -> Box:
    """What lies in a box, from its corner, as far as it reaches."""
    rows, columns = (
        slice(max(one.start - side.start, 0), min(one.stop, side.stop) - side.start)
        for one, side in zip(inner, box, strict=True)
    )
    return rows, columns


def _meet(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _area(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def _middle(values: Sequence[tuple[float, int]]) -> float:
    """The median of values, each as often as is said beside it."""
    ordered = sorted(values)
    sums = np.cumsum([often for _, often in ordered])
    return ordered[int(np.searchsorted(sums, sums[-1] / 2))][0]
