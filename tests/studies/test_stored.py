"""A comparison or sweep in its folder: it is drawn again from its numbers, to the byte, without its runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.errors import FolderError
from fedmem.estimation.saturation import NOWHERE
from fedmem.studies.compare import ComparedRuns, compare
from fedmem.studies.stored import StoredStudy, is_study, read_study, write_study
from fedmem.studies.study_screen import LINES
from fedmem.studies.sweep import sweep
from fedmem.studies.tables import TABLES, results
from tests.estimation.saturation_helpers import compared
from tests.labelling import labels
from tests.studies.compare_helpers import small
from tests.studies.sweep_helpers import RATES, Write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ComparedRuns:
    """Two settings and two seeds, drawn."""
    quick = small(rounds=2, runs=8, observe={"every": 1, "levels": ["local", "global"]})
    folder = tmp_path_factory.mktemp("made")
    return compare(quick, vary=["strategy.kind=fedavg,fedmedian"], seeds=2, measures=["exposure"], out=folder, jobs=1)


def test_a_study_is_read_as_it_was_written(made: ComparedRuns, tmp_path: Path) -> None:
    comparison = made.comparison
    write_study(tmp_path, StoredStudy(title="t", comparison=comparison, failures=("a: b",), is_sweep=True))
    found = read_study(tmp_path)
    assert (found.title, found.failures, found.is_sweep) == ("t", ("a: b",), True)
    stored = [share for row in made.comparison.constant_accuracy for share in row]
    assert len(stored) == made.comparison.series[0].values.size
    assert all(share is not None and 0 < share < 1 for share in stored)
    for name in ("settings", "reference", "seeds", "measures", "warnings", "warned", "constant_accuracy"):
        assert getattr(found.comparison, name) == getattr(comparison, name)
    assert [one.quantity for one in found.comparison.series] == [one.quantity for one in comparison.series]
    for table in (*TABLES.values(), results):
        assert str(list(table(found.comparison))) == str(list(table(comparison)))
    empty = replace(comparison, series=())
    write_study(tmp_path, StoredStudy(title="t", comparison=empty))
    assert read_study(tmp_path).comparison == empty


def test_report_draws_a_comparison_again_without_its_runs(made: ComparedRuns, tmp_path: Path) -> None:
    folder = tmp_path / made.path.name
    shutil.copytree(made.path, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        if not file.name.startswith("series") and file.name != "comparison.json":
            file.unlink()
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert "exposure" in done.output
    assert len(done.stdout.splitlines()) <= LINES
    assert "EXPOSURE" in CliRunner().invoke(app, ["report", str(folder), "--full"]).output


@pytest.mark.usefixtures("undrawn")
def test_report_of_a_sweep_has_means_and_its_failures(write: Write, tmp_path: Path) -> None:
    axes = [{"path": "strategy.kind", "values": ["fedavg", "tests.execution.many_scenarios_helpers:Breaking"]}]
    swept = sweep(write(axes=axes), out=tmp_path, jobs=1)
    assert is_study(swept.path)
    content = (swept.path / "results.csv").read_bytes()
    (swept.path / "results.csv").unlink()
    done = CliRunner().invoke(app, ["report", str(swept.path)])
    assert done.exit_code == 1
    assert "failed and left out: Breaking, seed 0: broken" in " ".join(done.output.split())
    assert "minus" not in done.output
    assert (swept.path / "results.csv").read_bytes() == content
    assert "broken" in (swept.path / "sweep.html").read_text()


def test_damaged_studies_say_how_to_make_them_again(made: ComparedRuns, tmp_path: Path) -> None:
    folder = tmp_path / "compare-0"
    folder.mkdir()
    with pytest.raises(FolderError, match=r"has no series\.json: .* repeats no run"):
        read_study(folder)
    write_study(folder, StoredStudy(title="t", comparison=made.comparison))
    content = (folder / "series.npz").read_bytes()
    for damage in (content[: len(content) // 2], b"", b"text"):
        (folder / "series.npz").write_bytes(damage)
        with pytest.raises(FolderError, match="damaged"):
            read_study(folder)
    (folder / "series.npz").write_bytes(content)
    (folder / "series.json").write_text("{}")
    with pytest.raises(FolderError, match="damaged"):
        read_study(folder)


def test_intervals_of_runs_and_rounds_are_kept(made: ComparedRuns) -> None:
    series = next(one for one in made.comparison.series if one.quantity.metric == "exposure" and one.rounds)
    assert set(series.intervals) == {None, *series.rounds}
    low, high, n = np.moveaxis(series.intervals[None], -1, 0)
    assert (low <= series.values).all()
    assert (series.values <= high).all()
    assert (n == series.n).all()


def test_each_label_is_a_column_of_its_own() -> None:
    lira, gap = labels(attack="lira", kind="random"), labels(statistic="gap")
    one = compared([[1.0], [2.0]], NOWHERE).series[0]
    parts = tuple(replace(one, quantity=replace(one.quantity, labels=each)) for each in (lira, gap))
    rows = list(results(replace(compared([[1.0], [2.0]], NOWHERE), series=parts)))
    assert [(row["attack"], row["label_kind"], row["statistic"]) for row in rows[:4]] == [
        *[("lira", "random", None)] * 2,
        *[(None, None, "gap")] * 2,
    ]
    assert {row["kind"] for row in rows} == {"canary"}
    assert [row["scope"] for row in rows] == ["summary"] * 4 + ["round"] * 8
    assert {row["round"] for row in rows[4:]} == {1, 2}


def test_a_sweep_that_was_interrupted_takes_a_later_value(write: Write, tmp_path: Path) -> None:
    from fedmem.contracts.events import Event, ScenarioFinished

    class Interrupting:
        """Ctrl-C as soon as one run is finished."""

        def __call__(self, event: Event) -> None:
            if isinstance(event, ScenarioFinished):
                raise KeyboardInterrupt

    file = write(axes=[RATES], set={"speed.threads": 2})  # threads: each run in a bank of its own
    with pytest.raises(KeyboardInterrupt):
        sweep(file, out=tmp_path, jobs=1, listeners=[Interrupting()])
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("[!.]*/manifest.json")}
    assert len(there) == 1
    done = sweep(write(axes=[{**RATES, "values": [0.1, 0.3, 0.5]}], set={"speed.threads": 2}), out=tmp_path, jobs=1)
    assert set(done.results["client.lr"]) == {0.1, 0.3, 0.5}
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert len(list((tmp_path / "tiny").glob("[!.]*/manifest.json"))) == 3
