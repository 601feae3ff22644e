"""The command line. Each command reads its arguments, makes one call of the library and prints."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

try:
    import click
    import typer
    import typer.core
except KeyboardInterrupt:
    # so early that nothing has been started
    raise SystemExit(1) from None

from fedmem import interrupts

if TYPE_CHECKING:
    from rich.console import Console

    from fedmem.scenario.scenario import Scenario


class _Commands(typer.core.TyperGroup):
    """The commands; what is wrong with their arguments is said in a few lines."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        with _brief():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        with _brief():
            return super().invoke(ctx)


@contextmanager
def _brief() -> Iterator[None]:
    """Messages about arguments repeat them, however long they are: the middle of long ones is left out."""
    try:
        yield
    except click.UsageError as error:
        text = error.format_message()
        if len(text) <= 600:
            raise
        raise click.UsageError(f"{text[:400]} … {text[-100:]}", error.ctx) from None


app = typer.Typer(
    cls=_Commands,
    help="What do federated models memorise, where and when? From a scenario file to measured memorisation, exposure, "
    "membership and leakage, of local and global models.",
    epilog="Exit codes: 0 done, 1 a run failed or raised an alarm, 2 the scenario or the command is wrong.",
    no_args_is_help=True,
    suggest_commands=False,  # click does so itself
    pretty_exceptions_enable=False,
)


def _complete(what: str) -> Callable[[typer.Context, str], list[Any]]:
    """What a shell offers for an argument; loaded only when it asks."""

    def complete(ctx: typer.Context, incomplete: str) -> list[Any]:
        from fedmem.cli import completion

        if what == "kinds":
            return completion.kinds(ctx.params.get("family"), incomplete)
        found: list[Any] = getattr(completion, what)(incomplete)
        return found

    return complete


File = Annotated[Path, typer.Argument(help="scenario file", show_default=False, autocompletion=_complete("scenarios"))]
Folder = Annotated[
    Path, typer.Argument(help="folder of a finished run", show_default=False, autocompletion=_complete("runs"))
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="change one value, e.g. client.lr=0.05; may be given again"),
]

_debugging: list[bool] = []
"""Whether errors are shown with their traceback; one entry where they are."""


def _debug(wanted: bool) -> bool:
    _debugging[:] = [True] * wanted
    return wanted


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, help="show the traceback of an error as well")]


def main() -> None:
    """The entry point of `fedmem`. Whatever happens to the output, there is no traceback about it."""
    signal.signal(signal.SIGINT, interrupts.heed)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show √ shows ? instead
            stream.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            # here, where it can be told, and not when the interpreter ends
            sys.stdout.flush()
    except KeyboardInterrupt:
        _die("interrupted")
    except BrokenPipeError:
        _die("")  # whoever read the output has seen enough
    except OSError as error:
        _die(f"error: the output cannot be written: {error.strerror or error}")
    finally:
        interrupts.leave()


def _die(message: str) -> NoReturn:
    """Exit code 1; what the output could not take is dropped."""
    if message:
        typer.echo(message, err=True)
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


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
    debug: Debug = False,
) -> None:
    """Run a scenario, measure it, draw its figures and print its table."""
    given = [
        f"{key}={value}"
        for key, value in (("seed", seed), ("runs", runs), ("speed.engine", engine))
        if value is not None
    ]
    with _reporting():
        from fedmem.cli.progress import Progress
        from fedmem.execution.run import folder_of
        from fedmem.execution.run import run as run_scenario
        from fedmem.execution.shard_store import kept_runs
        from fedmem.results.folder import finished
        from fedmem.scenario.loading import load_scenario

        scenario = load_scenario(file, [*(overrides or ()), *given])
        folder = folder_of(scenario, out)
        before = finished(folder)
        try:
            with _reporting(scenario), Progress(quiet=quiet) as progress:
                run_scenario(scenario, out=out, force=force, progress=progress)
            if not force and before is not None:
                typer.echo("this scenario has been run already; these are its results, --force runs it again", err=True)
            _show_results(folder, quiet=quiet)
        except typer.Exit as error:
            kept = kept_runs(folder)
            if error.exit_code == 1 and kept and finished(folder) is None:
                told = f"kept {kept} of {scenario.runs} runs; the same command continues"
                typer.echo(f"{told}: {_command(force=False)}", err=True)
            raise
        except KeyboardInterrupt:
            kept = kept_runs(folder)
            if kept and finished(folder) is None:
                told = f"interrupted; kept {kept} of {scenario.runs} runs. The same command continues"
                typer.echo(f"{told}: {_command(force=False)}", err=True)
                raise typer.Exit(1) from None
            if finished(folder) in (None, before if force else None):
                raise
            again = shlex.join(["fedmem", "report", str(folder)])
            typer.echo(f"interrupted, but the run is finished; draw its figures and table with: {again}", err=True)
            raise typer.Exit(1) from None


