"""Tests of `fedmem/estimators/unlearning.py`: shares, changes and costs with planted memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import FOREVER
from fedmem.contracts.estimator import Estimate, SetEvidence, View
from fedmem.contracts.evidence import Evidence
from fedmem.contracts.measurement import Reading
from fedmem.estimation.estimates import count_clusters, estimates_in_view
from fedmem.estimation.two_way import interval
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.estimators.unlearning import Unlearning
from tests.banks import coins, make_view

RUNS, M = 16, 24
KIND = ["forget"] * (M // 2) + ["typical"] * (M // 2)


def block(margin: FloatArray, name: str) -> Evidence:
    runs = len(margin)
    order = np.arange(runs)[::-1]  # evidence may come in any order
    return Evidence(
        round=0,
        level="global",
        set=name,
        run=order.astype(np.int32),
        client=np.full(runs, -1, np.int32),
        loss=np.logaddexp(0, -margin)[order],
        margin=margin[order],
        correct=(margin > 0)[order],
    )


def view_of(
    now: FloatArray,
    before: FloatArray,
    is_in: BoolArray,
    *,
    with_unlearner: bool = True,
    tests: tuple[FloatArray, FloatArray] | None = None,
    round_number: int | None = None,
    together: bool = False,
) -> View:
    """The summary of a phase in which nobody trains on `forget`."""
    view = make_view(now, is_in, kind=KIND, test=None if tests is None else tests[0], round_number=round_number)
    is_gone = np.array(KIND) == "forget"
    audit = replace(view.audit, stop=np.where(is_gone, 0, FOREVER).astype(np.int32))
    if together:
        audit = replace(audit, coin_group=np.where(is_gone, 0, np.arange(M)))
    sets: dict[str, SetEvidence] = dict(view.sets)
    name = "audit_before" if with_unlearner else "audit"
    sets[name] = replace(sets["audit"], blocks=(block(before, name),))
    if tests is not None:
        sets["test_before"] = replace(sets["test"], blocks=(block(tests[1], "test_before"),))
    return replace(view, audit=audit, sets=sets)


def planted(
    effects: Mapping[str, tuple[float, float]], seed: int = 0, *, together: bool = False
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Margins now and before, with the effect of training on an example before and now, by kind."""
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, M, rng)
    if together:
        is_in[:, : M // 2] = is_in[:, :1]
    start, end = (np.array([effects.get(kind, (0.0, 0.0))[i] for kind in KIND]) for i in (0, 1))
    base = rng.normal(size=(RUNS, M)) + rng.normal(size=M)
    return base + end * is_in + 0.3 * rng.normal(size=(RUNS, M)), base + start * is_in, is_in


def share_of(view: View, kind: str = "forget", statistic: str = "probability") -> Reading | None:
    readings = [reading for _, reading in Unlearning().tests(view) if reading.metric == "share_removed"]
    chosen = [one for one in readings if one.subject == kind and (one.labels.get("statistic") or "") == statistic]
    return chosen[0] if chosen else None


def estimates_of(view: View, metric: str, statistic: str = "probability") -> dict[str, Estimate]:
    return {
        one.kind: one
        for one in Unlearning().estimate(view)
        if one.metric == metric and (metric == "loss_change" or (one.labels.get("statistic") or "") == statistic)
    }


def test_without_any_change_nothing_is_removed() -> None:
    _, before, is_in = planted({"forget": (3.0, 3.0)})
    view = view_of(before, before, is_in)
    share = share_of(view)
    assert share is not None
    assert share.value == 0.0
    known = {(one.kind, one.labels): one.value for one in Memorisation().estimate(view)}
    for statistic in ("", "probability"):
        for kind, one in estimates_of(view, "memorisation_before", statistic).items():
            assert one.value == pytest.approx(known[kind, one.labels])
        assert {one.value for one in estimates_of(view, "memorisation_change", statistic).values()} == {0.0}


def test_the_share_is_a_ratio_of_sums() -> None:
    now, before, is_in = planted({"forget": (3.0, 1.0)})
    view = view_of(now, before, is_in)
    left = next(e for e in Memorisation().estimate(view) if e.kind == "forget" and e.labels.get("statistic"))
    share = share_of(view)
    assert share is not None
    assert share.value == pytest.approx(1 - left.value / estimates_of(view, "memorisation_before")["forget"].value)
    assert 0.3 < share.low < share.value < share.high < 0.9


@pytest.mark.parametrize(("effect", "low", "high"), [(0.0, 0.85, 1.15), (-3.0, 1.5, 2.5), (3.0, -0.2, 0.2)])
def test_all_too_much_and_none_are_distinguished(effect: float, low: float, high: float) -> None:
    share = share_of(view_of(*planted({"forget": (3.0, effect)})))
    assert share is not None
    assert low < share.value < high


def test_without_memorisation_before_there_is_no_share() -> None:
    share = share_of(view_of(*planted({"forget": (0.0, 0.0)})))
    assert share is not None
    assert np.isnan([share.value, share.low, share.high]).all()


def test_retained_kinds_have_changes_and_no_share() -> None:
    view = view_of(*planted({"forget": (3.0, 0.0), "typical": (1.0, 3.0)}))
    assert share_of(view, "typical") is None
    change = estimates_of(view, "memorisation_change")
    assert change["forget"].value < -0.2
    assert change["typical"].value > 0.1


def test_the_loss_is_that_of_runs_with_the_example() -> None:
    now, before, is_in = planted({})
    now = np.where(is_in, before - 50.0, before)  # the loss rises by 50 nats, but for what it was before
    view = view_of(now, before, is_in)
    expected = np.logaddexp(0, -now) - np.logaddexp(0, -before)
    change = estimates_of(view, "loss_change")["forget"]
    assert change.value == pytest.approx(expected[:, : M // 2][is_in[:, : M // 2]].mean())
    assert change.value > 45


def test_without_an_unlearner_round_0_is_before() -> None:
    now, before, is_in = planted({"forget": (3.0, 1.0)})
    pair = [share_of(view_of(now, before, is_in, with_unlearner=flag)) for flag in (True, False)]
    assert pair[0] == pair[1]


def test_a_run_that_diverged_counts_at_neither_time() -> None:
    now, before, is_in = planted({"forget": (3.0, 1.0)})
    now[2] = np.nan
    view = view_of(now, before, is_in)
    kept = np.delete(np.arange(RUNS), 2)
    probability = 1 / (1 + np.exp(-before[kept]))
    columns = [probability[is_in[kept, j], j].mean() - probability[~is_in[kept, j], j].mean() for j in range(M // 2)]
    assert estimates_of(view, "memorisation_before")["forget"].value == pytest.approx(np.mean(columns))


def test_accuracy_is_compared_run_by_run() -> None:
    now, before, is_in = planted({})
    test = np.tile([1.0, 1.0, -1.0, -1.0], (RUNS, 1))
    later = test.copy()
    later[: RUNS // 2, 0] = -1.0  # a quarter of the test set is lost in half of the runs
    view = view_of(now, before, is_in, tests=(later, test))
    (reading,) = [reading for _, reading in Unlearning().tests(view) if reading.metric == "test_accuracy_change"]
    assert (reading.value, reading.n) == (-0.125, RUNS)
    assert reading.low < -0.125 < reading.high < 0


def test_costs_are_those_of_runs_that_had_something_to_forget() -> None:
    """The others are left as they are, and a mean with them would halve the cost."""
    _, before, is_in = planted({"typical": (3.0, 3.0)})
    forgets = np.arange(RUNS) < RUNS // 2
    is_in[:, : M // 2] = forgets[:, None]
    now = np.where(forgets[:, None] & (np.array(KIND) == "typical"), 0.0, before)
    test = np.tile([1.0, 1.0, -1.0, -1.0], (RUNS, 1))
    later = np.where(forgets[:, None] & (np.arange(4) == 0), -1.0, test)
    view = view_of(now, before, is_in, tests=(later, test), together=True)
    (reading,) = [reading for _, reading in Unlearning().tests(view) if reading.metric == "test_accuracy_change"]
    assert (reading.value, reading.n) == (-0.25, RUNS // 2)
    p, typical = (1 / (1 + np.exp(-before)))[forgets, M // 2 :], is_in[forgets, M // 2 :]
    gains = [p[typical[:, j], j].mean() - p[~typical[:, j], j].mean() for j in range(M // 2)]
    # all margins are 0 now, so that all of the gain is lost
    assert estimates_of(view, "memorisation_change")["typical"].value == pytest.approx(-np.mean(gains))


def test_local_views_have_no_rows() -> None:
    view = replace(view_of(*planted({"forget": (3.0, 1.0)})), level="local", place="owner")
    assert not Unlearning().estimate(view)
    assert not Unlearning().tests(view)


def test_one_draw_has_an_interval_over_runs() -> None:
    """As if each example were drawn alone, it would be too narrow."""
    rng = np.random.default_rng(3)
    now, before, is_in = planted({"forget": (3.0, 1.0)}, together=True)
    shared = 1.5 * rng.normal(size=(RUNS, 1))
    together, each = (
        share_of(view_of(now + shared, before + shared, is_in, together=flag), statistic="probability")
        for flag in (True, False)
    )
    assert together is not None
    assert each is not None
    assert together.value == each.value
    assert together.high - together.low > 1.1 * (each.high - each.low)


def lira_auc(view: View) -> float:
    rows = Membership(attack=Lira()).estimate(view)
    return next(one.value for one in rows if one.kind == "forget" and one.metric == "auc")


def test_a_phase_that_out_runs_skip_is_caught() -> None:
    """The phase moves every margin. In all runs it shows nothing; only in runs with the example, it is all there is."""
    _, before, is_in = planted({}, together=True)
    fair = view_of(before - 2.0, before, is_in, together=True)
    skipped = view_of(np.where(is_in[:, :1], before - 2.0, before), before, is_in, together=True)
    assert abs(lira_auc(fair) - 0.5) < 0.25
    assert lira_auc(skipped) > 0.75
    for view, is_seen in ((fair, False), (skipped, True)):
        one = next(e for e in Memorisation().estimate(view) if e.kind == "forget" and e.labels.get("statistic"))
        assert (one.value < -0.2) == is_seen


def covers(effect_now: float, seed: int, *, together: bool = False) -> tuple[bool, bool]:
    """Whether the intervals of the residual and of the share contain 0 and 1."""
    now, before, is_in = planted({"forget": (3.0, effect_now)}, seed, together=together)
    shared = together * np.random.default_rng([seed, 1]).normal(size=(RUNS, 1))
    view = view_of(now + shared, before + shared, is_in, together=together)
    left = next(e for e in estimates_in_view(Memorisation(), view) if e.kind == "forget" and e.labels.get("statistic"))
    low, high = interval(left.value, left.influence, count_clusters(view, left), left.bounds)
    share = share_of(view)
    assert share is not None
    return low <= 0 <= high, share.low <= 1 <= share.high


@pytest.mark.statistical
@pytest.mark.parametrize("together", [False, True])
def test_intervals_cover_perfect_unlearning(together: bool) -> None:
    banks = np.array([covers(0.0, seed, together=together) for seed in range(400)])
    found = banks.mean(0)
    assert (found >= 0.93).all(), found
    assert (banks[:100].sum(0) >= 95).all(), banks[:100].sum(0)
    not_removed = np.array([covers(2.0, seed, together=together) for seed in range(100)]).mean(0)
    assert (not_removed < 0.6).all(), not_removed
