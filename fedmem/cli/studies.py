"""Commands about many runs: `compare` and `sweep`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmem.cli.app import Changes, Debug, File, Full, On, Overrides, Quiet, app, complete
from fedmem.cli.changes import changes_of
from fedmem.cli.errors import command_line, print_errors, reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import print_notes, print_study
from fedmem.cli.tracking import Track, tracking
from fedmem.contracts.events import Listener, count

if TYPE_CHECKING:
    from fedmem.cli.progress import ManyRunsProgress


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Arguments and options of `fedmem compare`."""

    file: File
    changes: Changes = None
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="PATH=A,B,…",
            help="what varies, e.g. strategy.kind=fedavg,krum; may be repeated; left out: kinds and levels",
        ),
    ] = None
    seeds: Annotated[str, typer.Option(help="how many, such as 5, a range such as 0:10, or a list such as 1,4,7")] = (
        "0:5"
    )
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference", metavar="PATH=A", help="what others are compared with; by default what comes first"
        ),
    ] = None
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="table only these, e.g. exposure; p and intervals are adjusted over all differences of these measures",
        ),
    ] = None
    overrides: Overrides = None
    jobs: Annotated[int | None, typer.Option(help="processes; by default one for each core", min=1)] = None
    out: Annotated[Path, typer.Option(help="where runs and the comparison go, in NAME/")] = Path("runs")
    force: Annotated[bool, typer.Option("--force", help="run again what is there")] = False
    on: On = None
    track: Track = None
    quiet: Quiet = False
    full: Full = False
    debug: Debug = False


@app.command()
@options(CompareOptions)
def compare(compare_options: CompareOptions) -> None:
    """Run a scenario in several settings with several seeds, and say how they differ. Nothing is run twice.

    Without --vary, say how the kinds and levels of the one setting differ over the seeds."""
    with reporting():
        from fedmem.cli.progress import ManyRunsProgress
        from fedmem.cli.terminal import warning_text
        from fedmem.studies.compare import compare as compare_settings
        from fedmem.studies.grid import parse_seeds
        from fedmem.studies.reading_notes import few_seeds_warning

        changes = changes_of(compare_options.changes, compare_options.overrides, command="compare")
        warning = few_seeds_warning(len(parse_seeds(compare_options.seeds)))
        if warning and not compare_options.quiet:
            typer.echo(warning_text(warning), err=True)
        tally = ManyRunsProgress(quiet=compare_options.quiet)
        with _continuing(tally), tracking(compare_options.track) as trackers, tally:
            done = compare_settings(
                compare_options.file,
                vary=compare_options.vary or (),
                seeds=compare_options.seeds,
                reference=compare_options.reference or (),
                measures=compare_options.measures or (),
                overrides=changes,
                out=compare_options.out,
                force=compare_options.force,
                jobs=compare_options.jobs,
                listeners=[tally, *trackers],
                on=compare_options.on,
            )
        if compare_options.quiet:
            typer.echo(str(done.path))
        else:
            print_notes(cell.scenario for cell in done.cells)
            from fedmem.studies.stored import read_study

            last = (f"Report: {done.path / 'comparison.html'}",)
            print_study(done.path, read_study(done.path), last, full=compare_options.full)
        if done.failures:
            print_errors([f"error: {done.failure_text}"])
            raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Arguments and options of `fedmem sweep`."""

    file: Annotated[str, typer.Argument(help="sweep file", show_default=False, autocompletion=complete("scenarios"))]
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None
    jobs: Annotated[int | None, typer.Option(help="processes; by default one for each core", min=1)] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="run those that failed before, and nothing else")
    ] = False
    out: Annotated[Path, typer.Option(help="where the runs and their frame go, in NAME/")] = Path("runs")
    force: Annotated[bool, typer.Option("--force", help="run again what is there")] = False
    on: On = None
    track: Track = None
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress; only the folder")] = False
    full: Full = False
    debug: Debug = False


@app.command()
@options(SweepOptions)
def sweep(sweep_options: SweepOptions) -> None:
    """Run a scenario along axes, or search among their settings; one tidy frame comes out. Nothing is run twice."""
    with reporting():
        from fedmem.cli.progress import ManyRunsProgress
        from fedmem.errors import Problem, ScenarioError
        from fedmem.studies.sweep import failure_text, left_out_text
        from fedmem.studies.sweep import sweep as run_sweep

        if sweep_options.words:
            message = f"does not belong here; write changes into the sweep file {sweep_options.file}, under set or axes"
            raise ScenarioError([Problem(path="", message=message, source=repr(word)) for word in sweep_options.words])
        tally = ManyRunsProgress(quiet=sweep_options.quiet)
        with _continuing(tally), tracking(sweep_options.track) as trackers, tally:
            listeners: list[Listener] = [tally, *trackers]
            done = run_sweep(
                sweep_options.file,
                out=sweep_options.out,
                jobs=sweep_options.jobs,
                force=sweep_options.force,
                retry_failed=sweep_options.retry_failed,
                listeners=listeners,
                on=sweep_options.on,
            )
        if sweep_options.quiet:
            typer.echo(str(done.path))
        else:
            from fedmem.studies.stored import read_study

            print_notes(cell.scenario for cell in done.cells)
            if text := left_out_text(done):
                typer.echo(f"note: {text}")
            last = (
                f"Results: {done.path / 'results.csv'}",
                f"Figures and report: {shlex.join(['fedmem', 'report', str(done.path)])}",
            )
            print_study(done.path, read_study(done.path), last, full=sweep_options.full)
        if done.failed or done.failed_trials:
            print_errors([f"error: {failure_text(done)}"])
            raise typer.Exit(1)


@contextmanager
def _continuing(tally: ManyRunsProgress) -> Iterator[None]:
    """Ctrl-C leaves what is finished, and the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        kept = (
            f"; {count(tally.num_finished, 'finished scenario')} kept"
            if tally.num_finished
            else " before any scenario was finished; finished shards of runs are kept"
        )
        message = f"interrupted{kept}. The same command continues"
        typer.echo(f"{message}: {command_line(force=False)}", err=True)
        raise typer.Exit(1) from None
