"""The figures of an evaluation as a page: what is missed and what is called defective in vain comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fmrnet.evaluation.examples import GOOD
from fmrnet.evaluation.gallery import Gallery, Shown
from fmrnet.evaluation.table import FIGURES, PARTS
from fmrnet.pages.render import fill, plural, strings, write_page

__all__ = ["write_evaluation"]

BARS = 30  # of the histogram of scores


def write_evaluation(path: str | Path, figures: dict[str, Any], gallery: Gallery | None) -> int:
    """Write the page of an evaluation's figures; gives its size in bytes.

    Parameters
    ----------
    path : the HTML file.
    figures : as `Evaluation.figures`
    gallery : pictures to look at.

    Raises
    ------
    OSError, ArtifactError : as `fmrnet.pages.render.write_page`.
    """
    text = strings()["evaluation"]
    found, count = figures["picture"], figures["pictures"]
    summary = " ".join(
        [
            plural(text["found"], count["defective"], found=found["true_positives"]),
            plural(text["alarmed"], count["good"], alarmed=found["false_positives"]),
        ]
    )
    return write_page(
        path,
        "evaluation.html.j2",
        scripts=["static/evaluation.js"],
        data={"each": _rows(figures["each"]), "scores": _histogram(figures["each"])},
        summary=summary,
        about=fill(
            text["about"],
            dataset=figures["dataset"],
            layout=figures["layout"] or "",
            rate=figures["false_alarms"],
        ),
        parts=list(PARTS.values()),
        table=[(title, [_cell(figures[part], name) for part in PARTS]) for name, title in FIGURES.items()],
        classes=[
            (kind, [_cell(one[part], name) for part, name in CLASS_FIGURES])
            for kind, one in figures["classes"].items()
        ],
        class_titles=[f"{FIGURES[name]}, {PARTS[part]}" for part, name in CLASS_FIGURES],
        lines=[*figures["notes"], *figures["cautions"]],
        errors=[error["error"] for error in figures["errors"]],
        misses=_shown(gallery.misses if gallery else [], lambda score: score <= 1),
        false_alarms=_shown(gallery.false_alarms if gallery else [], lambda score: score > 1),
    )


CLASS_FIGURES = (
    ("pixel", "roc_auc"),
    ("pixel", "au_pro"),
    ("pixel", "aupimo"),
    ("picture", "roc_auc"),
    ("picture", "recall"),
)


def _cell(part: dict[str, Any], name: str) -> tuple[str, str]:
    """A figure and its interval as text; empty where the part does not have it."""
    if name not in part:
        return "", ""
    if part[name] is None:
        return "–", ""
    span = part["intervals"].get(name)
    return f"{part[name]:.3f}", "" if span is None else f"{span[0]:.3f} – {span[1]:.3f}"


def _shown(pictures: list[Shown], wrong: Any) -> list[dict[str, Any]]:
    return [
        {
            "picture": one.picture,
            "score": f"{one.score:.2f}",
            "image": one.image,
            "wrong": bool(wrong(one.score)),
        }
        for one in pictures
    ]


def _rows(each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "picture": entry["picture"],
            "kind": entry["class"],
            "defective": entry["defective"],
            "score": round(entry["score"], 4),
            "p": float(f"{entry['p_value']:.3g}"),
            "aupimo": None if "aupimo" not in entry else round(entry["aupimo"], 4),
        }
        for entry in each
    ]


def _histogram(each: list[dict[str, Any]]) -> dict[str, Any]:
    """How many good and defective pictures score how high, in steps of equal ratio; 1 is the threshold."""
    if not each:
        return {"x": [], "good": [], "defective": []}
    scores = np.log10(np.maximum([entry["score"] for entry in each], 1e-3))
    good = np.array([entry["class"] == GOOD for entry in each])
    edges = np.linspace(min(scores.min(), 0.0) - 0.01, max(scores.max(), 0.0) + 0.01, BARS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    return {
        "x": [round(float(value), 4) for value in middles],
        "good": np.histogram(scores[good], edges)[0].tolist(),
        "defective": np.histogram(scores[~good], edges)[0].tolist(),
    }
