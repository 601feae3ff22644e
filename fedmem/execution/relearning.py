"""Evidence from before forgetting, for phases in which every run trains on forgotten examples again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.evidence import BEFORE, TRAINED, Evidence

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


def evidence_before_forgetting(scenario: Scenario, federation: Federation, runs: Sequence[int]) -> tuple[Evidence, ...]:
    """The audit examples at the aggregates from before they were forgotten, as a set of their own at round 0.

    They are those with which the phase before began, before its unlearner. Empty where nothing is learnt again, where
    the phase before has not been trained, or where it did not observe the aggregate.
    """
    if scenario.after is None or not scenario.after.relearn or federation.before is None:
        return ()
    if "global" not in scenario.observe.levels:
        return ()
    from fedmem.results.read import read_bank

    blocks = [one for one in read_bank(federation.before.folder).evidence if one.level == "global" and one.round == 0]
    names = {one.set for one in blocks}
    name = f"audit{BEFORE}" if f"audit{BEFORE}" in names else "audit"
    return tuple(_of_runs(one, runs) for one in blocks if one.set == name and np.isin(one.run, runs).any())


def _of_runs(block: Evidence, runs: Sequence[int]) -> Evidence:
    """The part of a block that is about some runs, under the name of the set."""
    rows = np.isin(block.run, runs)
    return replace(
        block,
        set=TRAINED,
        run=block.run[rows],
        client=block.client[rows],
        loss=block.loss[rows],
        margin=block.margin[rows],
        correct=block.correct[rows],
    )
