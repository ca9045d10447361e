"""An archive of pictures, inspected on the machines of a Ray cluster; a run that was killed goes on where it was.

Workers inspect and say, this program alone writes: to verdicts.jsonl, a line a picture, so that none is in it twice
and none is half written, whatever dies. The pictures lie at the same place on every machine, as on a shared disk.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fmrnet
from fmrnet.errors import ArtifactError, ConfigError, FmrnetError, printable
from fmrnet.files import digest
from fmrnet.inspection.folder import check_replaceable, claimed
from fmrnet.inspection.record import Line, Record, identify, path_of, read_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fmrnet.inspection.inspector import Level

__all__ = ["VERDICTS", "Archive", "Worker", "open_archive"]

VERDICTS = "verdicts.jsonl"
BATCH = 16  # pictures that a worker is given at once, and whose lines come back together


@dataclass(frozen=True)
class Setting:
    """How every worker decides."""

    model: Path
    sha256: str
    level: Level
    false_alarms: float | None
    device: str
    engine: str


class Worker:
    """Inspects batches of pictures, as a class for `ray.data.Dataset.map_batches`.

    Raises
    ------
    ArtifactError, ConfigError
        If there is another model file, or none, where the program that sends the pictures has its own.
    """

    def __init__(self, setting: Setting) -> None:
        self._level = setting.level
        self._inspector = fmrnet.load(setting.model, setting.device, engine=setting.engine)
        if digest(setting.model) != setting.sha256:
            raise ArtifactError(
                f"{setting.model} is another file on this machine; put the same one everywhere"
            )
        if setting.false_alarms is not None:
            self._inspector.false_alarms = setting.false_alarms

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, list[str]]:
        """The lines of pictures, as JSON; `batch` has their paths."""
        from fmrnet.inspection.batch import inspect_each
        from fmrnet.inspection.verdicts import Verdicts

        paths = [Path(os.fsdecode(path)) for path in batch["picture"]]
        verdicts = Verdicts(self._inspector, self._level, paths)
        return {"line": [json.dumps(line) for line in inspect_each(self._inspector, verdicts, paths)]}


class Archive:
    """The verdicts on an archive. Made by `open_archive`.

    Attributes
    ----------
    done : list of line
        The verdicts of earlier runs on these pictures.
    missing : list of Path
        What is left to do.
    """

    def __init__(self, setting: Setting, folder: Path, paths: Sequence[Path]) -> None:
        self._setting = setting
        path = folder / VERDICTS
        head: Line = {
            "fmrnet": fmrnet.__version__,
            "level": setting.level,
            "false_alarms": setting.false_alarms,
            "model": {"file": str(setting.model), "sha256": setting.sha256},
        }
        check_replaceable(path)
        found = read_lines(path, _is_line)
        if found is not None and _made_by(found[0]) != _made_by(head):
            raise ConfigError(
                f"{folder} holds verdicts of another model, level, rate of false alarms or release; name another folder"
            )
        kept = {path_of(line): line for line in (found[1] if found else []) if "error" not in line}
        for picture in paths:
            if picture in kept and kept[picture]["file"] != identify(picture):
                del kept[picture]  # another picture by now
        self.done = [kept[picture] for picture in paths if picture in kept]
        self.missing = [picture for picture in paths if picture not in kept]
        self._record = Record(path, head, kept.values())

    def inspect(self, *, address: str | None, workers: int | None, gpus: float) -> Iterator[Line]:
        """Inspect what is missing; gives each line once it is written.

        Parameters
        ----------
        address : str, optional
            Of the cluster; "auto" for the one of this machine. None: Ray is started on this machine alone.
        workers : int, optional
            At most so many, each with a core; default: as many as the cluster has cores.
        gpus : float
            Of a machine that each takes up.

        Raises
        ------
        ConfigError, ArtifactError
            If there is no cluster, or a worker cannot use the model.
        OSError
            If the disk is full.
        """
        if not self.missing:
            return
        left = set(self.missing)
        with _cluster(address):
            for line in self._lines(workers, gpus):
                if path_of(line) in left:  # else Ray has done a batch twice, as it does where a worker dies
                    left.remove(path_of(line))
                    self._record.append(line)
                    yield line
        if left:
            raise FmrnetError(
                f"{len(left)} pictures were left out, such as {min(left)}; the same command goes on"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._record.close()

    def _lines(self, workers: int | None, gpus: float) -> Iterator[Line]:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        DataContext.get_current().enable_progress_bars = False
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        pictures = ray.data.from_items(
            [{"picture": os.fsencode(path)} for path in self.missing],
            override_num_blocks=max(1, len(self.missing) // BATCH),
        )
        inspected = pictures.map_batches(
            Worker,
            fn_constructor_args=(self._setting,),
            batch_size=BATCH,
            compute=ActorPoolStrategy(min_size=1, max_size=most),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        try:
            for row in inspected.iter_rows():
                yield json.loads(row["line"])
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, FmrnetError):
                raise cause from None
            raise


@contextmanager
def open_archive(
    folder: str | Path,
    model: str | Path,
    paths: Sequence[Path],
    *,
    level: Level = "pixel",
    false_alarms: float | None = None,
    device: str = "auto",
    engine: str = "auto",
) -> Iterator[Archive]:
    """The verdicts on pictures in a folder of their own, with what earlier runs have done.

    Pictures that have changed since, and those that could not be inspected, are missing again.

    Parameters
    ----------
    folder : made if it is not there.
    model : a model file, at the same place on every machine.
    paths : the pictures, each file once.
    level, false_alarms, device, engine : as of `fmrnet.load` and `Inspector.inspect`.

    Raises
    ------
    ConfigError : the folder holds verdicts of another model or setting, or another run is at work in it.
    OSError : the model cannot be read, or the folder not be made or written.
    """
    folder, model = Path(folder), Path(os.path.abspath(model))
    paths = [Path(os.path.abspath(path)) for path in paths]
    setting = Setting(model, digest(model), level, false_alarms, device, engine)
    with claimed(folder):
        archive = Archive(setting, folder, paths)
        try:
            yield archive
        finally:
            archive.close()


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or one of this machine's own for the while."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong, it raises, too
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)

    alone: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **alone)
    except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--address {address}: there is no Ray cluster ({printable(error, 120)})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _made_by(head: Line) -> tuple[object, ...]:
    """What all lines must have in common."""
    model = head.get("model")
    sha256 = model.get("sha256") if isinstance(model, dict) else None
    return (*(head.get(key) for key in ("fmrnet", "level", "false_alarms")), sha256)


def _is_line(line: object) -> bool:
    return (
        isinstance(line, dict)
        and isinstance(line.get("picture"), str)
        and (
            "error" in line
            or (isinstance(line.get("defective"), bool) and isinstance(line.get("file"), dict))
        )
    )
