"""Tests of `fedmem/reporting/multiplicity.py`: a verdict about a kind holds its level, and finds what is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.measure import Showing
from fedmem.contracts.measurement import Level
from fedmem.estimation.estimates import estimate
from fedmem.estimation.statistics import holm
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.reporting.multiplicity import adjust, p_of_interval
from fedmem.reporting.verdict import verdict_of
from fedmem.results.run_summary import Finding, Measured
from tests.calibration import Law, bank
from tests.reporting.verdict_helpers import finding, kind, measured

ESTIMATORS = (Memorisation(), Exposure(), Membership(attack=Lira()), Membership(attack=LossThreshold()))


def test_holm_equals_its_definition() -> None:
    """Step down: the k-th smallest of m is compared with alpha / (m + 1 - k), until one is larger."""
    p_values = [0.011, 0.02, 0.04, 0.0001, 0.3]
    for alpha in (0.001, 0.03, 0.05, 0.06, 0.2):
        rejected = []
        for place, p in enumerate(sorted(p_values)):
            if p > alpha / (len(p_values) - place):
                break
            rejected.append(p)
        assert [p for p, adjusted in zip(p_values, holm(p_values), strict=True) if adjusted <= alpha] == [
            p for p in p_values if p in rejected
        ]


def values(findings: Iterator[Finding], level: Level = "local") -> list[Measured]:
    return [value for one in findings if (value := one.at(level)) is not None]


def test_all_measures_of_a_kind_and_level_are_one_family() -> None:
    findings = [
        finding("memorised", measured(0.9, p=0.01), measured(0.9, p=0.04)),
        finding("exposed", measured(6.0, p=0.04), None),
        finding("detectable", measured(0.9, p=0.02), None),
    ]
    adjusted = values(adjust(findings))
    assert [(value.p_adjusted, value.num_tests) for value in adjusted] == [
        (pytest.approx(0.015), 3),
        (0.04, 3),
        (0.02, 3),
    ], "Holm of one side, and no less than the two-sided p"
    assert [value.p for value in adjusted] == [0.01, 0.04, 0.02], "what was measured stays"
    (alone,) = values(adjust(findings), "global")
    assert (alone.p_adjusted, alone.num_tests, alone.state) == (0.04, 1, "significant")


def test_a_value_without_a_test_costs_nothing() -> None:
    nothing = Measured(value=math.nan, low=math.nan, high=math.nan, n=0, keys=())
    findings = [finding("memorised", measured(0.9, p=0.04), None), finding("exposed", nothing, None)]
    first, second = values(adjust(findings))
    assert (first.state, first.num_tests, second.state) == ("significant", 1, "undefined")


def test_a_measure_without_p_is_tested_by_its_interval() -> None:
    (alone,) = values(adjust([finding("memorised", measured(0.5, 0.499, p=math.nan), None)]))
    assert (alone.state, math.isnan(alone.p_adjusted)) == ("significant", True)
    two = [finding("memorised", measured(0.5, 0.499, p=math.nan), None), finding("detectable", measured(0.5), None)]
    first, _ = values(adjust(two))
    assert first.p_adjusted == pytest.approx(p_of_interval(first))
    assert 0.045 < p_of_interval(first) <= 0.05
    assert p_of_interval(replace(first, value=-0.5, low=-0.999, high=-0.001)) == pytest.approx(p_of_interval(first))


@pytest.mark.parametrize(("smallest_p", "state"), [(1 / 252, "significant"), (1 / 70, "undefined")])
def test_examples_of_all_measures_are_one_family(smallest_p: float, state: str) -> None:
    """Two measures of three examples are six tests; with eight runs none of them could be significant."""
    few = replace(measured(9.0), low=math.nan, high=math.nan, examples=1, p_of_examples=(0.004, 0.3, 0.4))
    findings = [finding("exposed", few, None), finding("memorised", replace(few, p_of_examples=(0.02, 0.3, 0.4)), None)]
    first, second = values(adjust(findings, smallest_p))
    assert first.state == state
    if state == "significant":
        assert (first.examples, first.num_tests, second.examples) == (1, 6, 0)


@pytest.mark.parametrize(("p", "state"), [(0.2, "not significant"), (0.002, "significant")])
def test_retention_inherits_the_state_of_its_numerator(p: float, state: str) -> None:
    retained = measured(0.5, p=math.nan)
    (found,) = adjust([finding("memorised", measured(0.9), measured(0.4, p=p), retained)])
    assert found.retention is not None
    assert found.retention.state == state


def shown_of(scores: Any) -> tuple[bool, bool]:
    """Whether a verdict shows anything of a kind with four measures of these normal scores, adjusted and as they are.

    A value is its score, with an interval of 1.96 standard errors, and has the two-sided p of its score.
    """
    shows: tuple[Showing, ...] = ("memorised", "memorised", "detectable", "detectable")
    plain = []
    for name, score in zip(shows, scores.tolist(), strict=True):
        one = finding(name, measured(score, 1.96, p=2 * float(ndtr(-abs(score)))), None)
        assert one.local is not None
        plain.append(replace(one, local=replace(one.local, null=0.0)))
    verdicts = [verdict_of("local", [kind("k", *findings)]) for findings in (tuple(adjust(plain)), tuple(plain))]
    adjusted, unadjusted = (bool(verdict.memorised + verdict.detectable) for verdict in verdicts)
    return adjusted, unadjusted


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_a_verdict_is_wrong_in_at_most_one_of_twenty(correlation: float) -> None:
    """Four measures without any effect, 2000 times: an error of 0.5 %. Not adjusted, it is wrong more often."""
    rng = np.random.default_rng(3)
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 4))
    scores = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    alarms = np.mean([shown_of(score) for score in scores], axis=0)
    assert alarms[0] < 0.06
    assert alarms[1] > (0.085 if correlation == 0 else 0.055)
    if correlation == 0:
        assert alarms[0] > 0.035, "no stricter than that asks for"


def test_one_measure_of_four_is_enough() -> None:
    """An effect of four standard errors that one measure alone sees is found nearly as often as by that measure."""
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(500, 4)) + np.array([0.0, 4.0, 0.0, 0.0])
    found = np.mean([shown_of(score)[0] for score in scores])
    alone = (scores[:, 1] > 1.96).mean()
    assert alone - found < 0.07
    assert found > 0.9


def findings_of_bank(law: Law, runs: int, seed: int) -> dict[Level, list[Finding]]:
    """All measures of one kind of a simulated bank, at each level."""
    facts: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in estimate(bank(law, runs=runs, examples=24, seed=seed), ESTIMATORS, 199):
        reading = row.reading
        name, _, part = reading.metric.partition(".")
        if row.round is None and reading.subject == "random_pattern" and reading.labels.get("place") != "others":
            if part not in ("", "null", "p"):
                continue
            fact = facts.setdefault((row.level, name, reading.labels), {})
            if part:
                fact[part] = reading.value
            else:
                fact.update(value=reading.value, low=reading.low, high=reading.high, n=reading.n)
    shows: dict[str, Any] = {"memorisation": "memorised", "exposure": "exposed", "auc": "detectable"}
    found: dict[Level, list[Finding]] = {"local": [], "global": []}
    for (level, name, _), fact in facts.items():
        if name in shows:
            value = Measured(keys=(), **fact)
            one = finding(shows[name], value, value)
            found[level].append(replace(one, local=value, aggregate=value))
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("runs", [8, 16])
@pytest.mark.parametrize("name", ["null", "ties", "weak"])
def test_verdicts_of_simulated_banks_hold_their_level(name: str, runs: int) -> None:
    law = {"null": Law(), "ties": Law(shared=0.5, ties=0.5), "weak": Law(effect=0.5, own=0.5)}[name]
    banks, alarms, unadjusted, of_first = 300, [], [], []
    for seed in range(banks):
        for level, findings in findings_of_bank(law, runs, seed).items():
            assert len(findings) == 5
            verdicts = [verdict_of(level, [kind("k", *some)]) for some in (tuple(adjust(findings)), tuple(findings))]
            shown = [bool(verdict.memorised + verdict.detectable) for verdict in verdicts]
            alarms.append(shown[0])
            unadjusted.append(shown[1])
            first = findings[0].at(level)
            of_first.append(first is not None and first.state == "significant")
    rates = [float(np.mean(each)) for each in (alarms, unadjusted, of_first)]
    print(f"\n{name}, {runs} runs: verdict {rates[0]:.3f}, not adjusted {rates[1]:.3f}, first measure {rates[2]:.3f}")
    if name == "weak":
        assert rates[0] >= rates[2] - 0.02, "more measures find no less than right answers alone"
    else:
        assert rates[0] <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / banks)
