"""Tests of `fedmem/studies/sweep_folder.py`."""

from __future__ import annotations

import json
from pathlib import Path

from fedmem.results.read import read
from fedmem.studies.grid import label_of
from fedmem.studies.sweep import left_out_text, sweep
from tests.studies.sweep_helpers import RATES, Write


def test_a_grid_gives_one_tidy_frame_and_goes_on_where_it_was(write: Write, tmp_path: Path) -> None:
    axes = [RATES, {"zip": {"clients": [4, 5], "sampler.size": [2, 3]}}]
    first = sweep(write(axes=axes, seeds="0:1", set={"bootstrap": 30}), out=tmp_path, jobs=1)
    assert first.path == tmp_path / "tiny" / "sweep-study"
    assert len(first.cells) == 4
    frame = first.results
    assert set(frame.columns) >= {"setting", "client.lr", "clients", "sampler.size", "seed", "metric", "value", "n"}
    cell = first.cells[3]
    assert dict(cell.setting) == {"client.lr": "0.3", "clients": "5", "sampler.size": "3"}
    assert cell.scenario.bootstrap == 30
    measured = read(tmp_path / "tiny" / cell.scenario.id).measurements
    chosen = measured[
        (measured.metric == "test_accuracy") & (measured.level == "global") & (measured.scope == "summary")
    ]
    own = frame[
        (frame.setting == label_of(cell.setting)) & (frame.metric == "test_accuracy") & (frame.level == "global")
    ]
    total, by_round = own[own.scope == "summary"], own[own.scope == "round"].set_index("round")
    assert total[["value", "low", "high", "n"]].equals(chosen[["value", "low", "high", "n"]].set_axis(total.index))
    assert total["round"].isna().all()
    expected = measured[(measured.metric == "test_accuracy") & (measured.level == "global")]
    expected = expected[expected.scope == "round"].set_index("round")
    assert by_round.value.to_dict() == expected.value.to_dict()
    assert by_round.n.to_dict() == expected.n.to_dict()
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("[!.]*/manifest.json")}
    more = sweep(write(axes=axes, seeds=[0, 7], set={"bootstrap": 30}), out=tmp_path, jobs=1)
    assert len(more.cells) == 8
    assert not more.left_out, "one seed more leaves no run out"
    assert set(more.results.seed) == {0, 7}
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert (more.path / "results.csv").exists()


def test_finished_runs_that_are_asked_for_no_more_are_counted(tmp_path: Path, write: Write) -> None:
    """Runs of a value that was taken out of its axis do not vanish without a word; put back, they are there."""
    both = write(axes=[RATES], seeds="0:1", set={"runs": 2, "estimators": []})
    assert left_out_text(sweep(both, out=tmp_path, jobs=1)) == ""
    fewer = sweep(
        write(axes=[{**RATES, "values": [0.3]}], seeds="0:1", set={"runs": 2, "estimators": []}), out=tmp_path, jobs=1
    )
    assert set(fewer.left_out.values()) == {"lr=0.1"}
    assert "1 finished run of settings that the file no longer asks for: lr=0.1" in left_out_text(fewer)
    again = write(axes=[RATES], seeds="0:1", set={"runs": 2, "estimators": []})
    assert not sweep(again, out=tmp_path, jobs=1).left_out


def test_failures_are_noted_and_retried_alone(write: Write, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    flaky = {"kind": "tests.studies.sweep_helpers:Flaky", "marker": str(marker)}
    file = write(axes=[{"path": "strategy", "values": [{"kind": "fedavg"}, flaky]}], seeds="0:2")
    done = sweep(file, out=tmp_path, jobs=1)
    assert len(done.failed) == 2
    assert set(done.failed.values()) == {"no marker"} or all("no marker" in why for why in done.failed.values())
    assert json.loads((done.path / "failed.json").read_text()) == done.failed
    assert set(done.results.setting) == {"fedavg"}
    marker.touch()
    untried = sweep(file, out=tmp_path, jobs=1)
    assert untried.failed == done.failed  # not tried again unless asked for
    when = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("[!.]*/manifest.json")}
    marker.unlink()
    assert len(sweep(file, out=tmp_path, jobs=1, retry_failed=True).failed) == 2
    marker.touch()
    mended = sweep(file, out=tmp_path, jobs=1, retry_failed=True)
    assert not mended.failed
    assert json.loads((done.path / "failed.json").read_text()) == {}
    assert len(set(mended.results.setting)) == 2
    assert all(path.stat().st_mtime_ns == then for path, then in when.items())


def test_old_results_of_a_run_that_now_fails_are_left_out(write: Write, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    flaky = {"kind": "tests.studies.sweep_helpers:Flaky", "marker": str(marker)}
    file = write(axes=[{"path": "strategy", "values": [{"kind": "fedavg"}, flaky]}])
    marker.touch()
    assert len(set(sweep(file, out=tmp_path, jobs=1).results.setting)) == 2
    marker.unlink()
    again = sweep(file, out=tmp_path, jobs=1, force=True)
    assert list(again.failed.values()) == ["no marker"]
    assert set(again.results.setting) == {"fedavg"}
