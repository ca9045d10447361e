"""AUPIMO as anomalib has it, on random pictures that can be drawn again.

Made once with anomalib 2.7.0 (torch 2.14.1, NumPy 2.4.6), in an environment of its own:

    from anomalib.metrics.pimo.functional import aupimo_scores
    maps, masks = case(seed)
    rates = [count / PIXELS for count in counts]
    maps, masks = torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks)).int()
    aupimo_scores(maps, masks, 300_000, rates, force=True)[4]

The rates are whole numbers of the good pictures' pixels, so that anomalib, which goes from one of its thresholds to
another, begins and ends where it is told to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE, GOOD, DEFECTIVE = 96, 5, 4
PIXELS = GOOD * SIDE**2

AUPIMO = {  # (seed, counts of the two rates): of the defective pictures
    (0, (50, 500)): (0.028266363918603807, 0.0, 0.006880564464993085, 0.0),
    (0, (200, 4000)): (
        0.09025863186566971,
        0.017695115762372624,
        0.04577644472797861,
        0.00037665702085288736,
    ),
    (1, (50, 500)): (0.0, 0.0, 0.09767338619930356, 0.008614831641275736),
    (1, (200, 4000)): (2.343432734369321e-05, 0.0, 0.18550666674747252, 0.061386891981794395),
    (2, (50, 500)): (0.00042823235959141596, 0.003545777306509081, 0.033333333333333326, 0.08467176232201648),
    (2, (200, 4000)): (0.02434596413669403, 0.03945182057038258, 0.05466745662495761, 0.1692173484365433),
    (3, (50, 500)): (5.439567425941224e-06, 0.066033933719805, 0.09521488984612554, 0.0),
    (3, (200, 4000)): (0.02146088450562761, 0.10690672522303106, 0.10969667662552104, 0.00014748159928998028),
}


def case(seed: int) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """Maps and masks, the good ones first."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(GOOD + DEFECTIVE):
        values = rng.random((SIDE, SIDE)) ** 2 * rng.uniform(0.5, 1.0)
        mask = np.zeros((SIDE, SIDE), bool)
        if number >= GOOD:
            row, column = rng.integers(0, SIDE - 24, 2)
            mask[row : row + rng.integers(4, 24), column : column + rng.integers(4, 24)] = True
            values[mask] += rng.uniform(0.0, 0.6) * rng.random(int(mask.sum()))
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks
