"""Tests of `fedmem/probes/_participations.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.evidence import Transition
from fedmem.probes._participations import draw_examples, trained_rows
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny


def test_examples_are_those_of_batches_and_drawn_ones_among_them() -> None:
    seen = []

    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        audit = context.federation.audit
        rows = trained_rows(context.federation, transition.run, transition.client, transition.round)
        mine = np.flatnonzero((audit.owner == transition.client) & audit.is_in[transition.run])
        assert sorted(rows) == mine.tolist()
        every = draw_examples(context, transition, rows, None, "a test")
        used = context.used_rows(transition.run, transition.client, transition.round)
        assert every == [subject for subject, own in rows.items() if set(own) & set(used.tolist())]
        some = draw_examples(context, transition, rows, 1, "a test")
        assert len(some) == min(1, len(every))
        assert set(some) <= set(every)
        seen.append(len(every))

    looked_at(tiny(runs=2, rounds=1, observe={"every": 1}), look)
    assert max(seen) > 1
