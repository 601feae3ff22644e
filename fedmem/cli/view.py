"""The command `view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmem.cli.app import Debug, app
from fedmem.cli.errors import reporting


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="folder of the runs", show_default=True)] = Path("runs"),
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 for a free one", min=0, max=65535)] = 0,
    debug: Debug = False,
) -> None:
    """Show an index of the finished runs in a folder, with links to their pages, in a browser on this machine."""
    with reporting():
        from fedmem.sharing.view import ViewServer

        with ViewServer(folder, port) as server:
            typer.echo(server.url)
            typer.echo("Only this machine can open it. Ctrl-C ends it.", err=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                typer.echo("ended", err=True)
