"""The node beside a line: every picture gets the early exit's verdict at once, and what is open is decided after.

    folder, HTTP -> take: early exit -> store (disk) -> listeners (MQTT, OPC UA)
                                          |
                     open: cloud, or the pixel level here; at the deadline what there is stands -> store -> listeners

Each arrow out of the store starts from what is on the disk, so a node that is killed goes on where it was.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from filelock import FileLock, Timeout

import fmrnet
from fmrnet.deployment.intake import LARGEST_PICTURE, Intake
from fmrnet.deployment.models import version_of
from fmrnet.deployment.sending import sender
from fmrnet.deployment.store import Store
from fmrnet.deployment.suspect import rectangle
from fmrnet.deployment.uplink import Answer, Backoff, Refused, Unreachable, Uplink
from fmrnet.deployment.verdict import DecidedBy, Send, Verdict
from fmrnet.deployment.watch import Found, Watch
from fmrnet.errors import ConfigError, FmrnetError, PictureError, in_text, is_out_of_memory, printable
from fmrnet.pictures import decode_picture

__all__ = ["EdgeNode", "Listener"]

LOCK = ".fmrnet.lock"
WORKERS = 4  # requests to the cloud at a time
TICK = 0.2  # seconds between two looks at deadlines
# Looks at the folder, or pictures where there is none, until those that have gone are forgotten:
FORGET = 10_000
NO_MEMORY = "not enough memory for a picture of this size; cut it into pieces"


class Listener(Protocol):
    """Somebody who is told every verdict: at once, and the final ones once each and in order."""

    @property
    def name(self) -> str:
        """By which the store knows what it has been told."""

    def first(self, verdict: Verdict) -> None:
        """The early exit's answer, as it is given. It is not repeated, and this does not wait for anybody."""

    def final(self, verdict: Verdict) -> bool:
        """The next final verdict; True once it has been passed on, False to be told again a little later."""

    def close(self) -> None:
        """The node ends."""


