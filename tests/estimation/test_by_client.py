"""Estimates of each client against injections for each client, and against plain means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.estimation.by_client import estimates_by_client
from fedmem.estimation.estimates import estimate
from fedmem.estimation.two_way import quantile
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from tests.banks import make_bank
from tests.results.top_helpers import answers, bank, coins

CLIENTS, DEALS = 3, 60


def whole_cohort(**options: Any) -> Bank:
    """Three clients, all of them in every round, with nine examples of each kind."""
    return make_bank(clients=CLIENTS, cohort=CLIENTS, rounds=(0, 1), per_client=9, runs=16, **options)


def by_kind(made: Bank) -> Bank:
    """The same bank as if each client had an injection of its own."""
    names = [f"{kind} of {owner}" for kind, owner in zip(made.audit.kind, made.audit.owner, strict=True)]
    return replace(made, audit=replace(made.audit, kind=np.array(names)))


@pytest.mark.parametrize(
    ("estimator", "metric"), [(Memorisation(), "memorisation"), (Membership(attack=Lira()), "auc")]
)
def test_a_client_is_like_an_injection_for_it_alone(estimator: Any, metric: str) -> None:
    made = whole_cohort()
    rows = estimates_by_client(made, [estimator], metric, DEALS)
    expected = {}
    for found in estimate(by_kind(made), [estimator], DEALS):
        reading = found.reading
        if found.scope == "summary" and reading.labels.get("place") != "others" and "contrast" not in reading.labels:
            place = found.level, reading.subject, reading.labels.without("place"), reading.metric
            expected[place] = reading
    variants = {"memorisation": 2, "auc": 1}[metric]
    assert len(rows) == 2 * variants * CLIENTS * len(made.audit.kinds)
    for row in rows:
        key = row.level, f"{row.kind} of {row.client}", row.labels
        value, p = expected[*key, metric], expected[*key, f"{metric}.p"]
        assert (row.value, row.n) == (value.value, 9)
        np.testing.assert_allclose(row.interval, (value.low, value.high), rtol=1e-12)
        assert row.p == p.value
        assert row.null == expected[*key, f"{metric}.null"].value
        assert (row.tests, row.p_adjusted) == (CLIENTS, min(1.0, CLIENTS * row.p))


def test_values_are_plain_means_of_the_examples_of_a_client() -> None:
    is_in = coins(27)
    right = answers(is_in, [(j % 9, 8 - j % 5) for j in range(27)])
    made = bank(is_in, right, ~right, ["typical"] * 27)
    rows = estimates_by_client(made, [Memorisation()], "memorisation", DEALS)
    for level, table in (("global", right), ("local", ~right)):
        for client in range(CLIENTS):
            effects = [table[is_in[:, j], j].mean() - table[~is_in[:, j], j].mean() for j in range(client, 27, 3)]
            (row,) = (r for r in rows if (r.level, r.client) == (level, client) and "statistic" not in r.labels)
            assert row.value == pytest.approx(np.mean(effects))


def test_adjusted_intervals_are_wider_by_the_bonferroni_quantile() -> None:
    """On the scale of log odds, on which intervals between two bounds are taken."""
    rows = estimates_by_client(whole_cohort(), [Memorisation()], "memorisation", DEALS)
    ratio = quantile(8, 1 - 0.05 / CLIENTS) / quantile(8)
    compared = 0
    for row in rows:
        ends = np.array([row.interval, row.adjusted])
        if np.isfinite(ends).all():
            widths = np.diff(np.log((ends + 1) / (1 - ends)), axis=1)[:, 0]
            assert widths[1] / widths[0] == pytest.approx(ratio)
            compared += 1
    assert compared > 10


def test_few_examples_have_no_interval_and_unmeasured_no_value() -> None:
    """Client 2 was never observed; each client owns three examples."""
    is_in = coins(9)
    right = answers(is_in, [(6, 2)] * 9)
    made = bank(is_in, right, right, ["typical"] * 9)
    made = replace(made, evidence=tuple(part for part in made.evidence if 2 not in part.client))
    rows = estimates_by_client(made, [Memorisation()], "memorisation", DEALS)
    measured = {(row.level, row.client): row for row in rows if "statistic" not in row.labels}
    assert measured["local", 0].value == pytest.approx(0.5)
    assert all(map(math.isnan, (*measured["local", 0].interval, *measured["local", 0].adjusted)))
    assert measured["local", 0].p < 0.05
    assert measured["local", 2].n == 0
    assert math.isnan(measured["local", 2].value)
    assert {row.tests for row in rows} == {3}


def test_exposure_counts_the_canaries_of_a_client() -> None:
    made = whole_cohort()
    rows = estimates_by_client(made, [Exposure()], "exposure", DEALS)
    assert {(row.kind, row.n) for row in rows} == {("random_pattern", 9)}
    assert len(rows) == 2 * CLIENTS


@dataclass(frozen=True, kw_only=True)
class Everybody:
    """A measure of all examples of a kind, of any owning client."""

    measures: ClassVar[tuple[Measure, ...]] = (Measure(name="everybody", title="everybody", means="All."),)

    def estimate(self, view: View) -> Sequence[Estimate]:
        m = len(view.audit)
        influence = Influence(examples=np.ones(m), cells=np.ones((view.audit.runs, m)))
        return [Estimate(metric="everybody", kind=view.audit.kinds[0], value=1.0, influence=influence, null=0.0, n=m)]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        return ()


def test_a_measure_of_other_examples_has_no_rows() -> None:
    assert estimates_by_client(whole_cohort(), [Everybody()], "everybody", DEALS) == []
