"""Tests of `fedmem/cli/app.py`."""

from __future__ import annotations

from importlib import metadata

import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from tests.cli.main_helpers import call, outside


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedmem.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'numpy', 'torch', 'flwr', 'pydantic', 'yaml', 'pandas', 'sklearn', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert outside(code=code).stdout.strip() == "[]"


def test_version_option_prints_the_installed_version() -> None:
    assert call("--version").stdout.strip() == metadata.version("fedmem") == fedmem.__version__


def test_every_command_has_help() -> None:
    for command in ("run", "measure", "report", "runs", "check", "list", "show", "schema", "fetch"):
        done = call(command, "--help")
        assert done.exit_code == 0
        assert "Usage" in done.stdout


def test_a_misspelt_command_is_suggested_once() -> None:
    assert CliRunner().invoke(app, ["lst"]).stderr.count("Did you mean") == 1


@pytest.mark.parametrize(
    ("command", "text"), [("run", "or a name such as quickstart"), ("top", "finished run, or its id")]
)
def test_help_explains_arguments(command: str, text: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert text in result.output
