"""Tests of `fedmem/engines/_messages.py`."""

from __future__ import annotations

import pytest

from tests.engines.seams_helpers import TOYS, watched
from tests.tiny import tiny


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_each_client_gets_its_own_server_payload(server: str) -> None:
    """The count of turns is kept on the server by client number, and must be that of the roster."""
    _, seen, _ = watched(tiny(**TOYS, rounds=6, sampler={"kind": "poisson", "rate": 0.5}), server)
    turns: dict[tuple[int, int], int] = {}
    for run, round_number, client in sorted(seen.local, key=lambda place: place[1]):
        report = seen.local[run, round_number, client].report
        assert report["turns"] == turns.get((run, client), 0)
        assert report["round"] == round_number
        turns[run, client] = turns.get((run, client), 0) + 1
    assert len(turns) == 4 * 5
    assert max(turns.values()) > 2
