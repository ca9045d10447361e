"""Pictures of several threads pass a network together, and what is found of each is its own."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny import CONFIG
from torch import Tensor

from fmrnet.engines.meeting import Meeting
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.network.model import FMRNet


def test_calls_that_wait_pass_together_by_size() -> None:
    batches: list[tuple[int, ...]] = []
    first, go = threading.Event(), threading.Event()

    def double(pictures: Tensor) -> list[Tensor]:
        batches.append(tuple(pictures.shape))
        first.set()
        assert go.wait(10)
        return [2 * pictures, pictures.sum((1, 2, 3))]

    meeting = Meeting(double, 3 * 64, threading.Lock())
    pictures = [torch.full((1, 8, 8), float(number)) for number in range(6)] + [torch.ones(1, 16, 16)]
    with ThreadPoolExecutor(7) as threads:
        found = [threads.submit(meeting, pictures[0])]
        assert first.wait(10)
        found += [threads.submit(meeting, picture) for picture in pictures[1:]]
        while len(meeting._waiting) < 6:
            pass
        go.set()
        for picture, future in zip(pictures, found):
            doubled, total = future.result()
            assert torch.equal(doubled, 2 * picture[None])
            assert torch.equal(total, picture.sum()[None])
    assert sorted(batches) == [(1, 1, 8, 8), (1, 1, 16, 16), (2, 1, 8, 8), (3, 1, 8, 8)]


def test_what_fails_together_passes_alone_and_what_fails_alone_says_so() -> None:
    def fail(pictures: Tensor) -> list[Tensor]:
        if len(pictures) > 1 or pictures.max() > 5:
            raise RuntimeError("no memory")
        return [pictures]

    meeting = Meeting(fail, 10**6, threading.Lock())
    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(meeting, torch.full((1, 8, 8), float(number))) for number in range(8)]
        for number, future in enumerate(found):
            if number > 5:
                with pytest.raises(RuntimeError, match="no memory"):
                    future.result()
            else:
                assert future.result()[0].max() == number
    assert not meeting._waiting


@pytest.mark.parametrize("tile", ["picture", "patch"])
def test_an_engine_finds_the_same_of_pictures_that_pass_together(tile: str) -> None:
    torch.manual_seed(0)
    overlap = 0.5 if tile == "picture" else CONFIG.overlap
    config = dataclasses.replace(CONFIG, general=True, tile=tile, overlap=overlap, head_iterations=0)
    model = FMRNet(config).eval()
    torch.nn.init.normal_(model.memory)
    pictures = np.random.default_rng(0).random((6, 1, 96, 100), np.float32)
    alone, together = TorchEngine(model), TorchEngine(model)
    assert together.gather()

    def inspect(engine: TorchEngine, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = engine.glance(picture)
        return seen.readings, engine.compare(seen).evidence

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda picture: inspect(together, picture), pictures))
    for picture, arrays in zip(pictures, found):
        for array, expected in zip(arrays, inspect(alone, picture)):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    assert not TorchEngine(FMRNet(CONFIG)).gather()
