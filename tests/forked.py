"""`fedmem` in processes of their own that are forked from this one: they import nothing anew, which takes seconds.

What a new interpreter does before its first command is for the few tests that start one with `subprocess`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended, and what it wrote; `returncode` as `subprocess` has it."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A process that does this, writes into files that only it has, and ends as an interpreter ends."""

    def __init__(self, body: Callable[[], object], at: Path | None = None) -> None:
        self._files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115
        with warnings.catch_warnings():
            # threads of torch are there; nothing in the fork waits for them
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _live(body, at, self._files)
            finally:
                os._exit(code)

    def wait(self) -> Ended:
        """Until it has ended."""
        _, status = os.waitpid(self.pid, 0)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode("utf-8"))
            file.close()
        return Ended(returncode=os.waitstatus_to_exitcode(status), stdout=texts[0], stderr=texts[1])


def command(*words: str) -> None:
    """What the command `fedmem` does with these words, in the process where this is called."""
    from fedmem.cli.main import main

    sys.argv = ["fedmem", *words]
    main()


def started(*words: str, at: Path | None = None) -> Forked:
    """The command in a process of its own and in a folder, where it also looks for components."""
    return Forked(partial(command, *words), at)


def fedmem(*words: str, at: Path | None = None) -> Ended:
    """The same, waited for."""
    return started(*words, at=at).wait()


def _live(body: Callable[[], object], at: Path | None, files: tuple[IO[bytes], IO[bytes]]) -> int:
    """The life of the process: its exit code."""
    if at is not None:
        os.chdir(at)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.resetwarnings()
    sys.path.insert(0, "")
    importlib.invalidate_caches()
    code = 0
    try:
        body()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
