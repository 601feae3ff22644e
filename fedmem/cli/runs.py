"""Commands about single runs: `run`, `measure`, `report` and `runs`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmem.cli.app import (
    Changes,
    Debug,
    Engine,
    File,
    Folder,
    Full,
    On,
    Overrides,
    Quiet,
    Runs,
    Seed,
    StudyFolder,
    app,
)
from fedmem.cli.changes import changes_of, short_changes
from fedmem.cli.errors import command_line, reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import print_notes, show_results, show_study, wrap_line
from fedmem.cli.tracking import Track, tracking
from fedmem.contracts.events import Listener


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Arguments and options of `fedmem run`."""

    file: File
    changes: Changes = None
    overrides: Overrides = None
    seed: Seed = None
    runs: Runs = None
    engine: Engine = None
    out: Annotated[Path, typer.Option(help="where the folder of the run goes, as NAME/ID")] = Path("runs")
    force: Annotated[bool, typer.Option("--force", help="run again although the folder exists")] = False
    on: On = None
    track: Track = None
    quiet: Quiet = False
    full: Full = False
    debug: Debug = False


@app.command()
@options(RunOptions)
def run(run_options: RunOptions) -> None:
    """Run a scenario, measure it, draw its figures and print what it shows."""
    short = short_changes(run_options.seed, run_options.runs, run_options.engine)
    with reporting():
        from fedmem.cli.progress import Progress
        from fedmem.execution.run import folder_of
        from fedmem.execution.run import run as run_scenario
        from fedmem.execution.shard_store import kept_runs
        from fedmem.results.folder import finish_time
        from fedmem.scenario.loading import load_scenario

        changes = changes_of(run_options.changes, run_options.overrides, command="run")
        scenario = load_scenario(run_options.file, [*changes, *short])
        folder = folder_of(scenario, run_options.out)
        before = finish_time(folder)
        if not run_options.quiet:
            print_notes([scenario])
        try:
            with (
                tracking(run_options.track) as trackers,
                reporting(scenario),
                Progress(quiet=run_options.quiet) as progress,
            ):
                listeners: list[Listener] = [progress, *trackers]
                how: dict[str, Any] = {"force": run_options.force, "listeners": listeners, "on": run_options.on}
                run_scenario(scenario, out=run_options.out, **how)
            if not run_options.force and before is not None:
                typer.echo(
                    "this scenario has been run already; these are its results, --force runs it again",
                    err=True,
                )
            show_results(folder, quiet=run_options.quiet, full=run_options.full)
        except typer.Exit as error:
            num_runs = kept_runs(folder)
            if error.exit_code == 1 and num_runs and finish_time(folder) is None:
                message = f"kept {num_runs} of {scenario.runs} runs; the same command continues"
                typer.echo(f"{message}: {command_line(force=False)}", err=True)
            raise
        except KeyboardInterrupt:
            num_runs = kept_runs(folder)
            if num_runs and finish_time(folder) is None:
                message = f"interrupted; kept {num_runs} of {scenario.runs} runs. The same command continues"
                typer.echo(f"{message}: {command_line(force=False)}", err=True)
                raise typer.Exit(1) from None
            if finish_time(folder) in (None, before if run_options.force else None):
                raise
            again = shlex.join(["fedmem", "report", str(folder)])
            typer.echo(f"interrupted, but the run is finished; draw its figures and table with: {again}", err=True)
            raise typer.Exit(1) from None


AddedSignals = Annotated[
    list[str] | None,
    typer.Argument(metavar="[signals=VALUE]", help="signals to add, e.g. 'signals=[{kind: el2n}]'", show_default=False),
]


@app.command()
def measure(folder: Folder, changes: AddedSignals = None, full: Full = False, debug: Debug = False) -> None:
    """Estimate again from the evidence of a finished run; trains nothing. Readings of probes stay as they are.

    Signals may be added, such as 'signals=[{kind: el2n}]'. They are read at the models that save.models has stored.
    Estimators belong to the id of a run: to add one, run the scenario with it.
    """
    with reporting():
        from fedmem.execution.measuring import measure as measure_again
        from fedmem.results.transfer import renewing_list

        with renewing_list(folder):
            changed = changes_of(changes, None, command="measure")
            show_results(measure_again(folder, changed), quiet=False, full=full)


@app.command()
def report(
    folder: StudyFolder,
    full: Full = False,
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="audit examples on the page of a run, the most memorised first", show_default=False),
    ] = None,
) -> None:
    """Draw the figures of a finished run, comparison or sweep again and print what it shows; trains nothing."""
    with reporting():
        from fedmem.errors import ComponentError
        from fedmem.results.transfer import renewing_list
        from fedmem.studies.stored import is_study

        of_study = is_study(folder)
        if of_study and examples is not None:
            raise ComponentError("--examples", f"{folder} is no run, and its page shows no examples; leave it out")
        with renewing_list(folder):
            if of_study:
                show_study(folder, full=full)
            else:
                show_results(folder, quiet=False, full=full, max_examples=examples)


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="where to look", show_default=True)] = Path("runs"),
) -> None:
    """List finished runs: when, how long, what sets each apart from others of its name, and headline numbers."""
    with reporting():
        from fedmem.errors import RunError
        from fedmem.reporting.run_list import finished_runs

        damaged: list[RunError] = []
        summaries = finished_runs(folder, damaged.append)
        if not summaries and not damaged:
            typer.echo(f"no finished run in {folder}", err=True)
        for summary in summaries:
            when, seconds = summary.finished.strftime("%Y-%m-%d %H:%M"), f"{summary.seconds:.0f} s"
            place = (
                summary.run.path.relative_to(Path.cwd())
                if summary.run.path.is_relative_to(Path.cwd())
                else summary.run.path
            )
            typer.echo(f"{place}  {when}  {seconds}")
            for text in filter(None, (summary.label, *summary.numbers)):
                typer.echo(wrap_line(text, "  "))
        for error in damaged:
            typer.echo(f"error: {error}", err=True)
        if damaged:
            raise typer.Exit(1)
