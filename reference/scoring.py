"""How well maps and scores tell defects (section IV.A), and the threshold from defect-free pictures.

ROC  recall over false positive rate, every score a threshold    PRO  per-region overlap: recall of each
defect region, mean over the regions                             mu, sigma  mean and standard deviation
PIMO  recall of one picture's defect over the mean false positive rate of the good pictures
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import rankdata

from ._checks import Array, numbers

ALARM_PIXELS = 64


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a defect outscores a good one, ties counting half.

    Parameters
    ----------
    scores : any shape
        Higher is more defective: one per picture, patch or pixel.
    labels : the same shape, bool or 0/1
        True is defective.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        Shapes differ, NaN, or only one of the two classes is there.
    """
    score, defective = numbers("scores", np.ravel(scores), "(n,)"), _binary("labels", labels).ravel()
    if score.shape != defective.shape:
        raise ValueError(f"{score.size} scores for {defective.size} labels; expected one label per score")
    positives, negatives = int(defective.sum()), int((~defective).sum())
    if not positives or not negatives:
        raise ValueError(f"labels hold {positives} defective and {negatives} good; expected some of both")
    above = rankdata(score)[defective].sum() - positives * (positives + 1) / 2  # Mann-Whitney U
    return float(above / (positives * negatives))


def au_pro(maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by that rate.

    At each threshold: the overlap of a region (connected over edges and corners) is the share of its pixels
    at or above the threshold, the false positive rate is that share among all defect-free pixels. Every
    distinct score is a threshold; between two of them the curve is straight.

    Parameters
    ----------
    maps : sequence of (H, W)
        Anomaly maps; sizes may differ.
    masks : sequence of (H, W), bool or 0/1
        True is defective; empty for a good picture.
    limit : float in (0, 1]
        Greatest false positive rate.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        Shapes differ, NaN, no defect region or no defect-free pixel.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit!r}; expected a false positive rate in (0, 1]")
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks; expected one mask per map, at least one")
    score_parts, region_parts, size_parts, regions = [], [], [], 0
    for n, (values, truth) in enumerate(zip(maps, masks)):
        A, mask = numbers(f"maps[{n}]", values, "(H, W)"), _binary(f"masks[{n}]", truth)
        if A.shape != mask.shape:
            raise ValueError(f"maps[{n}] has shape {A.shape} but masks[{n}] {mask.shape}; expected one shape")
        label, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(label.ravel(), minlength=count + 1)
        score_parts.append(A.ravel())
        region_parts.append(mask.ravel())
        size_parts.append(sizes[label].ravel())  # pixels of the region that each pixel is in
        regions += count
    score, inside, size = (
        np.concatenate(score_parts),
        np.concatenate(region_parts),
        np.concatenate(size_parts),
    )
    good = int((~inside).sum())
    if not regions or not good:
        raise ValueError(f"masks hold {regions} defect regions and {good} good pixels; expected some of both")

    order = np.argsort(-score, kind="stable")
    score, inside, size = score[order], inside[order], size[order]
    pro = np.cumsum(np.where(inside, 1 / size, 0.0)) / regions
    false_positive = np.cumsum(~inside) / good
    last = np.append(score[1:] != score[:-1], True)  # equal scores pass the threshold together
    x = np.concatenate([[0.0], false_positive[last]])
    y = np.concatenate([[0.0], pro[last]])
    return _area(x, y, limit) / limit


def aupimo(
    maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], bounds: tuple[float, float] = (1e-5, 1e-4)
) -> Array:
    """Area under each defective picture's PIMO curve between two false positive rates, their axis logarithmic.

    At each threshold: the recall is the share of a picture's defective pixels at or above it, the false positive
    rate is that share among a good picture's pixels, mean over the good pictures. Every distinct score is a threshold;
    between two of them the curve is straight over the logarithm of the rate, of which 0 has none: it counts as the
    lesser bound, or the least rate above 0 if that is less. The area is divided by that of recall 1 (Bertoldo et al.,
    AUPIMO, 2024).

    Parameters
    ----------
    maps : sequence of (H, W)
        Anomaly maps; sizes may differ.
    masks : sequence of (H, W), bool or 0/1
        True is defective; empty for a good picture.
    bounds : (float, float)
        False positive rates, above 0, at most 1, the lesser first.

    Returns
    -------
    (n,) in [0, 1], NaN for a good picture

    Raises
    ------
    ValueError
        Shapes differ, NaN, no defective or no good picture, or no such bounds.
    """
    low, high = bounds
    if not 0 < low < high <= 1:
        raise ValueError(
            f"bounds are {bounds!r}; expected two false positive rates in (0, 1], the lesser first"
        )
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks; expected one mask per map")
    good, defective = [], {}
    for n, (values, truth) in enumerate(zip(maps, masks)):
        A, mask = numbers(f"maps[{n}]", values, "(H, W)"), _binary(f"masks[{n}]", truth)
        if A.shape != mask.shape:
            raise ValueError(f"maps[{n}] has shape {A.shape} but masks[{n}] {mask.shape}; expected one shape")
        if mask.any():
            defective[n] = np.sort(A[mask])
        else:
            good.append(np.sort(A, axis=None))
    if not good or not defective:
        raise ValueError(f"{len(defective)} defective and {len(good)} good pictures; expected some of both")

    found = np.full(len(maps), np.nan)
    for n, inside in defective.items():
        thresholds = np.unique(np.concatenate([*good, inside]))[::-1]
        x = np.mean([_share_at_or_above(one, thresholds) for one in good], axis=0)
        x, y = np.append(0.0, x), np.append(0.0, _share_at_or_above(inside, thresholds))
        log_x = np.log(np.where(x > 0, x, min(low, x[x > 0].min())))
        ends = np.log([low, high])
        within = (log_x >= ends[0]) & (log_x <= ends[1])
        at_ends = np.interp(ends, log_x, y)
        log_x = np.concatenate([ends[:1], log_x[within], ends[1:]])
        level = np.concatenate([at_ends[:1], y[within], at_ends[1:]])
        found[n] = np.trapezoid(level, log_x) / (ends[1] - ends[0])
    return found


