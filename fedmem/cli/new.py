"""The command `new`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from fedmem.cli.app import Debug, app, complete
from fedmem.cli.errors import reporting


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="of the scenario; the file is NAME.yaml", show_default=False)],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NAME",
            help="scenario to start from, a name or a file",
            autocompletion=complete("scenarios"),
        ),
    ] = "quickstart",
    debug: Debug = False,
) -> None:
    """Write a scenario with a comment for each key, to be changed and run. A file that exists is never overwritten."""
    with reporting():
        from fedmem.apps.new_scenario import write_new

        paths = write_new(name, source)
        for path in paths:
            typer.echo(str(path))
        typer.echo(shlex.join(["Next:", "fedmem", "check", str(paths[0])]), err=True)
