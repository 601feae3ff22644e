"""The command line. Each command reads its arguments, makes one call of the library and prints."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

try:
    import typer

    from fedmem import interrupts
    from fedmem.cli import attack, catalogue, demo, doctor, export, new, runs, studies, study, top, transfer, view
    from fedmem.cli.app import app
except KeyboardInterrupt:
    # so early that nothing has been started
    raise SystemExit(1) from None

__all__ = ["app", "main"]

COMMANDS = (demo, runs, top, studies, study, export, transfer, view, catalogue, attack, new, doctor)
"""The modules of the commands: importing them adds their commands to `app`."""


def main() -> None:
    """The entry point of `fedmem`. Whatever happens to the output, there is no traceback about it."""
    signal.signal(signal.SIGINT, interrupts.handle_interrupt)
    interrupts.end_with_terminal()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show √ shows ? instead
            stream.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            # here, where an error can be reported, and not when the interpreter ends
            sys.stdout.flush()
    except KeyboardInterrupt:
        _die("interrupted")
    except BrokenPipeError:
        _die("")  # the reader of the output has seen enough
    except OSError as error:
        _die(f"error: the output cannot be written: {error.strerror or error}")
    except SystemExit as end:
        interrupts.end_at_once(end.code)
        raise
    finally:
        interrupts.leave()


def _die(message: str) -> NoReturn:
    """Exit code 1; what the output could not take is dropped."""
    with suppress(OSError):  # a terminal that is gone
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


if __name__ == "__main__":
    main()