@app.command()
def compare(
    file: File,
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary", metavar="PATH=A,B,…", help="what varies, e.g. strategy.kind=fedavg,krum; may be repeated"
        ),
    ],
    seeds: Annotated[str, typer.Option(help="a range such as 0:10, or single seeds such as 1,2,5")] = "0:5",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference", metavar="PATH=A", help="what others are compared with; by default what comes first"
        ),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", metavar="NAME", help="table only these, e.g. exposure; fewer are told apart sooner"),
    ] = None,
    overrides: Overrides = None,
    jobs: Annotated[int | None, typer.Option(help="processes; by default one for each core", min=1)] = None,
    out: Annotated[Path, typer.Option(help="where runs and the comparison go, in NAME/")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="run again what is there")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, no table; only the folder")] = False,
    debug: Debug = False,
) -> None:
    """Run a scenario in several settings with several seeds, and say how they differ. Nothing is run twice."""
    with _reporting():
        from fedmem.cli.progress import Tallying
        from fedmem.studies.compare import compare as compare_settings

        with _continuing(), Tallying(quiet=quiet) as tally:
            done = compare_settings(
                file,
                vary=vary,
                seeds=seeds,
                reference=reference or (),
                measures=measures or (),
                overrides=overrides or (),
                out=out,
                force=force,
                jobs=jobs,
                tally=tally,
            )
        if quiet:
            typer.echo(str(done.path))
        else:
            from fedmem.studies.report import Table

            _console().print(Table(done.comparison), crop=False)
            typer.echo(f"Report: {done.path / 'comparison.html'}")
        if done.failed:
            _complain([f"error: {done.told}"])
            raise typer.Exit(1)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="sweep file", show_default=False)],
    jobs: Annotated[int | None, typer.Option(help="processes; by default one for each core", min=1)] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="run those that failed before, and nothing else")
    ] = False,
    out: Annotated[Path, typer.Option(help="where the runs and their frame go, in NAME/")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="run again what is there")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress; only the folder")] = False,
    debug: Debug = False,
) -> None:
    """Run a scenario along axes, or search among their settings; one tidy frame comes out. Nothing is run twice."""
    with _reporting():
        from fedmem.cli.progress import Tallying
        from fedmem.studies.sweep import sweep as run_sweep
        from fedmem.studies.sweep import told

        with _continuing(), Tallying(quiet=quiet) as tally:
            done = run_sweep(file, out=out, jobs=jobs, force=force, retry_failed=retry_failed, tally=tally)
        typer.echo(str(done.path) if quiet else f"Results: {done.path / 'results.csv'}")
        if done.failed:
            _complain([f"error: {told(done)}"])
            raise typer.Exit(1)


