"""`Run.by_client`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmem.errors import ComponentError, RunError
from fedmem.results.read import Run
from tests.results.top_helpers import estimated, finished


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return estimated(tmp_path / "run")


def test_the_frame_has_a_row_for_each_client_with_its_name(run: Run) -> None:
    frame = run.by_client(kind="typical", level="global")
    frame = frame[frame["statistic"] == ""]
    assert frame["client_name"].astype(str).tolist() == ["Nord", "Süd", "0"]
    # example j has j mod 3 right answers in 8 out runs, and client j mod 3 owns it
    np.testing.assert_allclose(frame["value"], [1.0, 0.875, 0.75])
    assert frame["n"].tolist() == [5, 4, 5]
    assert set(frame["tests"]) == {3}
    assert frame["low"].isna().all()
    assert "adjusted_low, adjusted_high and p_adjusted allow for all clients" in frame.attrs["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "exposure"}, "no estimator of this run has 'exposure'.*choose from: memorisation"),
        ({"kind": "typicall"}, "did you mean 'typical'"),
    ],
)
def test_unknown_choices_are_answered(run: Run, options: dict[str, str], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        run.by_client(**options)  # type: ignore[arg-type]


def test_a_run_without_estimators_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no estimators"):
        finished(tmp_path / "run", [(8, 0)]).by_client()
