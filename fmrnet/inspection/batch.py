"""Inspecting many pictures: whatever one of them raises, the others are inspected."""

from __future__ import annotations

import errno
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import ConfigError, FmrnetError, fault_of, is_out_of_memory
from fmrnet.inspection.record import Line, identify
from fmrnet.inspection.verdicts import Verdicts
from fmrnet.pictures import read_picture

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector, Result

__all__ = ["inspect_each"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of a disk that will take nothing more
Inspected = tuple[NDArray[np.float32], "Result", Line]  # picture, result, identity of the file


def inspect_each(
    inspector: Inspector, report: Verdicts, paths: Sequence[Path], jobs: int = 1
) -> Iterator[Line]:
    """Inspect pictures into a report, in their order; gives the line of each as soon as it is written.

    Pictures that a resumed report has are left out. A picture that cannot be read, or at which memory or the
    program fails, gets a line that says so.

    Parameters
    ----------
    inspector : the model in use.
    report : where the results go.
    paths : the pictures.
    jobs : how many are inspected at once, each by a thread; the next ones while one is written.

    Raises
    ------
    ConfigError : a setting with which no picture could be inspected.
    OSError : the disk of the report is full or broken; `filename` says where.
    """
    missing = (path for path in paths if path not in report.kept)

    def inspected(path: Path) -> Inspected:
        identity = identify(path)
        picture = read_picture(path, inspector.bits)
        return picture, inspector.inspect(picture, report.level), identity

    for path, found in _in_order(inspected, missing, jobs):
        yield _written(report, path, found)


def _in_order(
    work: Callable[[Path], Inspected], paths: Iterable[Path], jobs: int
) -> Iterator[tuple[Path, Callable[[], Inspected]]]:
    """Each path with what gives, or raises, what the work on it gave; by up to so many threads, a few paths ahead."""
    if jobs == 1:
        for path in paths:
            yield path, lambda path=path: work(path)  # type: ignore[misc]
        return
    waiting: deque[tuple[Path, Future[Inspected]]] = deque()
    with _cores_shared(jobs), ThreadPoolExecutor(jobs) as pool:
        try:
            for path in paths:
                waiting.append((path, pool.submit(work, path)))
                if len(waiting) > jobs:
                    first, future = waiting.popleft()
                    yield first, future.result
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _cores_shared(jobs: int) -> Iterator[None]:
    """Let so many threads that use PyTorch have an even share of its threads each; more than cores only wait."""
    torch = sys.modules.get("torch")  # not loaded where graphs are run
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _written(report: Verdicts, path: Path, found: Callable[[], Inspected]) -> Line:
    try:
        picture, result, identity = found()
        return report.add(path, picture, result, identity)
    except ConfigError:
        raise
    except FmrnetError as error:
        return report.add_error(path, _named(path, error), fault_of(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        if isinstance(error, ValueError) and str(error).startswith("FMRNET_BACKEND"):
            raise  # a setting, checked where it is used
        if is_out_of_memory(error):
            return report.add_error(
                path, f"{path}: not enough memory for a picture of this size; cut it into pieces", "machine"
            )
        if isinstance(error, OSError):
            where = error.filename or type(error).__name__
            return report.add_error(path, f"{path}: {where}: {error.strerror or error}", "machine")
        named = _named(path, f"{type(error).__name__}: {error}")
        return report.add_error(path, named, "machine", traceback=traceback.format_exc())


def _named(path: Path, error: object) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"
