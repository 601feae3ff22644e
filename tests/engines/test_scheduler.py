"""Tests of `fedmem/engines/_scheduler.py`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engines.lockstep_helpers import ONE_BY_ONE, same, trained
from tests.tiny import tiny

OTHERS = ("fedmedian", "fedadam", "fedavgm", "trimmed_mean")


@pytest.mark.parametrize("strategy", ["fedavg", *(pytest.param(s, marks=pytest.mark.slow) for s in OTHERS)])
def test_a_bank_equals_its_runs_one_by_one(strategy: str) -> None:
    scenario = tiny(speed=ONE_BY_ONE, strategy={"kind": strategy})
    together = trained(scenario)
    for run in range(scenario.runs):
        alone = trained(scenario, runs=[run])
        assert same(alone.params, [together.params[run]])
        for one, all_runs in zip(alone.bank.evidence, together.bank.evidence, strict=True):
            assert (one.round, one.level, one.set) == (all_runs.round, all_runs.level, all_runs.set)
            assert np.array_equal(one.margin, all_runs.margin[all_runs.run == run])
        for own, every in zip(alone.bank.references, together.bank.references, strict=True):
            assert np.array_equal(own.less, every.less[every.run == run])


def test_an_empty_cohort_keeps_the_model_and_is_recorded() -> None:
    scenario = tiny(sampler={"kind": "poisson", "rate": 0.02}, observe={"every": 1, "levels": ["local", "global"]})
    result = trained(scenario)
    busy = {part.round for part in result.bank.participation}
    assert 0 < len(busy) < 4
    seen = {e.round: e for e in result.bank.evidence if e.level == "global" and e.set == "test"}
    assert set(seen) == set(range(5))
    assert {e.round for e in result.bank.evidence if e.level == "local"} == busy
    for round_number in range(1, 5):
        kept = np.array_equal(seen[round_number].margin, seen[round_number - 1].margin)
        assert kept == (round_number not in busy)
