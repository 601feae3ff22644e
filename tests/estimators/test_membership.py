"""Tests of `fedmem/estimators/membership.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.reference_model import ReferenceModel
from fedmem.attacks.rmia import Rmia
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import MembershipGrant, Signals
from fedmem.contracts.data import Examples
from fedmem.contracts.estimator import Models, View
from fedmem.errors import ComponentError
from fedmem.estimators.membership import Membership
from tests.banks import coins, make_view
from tests.estimators.estimators_helpers import by_key
from tests.labelling import labels


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
    assert math.isnan(auc.p), "p is given in the summary"
    assert auc.bounds == (0.0, 1.0)
    assert found["tpr", "lira fpr=0.25", "a"].null == 11 / 41, "the eleventh of 40 outs is the threshold"


def test_no_tpr_below_ten_outs() -> None:
    rng = np.random.default_rng(6)
    for m, expected in ((2, ["auc"]), (3, ["auc", "tpr"])):  # 8 or 12 outs
        is_in = coins(8, m, rng)
        found = Membership(attack=LossThreshold()).estimate(make_view(rng.normal(size=(8, m)), is_in))
        assert [e.metric for e in found] == expected


def test_rates_are_at_0_1_and_0_01_and_the_smallest_possible() -> None:
    rng = np.random.default_rng(8)
    is_in = coins(16, 150, rng)  # 1200 outs
    view = make_view(rng.normal(size=(16, 150)) + is_in, is_in)
    found = by_key(Membership(attack=LossThreshold()).estimate(view))
    told = {e.labels.get("fpr"): e for (metric, _, _), e in found.items() if metric == "tpr"}
    assert list(told) == [0.1, 0.01, 0.008333]
    assert [e.null for e in told.values()] == [121 / 1201, 13 / 1201, 11 / 1201]
    assert told[0.1].value > told[0.01].value > told[0.008333].value > 0


def test_lira_null_is_that_of_redealt_coins() -> None:
    """Examples and runs that differ make LiRA's AUC less than a half with few runs, whatever was trained on."""
    rng = np.random.default_rng(9)
    nulls, values = [], []
    for _ in range(60):
        is_in = coins(8, 30, rng)
        margin = np.exp(rng.normal(size=30)) * rng.normal(size=(8, 30)) + 2 * rng.normal(size=(8, 1))
        view = make_view(margin, is_in, draws=20, round_number=None)
        lira = Membership(attack=Lira()).estimate(view)[0]
        nulls.append(lira.null)
        values.append(lira.value)
        assert Membership(attack=LossThreshold()).estimate(view)[0].null == 0.5
        assert 0 < lira.p <= 1
        assert lira.redeals == 20
    assert np.mean(nulls) < 0.5 - 3 * np.std(nulls) / math.sqrt(60)
    assert abs(np.mean(values) - np.mean(nulls)) < 3 * np.std(np.subtract(values, nulls)) / math.sqrt(60)


def test_membership_p_finds_members_at_the_summary_only() -> None:
    rng = np.random.default_rng(10)
    is_in = coins(8, 20, rng)
    margin = rng.normal(size=(8, 20)) + 3 * is_in
    for attack in (Lira(), LossThreshold()):
        for round_number, some in ((None, True), (3, False)):
            view = make_view(margin, is_in, draws=99, round_number=round_number)
            p = Membership(attack=attack).estimate(view)[0].p
            assert (p <= 0.05) == some
            assert math.isnan(p) != some
    others = make_view(margin, is_in, draws=99, round_number=None, level="local", place="others")
    assert math.isnan(Membership(attack=Lira()).estimate(others)[0].p)


def test_membership_without_members_or_non_members_is_empty() -> None:
    margin = np.zeros((4, 3))
    for side in (True, False):
        assert Membership(attack=LossThreshold()).estimate(make_view(margin, np.full((4, 3), side))) == []


def test_attack_gets_one_kind_and_one_model_at_a_time() -> None:
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


