"""Commands about scenarios and their parts: `check`, `fetch`, `list`, `show` and `schema`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fedmem.cli.app import Debug, Engine, Overrides, Runs, Seed, app, complete
from fedmem.cli.changes import files_and_changes, short_changes
from fedmem.cli.errors import reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import width


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Arguments and options of `fedmem check`."""

    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [PATH=VALUE]...",
            help="scenario or sweep files, or names such as quickstart; then values to change in all of them",
            show_default=False,
            autocompletion=complete("scenarios"),
        ),
    ]
    overrides: Overrides = None
    seed: Seed = None
    runs: Runs = None
    engine: Engine = None
    timed: Annotated[
        bool, typer.Option("--time", help="train three rounds of a scenario and estimate the time of all")
    ] = False
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="PATH=A,B,…", help="check what fedmem compare would run; may be repeated"),
    ] = None
    seeds: Annotated[
        str | None, typer.Option(help="check what fedmem compare would run: how many, a range such as 0:10, or a list")
    ] = None
    out: Annotated[Path, typer.Option(help="where finished runs of a comparison or sweep are looked for")] = Path(
        "runs"
    )
    debug: Debug = False


@app.command()
@options(CheckOptions)
def check(check_options: CheckOptions) -> None:
    """Say everything that is wrong with scenarios, or what they will do and where every row of the data goes.

    For one scenario nothing is trained, unless --time is given. For a sweep file, and with --vary or --seeds, say how
    many runs, hours and how much memory the whole study takes.
    """
    codes = [0]
    files, changes = files_and_changes(check_options.words)
    short = short_changes(check_options.seed, check_options.runs, check_options.engine)
    overrides = [*(check_options.overrides or ()), *changes, *short]
    with reporting():
        if not files:
            from fedmem.errors import Problem, ScenarioError

            message = f"changes a scenario, and none is named; write: fedmem check quickstart {changes[0]}"
            raise ScenarioError([Problem(path="", message=message, source=changes[0])])
    for file in map(Path, files):
        try:
            with reporting():
                from fedmem.cli.study_text import is_sweep, study_text
                from fedmem.scenario.yaml_source import read_file
                from fedmem.shipped.files import find_scenario

                source = read_file(find_scenario(file))
                sweep = source if is_sweep(source) and str(file) != "-" else None
                if check_options.vary or check_options.seeds is not None or sweep is not None:
                    text = study_text(
                        file,
                        check_options.vary or (),
                        check_options.seeds or "0:5",
                        overrides,
                        check_options.out,
                        width(),
                        sweep=sweep,
                    )
                    typer.echo(f"{file}  ok\n{text}")
                    continue
                from fedmem.cli.plan_text import check_file, plan_text

                checked = check_file(file, overrides, source)
                with reporting(checked.scenario):
                    text = plan_text(checked, width(), timed=check_options.timed)
                typer.echo(f"{file}  ok\n{text}")
        except typer.Exit as error:
            codes.append(error.exit_code)
    raise typer.Exit(max(codes))


@app.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="a data set or model; left out: list them",
            show_default=False,
            autocompletion=complete("published_names"),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="fetch again although it is there")] = False,
) -> None:
    """Fetch a published data set or model into the cache folder, or list what can be fetched and what is there."""
    with reporting():
        from fedmem.federation import fetch
        from fedmem.fetched import files

        if name is not None:
            folder = fetch.fetch(name, force=force, report=lambda line: typer.echo(line, err=True))
            typer.echo(str(folder))
            return
        for item in fetch.published_items().values():
            typer.echo(f"{item.name:14}  {files.state(item):8}  {item.licence}")
        typer.echo(f"Cache folder (FEDMEM_CACHE): {files.cache_folder()}")


@app.command("list")
def list_kinds(
    family: Annotated[
        str | None,
        typer.Argument(help="only this family, or scenarios", show_default=False, autocompletion=complete("families")),
    ] = None,
) -> None:
    """List the components that a scenario can be made of; `fedmem list scenarios` lists those that ship."""
    with reporting():
        from fedmem.contracts.families import FAMILIES
        from fedmem.scenario.catalogue import all_kinds
        from fedmem.scenario.describe import summary
        from fedmem.scenario.installed_parts import unusable_names

        if family in ("scenario", "scenarios"):
            _list_scenarios()
            return
        for name in FAMILIES if family is None else (family,):
            kind_names = all_kinds(name)
            if family is None:
                typer.echo(name)
            longest = max(map(len, kind_names), default=0)
            for kind in kind_names:
                _echo_line(f"{'' if family else '  '}{kind:{longest}}  {summary(name, kind)}")
        for message in unusable_names():
            typer.echo(f"note: {message}", err=True)


def _list_scenarios() -> None:
    """The shipped scenarios, each with what it asks."""
    from fedmem.shipped.files import scenario_questions

    questions = scenario_questions()
    longest = max(map(len, questions), default=0)
    for name, question in questions.items():
        _echo_line(f"{name:{longest}}  {question}")


def _echo_line(line: str) -> None:
    """A line, cut to the width of a terminal."""
    typer.echo(line if len(line) <= width() or not sys.stdout.isatty() else f"{line[: width() - 1]}…")


@app.command()
def show(
    family: Annotated[
        str, typer.Argument(help="such as partition", show_default=False, autocompletion=complete("families"))
    ],
    kind: Annotated[
        str,
        typer.Argument(
            help="such as dirichlet, or package.module:Class", show_default=False, autocompletion=complete("kinds")
        ),
    ],
) -> None:
    """Explain one component: what it is, its fields, and YAML that builds it."""
    with reporting():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from fedmem.scenario.catalogue import load
        from fedmem.scenario.describe import field_facts, origin_of, place_of, section_texts, text_of, wrap_docstring
        from fedmem.scenario.yaml_source import write_short

        facts, columns = field_facts(family, kind), width()
        for text in filter(None, (origin_of(family, kind), wrap_docstring(text_of(load(family, kind)), columns))):
            typer.echo(text + "\n")
        for name, text in section_texts(family, kind):
            typer.echo(wrap_docstring(f"The mapping `{name}`: {text}", columns) + "\n")
        if facts:
            allowed = any(fact.allowed for fact in facts)
            table = Table("field", "type", "default", *["allowed"] * allowed, box=None, pad_edge=False)
            for fact in facts:
                cells = (fact.name, fact.type, fact.default or "(must be given)", *[fact.allowed] * allowed)
                table.add_row(*(Text(cell) for cell in cells))
            Console(width=columns).print(table)
            typer.echo("")
        typer.echo(write_short(place_of(family, kind), columns), nl=False)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="write it to this file", show_default=False)] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="of sweep files instead")] = False,
) -> None:
    """Print the JSON Schema of scenarios, from which editors complete, explain and check."""
    with reporting():
        if sweep:
            from fedmem.studies.sweep_file import text_of_schema as text_of_sweeps

            if out is None:
                typer.echo(text_of_sweeps(), nl=False)
            else:
                out.write_text(text_of_sweeps(), encoding="utf-8")
                typer.echo(str(out))
            return
        from fedmem.scenario.json_schema import text_of_schema, write_schema

        typer.echo(text_of_schema() if out is None else write_schema(out), nl=out is not None)
