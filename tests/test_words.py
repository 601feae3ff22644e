"""The project's word list: coined words stay out of names, prose and YAML.

`docs/glossary.md` defines the words of the project, for which each word here stood. `python -m tests.test_words` counts
what is left.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.test_prose import SOURCES, TEMPLATES, files, template_texts, texts

ROOT = Path(__file__).parents[1]
FOLDERS = ("fedmem", "strategies", "scenarios", "docs", "experiments", "README.md", "CONTRIBUTING.md", "SECURITY.md")
GENERATED = ("scenario.schema.json",)
HISTORY = "docs/decisions"  # a record may quote what was replaced
ALLOWED = re.compile(
    r"__\w+__|masked_fill|fill_between|fill|_fill_(draws|paragraph)|(ParquetWriter|SummaryWriter|_FailureWriter)"
    r"|(search_)?most_probable(_tokens)?|MostProbable|tell"
)
"""Names that other libraries gave, or in which the word has its usual sense."""
PURPOSES = re.compile(
    r"stream\(.*\"(spare|spare of class .*|roster lots)\"|_FIRST = \"fill-ins\"|quarter turns of square images"
)
"""Purposes of random streams, which decide the draws, and turns that are rotations."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A coined word: the field's word, and its patterns in names and in prose ("" where it is not refused)."""

    instead: str
    name: str = ""
    prose: str = ""


WORDS = {
    "promise": Word(instead="privacy guarantee", name="promise[sd]?", prose=r"promise[sd]?"),
    "credit": Word(instead="amplification by sampling", name="credit(s|ed)?", prose=r"credit(s|ed)?"),
    "turn": Word(
        instead="participation",
        name="turns?",
        prose=r"(its|their|a|the|last|whose|two|no|several|next|same) turns?\b(?! (to|into|of mind))|turns of",
    ),
    "pause": Word(instead="minimum separation", name="pauses?", prose=r"pauses?(?! for breath)"),
    "guest": Word(instead="canary update", name="guests?|invite[ds]?", prose=r"guests?|invite[ds]?"),
    "lend": Word(instead="generators; worker pool", name="lend|lent|hire[ds]?|hands", prose=r"lends?|lent|hired?"),
    "hear": Word(instead="reports", name="hears?|heard", prose=r"hears?|heard"),
    "offer": Word(instead="server payload", name="offer(s|ed)?", prose=r"offer(s|ed)?"),
    "heed": Word(instead="understand", name="heeds?|honou?r(s|ed)?", prose=r"heeds?"),
    "lots": Word(instead="per-client uniforms", name="lots?", prose=r"lots"),
    "slot": Word(instead="copies", name="slots?"),
    "chance": Word(instead="inclusion probability", name="chances?"),
    "company": Word(instead="many scenarios at once", name="company", prose=r"company"),
    "seat": Word(instead="shared executor", name="seat(s|ed)?", prose=r"seat(s|ed)?"),
    "crew": Word(instead="worker pool", name="crews?", prose=r"crews?"),
    "letter": Word(instead="message", name="letters?"),
    "post": Word(instead="transport", name="post"),
    "meet": Word(instead="handshake", name="meets?|met"),
    "sealed": Word(instead="request", name="sealed", prose=r"sealed"),
    "outgoing": Word(instead="defence pipeline", name="outgoing", prose=r"outgoing"),
    "stock": Word(instead="Flower strategy adapter; available rows", name="stock"),
    "spare": Word(instead="reserve", name="spares?", prose=r"spares?"),
    "fill-in": Word(instead="replacement row", name="fills?", prose=r"fill-ins?"),
    "allotment": Word(instead="row budget", name="allot(s|ted|ment|ments)?", prose=r"allot(s|ted|ment|ments)?"),
    "withheld": Word(instead="reserve", name="withheld", prose=r"withheld"),
    "apart": Word(instead="unpooled", name="apart"),
    "led": Word(instead="without the pilot", name="led"),
    "lean": Word(instead="minimal scenario", name="lean|roomy|widest", prose=r"roomy"),
    "told": Word(instead="reported, stated, labelled", name="told|tells?|said|says", prose=r"told|said"),
    "likeness": Word(instead="similarity", name="likeness(es)?", prose=r"likeness(es)?"),
    "usual": Word(instead="modal token", name="usual"),
    "likely": Word(instead="(n, p)-discoverable", name="likely|likeliest", prose=r"likeliest"),
    "holder": Word(instead="owner, owning client", name="holders?|holdings?", prose=r"holders?|holdings?"),
    "writer": Word(instead="author", name="writers?", prose=r"writers?"),
    "picture": Word(instead="image", name="pictures?", prose=r"pictures?"),
    "least": Word(instead="min, max", name="least|most"),
    "anew": Word(instead="again", name="anew", prose=r"anew"),
    "likewise": Word(instead="also", name="likewise", prose=r"likewise"),
    "hang": Word(instead="depend", prose=r"hangs? (on|together)"),
    "whoever": Word(instead="a client that", prose=r"whoever|whomever"),
    "give away": Word(instead="leak", prose=r"gives? (\w+ )?away|gave (\w+ )?away"),
    "told apart": Word(instead="distinguished", prose=r"told apart|tells? apart"),
    "held back": Word(instead="held out", name="withheld", prose=r"held back"),
    "rebuilt": Word(instead="reconstructed", name="rebuilt|rebuilds?", prose=r"rebuilt|rebuilds?"),
}
"""Coined word -> the field's word, with the patterns of both."""


@cache
def _files(folder: str) -> tuple[Path, ...]:
    place = ROOT / folder
    if place.is_file():
        return (place,)
    ends = (".py", ".yaml", ".md", ".html")
    found = (path for path in place.rglob("*") if path.suffix in ends and path.name not in GENERATED)
    return tuple(sorted(path for path in found if not path.relative_to(ROOT).as_posix().startswith(HISTORY)))


