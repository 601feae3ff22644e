"""Pages in headless Chromium: nothing is loaded, run or reported that should not be, on wide and on narrow screens."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.reporting.browser_helpers import started

    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A page of each template; most text in them is hostile."""
    from tests.reporting import browser_helpers as helpers

    folder = tmp_path_factory.mktemp("pages")
    made: dict[str, Callable[[], Path]] = {
        "run": lambda: helpers.plain_run(folder / "run"),
        "images": lambda: helpers.many_examples(folder / "images"),
        "texts": lambda: helpers.many_examples(folder / "texts", texts=True),
        "study": lambda: helpers.hostile_study(folder),
        "attack": lambda: helpers.hostile_attack(folder),
        "index": lambda: helpers.hostile_index(folder / "index"),
    }
    return {name: make() for name, make in made.items()}


def hacked(page: Any) -> bool:
    """Whether a text of the page has run as a script, or has become an element."""
    return bool(page.evaluate("window.hacked !== undefined || document.querySelector('img[src=x]') !== null"))


def is_too_wide(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["run", "images", "texts", "study", "attack", "index"])
def test_a_page_is_quiet_safe_narrow_and_accessible(
    browser: Browser, pages: Mapping[str, Path], name: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    from tests.reporting.browser_helpers import opened

    with opened(browser, pages[name], width, scheme) as tab:
        tab.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.messages == []
        assert tab.elsewhere == []
        assert not hacked(tab.page)
        assert not is_too_wide(tab.page)
        found = Axe().run(tab.page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_what_the_checks_look_for_is_found(browser: Browser, pages: Mapping[str, Path], tmp_path: Path) -> None:
    """A page with a script, an image from elsewhere, a wide line and an unlabelled picture is caught at each."""
    from axe_playwright_python.sync_playwright import Axe

    from tests.reporting.browser_helpers import opened

    text = pages["attack"].read_text(encoding="utf-8")
    evil = "<script>window.hacked=1</script><img src=x><pre style='white-space:pre'>" + "W" * 900 + "</pre>"
    page = tmp_path / "evil.html"
    page.write_text(text.replace("</main>", f"{evil}</main>"), encoding="utf-8")
    with opened(browser, page) as tab:
        tab.page.wait_for_timeout(1000)
        assert {message.rpartition("policy: ")[2] for message in tab.messages if "policy: " in message} == {
            "script-src-elem", "style-src-attr", "img-src",
        }  # fmt: skip
        assert tab.page.evaluate("window.hacked") is None, "the policy stops the script"
        assert hacked(tab.page), "the image is there"
        assert "image-alt" in {one["id"] for one in Axe().run(tab.page).response["violations"]}
    page.write_text("<main style='width:900px'>wide</main>", encoding="utf-8")
    with opened(browser, page, 390) as tab:
        assert is_too_wide(tab.page)


def values_in_view(page: Any, selector: str) -> tuple[int, int]:
    """How many values lie within the width of the screen, of how many."""
    inside = page.evaluate(
        """selector => Array.from(document.querySelectorAll(selector)).map(one => {
            const box = one.getBoundingClientRect();
            return box.width > 0 && box.left >= 0 && box.right <= innerWidth;
        })""",
        selector,
    )
    return sum(inside), len(inside)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_values_and_the_verdict(browser: Browser, pages: Mapping[str, Path], scheme: str) -> None:
    from tests.reporting.browser_helpers import opened

    for name in ("run", "images"):
        with opened(browser, pages[name], 390, scheme) as tab:
            shown, total = values_in_view(tab.page, ".glance .value, .glance .interval")
            assert shown == total > 4
            assert not any(one.is_visible() for one in tab.page.query_selector_all(".glance td.empty"))
            top = tab.page.evaluate("document.querySelector('.verdict').getBoundingClientRect().top")
            figure = tab.page.evaluate("document.querySelector('.plot').getBoundingClientRect().top")
            contents = tab.page.evaluate("document.querySelector('nav').getBoundingClientRect().top")
            assert top < figure < contents
    with opened(browser, pages["study"], 390, scheme) as tab:
        shown, total = values_in_view(tab.page, "main table .value")
        assert shown == total > 1


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_can_be_read_in_both_schemes(browser: Browser, pages: Mapping[str, Path], width: int) -> None:
    """Text of figures and lines of both levels stand out from the page, at least three to one."""
    from tests.reporting.browser_helpers import opened

    script = """() => {
        const lines = '.plot [stroke*="--local"], .plot [stroke*="--global"]';
        const rgb = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = colour => rgb(colour).map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const page = light(getComputedStyle(document.body).backgroundColor);
        const contrast = colour => {
            const [low, high] = [light(colour), page].sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
        };
        const style = selector => Array.from(document.querySelectorAll(selector)).map(one => getComputedStyle(one));
        return {
            page: page,
            text: Math.min(...style('.plot text').map(one => contrast(one.fill))),
            lines: Math.min(...style(lines).map(one => contrast(one.stroke))),
        };
    }"""
    brightness = {}
    for scheme in ("light", "dark"):
        with opened(browser, pages["run"], width, scheme) as tab:
            measured = tab.page.evaluate(script)
            brightness[scheme] = measured["page"]
            assert measured["text"] > 7
            assert measured["lines"] > 3
            sizes = tab.page.evaluate(
                "Array.from(document.querySelectorAll('.plot text')).map(one => one.getBoundingClientRect().height)"
            )
            assert min(size for size in sizes if size) > 9, "letters are not too small"
    assert brightness["dark"] < 0.05 < 0.9 < brightness["light"]


@pytest.mark.parametrize("width", [1280, 390])
def test_examples_are_sorted_and_filtered(browser: Browser, pages: Mapping[str, Path], width: int) -> None:
    from tests.reporting.browser_helpers import opened

    def visible(page: Any, name: str) -> list[str]:
        return [
            row.get_attribute(f"data-{name}") or ""
            for row in page.query_selector_all("tr[data-place]")
            if row.is_visible()
        ]

    with opened(browser, pages["images"], width) as tab:
        page = tab.page
        scores = list(map(float, visible(page, "global")))
        assert len(scores) == 10
        assert scores == sorted(scores, reverse=True)
        page.click("button.more")
        assert len(visible(page, "place")) == 24
        assert not page.is_visible("button.more")
        page.select_option("[name=sort]", "gap")
        gaps = list(map(float, visible(page, "gap")))
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[0] > gaps[-1]
        page.select_option("[name=sort]", "example")
        assert visible(page, "subject") == list(map(str, range(10)))
        kind = page.evaluate("document.querySelector('[name=kind]').options[1].value")
        page.select_option("[name=kind]", kind)
        assert set(visible(page, "kind")) == {kind}
        assert "of 12 shown, filtered from 24" in page.inner_text(".status")
        owner = page.evaluate("document.querySelector('[name=owner]').options[1].value")
        page.select_option("[name=owner]", owner)
        assert set(visible(page, "owner")) == {owner}
        assert len(visible(page, "owner")) == 4
        page.fill("[name=find]", "nothing has this")
        assert visible(page, "place") == []
        page.select_option("[name=kind]", "")
        page.select_option("[name=owner]", "")
        page.fill("[name=find]", "#17")
        assert visible(page, "subject") == ["17"]
        assert tab.messages == []


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_can_be_read_without_scripts(browser: Browser, pages: Mapping[str, Path], width: int) -> None:
    from tests.reporting.browser_helpers import opened

    with opened(browser, pages["images"], width, java_script_enabled=False) as tab:
        rows = tab.page.query_selector_all("tr[data-place]")
        assert len(rows) == 24
        assert [row.is_visible() for row in rows] == [True] * 10 + [False] * 14
        assert not tab.page.is_visible(".controls")
        tab.page.click("details.rest > summary")
        assert all(row.is_visible() for row in rows)
        assert tab.page.is_visible(".verdict")
        assert tab.page.is_visible(".plot")
        tab.page.click("nav a >> nth=0")
        assert "#" in tab.page.url
        assert tab.elsewhere == []


def test_print_is_light_and_leaves_out_controls(browser: Browser, pages: Mapping[str, Path]) -> None:
    from tests.reporting.browser_helpers import opened

    with opened(browser, pages["images"], 1280, "dark") as tab:
        tab.page.emulate_media(media="print")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not tab.page.is_visible(".controls")
        assert not tab.page.is_visible("nav")
        assert tab.page.is_visible(".glance")


def test_without_a_browser_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.reporting.browser_helpers import find_chromium

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        find_chromium()
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        find_chromium()
