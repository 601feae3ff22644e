from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.estimator import Estimate, Estimator, Influence, View
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Labels, Level, Measurement, Reading
from fedmem.errors import ComponentError
from fedmem.estimation.estimates import estimate
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.statistics import newcombe
from fedmem.estimation.two_way import combine, interval, ratio_interval
from fedmem.estimation.views import views
from fedmem.estimators.cross_influence import CrossInfluence
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.exposure_skewnormal import ExposureSkewnormal
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.guards.guarding import PartError
from fedmem.seeding import stream
from tests.banks import make_bank
from tests.labelling import labels
from tests.narrowing import present

ALL = (Memorisation(), Exposure(), Membership(attack=Lira()), Membership(attack=LossThreshold()))


ESTIMATORS: dict[tuple[str, str], Estimator] = {
    ("memorisation", "statistic=probability"): ALL[0],
    ("exposure", ""): ALL[1],
    ("auc", "attack=lira"): ALL[2],
    ("auc", "attack=loss_threshold"): ALL[3],
}


def pick(
    rows: Sequence[Measurement],
    metric: str,
    subject: str,
    about: str,
    round_number: int | None = None,
    level: Level = "global",
    run: int | None = None,
) -> Reading:
    (found,) = [
        r.reading
        for r in rows
        if (r.reading.metric, r.reading.subject, r.reading.labels, r.round, r.level, r.run)
        == (metric, subject, labels(about), round_number, level, run)
    ]
    return found


def at(place: str) -> str:
    """A place as a label."""
    return f"place={place}" if place else ""


def estimates_at(
    bank: Bank, round_number: int | None, level: Level, place: str, estimator: Estimator, draws: int
) -> tuple[View, dict[tuple[str, Labels], Estimate]]:
    redeals = permute_coins(bank.audit, draws, stream(bank.seed, "redeals"))
    (view,) = [v for v in views(bank, redeals) if (v.round, v.level, v.place) == (round_number, level, place)]
    # the first metric of these labels: exposure before its gain
    return view, {(e.kind, e.labels): e for e in reversed(estimator.estimate(view))}


def test_same_bank_same_rows_whatever_the_order_of_the_evidence() -> None:
    bank = make_bank()
    rows = estimate(bank, ALL, 30)
    assert repr(rows) == repr(estimate(bank, ALL, 30))
    shuffled = replace(bank, evidence=bank.evidence[::-1], references=bank.references[::-1])
    assert repr(rows) == repr(estimate(shuffled, ALL, 30))
    assert repr(rows) != repr(estimate(replace(bank, seed=1), ALL, 30))


def test_no_two_rows_say_they_are_the_same_thing() -> None:
    rows = estimate(make_bank(), ALL, 10)
    keys = Counter(
        (r.run, r.round, r.level, r.source, r.reading.metric, r.reading.subject, r.reading.labels) for r in rows
    )
    assert max(keys.values()) == 1
    assert {r.client for r in rows} == {-1}
    assert {r.source for r in rows} == {"memorisation", "exposure", "membership"}


def test_labels_say_place_and_variant() -> None:
    rows = estimate(make_bank(), ALL, 10)
    at_final = {
        (r.level, r.reading.labels) for r in rows if r.round is None and r.reading.metric in ("memorisation", "auc")
    }
    assert at_final == {
        *[
            (level, labels(f"{place}{variant}"))
            for level, place in (("global", ""), ("local", "place=owner "), ("local", "place=others "))
            for variant in ("", "statistic=probability", "attack=lira", "attack=loss_threshold")
        ],
    }


def test_kind_rows_carry_value_interval_and_number() -> None:
    bank = make_bank()
    rows = estimate(bank, [Memorisation()], 40)
    places: list[tuple[int | None, Level, str]] = [(2, "global", ""), (2, "local", "owner"), (None, "local", "others")]
    for round_number, level, place in places:
        _, found = estimates_at(bank, round_number, level, place, Memorisation(), 40)
        e = found["typical", labels()]
        row = pick(rows, "memorisation", "typical", at(place), round_number, level)
        assert (row.value, row.n) == (e.value, e.n)
        np.testing.assert_equal((row.low, row.high), interval(e.value, e.influence, min(8, e.n), (-1.0, 1.0)))
        assert math.isnan(row.low) or row.low < row.value < row.high
    large = make_bank(clients=6, per_client=3)
    row = pick(estimate(large, [Memorisation()], 40), "memorisation", "typical", "")
    assert row.low < row.value < row.high


