"""The page of a server, in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Thread, ask, serving
from tiny import ground, make_inspector

import fmrnet
from fmrnet.deployment.admission import Tokens
from fmrnet.deployment.protocol import Request, encode_request
from fmrnet.pictures import write_map, write_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow  # a browser takes its time
TOKEN = "a token for the page"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a good picture, and one that is far too dark."""
    folder = tmp_path_factory.mktemp("page")
    make_inspector().save(folder / "carpet.fmr")
    make_inspector(3).save(folder / "tile.fmr")
    picture = ground(seed=3)
    write_picture(folder / "good.png", picture)
    write_map(folder / "good.tiff", (picture / 255).astype("float32"))
    write_picture(folder / "dark.png", picture // 9)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Thread]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMRNET_BACKEND", "eager")
        with serving([folder / "carpet.fmr", folder / "tile.fmr"], tokens=Tokens([TOKEN])) as thread:
            yield thread


@pytest.fixture(scope="module", params=SIZES)
def page(request: pytest.FixtureRequest, chromium: Browser, server: Thread) -> Iterator[Page]:
    """The page, entered; nothing may go wrong in it, and nothing may come from elsewhere."""
    width, height = SIZES[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(20_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: None if own(asked.url, server) else faults.append(asked.url))
    page.goto(f"http://{server.address}/")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_text("ready", exact=True).wait_for()
    yield page
    assert faults == []
    context.close()


def own(url: str, server: Thread) -> bool:
    return url.startswith((f"http://{server.address}/", f"blob:http://{server.address}/", "data:"))


def verdict(page: Page, file: Path) -> str:
    """What the page says of a picture."""
    page.get_by_label("Drop a picture").set_input_files(file)
    page.get_by_text(file.name).wait_for()
    page.wait_for_selector("#drop:not(.busy)")
    return page.locator("#verdict").inner_text()


@pytest.mark.parametrize("name", ["good.png", "good.tiff", "dark.png"])
def test_a_picture_gets_the_verdict_of_the_inspector(page: Page, folder: Path, name: str) -> None:
    page.get_by_label("Model").select_option("carpet")
    assert page.evaluate("rate()") == 0.05  # not what the slider's nearest step makes of it
    expected = fmrnet.load(folder / "carpet.fmr", "cpu").inspect(folder / name)
    assert verdict(page, folder / name) == ("Defective" if expected.defective else "Good")
    size = page.locator("#overlay").evaluate("image => [image.naturalHeight, image.naturalWidth]")
    assert size == [96, 112]
    assert [page.locator("#reasons li").count(), name == "dark.png"] == [
        len(expected.reasons),
        expected.defective,
    ]


def test_the_map_is_that_of_the_inspector(page: Page, folder: Path) -> None:
    page.get_by_label("Model").select_option("carpet")
    verdict(page, folder / "dark.png")
    page.get_by_role("button", name="Anomaly map").click()
    assert page.locator("#map").is_visible()
    assert not page.locator("#overlay").is_visible()
    expected = fmrnet.load(folder / "carpet.fmr", "cpu").inspect(folder / "dark.png").anomaly_map
    assert expected is not None
    bright = page.locator("#map").evaluate(
        "map => { const data = map.getContext('2d').getImageData(0, 0, map.width, map.height).data;"
        " return Array.from(data.filter((_, index) => index % 4 === 0)); }"
    )
    assert len(bright) == expected.size
    assert abs(bright[int(expected.argmax())] - max(bright)) <= 1
    page.get_by_role("button", name="Outlined").click()
    assert page.locator("#overlay").is_visible()


def test_the_rate_moves_the_verdict_by_keyboard(page: Page, folder: Path) -> None:
    page.get_by_label("Model").select_option("carpet")
    verdict(page, folder / "good.png")
    p = fmrnet.load(folder / "carpet.fmr", "cpu").inspect(folder / "good.png").p_value
    slider = page.get_by_label("Good pictures that may be called defective")
    slider.focus()
    for key, rate in (("Home", 0.001), ("End", 0.5)):
        page.keyboard.press(key)
        page.wait_for_selector("#drop:not(.busy)")
        assert page.locator("#verdict").inner_text() == ("Defective" if p <= rate else "Good")
        assert re.search(rf"{100 * rate:.2g} %", page.locator("#share").inner_text())


def test_what_is_no_picture_is_told(page: Page, folder: Path) -> None:
    (folder / "notes.png").write_text("these are notes")
    page.get_by_label("Drop a picture").set_input_files(folder / "notes.png")
    page.get_by_role("alert").wait_for()
    assert "the picture" in page.get_by_role("alert").inner_text()
    assert not page.locator("#found").is_visible()


def test_edges_and_verdicts_are_shown_as_text(page: Page, server: Thread) -> None:
    edge = "<img src=x onerror=alert(1)>"
    body, headers = encode_request(Request({"picture": ground(64, 64)}, id="request 8"))
    said = {"X-Edge": edge, "X-Line": "4", "Authorization": f"Bearer {TOKEN}"}
    assert ask(server.address, "/v2/models/carpet.patch/infer", body, headers | said)[0] == 200
    page.get_by_role("cell", name=edge, exact=True).wait_for()
    assert page.get_by_role("cell", name=f"{edge}, 4").first.is_visible()
    assert page.get_by_role("cell", name="request 8").first.is_visible()
    assert page.locator("#depth").inner_text() == "0 of 64 wait"


def test_everything_is_reached_by_keyboard_and_nothing_overflows(page: Page, folder: Path) -> None:
    page.get_by_label("Model").select_option("carpet")
    verdict(page, folder / "dark.png")
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert [one for one in reached if one][:5] == ["model", "file", "rate", "show-overlay", "show-map"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_wrong_token_is_asked_for_again(chromium: Browser, server: Thread) -> None:
    page = chromium.new_page()
    page.goto(f"http://{server.address}/")
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("a token is needed").wait_for()
    assert not page.get_by_label("Model").is_visible()
    page.close()


def test_the_page_may_load_nothing_from_elsewhere(server: Thread) -> None:
    policy = ask(server.address, "/")[1]["content-security-policy"]
    assert "default-src 'none'" in policy
    assert json.loads(ask(server.address, "/status", headers={"Authorization": f"Bearer {TOKEN}"})[2])[
        "ready"
    ]