def _parts(name: str) -> list[str]:
    """The words of a name.

    >>> _parts("_promisedBounds_of")
    ['promised', 'bounds', 'of']
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


@cache
def _read(path: Path) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
    """Names and prose of a file, each with its line."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return (), tuple(enumerate(text.splitlines(), 1))
    if path.suffix == ".html":
        return (), tuple(template_texts(text))
    if path.suffix == ".yaml":
        lines = list(enumerate(text.splitlines(), 1))
        keys = ((n, key) for n, line in lines for key in re.findall(r"([\w.]+):(?= |$)", line.split("#")[0]))
        return tuple(keys), tuple((n, line.partition("#")[2]) for n, line in lines if "#" in line)
    names, prose = [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            names.append((token.start[0], token.string))
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            prose += list(enumerate(token.string.splitlines(), token.start[0]))
    return tuple(names), tuple(prose)


def uses(word: Word, folder: str) -> Iterator[str]:
    """Every use of a word in a folder, as `path:line: text`."""
    name, prose = re.compile(word.name or "(?!)"), re.compile(rf"\b({word.prose or '(?!)'})\b", re.IGNORECASE)
    for path in _files(folder):
        place = path.relative_to(ROOT).as_posix()
        names, lines = _read(path)
        kept = (entry for entry in names if not ALLOWED.fullmatch(entry[1]))
        yield from (f"{place}:{n}: {text}" for n, text in kept if any(name.fullmatch(part) for part in _parts(text)))
        source = path.read_text("utf-8").splitlines()
        hits = ((n, text) for n, text in lines if prose.search(text) and not PURPOSES.search(source[n - 1]))
        yield from (f"{place}:{n}: {text.strip()}" for n, text in hits)


@pytest.mark.parametrize("word", WORDS)
def test_coined_words_stay_out(word: str) -> None:
    found = [use for folder in FOLDERS for use in uses(WORDS[word], folder)]
    assert not found, f"say {WORDS[word].instead!r} instead of {word!r}:\n" + "\n".join(found[:20])


def test_a_coined_word_is_found_in_names_and_prose() -> None:
    word = WORDS["promise"]
    assert any(re.fullmatch(word.name, part) for part in _parts("PromisedBounds"))
    assert re.search(rf"\b({word.prose})\b", "What noise promises: epsilon")


FOR_READERS = {
    r"coins?(?!:)": "random inclusion (in/out)",
    r"banks?": "runs, shadow runs",
    r"rosters?(?!:)": "participation schedule",
    r"(?<!label )priors?(?! of| counts)": "baseline guess",
    r"unresolved|not resolved": "not significant, undefined",
    r"data less|less (loss|that|the|those|where)": "minus",
    r"wants": "needs",
    r"tells? \w+ from": "distinguishes",
}
"""Words of code that messages, headers of scenarios and reports do not show, and what they say instead."""


def read_by_users(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a file that a user of commands and reports reads: no docstrings, and of strings those with three words.

    Code in backticks is left out.
    """
    text = path.read_text("utf-8")
    documented = {
        node.value.lineno
        for node in (ast.walk(ast.parse(text)) if path.suffix == ".py" else ())
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for line, part in texts(path):
        if line not in documented and len(part.split()) >= 3:
            yield line, re.sub(r"`[^`]*`", "", part)


@cache
def _texts_of_users() -> tuple[tuple[str, str], ...]:
    """All of them, each with `path:line`."""
    places = files(SOURCES[:2], "*.py") + files(("scenarios",), "*.yaml") + files(TEMPLATES, "*.html")
    return tuple((f"{path.relative_to(ROOT)}:{line}", text) for path in places for line, text in read_by_users(path))


@pytest.mark.parametrize("word", FOR_READERS)
def test_words_of_code_stay_out_of_messages(word: str) -> None:
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    found = [f"{place}: {text}" for place, text in _texts_of_users() if pattern.search(text)]
    assert not found, f"say {FOR_READERS[word]!r}:\n" + "\n".join(found[:20])


def test_read_are_messages_and_no_docstrings(tmp_path: Path) -> None:
    module = tmp_path / "a.py"
    module.write_text('"""The coin of it."""\n\nraise E(\n    f"{x}: the coin of `coin` "\n    "is"\n)\nx = "a_coin"\n')
    assert list(read_by_users(module)) == [(4, "VALUE: the coin of  is")]


PARTICIPLES = re.compile(
    r"[a-z]+ed|told|known|drawn|shown|made|given|seen|held|found|sent|built|met|taken|chosen|lost|left|said|cut"
    r"|alone|alike|apart|plain|whole|beside|together|anew"
)
PROPER = {"embed", "seed", "need", "feed", "exceed", "proceed"}


@pytest.mark.parametrize("folder", ["fedmem", "strategies", "experiments"])
def test_functions_are_no_bare_participles(folder: str) -> None:
    found = []
    for path in _files(folder):
        if path.suffix == ".py":
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            names = ((node.lineno, node.name.strip("_")) for node in nodes if isinstance(node, ast.FunctionDef))
            bare = ((n, name) for n, name in names if PARTICIPLES.fullmatch(name) and name not in PROPER)
            found += [f"{path.relative_to(ROOT)}:{n} {name}" for n, name in bare]
    assert not found, "say what it does or what it returns:\n" + "\n".join(found)


if __name__ == "__main__":
    for word, entry in WORDS.items():
        counts = Counter({folder: sum(1 for _ in uses(entry, folder)) for folder in FOLDERS})
        print(f"{word:12} {sum(counts.values()):5}  {entry.instead:45} " + str({f: n for f, n in counts.items() if n}))
