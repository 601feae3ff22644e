"""The evidence of one place over all observed rounds, gathered on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.evidence import Evidence, SignalEvidence
from fedmem.contracts.measurement import NO_CLIENT

Blocks = Mapping[int, Sequence[Evidence]]
"""Round -> the evidence on the audit set at that round, at one level."""

EVIDENCE = ("loss", "margin", "correct")
"""The values of a model that are stored without a signal."""

SignalBlocks = Mapping[int, Sequence[SignalEvidence]]
"""Round -> the values of one quantity of a signal at that round, at one level."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """The values of the models at one place on the m audit examples, over the S observed rounds, in all R runs.

    The place is that of a view: the aggregate, the owners, or the other clients. A sequence is what one model of the
    place says over the rounds. There is one at the aggregate and at the owners, and one for each other client, so that
    a sequence never changes its client. Rounds count from 1: the initial model has learnt nothing.

    Attributes:
        rounds: (S,) the observed rounds from 1 on, ascending; the same at all places.
        client: (Q, m) whose model the q-th sequence of an example shows; NO_CLIENT is the aggregate.
        observed: (S, Q, m) whether that model is there at a round, in every run that has the client and the owner.
        participated: (S, m) whether the owner's model was observed at a round, in every run that has the owner. None
            where local models cannot be compared: they were not observed, or each run draws its own cohorts.
        took_part: (S, m) the same in some run: a client may fail in the others. None as for `participated`.
        is_hidden: (R, m) pairs without a value, such as those of a run that leaves the owner out.
        kept: The evidence of these models.
        aggregates: The evidence of the aggregates, from which `correct_before` is read.
        signals: The values of signals at these models, by the name of their measure.
    """

    rounds: IntArray
    client: IntArray
    observed: BoolArray
    participated: BoolArray | None
    is_hidden: BoolArray
    kept: Blocks
    aggregates: Blocks
    signals: Mapping[str, SignalBlocks] = field(default_factory=dict)
    took_part: BoolArray | None = None

    @property
    def size(self) -> int:
        """Q, the number of sequences."""
        return len(self.client)

    @property
    def step(self) -> int | None:
        """The number of rounds from each observed round to the next; None with fewer than two, or if they differ."""
        return step_of(self.rounds.tolist())

    def loss(self, q: int = 0) -> FloatArray:
        """(S, R, m) losses in nats of the q-th sequence, NaN at rounds without its model."""
        return self._over_rounds(self.kept, q, "loss")

    def margin(self, q: int = 0) -> FloatArray:
        """(S, R, m) margins."""
        return self._over_rounds(self.kept, q, "margin")

    def correct(self, q: int = 0) -> FloatArray:
        """(S, R, m) correctness, 0 or 1, of passages 0 to 1."""
        return self._over_rounds(self.kept, q, "correct")

    def signal(self, name: str, q: int = 0) -> FloatArray | None:
        """(S, R, m) values of a signal, by the name of its measure; None where it was not read."""
        blocks = self.signals.get(name)
        return None if blocks is None else self._over_rounds(blocks, q, "values")

    def has(self, name: str) -> bool:
        """Whether there are values of this name, as in `values`."""
        return name in EVIDENCE or name in self.signals

    def values(self, name: str, q: int = 0) -> FloatArray | None:
        """(S, R, m) values by name: `loss`, `margin`, `correct`, or the measure of a signal.

        None where it was not read.
        """
        if name in EVIDENCE:
            return self._over_rounds(self.kept, q, name)
        return self.signal(name, q)

    def clients_at(self, position: int) -> IntArray:
        """(K,) the clients whose sequences have a value at an observed round, ascending; for places of clients."""
        return np.unique(self.client[self.observed[position]])

    def at_round(self, name: str, position: int, columns: IntArray) -> FloatArray:
        """(K, R, n) values of `clients_at` at one observed round, on the examples `columns`; NaN where there is none.

        `name` is as in `values`. The sequences are those of a place where each belongs to one client, such as the
        other clients.
        """
        clients = self.clients_at(position)
        values = np.full((len(clients), len(self.is_hidden), len(columns)), np.nan)
        round_number = int(self.rounds[position])
        blocks = self.kept if name in EVIDENCE else self.signals.get(name, {})
        for block in blocks.get(round_number, ()):
            rows = np.flatnonzero(np.isin(block.client, clients))
            known = ~np.isnan(block.margin if isinstance(block, Evidence) else block.values)[np.ix_(rows, columns)]
            shown_values = getattr(block, name if isinstance(block, Evidence) else "values")[np.ix_(rows, columns)]
            values[np.searchsorted(clients, block.client[rows]), block.run[rows]] = np.where(
                known, shown_values, np.nan
            )
        shown = np.zeros((len(clients), len(columns)), dtype=bool)
        sequences, examples = np.nonzero(self.observed[position][:, columns])
        shown[np.searchsorted(clients, self.client[sequences, columns[examples]]), examples] = True
        values[np.broadcast_to(~shown[:, None], values.shape)] = np.nan
        values[:, self.is_hidden[:, columns]] = np.nan
        return values

    def correct_before(self, q: int = 0) -> FloatArray:
        """(S, R, m) correctness of the model that a client received: the aggregate of the round before.

        NaN where the client did not take part, where the round before was not observed, and for the initial model.
        With personal layers, the aggregate is completed by those of the client.
        """
        return np.stack(
            [
                self._at(self.aggregates.get(round_number - 1, ()), position, q, "correct")
                for position, round_number in enumerate(self.rounds.tolist())
            ]
        )

    def hide(self, hidden: BoolArray) -> Series:
        """The same without the audit examples that are `hidden` (m,)."""
        return replace(self, is_hidden=self.is_hidden | hidden)

    def _over_rounds(self, blocks: Blocks | SignalBlocks, q: int, name: str) -> FloatArray:
        return np.stack(
            [
                self._at(blocks.get(round_number, ()), position, q, name)
                for position, round_number in enumerate(self.rounds.tolist())
            ]
        )

    def _at(
        self, blocks: Sequence[Evidence] | Sequence[SignalEvidence], position: int, q: int, name: str
    ) -> FloatArray:
        """(R, m) what the models of one sequence say, from evidence of one round."""
        values = np.full(self.is_hidden.shape, np.nan)
        for block in blocks:
            # one aggregate for all, or one for each client
            client = np.full_like(self.client[q], NO_CLIENT) if (block.client == NO_CLIENT).all() else self.client[q]
            for each in np.intersect1d(block.client, client).tolist():
                rows, columns = np.flatnonzero(block.client == each), np.flatnonzero(client == each)
                places = np.ix_(rows, columns)
                # a model that has diverged is right or wrong about nothing
                known = ~np.isnan((block.margin if isinstance(block, Evidence) else block.values)[places])
                values[np.ix_(block.run[rows], columns)] = np.where(known, getattr(block, name)[places], np.nan)
        values[self.is_hidden | ~self.observed[position, q]] = np.nan
        return values


def step_of(rounds: Sequence[int]) -> int | None:
    """The number of rounds from each of these to the next; None with fewer than two, or if they differ.

    >>> step_of([5, 10, 15]), step_of([5, 10, 12]), step_of([5])
    (5, None, None)
    """
    steps = {later - earlier for earlier, later in pairwise(rounds)}
    return steps.pop() if len(steps) == 1 else None


def explain_uneven(kind: str, rounds: Sequence[int]) -> str:
    """Why an estimator that counts events between rounds refuses these observed rounds, and what to change.

    >>> explain_uneven("mine", [4, 8, 10]).partition(";")[0]
    'mine counts events from each observed round to the next, and the steps between rounds 4, 8, 10 differ'
    """
    some = ", ".join(map(str, rounds[:12])) + (f", ... to {rounds[-1]}" if len(rounds) > 12 else "")
    wrong = (
        f"the steps between rounds {some} differ"
        if len(rounds) > 1
        else f"it needs two rounds or more after round 0, but {some or 'none'} is observed"
    )
    return (
        f"{kind} counts events from each observed round to the next, and {wrong}; write observe: {{every: 1}}, or a "
        f"larger number that divides rounds, leave observe.rounds out, or leave {kind} out"
    )


def explain_unobserved(kind: str) -> str:
    """Why an estimator that counts rounds between participations refuses these runs, and what to change.

    >>> explain_unobserved("mine").partition(";")[0]
    'mine counts the rounds since a client last took part, so every round must be observed, at its model and globally'
    """
    return (
        f"{kind} counts the rounds since a client last took part, so every round must be observed, at its model and "
        "globally; write observe: {every: 1} with the levels local and global, write roster: shared where it is "
        f"per_run, or leave {kind} out"
    )
