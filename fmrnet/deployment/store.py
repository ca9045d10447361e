"""What a node keeps of its line: a verdict for every picture, and the pictures whose verdict is open.

A verdict and, while it is open, its picture go to the disk in one transaction, so that at no moment there is one
without the other: a process that is killed or a power cut loses nothing that `Store.add` has given a number. The files
in `verdicts/` say the same as the database; what a killed process left unwritten is written at the next start.

The disk is bounded. Where there is no room, decided verdicts go first, the oldest before the others: on a disk that is
full of other things those that every listener has heard, beyond the store's own limit any. Where none of them are left,
a picture's verdict is still given and written, but the picture is not kept: the patch level stands, marked "disk". Open
verdicts are never removed.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fmrnet.deployment.verdict import DecidedBy, Verdict
from fmrnet.errors import ConfigError
from fmrnet.files import write_json

__all__ = ["Store", "now"]

QUEUE, VERDICTS = "queue.sqlite", "verdicts"
ROW = 8192  # bytes that a verdict takes: its row, and a file of one block
SPARE = 64 * 2**20  # bytes of the disk that are left to others, or a tenth of a small disk
SHARE = 0.25  # of the limit and of the spare bytes, which open pictures leave to verdicts
PRUNED = 64  # verdicts that go at a time
KEPT = 10_000  # sources that are remembered at least
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
SCHEMA = """
CREATE TABLE IF NOT EXISTS line (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, whatever is removed
    verdict TEXT NOT NULL,
    written INTEGER NOT NULL DEFAULT 0  -- whether its file says so, too
);
CREATE INDEX IF NOT EXISTS unwritten ON pictures (number) WHERE NOT written;
CREATE TABLE IF NOT EXISTS open (
    number INTEGER PRIMARY KEY,
    boot TEXT NOT NULL,
    due REAL NOT NULL,  -- when its time is up, by the clock of that boot
    picture BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS seen (
    source TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL  -- of the picture
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_in_order ON seen (number);
CREATE TABLE IF NOT EXISTS told (listener TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (what TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""


def now() -> float:
    """Seconds by a clock that nobody sets, the same for all processes until the machine starts again."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot() -> str:
    """What is another one each time the machine starts; where the system does not tell, each time a process does."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return uuid.uuid4().hex


class Store:
    """The verdicts of one line in a folder. It may be used by several threads at once.

    Parameters
    ----------
    folder : Path
        Made if it is missing; of one process at a time.
    line : str
    limit : int
        Bytes that all this may take.
    deadline : float
        Seconds that a verdict may stay open. They run on while no process does, by a clock that nobody sets, and begin
        anew when the machine has been started again: how long it was off nobody knows.

    Raises
    ------
    ConfigError
        If the folder is that of another line.
    OSError
        If it cannot be made or written.

    Attributes
    ----------
    changed : threading.Condition
        Notified whenever a verdict is added or decided.
    trouble : str
        What the disk refuses at the moment; empty if nothing.
    listeners : set of str
        Who is to hear every final verdict, see `tell`.
    """

    def __init__(self, folder: Path, line: str, *, limit: int, deadline: float) -> None:
        self.folder, self.line, self.limit, self.deadline = folder, line, limit, deadline
        self.verdicts = folder / VERDICTS
        self.verdicts.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition()
        self.trouble = ""
        self.listeners: set[str] = set()
        self._lock = threading.RLock()
        self._boot = _boot()
        self._written: list[int] = []
        with _as_os_error(folder / QUEUE):
            self._db = sqlite3.connect(folder / QUEUE, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA wal_autocheckpoint = 64")  # pages: what waits there takes room twice
            self._db.execute("PRAGMA journal_size_limit = 1048576")
            self._db.executescript(SCHEMA)
            with self._transaction():
                self._claim()
                # Of another boot, or of a run with a longer deadline: no more than the deadline from now.
                due = now() + deadline
                self._db.execute(
                    "UPDATE open SET boot = ?, due = ? WHERE boot != ? OR due > ?",
                    (self._boot, due, self._boot, due),
                )
        self._count: int
        (self._count,) = self._db.execute("SELECT count(*) FROM pictures").fetchone()
        self.write_files()

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._db.close()

    def add(self, verdict: Verdict, picture: bytes, source: str | None = None) -> Verdict:
        """Take a picture in: its verdict and, if that is open, the picture. It is on the disk when this returns.

        Parameters
        ----------
        verdict : Verdict
            Whose number and request are not known yet.
        picture : bytes
            The file.
        source : str, optional
            What the same picture is known by if it comes again, see `number_of`. Of a file NAME it begins with NAME/.

        Returns
        -------
        The verdict with its number and request; decided by DecidedBy.disk if there was no room to keep it open.

        Raises
        ------
        OSError
            If the disk has no room for a verdict, either; nothing is taken in.
        """
        with self._lock, _as_os_error(self.folder / QUEUE):
            if not verdict.final and not self._has_room(len(picture) + ROW, SHARE):
                verdict = replace(verdict, decided_by=DecidedBy.disk)
            if verdict.final and not self._has_room(ROW):
                raise OSError(errno.ENOSPC, "no room for another verdict", str(self.folder))
            try:
                added = self._insert(verdict, picture, source)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in FULL:
                    raise
                self._prune()
                if not verdict.final:
                    verdict = replace(verdict, decided_by=DecidedBy.disk)
                added = self._insert(verdict, picture, source)
            self._count += 1
            self._write_file(added)
        self._notify()
        return added

    def decide(self, verdict: Verdict) -> bool:
        """Make this the verdict on its picture for good; False if there is a final one already, which stays.

        Raises OSError if the disk is full.
        """
        assert verdict.final
        with self._lock, _as_os_error(self.folder / QUEUE):
            with self._transaction():
                done = self._db.execute("DELETE FROM open WHERE number = ?", (verdict.number,)).rowcount == 1
                if done:
                    self._db.execute(
                        "UPDATE pictures SET verdict = ?, written = 0 WHERE number = ?",
                        (verdict.to_json(), verdict.number),
                    )
                    self._total(verdict)
            if done:
                self._write_file(verdict)
        self._notify()
        return done

    def number_of(self, source: str) -> int | None:
        """The number of the picture that came from there, None if none has."""
        with self._lock:
            row = self._db.execute("SELECT number FROM seen WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def is_same(self, source: str, picture: bytes) -> bool:
        """Whether this very picture has come before from a file of that name, and has only been touched since.

        If so, its source is known from now on.
        """
        name = source.partition("/")[0]
        with self._lock, _as_os_error(self.folder / QUEUE):
            earlier = dict(
                self._db.execute(
                    "SELECT digest, number FROM seen WHERE source > ? AND source < ?",
                    (name + "/", name + "0"),
                ).fetchall()
            )
            if not earlier or (digest := hashlib.sha256(picture).hexdigest()) not in earlier:
                return False
            with self._transaction():
                self._note(source, earlier[digest], digest)
            return True

    def forget(self, present: Iterable[str]) -> None:
        """Forget all sources but those that are present, and the last ones: a folder may be away for a while."""
        present = set(present)
        with self._lock, _as_os_error(self.folder / QUEUE):
            known = self._db.execute(
                "SELECT source FROM seen ORDER BY number DESC LIMIT -1 OFFSET ?", (KEPT,)
            )
            gone = [(source,) for (source,) in known.fetchall() if source not in present]
            if gone:
                with self._transaction():
                    self._db.executemany("DELETE FROM seen WHERE source = ?", gone)

    def verdict(self, number: int) -> Verdict | None:
        """The verdict of this number; None if there is none, or none any more."""
        with self._lock:
            row = self._db.execute("SELECT verdict FROM pictures WHERE number = ?", (number,)).fetchone()
        return None if row is None else Verdict.from_json(row[0])

    def finals(self, after: int, most: int = 100) -> list[Verdict]:
        """The next verdicts after a number, in order, up to the first one that is open."""
        with self._lock:
            rows = self._db.execute(
                "SELECT verdict FROM pictures WHERE number > ? AND number < coalesce((SELECT min(number) FROM open), "
                "9223372036854775807) ORDER BY number LIMIT ?",
                (after, most),
            ).fetchall()
        return [Verdict.from_json(text) for (text,) in rows]

    def open_numbers(self) -> list[int]:
        """The numbers of all open verdicts, in order."""
        with self._lock:
            return [number for (number,) in self._db.execute("SELECT number FROM open ORDER BY number")]

    def overdue(self) -> list[int]:
        """Those whose time is up."""
        with self._lock:
            rows = self._db.execute("SELECT number FROM open WHERE due <= ? ORDER BY number", (now(),))
            return [number for (number,) in rows]

    def picture(self, number: int) -> bytes | None:
        """The picture of an open verdict; None if it is not open any more."""
        with self._lock:
            row = self._db.execute("SELECT picture FROM open WHERE number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def told(self, listener: str) -> int:
        """The number of the last final verdict that a listener is known to have; 0 if none."""
        with self._lock:
            row = self._db.execute("SELECT number FROM told WHERE listener = ?", (listener,)).fetchone()
        return 0 if row is None else int(row[0])

    def tell(self, listener: str, number: int) -> None:
        """Note that a listener has the final verdicts up to this number."""
        with self._lock, _as_os_error(self.folder / QUEUE):
            self._db.execute("INSERT OR REPLACE INTO told VALUES (?, ?)", (listener, number))

    def totals(self) -> dict[str, int]:
        """How many final verdicts there have been, by what they say and by what decided them; `open`, `pictures`."""
        with self._lock:
            found = dict(self._db.execute("SELECT what, count FROM totals").fetchall())
            (found["open"],) = self._db.execute("SELECT count(*) FROM open").fetchone()
            (found["pictures"],) = self._db.execute(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'pictures'"
            ).fetchone()
        return found

    def used(self) -> int:
        """Bytes that verdicts and open pictures take."""
        with self._lock:
            return self._pages("page_count") - self._pages("freelist_count") + self._count * (ROW // 2)

    def write_files(self) -> None:
        """Write the files of verdicts that a killed process or a full disk has left out."""
        with self._lock:
            rows = self._db.execute(
                "SELECT verdict FROM pictures WHERE NOT written ORDER BY number"
            ).fetchall()
            done = set(self._written)
            for verdict in (Verdict.from_json(text) for (text,) in rows):
                if verdict.number not in done and not self._write_file(verdict):
                    return

    def _pages(self, which: str) -> int:
        """Bytes of the database's pages, "page_count" or "freelist_count"."""
        count, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in (which, "page_size"))
        return int(count * size)

    def _claim(self) -> None:
        row = self._db.execute("SELECT name FROM line").fetchone()
        if row is None:
            self._db.execute("INSERT INTO line VALUES (?)", (self.line,))
        elif row[0] != self.line:
            raise ConfigError(
                f"{self.folder} is of line {row[0]}: expected {self.line}; name another folder as --out"
            )

    def _insert(self, verdict: Verdict, picture: bytes, source: str | None) -> Verdict:
        with self._transaction():
            number = self._db.execute("INSERT INTO pictures (verdict) VALUES ('')").lastrowid
            assert number is not None
            digest = hashlib.sha256(picture).hexdigest()
            verdict = replace(verdict, number=number, request=f"{self.line}-{number}-{digest[:12]}")
            self._db.execute("UPDATE pictures SET verdict = ? WHERE number = ?", (verdict.to_json(), number))
            if verdict.final:
                self._total(verdict)
            else:
                self._db.execute(
                    "INSERT INTO open VALUES (?, ?, ?, ?)",
                    (number, self._boot, now() + self.deadline, picture),
                )
            if source is not None:
                self._note(source, number, digest)
        return verdict

    def _note(self, source: str, number: int, digest: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (source, number, digest))

    def _total(self, verdict: Verdict) -> None:
        for what in {verdict.word, str(verdict.decided_by)}:
            self._db.execute(
                "INSERT INTO totals VALUES (?, 1) ON CONFLICT (what) DO UPDATE SET count = count + 1", (what,)
            )

    def _write_file(self, verdict: Verdict) -> bool:
        try:
            write_json(self._file(verdict.number), verdict.to_dict())
        except OSError as error:  # the database has it; `write_files` tries again
            self.trouble = f"{error.filename}: {error.strerror}"
            return False
        self.trouble = ""
        self._written.append(verdict.number)
        return True

    def _file(self, number: int) -> Path:
        return self.verdicts / f"{number:09d}.json"

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing. What has been written to files since the last one is noted along with it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            written = [(number,) for number in self._written]
            self._db.executemany("UPDATE pictures SET written = 1 WHERE number = ?", written)
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        del self._written[: len(written)]

    def _has_room(self, need: int, share: float = 0.0) -> bool:
        """Whether there is room for so many bytes, once decided verdicts have been removed, the oldest first.

        `share` of the limit and of what the disk has to spare is left for verdicts without a picture.
        """
        compact = False
        while True:
            used = self.used()
            disk = shutil.disk_usage(self.folder)
            spare = min(SPARE, disk.total // 10) * (1 + share)
            within = self.limit * (1 - share) - used
            room = min(within, disk.free + self._pages("freelist_count") - spare)
            if room >= need:
                return True
            if not compact:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                compact = True
                continue
            (open_bytes,) = self._db.execute("SELECT coalesce(sum(length(picture)), 0) FROM open").fetchone()
            if room + used - open_bytes < need or not self._prune(unheard=within < need):
                return False

    def _prune(self, *, unheard: bool = False) -> int:
        """Remove the oldest decided verdicts, file first; how many. If `unheard`, any, else those heard by all."""
        heard = [] if unheard else [self.told(listener) for listener in self.listeners]
        rows = self._db.execute(
            "SELECT number FROM pictures WHERE number < coalesce((SELECT min(number) FROM open), 9223372036854775807) "
            "AND number <= ? ORDER BY number LIMIT ?",
            (min(heard, default=2**63 - 1), PRUNED),
        ).fetchall()
        for (number,) in rows:
            self._file(number).unlink(missing_ok=True)
        with self._transaction():
            self._db.executemany("DELETE FROM pictures WHERE number = ?", rows)
        self._count -= len(rows)
        return len(rows)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """A disk that is full or broken is an OSError, whoever says so."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_CANTOPEN: errno.EACCES}
        raise OSError(code.get(error.sqlite_errorcode & 0xFF, errno.EIO), str(error), str(path)) from error