def test_fewer_than_eight_runs_or_examples_have_no_intervals() -> None:
    for bank, whole in (
        (make_bank(runs=4, clients=6, per_client=3), False),
        (make_bank(clients=6, per_client=3), True),
    ):
        rows = estimate(bank, [Memorisation()], 40)
        found = [
            r.reading for r in rows if r.reading.metric in ("memorisation", "memorisation.difference", "retention")
        ]
        assert any(not math.isnan(r.value) for r in found)
        bounded = [r for r in found if not r.subject.isdigit() and not math.isnan(r.low)]
        assert bool(bounded) == whole


def without(bank: Bank, runs: IntArray) -> Bank:
    """The bank with no answers of these runs, as when they diverged."""
    evidence, ranks = [], []
    for part in bank.evidence:
        lost = np.isin(part.run, runs)[:, None]
        evidence.append(
            replace(part, loss=np.where(lost, np.nan, part.loss), margin=np.where(lost, np.nan, part.margin))
        )
    for seen in bank.references:
        ranks.append(replace(seen, less=np.where(np.isin(seen.run, runs)[:, None], -1, seen.less)))
    return replace(bank, evidence=tuple(evidence), references=tuple(ranks))


@pytest.mark.parametrize("lost", [0, 1])
def test_too_few_runs_with_answers_have_values_without_intervals(lost: int) -> None:
    """With 6 of 8 runs lost, intervals with 7 degrees of freedom held the truth in 76 of 100 simulations."""
    bank = make_bank(runs=8, per_client=4, cohort=6, local=3.0, whole=2.0)
    rows = estimate(without(bank, np.arange(lost)), [Memorisation(), Exposure()], 40)
    found = [r.reading for r in rows if r.reading.metric.partition(".")[0] in ("memorisation", "exposure", "retention")]
    assert any(not math.isnan(r.value) for r in found)
    bounded = {r.metric for r in found if not r.subject.isdigit() and not math.isnan(r.low)}
    assert bounded == (
        set() if lost else {"memorisation", "memorisation.difference", "exposure", "exposure.difference", "retention"}
    )


def test_runs_without_answers_are_no_degrees_of_freedom() -> None:
    bank = without(make_bank(runs=16, per_client=4, cohort=6, local=3.0, whole=2.0), np.arange(5))
    _, estimates = estimates_at(bank, None, "global", "", Memorisation(), 2)
    one = estimates["typical", labels("statistic=probability")]
    found = pick(estimate(bank, [Memorisation()], 2), "memorisation", "typical", "statistic=probability")
    assert one.n == 24
    assert (found.low, found.high) == interval(one.value, one.influence, 11, one.bounds)
    assert (found.low, found.high) != interval(one.value, one.influence, 16, one.bounds)


def test_single_examples_have_newcombe_rows_at_the_summary_only() -> None:
    bank = make_bank(runs=8)
    rows = estimate(bank, [Memorisation(), Exposure()], 10)
    single = [r for r in rows if r.reading.subject.isdigit()]
    assert {r.round for r in single} == {None}
    view, _ = estimates_at(bank, None, "local", "owner", Memorisation(), 10)
    hit, coin = view.correct[:, 0, 5], bank.audit.is_in[:, 5]
    row = pick(rows, "memorisation", "5", "place=owner", level="local")
    low, high = newcombe(hit[coin].sum(), 4, hit[~coin].sum(), 4)
    assert row.value == pytest.approx(hit[coin].mean() - hit[~coin].mean())
    assert (row.low, row.high) == pytest.approx((float(low), float(high)))
    assert row.n == 8
    exposed = pick(rows, "exposure", "5", "place=owner", level="local")
    assert math.isnan(exposed.low)
    assert exposed.n == 4
    assert not [r for r in single if r.source == "exposure" and bank.audit.role[int(r.reading.subject)] != "canary"]


