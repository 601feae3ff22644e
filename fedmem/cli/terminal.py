"""Text of a command in a terminal: width, wrapped lines, the table of a run."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fedmem.scenario.scenario import Scenario
    from fedmem.studies.stored import StoredStudy


def width() -> int:
    """The width of the terminal; what goes into a file or a pipe gets a moderate one."""
    return min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 100


def wrap_line(text: str, indent: str) -> str:
    """A line, or several where the terminal is narrow."""
    more = f"{indent}  "
    return textwrap.fill(text, width(), initial_indent=indent, subsequent_indent=more, break_long_words=False)


def print_notes(scenarios: Iterable[Scenario]) -> None:
    """Print to standard error what loading changed in scenarios, each note once."""
    for note in dict.fromkeys(note for scenario in scenarios for note in scenario.notes):
        typer.echo(wrap_line(f"note: {note}", ""), err=True)


def warning_text(text: str) -> str:
    """A warning in lines that fit the terminal.

    >>> warning_text("few seeds")
    'warning: few seeds'
    """
    return wrap_line(f"warning: {text}", "")


def console() -> Console:
    """Where tables are printed; a pipe or a file has no width that lines could be fitted to."""
    from rich.console import Console

    from fedmem.reporting.table import NO_LIMIT

    return Console() if sys.stdout.isatty() else Console(width=NO_LIMIT)


def show_results(folder: Path, *, quiet: bool, full: bool = False, max_examples: int | None = None) -> None:
    """Figures, and the first screen or with `full` all tables; exit code 1 if the run raised an alarm.

    `max_examples` are the audit examples on the page; None for its usual number.
    """
    from fedmem.reporting.first_screen import FirstScreen
    from fedmem.reporting.page import report
    from fedmem.reporting.summarise import summarise, write_summary
    from fedmem.reporting.table import table
    from fedmem.results.read import read

    page, trouble = None, ""
    try:
        write_summary(folder)
        page = report(folder, **({} if max_examples is None else {"max_examples": max_examples}))
    except OSError as error:
        # the numbers are stored, even where the figures cannot be
        trouble = f"error: the figures cannot be written to {folder}: {error.strerror or error}"
    if quiet:
        typer.echo(str(folder))
    elif full:
        console().print(table(folder), crop=False)
        if page is not None:
            typer.echo(f"Report: {page}")
    else:
        screen = FirstScreen(summary=summarise(read(folder)), page=None if page is None else _from_here(page))
        console().print(screen, crop=False)
    alarms = read(folder).manifest.get("alarms", [])
    for alarm in alarms:
        typer.echo(f"alarm: {alarm}", err=True)
    if trouble:
        typer.echo(trouble, err=True)
    if alarms or trouble:
        raise typer.Exit(1)


def _from_here(path: Path) -> Path:
    """A path as short as it can be typed in the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def show_study(folder: Path, *, full: bool = False) -> None:
    """Tables, figures and page of a comparison or sweep, drawn from its stored numbers; exit code 1 if runs failed."""
    from fedmem.errors import message_lines
    from fedmem.studies.stored import draw_study, read_study

    study = read_study(folder)
    print_study(folder, study, (f"Report: {_from_here(draw_study(folder, study))}",), full=full)
    for line in message_lines([f"failed and left out: {cause}" for cause in study.failures]):
        typer.echo(line, err=True)
    if study.failures:
        raise typer.Exit(1)


def print_study(folder: Path, study: StoredStudy, last: tuple[str, ...], *, full: bool) -> None:
    """The first screen of a comparison or sweep, or with `full` all of its tables; then the `last` lines."""
    from fedmem.studies.study_screen import StudyScreen
    from fedmem.studies.study_summary import summarise_study

    summary = summarise_study(study, folder)
    if not full:
        console().print(StudyScreen(summary=summary, last=last), crop=False)
        return
    from fedmem.studies.report import Table

    console().print(Table(study.comparison, tuple(sentence.text for sentence in summary.sentences)), crop=False)
    typer.echo("\n".join(last))
