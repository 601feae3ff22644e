"""Tests of `fedmem/signals/update_features.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.observation.signals import _SignalContext
from fedmem.signals.update_features import UpdateFeatures
from tests.signals.cohort_helpers import round_of
from tests.signals.signals_helpers import Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def local(bench: Bench, *transitions: Any) -> _SignalContext:
    return _SignalContext(
        transitions, bench.scenario, bench.federation, bench._executor, bench.reader._network, lambda: None,  # type: ignore[arg-type,return-value]
        bench.federation.test.take(np.arange(1)),
    )  # fmt: skip


def read(signal: UpdateFeatures, context: _SignalContext) -> list[dict[str, float]]:
    """The values of each model by variant."""
    values = signal.values(context)["update_feature"]
    names = signal.variant_names(context.federation)["update_feature"]
    assert values.shape == (len(context.transitions), len(context.examples), len(names))
    return [dict(zip(names, row[0].tolist(), strict=True)) for row in values]


def projections(values: dict[str, float]) -> FloatArray:
    return np.array([value for name, value in values.items() if name.startswith(("projection.", "first."))])


def sent(bench: Bench, seed: int, **more: Any) -> Any:
    place: dict[str, Any] = {"level": "local", "client": 1, "before": bench.params(0), "num_examples": 9, **more}
    model = bench.params(seed)
    return bench.transition(model, sent=model, **place)


def test_features_are_linear_in_the_update(bench: Bench) -> None:
    before, one, other = (bench.params(seed) for seed in (0, 1, 2))
    both = {name: one[name] + other[name] - before[name] for name in before}
    steps = [
        bench.transition(m, sent=m, before=before, level="local", client=0, num_examples=1) for m in (one, other, both)
    ]
    first, second, total = (projections(values) for values in read(UpdateFeatures(), local(bench, *steps)))
    np.testing.assert_allclose(first + second, total, rtol=1e-5, atol=1e-5)
    assert len(total) == 128  # 64 inputs


def test_projections_keep_the_length_whatever_run_and_client(bench: Bench) -> None:
    context = local(bench, sent(bench, 5), sent(bench, 5, run=3, client=2, round_number=4))
    first, second = read(UpdateFeatures(projections=1024), context)
    update = {name: bench.params(5)[name].double() - bench.params(0)[name].double() for name in bench.params(0)}
    length = sum(float(value.square().sum()) for value in update.values())
    projected = sum(value**2 for name, value in first.items() if name.startswith("projection."))
    assert projected == pytest.approx(length, rel=0.15)
    np.testing.assert_array_equal(projections(first), projections(second))


def test_the_first_layer_is_averaged_over_units(bench: Bench) -> None:
    (values,) = read(UpdateFeatures(), local(bench, sent(bench, 5)))
    name = next(name for name, value in bench.params(0).items() if value.dim() > 1)
    expected = (bench.params(5)[name].double() - bench.params(0)[name].double()).mean(dim=0)
    np.testing.assert_allclose([values[f"first.{i}"] for i in range(64)], expected.numpy())
    # above q inputs it is projected
    (few,) = read(UpdateFeatures(projections=10), local(bench, sent(bench, 5)))
    assert [name for name in few if name.startswith("first.")] == [f"first.{i}" for i in range(10)]
    assert np.isfinite(projections(few)).all()


def test_values_of_a_model_do_not_depend_on_others(bench: Bench) -> None:
    alone = read(UpdateFeatures(), local(bench, sent(bench, 5)))[0]
    beside = read(UpdateFeatures(), local(bench, sent(bench, 7), sent(bench, 5)))[1]
    assert alone == beside


def test_facts_are_those_of_the_rows(bench: Bench) -> None:
    (values,) = read(UpdateFeatures(), local(bench, sent(bench, 5)))
    rows = bench.federation.rows(0, 1, 2)
    counts = np.bincount(bench.federation.store.targets[rows], minlength=4)
    assert [values[f"label.{label}"] for label in range(4)] == counts.tolist()
    assert (values["rows"], values["weight"]) == (len(rows), 9)


def test_uniform_weighting_has_weight_one_and_aggregates_add_up() -> None:
    bench = Bench(strategy={"kind": "fedavg", "weighting": "uniform"})
    (values,) = read(UpdateFeatures(), local(bench, sent(bench, 5)))
    assert values["weight"] == 1
    whole = round_of(bench, {0: bench.params(1), 3: bench.params(2)}, before=bench.params(0))
    (values,) = read(UpdateFeatures(), whole)
    rows = np.concatenate([bench.federation.rows(0, client, 1) for client in (0, 3)])
    assert (values["rows"], values["weight"]) == (len(rows), 2)
    assert sum(values[f"label.{label}"] for label in range(4)) == len(rows)


def test_diverged_updates_and_round_0_are_undefined(bench: Bench) -> None:
    broken = bench.params(5)
    next(iter(broken.values())).view(-1)[0] = float("inf")
    diverged = bench.transition(broken, sent=broken, before=bench.params(0), level="local", client=1)
    start = bench.transition(bench.params(0), before=bench.params(0), round_number=0)
    for context in (local(bench, diverged), local(bench, start)):
        (values,) = read(UpdateFeatures(), context)
        assert np.isnan(projections(values)).all()