def test_nulls_are_printed_at_final() -> None:
    rows = estimate(make_bank(references=1000), ALL, 10)
    assert pick(rows, "exposure.null", "random_pattern", "").value == pytest.approx(1.436, abs=5e-4)
    assert pick(rows, "auc.null", "typical", "attack=loss_threshold").value == 0.5
    assert pick(rows, "auc.null", "typical", "attack=lira").value == pytest.approx(0.5, abs=0.05)
    assert {r.round for r in rows if r.reading.metric.endswith(".null")} == {None}


def test_p_stands_beside_its_null_at_final_and_counts_deals() -> None:
    rows = estimate(make_bank(runs=16, clients=6, per_client=3), ALL, 60)
    for metric, kind, about, n in (
        ("memorisation", "typical", "statistic=probability", 60),
        ("auc", "typical", "attack=lira", 60),
        ("auc", "mislabelled", "attack=loss_threshold", 60),
        ("exposure", "random_pattern", "", 60),
    ):
        local = pick(rows, f"{metric}.p", kind, f"place=owner {about}", level="local")
        assert local.value == pytest.approx(2 / 61), "the effect is there, and p is never 0"
        assert local.n == n
        assert math.isnan(local.low)
        assert 0 < pick(rows, f"{metric}.p", kind, about).value <= 1
    found = [r for r in rows if r.reading.metric.endswith(".p")]
    assert {r.round for r in found} == {None}
    assert not [r for r in found if r.reading.metric.startswith("tpr")]


def test_tpr_rows_are_at_the_standard_false_positive_rates() -> None:
    rows = estimate(make_bank(runs=16, clients=6, per_client=4), [ALL[3]], 20)  # 24 of a kind in 16 runs: 192 outs
    told = {r.reading.labels for r in rows if r.round is None and r.level == "global" and r.reading.metric == "tpr"}
    assert told == {labels(f"attack=loss_threshold fpr={fpr}") for fpr in (0.1, 0.05208)}
    row = pick(rows, "tpr", "typical", "attack=loss_threshold fpr=0.1")
    assert 0 <= row.low < row.value < row.high <= 1
    assert pick(rows, "tpr.null", "typical", "attack=loss_threshold fpr=0.1").value == 20 / 193


def test_level_difference_is_the_difference_of_printed_values() -> None:
    rows = estimate(make_bank(), ALL, 40)
    for metric, kind, about in (("memorisation", "typical", ""), ("auc", "mislabelled", "attack=lira")):
        owner = pick(rows, metric, kind, f"place=owner {about}", level="local").value
        whole = pick(rows, metric, kind, about).value
        row = pick(rows, f"{metric}.difference", kind, f"contrast=levels minus=global {about}")
        assert row.value == pytest.approx(owner - whole)
        assert row.low < row.value < row.high


def test_level_difference_at_a_round_is_over_the_same_examples() -> None:
    bank = make_bank()
    rows = estimate(bank, [Memorisation()], 40)
    _, found = estimates_at(bank, 1, "local", "owner", Memorisation(), 40)
    local = found["typical", labels()]
    assert 0 < local.n < (bank.audit.kind == "typical").sum()
    whole_view, _ = estimates_at(bank, 1, "global", "", Memorisation(), 40)
    values, coin = whole_view.correct[:, 0], bank.audit.is_in
    influence = [values[coin[:, j], j].mean() - values[~coin[:, j], j].mean() for j in present(local.examples)]
    row = pick(rows, "memorisation.difference", "typical", "contrast=levels minus=global", round_number=1)
    assert row.value == pytest.approx(local.value - np.mean(influence))
    assert row.n == local.n
    assert pick(rows, "memorisation", "typical", "", round_number=1).n == (bank.audit.kind == "typical").sum()
    # Paired: contributions of both levels are subtracted, over the examples that the holders show.
    hidden = np.isnan(estimates_at(bank, 1, "local", "owner", Memorisation(), 40)[0].margin).all((0, 1))
    same = replace(whole_view, correct=np.where(hidden, np.nan, whole_view.correct))
    whole = next(e for e in Memorisation().estimate(same) if (e.kind, e.labels) == ("typical", labels()))
    apart = combine([(1.0, local.influence), (-1.0, whole.influence)])
    np.testing.assert_allclose((row.low, row.high), interval(row.value, apart, min(8, local.n), (-2.0, 2.0)))


