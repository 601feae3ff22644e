"""The pages for contributors: short, numbered once, listed, and about files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
NAMES = ("commands", "flower-runtime", "glossary", "measures", "run-folder", "scenarios", "where-things-are")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES), *DECISIONS]


def test_contributing_has_no_more_than_100_lines() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 100


def test_each_decision_has_a_number_of_its_own_and_is_listed() -> None:
    numbers = [page.name[:3] for page in DECISIONS]
    assert len(set(numbers)) == len(numbers)
    listed = re.findall(r"\]\((\d\d\d-[^)]+)\)", (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8"))
    assert sorted(listed) == [page.name for page in DECISIONS]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name[:3])
def test_each_decision_has_context_decision_and_consequence(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.name[:3]}. ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name[:20])
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:[\w.]+/)+(?:\w+\.(?:py|md|yaml|toml))?)`", page.read_text("utf-8")))
    named.discard("strategies/halfway.py")  # the example that a reader makes
    starts = (ROOT, ROOT / "fedmem")
    assert [name for name in sorted(named) if not any((start / name).exists() for start in starts)] == []
