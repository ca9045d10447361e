"""The models of a server: several files, each taken up anew when it is replaced on the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmrnet.deployment.endpoints import Asked, Decoding, Endpoint, Inspection
from fmrnet.engines.engine import Divided, Engine, OfNetwork
from fmrnet.errors import ArtifactError, FmrnetError, is_out_of_memory
from fmrnet.inspection.inspector import Inspector, load

__all__ = ["Model", "Models", "UnknownModel", "version_of"]

LOOK_SECONDS = 1.0  # between two looks at the files; one that changes is waited for until it rests
WORKERS = 4  # pictures at once
WARM_SIDE = 1024  # pixels, at most, of the picture that a model is warmed up with
log = logging.getLogger(__name__)


class UnknownModel(FmrnetError):
    """A model, a version or an endpoint that is not served."""


@dataclass(frozen=True)
class Model:
    """A model that is loaded.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    version : str
        As of `version_of`.
    path : Path
    inspector : Inspector
    endpoints : dict of str to Endpoint
        "pixel", "patch" and, of a model with a generator on an engine that offers it, "decoder".
    gathers : bool
        Whether pictures of several threads pass its network at once.
    """

    name: str
    version: str
    path: Path
    inspector: Inspector
    endpoints: dict[str, Endpoint]
    gathers: bool


def version_of(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


class Models:
    """The models of some files. `watch` takes up files that are replaced; until a new one is warm, the old one serves.

    Parameters
    ----------
    paths : list of path
        Of two files of one name, say in two folders, both versions are served; the last one where none is named.
    device, engine : str
        As of `fmrnet.load`.
    most_pixels : int
        Of a picture.

    Raises
    ------
    ArtifactError, ConfigError
        As `fmrnet.load`, for any of the files; or if two files hold the same version of a model.
    """

    def __init__(
        self, paths: Sequence[Path], device: str = "auto", engine: str = "auto", most_pixels: int = 2**25
    ) -> None:
        self._device, self._engine, self._most_pixels = device, engine, most_pixels
        self._states = {path: _state(path) for path in paths}
        self._loaded = {path: self._load(path) for path in paths}
        self.ready = False
        self.failures = 0  # of replaced files that cannot be served
        if len({(one.name, one.version) for one in self._loaded.values()}) < len(paths):
            raise ArtifactError("two of the files are the same model; name each once")

    @property
    def workers(self) -> int:
        """How many pictures are worth inspecting at once: several, where they pass the network together."""
        return WORKERS if any(model.gathers for model in self.all) else 1

    @property
    def all(self) -> list[Model]:
        """Those that serve now."""
        return list(self._loaded.values())

    def find(self, name: str, version: str | None = None) -> tuple[Model, Endpoint]:
        """A model and what of it is asked, by a name such as "carpet.pixel"; UnknownModel if it is not served."""
        stem, _, kind = name.rpartition(".")
        named = [model for model in self.all if model.name == stem and kind in model.endpoints]
        if not named:
            known = sorted({f"{model.name}.{kind}" for model in self.all for kind in model.endpoints})
            raise UnknownModel(f"there is no model {name!r}: expected one of {', '.join(known)}")
        found = named if version is None else [model for model in named if model.version == version]
        if not found:
            versions = ", ".join(model.version for model in named)
            raise UnknownModel(f"there is no version {version!r} of {name!r}: expected {versions}")
        return found[-1], found[-1].endpoints[kind]

    def warm_up(self) -> None:
        """Let every model answer once; from then on the models are ready."""
        for model in self.all:
            _warm_up(model)
        self.ready = True

    def watch(self, stop: threading.Event) -> None:
        """Warm up, then look at the files until told to stop. Of a replacement that cannot be served, say why."""
        if not self.ready:
            self.warm_up()
        resting: dict[Path, object] = {}
        while not stop.wait(LOOK_SECONDS):
            for path, state in self._states.items():
                found = _state(path)
                if found is not None and found != state and resting.get(path) == found:
                    self._states[path] = found
                    self._take_up(path)
                    break  # the states have changed
                resting[path] = found

    def _take_up(self, path: Path) -> None:
        started = time.perf_counter()
        try:
            model = self._load(path)
            _warm_up(model)
        except (FmrnetError, OSError) as error:
            self.failures += 1
            log.error("%s is not taken up, and the model before it goes on: %s", path, error)
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.failures += 1
            log.error("%s is not taken up, for there is no memory for it; the model before it goes on", path)
            return
        before, self._loaded[path] = self._loaded[path], model
        seconds = time.perf_counter() - started
        log.info("%s: version %s after %s, in %.1f s", path, model.version, before.version, seconds)

    def _load(self, path: Path) -> Model:
        """A model and its version, which are of the same bytes."""
        for _ in range(3):
            version = _version(path)
            inspector = load(path, self._device, engine=self._engine)
            if _version(path) == version:
                break
        else:
            raise ArtifactError(f"{path} changes while it is read; replace it in one step, by renaming")
        endpoints: list[Endpoint] = [
            Inspection(inspector, "pixel", self._most_pixels),
            Inspection(inspector, "patch", self._most_pixels),
        ]
        if inspector.config.generator and isinstance(inspector.engine, Divided):
            endpoints.append(Decoding(inspector, self._most_pixels))
        return Model(
            path.stem,
            version,
            path,
            inspector,
            {one.name: one for one in endpoints},
            _gathers(inspector.engine),
        )


def _gathers(engine: Engine) -> bool:
    """Let pictures of several threads pass the network at once, on a GPU.

    On a CPU it was tried: a seventh of the time is saved on pictures of 128 x 128, nothing from 256 x 256 on, and a
    verdict's last digits would depend on the requests beside it.
    """
    return engine.name.startswith("torch cuda") and isinstance(engine, OfNetwork) and engine.gather()


def _version(path: Path) -> str:
    try:
        return version_of(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; expected a model written by `fmrnet train`") from None
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder; expected a model file written by `fmrnet train`") from None


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _warm_up(model: Model) -> None:
    """Inspect noise of the size of a good picture, so that no later picture waits for what is made once."""
    looks = model.inspector.calibration.looks
    least = model.inspector.config.patch_size
    size = [max(least, min(side, WARM_SIDE)) for side in (looks[0].size if looks else (512, 512))]
    noise = np.random.default_rng(0).integers(
        0, 256, (*size, model.inspector.config.image_channels), np.uint8
    )
    for kind in model.endpoints:
        if kind != "decoder":
            model.endpoints[kind].answer(Asked({"picture": noise}, ("score",)))