def test_kinds_are_compared_at_each_place() -> None:
    bank = make_bank()
    rows = estimate(bank, [Memorisation()], 40)
    places: list[tuple[Level, str]] = [("global", ""), ("local", "owner"), ("local", "others")]
    for level, place in places:
        _, found = estimates_at(bank, None, level, place, Memorisation(), 40)
        a, b = (found[kind, labels("statistic=probability")] for kind in ("random_pattern", "typical"))
        about = f"contrast=kinds minus=typical {at(place)} statistic=probability"
        row = pick(rows, "memorisation.difference", "random_pattern", about, level=level)
        assert row.value == a.value - b.value
        apart = combine([(1.0, a.influence), (-1.0, b.influence)])
        np.testing.assert_equal((row.low, row.high), interval(row.value, apart, min(8, a.n, b.n), (-2.0, 2.0)))
        assert row.n == a.n + b.n


def test_retention_is_the_ratio_of_sums_of_pairs() -> None:
    bank = make_bank(runs=16, local=3.0, whole=1.5, per_client=4)
    rows = estimate(bank, ALL, 60)
    for metric, kind, about, null in (
        ("memorisation", "typical", "statistic=probability", 0.0),
        ("auc", "typical", "attack=lira", None),
        ("auc", "typical", "attack=loss_threshold", 0.5),
        ("exposure", "random_pattern", "", None),
    ):
        owner = pick(rows, metric, kind, f"place=owner {about}", level="local")
        whole = pick(rows, metric, kind, about)
        null = pick(rows, f"{metric}.null", kind, about).value if null is None else null
        below = pick(rows, f"{metric}.null", kind, f"place=owner {about}", level="local").value
        row = pick(rows, "retention", kind, f"of={metric} {about}")
        assert row.value == pytest.approx((whole.value - null) / (owner.value - below))
        assert row.low < row.value < row.high
        assert row.n == owner.n
        _, locals_ = estimates_at(bank, None, "local", "owner", ESTIMATORS[metric, about], 60)
        _, wholes = estimates_at(bank, None, "global", "", ESTIMATORS[metric, about], 60)
        first, second = (
            (e.n * (e.value - e.null), combine([(e.n, e.influence)]))
            for e in (wholes[kind, labels(about)], locals_[kind, labels(about)])
        )
        assert (row.low, row.high) == pytest.approx(ratio_interval(first, second, 16))


def test_retention_over_all_rounds_pools_pairs() -> None:
    bank = make_bank(runs=16, local=3.0, whole=1.5, per_client=4)
    rows = estimate(bank, [Memorisation()], 60)
    kind, top, bottom, n = "mislabelled", 0.0, 0.0, 0
    for round_number in (1, 2, 3):
        _, found = estimates_at(bank, round_number, "local", "owner", Memorisation(), 1)
        local = found[kind, labels()]
        gap = pick(
            rows, "memorisation.difference", kind, "contrast=levels minus=global", round_number=round_number
        ).value
        bottom += local.n * local.value
        top += local.n * (local.value - gap)
        n += local.n
    row = pick(rows, "retention", kind, "of=memorisation over=rounds")
    assert row.value == pytest.approx(top / bottom)
    assert row.n == n


def test_retention_without_a_local_effect_is_undefined() -> None:
    rows = estimate(make_bank(local=0.0, whole=0.0, spread=0.0), [Memorisation()], 200)
    row = pick(rows, "retention", "typical", "of=memorisation resolved=no")
    assert math.isnan(row.value)
    assert math.isnan(row.low)
    assert not [r for r in rows if (r.reading.metric, r.reading.labels) == ("retention", labels("of=memorisation"))]


