"""Summaries of docstrings say what an object is or does; none begins with "What", "The thing" or "This"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("fedmem", "strategies", "experiments")
VAGUE = re.compile(r"(What|The thing|This)\b")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Each docstring with its line: of modules, classes, functions, and of names that are assigned."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        is_first_documentation = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for place, statement in enumerate(body):
            is_documentation = is_first_documentation if place == 0 else isinstance(body[place - 1], _ASSIGNMENTS)
            if is_documentation and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, text.strip()


_ASSIGNMENTS = (ast.Assign, ast.AnnAssign)


def vague_summaries(path: Path) -> list[str]:
    """`path:line: summary` for each summary that begins with one of these words."""
    return [
        f"{path}:{line}: {text.partition(chr(10))[0]}"
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if VAGUE.match(text)
    ]


def test_no_summary_begins_with_a_vague_word() -> None:
    paths = [path for name in SOURCES for path in sorted((ROOT / name).rglob("*.py"))]
    assert len(paths) > 300
    assert [summary for path in paths for summary in vague_summaries(path)] == []


def test_vague_summaries_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        '"""What it is."""\n\nA = 1\n"""This is A."""\n\n\nclass B:\n    """The thing.\n\n    More.\n    """\n\n'
        '    def c(self):\n        """Whatever it takes."""\n        "What no docstring says"\n'
    )
    assert [line.split(":")[1:] for line in vague_summaries(path)] == [
        ["1", " What it is."],
        ["4", " This is A."],
        ["8", " The thing."],
    ]
