"""Errors of a command: messages and exit codes, and tracebacks only for our own bugs."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from fedmem import interrupts
from fedmem.cli.app import debugging

if TYPE_CHECKING:
    from fedmem.errors import FedmemError
    from fedmem.scenario.scenario import Scenario


_DISK = {
    errno.ENOSPC: "; free some space or choose another disk, then run the same command again",
    errno.EROFS: "; mount that disk writable, or choose another one, then run the same command again",
}
"""Error number -> how a disk is mended."""


@contextmanager
def reporting(scenario: Scenario | None = None) -> Iterator[None]:
    """Errors that a user can mend become messages with an exit code; everything else is our bug and shows its trace."""
    try:
        from fedmem.errors import ComponentError, FedmemError, Problem, ScenarioError
        from fedmem.guards.guarding import Rescuing

        with interrupts.interruptible(typer.Exit), Rescuing():
            yield
    except KeyboardInterrupt:
        if scenario is not None:
            raise  # the command, which knows whether a run is finished, reports it
        typer.echo(f"interrupted; nothing was kept of what it did. Start again with: {command_line()}", err=True)
        raise typer.Exit(1) from None
    except (MemoryError, RuntimeError, ValueError) as error:
        if not _is_out_of_memory(error):
            raise
        _show_trace(error)
        cause = " ".join(str(error).split())
        typer.echo(
            f"error: the machine has too little memory for this ({cause:.200}). Lower what is large in the scenario: "
            "references, bootstrap, runs, clients, rows of the data, or the width of the model",
            err=True,
        )
        raise typer.Exit(1) from None
    except OSError as error:
        if error.filename is None:
            raise  # no file of ours: the output itself
        print_errors([f"error: {error.filename}: {error.strerror or error}{_DISK.get(error.errno or 0, '')}"])
        raise typer.Exit(1) from None
    except FedmemError as error:
        _show_trace(error)
        problems: Sequence[Problem] = ()
        if isinstance(error, ScenarioError):
            problems = error.problems
        elif isinstance(error, ComponentError):
            problems = (Problem(path=error.path, message=error.message),)
        messages = [str(problem if scenario is None else scenario.place(problem)) for problem in problems]
        print_errors(messages or [f"error: {error}{scenario_line(scenario, error)}"])
        raise typer.Exit(error.exit_code) from None


def scenario_line(scenario: Scenario | None, error: FedmemError) -> str:
    """Where the scenario names the part that failed; empty where no part did."""
    from fedmem.errors import Problem
    from fedmem.guards.guarding import PartError, part_name
    from fedmem.scenario.overrides import FAMILY_OF_FIELD

    if scenario is None or not isinstance(error, PartError):
        return ""
    for field, family in FAMILY_OF_FIELD.items():
        value = getattr(scenario, field)
        parts = {f"{field}[{i}]": part for i, part in enumerate(value)} if isinstance(value, tuple) else {field: value}
        for path, part in parts.items():
            if part_name(family, part) == error.part:
                place = scenario.place(Problem(path=path, message=""))
                return f"; {path} in {place.source}{f':{place.line}' if place.line else ''}"
    return ""


def _show_trace(error: BaseException) -> None:
    """With `--debug`, before the message."""
    if debugging:
        import traceback

        typer.echo("".join(traceback.format_exception(error)), err=True)


def print_errors(messages: Sequence[str]) -> None:
    """Messages to standard error, cut to a few lines."""
    from fedmem.errors import message_lines

    for line in message_lines(messages):
        typer.echo(line, err=True)


def _is_out_of_memory(error: Exception) -> bool:
    """Also torch's and numpy's way of saying so."""
    from fedmem.guards.guarding import is_out_of_memory

    return is_out_of_memory(error)


def command_line(*, force: bool = True) -> str:
    """The command that is running, as it can be typed again; without `--force` if that is not wanted."""
    return shlex.join(["fedmem", *(word for word in sys.argv[1:] if force or word != "--force")])