def precision_recall_f1(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[float, float, float]:
    """Precision, recall and F1 of a decision.

    Parameters
    ----------
    prediction, truth : one shape, bool or 0/1
        True is defective.

    Returns
    -------
    precision, recall, f1 : float in [0, 1]
        0 where the share is of nothing (none predicted, none there).
    """
    P, T = _binary("prediction", prediction), _binary("truth", truth)
    if P.shape != T.shape:
        raise ValueError(f"prediction has shape {P.shape} but truth {T.shape}; expected one shape")
    hits, predicted, there = int((P & T).sum()), int(P.sum()), int(T.sum())
    precision = hits / predicted if predicted else 0.0
    recall = hits / there if there else 0.0
    f1 = 2 * hits / (predicted + there) if predicted + there else 0.0
    return precision, recall, f1


def k_sigma_threshold(normal_maps: Sequence[npt.ArrayLike], k: float = 3.0) -> float:
    """mu + k sigma of every value of the anomaly maps of held-out defect-free pictures (section IV.E, [30]).

    Parameters
    ----------
    normal_maps : sequence of arrays
        Sizes may differ.
    k : float

    Returns
    -------
    float
        Population standard deviation.
    """
    if not len(normal_maps):
        raise ValueError("normal_maps is empty; expected the map of at least one defect-free picture")
    values = np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in normal_maps])
    values = numbers("normal_maps", values, "(n,)")
    return float(values.mean() + k * values.std())


def patch_alarms(alarm_map: npt.ArrayLike, size: int, cell: int = 1) -> Array:
    """How defective each patch is: the mean of its ALARM_PIXELS greatest values; a picture is what its worst patch is.

    A single greatest value is ruled by the noise of one pixel; a defect covers more, and they lie close together.
    Patches lie half a patch apart, those at the lower and right border filled up with 0.

    Parameters
    ----------
    alarm_map : (H, W), 0 or more
        A value for each cell of `cell` x `cell` pixels.
    size : int
        Of a patch, in pixels; a multiple of 2 cells.
    cell : int

    Returns
    -------
    (rows, columns)
        In the map's unit.

    Raises
    ------
    ValueError
        Not (H, W), NaN, or a value below 0.
    """
    count = max(1, ALARM_PIXELS // cell**2)
    return _of_patches(alarm_map, size // cell, lambda patch: np.sort(patch, axis=None)[-count:].mean())


def patch_means(alarm_map: npt.ArrayLike, size: int, cell: int = 1) -> Array:
    """The mean of each patch: what `patch_alarms` is for small defects, for those as large as a patch.

    Parameters
    ----------
    alarm_map, size, cell
        As in `patch_alarms`.

    Returns
    -------
    (rows, columns)
    """
    return _of_patches(alarm_map, size // cell, np.mean)


def _of_patches(alarm_map: npt.ArrayLike, size: int, statistic: Callable[[Array], float]) -> Array:
    A, step = numbers("alarm_map", alarm_map, "(H, W)"), size // 2
    if A.min() < 0:
        raise ValueError(f"alarm_map holds {A.min()}; expected values of 0 or more")
    rows, columns = (range(0, max(side - step, 1), step) for side in A.shape)
    found = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            patch = np.zeros((size, size))
            inside = A[row : row + size, column : column + size]
            patch[: inside.shape[0], : inside.shape[1]] = inside
            found[i, j] = statistic(patch)
    return found


def _share_at_or_above(ascending: Array, thresholds: Array) -> Array:
    return 1 - np.searchsorted(ascending, thresholds) / len(ascending)


def _area(x: Array, y: Array, limit: float) -> float:
    """Area under straight lines through (x, y), x rising from 0 to 1, as far as x = limit."""
    inside = x <= limit
    x_end, y_end = limit, np.interp(limit, x, y)
    x, y = np.append(x[inside], x_end), np.append(y[inside], y_end)
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())


def _binary(name: str, value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    array = np.asarray(value)
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} holds values other than 0 and 1; compare with a threshold first")
    return array.astype(bool)
