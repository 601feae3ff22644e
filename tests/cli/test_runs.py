"""Tests of `fedmem/cli/runs.py`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import fedmem
from fedmem.contracts.evidence import TrainedBank
from fedmem.errors import RunError
from fedmem.scenario import yaml_source
from tests.cli.main_helpers import SMALL, call
from tests.results.top_helpers import finished


def test_run_report_and_measure_from_file_to_table(small: Path) -> None:
    done = call("run", "small.yaml", "--seed", "3", "--out", "results", "--set", "observe.every=1")
    assert done.exit_code == 0, done.stderr
    (folder,) = (small / "results" / "small").iterdir()
    assert f"results/small/{folder.name}" in done.stdout
    assert yaml_source.read_file(folder / "scenario.yaml").value["seed"] == 3
    before = (folder / "measurements.parquet").read_bytes()
    for command in ("report", "measure"):
        again = call(command, str(folder))
        assert again.exit_code == 0, again.stderr
        assert "memorisation" in again.stdout
    assert (folder / "measurements.parquet").read_bytes() == before


def test_quiet_prints_the_folder_only(small: Path) -> None:
    done = call("run", "small.yaml", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent == Path("runs/small")


@pytest.mark.parametrize("command", ["run", "compare"])
def test_large_reference_data_are_warned_of_before_training(small: Path, command: str) -> None:
    """The same sentence as that of `fedmem check`, once, before the first line of the progress."""
    options = ["small.yaml", "--set", "population=80"]
    (_, sentence) = " ".join(call("check", *options).stdout.split()).split("warning ")
    assert sentence.startswith("population sets 80 of 200 training rows aside (40 %) as reference data")
    done = call(command, *options, *(("--seeds", "2") if command == "compare" else ()))
    assert done.exit_code == 0, done.stderr
    said = " ".join(done.stderr.split())
    before, *after = said.split("warning: " + sentence.partition(".")[0])
    assert len(after) == 1
    assert "left" not in before
    assert ("few seeds: with 2 seeds" in before) == (command == "compare")
    assert call(command, *options, "--quiet", "--force").stderr == ""


SHARDED = ("--set", "speed.shard=1", "--set", "speed.workers=1")


@pytest.fixture
def stopping(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Make the second run of the scenario end with an error; gives a function that says with which."""
    from fedmem.execution import bank, sharding

    def stop(error: BaseException, *more: str) -> Result:
        def gather(*words: Any, **options: Any) -> TrainedBank:
            if list(options["runs"]) == [1]:
                raise error
            return bank.gather(*words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(sharding, "gather", gather)
            patch.setattr(sys, "argv", ["fedmem", "run", "small.yaml", *SHARDED, *more])
            return call("run", "small.yaml", *SHARDED, *more)

    return stop


def test_interrupted_sharded_run_prints_the_command_to_continue(stopping: Callable[..., Result]) -> None:
    done = stopping(KeyboardInterrupt())
    assert done.exit_code == 1
    said = "interrupted; kept 1 of 2 runs. The same command continues: fedmem run small.yaml --set speed.shard=1"
    assert said in done.stderr
    assert "nothing was kept" not in done.stderr
    done = call("run", "small.yaml", *SHARDED)
    assert done.exit_code == 0
    assert "1 run stored already; training 1 run in 1 shard" in done.stderr


def test_forced_run_that_was_interrupted_continues_without_force(stopping: Callable[..., Result]) -> None:
    assert (
        "fedmem run small.yaml --set speed.shard=1 --set speed.workers=1\n"
        in stopping(KeyboardInterrupt(), "--force").stderr
    )


def test_forced_run_over_old_results_cannot_be_continued(stopping: Callable[..., Result]) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    assert "nothing was kept" in stopping(KeyboardInterrupt(), "--force").stderr
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    assert [path.name.startswith(".") for path in Path("runs/small").iterdir()] == [False]


def test_failed_run_prints_how_many_runs_are_kept(stopping: Callable[..., Result]) -> None:
    done = stopping(RunError("round 2: no"))
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()[-2:]
    assert first == "error: round 2: no"
    assert second.startswith("kept 1 of 2 runs; the same command continues: fedmem run small.yaml")


def test_ctrl_c_while_drawing_figures_reports_a_finished_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmem.reporting.page.report", interrupt)
    for _ in range(2):  # the second time it is there already
        done = call("run", "small.yaml")
        assert done.exit_code == 1
        (folder,) = Path("runs/small").iterdir()
        assert f"fedmem report {folder}" in done.stderr
        assert "nothing was kept" not in done.stderr
    # with --force the old run does not count
    monkeypatch.setattr(importlib.import_module("fedmem.execution.run"), "run", lambda *_, **__: interrupt(0))
    assert "nothing was kept" in call("run", "small.yaml", "--force").stderr


def test_figures_that_cannot_be_written_leave_the_table(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    monkeypatch.setattr("fedmem.reporting.page.put", full)
    done = call("report", str(folder))
    assert done.exit_code == 1
    assert "memorisation" in done.stdout
    assert "Report:" not in done.stdout
    assert done.stderr == f"error: the figures cannot be written to {folder}: No space left on device\n"


@pytest.mark.parametrize("command", ["measure", "report"])
def test_a_damaged_run_is_one_message(small: Path, command: str) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    (folder / "audit.parquet").write_bytes(b"PAR1")
    done = call(command, str(folder))
    assert done.exit_code == 1
    assert "audit.parquet is damaged" in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_measure_and_report_refuse_a_folder_without_a_run(small: Path) -> None:
    (small / "scenario").mkdir()
    Path("scenario/scenario.yaml").write_text(SMALL)  # a folder that looks like a run, but is none
    for folder in ("nowhere", "scenario", "small.yaml"):
        answers = [call(command, folder) for command in ("measure", "report")]
        assert {done.exit_code for done in answers} == {2}
        (said,) = {done.stderr for done in answers}
        assert said.startswith(f"error: {folder} is no finished run")


def test_the_first_screen_is_short_and_full_has_the_tables(small: Path) -> None:
    short = call("run", "small.yaml").stdout
    (folder,) = Path("runs/small").iterdir()
    assert len(short.splitlines()) <= 16
    assert "At the owning client, " in short
    assert short.splitlines()[-1] == f"Report: {folder / 'report.html'}"
    full = call("report", str(folder), "--full").stdout
    assert "LOCAL AND GLOBAL" in full
    assert full.count("\n") > short.count("\n")


def test_the_summary_lies_beside_and_measure_writes_it_again(small: Path) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    file = folder / "summary.json"
    written = file.read_bytes()
    assert fedmem.read(folder).summary().name == "small"
    file.unlink()
    fedmem.measure(folder)
    assert file.read_bytes() == written
    file.write_text("{")
    with pytest.raises(RunError, match="write it again with: fedmem report"):
        fedmem.read(folder).summary()
    assert call("report", str(folder)).exit_code == 0
    assert file.read_bytes() == written


def test_an_alarm_is_on_the_first_screen(small: Path) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"alarms": ["epsilon is above its bound"]}))
    done = call("report", str(folder))
    assert done.exit_code == 1
    assert "ALARM: epsilon is above its bound" in done.stdout
    assert len(done.stdout.splitlines()) <= 16


def test_a_report_holds_as_many_examples_as_asked_for(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", [(8, 0), (4, 4), (6, 2)]).path
    few = call("report", str(folder), "--examples", "2")
    assert few.exit_code == 0, few.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<tr data-place=") == 2
    assert "The page holds 2 of 3 audit examples; <code>fedmem report FOLDER --examples 3</code> shows all." in page
    assert call("report", str(folder)).exit_code == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<tr data-place=") == 3
    assert "The page holds" not in page
    assert call("report", str(folder), "--examples", "0").exit_code == 2
    (tmp_path / "compare-01").mkdir()
    (tmp_path / "compare-01" / "series.json").write_text("{}")
    refused = call("report", str(tmp_path / "compare-01"), "--examples", "2")
    assert refused.exit_code == 2
    assert "its page shows no examples; leave it out" in refused.stderr
