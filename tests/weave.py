"""A tiny training on a few pictures of a weave, seconds long: for tests of the training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmrnet.artifact import read_tensors
from fmrnet.config import Config
from fmrnet.inspection.inspector import Inspector
from fmrnet.learning import training
from fmrnet.network.weights import tensors

TINY = Config(
    channels=(4, 4, 8, 8, 8),
    memory_entries=16,
    iterations=(6, 5, 4),
    batch_size=4,
    schedule="cosine",
    by_rarity=True,
    light=0.5,
    speckle=0.5,
    overlap=0.0,
)


def make_pictures(folder: Path) -> Path:
    """Five grey pictures of a noisy weave in `folder`/good, which is given back; natural ones of noise beside them."""
    good, natural = folder / "good", folder / "natural"
    good.mkdir(parents=True)
    natural.mkdir()
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:96, :112]
    for index in range(5):
        weave = 128 + 50 * np.sin(x / 3 + index) * np.sin(y / 4) + generator.normal(0, 8, x.shape)
        Image.fromarray(weave.clip(0, 255).astype(np.uint8)).save(good / f"{index}.png")
    noise = np.random.default_rng(1).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(natural / "noise.png")
    return good


def learn(good: Path, out: Path, **options: Any) -> Inspector:
    """Train the tiny network on pictures of `make_pictures`."""
    return training.train(good, out, **({"config": TINY, "anomalies": good.parent / "natural"} | options))


def learn_and_save_often(good: Path, out: Path) -> None:
    """Train or go on, with a checkpoint after each step."""
    training.CHECKPOINT_SECONDS = -1.0
    learn(good, out, resume=True)


def weights_of(path: Path) -> dict[str, Any]:
    """The tensors of a model, without its graphs, or of a checkpoint."""
    found = tensors(read_tensors(path)[0])
    return {name: value for name, value in found.items() if not name.startswith("graphs/")}
