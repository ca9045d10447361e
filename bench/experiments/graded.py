"""How small and how faint a defect may be to be found: defects of given size and contrast on good test pictures.

    python bench/experiments/graded.py DATASET [--name NAME] [--model FILE | --preset general --seed 0 ...]
        [--pictures 8]

Every kind of `fmrnet.evaluation.graded_defects` at every size and contrast, one on each picture; pixel ROC-AUC over the
pictures together. Sizes are pixels, and thirds of the shorter side. Without --model, one is trained as surface.py does.
Writes NAME-PRESET-SEED-graded.json (with --model, NAME-graded.json). A grade that is done is not done again.
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np

from fmrnet.evaluation.graded_defects import GRADED_KINDS, draw_graded
from fmrnet.evaluation.layouts import GOOD, load_dataset
from fmrnet.evaluation.metrics import PixelCounts
from fmrnet.pictures import read_picture, to_channels
from fmrnet.progress import Bar

SIZES = {"12 pixels": 12.0, "40 pixels": 40.0, "a third": None}
CONTRASTS = {"stain": (0.5, 1.0, 2.0), "wear": (1.0,), "growth": (1.0,), "crack": (1.0, 3.0), "chip": (2.0,)}


def main() -> None:
    """Read the command line, draw and score each grade, write."""
    parser = common.parser_of_model(__doc__ or "")
    parser.add_argument("--pictures", type=int, default=8, help="good test pictures, the first ones")
    given = parser.parse_args()
    with Bar() as bar:
        inspector, stem, about = common.model_of(given, bar)
        good = [example.picture for example in load_dataset(given.dataset) if example.defect == GOOD]
        channels = inspector.model.config.image_channels
        pictures = [to_channels(read_picture(path), channels).squeeze() for path in good[: given.pictures]]
        results = common.Results(given.out / f"{stem}-graded.json", {**about, "pictures": len(pictures)})

        def measure(kind: str, contrast: float, size: float | None) -> dict[str, Any]:
            counts = PixelCounts()
            for seed, picture in enumerate(pictures):
                bar.show(f"{kind} {contrast:g}", seed + 1, len(pictures))
                extent = size or min(picture.shape[:2]) / 3
                drawn, mask = draw_graded(picture, kind, size=extent, contrast=contrast, seed=seed)
                found = inspector.inspect(drawn)
                assert found.anomaly_map is not None
                counts.add(found.anomaly_map.astype(np.float32), found.anomaly_map > 0.5, mask)
            return {"pixel_roc_auc": counts.roc_auc()}

        for kind in GRADED_KINDS:
            for contrast in CONTRASTS[kind]:
                for name, size in SIZES.items():
                    part = results.part(
                        f"{kind} {contrast:g} {name}",
                        lambda k=kind, c=contrast, s=size: measure(k, c, s),  # type: ignore[misc]
                    )
                    print(f"{kind} {contrast:g}, {name}: {common.three(part['pixel_roc_auc'])}")


if __name__ == "__main__":
    common.command(main)
