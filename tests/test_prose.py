"""Sentences for people have at most 25 words; `python -m tests.test_prose [PATH…]` lists longer ones.

Read are pages, all text in quotes of a module (docstrings, messages, help, notes, descriptions of fields), comments of
YAML files, and the visible text of templates of reports.

Code, formulas in backticks, table rows, headings, doctests and references are no sentences. A piece of code counts as
one word, and so does a value that is filled in. A sentence ends at a full stop, a question or exclamation mark, or a
colon, before a capital letter.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_WORDS = 25
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "experiments")
SOURCES = ("fedmem", "strategies", "experiments")
SCENARIOS = ("scenarios", "experiments", "fedmem")
TEMPLATES = ("fedmem/reporting/templates",)
HISTORY = "docs/decisions"

_ENDS = re.compile(r"(?<=[.!?:])[\"”)*_]*\s+(?=[A-Z\"“(`*\[\d†−-])|;\s+(?=`)")
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|cf|vs|No|Fig|Eq|Sec|pp|St)\.")
_DOCTEST = re.compile(r"^[ \t]*>>>.*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^([-*]|\d+\.)\s|^[\w`.*, ]+:\s*$")
_SKIPPED = ("#", "|", "![", "---", ":::", "[^")
_COMMAND = re.compile(r" (fedmem run|python -m) \S+$| yaml-language-server:")
_BLOCK = re.compile(r"</?(p|li|ul|h\d|t[dhr]|summary|details|d[tdl]|figcaption|option|label|title|button)\b[^>]*>")
_UNSEEN = re.compile(r"<(style|script|svg|path|title)\b.*?</\1>|\{#.*?#\}|<!--.*?-->", re.DOTALL)
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


def _quoted(node: ast.AST) -> str | None:
    """The text of a literal, of a text with values filled in, or of a sum of texts; otherwise None.

    >>> _quoted(ast.parse("f'{a} of ' + b + 'c'", mode="eval").body)
    'VALUE of VALUEc'
    """
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_quoted(part) or "VALUE" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = _quoted(node.left), _quoted(node.right)
        return None if sides == (None, None) else "".join("VALUE" if side is None else side for side in sides)
    return None


def module_texts(source: str) -> Iterator[tuple[int, str]]:
    """Each text in quotes of a module, with its line."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        text = _quoted(node)
        if text is None:
            nodes += ast.iter_child_nodes(node)
            continue
        yield getattr(node, "lineno", 1), _DOCTEST.sub("", inspect.cleandoc(text))
        nodes += [part.value for part in ast.walk(node) if isinstance(part, ast.FormattedValue)]
        nodes += [part for part in ast.walk(node) if isinstance(part, ast.BinOp) and part is not node]


def yaml_texts(source: str) -> Iterator[tuple[int, str]]:
    """The comments of a YAML file without the `#`: whole lines of comment in a row together, others one by one."""
    lines = [(n, re.search(r"(^|\s)#(.*)", line), line) for n, line in enumerate(source.splitlines(), 1)]
    for _, block in groupby(lines, key=lambda line: (line[1] is None, line[2].strip().startswith("#") or line[0])):
        comments = [(n, match[2]) for n, match, _ in block if match]
        if comments:
            yield comments[0][0], "\n".join("" if _COMMAND.match(text) else text for _, text in comments)


def template_texts(source: str) -> Iterator[tuple[int, str]]:
    """The visible text of a template: each element a paragraph, each value one word."""
    text = re.sub(r"\{\{.*?\}\}", "VALUE", _UNSEEN.sub("", source), flags=re.DOTALL)
    text = _BLOCK.sub("\n\n", re.sub(r"\{%.*?%\}", "", text, flags=re.DOTALL))
    yield 1, re.sub(r"<[^>]*>", "", text)


READERS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {
    # a reference to a number is one word
    ".md": lambda source: iter([(1, re.sub(r"\{\{.*?\}\}", "NUMBER", source, flags=re.DOTALL))]),
    ".py": module_texts,
    ".yaml": yaml_texts,
    ".html": template_texts,
}
"""How the texts of each kind of file are read."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each text of a file with the line where it begins."""
    yield from READERS[path.suffix](path.read_text(encoding="utf-8"))


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
PLACES = {".md": PAGES, ".py": SOURCES, ".yaml": SCENARIOS, ".html": TEMPLATES}
"""Where files of each kind are."""


@pytest.mark.parametrize("kind", [".md", ".yaml", ".html"])
def test_sentences_of_pages_are_short(kind: str) -> None:
    chosen = files(PLACES[kind], f"*{kind}")
    assert chosen
    assert [sentence for path in chosen for sentence in long_sentences(path)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_sentences_of_modules_are_short(folder: str) -> None:
    assert [sentence for path in sorted((ROOT / folder).glob("*.py")) for sentence in long_sentences(path)] == []


LONG = " ".join(["word"] * 26)
HALF = " ".join(["word"] * 12)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.md", f"# {LONG}\n\nShort. {LONG.capitalize()}.\n\n```\n{LONG}\n```\n\n| {LONG} |\n\n- {LONG}\n", [1, 1]),
        ("a.py", f'"""Short.\n\n>>> {LONG}\n{LONG}\n"""\n\n\ndef f():\n    """{LONG}"""\n', [9]),
        ("a.py", f'raise E(\n    "{LONG}"\n)\n', [2]),
        ("a.py", f'x = 1\nraise E(f"{HALF} {{x}} {HALF}" " more")\n', [2]),
        ("a.py", f'x = 1\nraise E("{HALF} " + x + f" {HALF}" + " more")\n', [2]),
        ("a.py", f"print(f\"{{x or '{LONG}'}}\")\n", [1]),
        ("a.py", f"# {LONG}\nx = 1\n", []),
        ("a.yaml", f"# fedmem run a.yaml\n# {HALF}\n# {HALF} more words\nname: a  # {LONG}\n", [1, 4]),
        ("a.yaml", f"# {HALF}\nname: {LONG}\n# {HALF}\n", []),
        ("a.html", f"<p>{HALF} {{{{ value }}}} <b>{HALF}</b> more</p><style>{LONG}</style>{{% if {LONG} %}}", [1]),
        ("a.html", f"<li>{HALF}</li><li>{HALF} more</li>", []),
    ],
)
def test_long_sentences_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, found: list[int]
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / name).write_text(text)
    lines = [line.split(":") for line in long_sentences(tmp_path / name)]
    assert [int(place) for _, place, *_ in lines] == found
    assert all(path == name and int(words) == 26 for path, _, words, *_ in lines)


if __name__ == "__main__":
    chosen = tuple(sys.argv[1:])
    lines = [
        sentence
        for suffix, names in PLACES.items()
        for path in files(chosen or names, f"*{suffix}")
        if path.suffix == suffix
        for sentence in long_sentences(path)
    ]
    print(*lines, f"{len(lines)} sentences of more than {MAX_WORDS} words", sep="\n")
