"""The page of an evaluation in a real browser, and two results beside each other."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import only_error, run
from PIL import Image
from tiny import ground

from fmrnet.evaluation.compare import compare
from fmrnet.evaluation.gallery import WORST, Gallery, _part
from fmrnet.evaluation.layouts import LAYOUTS

MASK = np.zeros((96, 112), bool)
MASK[30:50, 40:60] = True


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.astype(np.uint8) * (255 if picture.dtype == bool else 1)).save(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four good pictures, four with a hole, one of whose names is markup, and one no UTF-8."""
    root = tmp_path_factory.mktemp("evaluated") / "set"
    for number in range(8):
        name = {6: os.fsdecode(b"\xff6"), 7: "<b>&'7"}.get(number, f"{number}")
        good = number < 4
        picture = ground(seed=number)
        save(root / f"test/{'good' if good else 'hole'}/{name}.png", np.where(MASK & (not good), 0, picture))
        if not good:
            save(root / f"ground_truth/hole/{name}_mask.png", MASK)
    return root


@pytest.fixture(scope="module")
def results(model, dataset):
    """Results of one model at two rates of false alarms: the same scores, other verdicts."""
    found = []
    for rate in ("0.05", "0.6"):
        out = dataset.parent / f"at-{rate}.json"
        seen = run("evaluate", model, dataset, "--out", out, "--false-alarms", rate)
        assert seen.exit_code == 0, seen.output
        assert f"wrote {out.with_suffix('.html')}" in seen.stdout
        assert "is read as mvtec; --layout takes another layout" in seen.stderr
        found.append(out)
    return found


