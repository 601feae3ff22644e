from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import fisher_exact, mannwhitneyu

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.measurement import Level, Reading
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.statistics import benjamini_hochberg, rank_sum_exact
from fedmem.estimation.two_way import variance
from fedmem.estimation.views import views
from fedmem.estimators.cross_influence import CrossInfluence, _by_ranks, _by_tables
from tests.banks import coins, make_bank, make_view
from tests.narrowing import present


def probability(margin: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-margin))


def naive(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """By the definition, with loops: (m, n)."""
    found = np.empty((is_in.shape[1], values.shape[1]))
    for j, coin in enumerate(is_in.T):
        for i in range(values.shape[1]):
            found[j, i] = values[coin, i].mean() - values[~coin, i].mean()
    return found


def planted(
    runs: int = 16, m: int = 6, n: int = 12, effect: float = 0.0, seed: int = 0
) -> tuple[View, BoolArray, FloatArray]:
    """Example 0 helps test examples 0 to 2 and harms 3; the others do nothing."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    test = rng.normal(size=(runs, n)) + 0.3 * rng.normal(size=n)
    test[:, :3] += effect * (2 * is_in[:, :1] - 1)
    test[:, 3:4] -= effect * (2 * is_in[:, :1] - 1)
    view = make_view(np.zeros((runs, m)), is_in, kind=["a"] + ["b"] * (m - 1), test=test, round_number=None)
    return view, is_in, test


def readings(view: View, **fields: Any) -> dict[tuple[str, str, str], Reading]:
    found = CrossInfluence(**fields).tests(view)
    assert {run for run, _ in found} <= {None}
    return {(r.metric, r.subject, r.labels.text("statistic")): r for _, r in found}


def test_test_examples_gained_are_the_sum_of_influences() -> None:
    view, is_in, test = planted(effect=1.0)
    found = {(e.kind, e.labels.text("statistic")): e for e in CrossInfluence().estimate(view)}
    for statistic, values in (("", (test > 0).astype(float)), ("probability", probability(test))):
        influence = naive(values, is_in)
        for kind, rows in (("a", [0]), ("b", [1, 2, 3, 4, 5])):
            e = found[kind, statistic]
            np.testing.assert_allclose(present(e.per_example), influence[rows].sum(1))
            assert e.value == pytest.approx(influence[rows].sum(1).mean())
            assert (e.null, e.n, present(e.per_example_n).tolist()) == (0, len(rows), [16] * len(rows))
            # What would go wrong unnoticed: the sign, a mean over test examples, members only.
            assert not np.allclose(present(e.per_example), -influence[rows].sum(1))
            assert not np.allclose(present(e.per_example), influence[rows].mean(1))


def test_help_harm_and_the_strongest_are_those_of_the_loops() -> None:
    view, is_in, test = planted(effect=1.0)
    found = readings(view)
    for statistic, values in (("", (test > 0).astype(float)), ("probability", probability(test))):
        influence = naive(values, is_in)
        for j in range(6):
            help_, harm = (found[metric, str(j), statistic] for metric in ("cross_help", "cross_harm"))
            assert help_.value == pytest.approx(influence[j][influence[j] > 0].sum())
            assert harm.value == pytest.approx(influence[j][influence[j] < 0].sum())
            assert help_.n == 16
        assert found["cross_strongest", "b", statistic].value == pytest.approx(influence[1:].max(1).mean())
        assert found["cross_strongest", "b", statistic].n == 5
        rng = np.random.default_rng(3)
        shuffled = [naive(values, is_in[rng.permutation(16)])[1:].max(1).mean() for _ in range(200)]
        null = found["cross_strongest.null", "b", statistic].value
        assert null == pytest.approx(np.mean(shuffled), abs=4 * np.std(shuffled) / np.sqrt(100))
        assert null > 0.1  # noise alone is not at 0


def test_pairs_are_those_of_exact_tests_and_benjamini_hochberg() -> None:
    view, is_in, test = planted(runs=24, effect=1.5)
    found = readings(view, rate=0.1)
    for statistic, values in (("", (test > 0).astype(float)), ("probability", probability(test))):
        influence, p = naive(values, is_in), np.empty((6, 12))
        for j, coin in enumerate(is_in.T):
            for i, column in enumerate(values.T):
                inside, outside = column[coin], column[~coin]
                if statistic:
                    p[j, i] = mannwhitneyu(inside, outside, method="exact").pvalue
                else:
                    table = [[inside.sum(), 12 - inside.sum()], [outside.sum(), 12 - outside.sum()]]
                    p[j, i] = fisher_exact(np.array(table)).pvalue
        for kind, rows in (("a", slice(0, 1)), ("b", slice(1, 6))):
            good = benjamini_hochberg(p[rows].ravel(), 0.1).reshape(p[rows].shape)
            helped, harmed = (found[f"cross_pairs_{name}", kind, statistic] for name in ("helped", "harmed"))
            assert helped.value == (good & (influence[rows] > 0)).sum()
            assert harmed.value == (good & (influence[rows] < 0)).sum()
            assert helped.n == p[rows].size
    assert found["cross_pairs_helped", "a", "probability"].value == 3
    assert found["cross_pairs_harmed", "a", "probability"].value == 1
    assert found["cross_help_p", "a", "probability"].value < 0.02 < found["cross_help_p", "b", "probability"].value


@pytest.mark.parametrize(
    "values",
    [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 2, 2], [3, 3, 1, 4, 5, 6, 7, 8], [2] * 8],
)
def test_p_of_ranks_is_valid_with_ties_and_exact_without(values: list[int]) -> None:
    """Over all ways in which the coins could have fallen."""
    for chosen in (3, 4):
        coin = np.array([[i in some for i in range(8)] for some in combinations(range(8), chosen)]).T
        column = np.array(values, float)[:, None]
        p, side = (found[:, 0] for found in _by_ranks(coin, column))
        for level in np.unique(p):
            assert (p <= level).mean() <= level + 1e-12
        # The largest p of all orders that the ties allow: here tried one by one.
        noise = np.random.default_rng(0).normal(size=(8, 300)) * 1e-3
        broken = _by_ranks(coin, column + noise)[0]
        np.testing.assert_allclose(p, broken.max(1))
        for k in np.flatnonzero(p < 0.2):
            inside, outside = column[coin[:, k], 0], column[~coin[:, k], 0]
            u = mannwhitneyu(inside, outside).statistic
            assert side[k] == np.sign(u - chosen * (8 - chosen) / 2)
    # What was wrong: mid-ranks taken for ranks, rounded towards the middle.
    if values == [1, 1, 1, 1, 0, 0, 0, 0]:
        u = np.array([mannwhitneyu(column[c, 0], column[~c, 0]).statistic for c in coin.T])
        rounded = rank_sum_exact(8, 4)[np.where(u > 8, np.floor(u), np.ceil(u)).astype(int)]
        assert (rounded <= 0.35).mean() > 0.4


def test_side_of_a_pair_is_that_of_its_test_not_of_the_mean() -> None:
    coin = np.arange(16)[:, None] < 8
    values = np.append(np.arange(7) / 1e3, [10.0, *(1 + np.arange(8) / 1e3)])[:, None]
    p, side = _by_ranks(coin, values)
    assert values[:8].mean() > values[8:].mean()
    assert (p[0, 0] < 0.02, side[0, 0]) == (True, -1)
    right = np.repeat([1.0, 0.0], 8)[:, None]
    assert _by_tables(coin, right)[1] == 1
    assert _by_tables(~coin, right)[1] == -1
    assert _by_tables(coin, np.ones((16, 1)))[1] == 0


def test_too_few_examples_or_runs_have_no_interval() -> None:
    for runs, m, some in ((16, 6, False), (6, 12, False), (16, 13, True)):
        found = readings(planted(runs=runs, m=m)[0])
        for metric in ("cross_strongest", "cross_help", "cross_harm"):
            row = found[metric, "b", "probability"]
            assert (row.low <= row.value <= row.high) == some
            assert np.isnan(row.low) != some


def test_equal_models_have_no_influence_at_all() -> None:
    rng = np.random.default_rng(0)
    test = np.tile(rng.normal(size=20), (8, 1))
    view = make_view(np.zeros((8, 3)), coins(8, 3, rng), test=test, round_number=None)
    assert all(e.value == 0 and variance(e.influence) == 0 for e in CrossInfluence().estimate(view))
    for (metric, _, _), reading in readings(view).items():
        assert reading.value == (1.0 if metric.endswith("_p") else 0.0), metric


def test_runs_without_the_example_and_diverged_runs_do_not_count() -> None:
    view, is_in, test = planted(runs=20)
    margin, broken = view.margin.copy(), test.copy()
    margin[:4, :, 0] = np.nan
    broken[7] = np.nan
    seen = replace(
        make_view(margin[:, 0], is_in, kind=["a"] + ["b"] * 5, test=broken, round_number=None), margin=margin
    )
    rest = np.array([r for r in range(20) if r > 3 and r != 7])
    values = probability(test)[rest]
    expected = naive(values, is_in[rest])
    found = readings(seen)
    assert found["cross_help", "0", "probability"].value == pytest.approx(expected[0][expected[0] > 0].sum())
    assert found["cross_help", "0", "probability"].n == 15
    assert found["cross_help", "1", "probability"].n == 19
    e = next(e for e in CrossInfluence().estimate(seen) if (e.kind, e.labels.text("statistic")) == ("a", "probability"))
    assert e.value == pytest.approx(expected[0].sum())


def test_cross_influence_needs_the_summary_one_model_and_tests() -> None:
    view, is_in, _ = planted()
    for other in (
        replace(view, round=3),
        replace(view, place="others", level="local"),
        make_view(np.zeros((16, 6)), is_in, round_number=None),
    ):
        assert list(CrossInfluence().estimate(other)) == []
        assert list(CrossInfluence().tests(other)) == []


def test_each_example_is_read_at_the_last_round_of_its_owner() -> None:
    bank = make_bank(clients=5, cohort=3, rounds=(0, 1, 2, 3), seed=2)
    sample = permute_coins(bank.audit, 5, np.random.default_rng(0))
    shown = {(v.round, v.level, v.place): v for v in views(bank, sample)}
    blocks = {(e.round, e.level): e for e in bank.evidence if e.set == "test"}
    places: tuple[tuple[Level, str], ...] = (("global", ""), ("local", "owner"))
    for level, place in places:
        final, checked = shown[None, level, place], set()
        per_example = {
            int(j): value
            for e in CrossInfluence().estimate(final)
            if not e.labels
            for j, value in zip(present(e.examples), present(e.per_example), strict=True)
        }
        for j, value in per_example.items():
            owner = bank.audit.owner[j]
            last = max(r for r in (1, 2, 3) if owner in blocks[r, "local"].client)
            block = blocks[last, level]
            own = block.client == (owner if level == "local" else -1)
            right = np.zeros(8)
            right[block.run[own]] = block.correct[own].sum(1)
            coin = bank.audit.is_in[:, j]
            assert value == pytest.approx(right[coin].mean() - right[~coin].mean())
            checked.add(last)
        assert len(checked) > 1, "the bank should hold examples of different last rounds"


def test_permutation_p_is_never_below_one_in_its_permutations() -> None:
    """The coins as they fell are one of 201 orders, so an effect beyond all others is known to 1 in 201, not to 0."""
    for effect, metrics in ((20.0, ("cross_help", "cross_strongest")), (-20.0, ("cross_harm",))):
        view, _, _ = planted(effect=effect, n=4)
        found = readings(view)
        for metric in metrics:
            row = found[f"{metric}_p", "a", "probability"]
            assert row.value == pytest.approx(1 / 201)
            assert row.n == 200
