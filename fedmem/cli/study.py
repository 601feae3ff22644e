"""The commands of `fedmem study`: `list`, `check` and `run`, for the studies of a clone and for those of a user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmem.cli.app import Debug, On, app
from fedmem.cli.errors import command_line, reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import wrap_line
from fedmem.contracts.events import count
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.studies.cost import StudyCost
    from fedmem.studies.study import Study, StudyOptions

study_app = typer.Typer(help="Studies: a question, its runs over several seeds, tables with verdicts, and a page.")
app.add_typer(study_app, name="study")


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Arguments and options of `fedmem study check`, and those of `run` that it shares."""

    name: Annotated[
        str, typer.Argument(help="study, such as generative, or the path of its folder", show_default=False)
    ]
    seeds: Annotated[
        str | None, typer.Option(help="how many, such as 5, a range or a list; by default those of its page")
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="WORD", help="cells with this word, such as a data set; may be given again"),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="change this in all scenarios; may be given again"),
    ] = None
    out: Annotated[Path, typer.Option(help="where finished runs are found and go")] = Path("runs")
    jobs: Annotated[int, typer.Option(help="cells that are trained at a time", min=1)] = 1
    debug: Debug = False


@dataclass(frozen=True, kw_only=True)
class _Run(_Cells):
    """Arguments and options of `fedmem study run`."""

    on: On = None
    hours: Annotated[
        float | None, typer.Option(help="hours after which no cell begins; the same command continues", min=0)
    ] = None
    results: Annotated[
        Path | None, typer.Option(help="where tables, figures and the page go; by default the folder of the study")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="no price and no progress; only the table of verdicts")] = False


@study_app.command("list")
def list_studies(debug: Debug = False) -> None:
    """List the studies of this clone with their questions."""
    with reporting():
        from fedmem.studies.study_folder import find_study, study_names

        names = study_names()
        if not names:
            typer.echo("no studies here: they are in the folder experiments of a clone")
        for name in names:
            typer.echo(wrap_line(f"{name}: {find_study(name)[0].question}", "  "))


@study_app.command("check")
@options(_Cells)
def check_study(given: _Cells) -> None:
    """Say what a study would run, and how long that takes. Only a few rounds are trained, for the estimate."""
    with reporting():
        from fedmem.studies.study import cells_of, price
        from fedmem.studies.study_folder import find_study

        study, _ = find_study(given.name)
        chosen = _options(given)
        typer.echo(study.question)
        for line in _price_lines(study, len(cells_of(study, chosen)), price(study, chosen), chosen):
            typer.echo(line)


@study_app.command("run")
@options(_Run)
def run_study(given: _Run) -> None:
    """Run a study: price it, train what is missing, then write its tables, figures and page. Nothing is run twice."""
    with reporting():
        from fedmem.studies import study as studies
        from fedmem.studies.study_folder import find_study

        study, folder = find_study(given.name)
        chosen = _options(given, on=given.on, hours=given.hours)
        cells = studies.cells_of(study, chosen)
        if not given.quiet:
            for line in _price_lines(study, len(cells), studies.price(study, chosen), chosen):
                typer.echo(line, err=True)
        report = (lambda text: None) if given.quiet else (lambda text: typer.echo(text, err=True))
        tables = studies.run_study(study, chosen, report)
        if tables is None:
            typer.echo(f"Not all cells are finished. The same command continues: {command_line(force=False)}")
            return
        target = folder if given.results is None else given.results
        studies.write_study(study, target, tables)
        if study.shown:
            typer.echo(tables[study.shown].to_string(index=False))
        typer.echo(f"Tables: {', '.join(str(target / f'{name}.csv') for name in tables)}")


def _options(given: _Cells, *, on: str | None = None, hours: float | None = None) -> StudyOptions:
    from fedmem.studies.grid import parse_seeds
    from fedmem.studies.study import StudyOptions

    return StudyOptions(
        seeds=None if given.seeds is None else parse_seeds(given.seeds),
        only=tuple(given.only or ()),
        settings=tuple(given.set or ()),
        out=given.out,
        jobs=given.jobs,
        on=on,
        hours=hours,
    )


def _price_lines(study: Study, cells: int, cost: StudyCost, chosen: StudyOptions) -> list[str]:
    """The work of a study and its cost, a line each."""
    from fedmem.studies.cost import price_text

    lines = [f"{count(cells, 'cell')}, {count(cost.scenarios, 'scenario')}, {cost.finished} finished before"]
    if cost.scenarios:
        lines += [
            f"training: {count(cost.runs, 'run')}, {count(cost.steps, 'local step')}",
            f"time: {price_text(cost, chosen.jobs)}",
            f"memory: about {bytes_text(cost.memory * chosen.jobs)}; disk: about {bytes_text(cost.disk)}",
        ]
    return [*lines, *([f"not in this price: {study.unpriced}"] if study.unpriced else [])]
