"""report.html in a real browser: it decides as Python does, asks the network for nothing, and anybody can use it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tiny import CONFIG, ground

from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.errors import printable
from fmrnet.inspection.annotations.regions import regions
from fmrnet.inspection.batch import inspect_each
from fmrnet.inspection.calibration import calibrate
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.inspector import Inspector, Level
from fmrnet.inspection.names import PAGE, PAGE_FILES
from fmrnet.inspection.report import open_report
from fmrnet.network.model import FMRNet
from fmrnet.pages.form import Form
from fmrnet.pages.render import strings, write_page
from fmrnet.pages.report import write_report
from fmrnet.pictures import write_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RATES = (0.0002, 0.04, 0.1, 0.4)
EVIL = "<img src=x onerror=alert(1)> & 'quoted'.png"
NONE = "<b onclick=alert(2)>.png"


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    """By Eq 23, calibrated on 24 pictures like those it is to see, so that rates make a difference."""
    torch.manual_seed(0)
    network = FMRNet(dataclasses.replace(CONFIG, iterations=(2, 2, 0)))
    network.mean.fill_(0.5)
    network.std.fill_(0.1)
    torch.nn.init.normal_(network.memory)
    known = tuple(np.linspace(1e-4, 0.3, 2000).tolist()), tuple(np.linspace(1e-4, 0.6, 2000).tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMRNET_BACKEND", "eager")
        engine = TorchEngine(network)
        good = [(f"{seed}.png", picture(seed)) for seed in range(100, 124)]
        yield Inspector(engine, calibrate(engine, good, early_exit=EarlyExit(*known)), {"command": "none"})


def picture(seed: int) -> Any:
    """(1, H, W)"""
    return (ground(seed=seed).astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, inspector: Inspector) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.fmr"
    inspector.save(path)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Good and defective pictures, one with a name that would be HTML; one is none."""
    folder = tmp_path_factory.mktemp("in")
    names = [*(f"{n}.png" for n in range(9)), os.fsdecode(b"\xff.png"), EVIL]
    for seed, name in enumerate(names):
        values = ground(seed=seed)
        values[20:50, 30:50] = np.clip(values[20:50, 30:50] + 3.0 * seed, 0, 255)
        write_picture(folder / name, values)
    (folder / NONE).write_text("none")
    return [folder / name for name in (*names, NONE)]


def report(
    out: Path,
    inspector: Inspector,
    model: Path,
    paths: list[Path],
    level: Level = "pixel",
    form: Form = Form.auto,
    resume: bool = False,
) -> dict[str, Any]:
    with open_report(
        out, inspector, model, level, paths, resume=resume, page=lambda one: write_report(one, model, form)
    ) as written:
        for _ in inspect_each(inspector, written, paths):
            pass
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def single(
    tmp_path_factory: pytest.TempPathFactory, inspector: Inspector, model: Path, paths: list[Path]
) -> Path:
    """A page in one file, moved away from all else."""
    out = tmp_path_factory.mktemp("out")
    report(out, inspector, model, paths)
    alone = tmp_path_factory.mktemp("alone") / "sent by mail.html"
    (out / PAGE).rename(alone)
    return alone


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Any]:
    """Opens pages; nothing may be asked of a network, said on the console or go wrong in any of them."""
    faults: list[str] = []
    contexts = []

    def visit(path: Path, **options: Any) -> Page:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:")) else faults.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def names(page: Page) -> list[str]:
    """Of the rows that are shown, in their order."""
    return page.locator("#pictures tbody tr:visible .name").all_inner_texts()


def verdicts(page: Page) -> dict[str, str]:
    """As the table says them."""
    script = """() => Object.fromEntries([...document.querySelectorAll("#pictures tbody tr")].map((row) => [
        row.querySelector(".name").textContent, row.querySelector(".verdict").firstChild.data.split(" ")[1]]))"""
    found: dict[str, str] = page.evaluate(script)
    return found


