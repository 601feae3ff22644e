"""Links between pages lead to files that exist, and to headings of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")])

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")


def links(page: Path) -> list[str]:
    """The addresses within the project that a page links, code apart."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text("utf-8")))
    return [address for address in _LINK.findall(text) if not re.match(r"[a-z]+:", address)]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text("utf-8")), flags=re.MULTILINE)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
    dead = []
    for address in links(page):
        name, _, anchor = address.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(address)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert dead_links(page) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `Two`: three\n\n[a](#one-two-three) [b](#four) [c](page.md) [d](none.md) [e](https://e.org)\n"
    )
    assert dead_links(page) == ["#four", "none.md"]


def test_each_page_of_docs_is_linked_from_readme_or_another_page() -> None:
    linked = {(page.parent / address.partition("#")[0]).resolve() for page in PAGES for address in links(page)}
    linked.add(ROOT / "docs" / "index.md")  # the contents of the site
    assert [page.name for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in linked] == []
