"""Tests of `fedmem/cli/options.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from fedmem.cli.options import options


@dataclass(frozen=True, kw_only=True)
class Words:
    name: Annotated[str, typer.Argument()]
    count: Annotated[int, typer.Option("--count")] = 2


def test_command_line_fills_the_record_and_defaults_hold() -> None:
    given: list[Words] = []
    app = typer.Typer()
    app.command()(options(Words)(given.append))
    runner = CliRunner()
    assert runner.invoke(app, ["a"]).exit_code == 0
    assert runner.invoke(app, ["b", "--count", "5"]).exit_code == 0
    assert given == [Words(name="a"), Words(name="b", count=5)]
    assert runner.invoke(app, ["b", "--count", "x"]).exit_code == 2
    assert runner.invoke(app, []).exit_code == 2
    assert len(given) == 2


def test_argument_without_default_is_required() -> None:
    with pytest.raises(TypeError, match="name"):
        options(Words)(print)(count=1)
