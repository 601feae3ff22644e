"""Tests of `fedmem/engines/_failures.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.events import Event
from fedmem.contracts.evidence import Dropped, Lost
from fedmem.engines._failures import Ledger
from fedmem.execution.shard_store import divide
from fedmem.execution.sharding import train_all
from fedmem.processes import InProcessPool


@given(
    seed=st.integers(0, 10**6),
    runs=st.integers(1, 6),
    rounds=st.integers(1, 5),
    clients=st.integers(1, 4),
    size=st.integers(1, 4),
    workers=st.integers(1, 3),
    often=st.sampled_from([3, 8, 30]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_shards_agree_with_joint_training_on_what_fails(
    seed: int, runs: int, rounds: int, clients: int, size: int, workers: int, often: int, data: st.DataObject
) -> None:
    """Whether a client fails depends on the run and on everybody who was dropped before, as models do."""

    def fails(run: int, round_number: int, client: int, before: Mapping[tuple[int, int], str]) -> bool:
        earlier = sorted(place for place in before if place[0] < round_number)
        text = f"{seed} {run} {round_number} {client} {earlier}"
        return hashlib.sha256(text.encode()).digest()[0] % often == 0

    def trained(some: range, known: Lost) -> Lost:
        dropped = dict(known)
        for round_number in range(1, rounds + 1):
            dropped |= {
                (round_number, client): "why"
                for client in range(clients)
                if (round_number, client) not in known
                and any(fails(one, round_number, client, _until(dropped, round_number)) for one in some)
            }
        return {place: why for place, why in dropped.items() if place not in known}

    def _until(dropped: Lost, round_number: int) -> Lost:
        return {place: why for place, why in dropped.items() if place[0] < round_number}

    class Shuffled(InProcessPool[tuple[range, Lost], Event, Lost]):
        """Whoever is at work may be done first."""

        def wait_for_one(self) -> tuple[str, Lost]:
            place = data.draw(st.integers(0, len(self._started) - 1))
            self._started.insert(0, self._started.pop(place))
            return super().wait_for_one()

    truth = trained(range(runs), {})
    dropped: dict[range, Dropped] = {}
    ledger = Ledger()
    told: list[Lost] = [{}]
    plan = divide(runs, size)
    crew = Shuffled(lambda job, tell: trained(*job), print)
    train_all(plan, dropped, ledger, crew, workers, told.append)
    assert ledger.lost.keys() == truth.keys() == told[-1].keys()
    assert set(dropped) == set(plan)
    assert all(one.all.keys() == truth.keys() for one in dropped.values())
