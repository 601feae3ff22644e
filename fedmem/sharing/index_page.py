"""The index of many runs, comparisons and sweeps: a page that links to their reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedmem.contracts.events import count
from fedmem.errors import RunError
from fedmem.reporting.rendering import content_policy, render
from fedmem.results.folder import is_finished
from fedmem.results.read import read

MAX_ENTRIES = 500
"""How many runs a page shows, the newest first."""

_STUDY = "series.json"
_PAGES = ("report.html", "comparison.html", "sweep.html")
_STAMPED = ("manifest.json", "scenario.yaml", "summary.json", _STUDY, "series.npz", *_PAGES)


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """A row of the index.

    Attributes:
        title: The name of the scenario, or the title of a comparison or sweep.
        id: The name of its folder.
        link: The address of its page below the index; empty where it has no page yet.
        finished: When it was finished, in local time.
        strategy: The kind of its strategy; empty for a study.
        data: The kind of its data set; empty for a study.
        sentences: The verdict of a run, or the size of a study, and what to do about its page.
        is_study: Whether it is a comparison or sweep.
    """

    title: str
    id: str
    link: str
    finished: str
    strategy: str = ""
    data: str = ""
    sentences: tuple[str, ...] = ()
    is_study: bool = False


def index_page(root: Path) -> bytes:
    """The page about the finished runs, comparisons and sweeps in a folder, in its folders and in theirs."""
    entries, problems = index_entries(root)
    shown = entries[:MAX_ENTRIES]
    notes = []
    if not entries:
        notes.append("There is no finished run here. fedmem run writes one to runs/NAME/ID.")
    if len(shown) < len(entries):
        notes.append(f"{len(entries) - len(shown)} older entries are not shown; open a folder below this one.")
    return render(
        "index.html",
        title="Finished runs",
        place=root.name,
        eyebrow="fedmem view",
        headline=_headline(entries),
        alarms=(),
        verdict=(),
        limits_of_verdict=(),
        warnings=problems,
        contents=(),
        entries=shown,
        notes=notes,
        footer="Only this machine can open this page. It loads nothing from elsewhere.",
    )


def _headline(entries: Sequence[IndexEntry]) -> str:
    num_studies = sum(entry.is_study for entry in entries)
    numbers = [count(len(entries) - num_studies, "finished run")]
    if num_studies:
        numbers.append(f"comparisons and sweeps: {num_studies}")
    return f"{'; '.join(numbers)}."


def index_entries(root: Path) -> tuple[list[IndexEntry], list[str]]:
    """The entries of a folder, the newest first, and what is wrong with folders that cannot be read."""
    entries, problems = [], []
    for place in _places(root):
        stamps = tuple(_stamp(place / name) for name in _STAMPED)
        try:
            entries.append((max(stamps), _entry_of(root, place, stamps)))
        except RunError as error:
            problems.append(str(error))
    return [entry for _, entry in sorted(entries, key=lambda pair: (-pair[0], pair[1].link))], problems


def _places(root: Path) -> Iterator[Path]:
    """Finished folders that lie inside of `root`, without hidden ones and links."""
    for place in sorted({root, *root.glob("*"), *root.glob("*/*")}):
        inner = place.relative_to(root).parts
        is_hidden = any(part.startswith(".") for part in inner)
        if not is_hidden and place.resolve() == place and (is_finished(place) or (place / _STUDY).is_file()):
            yield place


def _stamp(file: Path) -> int:
    """When a file was last changed, in nanoseconds; 0 where it is not there."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4 * MAX_ENTRIES)
def _entry_of(root: Path, place: Path, stamps: tuple[int, ...]) -> IndexEntry:
    """The entry of a folder; read again when one of its files has changed."""
    page = next((name for name in _PAGES if (place / name).is_file()), "")
    link = quote((place.relative_to(root) / page).as_posix()) if page else ""
    first = stamps[_STAMPED.index("manifest.json")] or stamps[_STAMPED.index(_STUDY)]
    finished = datetime.fromtimestamp(first / 1e9).strftime("%Y-%m-%d %H:%M")
    if is_finished(place):
        return _entry_of_run(place, page, link, finished)
    from fedmem.studies.stored import read_study

    study = read_study(place)
    sizes = f"{count(len(study.comparison.settings), 'setting')}, {count(len(study.comparison.seeds), 'seed')}."
    return IndexEntry(title=study.title, id=place.name, link=link, finished=finished, sentences=(sizes,), is_study=True)


def _page_notes(place: Path, page: str) -> tuple[str, ...]:
    """The remedy for a page that is missing, or that the policy of this version would show without its style."""
    if not page:
        return (f"There is no page yet. Draw it with: fedmem report {place}",)
    with (place / page).open("rb") as file:
        is_current = content_policy().encode() in file.read(4096)
    return () if is_current else (f"Another version drew the page. Draw it again with: fedmem report {place}",)


def _entry_of_run(place: Path, page: str, link: str, finished: str) -> IndexEntry:
    run = read(place)
    try:
        verdicts = tuple(sentence.text for sentence in run.summary().verdicts)
    except RunError:
        verdicts = ()
    return IndexEntry(
        title=str(run.scenario.get("name", place.parent.name)),
        id=place.name,
        link=link,
        finished=finished,
        strategy=_kind(run.scenario.get("strategy")),
        data=_kind(run.scenario.get("dataset")),
        sentences=(*verdicts, *_page_notes(place, page)),
    )


def _kind(part: Any) -> str:
    """The kind of a component in a stored scenario; empty where there is none."""
    return str(part.get("kind", "")) if isinstance(part, dict) else ""