class EdgeNode:
    """Inspects the pictures of one line. A context manager: it works inside the block.

    Parameters
    ----------
    model : path
        Model file.
    out : path
        Folder for `verdicts/` and the queue; of this node alone.
    watch : path, optional
        Folder in which pictures appear. They stay there.
    line : str
        The name of the line. Default: that of the machine.
    cloud : str, optional
        URL of `fmrnet serve` with the same model file. Default: the node decides everything itself, the pixel level
        when no picture is waiting for its first verdict.
    token : str, optional
        For the cloud.
    authority : Path, optional
        Certificates, PEM, of which one must have signed the cloud's. Default: those that the system trusts.
    send : Send or str
        What of an open picture goes up to it.
    port : int, optional
        On which pictures are taken from programs on this machine, see `fmrnet.deployment.intake`; 0: any.
    deadline : float
        Seconds after which a patch-level verdict stands.
    disk : float
        Megabytes that `out` may take.
    false_alarms : float, optional
    device, engine : str
        As `fmrnet.load`.
    listeners : iterable of functions that make a Listener from the node

    Raises
    ------
    ArtifactError, ConfigError
        If something that is given cannot be used.
    OSError
        If `out` cannot be made or written.

    Attributes
    ----------
    ended : threading.Event
        Set when the node cannot go on.
    failure : exception, or None
        Why.
    """

    def __init__(
        self,
        model: str | Path,
        out: str | Path,
        *,
        watch: str | Path | None = None,
        line: str | None = None,
        cloud: str | None = None,
        token: str | None = None,
        authority: Path | None = None,
        send: Send | str = Send.whole,
        port: int | None = None,
        deadline: float = 60.0,
        disk: float = 2000.0,
        false_alarms: float | None = None,
        device: str = "auto",
        engine: str = "auto",
        listeners: Iterable[Callable[[EdgeNode], Listener]] = (),
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.line = line or platform.node()
        if not self.line.isprintable() or not 0 < len(self.line) <= 100 or set(self.line) & set("/+#"):
            raise ConfigError(
                f"--line {printable(self.line)}: expected a name of up to 100 characters without / + #"
            )
        if not 0 < deadline <= 1e6:
            raise ConfigError(f"--deadline {deadline:g}: expected seconds, more than 0")
        if not disk >= 1:
            raise ConfigError(f"--disk {disk:g}: expected megabytes, 1 or more")
        if watch is None and port is None:
            raise ConfigError("nothing to inspect: give --watch, a folder, or --port, for pictures by HTTP")
        self._inspector = fmrnet.load(model, device, engine=engine)
        if false_alarms is not None:
            self._inspector.false_alarms = false_alarms
        version = version_of(Path(model))
        self.model, self.cloud, self.deadline, self.out = (
            f"{Path(model).stem} {version}",
            cloud,
            deadline,
            Path(out),
        )
        self._uplink = (
            None
            if cloud is None
            else Uplink(
                cloud,
                Path(model).stem,
                version,
                self.line,
                token=token,
                authority=authority,
                connections=WORKERS,
            )
        )
        self._send = None if self._uplink is None else sender(Send(send), self._inspector, self._uplink)
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self._closing = threading.Event()
        self._log = log
        self._troubles: dict[str, str] = {}
        self._backoff = Backoff()
        self._turn, self._fresh = threading.Lock(), 0
        self._at_work: set[int] = set()
        self._claims = threading.Lock()
        self._looks = FORGET
        self._resources = ExitStack()
        with ExitStack() as opened:
            self._watch = None if watch is None else Watch(Path(watch), self._is_known)
            if self._watch is not None:
                opened.callback(self._watch.close)
            self.out.mkdir(parents=True, exist_ok=True)
            try:
                opened.enter_context(FileLock(self.out / LOCK, timeout=0))
            except Timeout:
                raise ConfigError(
                    f"another `fmrnet edge` is at work in {self.out}; name another folder as --out"
                ) from None
            self.store = Store(self.out, self.line, limit=int(disk * 1e6), deadline=deadline)
            opened.callback(self.store.close)
            self._intake = None if port is None else Intake(self, port, self._fail)
            if self._intake is not None:
                opened.callback(self._intake.close)
            self._listeners = []
            for make in listeners:
                self._listeners.append(make(self))
                opened.callback(self._listeners[-1].close)
            self.store.listeners = {one.name for one in self._listeners}
            self._resources = opened.pop_all()
        self._threads = [
            threading.Thread(target=self._loop, args=step, name=step[0]) for step in self._steps()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._resources.close()
        if self._uplink is not None:
            self._uplink.close()

    @property
    def port(self) -> int | None:
        """On which pictures are taken."""
        return None if self._intake is None else self._intake.port

    def take(self, picture: bytes, name: str, source: str | None = None, *, whole: bool = True) -> Verdict:
        """Give a picture its first verdict, which is on the disk when this returns.

        Parameters
        ----------
        picture : bytes
            A file.
        name : str
        source : str, optional
            What the same picture is known by if it is given again: it gets no second verdict.
        whole : bool
            Whether this is all of the file. If not sure, a file that cannot be read is not taken in.

        Raises
        ------
        OSError
            If the disk has no room for a verdict; nothing is taken in.
        PictureError
            If the file cannot be read and may not be whole.
        """
        with self._first(), self._turn:
            if source is not None and (number := self.store.number_of(source)) is not None:
                known = self.store.verdict(number)
                if known is not None:
                    return known
            verdict = self.store.add(self._glance(picture, name, whole), picture, source)
            if self._watch is None and verdict.number % FORGET == 0:
                self.store.forget(())
        for listener in self._listeners:
            listener.first(verdict)
        return verdict

    def verdict(self, number: int) -> Verdict | None:
        """The verdict of this number; None if there is none, or none any more."""
        return self.store.verdict(number)

    def finals(self, after: int) -> list[Verdict]:
        """The next final verdicts after a number, in order."""
        return self.store.finals(after)

    def state(self) -> dict[str, Any]:
        """How the node is, JSON-ready."""
        return {
            "fmrnet": fmrnet.__version__,
            "line": self.line,
            "model": self.model,
            "engine": self._inspector.engine.name,
            "cloud": self.cloud,
            "deadline": self.deadline,
            "totals": self.store.totals(),
            "megabytes": round(self.store.used() / 1e6, 3),
            "troubles": self.troubles(),
        }

    def troubles(self) -> list[str]:
        """What does not work at the moment, in words."""
        return [text for text in (self.store.trouble, *self._troubles.values()) if text]

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """What the node does all the time, each over and over in a thread of its own."""
        steps: list[tuple[str, Callable[[], None]]] = [("deadlines", self._meet_deadlines)]
        if self._watch is not None:
            steps.append(("folder", self._look_at_folder))
        if self._uplink is None:
            steps.append(("pixel level", self._decide_here))
        else:
            steps += [(f"cloud {number}", self._ask_cloud) for number in range(WORKERS)]
        steps += [(one.name, self._telling(one)) for one in self._listeners]
        return steps

    def _loop(self, name: str, step: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                step()
                self._set_trouble(name, "")
            except OSError as error:  # a full disk, a share that is away: it may come back
                self._set_trouble(name, f"{name}: {error.filename or ''} {error.strerror or error}")
                self._closing.wait(1.0)
            except Exception as error:
                self._fail(error)
                return

    def _fail(self, error: BaseException) -> None:
        """The node cannot go on: whoever runs it starts it anew."""
        self.failure = error
        self.ended.set()

    def _set_trouble(self, name: str, text: str) -> None:
        """Note what does not work, and say so when that changes."""
        if self._troubles.get(name, "") != text:
            self._log(text or f"{name}: works again")
        self._troubles[name] = text

    @contextmanager
    def _first(self) -> Iterator[None]:
        """While a picture waits for its first verdict, nothing else is begun here."""
        with self._claims:
            self._fresh += 1
        try:
            yield
        finally:
            with self._claims:
                self._fresh -= 1

    def _glance(self, data: bytes, name: str, whole: bool) -> Verdict:
        """The early exit's verdict, without a number."""
        verdict = Verdict(
            line=self.line,
            number=0,
            picture=name,
            request="",
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            defective=None,
            score=None,
            p_value=None,
            level="patch",
            decided_by=DecidedBy.unreadable,
            model=self.model,
        )
        try:
            picture = decode_picture(data, self._inspector.bits)
        except PictureError as error:
            if not whole:
                raise
            return replace(verdict, reasons=(printable(error),))
        try:
            result = self._inspector.inspect(picture, "patch")
        except FmrnetError as error:  # it is smaller than a patch, say
            return replace(verdict, reasons=(printable(error),))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return replace(verdict, reasons=(NO_MEMORY,))
        return replace(
            verdict,
            defective=result.defective,
            score=result.score,
            p_value=result.p_value,
            decided_by=DecidedBy.exit if result.settled else None,
            reasons=result.reasons,
            suspect=None if result.settled else rectangle(self._inspector, picture.shape, result),
        )

    def _is_known(self, source: str) -> bool:
        return self.store.number_of(source) is not None

    def _look_at_folder(self) -> None:
        assert self._watch is not None
        for found in self._watch.look():
            if self._closing.is_set():
                return
            try:
                self._take_file(found)
            except OSError:
                self._watch.again(found)
                raise
        self._looks += 1
        if self._looks >= FORGET and (sources := self._watch.sources()):  # else the folder may be away
            self.store.forget(sources)
            self._looks = 0
        self._watch.wait()

    def _take_file(self, found: Found) -> None:
        """Take a file in, unless it is not whole yet or has gone."""
        try:
            with open(found.path, "rb") as file:
                data = file.read(LARGEST_PICTURE + 1)
                state = os.fstat(file.fileno())
        except FileNotFoundError:
            return
        if (state.st_size, state.st_mtime_ns) != (len(data), found.modified) and len(data) <= LARGEST_PICTURE:
            return  # it is being written, and will be found again
        if not self.store.is_same(found.source, data):
            with suppress(PictureError):  # until its writer is done, or nobody has changed it for long enough
                self.take(data, in_text(found.path.name), found.source, whole=found.last)

    def _meet_deadlines(self) -> None:
        for number in self.store.overdue():
            verdict = self.store.verdict(number)
            if verdict is not None:
                self.store.decide(replace(verdict, decided_by=DecidedBy.deadline))
        if self.store.trouble:
            self.store.write_files()
        self._closing.wait(TICK)

    @contextmanager
    def _claimed(self) -> Iterator[tuple[Verdict, bytes] | None]:
        """The oldest open verdict that nobody is working on, and its picture; None, after a while, if there is none."""
        with self._claims:
            free = (number for number in self.store.open_numbers() if number not in self._at_work)
            number = next(free, None)
            if number is not None:
                self._at_work.add(number)
        if number is None:
            with self.store.changed:
                if not self._closing.is_set():
                    self.store.changed.wait(TICK)
            yield None
            return
        try:
            verdict, picture = self.store.verdict(number), self.store.picture(number)
            yield None if verdict is None or picture is None else (verdict, picture)  # None: decided since
        finally:
            with self._claims:
                self._at_work.discard(number)

    def _ask_cloud(self) -> None:
        assert self._send is not None
        if self._closing.wait(self._backoff.left()):
            return
        with self._claimed() as claimed:
            if claimed is None:
                return
            verdict, picture = claimed
            try:
                answer, sent = self._send(verdict, picture)
            except Refused as error:
                self.store.decide(_refused(verdict, printable(error)))
                return
            except Unreachable as error:
                self._backoff.failed(error.pause)
                self._set_trouble("link", printable(error))
                return
            except (MemoryError, RuntimeError) as error:
                self._give_up(verdict, error)
                return
            self._backoff.succeeded()
            self._set_trouble("link", "")
            self.store.decide(replace(_decided(verdict, answer, DecidedBy.cloud), sent=sent))

    def _decide_here(self) -> None:
        if self._fresh:
            self._closing.wait(0.005)
            return
        with self._claimed() as claimed:
            if claimed is None:
                return
            verdict, picture = claimed
            try:
                result = self._inspector.inspect(decode_picture(picture, self._inspector.bits), "pixel")
            except (MemoryError, RuntimeError) as error:
                self._give_up(verdict, error)
                return
            answer = Answer(result.defective, result.score, result.p_value, result.level)
            self.store.decide(replace(_decided(verdict, answer, DecidedBy.node), reasons=result.reasons))

    def _give_up(self, verdict: Verdict, error: BaseException) -> None:
        """The patch level stands where there is no memory for more; another error is raised on."""
        if not is_out_of_memory(error):
            raise error
        self.store.decide(_refused(verdict, NO_MEMORY))

    def _telling(self, listener: Listener) -> Callable[[], None]:
        """What tells one listener the next final verdicts."""

        def tell() -> None:
            told = known = self.store.told(listener.name)
            for verdict in self.store.finals(told):
                if verdict.number > told + 1:
                    self._log(
                        f"{listener.name}: verdicts {told + 1} to {verdict.number - 1} went before it heard them"
                    )
                if self._closing.is_set() or not listener.final(verdict):
                    break
                told = verdict.number
            if told > known:
                self.store.tell(listener.name, told)
                return
            with self.store.changed:
                if not self._closing.is_set():
                    self.store.changed.wait(TICK)

        return tell


def _decided(verdict: Verdict, answer: Answer, by: DecidedBy) -> Verdict:
    return replace(
        verdict,
        defective=answer.defective,
        score=answer.score,
        p_value=answer.p_value,
        level=answer.level,
        decided_by=by,
    )


def _refused(verdict: Verdict, why: str) -> Verdict:
    return replace(verdict, decided_by=DecidedBy.refused, reasons=(*verdict.reasons, why))
