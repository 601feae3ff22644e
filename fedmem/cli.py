"""The command line. Each command reads its arguments, makes one call of the library and prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedmem.scenario import Scenario

app = typer.Typer(
    help="What do federated models memorise, where and when? From a scenario file to measured memorisation, exposure, "
    "membership and leakage, of local and global models.",
    epilog="Exit codes: 0 done, 1 a run failed or raised an alarm, 2 the scenario or the command is wrong.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(help="scenario file", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="folder of a finished run", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="change one value, e.g. client.lr=0.05; may be given again"),
]


def main() -> None:
    """The entry point of `fedmem`."""
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        from fedmem import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="the same as --set seed=…")] = None,
    runs: Annotated[int | None, typer.Option(help="the same as --set runs=…")] = None,
    engine: Annotated[str | None, typer.Option(help="the same as --set speed.engine=…")] = None,
    out: Annotated[Path, typer.Option(help="where the folder of the run goes, as NAME/ID")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="run again although the folder exists")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, no table; only the folder")] = False,
) -> None:
    """Run a scenario, measure it, draw its figures and print its table."""
    given = [
        f"{key}={value}"
        for key, value in (("seed", seed), ("runs", runs), ("speed.engine", engine))
        if value is not None
    ]
    with _reporting():
        from fedmem.progress import Progress
        from fedmem.running import run as run_scenario
        from fedmem.scenario import load_scenario

        scenario = load_scenario(file, [*(overrides or ()), *given])
        if not force and (out / scenario.name / scenario.id).exists():
            typer.echo("this scenario has been run already; these are its results, --force runs it again", err=True)
        with _reporting(scenario), Progress(quiet=quiet) as progress:
            folder = run_scenario(scenario, out=out, force=force, progress=progress)
        _show_results(folder, quiet=quiet)


@app.command()
def measure(folder: Folder) -> None:
    """Estimate again from the evidence of a finished run; trains nothing."""
    with _reporting():
        from fedmem.running import measure as measure_again

        _show_results(measure_again(folder), quiet=False)


@app.command()
def report(folder: Folder) -> None:
    """Draw the figures of a finished run and print its table."""
    with _reporting():
        _show_results(folder, quiet=False)


def _show_results(folder: Path, *, quiet: bool) -> None:
    """Figures, table, where the files are; exit code 1 if the run raised an alarm."""
    from rich.console import Console

    from fedmem.report import report, table
    from fedmem.results import read

    page = report(folder)
    if quiet:
        typer.echo(str(folder))
    else:
        Console().print(table(folder))
        typer.echo(f"Report: {page}")
    alarms = read(folder).manifest.get("alarms", [])
    for alarm in alarms:
        typer.echo(f"alarm: {alarm}", err=True)
    if alarms:
        raise typer.Exit(1)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="scenario files", show_default=False)], overrides: Overrides = None
) -> None:
    """Say everything that is wrong with scenarios, or what they will do and where every row of the data goes."""
    from fedmem.errors import FedmemError

    wrong = False
    for file in files:
        try:
            with _reporting():
                typer.echo(f"{file}  ok\n{_plan(check_file(file, overrides or ()))}")
        except typer.Exit as error:
            wrong = wrong or bool(error.exit_code)
    if wrong:
        raise typer.Exit(FedmemError.exit_code + 1)


def check_file(file: Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of a file whose data can hold what it asks for; `ScenarioError` otherwise."""
    from fedmem import federation
    from fedmem.errors import ScenarioError
    from fedmem.scenario import load_scenario

    scenario = load_scenario(file, overrides)
    problems = federation.check(scenario)
    if problems:
        raise ScenarioError([scenario.place(problem) for problem in problems])
    return scenario


