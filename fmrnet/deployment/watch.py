"""Which files of a folder are whole pictures that nobody has looked at yet.

Cameras write while we look. A file counts as whole once the system says that its writer has closed it or has renamed it
into place, or once size and time have stayed as they are for SETTLED seconds; whoever takes it decodes it, and if that
fails the file is given once more after PATIENCE seconds without a change. Files whose name does not end as a picture's,
and hidden ones, are left alone: that is how to write one in peace.

The system (inotify, by the package watchdog) tells at once, on disks of this machine. A network share tells nothing,
and events may be lost: the folder is listed all the same, every POLL seconds, or more rarely where that takes long.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fmrnet.errors import ConfigError, in_text
from fmrnet.listing import EXTENSIONS

__all__ = ["Found", "Watch"]

POLL = 0.2  # seconds between two listings
SHARE = 0.05  # of one core's time that listing may take
SETTLED = 0.5  # seconds without a change after which a file is tried
PATIENCE = 5.0  # seconds without a change after which a file that is no picture is one no longer waited for


@dataclass(frozen=True)
class Found:
    """A file that may be a whole picture.

    Attributes
    ----------
    path : Path
    source : str
        What this file in this state is known by.
    modified : int
        When it was last changed, in nanoseconds by the clock of whoever keeps it.
    last : bool
        Whether it is given for the last time.
    """

    path: Path
    source: str
    modified: int
    last: bool


@dataclass
class _File:
    """What is known of a file: its state, since when it has been so, whether its writer is done, how often given."""

    found: Found
    since: float
    closed: bool = False
    given: int = 0


class Watch:
    """Looks at a folder. Of one thread.

    Parameters
    ----------
    folder : Path
    is_known : function
        Whether a source has been taken in before.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """

    def __init__(self, folder: Path, is_known: Callable[[str], bool]) -> None:
        if not folder.is_dir():
            raise ConfigError(f"--watch {folder}: there is no such folder; create it first")
        self.folder, self._is_known = folder, is_known
        self._files: dict[str, _File] = {}
        self._closed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pause = 0.0
        self._observer = self._observed()

    def close(self) -> None:
        """End what listens to the system."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def wait(self) -> None:
        """Until it is time to look again."""
        with suppress(queue.Empty):
            self._note_closed(self._closed.get(timeout=self._pause))

    def look(self) -> Iterator[Found]:
        """The files that may be whole pictures, in the order in which they were last changed.

        Raises OSError if the folder cannot be listed, say of a share that is away.
        """
        started = time.monotonic()
        with suppress(queue.Empty):
            while True:
                self._note_closed(self._closed.get_nowait())
        with os.scandir(self.folder) as entries:
            present = dict(self._state(entry) for entry in entries if _is_listed(entry.name))
        ready = []
        for name, found in present.items():
            if found is None:
                continue
            known = self._files.get(name)
            if known is None or known.found.source != found.source:
                known = self._files[name] = _File(found, started, closed=known is not None and known.closed)
                if self._is_known(found.source):
                    known.given = 2
            still = started - known.since
            if known.given == 1 and still >= PATIENCE and self._is_known(found.source):
                known.given = 2
            if (known.given == 0 and (known.closed or still >= SETTLED)) or (
                known.given == 1 and still >= PATIENCE
            ):
                ready.append(known)
        for name in self._files.keys() - present.keys():
            del self._files[name]
        self._pause = max(POLL, (time.monotonic() - started) / SHARE)
        for known in sorted(ready, key=lambda one: (one.found.modified, one.found.path.name)):
            known.given += 1
            known.closed = False
            yield replace(known.found, last=known.given > 1)

    def again(self, found: Found) -> None:
        """Give a file once more, soon: it could not be taken in for a reason that is not its own."""
        known = self._files.get(found.path.name)
        if known is not None and known.found.source == found.source:
            known.given -= 1
            known.closed = True

    def sources(self) -> list[str]:
        """Of all files that were there at the last look."""
        return [known.found.source for known in self._files.values()]

    def _state(self, entry: os.DirEntry[str]) -> tuple[str, Found | None]:
        try:
            state = entry.stat()
        except OSError:  # gone since, or a link that leads nowhere
            return entry.name, None
        if not entry.is_file():
            return entry.name, None
        source = f"{in_text(entry.name)}/{state.st_size}/{state.st_mtime_ns}"
        return entry.name, Found(Path(entry.path), source, state.st_mtime_ns, last=False)

    def _note_closed(self, name: str) -> None:
        """The writer of this file is done with it, as far as the system knows."""
        if name in self._files:
            self._files[name].closed = True
        elif name and _is_listed(name):
            self._files[name] = _File(Found(self.folder / name, "", 0, last=False), 0.0, closed=True)

    def _observed(self) -> Any:
        """What puts names into `_closed` as the system tells them; None where it does not."""
        try:
            from watchdog.events import (
                FileClosedEvent,
                FileMovedEvent,
                FileSystemEvent,
                FileSystemEventHandler,
            )
            from watchdog.observers import Observer
            from watchdog.observers.polling import PollingObserver
        except ModuleNotFoundError:
            return None
        closed = self._closed

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if isinstance(event, FileClosedEvent):
                    closed.put(os.path.basename(os.fsdecode(event.src_path)))
                elif isinstance(event, FileMovedEvent):
                    closed.put(os.path.basename(os.fsdecode(event.dest_path)))

        observer = Observer()
        if isinstance(observer, PollingObserver):  # lists the folder as we do
            return None
        observer.schedule(Handler(), str(self.folder), recursive=False)
        try:
            observer.start()
        except OSError:  # no inotify watches left, say
            return None
        return observer


def _is_listed(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
