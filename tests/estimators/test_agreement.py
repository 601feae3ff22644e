"""Tests of `fedmem/estimators/agreement.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import ExampleValues, View
from fedmem.contracts.measurement import Reading
from fedmem.estimators.agreement import ALL, Agreement
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
    found = Agreement().readings_of_places([replace(view, quantities=quantities)])
    return {
        (r.metric, r.subject, r.labels.text("of"), r.labels.text("statistic")): r
        for _, r in found
        if "given" not in r.labels and "contrast" not in r.labels
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


def test_kinds_with_few_examples_have_no_row() -> None:
    view, _ = planted_view()
    assert not [r for _, r in Agreement(min_examples=31).readings_of_places([view]) if r.subject != ALL]
    assert list(Agreement().tests(view)) == []


def test_an_example_of_class_alone_is_freed_of_its_class() -> None:
    view, _ = planted_view()
    labels = (np.arange(EXAMPLES) % 2).astype(np.int64)
    examples = replace(view.audit.examples, targets=labels)
    rng = np.random.default_rng(3)
    is_in = view.audit.is_in
    margin = 4 * labels * is_in + rng.normal(-2, 1, is_in.shape)
    by_class = replace(view, audit=replace(view.audit, examples=examples), margin=margin[:, None])
    proxy = ExampleValues(metric="class", values=labels * is_in + rng.normal(0, 0.3, is_in.shape))
    rows = Agreement().readings_of_places([replace(by_class, quantities=(proxy,))])
    splits = {
        r.labels.text("given"): r.value
        for _, r in rows
        if (r.metric, r.subject, r.labels.get("of"), r.labels.get("statistic"))
        == ("agreement_split", "typical", "class", "gain")
    }
    assert splits[""] > 0.5
    assert abs(splits["class and owner"]) < 0.3


def test_p_is_adjusted_over_places_and_can_be_small() -> None:
    view, strength = planted_view()
    rng = np.random.default_rng(9)
    is_in = view.audit.is_in
    noise = [ExampleValues(metric=f"noise{i}", values=rng.normal(size=is_in.shape)) for i in range(3)]
    good = ExampleValues(metric="good", values=strength * is_in + rng.normal(0, 0.3, is_in.shape))
    places = [
        replace(view, quantities=(good, *noise)),
        replace(view, quantities=(good, *noise), level="local", place="owner"),
    ]
    found = Agreement().readings_of_places(places)
    p = {
        (i, r.labels.text("of"), r.labels.text("statistic")): r.value
        for i, r in found
        if r.metric == "agreement.p" and r.subject == ALL
    }
    assert len(p) == 2 * 5 * 3
    assert p[0, "good", "gain"] == p[1, "good", "gain"] < 0.05, "though 30 rows are adjusted together"
    assert not [name for (_, name, _), value in p.items() if value < 0.05 and name.startswith("noise")]


def test_owner_minus_aggregate_is_paired() -> None:
    view, strength = planted_view()
    rng = np.random.default_rng(9)
    is_in = view.audit.is_in
    good, bad = (
        ExampleValues(metric="proxy", values=strength * is_in * sign + rng.normal(0, 1, is_in.shape))
        for sign in (1, -1)
    )
    whole = replace(view, quantities=(bad,))
    owner = replace(view, quantities=(good,), level="local", place="owner")
    found = {
        (r.labels.text("of"), r.labels.text("statistic")): (number, r)
        for number, r in Agreement().readings_of_places([whole, owner])
        if (r.metric, r.subject, r.labels.text("contrast")) == ("agreement.difference", ALL, "levels")
    }
    number, gap = found["proxy", "gain"]
    assert number == 0, "a difference of levels is at the aggregate, as all others are"
    assert gap.value > 1.5
    assert gap.low > 1.0
    _, same = found["loss", "gain"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