def _plan(scenario: Scenario) -> str:
    """What a scenario will do, in four lines."""
    from fedmem.federation import budget

    counts = dict(budget(scenario))
    total = counts.pop("total", sum(counts.values()))
    size = getattr(scenario.sampler, "size", scenario.clients * getattr(scenario.sampler, "rate", 1))
    times = f"{scenario.runs} runs × {scenario.rounds} rounds × {size:g} clients"
    observed = ", ".join(str(round) for round in scenario.observed_rounds)
    lines = [
        f"  id        {scenario.name}/{scenario.id}",
        f"  rows      {total} = " + " + ".join(f"{count} {name}" for name, count in counts.items()),
        f"  training  {times} = {scenario.runs * scenario.rounds * size:,.0f} local trainings",
        f"  observed  {len(scenario.observed_rounds)} rounds: {observed}",
    ]
    if scenario.runs > 1:
        lines.append(
            f"  precision the standard error of one example's memorisation is at most {scenario.runs**-0.5:.2f} "
            f"(√(1/R) for R = {scenario.runs} runs)"
        )
    return "\n".join(lines)


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="a data set; left out: list them", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="fetch again although it is there")] = False,
) -> None:
    """Fetch a published data set into the cache folder, or list what can be fetched and what is there."""
    with _reporting():
        from fedmem import fetching

        if name is not None:
            folder = fetching.fetch(name, force=force, tell=lambda line: typer.echo(line, err=True))
            typer.echo(str(folder))
            return
        for item in fetching.published().values():
            typer.echo(f"{item.name:14}  {fetching.state(item):8}  {item.licence}")
        typer.echo(f"Cache folder (FEDMEM_CACHE): {fetching.cache_folder()}")


@app.command("list")
def list_kinds(
    family: Annotated[str | None, typer.Argument(help="only this family", show_default=False)] = None,
) -> None:
    """List the components that a scenario can be made of."""
    with _reporting():
        from fedmem.catalogue import kinds
        from fedmem.components import FAMILIES
        from fedmem.describe import summary

        for name in FAMILIES if family is None else (family,):
            known = kinds(name)
            if family is None:
                typer.echo(name)
            width = max(map(len, known), default=0)
            for kind in known:
                typer.echo(f"{'' if family else '  '}{kind:{width}}  {summary(name, kind)}")


@app.command()
def show(
    family: Annotated[str, typer.Argument(help="such as partition", show_default=False)],
    kind: Annotated[str, typer.Argument(help="such as dirichlet, or package.module:Class", show_default=False)],
) -> None:
    """Explain one component: what it is, its fields, and YAML that builds it."""
    with _reporting():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from fedmem.catalogue import load
        from fedmem.describe import example, field_facts, text_of
        from fedmem.overrides import FAMILY_OF_FIELD
        from fedmem.yaml_source import write_flow

        facts = field_facts(family, kind)
        typer.echo(text_of(load(family, kind)) + "\n")
        if facts:
            table = Table("field", "type", "default", "allowed", box=None, pad_edge=False)
            for fact in facts:
                cells = (fact.name, fact.type, fact.default or "(must be given)", fact.allowed)
                table.add_row(*(Text(cell) for cell in cells))
            Console().print(table)
        text = write_flow(example(family, kind))
        field = next((name for name, other in FAMILY_OF_FIELD.items() if other == family), family)
        typer.echo(f"\n{field}:\n  - {text}" if field.endswith("s") else f"\n{field}: {text}")


@contextmanager
def _reporting(scenario: Scenario | None = None) -> Iterator[None]:
    """Errors that a user can mend become messages with an exit code; everything else is our bug and shows its trace."""
    from fedmem.errors import ComponentError, FedmemError, Problem, ScenarioError

    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; nothing was kept. Start again with: {_command()}", err=True)
        raise typer.Exit(1) from None
    except FedmemError as error:
        found: Sequence[Problem] = ()
        if isinstance(error, ScenarioError):
            found = error.problems
        elif isinstance(error, ComponentError):
            found = (Problem(path=error.path, message=error.message),)
        for problem in found:
            typer.echo(str(problem if scenario is None else scenario.place(problem)), err=True)
        if not found:
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _command() -> str:
    """The command that is running, as it can be typed again."""
    return shlex.join(["fedmem", *sys.argv[1:]])
