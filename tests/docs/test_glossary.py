"""The glossary and the pages name classes and members that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "glossary.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def members() -> dict[str, set[str]]:
    """Class -> the names that its body and its methods define, over all classes of that name."""
    found: dict[str, set[str]] = {}
    for folder in ("fedmem", "strategies"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    own = found.setdefault(node.name, set())
                    for child in ast.walk(node):
                        match child:
                            case ast.FunctionDef(name=name) | ast.Attribute(attr=name) | ast.Name(id=name):
                                own.add(name)
                            case _:
                                pass
    return found


def unknown(text: str) -> list[str]:
    """Names `Class.member` in backticks of a page, of a class of the project that has no such member."""
    pairs = re.findall(r"`([A-Z]\w*[a-z]\w*)\.(\w+)", text)
    return [f"{name}.{member}" for name, member in pairs if name in members() and member not in members()[name]]


@pytest.mark.parametrize("page", sorted(set(PAGES)), ids=lambda page: page.name)
def test_members_that_a_page_names_exist(page: Path) -> None:
    assert unknown(page.read_text("utf-8")) == []


def test_classes_of_the_glossary_exist() -> None:
    named = set(re.findall(r"`([A-Z]\w*[a-z]\w*)(?:\.\w+)?`", PAGES[0].read_text("utf-8")))
    assert {name for name in named if name not in members()} <= {"SeedSequence", "Philox"}


def test_an_unknown_member_is_found() -> None:
    assert unknown("`AuditSet.holder` and `AuditSet.owner`") == ["AuditSet.holder"]