def test_retention_of_a_constant_learner_is_undefined() -> None:
    bank = make_bank()
    flat = tuple(replace(e, margin=np.full_like(e.margin, 0.3), correct=np.ones_like(e.correct)) for e in bank.evidence)
    rows = estimate(replace(bank, evidence=flat), [Memorisation(), Membership(attack=Lira())], 50)
    kept = [r.reading for r in rows if r.reading.metric == "retention"]
    assert kept
    assert all(math.isnan(r.value) and r.labels.get("resolved") == "no" for r in kept)
    auc = pick(rows, "auc", "typical", "attack=lira")
    assert auc.value == 0.5
    assert math.isnan(auc.low), "values that are all alike are no certainty"
    assert pick(rows, "auc.p", "typical", "attack=lira").value == 1.0


def test_tpr_whose_threshold_changes_is_not_pooled_over_rounds() -> None:
    bank = make_bank(runs=16, clients=6, per_client=3, local=4.0, whole=3.0)
    alike = {r.reading.labels for r in estimate(bank, [ALL[3]], 50) if r.reading.metric == "retention"}
    assert labels("of=auc attack=loss_threshold over=rounds") in alike
    owner = bank.audit.owner.copy()
    owner[owner == int(next(e for e in bank.evidence if e.level == "local").client[0])] = -1
    uneven = replace(bank, audit=replace(bank.audit, owner=owner))
    rows = [r.reading.labels for r in estimate(uneven, [ALL[3]], 50) if r.reading.metric == "retention"]
    assert any(own.has(labels("of=auc over=rounds")) for own in rows)
    assert not any(own.has(labels("of=tpr over=rounds")) for own in rows)


def test_combined_tests_carry_run_and_place() -> None:
    bank = make_bank(local=5.0, whole=0.0)
    rows = estimate(bank, [Exposure()], 10)
    places: list[tuple[Level, str]] = [("global", ""), ("local", "owner")]
    for level, place in places:
        runs = [r.run for r in rows if (r.reading.metric, r.round, r.level) == ("exposure_p", 2, level)]
        assert set(runs) <= set(range(8))
        assert len(runs) > 4
        share = pick(rows, "exposure_rejected", "random_pattern", at(place), 2, level)
        assert share.n == len(runs)
        assert math.isnan(share.low)
    assert pick(rows, "exposure_rejected", "random_pattern", "place=owner", None, "local").value == 1.0


def test_own_rosters_have_no_local_rows_and_no_retention() -> None:
    rows = estimate(make_bank(roster="per_run"), ALL, 10)
    assert {r.level for r in rows} == {"global"}
    assert not [r for r in rows if r.reading.metric == "retention" or r.reading.labels.get("contrast") == "levels"]


def test_too_few_runs_are_refused_with_the_remedy() -> None:
    with pytest.raises(ComponentError, match=r"estimators\[1\]: membership needs at least 8 runs, but runs is 4"):
        estimate(make_bank(runs=4), [Memorisation(), Membership(attack=Lira())], 10)


def test_one_run_has_exposures_and_nothing_that_needs_outs() -> None:
    bank = make_bank(runs=2)

    def first_run(part: Any, *names: str) -> Any:
        return replace(part, **{name: getattr(part, name)[part.run == 0] for name in ("run", "client", *names)})

    alone = replace(
        bank,
        audit=replace(bank.audit, is_in=np.ones((1, len(bank.audit)), bool)),
        evidence=tuple(first_run(e, "loss", "margin", "correct") for e in bank.evidence),
        references=tuple(first_run(r, "less", "ties", "quantiles") for r in bank.references),
    )
    rows = estimate(alone, [Exposure()], 50)
    row = pick(rows, "exposure", "random_pattern", "place=owner", level="local")
    assert row.value > 0
    assert math.isnan(row.low), "one run says nothing about other runs"
    assert not [r for r in rows if "gain" in r.reading.metric]


def test_empty_evidence_gives_no_estimates() -> None:
    assert estimate(replace(make_bank(), evidence=(), references=()), ALL, 10) == []
    assert estimate(make_bank(), [], 10) == []


class Signed:
    """Memorisation as if effects of both signs were summed in it."""

    measures = Memorisation.measures

    def estimate(self, view: View) -> list[Estimate]:
        return [replace(found, signed=True) for found in Memorisation().estimate(view)]

    def tests(self, view: View) -> list[tuple[int, Reading]]:
        return []