@contextmanager
def _continuing() -> Iterator[None]:
    """Ctrl-C leaves what is finished, and the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        told = "interrupted; finished runs are kept. The same command continues"
        typer.echo(f"{told}: {_command(force=False)}", err=True)
        raise typer.Exit(1) from None


@app.command()
def measure(folder: Folder, debug: Debug = False) -> None:
    """Estimate again from the evidence of a finished run; trains nothing. Readings of probes stay as they are."""
    with _reporting():
        from fedmem.execution.run import measure as measure_again

        _show_results(measure_again(folder), quiet=False)


@app.command()
def report(folder: Folder) -> None:
    """Draw the figures of a finished run and print its table."""
    with _reporting():
        _show_results(folder, quiet=False)


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="where to look", show_default=True)] = Path("runs"),
) -> None:
    """List finished runs: when, how long, what sets each apart from others of its name, and headline numbers."""
    with _reporting():
        from fedmem.errors import RunError
        from fedmem.reporting.run_list import finished_runs

        damaged: list[RunError] = []
        found = finished_runs(folder, damaged.append)
        if not found and not damaged:
            typer.echo(f"no finished run in {folder}", err=True)
        for one in found:
            when, seconds = one.finished.strftime("%Y-%m-%d %H:%M"), f"{one.seconds:.0f} s"
            place = one.run.path.relative_to(Path.cwd()) if one.run.path.is_relative_to(Path.cwd()) else one.run.path
            typer.echo(f"{place}  {when}  {seconds}")
            for text in filter(None, (one.label, *one.numbers)):
                typer.echo(_filled(text, "  "))
        for error in damaged:
            typer.echo(f"error: {error}", err=True)
        if damaged:
            raise typer.Exit(1)


def _filled(text: str, indent: str) -> str:
    """A line, or several where the terminal is narrow."""
    more = f"{indent}  "
    return textwrap.fill(text, _width(), initial_indent=indent, subsequent_indent=more, break_long_words=False)


def _show_results(folder: Path, *, quiet: bool) -> None:
    """Figures, table, where the files are; exit code 1 if the run raised an alarm."""
    from fedmem.reporting.page import report
    from fedmem.reporting.table import table
    from fedmem.results.read import read

    page, trouble = None, ""
    try:
        page = report(folder)
    except OSError as error:
        # the numbers are there, whatever the disk says to pictures of them
        trouble = f"error: the figures cannot be written to {folder}: {error.strerror or error}"
    if quiet:
        typer.echo(str(folder))
    else:
        _console().print(table(folder), crop=False)
        if page is not None:
            typer.echo(f"Report: {page}")
    alarms = read(folder).manifest.get("alarms", [])
    for alarm in alarms:
        typer.echo(f"alarm: {alarm}", err=True)
    if trouble:
        typer.echo(trouble, err=True)
    if alarms or trouble:
        raise typer.Exit(1)


def _console() -> Console:
    """Where tables are printed; a pipe or a file has no width that lines could be fitted to."""
    from rich.console import Console

    from fedmem.reporting.table import NO_LIMIT

    return Console() if sys.stdout.isatty() else Console(width=NO_LIMIT)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(help="scenario files", show_default=False, autocompletion=_complete("scenarios"))
    ],
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Say everything that is wrong with scenarios, or what they will do and where every row of the data goes."""
    codes = [0]
    for file in files:
        try:
            with _reporting():
                from fedmem.cli.plan_text import check_file, told

                checked = check_file(file, overrides or ())
                with _reporting(checked.scenario):
                    said = told(checked, _width())
                typer.echo(f"{file}  ok\n{said}")
        except typer.Exit as error:
            codes.append(error.exit_code)
    raise typer.Exit(max(codes))


@app.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="a data set; left out: list them", show_default=False, autocompletion=_complete("published")
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="fetch again although it is there")] = False,
) -> None:
    """Fetch a published data set into the cache folder, or list what can be fetched and what is there."""
    with _reporting():
        from fedmem.datasets import _published
        from fedmem.federation import fetch

        if name is not None:
            folder = fetch.fetch(name, force=force, tell=lambda line: typer.echo(line, err=True))
            typer.echo(str(folder))
            return
        for item in fetch.published().values():
            typer.echo(f"{item.name:14}  {_published.state(item):8}  {item.licence}")
        typer.echo(f"Cache folder (FEDMEM_CACHE): {_published.cache_folder()}")


