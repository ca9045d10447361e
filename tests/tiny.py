"""A tiny, untrained inspector, quick to make, that all around it takes for a trained one; and a full disk."""

from __future__ import annotations

import builtins
import dataclasses
import errno
from typing import IO, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fmrnet import files
from fmrnet.config import Config, preset
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.inspection.calibration import Calibration, calibrate
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.limits import Limits
from fmrnet.network.model import FMRNet

CONFIG: Config = dataclasses.replace(
    preset("edge"),
    channels=(2, 3, 4, 4, 4),
    memory_entries=8,
    addressing_width=8,
    iterations=(2, 2, 2),
    batch_size=2,
    overlap=0.25,
)


def ground(height: int = 96, width: int = 112, *, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of a rough surface: (H, W) or (H, W, 3)."""
    shape = (height, width) if channels == 1 else (height, width, 3)
    return np.random.default_rng(seed).integers(90, 150, shape, dtype=np.uint8)


def same(reading: float) -> GoodScores:
    """Of good pictures with the same single reading, which is the threshold at a rate of 0.05."""
    return GoodScores(((reading,),) * 19)


def with_thresholds(*, picture: float, patch: float, pixel: float, limits: Limits) -> Calibration:
    """A calibration with these thresholds at a rate of 0.05, those of pictures and patches in readings of them."""
    return Calibration(
        false_alarms=0.05,
        picture=same(picture),
        patch=same(patch),
        pixels=1,
        k=3.0,
        pixel_threshold=pixel,
        early_exit=EarlyExit(),
        limits=limits,
        looks=(),
    )


def make_inspector(channels: int = 1) -> Inspector:
    """An inspector with random weights, calibrated on one picture of `ground`."""
    torch.manual_seed(0)
    model = FMRNet(dataclasses.replace(CONFIG, image_channels=channels)).eval()
    model.mean.fill_(0.5)
    model.std.fill_(0.1)
    torch.nn.init.normal_(model.memory)
    good = ground(channels=channels).astype(np.float32) / 255
    good = good[None] if channels == 1 else good.transpose(2, 0, 1)
    engine = TorchEngine(model)
    calibration = calibrate(engine, [("good.png", good)])
    return Inspector(engine, calibration, {"command": "none", "seed": 0, "loss_curve": [[1, 10, 0.5]]})


def make_sensitive_inspector() -> Inspector:
    """One that calls all pictures of `ground` defective and marks the loudest part of each."""
    inspector = make_inspector()
    found = inspector.inspect(ground()).anomaly_map
    assert found is not None
    calibration = inspector.calibration
    inspector._calibration = dataclasses.replace(
        calibration,
        k=3.0,
        pixel_threshold=float(np.quantile(found, 0.9)),
        limits=dataclasses.replace(calibration.limits, distance=1e-9),  # which all pictures pass
    )
    return inspector


def make_general_inspector(channels: int, **settings: Any) -> Inspector:
    """One with witnesses on general features, that passes pictures at once: it can be written as graphs."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        CONFIG, image_channels=channels, general=True, tile="picture", overlap=0.5, **settings
    )
    model = FMRNet(config).eval()
    model.mean.fill_(0.5)
    model.std.fill_(0.1)
    if config.generator:
        torch.nn.init.normal_(model.memory)
        assert model.fusion is not None
        model.fusion.good_std.fill_(0.01)  # else the untrained fusion says the same of everything
    assert model.general is not None
    levels = model.general.surprise.levels
    levels.copy_(torch.linspace(0, 30, levels.shape[1]).expand_as(levels))
    model.general.near.normal_(std=0.1)
    model.general.make_places((model.general.witnesses, 24, 28))
    model.general.place.uniform_(0, 0.1)  # what else is seen is no less surprising
    good = ground(channels=channels).astype(np.float32).reshape(96, 112, channels) / 255
    engine = TorchEngine(model)
    return Inspector(engine, calibrate(engine, [("good.png", good.transpose(2, 0, 1))]), {})


def without_names(calibration: Calibration) -> Calibration:
    """The same whatever the pictures are called, say in another folder."""
    nameless = {
        name: tuple(dataclasses.replace(one, picture="") for one in getattr(calibration, name))
        for name in ("loudest", "quietest")
    }
    return dataclasses.replace(calibration, **nameless)


class _FullFile:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: IO[Any], room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """From now on every file that this package writes has room for `room` bytes."""

    def open_full(path: Any, mode: str = "r", **options: Any) -> _FullFile:
        return _FullFile(builtins.open(path, mode, **options), room)

    monkeypatch.setattr(files, "open", open_full, raising=False)
