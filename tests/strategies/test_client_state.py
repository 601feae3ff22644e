"""Tests of `strategies/_client_state.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedmem.strategies import _client_state as own
from fedmem.strategies._rule import Round


def made(**changes: Any) -> Round:
    given: dict[str, Any] = {
        "number": 1,
        "before": {"w": torch.ones(2, 1)},
        "sent": {"w": torch.tensor([[[3.0], [5.0]], [[4.0], [9.0]]])},
        "weights": torch.ones(2, 2),
        "present": torch.tensor([[True, True], [True, False]]),
        "clients": torch.tensor([[0, 2], [1, -1]]),
    }
    return Round(**(given | changes))


def test_rows_of_absent_or_new_clients_are_zeros() -> None:
    values = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    found = own.rows_of(values, torch.tensor([[1, -1], [5, 0]]))
    assert found.flatten(1).tolist() == [[2.0, 0.0], [0.0, 3.0]]
    assert own.rows_of(values, torch.full((2, 2), -1)).tolist() == torch.zeros(2, 2, 1).tolist()


def test_table_takes_rows_of_present_clients_and_grows() -> None:
    values = torch.zeros(2, 2, 1)
    after = own.with_rows(values, torch.tensor([[0, 2], [1, 1]]), made().present, torch.ones(2, 2, 1))
    assert after.flatten(1).tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert own.known_share(values, after) == pytest.approx(2 / 3)
    assert not values.any(), "the old table is left as it was"


def test_updates_of_absent_clients_are_zero() -> None:
    assert own.updates_of(made())["w"].flatten(1).tolist() == [[2.0, 4.0], [3.0, 0.0]]


def test_table_of_a_model_has_a_zero_row_for_each_client() -> None:
    found = own.table({"w": torch.ones(2, 3)}, 4)
    assert found["w"].shape == (2, 4, 3)
    assert not found["w"].any()
    assert own.part({"own:w": torch.ones(1), "all:w": torch.zeros(1)}, "own:").keys() == {"w"}


def test_missing_report_of_a_present_client_is_an_error() -> None:
    steps = torch.tensor([[2.0, 3.0], [4.0, torch.nan]])
    assert own.require_reports(made(report={"steps": steps}), "steps", "X").tolist() == [[2.0, 3.0], [4.0, 1.0]]
    steps[0, 1] = torch.nan
    with pytest.raises(ValueError, match="X needs the steps"):
        own.require_reports(made(report={"steps": steps}), "steps", "X")
    with pytest.raises(ValueError, match="X needs the lr"):
        own.require_reports(made(report={"steps": steps}), "lr", "X")
