"""Why cohorts that hang on losses need a pilot: an example without any effect seems to have one where its coin picks.

Nobody learns here: every model is the one that its run began with. So no example is memorised, and what its coin does
is to enter the loss that its holder tells. Where each run picks by its own losses, a holder that has the example is
picked if the example is hard for the weights of this run, and one that has not is picked without regard to it. Among
the runs in which the holder is there to be read, those with the example in are then the ones that find it hard.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.evidence import Bank
from fedmem.estimation.estimates import estimate
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.tiny import tiny

pytestmark = pytest.mark.statistical

RUNS = 400


def bank(roster: str) -> Bank:
    """Three clients, each with one pattern of 20 copies; from round 4 on, the one with the highest loss is picked."""
    asked = tiny(
        runs=RUNS,
        rounds=4,
        clients=3,
        initial_weights="per_run",
        injections=[{"kind": "random_pattern", "per_client": 1, "copies": 20}],
        sampler={"kind": "power_of_choice", "size": 1, "candidates": 3},
        client={"kind": "tests.toys:Frozen"},
        roster=roster,
        observe={"rounds": [4]},
    )
    return simulate(asked, build(asked)).bank


def read(found: Bank) -> tuple[FloatArray, BoolArray]:
    """The loss on its own pattern of each client's model that is there in round 4, and whether the pattern is in."""
    (block,) = (one for one in found.evidence if (one.set, one.level, one.round) == ("audit", "local", 4))
    subject = np.argmax(found.audit.owner[None, :] == block.client[:, None], axis=1)
    return block.loss[np.arange(len(subject)), subject], found.audit.is_in[block.run, subject]


def p_value(found: Bank) -> float:
    loss, is_in = read(found)
    return float(stats.mannwhitneyu(loss[is_in], loss[~is_in]).pvalue)


def test_rosters_of_own_losses_create_a_false_effect() -> None:
    loss, is_in = read(bank("per_run"))
    assert len(loss) == RUNS
    assert stats.mannwhitneyu(loss[is_in], loss[~is_in], alternative="greater").pvalue < 1e-6
    assert loss[is_in].mean() - loss[~is_in].mean() > 0.1


def test_with_a_pilot_there_is_none() -> None:
    found = bank("pilot")
    _, is_in = read(found)
    assert is_in.sum() == RUNS / 2, "the holder is there in all runs, half in and half out"
    assert p_value(found) > 1e-3
    asked = tiny(estimators=[{"kind": "memorisation"}]).estimators
    rows = [row for row in estimate(found, asked, 200) if row.round is None and row.level == "local"]
    told = [row.reading for row in rows if row.reading.metric == "memorisation" and row.reading.subject.isdecimal()]
    values = [one.value for one in told if np.isfinite(one.value)]
    assert values
    assert all(abs(value) < 4 * RUNS**-0.5 for value in values)


def test_own_rosters_give_no_local_estimate() -> None:
    asked = tiny(estimators=[{"kind": "memorisation"}]).estimators
    assert {row.level for row in estimate(bank("per_run"), asked, 50)} == {"global"}
