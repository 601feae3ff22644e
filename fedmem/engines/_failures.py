"""Clients that failed: one policy for both engines, for messages and the rule, and for shards.

- A failure is recorded in the participation of its run, and tolerated up to a share of the cohort.
- Where all runs share a roster, a client that fails in one run is dropped in the same round of all runs. Otherwise
  the cohorts would differ between runs, perhaps because of a coin.
- A shard trains only some of the runs, so that shards have to agree on the failures (`Ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmem.contracts.evidence import Dropped, Lost
from fedmem.errors import RunError
from fedmem.guards.guarding import with_trace


def check_tolerated(round_number: int, failed: Mapping[int, str], cohort_size: int, share: float) -> None:
    """Errors: `RunError` where more than this share of the clients that were asked failed.

    Args:
        round: Round of the failures.
        failed: client -> cause, the client to be named first.
        cohort_size: How many clients were asked to train.
        share: Largest share of them that may fail.

    >>> check_tolerated(3, {5: "no battery"}, 2, 0.5)
    >>> check_tolerated(3, {5: "no battery"}, 2, 0.0)
    Traceback (most recent call last):
    fedmem.errors.RunError: round 3: 1 of 2 clients failed, first client 5: no battery. Set \
tolerate.max_failed_share to the share of a cohort that may fail.
    """
    if len(failed) > share * cohort_size:
        first, cause = next(iter(failed.items()))
        text = (
            f"round {round_number}: {len(failed)} of {cohort_size} clients failed, first client {first}: {cause}. "
            "Set tolerate.max_failed_share to the share of a cohort that may fail."
        )
        raise with_trace(RunError(text), cause)


class Failures:
    """Clients that failed in some run of a bank, and are dropped in all of them if these share a roster.

    >>> failures = Failures(shared=True)
    >>> failures.add(round_number=2, run=7, client=5, cause="no battery")
    >>> failures.causes_in(2, [4, 5]), failures.causes_in(3, [4, 5])
    ({1: 'no battery (in run 7)'}, {})
    """

    def __init__(self, shared: bool, lost: Lost | None = None) -> None:
        self.lost: dict[tuple[int, int], str] = dict(lost or {})
        """(round, client) -> cause, of those that are dropped in all runs."""
        self._shared = shared

    def add(self, *, round_number: int, run: int, client: int, cause: str) -> None:
        """Note a failure; the first cause stands. Nothing is noted where every run has a roster of its own."""
        if self._shared:
            self.lost.setdefault((round_number, client), f"{cause} (in run {run})")

    def causes_in(self, round_number: int, clients: Sequence[int]) -> dict[int, str]:
        """Position among `clients` -> cause, of those that are dropped in this round."""
        if not self.lost:
            return {}
        places = ((i, (round_number, client)) for i, client in enumerate(clients))
        return {i: self.lost[place] for i, place in places if place in self.lost}


class Ledger:
    """The failures on which shards agree, where all runs share a roster.

    A shard reports what failed in it. Failures of later rounds are then forgotten, since their models would have been
    others; failures of earlier rounds stand. Once all shards were trained with the same failures, they equal what one
    shard would have given. The reason is that models that agree up to a round fail in the same way in it.

    >>> ledger = Ledger()
    >>> ledger.add(Dropped(known={}, found={(3, 0): "a", (7, 1): "b"})), sorted(ledger.lost)
    (True, [(3, 0), (7, 1)])
    >>> ledger.add(Dropped(known={}, found={(2, 4): "c"})), sorted(ledger.lost)
    (True, [(2, 4)])
    """

    def __init__(self, lost: Lost | None = None) -> None:
        self.lost: Lost = lost or {}

    def add(self, dropped: Dropped) -> bool:
        """Note what failed in a shard; returns whether anything is new."""
        before = self.lost
        while differing := dropped.all.keys() ^ self.lost.keys():
            # Up to the first round that differs this shard is right, so that what failed in it there did fail.
            first = min(round_number for round_number, _ in differing)
            new = {place: why for place, why in dropped.found.items() if place[0] == first and place not in self.lost}
            if not new:
                break
            self.lost = {**{place: why for place, why in self.lost.items() if place[0] <= first}, **new}
        return self.lost is not before

    def agrees(self, dropped: Dropped) -> bool:
        """Whether a shard was trained with these failures."""
        return dropped.all.keys() == self.lost.keys()
