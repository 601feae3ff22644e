"""What the shipped quickstart has to show, each with a 95 % interval that excludes zero."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import fedmem
from fedmem.reporting.page import report

ROOT = Path(__file__).resolve().parents[2]


MAX_BYTES = 1_000_000
"""The largest report of the quickstart."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = fedmem.load_scenario(ROOT / "scenarios" / "quickstart.yaml")
    return fedmem.run(scenario, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def frame(folder: Path) -> pd.DataFrame:
    measurements: pd.DataFrame = fedmem.read(folder).measurements
    return measurements[measurements.scope == "summary"]


def low(frame: pd.DataFrame, metric: str, level: str, subject: str, **labels: str) -> float:
    rows = frame[
        (frame.metric == metric) & (frame.level == level) & (frame.subject == subject) & (frame.statistic == "")
    ]
    for name, value in labels.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return float(rows.low.iloc[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "subject", "labels"),
    [
        ("local", "random_pattern", {"minus": "mislabelled", "place": "owner"}),
        ("global", "random_pattern", {"minus": "mislabelled"}),
        ("local", "mislabelled", {"minus": "typical", "place": "owner"}),
        ("global", "random_pattern", {"minus": "global"}),
    ],
)
def test_quickstart_differences_are_significant(
    frame: pd.DataFrame, level: str, subject: str, labels: dict[str, str]
) -> None:
    assert low(frame, "memorisation.difference", level, subject, **labels) > 0


@pytest.mark.slow
def test_every_difference_has_an_interval_and_an_honest_name(frame: pd.DataFrame) -> None:
    differences = frame[frame.metric == "memorisation.difference"]
    assert len(differences) >= 9
    assert differences[["low", "high"]].notna().all(axis=None)
    assert (differences.low <= differences.high).all()


@pytest.mark.slow
def test_out_canaries_are_at_the_null_and_in_canaries_are_not(frame: pd.DataFrame) -> None:
    """Exposure of in canaries less that of their own out runs; the null of exposure itself is not zero."""
    gain = frame[(frame.metric == "exposure_gain") & (frame.level == "global") & (frame.subject == "random_pattern")]
    value = frame[(frame.metric == "exposure") & (frame.level == "global") & (frame.subject == "random_pattern")]
    outs = float(value.value.iloc[0]) - float(gain.value.iloc[0])
    assert float(gain.low.iloc[0]) > 0
    assert 1.0 < outs < 1.9


@pytest.mark.slow
def test_utility_is_reported_at_both_levels(frame: pd.DataFrame) -> None:
    accuracy = frame[frame.metric == "test_accuracy"].set_index("level").value
    assert accuracy["global"] > 0.9
    assert set(accuracy.index) == {"local", "global"}


@pytest.mark.slow
def test_the_report_is_at_most_one_megabyte(folder: Path) -> None:
    page = report(folder)
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size <= MAX_BYTES
    assert text.count("<svg") >= 4, "the figures are in the page"
    assert "random_pattern" in text