def outlined(page: Page) -> dict[str, set[tuple[int, ...]]]:
    """What is outlined in each picture as the sliders are: row, column, height, width and pixels of each defect."""
    script = """() => Object.fromEntries(data.rows.map((row) => [row.name,
        [...marks(row).defects, ...marks(row).others]
            .map((one) => [one.row, one.column, one.height, one.width, one.pixels])]))"""
    return {name: {tuple(one) for one in found} for name, found in page.evaluate(script).items()}


def places(found: Any) -> set[tuple[int, ...]]:
    """The same of regions of a mask."""
    return {(one.y, one.x, one.height, one.width, one.area) for one in found}


def split(page: Page) -> tuple[list[float], list[float]]:
    """The p-values of what is outlined as the sliders are: of defects, and of spots as good pictures have them."""
    script = """name => data.rows.flatMap((row) => marks(row)[name].map((one) => one.p_value))"""
    return page.evaluate(script, "defects"), page.evaluate(script, "others")


def move(page: Page, slider: str, value: float) -> None:
    page.locator(f"#{slider}").evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input')) }", value
    )


def test_the_sliders_decide_as_python_does(opened, single, inspector, paths):
    page = opened(single)
    level = inspector.false_alarms
    before = verdicts(page)
    seen, only_by_the_slider, common = set(), 0, 0
    try:
        for rate in RATES:
            page.evaluate("rate => set(rate)", rate)
            inspector.false_alarms = rate
            found = {printable(path.name): inspector.inspect(path) for path in paths[:-1]}
            expected = {name: "defective" if one.defective else "good" for name, one in found.items()}
            assert verdicts(page) == expected, rate
            marked = outlined(page)
            for name, one in found.items():
                assert marked[name] == places(regions(one.mask)), (name, rate)
                only_by_the_slider += expected[name] == "defective" != before[name] and bool(marked[name])
            rare, others = split(page)
            assert max(rare, default=0) <= rate < min(others, default=1.1)
            common += len(others)
            shown = page.locator("#pictures tbody tr td:nth-child(6)").all_inner_texts()
            assert sum(map(int, shown)) == len(rare), "the table counts defects"
            seen |= set(expected.items())
            good = inspector.calibration.picture
            flagged = int((good.surprises > good.threshold(rate)).sum())
            assert page.evaluate("rate => flaggedGood(rate)", rate) == flagged
            assert page.evaluate("thresholdAt(rate)") == pytest.approx(
                good.threshold(rate) / good.threshold(level), rel=0.03
            )
    finally:
        inspector.false_alarms = level
    assert len(seen) > len(paths), "the rates make a difference"
    assert only_by_the_slider
    assert common, "something is outlined that good pictures have, too"
    page.evaluate("rate => set(rate)", RATES[-1])
    for name, verdict in before.items():
        if verdict == "good" and verdicts(page)[name] == "defective":
            page.evaluate("name => look.open(data.rows.find(row => row.name === name))", name)
            image = page.locator("#canvas img").last
            image.evaluate("one => one.decode()")
            assert image.get_attribute("src").startswith("data:image/png"), "the outline"
            assert page.locator("#viewer-defects tbody tr").count() == len(outlined(page)[name])


def test_a_slider_moves_the_other_and_says_what_changes(opened, single):
    page = opened(single)
    before = verdicts(page)
    assert page.locator("#rate-shown").inner_text() == "5 %"
    assert page.locator("#threshold-shown").inner_text() == "1"
    move(page, "rate", 1)
    assert page.locator("#rate-shown").inner_text() == "50 %"
    assert float(page.locator("#threshold-shown").inner_text()) < 1
    after = verdicts(page)
    changed = [name for name in after if after[name] != before[name]]
    assert changed
    assert (
        f"{len(changed)} from good to defective, 0 from defective to good"
        in page.locator("#cost").inner_text()
    )
    page.locator("#verdicts").select_option("changed")
    assert sorted(names(page)) == sorted(changed)
    move(page, "threshold", 1)
    assert page.evaluate("rate") == pytest.approx(1e-4)
    page.locator("#reset").click()
    assert page.locator("#rate-shown").inner_text() == "5 %"
    page.locator("#rate").press("ArrowLeft")
    assert page.evaluate("rate") < 0.05
    assert names(page) == [name for name, now in verdicts(page).items() if now != before[name]]


