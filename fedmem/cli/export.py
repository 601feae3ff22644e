"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer

from fedmem.cli.app import Debug, StudyFolder, app
from fedmem.cli.errors import reporting
from fedmem.cli.terminal import wrap_line
from fedmem.exports import target_names


@app.command()
def export(
    folder: StudyFolder,
    to: Annotated[str, typer.Option("--to", help="the format or tool", click_type=click.Choice(target_names()))],
    out: Annotated[
        Path | None, typer.Option(help="folder to write; by default exports/TARGET/NAME/ID", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an export that is there")] = False,
    debug: Debug = False,
) -> None:
    """Export a finished run, comparison or sweep to another tool; trains nothing."""
    with reporting():
        from fedmem.sharing.export import export as export_folder

        exported = export_folder(folder, to, out=out, force=force)
        typer.echo(str(exported.folder))
        if exported.left_out:
            note = f"note: {exported.left_out} undefined or infinite values are no points of series; csv has all values"
            typer.echo(wrap_line(note, ""), err=True)
        typer.echo(wrap_line(f"Open it with: {exported.open_with}", ""), err=True)
