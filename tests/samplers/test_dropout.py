"""Tests of `fedmem/samplers/dropout.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation.build import build
from fedmem.federation.roster import Roster
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.uniform import Uniform
from tests.narrowing import present
from tests.samplers.guided_helpers import counts, known
from tests.samplers.samplers_helpers import agree
from tests.tiny import tiny


def test_dropout_loses_each_with_its_rate() -> None:
    history = known([5] * 6)
    assert agree(counts(Dropout(rate=0.3), history), 4000, [0.7] * 6)
    assert agree(counts(Dropout(sampler=Uniform(size=2), rate=0.3), history), 4000, [0.7 / 3] * 6)
    for seed in range(20):
        plain, same = (
            sampler.cohort(1, history, np.random.default_rng(seed)).tolist()
            for sampler in (Uniform(size=2), Dropout(sampler=Uniform(size=2), rate=0.0))
        )
        assert plain == same


@pytest.mark.parametrize("concentration", [0.5, 2.0, 20.0])
def test_rates_follow_the_beta_law_and_stay_with_their_clients(concentration: float) -> None:
    lots = np.random.default_rng(0).random(4000)
    history = replace(History.start([5] * 4000, uniforms=lots), last_round=np.arange(4000))
    sampler = Dropout(rate=0.3, concentration=concentration)
    rates = 1 - present(sampler.probabilities(1, history))
    assert rates.mean() == pytest.approx(0.3, abs=0.02)
    assert rates.var() == pytest.approx(0.3 * 0.7 / (concentration + 1), rel=0.1)
    np.testing.assert_array_equal(1 - present(sampler.probabilities(9, history)), rates)
    assert np.corrcoef(rates, lots)[0, 1] > 0.8


def test_dropout_reports_errors_of_its_inner_sampler_by_path() -> None:
    with pytest.raises(ComponentError) as caught:
        Dropout(sampler=Cyclic(size=9)).cohort(1, known(), np.random.default_rng(0))
    assert caught.value.path == "sampler.sampler.size"
    with pytest.raises(ScenarioError, match=r"sampler\.sampler\.size: a cohort of 9 cannot be drawn from 5 clients"):
        tiny(sampler={"kind": "dropout", "sampler": {"kind": "uniform", "size": 9}})
    with pytest.raises(ScenarioError, match=r"sampler\.sampler\.separation"):
        tiny(sampler={"kind": "dropout", "sampler": {"kind": "min_separation", "size": 2, "separation": 4}})


def test_dropout_passes_on_who_can_be_reached() -> None:
    inner = {"kind": "availability", "size": 2, "arrive": 0.3, "leave": 0.3}
    plain, wrapped = (
        [Roster(asked, build(asked), 0).cohort(round_number) for round_number in range(1, 30)]
        for asked in (tiny(sampler=inner), tiny(sampler={"kind": "dropout", "sampler": inner, "rate": 0.0}))
    )
    assert plain == wrapped
    assert any(len(cohort) < 2 for cohort in plain)
