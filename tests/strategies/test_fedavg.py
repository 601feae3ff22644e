"""Tests of `strategies/fedavg.py`."""

from __future__ import annotations

import pytest

from fedmem.strategies.fedavg import FedAvg
from tests.strategies.strategies_helpers import round_of


@pytest.mark.parametrize(
    ("weighting", "expected"),
    # by hand: (1 * 1 + 3 * 5) / 4, and the plain mean of 1 and 5
    [("size", 4.0), ("uniform", 3.0)],
)
def test_mean_is_weighted_as_declared_over_present_clients(weighting: str, expected: float) -> None:
    round_ = round_of([1.0, 5.0, 100.0], [1.0, 3.0, 50.0], [True, True, False])
    after, state = FedAvg(weighting=weighting).rule({}, round_)  # type: ignore[arg-type]
    assert after["w"].tolist() == [[expected]]
    assert state == {}


def test_strategy_reads_rows_only_if_it_weights_by_them() -> None:
    assert FedAvg().reads == ("rows",)
    assert FedAvg(weighting="uniform").reads == ()