@app.command("attack")
def attack_saved(
    before: Annotated[Path, typer.Argument(help="parameters before: .safetensors, .npz, or a state dict in .pt")],
    after: Annotated[Path, typer.Argument(help="parameters after, or the gradient (--gradient)")],
    model: Annotated[str, typer.Option(help="kind of model, or module:Class of a torch module of yours")],
    shape: Annotated[str, typer.Option(help="of one input, such as 1,28,28")],
    classes: Annotated[int, typer.Option(help="number of classes", min=1, max=10**6)],
    images: Annotated[int, typer.Option(help="how many examples shaped the update", min=1, max=10**6)],
    lr: Annotated[float, typer.Option(help="learning rate of the client")],
    steps: Annotated[int, typer.Option(help="local steps of the client", min=1, max=10**6)] = 1,
    batch_size: Annotated[int | None, typer.Option(help="rows in a step; left out: all", show_default=False)] = None,
    attack: Annotated[str, typer.Option(help="kind of attack")] = "inverting_gradients",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="a field of model or attack, e.g. attack.steps=2000"),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="of the examples, such as 3,5", show_default=False)] = None,
    in_order: Annotated[bool, typer.Option("--in-order", help="the labels are in the order of training")] = False,
    clients: Annotated[int, typer.Option(help="of how many clients the update is the mean", min=1, max=10**9)] = 1,
    mode: Annotated[str, typer.Option(help="of the model while the client trained: train or eval")] = "train",
    mean: Annotated[str | None, typer.Option(help="with which inputs are normalised", show_default=False)] = None,
    std: Annotated[str | None, typer.Option(help="with which inputs are normalised", show_default=False)] = None,
    gradient: Annotated[bool, typer.Option("--gradient", help="AFTER holds a gradient of the mean loss")] = False,
    truth: Annotated[
        Path | None,
        typer.Option(help=".npz with the true inputs, its only array or `inputs`, to score", show_default=False),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help=".npz with inputs that were not trained on, drawn like the true ones", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the attack's starts")] = 0,
    out: Annotated[Path, typer.Option(help="folder for what was rebuilt")] = Path("attack"),
    force: Annotated[bool, typer.Option("--force", help="replace the folder if it exists")] = False,
    debug: Debug = False,
) -> None:
    """Attack one saved update: what does the difference between two models give away?"""
    with _reporting():
        from fedmem.cli.attack import attack_files

        given = {
            "shape": shape,
            "classes": classes,
            "images": images,
            "lr": lr,
            "steps": steps,
            "batch_size": batch_size,
            "labels": labels,
            "in_order": in_order,
            "clients": clients,
            "mode": mode,
            "mean": mean,
            "std": std,
        }
        done = attack_files(
            before,
            after,
            model=model,
            attack=attack,
            overrides=overrides or (),
            given=given,
            gradient=gradient,
            truth=truth,
            gallery=gallery,
            seed=seed,
            out=out,
            force=force,
        )
        typer.echo(done)


@app.command("list")
def list_kinds(
    family: Annotated[
        str | None, typer.Argument(help="only this family", show_default=False, autocompletion=_complete("families"))
    ] = None,
) -> None:
    """List the components that a scenario can be made of."""
    with _reporting():
        from fedmem.contracts.families import FAMILIES
        from fedmem.scenario.catalogue import kinds
        from fedmem.scenario.describe import summary

        for name in FAMILIES if family is None else (family,):
            known = kinds(name)
            if family is None:
                typer.echo(name)
            longest = max(map(len, known), default=0)
            for kind in known:
                line = f"{'' if family else '  '}{kind:{longest}}  {summary(name, kind)}"
                typer.echo(line if len(line) <= _width() or not sys.stdout.isatty() else f"{line[: _width() - 1]}…")


