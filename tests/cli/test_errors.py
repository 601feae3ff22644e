"""Tests of `fedmem/cli/errors.py`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fedmem.errors import ComponentError, RunError
from tests import forked
from tests.cli.main_helpers import call, outside
from tests.forked import Forked


@pytest.fixture
def failing(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Make `fedmem.execution.run.run` raise; gives a function that says what."""

    def raising(error: BaseException) -> Result:
        def run(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(importlib.import_module("fedmem.execution.run"), "run", run)
        return call("run", "small.yaml")

    return raising


def test_a_failed_run_is_one_message_and_exit_code_1(failing: Callable[[BaseException], Result]) -> None:
    done = failing(RunError("round 3, client 2: the loss is NaN; lower client.lr"))
    assert done.exit_code == 1
    assert done.stderr == "error: round 3, client 2: the loss is NaN; lower client.lr\n"


def test_late_component_error_gets_its_line_and_exit_code_2(
    failing: Callable[[BaseException], Result],
) -> None:
    done = failing(ComponentError("injections[0].per_client", "too many; use 1"))
    assert done.exit_code == 2
    assert done.stderr == "small.yaml:11  injections[0].per_client: too many; use 1\n"


def test_interrupted_run_prints_the_command_to_start_again(
    failing: Callable[[BaseException], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/fedmem", "run", "a file.yaml", "--seed", "3"])
    done = failing(KeyboardInterrupt())
    assert done.exit_code == 1
    assert "nothing was kept" in done.stderr
    assert "fedmem run 'a file.yaml' --seed 3" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 4 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory:\nyou tried to allocate 1 bytes"),
        ValueError("Maximum allowed dimension exceeded"),
    ],
)
def test_too_little_memory_is_one_message(failing: Callable[[BaseException], Result], error: Exception) -> None:
    done = failing(error)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "too little memory" in done.stderr
    assert "Lower" in done.stderr


def test_a_file_that_cannot_be_written_is_one_message(failing: Callable[[BaseException], Result]) -> None:
    done = failing(PermissionError(13, "Permission denied", "/somewhere/file"))
    assert (done.exit_code, done.stderr) == (1, "error: /somewhere/file: Permission denied\n")


def test_unwritable_place_is_exit_code_2_and_leaves_nothing(small: Path) -> None:
    Path("file").write_text("mine")
    done = call("run", "small.yaml", "--out", "file")
    assert done.exit_code == 2
    assert "cannot hold the results" in done.stderr
    assert sorted(path.name for path in small.iterdir()) == ["file", "small.yaml"]


def test_output_that_cannot_be_written_is_one_message(small: Path) -> None:
    def check() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        forked.command("check", "small.yaml")

    done = Forked(check).wait()
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"

    def show() -> None:
        sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
        forked.command("show", "client", "sgd")

    done = Forked(show).wait()
    assert done.returncode == 0, done.stderr
    assert re.search(r"momentum .* \? 0, < 1", done.stdout)


CTRL_C = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are started with Ctrl-C ignored

class Keys:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(10**6): pass
            except KeyboardInterrupt:
                if how == "hidden":
                    raise ImportError("a library that hides what happened")
                raise

where, how = sys.argv[1:3]
del sys.argv[1:3]
sys.meta_path.insert(0, Keys())
from fedmem.cli.main import main
main()
"""


@pytest.mark.parametrize(("where", "how"), [("typer", "open"), ("pydantic", "open"), ("pydantic", "hidden")])
def test_ctrl_c_during_imports_shows_no_trace(small: Path, where: str, how: str) -> None:
    done = outside(where, how, "check", "small.yaml", code=CTRL_C)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_show_their_trace(failing: Callable[[BaseException], Result]) -> None:
    assert isinstance(failing(AssertionError("bug")).exception, AssertionError)
