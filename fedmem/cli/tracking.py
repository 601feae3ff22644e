"""The option `--track` of the commands that train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedmem.contracts.events import Listener

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TOOL[:PLACE]",
        help="show the run while it trains: tensorboard, tensorboard:FOLDER, mlflow or mlflow:ADDRESS; may be repeated",
    ),
]


@contextmanager
def tracking(texts: Sequence[str] | None) -> Iterator[list[Listener]]:
    """The listeners of `--track`. When the block ends, the runs that are still open there are ended."""
    with ExitStack() as stack:
        listeners: list[Listener] = []
        for text in texts or ():
            from fedmem.cli.terminal import warning_text
            from fedmem.sharing.track import track

            tracker = track(text, warn=lambda message: typer.echo(warning_text(message), err=True))
            stack.callback(tracker.close)
            listeners.append(tracker)
        yield listeners