@pytest.mark.slow
def test_level_auto_decides_as_python_does(opened, tmp_path, inspector, model, paths):
    report(tmp_path / "out", inspector, model, paths[:-1], "auto")
    page = opened(tmp_path / "out" / PAGE)
    level = inspector.false_alarms
    asked = 0
    try:
        for rate in RATES:
            page.evaluate("rate => set(rate)", rate)
            inspector.false_alarms = rate
            said = page.evaluate("Object.fromEntries(data.rows.map((row, i) => [row.name, now[i]]))")
            for path in paths[:-1]:
                expected = inspector.inspect(path, "auto")
                if said[printable(path.name)] == "open":  # Python looks closer, and the page cannot
                    assert expected.level == "pixel"
                    asked += 1
                else:
                    assert said[printable(path.name)] == ("defective" if expected.defective else "good"), (
                        path,
                        rate,
                    )
    finally:
        inspector.false_alarms = level
    assert 0 < asked < len(RATES) * len(paths) / 2


def test_the_table_sorts_and_filters_by_keys(opened, single):
    page = opened(single)
    assert names(page)[0] == EVIL, "the greatest score comes first"
    heading = page.locator("#pictures th button", has_text="Name")
    heading.focus()
    page.keyboard.press("Enter")
    shown = names(page)
    assert shown[2:] == [f"{n}.png" for n in range(len(shown) - 2)]
    page.keyboard.press("Enter")
    assert names(page) == shown[::-1]
    assert page.locator("#pictures th[aria-sort=descending]").count() == 1
    page.locator("#search").fill("7.P")
    assert names(page) == ["7.png"]
    assert page.locator("#shown").inner_text() == "1 of 11 is shown."
    page.locator("#search").fill("")
    page.locator("#verdicts").select_option("defective")
    shown = names(page)
    assert shown
    assert {verdicts(page)[name] for name in shown} == {"defective"}


