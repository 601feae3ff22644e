"""Tests of `fedmem/probes/_active.py`: who is asked, the AUC, its interval and its p."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.probes._active import area_with_interval, areas_of, p_of_area
from tests.probes.dishonest_helpers import measured

OWNERS = np.arange(6) % 3


def drawn(shift: float, rng: np.random.Generator, runs: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores (R, 6) of examples of different difficulty, with members higher by a shift."""
    is_in = rng.permuted(np.tile(np.arange(runs) < runs // 2, (6, 1)), axis=1).T
    return rng.standard_normal((runs, 6)) + rng.standard_normal(6) + shift * is_in, is_in


def test_the_area_is_the_share_of_pairs_that_are_won() -> None:
    scores = np.array([[3.0, 1.0], [2.0, np.nan]])
    value, low, high = area_with_interval(scores, np.array([[True, False], [False, True]]), np.array([0, 1]))
    assert value == 1.0, "the only pair of two examples is won"
    assert 0.0 <= low < 1.0 == high
    assert np.isnan(area_with_interval(scores, np.ones((2, 2), bool), np.array([0, 1]))).all()
    assert np.isnan(p_of_area(scores, np.ones((2, 2), bool), np.random.default_rng(0)))


def test_without_an_effect_p_is_uniform_and_intervals_cover() -> None:
    rng, ps, covered = np.random.default_rng(0), [], []
    for _ in range(200):
        scores, is_in = drawn(0.0, rng)
        ps.append(p_of_area(scores, is_in, rng, deals=99))
        _, low, high = area_with_interval(scores, is_in, OWNERS)
        covered.append(low <= 0.5 <= high)
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.09
    assert np.mean(ps) == pytest.approx(0.5, abs=0.1)
    assert np.mean(covered) >= 0.9


def test_members_that_score_higher_have_a_small_p() -> None:
    scores, is_in = drawn(3.0, np.random.default_rng(1))
    value, low, high = area_with_interval(scores, is_in, OWNERS)
    assert 0.5 < low < value < high <= 1.0
    assert p_of_area(scores, is_in, np.random.default_rng(0)) == pytest.approx(0.002)
    assert area_with_interval(-scores, is_in, OWNERS)[0] == pytest.approx(1 - value)
    assert p_of_area(np.zeros(scores.shape), is_in, np.random.default_rng(0)) == 1.0


def test_scores_of_an_example_are_averaged_over_rounds() -> None:
    def row(run: int, round_number: int, subject: int, value: float, coin: str | None) -> Measurement:
        labels = Labels.of(owner=subject, kind="typical", coin=coin, place="owner")
        reading = Reading(metric="activation", value=value, subject=str(subject), labels=labels)
        return Measurement(run=run, round=round_number, level="local", client=0, source="x", reading=reading)

    rows = [row(0, 1, 0, 1.0, None), row(0, 2, 0, 0.0, None), row(1, 1, 1, 0.4, "out"), row(1, 2, 1, 0.4, "out")]
    found = {(each.round, each.reading.metric): each.reading for each in areas_of(rows, 0)}
    areas = {place: reading.value for (place, metric), reading in found.items() if metric == "active_auc"}
    assert areas == {1: 1.0, 2: 0.0, None: 1.0}
    assert found[None, "active_auc"].n == 2
    assert found[None, "active_auc"].labels == Labels.of(place="owner", statistic="activation")


def test_examples_in_and_out_are_asked_about_alike() -> None:
    probe = {"kind": "activation_membership", "runs": 4, "victims": 4, "max_examples": 2}
    rows = [row for row in measured(probe) if row.run is not None]
    asked = {(row.run, row.reading.labels.get("owner"), row.reading.subject) for row in rows}
    assert len(asked) == 4 * 4 * 2
    assert {row.reading.labels.get("coin") for row in rows} == {None, "out"}
    for row in rows:
        is_owner = row.client == row.reading.labels.get("owner")
        assert row.reading.labels.get("place") == ("owner" if is_owner else "others")
    assert len(rows) == 2 * len(asked)
    alone = [row for row in measured({**probe, "others": False}) if row.run is not None]
    assert {row.reading.labels.get("place") for row in alone} == {"owner"}
