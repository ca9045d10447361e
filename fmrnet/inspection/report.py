"""What an inspection leaves: overlay, mask and raw map of each picture, and a report of the batch.

The report grows line by line in report.jsonl, a picture's line after its files, and is closed at the end into
report.json. A run that is killed leaves report.jsonl alone; every file is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fmrnet
from fmrnet import large
from fmrnet.errors import ConfigError, printable
from fmrnet.files import digest, write_json
from fmrnet.inspection.folder import check_replaceable, claimed, is_ours
from fmrnet.inspection.layers import layers, write_layer
from fmrnet.inspection.names import KINDS, PAGE, PAGE_FILES, PAGE_KINDS, RECORD, REPORT, output_names
from fmrnet.inspection.overlay import overlay
from fmrnet.inspection.record import Line, Record, identify, named, path_of, read_record
from fmrnet.inspection.reduced import shown
from fmrnet.inspection.verdicts import Verdicts
from fmrnet.pictures import write_map, write_picture

if TYPE_CHECKING:
    from fmrnet.inspection.inspector import Inspector, Level, Result

__all__ = ["Report", "open_report"]


@contextmanager
def open_report(
    folder: str | Path,
    inspector: Inspector,
    model: str | Path,
    level: Level,
    paths: Sequence[Path],
    *,
    sources: Mapping[Path, str] = MappingProxyType({}),
    resume: bool = False,
    page: Callable[[Report], object] | None = None,
) -> Iterator[Report]:
    """A report in a folder of its own; however the block ends, it is closed with what is done.

    Nothing that this program did not write is replaced. An earlier report in the folder goes, with its files, unless
    the run resumes it: then what it says of pictures that have not changed since stays.

    Parameters
    ----------
    folder : where the files go; made if it is missing.
    inspector : the model in use, for its thresholds and provenance.
    model : the file it came from.
    level : the level that is asked for.
    paths : the pictures of the batch, each file once.
    sources : where pictures came from that were given as no file.
    resume : go on from an earlier report in the folder.
    page : writes a page to look at, once report.json is written. Default: there is none, nor the pictures for it.

    Raises
    ------
    ConfigError : a file that is not ours stands where one of ours would, or the results would lie among the pictures;
        another run is at work in the folder; the earlier report is of another model, level or release.
    OSError : the folder cannot be made or written, or the disk is full.
    """
    folder = Path(folder)
    with claimed(folder):
        report = Report(folder, inspector, model, level, paths, sources=sources, resume=resume, page=page)
        try:
            yield report
        except BaseException as error:
            try:
                report.close()
            except OSError:  # the same full disk, most likely
                if not isinstance(error, OSError):
                    raise
            if isinstance(error, OSError):
                whole = folder / (REPORT if (folder / REPORT).exists() else RECORD)
                error.add_note(f"what is done is in {whole}, and --resume goes on from there")
            raise
        report.close()


class Report(Verdicts):
    """The report of one batch, written picture by picture. Made by `open_report`.

    Attributes
    ----------
    kept : the pictures whose lines a resumed run has from an earlier one
    replaced : how many lines an earlier report had, which this one replaces
    """

    def __init__(
        self,
        folder: Path,
        inspector: Inspector,
        model: str | Path,
        level: Level,
        paths: Sequence[Path],
        *,
        sources: Mapping[Path, str] = MappingProxyType({}),
        resume: bool = False,
        page: Callable[[Report], object] | None = None,
    ) -> None:
        super().__init__(inspector, level, paths, sources)
        self.folder, self._page = folder, page
        calibration = inspector.calibration
        self._head: Line = {
            "fmrnet": fmrnet.__version__,
            "level": level,
            "bits": inspector.bits,
            "region": inspector.provenance.get("region"),
            "thresholds": {
                "score": 1.0,  # a score is a multiple of the threshold of its level
                "false_alarms": calibration.false_alarms,
                "pixel": calibration.pixel_threshold,
                "patch": calibration.patch_threshold,
                "picture": calibration.picture_threshold,
            },
            "model": {
                "file": str(model),
                "sha256": digest(model),
                "config": inspector.config.to_dict(),
                "calibration": calibration.to_dict(),
                "provenance": {k: v for k, v in inspector.provenance.items() if k != "loss_curve"},
            },
        }
        kept, dropped = self._earlier(paths, resume)
        self.kept = set(map(path_of, kept)) & set(paths)
        self.replaced = 0 if resume else len(dropped)
        missing = [path for path in paths if path not in self.kept]
        self._names = output_names(missing, [_name(line) for line in kept])
        self._check(paths)
        for name in (REPORT, PAGE):
            _remove(folder / name)  # an older report is never left beside new maps
        for name in (name for line in dropped for name in line.get("files", {}).values()):
            _remove(folder / name)  # nor maps that no report tells of
        for file in (file for path in missing for file in self._every(path)):
            _remove(file)  # of a run that was killed before it could write the line
        self._record = Record(folder / RECORD, self._head, kept)
        self.lines = self._record.lines

    def add(self, path: Path, picture: NDArray[np.float32], result: Result, identity: Line) -> Line:
        """Write the files of one inspected picture, given as (H, W) or (H, W, 3) in [0, 1], then its line.

        `identity` is what `identify` said of the file before it was read. Raises OSError if something cannot be
        written; nothing of the picture is left then.
        """
        files = self._files(path)
        if result.mask is None or result.anomaly_map is None:
            files = {"overlay.png": files["overlay.png"]}
        told = self._told(path, picture, result, identity)
        outlined = large.by_bands(np.logical_or, told.mask, told.would_be)
        line = told.line
        seen = shown(picture, result, told.mask, outlined, next(iter(told.defects), None))
        pictures = layers(self.inspector, seen, line["shown"]) if self._page else {}
        files |= {
            kind: file for kind, file in self._page_files(path).items() if kind.split(".")[0] in pictures
        }
        line["files"] = {
            kind.split(".")[0]: file.relative_to(self.folder).as_posix() for kind, file in files.items()
        }
        try:
            for folder in {file.parent for file in files.values()}:
                folder.mkdir(parents=True, exist_ok=True)
            write_picture(files["overlay.png"], overlay(seen.picture, seen.mask))
            if result.mask is not None and result.anomaly_map is not None:
                write_picture(files["mask.png"], result.mask)
                write_map(files["map.tiff"], result.anomaly_map)
            for kind, file in files.items():
                if (name := kind.split(".")[0]) in pictures:
                    write_layer(file, pictures[name])
            self._record.append(line)
        except BaseException:
            if not self._record.holds(line):
                for file in files.values():
                    _remove(file)
            raise
        return line

    def content(self) -> dict[str, Any]:
        """The content of report.json."""
        pictures = [line for line in self.lines if "error" not in line]
        errors = [line for line in self.lines if "error" in line]
        return {
            "fmrnet": self._head["fmrnet"],
            "pictures": pictures,
            "errors": errors,
            "summary": self.summary(),
            "drift": self.drift().to_dict(),
            **{key: self._head[key] for key in ("level", "bits", "region", "thresholds", "model")},
        }

    def close(self) -> None:
        """Write report.json, and the page if there is one."""
        self._record.close()
        write_json(self.folder / REPORT, self.content())
        if self._page:
            self._page(self)

    def _files(self, path: Path) -> dict[str, Path]:
        return {kind: self.folder / f"{self._names[path]}.{kind}" for kind in KINDS}

    def _page_files(self, path: Path) -> dict[str, Path]:
        return {kind: self.folder / PAGE_FILES / f"{self._names[path]}.{kind}" for kind in PAGE_KINDS}

    def _every(self, path: Path) -> list[Path]:
        return [*self._files(path).values(), *self._page_files(path).values()]

    def _earlier(self, paths: Sequence[Path], resume: bool) -> tuple[list[Line], list[Line]]:
        """The lines of an earlier report that stay, and those that do not."""
        for name in (RECORD, REPORT, PAGE):
            check_replaceable(self.folder / name)
        found = read_record(self.folder / RECORD)
        if found is None:
            return [], []
        head, lines = found
        if not resume:
            return [], lines
        given = set(paths)
        was, now = _made_by(head), _made_by(self._head)
        if others := [name for name in now if was[name] != now[name]]:
            raise ConfigError(
                f"{self.folder} holds a report of another {' and another '.join(others)}; leave out --resume to "
                "replace it, or name another folder"
            )
        stays = [self._holds(line, path if (path := path_of(line)) in given else None) for line in lines]
        kept = [line for line, holds in zip(lines, stays, strict=True) if holds]
        return kept, [line for line, holds in zip(lines, stays, strict=True) if not holds]

    def _holds(self, line: Line, path: Path | None) -> bool:
        """Whether a line's files are there and, if its picture is given again, the picture is as it was."""
        if "error" in line:
            return False
        whole = all(is_ours(self.folder / name) for name in line["files"].values())
        return whole and (path is None or line.get("file") == identify(path))

    def _check(self, paths: Sequence[Path]) -> None:
        """Raise ConfigError if a file would replace one that is not ours, or lie in the folder of a picture."""
        among = {os.path.realpath(path.parent): path.parent for path in paths}
        for path in self._names:
            files = self._files(path)
            first = files["overlay.png"]
            if (parent := os.path.realpath(first.parent)) in among:
                raise ConfigError(
                    f"{first} would lie among the pictures of {among[parent]}; name another folder as --out"
                )
            for file in self._every(path):
                check_replaceable(file)

    def _append(self, line: Line) -> None:
        self._record.append(line)

    def _named(self, path: str | Path) -> Line:
        """The file that was inspected, and where it came from if it was given as none."""
        source = self._sources.get(Path(path))
        return named(path) | ({} if source is None else {"source": source})

    def _calls(self, path: str | Path, error: object) -> str:
        return printable(error)


def _made_by(head: Line) -> dict[str, object]:
    """What every line of a report must have in common, by its name."""
    model = head.get("model")
    digest = model.get("sha256") if isinstance(model, dict) else None
    thresholds = head.get("thresholds")
    rate = thresholds.get("false_alarms") if isinstance(thresholds, dict) else None
    names = {"release": "fmrnet", "level": "level", "number of bits": "bits", "region": "region"}
    common = {name: head.get(key) for name, key in names.items()}
    return {"model": digest, "rate of false alarms": rate, **common}


def _name(line: Line) -> str:
    return str(line["files"]["overlay"]).removesuffix(".overlay.png")


def _remove(file: Path) -> None:
    if is_ours(file):
        with suppress(FileNotFoundError):
            file.unlink()