def test_signed_effects_have_differences_and_no_retention() -> None:
    bank = make_bank(runs=16, local=3.0, whole=1.5, per_client=4)
    plain, signed = estimate(bank, [Memorisation()], 60), estimate(bank, [Signed()], 60)
    assert [r.reading for r in plain if r.reading.metric == "retention"]
    assert not [r.reading for r in signed if r.reading.metric == "retention"]
    # by their text, in which not a number is like itself
    assert [str(r.reading) for r in plain if r.reading.metric != "retention"] == [str(r.reading) for r in signed]


def test_cross_influence_is_such_a_sum() -> None:
    """Its sum over test examples is what is gained less what is lost."""
    rows = estimate(make_bank(runs=16, local=3.0, whole=1.5), [CrossInfluence()], 60)
    assert [r for r in rows if r.reading.metric == "cross_influence.difference" and r.level == "global"]
    assert not [r for r in rows if r.reading.metric == "retention"]


def test_levels_are_compared_on_the_same_examples_and_runs() -> None:
    """What varies from example to example and from run to run at both levels is no uncertainty of their difference."""
    bank = make_bank(runs=16, clients=6, per_client=4, local=2.0, whole=2.0, rounds=(0, 1), cohort=6, spread=2.0)
    local = {e.set: e for e in bank.evidence if e.round == 1 and e.level == "local"}["audit"]
    whole = {e.set: e for e in bank.evidence if e.round == 1 and e.level == "global"}["audit"]
    margin = np.empty_like(whole.margin)
    for place, run in enumerate(whole.run):
        own = {int(c): m for r, c, m in zip(local.run, local.client, local.margin, strict=True) if r == run}
        margin[place] = [own[k][j] for j, k in enumerate(bank.audit.owner.tolist())]
    # the aggregate answers as each holder does, but for a little
    margin -= 0.1 * np.sin(np.arange(margin.size)).reshape(margin.shape) + 0.2 * bank.audit.is_in[whole.run]
    changed = replace(whole, margin=margin, loss=np.logaddexp(0, -margin), correct=margin > 0)
    bank = replace(bank, evidence=tuple(changed if e is whole else e for e in bank.evidence))
    rows = estimate(bank, [Memorisation()], 40)
    sides = [
        pick(rows, "memorisation", "typical", "place=owner statistic=probability", 1, "local"),
        pick(rows, "memorisation", "typical", "statistic=probability", 1, "global"),
    ]
    row = pick(rows, "memorisation.difference", "typical", "contrast=levels minus=global statistic=probability", 1)
    assert row.value == pytest.approx(sides[0].value - sides[1].value)
    widths = [side.high - side.low for side in sides]
    assert 0 < row.high - row.low < min(widths) / 4


@pytest.mark.parametrize("apart", [0.0, 1e-17])
def test_levels_that_differ_by_rounding_have_no_interval(apart: float) -> None:
    bank = make_bank(runs=16, clients=6, per_client=4, local=2.0, whole=2.0, rounds=(0, 1), cohort=6, spread=2.0)
    local = {e.set: e for e in bank.evidence if e.round == 1 and e.level == "local"}["audit"]
    whole = {e.set: e for e in bank.evidence if e.round == 1 and e.level == "global"}["audit"]
    place = {(int(r), int(c)): m for r, c, m in zip(local.run, local.client, local.margin, strict=True)}
    same = [[place[r, k][j] for j, k in enumerate(bank.audit.owner.tolist())] for r in whole.run.tolist()]
    margin = np.array(same) * (1 + apart)
    changed = replace(whole, margin=margin, loss=np.logaddexp(0, -margin) + apart, correct=margin > 0)
    bank = replace(bank, evidence=tuple(changed if e is whole else e for e in bank.evidence))
    row = pick(
        estimate(bank, [Memorisation()], 40),
        "memorisation.difference",
        "typical",
        "contrast=levels minus=global statistic=probability",
        1,
    )
    assert abs(row.value) < 1e-15
    assert np.isnan([row.low, row.high]).all()


