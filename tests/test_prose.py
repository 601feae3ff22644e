"""Sentences of pages and docstrings have at most 25 words; `python -m tests.test_prose [PATH…]` lists longer ones.

Code, formulas in backticks, table rows, headings, doctests and references are no sentences. A piece of code counts as
one word. A sentence ends at a full stop, a question or exclamation mark, or a colon, before a capital letter.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_WORDS = 25
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "experiments")
SOURCES = ("fedmem", "strategies")
HISTORY = "docs/decisions"

_ENDS = re.compile(r"(?<=[.!?:])[\"”)*_]*\s+(?=[A-Z\"“(`*\[\d†−-])|;\s+(?=`)")
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|cf|vs|No|Fig|Eq|Sec|pp|St)\.")
_DOCTEST = re.compile(r"^[ \t]*>>>.*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^([-*]|\d+\.)\s|^[\w`.*, ]+:\s*$")
_SKIPPED = ("#", "|", "![", "---", ":::", "[^")
_REFERENCES = re.compile(r"^#+ References\n.*?(?=^#|\Z)", re.MULTILINE | re.DOTALL)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs and list items of a page or a docstring, each in one line."""
    lines: list[str] = []
    for line in _REFERENCES.sub("", _FENCE.sub("\n", text)).split("\n"):
        stripped = line.strip()
        if not stripped or stripped.startswith(_SKIPPED) or _ITEM.match(stripped):
            if lines:
                yield " ".join(lines)
            lines = []
        if stripped and not stripped.startswith(_SKIPPED):
            lines.append(re.sub(r"^([-*]|\d+\.)\s+", "", stripped))
    if lines:
        yield " ".join(lines)


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, code as one word and links as their text.

    >>> sentences("One. Two has `a b c`, e.g. here: Three")
    ['One.', 'Two has CODE, eg here:', 'Three']
    """
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "CODE", paragraph))
    return _ENDS.split(_ABBREVIATIONS.sub(lambda match: match[1].replace(".", ""), text))


def count_words(sentence: str) -> int:
    """Words and numbers; signs alone, such as a dash, are none."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each text of a page or a module with the line where it begins."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield 1, source
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), _DOCTEST.sub("", docstring)


def long_sentences(path: Path) -> Iterator[str]:
    """`path:line: words: sentence` for each sentence with too many words."""
    for line, text in texts(path):
        for paragraph in paragraphs(text):
            for sentence in sentences(paragraph):
                if (words := count_words(sentence)) > MAX_WORDS:
                    yield f"{path.relative_to(ROOT)}:{line}: {words}: {sentence}"


def files(names: tuple[str, ...], pattern: str) -> list[Path]:
    """The files of these names and folders, history apart."""
    paths = [
        path for name in names for path in ((ROOT / name).rglob(pattern) if (ROOT / name).is_dir() else [ROOT / name])
    ]
    return sorted(path for path in paths if HISTORY not in path.as_posix())


FOLDERS = sorted({path.parent.relative_to(ROOT).as_posix() for path in files(SOURCES, "*.py")})


def test_sentences_of_pages_are_short() -> None:
    assert [sentence for path in files(PAGES, "*.md") for sentence in long_sentences(path)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_sentences_of_docstrings_are_short(folder: str) -> None:
    assert [sentence for path in sorted((ROOT / folder).glob("*.py")) for sentence in long_sentences(path)] == []


def test_long_sentences_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    long = " ".join(["word"] * 26)
    page, module = tmp_path / "a.md", tmp_path / "a.py"
    page.write_text(f"# {long}\n\nShort. {long.capitalize()}.\n\n```\n{long}\n```\n\n| {long} |\n\n- {long}\n")
    module.write_text(f'"""Short.\n\n>>> {long}\n{long}\n"""\n\n\ndef f():\n    """{long}"""\n')
    assert [line.split(": ")[:2] for line in long_sentences(page)] == [["a.md:1", "26"]] * 2
    assert [line.split(": ")[:2] for line in long_sentences(module)] == [["a.py:8", "26"]]


if __name__ == "__main__":
    chosen = tuple(sys.argv[1:])
    lines = [
        sentence
        for pattern, names in (("*.md", chosen or PAGES), ("*.py", chosen or SOURCES))
        for path in files(names, pattern)
        if path.suffix == pattern[1:]
        for sentence in long_sentences(path)
    ]
    print(*lines, f"{len(lines)} sentences of more than {MAX_WORDS} words", sep="\n")
