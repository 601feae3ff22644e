"""The command `top`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fedmem.cli.app import Debug, Folder, app
from fedmem.cli.errors import reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import width

if TYPE_CHECKING:
    from fedmem.contracts.measurement import Level


class TopLevel(StrEnum):
    """Where scores are read."""

    LOCAL = "local"
    GLOBAL = "global"


LEVEL_OF_OPTION: Mapping[TopLevel, Level] = {TopLevel.LOCAL: "local", TopLevel.GLOBAL: "global"}


@dataclass(frozen=True, kw_only=True)
class TopOptions:
    """Arguments and options of `fedmem top`."""

    folder: Folder
    n: Annotated[int, typer.Option("-n", help="how many examples, or clients", min=1)] = 10
    level: Annotated[
        TopLevel | None, typer.Option(help="whose scores decide the order; by default global, where there are any")
    ] = None
    kind: Annotated[str | None, typer.Option(help="examples of this kind alone, e.g. mislabelled")] = None
    client: Annotated[str | None, typer.Option(help="examples of this client alone: name, number, or #number")] = None
    measure: Annotated[
        str | None,
        typer.Option(
            help="what to order by, e.g. exposure or probability_memorisation; by default the first "
            "measure of the table that all of these examples have"
        ),
    ] = None
    lowest: Annotated[
        bool,
        typer.Option(
            "--lowest",
            help="the lowest scores first; a gain that training lowers, such as el2n_gain, always starts there",
        ),
    ] = False
    show_sensitive: Annotated[
        bool, typer.Option("--show-sensitive", help="show the cells of sensitive columns, which are hidden otherwise")
    ] = False
    by_client: Annotated[
        bool, typer.Option("--by-client", help="show the measure over the examples of each client instead")
    ] = False
    debug: Debug = False


@app.command()
@options(TopOptions)
def top(top_options: TopOptions) -> None:
    """Show the most memorised examples of a finished run: image, row or text, owner, scores and intervals."""
    with reporting():
        from fedmem.reporting.top_examples import lines
        from fedmem.results.read import read
        from fedmem.results.top import Choice, rank_examples

        run = read(top_options.folder)
        level = None if top_options.level is None else LEVEL_OF_OPTION[top_options.level]
        if top_options.by_client:
            from fedmem.reporting.client_table import client_lines

            if top_options.client is not None:
                raise typer.BadParameter("--by-client shows all clients; leave --client out")
            frame = run.by_client(top_options.measure or "memorisation", level=level, kind=top_options.kind)
            for line in client_lines(run, frame, top_options.n, width()):
                typer.echo(line)
            return
        choice = Choice(
            n=top_options.n,
            level=level,
            kind=top_options.kind,
            client=top_options.client,
            measure=top_options.measure,
            show_sensitive=top_options.show_sensitive,
            lowest=top_options.lowest,
        )
        for line in lines(run, rank_examples(run, choice), width()):
            typer.echo(line)
