"""Tests of `strategies/fedmedian.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.strategies._rule import Round
from fedmem.strategies.fedmedian import FedMedian
from tests.strategies.strategies_helpers import round_of


@pytest.mark.parametrize(
    ("values", "present", "expected"),
    [
        ([5.0, 1.0, 100.0], [True, True, True], 5.0),
        ([5.0, 1.0, 100.0, 7.0], [True, True, True, True], 6.0),
        ([5.0, 1.0, 100.0, 7.0], [True, True, False, True], 5.0),
        ([2.0], [True], 2.0),
        ([-3.0, -1.0], [True, True], -2.0),
    ],
)
def test_median_is_the_middle_of_present_clients(values: list[float], present: list[bool], expected: float) -> None:
    sizes = [1.0, 99.0, 3.0, 5.0][: len(values)]
    after, _ = FedMedian().rule({}, round_of(values, sizes, present))
    assert after["w"].tolist() == [[expected]]


def test_minority_of_outliers_stays_within_the_others_range() -> None:
    after, _ = FedMedian().rule({}, round_of([1.0, 2.0, 3.0, 1e9, 1e9], [1.0] * 5, [True] * 5))
    assert after["w"].tolist() == [[3.0]]


def test_coordinates_and_runs_have_medians_of_their_own() -> None:
    sent = torch.tensor([[[1.0, 9.0], [2.0, 8.0], [3.0, 1.0]], [[0.0, 0.0], [4.0, 4.0], [5.0, 2.0]]])
    round_ = Round(
        number=1, before={"w": torch.zeros(2, 2)}, sent={"w": sent}, weights=torch.ones(2, 3).double(),
        present=torch.ones(2, 3, dtype=torch.bool), clients=torch.arange(3).expand(2, -1),
    )  # fmt: skip
    assert FedMedian().rule({}, round_)[0]["w"].tolist() == [[2.0, 8.0], [4.0, 2.0]]