def test_the_viewer_shows_layers_defects_and_full_resolution(opened, single):
    page = opened(single)
    page.locator("#pictures .name").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer-name").inner_text() == EVIL
    assert page.locator("#layers input").count() == 6, "nothing, background, map and three modalities"
    for layer in page.locator("#layers input").all():
        layer.check()
        for image in page.locator("#canvas img").all():
            image.evaluate("one => one.decode()")
    assert page.locator("#canvas img").first.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [
        112,
        96,
    ]
    before = page.evaluate("getComputedStyle(document.querySelectorAll('#canvas img')[1]).clipPath")
    page.locator("#wipe").press("End")
    assert page.evaluate("getComputedStyle(document.querySelectorAll('#canvas img')[1]).clipPath") != before
    page.locator("#stage").press("+")
    assert page.evaluate("document.getElementById('canvas').style.transform") != ""
    page.locator("#viewer-defects button").first.click()
    box = [
        page.locator(f"#{name}").evaluate(
            "one => Object.values(one.getBoundingClientRect().toJSON()).slice(0, 4)"
        )
        for name in ("canvas", "stage")
    ]
    row = page.evaluate("data.rows.find(row => row.name.startsWith('<'))")
    defect = row["defects"][0]
    (x, y, width, _), (left, top, across, down) = box
    scale = width / row["width"]
    middle = (
        x + (defect["column"] + defect["width"] / 2) * scale,
        y + (defect["row"] + defect["height"] / 2) * scale,
    )
    assert middle == pytest.approx((left + across / 2, top + down / 2), abs=2), "the defect is in the middle"
    page.keyboard.press("PageDown")
    assert page.locator("#viewer-name").inner_text() == names(page)[1]
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def test_a_strip_fills_the_viewer_beside_a_view_of_the_whole(opened, tmp_path, inspector, model):
    values = ground(96, 1200)
    values[20:50, 900:930] = 255
    for name, one in (("strip.png", values), ("upright.png", values.T)):
        write_picture(tmp_path / name, one)
    report(tmp_path / "out", inspector, model, [tmp_path / "strip.png", tmp_path / "upright.png"])
    (tmp_path / "strip.png").unlink()
    report(tmp_path / "out", inspector, model, [tmp_path / "upright.png"], resume=True)
    page = opened(tmp_path / "out" / PAGE)
    assert page.locator("#pictures tr", has_text=strings()["report"]["gone"]).count() == 1
    for name in ("strip.png", "upright.png"):
        page.locator("#pictures .name", has_text=name).click()
        page.wait_for_function("document.getElementById('canvas').style.transform.includes('translate(')")
        page.locator("#canvas img").first.evaluate("one => one.decode()")
        page.wait_for_timeout(100)
        canvas, stage, frame, whole = (
            page.locator(one).bounding_box() for one in ("#canvas", "#stage", ".frame", "#overview")
        )
        long, short, at = ("width", "height", "x") if name == "strip.png" else ("height", "width", "y")
        assert canvas[short] == pytest.approx(2 * 96, rel=0.01), "it is no thin line"
        place = canvas[at] + canvas[long] * 915 / 1200
        assert stage[at] <= place <= stage[at] + stage[long], "the defect is in the stage"
        assert frame[at] <= whole[at] + whole[long] * 915 / 1200 <= frame[at] + frame[long]
        assert frame[long] / whole[long] == pytest.approx(stage[long] / canvas[long], rel=0.1)
        page.locator("#overview").click(position={"x": 5, "y": 5})
        page.wait_for_timeout(100)
        assert page.locator(".frame").bounding_box()[at] < whole[at]
        page.locator("#viewer-close").click()


