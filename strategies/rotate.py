"""Averaging that lets each client rest after a participation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from ._client_state import rows_of, with_rows
from ._geometry import or_before
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Rotate(ServerRule):
    """The mean by size of the clients of the cohort that were not aggregated in the last `rest` rounds.

    Client k of the cohort of round r counts if `r - last_k > rest`, with `last_k` the round in which it last counted.
    All others train, and are observed at level local, but nothing of them reaches the aggregate. The aggregate thus has
    time to forget what it memorised of them.

    Guarantees:

    - `rest` 0 is `fedavg`, to the last bit;
    - between two rounds in which a client counts lie at least `rest` rounds in which it does not;
    - where all of a cohort rest, the model is kept.

    The sampler `min_separation` does not even ask clients that rest. This strategy changes the aggregate alone, so that
    local and global memorisation of the same work are compared. If all clients participate in every round, all count
    together once in `rest + 1` rounds. With a sampler that picks some, they count in turn after a while.

    Keeps the first round in which each client counts again, N numbers for each run.

    Fields:
        rest: Rounds for which a client is left out after it counted.

    >>> sent = {"w": torch.tensor([[[1.0], [3.0]]])}
    >>> present, ids = torch.ones((1, 2), dtype=torch.bool), torch.tensor([[4, 7]])
    >>> start = {"w": torch.zeros(1, 1)}
    >>> rests = {"until": torch.tensor([[0] * 7 + [6]])}
    >>> for k in (5, 6):
    ...     round = Round(number=k, before=start, sent=sent, weights=present.double(), present=present, clients=ids)
    ...     after, later = Rotate(rest=2).rule(rests, round)
    ...     print(after["w"].tolist(), later["until"].tolist())
    [[1.0]] [[0, 0, 0, 0, 8, 0, 0, 6]]
    [[2.0]] [[0, 0, 0, 0, 9, 0, 0, 9]]

    Of this project, not from the literature.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    rest: Annotated[int, Ge(0)] = 3

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """(R, N) the first round in which each client counts again."""
        runs = len(next(iter(before.values())))
        return {"until": torch.zeros((runs, num_clients), dtype=torch.int64)}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Average the clients that have rested."""
        until = rows_of(state["until"], rnd.clients)
        active_round = replace(rnd, present=rnd.present & (rnd.number >= until))
        after = or_before(
            active_round, weighted_mean(active_round.sent, share(active_round.weights, active_round.present))
        )
        next_round = torch.full_like(until, rnd.number + self.rest + 1)
        return after, {"until": with_rows(state["until"], rnd.clients, active_round.present, next_round)}
