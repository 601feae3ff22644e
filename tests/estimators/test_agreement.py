"""Tests of `fedmem/estimators/agreement.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimator, ExampleValues, View
from fedmem.contracts.measurement import Reading
from fedmem.estimation.estimates import with_quantities
from fedmem.estimation.signal_means import SignalMeans
from fedmem.estimators.agreement import ALL, Agreement
from fedmem.estimators.consistency import Consistency
from fedmem.estimators.memorisation import Memorisation
from fedmem.signals.el2n import El2n
from tests.banks import coins, make_view

RUNS, EXAMPLES = 32, 60


def planted_view(seed: int = 0) -> tuple[View, FloatArray]:
    """Examples of two kinds with more or less memorisation, and how much of it each has."""
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, EXAMPLES, rng)
    strength = rng.uniform(0, 6, EXAMPLES)
    margin = strength * is_in + rng.normal(-2, 1, (RUNS, EXAMPLES))
    kinds = ["mislabelled"] * 30 + ["typical"] * 30
    return make_view(margin, is_in, kind=kinds, round_number=None), strength


def readings(view: View, *quantities: ExampleValues) -> dict[tuple[str, str, str, str], Reading]:
    """By metric, kind, proxy and variant, without those of freed ranks."""
    found = Agreement().tests(replace(view, quantities=quantities))
    return {
        (r.metric, r.subject, r.labels.text("of"), r.labels.text("statistic")): r
        for _, r in found
        if "given" not in r.labels
    }


def test_a_proxy_of_memorisation_agrees_and_noise_does_not() -> None:
    view, strength = planted_view()
    rng = np.random.default_rng(9)
    is_in = view.audit.is_in
    proxy = ExampleValues(metric="good", values=0.5 * strength * is_in + rng.normal(0, 1, is_in.shape))
    noise = ExampleValues(metric="noise", values=rng.normal(0, 1, is_in.shape))
    found = readings(view, proxy, noise)
    for kind in ("mislabelled", "typical", ALL):
        assert found["agreement", kind, "good", "gain"].value > 0.7
        assert found["agreement.p", kind, "good", "gain"].value < 0.05
        assert np.isnan(found["agreement", kind, "noise", "gain"].value)
        assert found["agreement.p", kind, "noise", "gain"].value > 0.05
    assert found["agreement", ALL, "loss", "gain"].value < -0.7, "the loss falls where memorisation grows"
    assert found["agreement", ALL, "loss", "gain"].n == EXAMPLES


def test_kinds_with_few_examples_and_rounds_have_no_row() -> None:
    view, _ = planted_view()
    assert not [r for _, r in Agreement(min_examples=31).tests(view) if r.subject != ALL]
    assert list(Agreement().tests(replace(view, round=3))) == []


def test_an_example_of_class_alone_is_freed_of_its_class() -> None:
    view, _ = planted_view()
    labels = (np.arange(EXAMPLES) % 2).astype(np.int64)
    examples = replace(view.audit.examples, targets=labels)
    rng = np.random.default_rng(3)
    is_in = view.audit.is_in
    margin = 4 * labels * is_in + rng.normal(-2, 1, is_in.shape)
    by_class = replace(view, audit=replace(view.audit, examples=examples), margin=margin[:, None])
    proxy = ExampleValues(metric="class", values=labels * is_in + rng.normal(0, 0.3, is_in.shape))
    rows = Agreement().tests(replace(by_class, quantities=(proxy,)))
    splits = {
        r.labels.text("given"): r.value
        for _, r in rows
        if (r.metric, r.subject, r.labels.get("of"), r.labels.get("statistic"))
        == ("agreement_split", "typical", "class", "gain")
    }
    assert splits[""] > 0.5
    assert abs(splits["class and owner"]) < 0.3


def test_quantities_come_from_all_that_give_some() -> None:
    view, _ = planted_view()
    view = replace(view, signals={"el2n": view.margin})
    estimators: list[Estimator] = [Memorisation(), Consistency(), SignalMeans(signal=El2n()), Agreement()]
    (found,) = with_quantities([view], estimators)
    assert [quantity.metric for quantity in found.quantities] == ["consistency", "el2n"]
    assert with_quantities([view], estimators[:3]) == [view]