def test_the_wheel_zooms_where_the_pointer_is(opened, single):
    page = opened(single)
    page.locator("#pictures .name").first.click()
    page.wait_for_timeout(100)
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + 0.4 * stage["width"], stage["y"] + 0.7 * stage["height"]
    page.mouse.move(x, y)
    below = []
    for _ in range(3):
        box = page.locator("#canvas").bounding_box()
        below.append(((x - box["x"]) / box["width"], (y - box["y"]) / box["height"]))
        page.mouse.wheel(0, -100)
        page.wait_for_timeout(100)
    assert box["width"] > stage["width"] / 2
    assert below[1:] == [pytest.approx(below[0], abs=0.01)] * 2


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.slow)]
)
def test_axe_finds_no_serious_violation(opened, single, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(single, viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    for viewer in (False, True):
        if viewer:
            page.locator("#pictures .name").first.click()
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, json.dumps(serious, indent=1)[:3000]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_with_files_beside_it_loads_them_as_they_are_seen(opened, tmp_path, inspector, model, paths):
    out = tmp_path / "out"
    content = report(out, inspector, model, paths, "patch", Form.folder)
    assert (out / PAGE).stat().st_size < 2**18
    page = opened(out / PAGE)
    page.evaluate("set(0.4)")
    stored, count = inspector.false_alarms, 0
    try:
        inspector.false_alarms = 0.4
        for path in paths[:-1]:
            found = inspector.inspect(path, "patch")
            rows, columns = np.nonzero(found.patch_p_values <= (0.4 if found.defective else -1))
            step, patch = inspector.config.stride, inspector.config.patch_size
            beyond = {
                (min(row * step, 96 - patch), min(column * step, 128 - patch))
                for row, column in zip(rows, columns)
            }
            assert {one[:2] for one in outlined(page)[printable(path.name)]} == beyond
            count += len(beyond)
    finally:
        inspector.false_alarms = stored
    assert count
    page.locator("#pictures .name").first.click()
    page.locator("#canvas img").first.evaluate("one => one.decode()")
    boxes = page.locator("#canvas .boxes div")
    assert boxes.count() == page.evaluate(
        "marks(data.rows.find(row => row.name === document.getElementById('viewer-name').textContent)).count"
    )
    page.locator("#outline").click()
    assert not boxes.first.is_visible()
    listed = {name for line in content["pictures"] for name in line["files"].values()}
    assert listed >= {str(path.relative_to(out).as_posix()) for path in (out / PAGE_FILES).rglob("*.*")}


@pytest.mark.parametrize(("form", "limit"), [(Form.auto, "LARGEST_SINGLE"), (Form.single, "LARGEST_FORCED")])
def test_a_page_that_grows_too_large_has_files_beside_it(
    tmp_path, monkeypatch, inspector, model, paths, form, limit
):
    monkeypatch.setattr(f"fmrnet.pages.report.{limit}", 1000)
    formed = []
    with open_report(
        tmp_path / "out",
        inspector,
        model,
        "patch",
        paths[:1],
        page=lambda one: formed.append(write_report(one, model, form)),
    ) as written:
        list(inspect_each(inspector, written, paths[:1]))
    assert formed == [Form.folder]
    assert (
        "base64"
        not in (tmp_path / "out" / PAGE).read_text().partition('id="data"')[2].partition("<script>")[0]
    )


def test_a_stopped_and_a_resumed_run_have_the_page_of_what_is_done(tmp_path, inspector, model, paths):
    out = tmp_path / "out"

    def run(count: int, resume: bool) -> None:
        with open_report(
            out,
            inspector,
            model,
            "pixel",
            paths[:5],
            resume=resume,
            page=lambda one: write_report(one, model),
        ) as written:
            for done, _ in enumerate(inspect_each(inspector, written, paths[:5]), start=1):
                if done == count:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(2, False)
    text = (out / PAGE).read_text()
    assert "of 2 pictures are defective" in text
    assert strings()["report"]["not_reached"]["other"].format(n=3) in text
    run(5 + 1, True)
    assert "of 5 pictures are defective" in (out / PAGE).read_text()
    assert not list(out.rglob("*.tmp"))


def test_names_are_text_and_no_markup(single):
    text = single.read_text()
    assert "<img src=x" not in text
    assert "<b onclick" not in text
    assert "&lt;b onclick" in text


def test_every_text_of_a_page_is_in_the_one_file(opened, tmp_path, monkeypatch, inspector, model, paths):
    """With every text in brackets, nothing is shown without but names, numbers and the report's own sentences."""

    def bracketed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bracketed(one) for key, one in value.items()}
        return f"⟦{value}⟧"

    texts = bracketed(strings()) | {}
    texts["common"] |= {"language": "en", "percent": "{n} %"}
    for module in ("render", "report", "model"):
        monkeypatch.setattr(f"fmrnet.pages.{module}.strings", lambda: texts)
    report(tmp_path / "out", inspector, model, paths[:3])
    page = opened(tmp_path / "out" / PAGE)
    page.locator("#pictures .name").first.click()
    own = "script, noscript, dd, dt, #promise, .faint, h1, .name, #viewer-name, header"
    shown = page.evaluate(
        """own => {
      const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const node = walker.currentNode;
        if (!node.parentElement.closest(own)) found.push(node.data);
      }
      return found;
    }""",
        own,
    )
    bare = [text for text in shown if any(map(str.isalpha, text)) and "⟦" not in text and "e-" not in text]
    assert bare == []


def test_a_page_refuses_what_is_no_number(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_page(tmp_path / "page.html", "base.html.j2", data={"score": float("nan")})
    assert not list(tmp_path.iterdir())
