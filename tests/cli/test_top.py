"""`fedmem top`: output and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from tests.results.top_helpers import finished

RATES = [(4, 4), (8, 0), (5, 4)]


def test_top_prints_as_many_examples_as_asked_for(tmp_path: Path) -> None:
    finished(tmp_path / "run", RATES)
    done = CliRunner().invoke(app, ["top", str(tmp_path / "run"), "-n", "2", "--level", "local"])
    assert done.exit_code == 0
    assert "the 2 most memorised of 3 audit examples, by memorisation in the owning client's model" in done.stdout
    assert "1.  #1 · mislabelled · Süd" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "typicall"], "kind: no audit example is of kind 'typicall' (did you mean 'typical'?)"),
        (["--client", "Ost"], "choose from: Nord, Süd, 0"),
        (["--measure", "x"], "choose from: memorisation, probability_memorisation"),
        (["--level", "sum"], "Invalid value for '--level'"),
        (["-n", "0"], "Invalid value for '-n'"),
    ],
)
def test_mistakes_exit_with_2_and_choices(tmp_path: Path, arguments: list[str], message: str) -> None:
    finished(tmp_path / "run", RATES)
    done = CliRunner().invoke(app, ["top", str(tmp_path / "run"), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_folder_that_is_no_run_exits_with_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["top", str(tmp_path)])
    assert done.exit_code == 2
    assert "is no finished run" in done.stderr