def test_variation_below_rounding_error_gives_no_interval() -> None:
    noise = Influence(examples=np.tile([1e-17, -1e-17], 5), cells=np.zeros((10, 10)))
    assert np.isnan(interval(3e-17, noise, 10, scale=0.5)).all()
    assert np.isfinite(interval(3e-17, noise, 10)).all()


class Offset:
    """Memorisation of a measure whose value without memorisation is higher in the aggregate."""

    measures = Memorisation.measures

    def estimate(self, view: View) -> list[Estimate]:
        null = 0.0 if view.level == "local" else 0.25
        return [replace(found, null=null) for found in Memorisation().estimate(view)]

    def tests(self, view: View) -> list[tuple[int, Reading]]:
        return []


def test_retention_takes_off_each_levels_own_null() -> None:
    bank = make_bank(runs=16, local=4.0, whole=4.0, per_client=4)
    rows = estimate(bank, [Offset()], 60)
    local = pick(rows, "memorisation", "typical", "place=owner statistic=probability", level="local").value
    whole = pick(rows, "memorisation", "typical", "statistic=probability").value
    row = pick(rows, "retention", "typical", "of=memorisation statistic=probability")
    assert row.value == pytest.approx((whole - 0.25) / local)
    assert row.low < row.value < row.high
    several = pick(rows, "retention", "typical", "of=memorisation statistic=probability over=rounds")
    plain = pick(
        estimate(bank, [Memorisation()], 60),
        "retention",
        "typical",
        "of=memorisation statistic=probability over=rounds",
    )
    assert several.value < plain.value - 0.2


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_values_of_all_estimators_lie_within_their_intervals(seed: int, noise: float) -> None:
    """Ties, saturated exposure, single examples, differences and retention are among the rows."""
    bank = make_bank(seed=seed, noise=noise, local=8.0 * seed, whole=4.0 * seed, runs=10, rounds=(0, 2))
    rows = estimate(bank, (*ALL, CrossInfluence(), ExposureSkewnormal()), 20)
    assert not [row for row in rows if row.reading.is_outside]
    if noise == 1.0:
        assert sum(not math.isnan(row.reading.low) for row in rows) > 50
    shifted = [replace(row.reading, value=row.reading.high + 0.1) for row in rows if row.reading.low == row.reading.low]
    assert all(reading.is_outside for reading in shifted)


@pytest.mark.parametrize(("p", "redeals", "is_defined"), [(0.35, 199, False), (0.04, 199, True), (0.2, 9, True)])
def test_retention_of_an_effect_that_p_denies_is_undefined(p: float, redeals: int, is_defined: bool) -> None:
    """By its interval the local effect is above its null in all three; nine deals cannot deny anything."""

    class Stated(Offset):
        def estimate(self, view: View) -> list[Estimate]:
            return [replace(found, null=0.0, p=p, redeals=redeals) for found in Memorisation().estimate(view)]

    rows = estimate(make_bank(runs=16, local=4.0, whole=4.0, per_client=4), [Stated()], 9)
    kept = [r.reading for r in rows if r.reading.metric == "retention" and r.reading.subject == "typical"]
    kept = [reading for reading in kept if "statistic" in reading.labels]
    assert len(kept) == 2, "the summary, and all rounds"
    assert [not math.isnan(reading.value) for reading in kept] == [is_defined] * 2
    assert all((reading.labels.get("resolved") == "no") != is_defined for reading in kept)


class Compared(Offset):
    """Says how many places there are, at the last of them."""

    def __init__(self, number: int) -> None:
        self.number = number

    def readings_of_places(self, views: list[View]) -> list[tuple[int, Reading]]:
        assert {view.round for view in views} == {None}
        return [(self.number, Reading(metric="memorisation.difference", value=len(views), n=1, subject="typical"))]


def test_readings_of_all_places_belong_to_one_of_them() -> None:
    rows = estimate(make_bank(), [Compared(2)], 9)
    (row,) = (r for r in rows if r.reading.metric == "memorisation.difference" and not r.reading.labels.get("contrast"))
    assert (row.round, row.level, row.reading.labels.get("place"), row.reading.value) == (None, "local", "others", 3)
    with pytest.raises(PartError, match=r"a view \(0 to 2\)"):
        estimate(make_bank(), [Compared(3)], 9)
