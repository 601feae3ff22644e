"""The commands `push` and `pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmem.cli.app import Debug, StudyFolder, app
from fedmem.cli.errors import reporting

if TYPE_CHECKING:
    from fedmem.results.transfer import Transferred

_URL = typer.Argument(help="address, such as s3://bucket/run, or a path", show_default=False, metavar="URL")
_FORCE = typer.Option("--force", help="replace what is there")


@app.command()
def push(
    folder: StudyFolder,
    url: Annotated[str, _URL],
    force: Annotated[bool, _FORCE] = False,
    debug: Debug = False,
) -> None:
    """Copy a finished run, comparison or sweep to another file system, and verify all checksums."""
    with reporting():
        from fedmem.results.transfer import push as push_folder

        _print(push_folder(folder, url, force=force))


@app.command()
def pull(
    url: Annotated[str, _URL],
    folder: Annotated[Path, typer.Argument(help="folder to write", show_default=False)],
    force: Annotated[bool, _FORCE] = False,
    debug: Debug = False,
) -> None:
    """Copy a folder that was pushed back to this machine, and verify all checksums."""
    with reporting():
        from fedmem.results.transfer import pull as pull_folder

        _print(pull_folder(url, folder, force=force))


def _print(done: Transferred) -> None:
    from fedmem.contracts.events import count
    from fedmem.wording import bytes_text

    typer.echo(done.place)
    typer.echo(f"{count(done.num_files, 'file')}, {bytes_text(done.num_bytes)}, all checksums verified", err=True)
