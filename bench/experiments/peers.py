"""Peers in Table IV: anomalib's PatchCore, PaDiM and DRAEM on the same folders, scored as ours are.

    pip install 'anomalib[cpu]==2.7.0'
    python bench/experiments/peers.py DATASET [--name NAME] [--peers patchcore padim draem] [--tile 256] [--epochs 700]

Written for anomalib 2.7.0, whose PatchCore and PaDiM fetch ImageNet weights when first used. It has been run through
with all three on drawn pictures, with untrained features and one epoch; not yet with weights on a real set.

Pictures are cut into tiles of 256 x 256 (less where a picture is smaller), the size that anomalib scales its input to,
so that thin defects stay. Maps are stitched at the pictures' own size and scored with the same counts as ours; a
picture's score is that of its worst tile. DRAEM's anomalous contents are the natural pictures that ours learns with;
the rest is anomalib's default.

Writes NAME-peers.json and .png; a peer that is done is not done again. `bench/tables.py` shows its rows beside ours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray

from fmrnet import fast
from fmrnet.evaluation.layouts import load_dataset
from fmrnet.evaluation.metrics import PixelCounts
from fmrnet.learning import data
from fmrnet.listing import list_pictures
from fmrnet.pictures import read_picture, to_channels, write_picture
from fmrnet.progress import Bar

PEERS = {"patchcore": "PatchCore", "padim": "PaDiM", "draem": "DRAEM"}


def main() -> None:
    """Read the command line, train and score each peer, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder in the MVTec layout")
    parser.add_argument("--name", help="in file names; default: the folder's")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=700, help="of DRAEM; the others need one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="where results are written")
    given = parser.parse_args()
    try:
        import anomalib
    except ImportError as error:
        print(
            f"peers.py needs anomalib ({error}); install it with: pip install 'anomalib[cpu]==2.7.0'",
            file=sys.stderr,
        )
        sys.exit(2)
    given.out.mkdir(parents=True, exist_ok=True)
    name = given.name or given.dataset.resolve().name
    settings = {key: getattr(given, key) for key in ("tile", "epochs", "seed")}
    about = {"name": name, "anomalib": anomalib.__version__, **settings}
    results = common.Results(given.out / f"{name}-peers.json", about)
    with Bar() as bar:
        found = {
            peer: results.part(PEERS[peer], lambda peer=peer: measure(peer, given, bar))  # type: ignore[misc]
            for peer in given.peers
        }
    for peer, part in found.items():
        print(
            PEERS[peer],
            {key: common.three(part[key]) for key in common.FIGURES},
        )
    common.plot_scores(results.content["parts"], name, results.path.with_suffix(".png"))


def measure(peer: str, given: argparse.Namespace, bar: Bar) -> dict[str, Any]:
    """Train a peer on the good pictures' tiles and score the test pictures."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from lightning import seed_everything

    seed_everything(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_tiles(given.dataset / "train" / "good", Path(folder) / "good", given.tile)
        write_natural_pictures(Path(folder) / "natural")
        model = build(peer, Path(folder) / "natural")
        started = time.perf_counter()
        tiles = Folder(
            name=peer,
            root=folder,
            normal_dir="good",
            test_split_mode="none",
            val_split_mode="none",
            train_batch_size=8,
            num_workers=0,
        )
        engine = Engine(
            max_epochs=given.epochs if peer == "draem" else 1,
            limit_val_batches=0,  # anomalib would look for pictures to fit a threshold to
            devices=1,
            logger=False,
            default_root_dir=folder,
        )
        engine.fit(model, datamodule=tiles)
        trained = time.perf_counter() - started
    counts, scores, defective, taken = PixelCounts(), [], [], []
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    examples = load_dataset(given.dataset).examples
    for done, example in enumerate(examples):
        bar.show(PEERS[peer], done, len(examples))
        picture = to_channels(read_picture(example.picture), 3)
        started = time.perf_counter()
        found, score = inspect(model, picture, given.tile)
        taken.append(time.perf_counter() - started)
        truth = common.truth_of(example, found.shape)
        counts.add(found, np.zeros_like(truth), truth)
        scores.append(score)
        defective.append(bool(truth.any()))
    bar.show(PEERS[peer], len(examples), len(examples))
    return {
        "good_pictures": len(list_pictures(given.dataset / "train" / "good")),
        "training_seconds": trained,
        "picture_seconds": float(np.median(taken)),
        "pixel_roc_auc": counts.roc_auc(),
        "au_pro": counts.au_pro(),
        "picture_roc_auc": common.roc_auc(scores, defective),
    }


def build(peer: str, natural: Path) -> Any:
    """A peer with anomalib's settings, giving its maps as they are: no threshold and no scaling fitted to anything."""
    from anomalib import models

    bare = {"post_processor": False, "evaluator": False, "visualizer": False}
    if peer == "draem":
        return models.Draem(dtd_dir=natural, **bare)
    return {"patchcore": models.Patchcore, "padim": models.Padim}[peer](**bare)


def tiles_of(picture: NDArray[np.float32], tile: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, S, S) tiles of a picture (H, W, 3), as few as cover it, and where they lie."""
    side = min(tile, *picture.shape[:2])
    return fast.slice_patches(torch.from_numpy(picture.transpose(2, 0, 1).copy()), side, side)


@torch.no_grad()
def inspect(model: Any, picture: NDArray[np.float32], tile: int) -> tuple[NDArray[np.float32], float]:
    """A peer's map (H, W) and score of a picture (H, W, 3)."""
    tiles, origins = tiles_of(picture, tile)
    device = next(model.parameters()).device
    predictions = [model(one[None].to(device)) for one in tiles]
    maps = torch.cat(
        [p.anomaly_map.reshape(1, 1, *p.anomaly_map.shape[-2:]).float().cpu() for p in predictions]
    )
    maps = torch.nn.functional.interpolate(maps, tiles.shape[-2:], mode="bilinear")
    score = max(float(p.pred_score.max()) for p in predictions)
    return fast.stitch_patches(maps, origins, picture.shape[:2])[0].numpy(), score


def write_tiles(good: Path, folder: Path, tile: int) -> None:
    """Cut the good pictures into PNG files."""
    folder.mkdir()
    for file in list_pictures(good):
        for number, one in enumerate(tiles_of(to_channels(read_picture(file), 3), tile)[0]):
            write_picture(folder / f"{file.stem}_{number}.png", _bytes(one.permute(1, 2, 0).numpy()))


def write_natural_pictures(folder: Path) -> None:
    """The natural pictures of fmrnet's training as PNG files."""
    folder.mkdir()
    for name, picture in data.default_natural_pictures().items():
        write_picture(folder / f"{Path(name).stem}.png", _bytes(picture))


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(picture * 255).astype(np.uint8)


if __name__ == "__main__":
    common.command(main)
