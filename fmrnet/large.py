"""Arrays too large for memory: they lie in files without a name, which the system writes out when it needs room.

Such an array is an ordinary one to whoever reads or writes it. What is computed of it is computed by bands of rows, so
that nothing as large stands in memory beside it.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fmrnet.errors import PictureError

__all__ = ["MOST", "bands", "by_bands", "empty", "is_large", "median", "zeros"]

MOST = 2**25  # values of an array in memory; a picture of 2560 x 3840 has 2^24.9 in colour
BAND = 2**22  # values that are computed with at once


def is_large(array: NDArray[Any]) -> bool:
    """Whether an array has more than MOST values, or lies in a file and has more than BAND."""
    return array.size > MOST or (array.size > BAND and _lies_in_file(array))


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As `numpy.empty`; of more than MOST values, in a file without a name in the folder for temporary files (TMPDIR).

    Raises
    ------
    PictureError
        If the disk has no room for it.
    """
    return np.empty(shape, dtype) if math.prod(shape) <= MOST else _in_file(shape, np.dtype(dtype))


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As `numpy.zeros`, else as `empty`, which raises the same."""
    return np.zeros(shape, dtype) if math.prod(shape) <= MOST else _in_file(shape, np.dtype(dtype))


def bands(array: NDArray[Any], rows: int = 1) -> Iterator[slice]:
    """The rows of an array (H, ...), so many as have BAND values, in whole multiples of `rows`; at most MOST: all."""
    height = len(array)
    step = height
    if is_large(array):
        step = max(BAND // math.prod(array.shape[1:]) // rows, 1) * rows
    for start in range(0, height, max(step, 1)):
        yield slice(start, min(start + step, height))


def by_bands(function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """A function of arrays (H, ...) whose rows do not depend on each other. Raises as `empty`.

    Of a large array it lies in a file, too, if it has more than BAND values: several of a quarter of a picture's size
    would take as much memory as what computes with it.
    """
    if not any(map(is_large, arrays)):
        return function(*arrays)
    longest = max(arrays, key=lambda array: array.size)
    found = None
    for rows in bands(longest):
        part = function(*(array[rows] for array in arrays))
        if found is None:
            found = _of_large((len(longest), *part.shape[1:]), part.dtype)
        found[rows] = part
    assert found is not None
    return found


def median(values: NDArray[np.float32]) -> float:
    """The median of values of 0 or more, as `numpy.median` gives it.

    Of many it is counted which ones are the middle: the bits of such numbers rise as the numbers do, so the upper half
    of the bits is settled first, then the lower.
    """
    if not is_large(values):
        return float(np.median(values))
    middle = {_ranked(values, rank) for rank in ((values.size - 1) // 2, values.size // 2)}
    return float(np.mean(np.array(list(middle), np.float32)))


def _ranked(values: NDArray[np.float32], rank: int) -> np.float32:
    """The value that has so many before it in order."""
    upper = 0
    for shift in (16, 0):
        counts = np.zeros(2**16, np.int64)
        for rows in bands(values):
            bits = np.ascontiguousarray(values[rows] + np.float32(0)).view(np.uint32).ravel()  # -0 becomes 0
            halves = bits >> 16 if shift else bits[bits >> 16 == upper] & 0xFFFF
            counts += np.bincount(halves, minlength=2**16)
        sums = np.cumsum(counts)
        found = int(np.searchsorted(sums, rank, "right"))
        rank -= int(sums[found - 1]) if found else 0
        if shift:
            upper = found
    return np.float32(np.array(upper << 16 | found, np.uint32).view(np.float32))


def _of_large(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.empty(shape, dtype) if math.prod(shape) <= BAND else _in_file(shape, dtype)


def _lies_in_file(array: NDArray[Any]) -> bool:
    """Whether it is one of those arrays, or a part of one."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    return isinstance(owner, np.memmap)


def _in_file(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of zeros, in a file whose room is taken at once: later a full disk would kill the process."""
    needed, folder = math.prod(shape) * dtype.itemsize, tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            if needed > (free := shutil.disk_usage(folder).free):
                raise PictureError(
                    f"takes {needed / 1e9:.2f} GB more in {folder}, the folder for temporary files, and "
                    f"{free / 1e9:.2f} GB are free there; set TMPDIR to one with room, or cut it into pieces"
                )
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray)
    except OSError as error:
        if error.errno == errno.ENOMEM:  # `ulimit -v` counts what is mapped
            raise MemoryError from None
        raise PictureError(
            f"takes {needed / 1e9:.2f} GB more in {folder}, the folder for temporary files: {error.strerror}; "
            "set TMPDIR to another one, or cut it into pieces"
        ) from None
