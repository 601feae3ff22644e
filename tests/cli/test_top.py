"""`fedmem top`: output and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from tests.results.top_helpers import finished, with_el2n

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


def test_a_gain_that_training_lowers_starts_at_its_lowest(tmp_path: Path) -> None:
    with_el2n(tmp_path / "run")

    def top(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["top", str(tmp_path / "run"), "-n", "2", *arguments], env={"COLUMNS": "200"})
        assert done.exit_code == 0
        return " ".join(done.stdout.split())

    gain = top("--measure", "el2n_gain")
    assert "the 2 lowest of 6 audit examples, by el2n_gain" in gain
    assert "1. #5" in gain
    assert "2. #4" in gain
    assert "In − out is negative where training on an example lowers the value" in gain
    assert "memorised" not in gain.partition("Of the same examples")[0].replace("not memorisation", "")
    plain = top("--measure", "el2n")
    assert "the 2 highest of 6 audit examples, by el2n in" in plain
    assert "1. #0" in plain
    assert "1. #5" in top("--measure", "el2n", "--lowest")


def test_lowest_scores_are_first_where_asked_for(tmp_path: Path) -> None:
    finished(tmp_path / "run", [*RATES, (2, 6)])
    done = CliRunner().invoke(app, ["top", str(tmp_path / "run"), "-n", "1", "--lowest"])
    assert done.exit_code == 0
    assert "the 1 lowest of 4 audit examples, by memorisation" in " ".join(done.stdout.split())
    assert "1.  #3" in done.stdout


def test_a_folder_that_is_no_run_exits_with_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["top", str(tmp_path)])
    assert done.exit_code == 2
    assert "is no finished run" in done.stderr