def test_smallest_rate_has_ten_false_positives_among_seen_outs() -> None:
    """Of ten examples, outs are seen in 4 runs and ins in 8: ten of 40 outs, not of 80 ins, are a quarter."""
    is_in = np.repeat(np.arange(16)[:, None] < 8, 10, axis=1)
    margin = np.random.default_rng(11).normal(size=(16, 10))
    margin[12:] = np.nan
    found = by_key(Membership(attack=LossThreshold()).estimate(make_view(margin, is_in)))
    (words,) = [words for metric, words, _ in found if metric == "tpr"]
    assert words == "loss_threshold fpr=0.25"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Stores what it is granted."""

    knows: ClassVar[str] = "what it declares"
    reads_coins: ClassVar[bool] = False

    reads: tuple[MembershipGrant, ...] = ()
    reads_signals: tuple[str, ...] = ()
    needs_population: bool = False
    seen: list[Signals] = field(default_factory=list)

    def scores(self, signals: Signals) -> FloatArray:
        self.seen.append(signals)
        return signals.margin


def rich_view() -> View:
    """A view of three models with a signal, a population of five rows, and labels 0, 1, 2, 0, …"""
    rng = np.random.default_rng(3)
    is_in = coins(4, 6, rng)
    view = make_view(rng.normal(size=(4, 3, 6)), is_in, kind=["a"] * 2 + ["b"] * 4)
    examples = Examples(
        inputs=rng.random((6, 2)).astype(np.float32), targets=np.arange(6) % 3, ids=np.arange(6, dtype=np.int64)
    )
    models = Models(runs=4, round=np.full(1, 9), client=np.full(1, -1), of=np.zeros((3, 6), np.int64))
    rows = replace(view.sets["audit"], models=models, targets=np.arange(6) % 2, inputs=rng.random((6, 2)))
    return replace(
        view,
        audit=replace(view.audit, examples=examples),
        sets={"population": rows},
        signals={"el2n": rng.random((4, 3, 6)), "entropy": rng.random((4, 3, 6))},
    )


def test_attack_is_granted_what_it_declares() -> None:
    view = rich_view()
    attack = Reader(reads=("labels", "correct", "inputs"), reads_signals=("el2n",), needs_population=True)
    Membership(attack=attack).estimate(view)
    rows = [np.arange(2)] * 3 + [np.arange(2, 6)] * 3
    for place, (signals, columns) in enumerate(zip(attack.seen[:6], rows, strict=True)):
        np.testing.assert_array_equal(signals.labels, columns % 3)
        np.testing.assert_array_equal(signals.population_labels, np.arange(6) % 2)
        np.testing.assert_array_equal(signals.correct, view.correct[:, place % 3, columns])
        np.testing.assert_array_equal(signals.inputs, view.audit.examples.inputs[columns])
        np.testing.assert_array_equal(signals.population_inputs, view.sets["population"].inputs)
        assert set(signals.signals) == {"el2n"}
        np.testing.assert_array_equal(signals.signals["el2n"], view.signals["el2n"][:, place % 3, columns])
        assert signals.population is not None
        np.testing.assert_array_equal(signals.population[0], view.sets["population"].loss(0))


def test_attack_is_granted_no_more_than_it_declares() -> None:
    attack = Reader()
    Membership(attack=attack).estimate(rich_view())
    (bare, *_) = attack.seen
    assert not bare.signals
    names = ("population", "model", "labels", "population_labels", "correct", "inputs", "population_inputs")
    assert all(getattr(bare, name) is None for name in names)


def test_missing_signal_is_an_error_that_names_it() -> None:
    with pytest.raises(ComponentError, match="reads the signal gini, which these runs do not have"):
        Membership(attack=Reader(reads_signals=("gini",))).estimate(rich_view())


def test_losses_of_initial_models_are_given_or_asked_for() -> None:
    rng = np.random.default_rng(3)
    is_in, margin = coins(8, 12, rng), rng.normal(size=(8, 12))
    start = np.exp(rng.normal(size=(8, 12)))
    estimator = Membership(attack=ReferenceModel())
    (scored,) = estimator.membership_scores(replace(make_view(margin, is_in), initial=start))
    np.testing.assert_allclose(scored.scores, start - np.logaddexp(0, -margin))
    with pytest.raises(ComponentError, match="observe level global, or use another attack"):
        estimator.membership_scores(make_view(margin, is_in))
