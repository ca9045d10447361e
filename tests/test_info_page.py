"""The page that `fmrnet info --html` writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny import ground, make_inspector
from typer.testing import CliRunner

from fmrnet.cli import app
from fmrnet.pages.info import _losses
from fmrnet.pictures import write_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model with a loss curve of two phases, one good picture that is still there and one that is not."""
    folder = tmp_path_factory.mktemp("info")
    write_picture(folder / "<b>there.png", ground())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMRNET_BACKEND", "eager")
        inspector = make_inspector()
    (loudest,) = inspector.calibration.loudest
    there = dataclasses.replace(loudest, picture=str(folder / "<b>there.png"))
    inspector._calibration = dataclasses.replace(inspector.calibration, loudest=(there,), quietest=(loudest,))
    inspector.provenance["loss_curve"] = [[1, 10, 9.5], [1, 20, 7.0], [2, 10, 0.25], [2, 20, 0.125]]
    inspector.save(folder / "tiny.fmr")
    run = CliRunner().invoke(app, ["info", str(folder / "tiny.fmr"), "--html", str(folder / "tiny.html")])
    assert run.exit_code == 0, run.output
    return folder / "tiny.html"


def test_shows_the_model_and_its_good_pictures(chromium: Browser, page: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    faults: list[str] = []
    context = chromium.new_context(bypass_csp=True)
    tab = context.new_page()
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text))
    tab.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url),
    )
    tab.goto(page.as_uri())
    shown = tab.locator("main").inner_text()
    for text in ("learnt from 1 good picture", "called defective", "torch", "multiply-adds", "<b>there.png"):
        assert text in shown, text
    assert shown.count("The picture is no longer there.") == 1
    assert tab.locator(".gallery img").count() == 1
    assert tab.locator("canvas").count() == 2
    tab.locator("#losses .plot").press("ArrowRight")
    assert "9.5" in tab.locator("#losses .u-legend").inner_text(), "keys reach the values of a chart"
    serious = [
        one["id"] for one in Axe().run(tab).response["violations"] if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert faults == []
    context.close()


def test_held_out_parts_of_pictures_are_no_pictures(page: Path, tmp_path: Path) -> None:
    inspector = make_inspector()
    made = inspector.calibration
    picture, patch = (dataclasses.replace(one, parts=5.0) for one in (made.picture, made.patch))
    looks = made.looks * (made.pictures + 4)
    inspector._calibration = dataclasses.replace(made, picture=picture, patch=patch, looks=looks)
    inspector.save(tmp_path / "tiny.fmr")
    out = tmp_path / "tiny.html"
    run = CliRunner().invoke(app, ["info", str(tmp_path / "tiny.fmr"), "--html", str(out)])
    assert run.exit_code == 0, run.output
    text = out.read_text()
    assert "learnt from 4 good pictures" in text
    assert "<dt>Held-out parts of good pictures</dt>" in text


def test_what_stands_there_is_not_replaced(page: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    model = str(page.with_name("tiny.fmr"))
    run = CliRunner().invoke(app, ["info", model, "--html", str(tmp_path / "mine.html")])
    assert run.exit_code == 2
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>mine"
    assert CliRunner().invoke(app, ["info", model, "--html", str(page)]).exit_code == 0


@pytest.mark.parametrize(
    "curve", [None, "x", [[1, 2]], [["a", 1, 1.0]], [[1, 1, "x"]], [[1, 1, 0.0]], [[True, 1, 1.0]]]
)
def test_a_curve_that_is_none_is_left_out(curve: object) -> None:
    assert _losses(curve) == {"steps": [], "phases": [], "losses": []}


def test_phases_follow_each_other() -> None:
    found = _losses([[1, 5, 3.0], [1, 10, 2.0], [2, 5, 1.0]])
    assert found == {"steps": [5, 10, 15], "phases": [1, 2], "losses": [[3.0, 2.0, None], [None, None, 1.0]]}