def test_the_page_shows_the_worst_first_and_every_picture(chromium, results):
    from axe_playwright_python.sync_playwright import Axe

    figures = json.loads(results[0].read_text())
    page, told = chromium.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(results[0].with_suffix(".html").as_uri())
    assert told == []
    found = figures["picture"]["true_positives"]
    assert f"{found} of 4 defective pictures are found." in page.locator(".summary").inner_text()
    misses, alarms = page.locator(".gallery").all()
    worst = sorted(
        (e for e in figures["each"] if e["class"] == "hole"), key=lambda e: (e["score"], e["picture"])
    )
    captions = misses.locator("figcaption").all_inner_texts()
    assert [text.splitlines()[-1] for text in captions] == [entry["picture"] for entry in worst]
    assert captions[0].startswith("Found." if worst[0]["defective"] else "Missed.")
    loudest = max((e for e in figures["each"] if e["class"] == "good"), key=lambda e: e["score"])
    assert loudest["picture"] in alarms.locator("figcaption").first.inner_text()
    assert all(image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 112
               for image in page.locator(".gallery img").all())  # fmt: skip
    rows = page.locator("#each tbody tr")
    scores = [float(row.locator("td").nth(3).inner_text()) for row in rows.all()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 8
    assert f"{figures['pixel']['au_pro']:.3f}" in page.locator("table").first.inner_text()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    violations = Axe().run(page).response["violations"]
    assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
    page.close()


def test_the_gallery_holds_the_worst_alone():
    gallery, rng = Gallery(), np.random.default_rng(0)
    scores = rng.random(50)
    for number, score in enumerate(scores):
        flat = np.zeros((3, 2000), np.float32)
        shown = gallery.shown(f"{number}", float(score), bool(number % 2), flat, flat == 0, None)
        if shown is not None:
            gallery.keep(shown)
    for shown, expected in (
        (gallery.misses, np.sort(scores[::2])),
        (gallery.false_alarms, -np.sort(-scores[1::2])),
    ):
        assert [one.score for one in shown] == expected[:WORST].tolist()


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize(("place", "expected"), [(0, (0, 60)), (500, (470, 530)), (999, (940, 1000))])
def test_of_a_slender_picture_the_part_around_the_defect_is_shown(upright, place, expected):
    truth = np.zeros((20, 1000), bool)
    truth[3:5, place] = True
    part = _part(truth.T if upright else truth)
    assert (part[1 - upright].start, part[1 - upright].stop) == expected
    assert part[int(upright)] == slice(None)
    assert _part(truth[:, :60]) == (slice(None), slice(None))


def test_a_page_of_nothing_is_written(tmp_path, model, dataset):
    shutil.copytree(dataset / "test" / "good", tmp_path / "set" / "test" / "good")
    for path in (tmp_path / "set/test/good").iterdir():
        path.write_bytes(b"")
    seen = run("evaluate", model, tmp_path / "set", "--html", tmp_path / "page.html")
    assert seen.exit_code == 2  # no picture could be read
    assert "0.png" in (tmp_path / "page.html").read_text()


def test_two_results_are_compared_on_the_same_draws(results, tmp_path):
    out = tmp_path / "difference.json"
    seen = run("evaluate", "--compare", *results, "--out", out)
    assert seen.exit_code == 0, seen.output
    found = json.loads(out.read_text())
    same = found["figures"]["pixel.roc_auc"]  # the map is that of the same model
    assert (same["difference"], same["interval"], same["differs"]) == (0.0, [0.0, 0.0], False)
    one, other = (json.loads(path.read_text()) for path in results)
    rates = [result["picture"]["false_positive_rate"] for result in (one, other)]
    assert found["figures"]["picture.false_positive_rate"]["difference"] == rates[1] - rates[0]
    assert f"second: {results[1]}" in seen.stdout
    back = json.loads(run("evaluate", "--compare", *results[::-1], "--out", out) and out.read_text())
    assert (
        back["figures"]["picture.recall"]["difference"] == -found["figures"]["picture.recall"]["difference"]
    )


def test_verdicts_that_one_of_two_has_right_are_named(results, tmp_path):
    def turn(content):
        for entry in content["each"]:
            entry["defective"] = entry["defective"] != (
                entry["picture"] in ("test/good/0.png", "test/hole/4.png")
            )

    one = json.loads(results[0].read_text())
    wrong = {e["picture"] for e in one["each"] if e["defective"] != (e["class"] != "good")}
    found = compare(results[0], changed(results[0], tmp_path, turn))["verdicts"]
    assert found["only_first_right"] + found["only_second_right"]
    for name in ("test/good/0.png", "test/hole/4.png"):
        assert name in found["only_second_right" if name in wrong else "only_first_right"]


def changed(result, tmp_path, change):
    """A result with something else in it."""
    content = json.loads(Path(result).read_text())
    change(content)
    (tmp_path / "changed.json").write_text(json.dumps(content))
    return tmp_path / "changed.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["each"].pop(), "holds 1 pictures that .*changed.json does not"),
        (lambda c: c["each"][0].update(sha256="0"), "are of other pictures of the same names: test/"),
        (lambda c: c["each"][0].update(truth_sha256="0"), "are of other masks: test/"),
        (lambda c: c["each"][0].pop("sha256"), "does not say which pictures it is of"),
        (lambda c: c["resampling"].update(seed=1), "drawn with other settings; evaluate both anew"),
        (
            lambda c: c["resampling"]["replicates"].update({"pixel.f1": "AAAA"}),
            "replicates of pixel.f1 are damaged",
        ),
        (
            lambda c: c["resampling"]["replicates"].update({"pixel.f1": 3}),
            "replicates of pixel.f1 are damaged",
        ),
        (lambda c: c.pop("resampling"), "is no result of `fmrnet evaluate --out`"),
        (lambda c: c.update(each=3), "is no result of `fmrnet evaluate --out`"),
    ],
)
def test_results_of_other_data_are_refused_in_words(results, tmp_path, change, message):
    seen = run("evaluate", "--compare", results[0], changed(results[1], tmp_path, change))
    line = only_error(seen)
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "a.json", "none.json"], "a.json cannot be read"),
        (["--compare", "a.json", "b.json", "--drawn"], "--compare takes two results and nothing but --out"),
        ([], "expected MODEL and DATASET, or --compare A.json B.json"),
        (["m.fmr"], "expected MODEL and DATASET"),
        (["m.fmr", "set", "--out", "a.html"], "a.html is for JSON and cannot be the page, too"),
        (["m.fmr", "set", "--drawn", "--html", "a.html"], "--drawn takes a folder of good pictures"),
    ],
)
def test_what_does_not_go_together_is_said(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in only_error(run("evaluate", *arguments))


def test_help_and_docs_name_every_layout():
    page = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text()
    told = run("evaluate", "--help").output
    for name in LAYOUTS:
        assert f"`{name}`" in page
        assert name in told


def test_a_layout_that_is_none_and_a_page_of_others_are_refused(model, dataset, tmp_path):
    assert "layout 'voc': expected one of" in only_error(run("evaluate", model, dataset, "--layout", "voc"))
    (tmp_path / "mine.html").write_text("<!doctype html><title>mine</title>")
    line = only_error(run("evaluate", model, dataset, "--out", tmp_path / "mine.json"))
    assert "mine.html was not written by fmrnet" in line
