"""Trainings of tests/test_processes.py; `torchrun --nproc-per-node 2 together.py FOLDER` is what a process does there.

In FOLDER it trains tiny networks on the pictures of `weave.make_pictures` and writes what it found. One process is
asked to stop, and at the end one is killed.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from weave import TINY, learn

from fmrnet.artifact import write_tensors
from fmrnet.learning import bank, data, general_training, generator_training, processes, training
from fmrnet.network import weights
from fmrnet.terminal import errors_in_one_line

SHARED = replace(TINY, batch_size=8, iterations=(4, 3, 3))  # which two processes share evenly
EXACT = {
    "discriminator": replace(SHARED, iterations=(8, 6, 6)),
    "whole pictures, head": replace(
        SHARED, iterations=(6, 6, 4), tile="picture", overlap=0.5, batch_size=16,
        weight_adv=0.0, mixing="dense", general=True, head_iterations=4,
    ),
}  # fmt: skip


@contextmanager
def in_64_bits() -> Iterator[None]:
    """Everything is computed in float64, in which rounding is too small to grow to anything within a few steps."""
    cut, whole, establish = data.PicturePool._cut, data.PicturePool.whole, bank.establish_bank

    def establish_bank(model: Any, pool: Any) -> Tensor:
        return establish(model.double(), pool)

    with (
        _default(torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
        patch.object(torch.Tensor, "half", torch.Tensor.double),
        patch.object(data.PicturePool, "_cut", lambda *given: cut(*given).double()),
        patch.object(data.PicturePool, "whole", lambda pool: (picture.double() for picture in whole(pool))),
        patch.object(bank, "establish_bank", establish_bank),
    ):
        yield


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def learn_exactly(good: Path, name: str) -> None:
    """The loss of every step, and what each process ends with; no model, which is in float32."""
    out, curve = good.parent / name, []

    def tell(run: Any, phase: str, step: int, total: int, loss: float) -> None:
        if not math.isnan(loss):
            curve.append((phase, step, loss))

    ended: dict[str, Tensor] = {}

    def remember(run: Any, *given: Any, learn_all: Callable[..., None] = training._learn) -> None:
        learn_all(run, *given)
        for part, module in run.networks.modules.items():
            ended.update({f"{part}.{key}": value for key, value in module.state_dict().items()})

    with (
        in_64_bits(),
        patch.object(training, "REPORT_STEPS", 1),
        patch.object(training.Run, "tell", tell),
        patch.object(training, "_learn", remember),
        patch.object(training, "_finish", lambda *given: None),
        patch.object(general_training, "CROPS", 16),  # of a backbone that takes its time in 64 bits
        patch.object(training, "load", lambda *given, **options: None),
    ):
        learn(good, out, config=EXACT[name])
    rank = os.environ.get("RANK", "alone")
    Path(f"{out}.{rank}.json").write_text(json.dumps(curve))
    write_tensors(f"{out}.{rank}", weights.arrays(ended), {})


def at_step(number: int, act: Callable[[], None]) -> Any:
    """While this lasts, `act` is called in the midst of the generator's step of that number."""
    left = iter(range(number - 1, -1, -1))

    def update(*given: Any, update: Callable[..., Tensor] = generator_training.update) -> Tensor:
        if next(left, None) == 0:
            act()
        return update(*given)

    return patch.object(generator_training, "update", update)


def main() -> None:
    """One training that is stopped and goes on, those in 64 bits, and one of which the second process is killed."""
    folder = Path(sys.argv[1])
    good = folder / "good"
    torch.set_num_threads(1)
    last = os.environ.get("RANK") == "1"
    kill = functools.partial(os.kill, os.getpid())
    with processes.joined("cpu"):
        with at_step(3, lambda: kill(signal.SIGINT) if last else None), suppress(training.Interrupted):
            learn(good, folder / "model", config=SHARED)
            raise AssertionError("the training did not stop")
        assert training.checkpoint_path(folder / "model").exists()
        learn(good, folder / "model", config=SHARED, resume=True)
        for name in EXACT:
            learn_exactly(good, name)
        training.CHECKPOINT_SECONDS = -1.0
        with at_step(3, lambda: kill(signal.SIGKILL) if last else None):
            learn(good, folder / "killed", config=SHARED)


if __name__ == "__main__":
    with errors_in_one_line():
        main()
