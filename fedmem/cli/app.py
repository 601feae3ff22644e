"""The group of commands, and what their arguments have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer
import typer.core

from fedmem.cli.folders import finished_folder


class _Commands(typer.core.TyperGroup):
    """The commands; errors in their arguments are reported in a few lines."""

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


def complete(what: str) -> Callable[[typer.Context, str], list[Any]]:
    """Completions of an argument in a shell; loaded only when the shell asks for them."""

    def complete(ctx: typer.Context, incomplete: str) -> list[Any]:
        from fedmem.cli import completion

        if what == "kinds":
            return completion.kinds(ctx.params.get("family"), incomplete)
        completions: list[Any] = getattr(completion, what)(incomplete)
        return completions

    return complete


File = Annotated[
    str,
    typer.Argument(
        help="scenario file, or a name such as quickstart", show_default=False, autocompletion=complete("scenarios")
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(
        help="folder of a finished run, or its id, or a name, which stands for its newest run",
        show_default=False,
        autocompletion=complete("runs"),
        parser=finished_folder,
        metavar="FOLDER",
    ),
]
StudyFolder = Annotated[
    Path,
    typer.Argument(
        help="folder of a finished run, comparison or sweep, or the id of a run, or a name, which stands for its "
        "newest run",
        show_default=False,
        autocompletion=complete("runs"),
        parser=finished_folder,
        metavar="FOLDER",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH=VALUE]...", help="values to change, e.g. rounds=4 client.lr=0.05", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="the same as PATH=VALUE after the file; may be given again"),
]
Seed = Annotated[int | None, typer.Option(help="the same as --set seed=…")]
Runs = Annotated[int | None, typer.Option(help="the same as --set runs=…")]
Engine = Annotated[str | None, typer.Option(help="the same as --set speed.engine=…")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, no table; only the folder")]
On = Annotated[
    str | None,
    typer.Option(help="where runs are trained: forks, processes, ray or ray:ADDRESS; results are the same"),
]

Full = Annotated[bool, typer.Option("--full", help="print all tables, not the first screen alone")]

debugging: list[bool] = []
"""Whether errors are shown with their traceback; one entry where they are."""


def _debug(is_on: bool) -> bool:
    debugging[:] = [True] * is_on
    return is_on


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, help="show the traceback of an error as well")]
