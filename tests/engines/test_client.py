"""Tests of `fedmem/engines/_client.py`, without a runtime of Flower."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict

from fedmem.engines import _client


def context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def assignment(**changes: Any) -> Any:
    return SimpleNamespace(**({"run": 0, "round": 3, "remembers": 0} | changes))


def test_client_recalls_the_state_of_the_accepted_participation() -> None:
    place = context()
    assert _client._recall_state(place, assignment()) == {}
    _client._remember(place, assignment(round=1), {"v": torch.tensor([1.0])})
    _client._remember(place, assignment(round=2, remembers=1), {"v": torch.tensor([2.0])})
    # the server did not accept round 2, so that the client goes on from round 1
    assert _client._recall_state(place, assignment(round=3, remembers=1))["v"].tolist() == [1.0]
    assert _client._recall_state(place, assignment(round=3, remembers=2))["v"].tolist() == [2.0]


def test_older_states_of_the_run_are_dropped_and_other_runs_kept() -> None:
    place = context()
    for round_number, remembers in ((1, 0), (2, 1), (3, 2)):
        for run in (0, 1):
            work = assignment(run=run, round=round_number, remembers=remembers)
            _client._remember(place, work, {"v": torch.tensor([float(round_number)])})
    assert len(place.state) == 2 * 2
    with pytest.raises(RuntimeError, match="lost what it remembered of round 1"):
        _client._recall_state(place, assignment(remembers=1))
    assert _client._recall_state(place, assignment(run=1, remembers=3))["v"].tolist() == [3.0]
