"""Tests of `fedmem/contracts/evidence.py`."""

from __future__ import annotations

import torch

from fedmem.contracts.evidence import Dropped, Transition
from fedmem.contracts.measurement import NO_CLIENT


def test_server_transition_counts_its_clients() -> None:
    after = {"w": torch.ones(1)}
    found = Transition.at_server(run=1, round_number=3, before={}, after=after, sizes={4: 20, 2: 5})
    assert (found.level, found.client, found.clients, found.num_examples) == ("global", NO_CLIENT, (4, 2), 25)
    assert found.sent is found.kept is after
    empty = Transition.at_server(run=1, round_number=3, before={}, after=after)
    assert (empty.clients, empty.num_examples) == ((), 0)


def test_client_transition_has_sent_and_kept_models() -> None:
    sent, kept = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    found = Transition.at_client(
        run=0, round_number=2, client=7, before={}, sent=sent, kept=kept, num_examples=9, report={"steps": 3.0}
    )
    assert (found.level, found.client, found.num_examples, found.report["steps"]) == ("local", 7, 9, 3.0)
    assert found.sent is sent
    assert found.kept is kept


def test_failures_found_in_a_shard_replace_known_reasons() -> None:
    dropped = Dropped(known={(1, 0): "old", (1, 1): "old"}, found={(1, 1): "new", (2, 0): "new"})
    assert dropped.all == {(1, 0): "old", (1, 1): "new", (2, 0): "new"}
