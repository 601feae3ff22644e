from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.rmia import Rmia
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measurement import FINAL
from fedmem.estimation.statistics import newcombe
from fedmem.estimation.two_way import variance
from fedmem.estimators.exposure import Exposure, null_mean
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_view
from tests.labelling import labels
from tests.narrowing import present


def by_key(estimates: Sequence[Estimate]) -> dict[tuple[str, str, str], Estimate]:
    return {(e.metric, " ".join(e.labels.words()), e.kind): e for e in estimates}


# Memorisation


def self_influence(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """By the definition, with loops; (m,)."""
    return np.array([values[c, j].mean() - values[~c, j].mean() for j, c in enumerate(is_in.T)])


def test_memorisation_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    is_in, margin = coins(8, 6, rng), rng.normal(size=(8, 6))
    kinds = ["a"] * 2 + ["b"] * 4
    found = by_key(Memorisation().estimate(make_view(margin, is_in, kind=kinds)))
    assert set(found) == {("memorisation", s, k) for s in ("", "probability") for k in "ab"}
    for setting, values in (("", (margin > 0).astype(float)), ("probability", 1 / (1 + np.exp(-margin)))):
        expected = self_influence(values, is_in)
        for kind, rows in (("a", [0, 1]), ("b", [2, 3, 4, 5])):
            e = found["memorisation", setting, kind]
            np.testing.assert_allclose(present(e.per_example), expected[rows])
            np.testing.assert_allclose(e.value, expected[rows].mean())
            assert (e.n, e.null, present(e.examples).tolist(), present(e.per_example_n).tolist()) == (
                len(rows),
                0,
                rows,
                [8] * len(rows),
            )


def test_memorisation_of_constant_and_lookup_learners() -> None:
    rng = np.random.default_rng(1)
    runs, m, classes = 200, 50, 10
    is_in = coins(runs, m, rng)
    constant = make_view(np.tile(rng.normal(size=m), (runs, 1)), is_in)
    assert all(e.value == 0 and variance(e.influence) < 1e-30 for e in Memorisation().estimate(constant))
    # A lookup table knows what it saw and answers at random otherwise: 1 - 1/C of a label without meaning.
    guess = rng.random((runs, m)) < 1 / classes
    table = make_view(np.zeros((runs, m)), is_in, correct=(is_in | guess).astype(float))
    assert abs(Memorisation().estimate(table)[0].value - (1 - 1 / classes)) < 0.02
    # A duplicate that is always there answers for an example that is out.
    assert Memorisation().estimate(make_view(np.zeros((runs, m)), is_in, correct=np.ones((runs, m))))[0].value == 0


def test_memorisation_bounds_single_examples_by_newcombe_on_correctness() -> None:
    is_in = np.arange(8)[:, None] < np.array([4, 4])
    margin = np.where(is_in, 1.0, -1.0)
    margin[0, 1] = -1.0
    correctness, probability = Memorisation().estimate(make_view(margin, is_in))
    low, high = newcombe([4, 3], 4, [0, 0], 4)
    np.testing.assert_allclose(present(correctness.per_example_low), low)
    np.testing.assert_allclose(present(correctness.per_example_high), high)
    assert probability.per_example_low is None


def test_memorisation_leaves_out_what_was_not_observed() -> None:
    rng = np.random.default_rng(2)
    is_in, margin = coins(8, 4, rng), rng.normal(size=(8, 4))
    margin[:, 0] = np.nan  # never observed
    margin[is_in[:, 1], 1] = np.nan  # never observed as a member
    margin[np.flatnonzero(is_in[:, 2])[0], 2] = np.nan  # one run missing
    e = Memorisation().estimate(make_view(margin, is_in))[0]
    assert present(e.examples).tolist() == [2, 3]
    assert e.n == 2
    assert present(e.per_example_n).tolist() == [7, 8]
    assert Memorisation().estimate(make_view(np.full((8, 4), np.nan), is_in)) == []


def test_memorisation_averages_over_models() -> None:
    rng = np.random.default_rng(3)
    is_in, margin = coins(8, 3, rng), rng.normal(size=(8, 4, 3))
    margin[:, 1, 0] = np.nan
    values = np.nanmean(np.where(np.isnan(margin), np.nan, margin > 0), axis=1)
    e = Memorisation().estimate(make_view(margin, is_in))[0]
    np.testing.assert_allclose(present(e.per_example), self_influence(values, is_in))


# Exposure


@pytest.mark.parametrize(("references", "expected"), [(10, 1.16), (100, 1.40), (1000, 1.436), (10_000, 1.442)])
def test_null_mean_is_the_mean_over_ranks(references: int, expected: float) -> None:
    ranks = np.arange(1, references + 2)
    exact = np.log2((references + 1) / ranks).mean()
    assert null_mean(references) == pytest.approx(exact, rel=1e-9)
    assert null_mean(references) == pytest.approx(expected, abs=0.005)


def exposure_view(rank: NDArray[Any], is_in: BoolArray, references: int = 9, **more: Any) -> View:
    return make_view(np.zeros(is_in.shape), is_in, rank=np.asarray(rank, float), references=references, **more)


def test_exposure_of_planted_ranks() -> None:
    is_in = np.array([[True, True], [True, False], [False, True], [False, False]])
    rank = np.array([[1, 10], [2, 5], [10, 5], [5, 10]])  # among 9 references: from first to last
    found = by_key(Exposure().estimate(exposure_view(rank, is_in)))
    exposure, gain = found["exposure", "", "random_pattern"], found["exposure_gain", "", "random_pattern"]
    bits = np.log2(10 / rank)
    assert bits.min() == 0  # last of N + 1: zero, not below
    np.testing.assert_allclose(
        present(exposure.per_example), [(bits[0, 0] + bits[1, 0]) / 2, (bits[0, 1] + bits[2, 1]) / 2]
    )
    assert exposure.value == pytest.approx(present(exposure.per_example).mean())
    np.testing.assert_allclose(
        present(gain.per_example),
        present(exposure.per_example) - [(bits[2, 0] + bits[3, 0]) / 2, (bits[1, 1] + bits[3, 1]) / 2],
    )
    assert exposure.null == pytest.approx(null_mean(9))
    assert gain.null == 0
    assert present(exposure.per_example_n).tolist() == [2, 2]
    assert present(gain.per_example_n).tolist() == [4, 4]


def test_exposure_of_a_canary_that_ties_with_everything() -> None:
    # rank 1 + 9/2 of ten places: below the null, not at the top
    is_in = np.array([[True], [False]])
    e = Exposure().estimate(exposure_view(np.full((2, 1), 5.5), is_in))[0]
    assert e.value == pytest.approx(math.log2(10 / 5.5))
    assert e.value < e.null


def test_exposure_needs_no_out_run_but_its_gain_does() -> None:
    is_in = np.ones((1, 3), bool)
    assert [e.metric for e in Exposure().estimate(exposure_view(np.ones((1, 3)), is_in))] == ["exposure"]


def test_exposure_of_what_is_no_canary_does_not_exist() -> None:
    is_in = coins(4, 3, np.random.default_rng(0))
    view = make_view(np.zeros((4, 3)), is_in)
    assert Exposure().estimate(view) == []
    assert Exposure().tests(view) == []


def test_combined_test_is_fishers_by_run_and_over_in_canaries() -> None:
    is_in = np.array([[True, True, False], [False, False, True], [False, False, False]])
    rank = np.array([[1, 2, 1], [1, 1, 4], [1, 1, 1]])
    rows = Exposure().tests(exposure_view(rank, is_in))
    p = {run: r for run, r in rows if r.metric == "exposure_p"}
    assert set(p) == {0, 1}  # a run without an in canary is not tested
    assert p[0].value == pytest.approx(chi2.sf(2 * math.log(2) * (math.log2(10) + math.log2(5)), 4))
    assert p[1].value == pytest.approx(10**-1 * 4)  # one canary: its rank over N + 1
    assert (p[0].n, p[1].n) == (2, 1)
    (rejected,) = [r for run, r in rows if run == -1]
    assert (rejected.metric, rejected.value, rejected.n) == ("exposure_rejected", 0.0, 2)
    assert math.isnan(rejected.low)


def test_no_combined_test_at_the_others() -> None:
    is_in = np.array([[True], [False]])
    view = exposure_view(np.ones((2, 1)), is_in, level="local", place="others")
    assert Exposure().tests(view) == ()


# Membership


def test_membership_gives_auc_and_tpr_of_a_kind() -> None:
    rng = np.random.default_rng(5)
    is_in = coins(8, 20, rng)
    margin = rng.normal(size=(8, 20)) + 3 * is_in
    view = make_view(margin, is_in, kind=["a"] * 10 + ["b"] * 10)
    found = by_key(Membership(attack=Lira()).estimate(view))
    assert set(found) == {(m, s, k) for m, s in (("auc", "lira"), ("tpr", "lira fpr=0.25")) for k in "ab"}
    auc = found["auc", "lira", "a"]
    assert auc.value > 0.9
    assert (auc.n, auc.per_example) == (10, None)
    assert auc.null == pytest.approx(0.5, abs=0.05)
    assert math.isnan(auc.p), "p is given at FINAL"
    assert auc.bounds == (0.0, 1.0)
    assert found["tpr", "lira fpr=0.25", "a"].null == 11 / 41, "the eleventh of 40 outs is the threshold"


def test_no_tpr_below_ten_outs() -> None:
    rng = np.random.default_rng(6)
    for m, expected in ((2, ["auc"]), (3, ["auc", "tpr"])):  # 8 or 12 outs
        is_in = coins(8, m, rng)
        found = Membership(attack=LossThreshold()).estimate(make_view(rng.normal(size=(8, m)), is_in))
        assert [e.metric for e in found] == expected


def test_rates_are_told_at_the_usual_ones_and_the_smallest() -> None:
    rng = np.random.default_rng(8)
    is_in = coins(16, 150, rng)  # 1200 outs
    view = make_view(rng.normal(size=(16, 150)) + is_in, is_in)
    found = by_key(Membership(attack=LossThreshold()).estimate(view))
    told = {e.labels.get("fpr"): e for (metric, _, _), e in found.items() if metric == "tpr"}
    assert list(told) == [0.1, 0.01, 0.008333]
    assert [e.null for e in told.values()] == [121 / 1201, 13 / 1201, 11 / 1201]
    assert told[0.1].value > told[0.01].value > told[0.008333].value > 0


def test_the_null_of_lira_is_that_of_redealt_coins_and_of_a_threshold_one_half() -> None:
    """Examples and runs that differ make LiRA's AUC less than a half with few runs, whatever was trained on."""
    rng = np.random.default_rng(9)
    nulls, values = [], []
    for _ in range(60):
        is_in = coins(8, 30, rng)
        margin = np.exp(rng.normal(size=30)) * rng.normal(size=(8, 30)) + 2 * rng.normal(size=(8, 1))
        view = make_view(margin, is_in, draws=20, round_number=FINAL)
        lira = Membership(attack=Lira()).estimate(view)[0]
        nulls.append(lira.null)
        values.append(lira.value)
        assert Membership(attack=LossThreshold()).estimate(view)[0].null == 0.5
        assert 0 < lira.p <= 1
        assert lira.redeals == 20
    assert np.mean(nulls) < 0.5 - 3 * np.std(nulls) / math.sqrt(60)
    assert abs(np.mean(values) - np.mean(nulls)) < 3 * np.std(np.subtract(values, nulls)) / math.sqrt(60)


def test_p_finds_members_by_any_attack_and_is_told_at_the_summary_only() -> None:
    rng = np.random.default_rng(10)
    is_in = coins(8, 20, rng)
    margin = rng.normal(size=(8, 20)) + 3 * is_in
    for attack in (Lira(), LossThreshold()):
        for round_number, some in ((FINAL, True), (3, False)):
            view = make_view(margin, is_in, draws=99, round_number=round_number)
            p = Membership(attack=attack).estimate(view)[0].p
            assert (p <= 0.05) == some
            assert math.isnan(p) != some
    others = make_view(margin, is_in, draws=99, round_number=FINAL, level="local", place="others")
    assert math.isnan(Membership(attack=Lira()).estimate(others)[0].p)


def test_p_of_memorisation_and_exposure_agree_with_what_is_planted() -> None:
    rng = np.random.default_rng(11)
    is_in = coins(8, 20, rng)
    for effect in (0.0, 3.0):
        margin = rng.normal(size=(8, 20)) + effect * is_in
        rank = 1 + np.floor(100 * norm.cdf(-margin))
        view = make_view(margin, is_in, rank=rank, references=100, draws=99, round_number=FINAL)
        found = [*Memorisation().estimate(view), *Exposure().estimate(view)]
        assert [(e.p <= 0.05) == bool(effect) for e in found] == [True] * 4
        assert all(e.redeals == 99 for e in found)


def test_membership_without_members_or_non_members_does_not_exist() -> None:
    margin = np.zeros((4, 3))
    for side in (True, False):
        assert Membership(attack=LossThreshold()).estimate(make_view(margin, np.full((4, 3), side))) == []


def test_an_attack_sees_one_kind_at_a_time_and_one_model_at_a_time() -> None:
    shapes = []

    @dataclass(frozen=True, kw_only=True)
    class Spy:
        knows: ClassVar[str] = "nothing"

        def scores(self, signals: Signals) -> FloatArray:
            shapes.append(signals.margin.shape)
            return signals.margin

    is_in = coins(4, 5, np.random.default_rng(0))
    margin = np.random.default_rng(1).normal(size=(4, 3, 5))
    found = Membership(attack=Spy()).estimate(make_view(margin, is_in, kind=["a"] * 2 + ["b"] * 3))
    assert shapes[:3] == [(4, 2)] * 3
    assert shapes[-3:] == [(4, 3)] * 3
    # and again under re-dealt coins, kind by kind
    assert shapes == sorted(shapes)
    assert set(shapes) == {(4, 2), (4, 3)}
    averaged = Membership(attack=Spy()).estimate(make_view(margin.mean(1), is_in, kind=["a"] * 2 + ["b"] * 3))
    assert [e.value for e in found] == pytest.approx([e.value for e in averaged])


def test_labels_name_the_attack_and_what_is_not_default() -> None:
    rng = np.random.default_rng(7)
    view = make_view(rng.normal(size=(8, 2)), coins(8, 2, rng))
    assert Membership(attack=Lira(variance="per_example")).estimate(view)[0].labels == labels(
        "attack=lira options=variance=per_example"
    )
    assert Membership(attack=Lira(variance="auto")).estimate(view)[0].labels == labels("attack=lira")


def test_min_runs_comes_from_the_attack() -> None:
    assert Membership(attack=Lira()).min_runs == 8
    assert Membership(attack=LossThreshold()).min_runs == 2
    assert [Membership(attack=Rmia(mode=mode)).min_runs for mode in ("online", "offline")] == [4, 8]


def test_exposure_is_a_mean_of_bits_over_runs_models_and_canaries() -> None:
    """Of ranks 1 and 16 among 15 references: 4 bits and 0 are 2 bits, not the 0.9 bits of their mean rank."""
    is_in = np.array([[True, True], [True, True], [False, False], [False, False]])
    over_runs = exposure_view(np.array([[1, 1], [16, 16], [4, 4], [4, 4]]), is_in, references=15)
    over_canaries = exposure_view(np.array([[1, 16], [1, 16], [4, 4], [4, 4]]), is_in, references=15)
    ranks = np.array([[[1, 1], [16, 16]]] * 2 + [[[4, 4], [4, 4]]] * 2, float)  # of two other clients
    over_models = make_view(np.zeros((4, 2, 2)), is_in, rank=ranks, references=15, level="local", place="others")
    for view in (over_runs, over_canaries, over_models):
        found = by_key(Exposure().estimate(view))
        assert found["exposure", "", "random_pattern"].value == pytest.approx(2.0)
        assert found["exposure_gain", "", "random_pattern"].value == pytest.approx(0.0)


def test_the_smallest_rate_has_ten_false_positives_of_those_that_are_seen() -> None:
    """Of ten examples, outs are seen in 4 runs and ins in 8: ten of 40 outs, not of 80 ins, are a quarter."""
    is_in = np.repeat(np.arange(16)[:, None] < 8, 10, axis=1)
    margin = np.random.default_rng(11).normal(size=(16, 10))
    margin[12:] = np.nan
    found = by_key(Membership(attack=LossThreshold()).estimate(make_view(margin, is_in)))
    (words,) = [words for metric, words, _ in found if metric == "tpr"]
    assert words == "loss_threshold fpr=0.25"


def test_a_model_without_a_number_is_not_seen() -> None:
    """A run that has diverged changes no estimate: neither as a wrong answer nor as an unlikely one."""
    rng = np.random.default_rng(12)
    is_in, margin = coins(8, 6, rng), rng.normal(size=(8, 6))
    whole = by_key(Memorisation().estimate(make_view(margin, is_in)))
    more_in, more = np.vstack([is_in, is_in[:2], ~is_in[:2]]), np.vstack([margin, np.full((4, 6), np.nan)])
    found = by_key(Memorisation().estimate(make_view(more, more_in)))
    for key, e in whole.items():
        assert found[key].value == pytest.approx(e.value)
        np.testing.assert_allclose(present(found[key].per_example), present(e.per_example))
        assert present(found[key].per_example_n).tolist() == [8] * 6