@app.command()
def show(
    family: Annotated[
        str, typer.Argument(help="such as partition", show_default=False, autocompletion=_complete("families"))
    ],
    kind: Annotated[
        str,
        typer.Argument(
            help="such as dirichlet, or package.module:Class", show_default=False, autocompletion=_complete("kinds")
        ),
    ],
) -> None:
    """Explain one component: what it is, its fields, and YAML that builds it."""
    with _reporting():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from fedmem.scenario.catalogue import load
        from fedmem.scenario.describe import field_facts, place_of, text_of, wrapped
        from fedmem.scenario.yaml_source import write_short

        facts, width = field_facts(family, kind), _width()
        typer.echo(wrapped(text_of(load(family, kind)), width) + "\n")
        if facts:
            table = Table("field", "type", "default", "allowed", box=None, pad_edge=False)
            for fact in facts:
                cells = (fact.name, fact.type, fact.default or "(must be given)", fact.allowed)
                table.add_row(*(Text(cell) for cell in cells))
            Console(width=width).print(table)
        typer.echo("\n" + write_short(place_of(family, kind), width), nl=False)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="write it to this file", show_default=False)] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="of sweep files instead")] = False,
) -> None:
    """Print the JSON Schema of scenarios, from which editors complete, explain and check."""
    with _reporting():
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


def _width() -> int:
    """The width of the terminal; what goes into a file or a pipe gets a moderate one."""
    return min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 100


@contextmanager
def _reporting(scenario: Scenario | None = None) -> Iterator[None]:
    """Errors that a user can mend become messages with an exit code; everything else is our bug and shows its trace."""
    try:
        from fedmem.errors import ComponentError, FedmemError, Problem, ScenarioError
        from fedmem.guards.guarding import Rescuing

        with interrupts.interruptible(typer.Exit), Rescuing():
            yield
    except KeyboardInterrupt:
        if scenario is not None:
            raise  # whoever knows whether a run is finished says so
        typer.echo(f"interrupted; nothing was kept of what it did. Start again with: {_command()}", err=True)
        raise typer.Exit(1) from None
    except (MemoryError, RuntimeError, ValueError) as error:
        if not _is_out_of_memory(error):
            raise
        _show_trace(error)
        said = " ".join(str(error).split())
        typer.echo(
            f"error: the machine has too little memory for this ({said:.200}); lower what is large in the scenario: "
            "references, bootstrap, runs, clients, rows of the data, or the width of the model",
            err=True,
        )
        raise typer.Exit(1) from None
    except OSError as error:
        if error.filename is None:
            raise  # no file of ours: the output itself
        _complain([f"error: {error.filename}: {error.strerror or error}"])
        raise typer.Exit(1) from None
    except FedmemError as error:
        _show_trace(error)
        found: Sequence[Problem] = ()
        if isinstance(error, ScenarioError):
            found = error.problems
        elif isinstance(error, ComponentError):
            found = (Problem(path=error.path, message=error.message),)
        messages = [str(problem if scenario is None else scenario.place(problem)) for problem in found]
        _complain(messages or [f"error: {error}"])
        raise typer.Exit(error.exit_code) from None


def _show_trace(error: BaseException) -> None:
    """With `--debug`, before the message."""
    if _debugging:
        import traceback

        typer.echo("".join(traceback.format_exception(error)), err=True)


def _complain(messages: Sequence[str]) -> None:
    """Messages to standard error, cut to a few lines."""
    from fedmem.errors import message_lines

    for line in message_lines(messages):
        typer.echo(line, err=True)


def _is_out_of_memory(error: Exception) -> bool:
    """Also torch's and numpy's way of saying so."""
    from fedmem.guards.guarding import is_out_of_memory

    return is_out_of_memory(error)


def _command(*, force: bool = True) -> str:
    """The command that is running, as it can be typed again; without `--force` if that is not wanted."""
    return shlex.join(["fedmem", *(word for word in sys.argv[1:] if force or word != "--force")])


if __name__ == "__main__":
    main()
