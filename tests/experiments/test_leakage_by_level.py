"""Leakage by level: its table from made readings, and the whole experiment in small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.leakage_by_level import analysis, figure
from experiments.leakage_by_level import run as study
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.privacy.secure_aggregation import by_size, with_size
from fedmem.probes._leak_measures import ATTACKED
from fedmem.probes._leakage_summary import summed_up
from fedmem.results.tables import measurement_rows
from fedmem.results.tidy import measurement_frame
from tests.experiments.study_helpers import small_study

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "leakage_by_level"


def made() -> list[Measurement]:
    """Eight runs of four victims: margins of 5 dB alone, 3 in the sum of 2, 1 in the aggregate, and their noise."""
    rng, rows = np.random.default_rng(0), []
    for run in range(8):
        for subject in range(8):
            own = rng.normal(0, 1)
            out = "out" if subject >= 4 else None
            for level, size, view, value in (
                ("local", None, "message", 5.0), ("sum", 2, "sum", 3.0), ("global", None, "aggregate", 1.0),
            ):  # fmt: skip
                margin = -4.0 + own if out else value + own + rng.normal(0, 0.1)
                who = Labels.of(
                    view=view, knows="lr+steps+count", coin=out, owner=subject % 4, clients=size, kind="typical"
                )
                for metric, found, among in (
                    ("identified", float(margin > 2), {"gallery": 900, "peers": 40}),
                    ("margin", margin, {}),
                    ("beats_prior", float(margin > 0), {}),
                ):
                    about: dict[str, Any] = {"metric": metric, "value": found, "subject": str(subject)}
                    reading = Reading(**about, labels=who.plus(**among))
                    client = subject % 4 if level == "local" else -1
                    place: dict[str, Any] = {"run": run, "round": 1, "level": level, "client": client}
                    rows.append(Measurement(**place, source="leakage", reading=reading))
    return [*rows, *(with_size(one, size) for size, own in by_size(rows) for one in summed_up(own, ATTACKED))]


def frame(rows: list[Measurement]) -> pd.DataFrame:
    place: dict[str, Any] = {"run": None, "level": "global", "client": -1, "source": "utility"}
    values = {0: 0.1, 1: 0.5, 15: 0.6, 30: 0.7, None: 0.7}
    accuracy = [
        Measurement(**place, round=round_number, reading=Reading(metric="test_accuracy", value=value))
        for round_number, value in values.items()
    ]
    return measurement_frame(measurement_rows([*rows, *accuracy]))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    audit = pd.DataFrame({"subject": range(8), "kind": ["typical"] * 8})
    run: Any = SimpleNamespace(measurements=frame(made()), audit=audit, scenario={"runs": 8})
    found: pd.DataFrame = analysis.results(run, 30)
    return found.set_index("level")


def test_the_table_finds_what_was_put_in(table: pd.DataFrame) -> None:
    assert table.index.tolist() == ["local", "sum of 2", "global"]
    for level, margin in (("local", 5), ("sum of 2", 3), ("global", 1)):
        row = table.loc[level]
        assert row["margin"] == pytest.approx(margin, abs=0.5)
        assert row["margin_low"] < row["margin"] < row["margin_high"]
        assert row["margin_out"] == pytest.approx(-4, abs=0.5)
        assert row["margin_gain"] == pytest.approx(row["margin"] - row["margin_out"])
        assert (row["n"], row["gallery"], row["peers"], row["runs"], row["accuracy"]) == (32, 900, 40, 8, 0.5)
        assert (row["stage"], row["kind"]) == ("start", "typical")
        assert row["identified_out"] == 0
    assert table.identified["local"] > 0.9 > 0.5 > table.identified["global"]


def test_each_stage_has_the_accuracy_of_its_round() -> None:
    """Round 0, which nobody attacks, and the summary at the end are no part of the middle."""
    rows = [replace(one, round=round_number) for one in made() if one.round is not None for round_number in (1, 15, 30)]
    audit = pd.DataFrame({"subject": range(8), "kind": ["typical"] * 8})
    run: Any = SimpleNamespace(measurements=frame(rows), audit=audit, scenario={"runs": 8})
    found = analysis.results(run, 30).groupby("stage").accuracy.unique()
    assert {stage: values.tolist() for stage, values in found.items()} == {
        "start": [0.5],
        "middle": [0.6],
        "end": [0.7],
    }


def test_falls_are_paired(table: pd.DataFrame) -> None:
    """The noise of an example is the same at every level, so the difference is known far better than either mean."""
    for level, fall in (("sum of 2", 2), ("global", 4)):
        row = table.loc[level]
        assert row["fall_low"] < row["fall"] < row["fall_high"]
        assert row["fall"] == pytest.approx(fall, abs=0.1)
        assert row["fall_high"] - row["fall_low"] < 0.3
        assert row["margin_high"] - row["margin_low"] > 0.4
    assert np.isnan(table.fall["local"])


def test_runs_follow_the_victims_that_are_wanted() -> None:
    cell = study.Cell
    for batch, steps in ((1, 1), (4, 1), (16, 20), (1, 5)):
        runs = cell("mnist5k", "mlp", batch, steps).runs
        expected = runs * 3 * min(12, batch * steps) / 12
        assert runs % 2 == 0
        assert study.VICTIMS <= expected < study.VICTIMS + 6
    every = study.cells(())
    assert len(every) == len(set(every)) == 20


def test_the_figure_takes_a_table_with_gaps(table: pd.DataFrame) -> None:
    rows = table.reset_index().assign(data="mnist5k", model="mlp", batch=1, steps=1)
    assert len(figure.draw(rows).axes) == 3


@pytest.mark.nightly
@pytest.mark.slow
def test_small_experiment_repeats_with_equal_results(tmp_path: Path) -> None:
    small = ["rounds=2", "runs=2", "references=50", "observe.rounds=[1, 2]", "probes[1].rounds=[1, 2]"]
    small += ["dataset={kind: digits}", "probes[1].attack.steps=2", "model.hidden=[8]", "clients=26"]
    chosen = ("mnist5k", "mlp", 16, 1)
    files = small_study(study.STUDY, tmp_path, small, chosen=lambda *cell: cell == chosen)
    assert set(files) == {"results.csv", "leakage_by_level.png"}
    found = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(found.level) == {"local", "sum of 2", "sum of 5", "sum of 10", "global"}
    assert set(found.kind) == {"random_pattern", "mislabelled", "typical"}
    assert set(found.stage) == {"start", "end"}
    assert (found.n > 0).all()


def test_the_page_gives_both_the_untrained_and_the_last_stage() -> None:
    page, table = (FOLDER / "README.md").read_text(), pd.read_csv(FOLDER / "results.csv")
    rows = table[(table.model == "mlp") & (table.kind == "typical") & (table.steps == 1)]
    shares = rows.set_index(["data", "batch", "level", "stage"]).identified
    for place in (("fashion_mnist", 1, "sum of 10"), ("fashion_mnist", 16, "local"), ("mnist5k", 1, "sum of 5")):
        first, last = (f"{shares[(*place, stage)]:.2f}" for stage in ("start", "end"))
        assert f"{first} → {last}" in page, place
