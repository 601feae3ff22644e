"""The command `top`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from fedmem.cli.app import Debug, Folder, app
from fedmem.cli.errors import reporting
from fedmem.cli.options import options
from fedmem.cli.terminal import width


class TopLevel(StrEnum):
    """Where scores are read."""

    LOCAL = "local"
    GLOBAL = "global"


@dataclass(frozen=True, kw_only=True)
class TopOptions:
    """What `fedmem top` takes."""

    folder: Folder
    n: Annotated[int, typer.Option("-n", help="how many examples", min=1)] = 10
    level: Annotated[
        TopLevel | None, typer.Option(help="whose scores decide the order; by default global, where there are any")
    ] = None
    kind: Annotated[str | None, typer.Option(help="examples of this kind alone, e.g. mislabelled")] = None
    client: Annotated[str | None, typer.Option(help="examples of this client alone: name, number, or #number")] = None
    measure: Annotated[
        str | None,
        typer.Option(help="what to order by, e.g. exposure or probability_memorisation; by default memorisation"),
    ] = None
    show_sensitive: Annotated[
        bool, typer.Option("--show-sensitive", help="show the cells of sensitive columns, which are hidden otherwise")
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
        choice = Choice(
            n=top_options.n,
            level=None if top_options.level is None else top_options.level.value,
            kind=top_options.kind,
            client=top_options.client,
            measure=top_options.measure,
            show_sensitive=top_options.show_sensitive,
        )
        for line in lines(run, rank_examples(run, choice), width()):
            typer.echo(line)
