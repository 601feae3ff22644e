"""Tests of `fedmem/injections/unique_feature.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Examples
from fedmem.contracts.reserve import Reserve
from fedmem.injections.unique_feature import UniqueFeature
from tests.injections.canaries_helpers import CLASSES, space


def clients(count: int, *shape: int) -> list[ClientData]:
    """Client k holds rows of class k alone."""
    return [
        ClientData(
            client=k,
            examples=Examples(
                inputs=np.zeros((9, *shape), np.float32), targets=np.full(9, k), ids=np.arange(9 * k, 9 * k + 9)
            ),
        )
        for k in range(count)
    ]


def reserve(count: int, *shape: int) -> Examples:
    """Constant pictures that tell their id."""
    ids = np.arange(1000, 1000 + count)
    values = ((ids - 1000 + 1) / (2 * count)).astype(np.float32)
    return Examples(
        inputs=np.broadcast_to(values.reshape(-1, *(1,) * len(shape)), (count, *shape)).copy(),
        targets=np.arange(count) % CLASSES,
        ids=ids,
    )


def marked(**fields: Any) -> tuple[InjectionPlan, UniqueFeature]:
    injection = UniqueFeature(**fields)
    stock = Reserve(reserve(120, 1, 8, 8))
    return injection.plan(clients(3, 1, 8, 8), stock, space(1, 8, 8), np.random.default_rng(0)), injection


def test_mark_of_an_example_is_on_its_images_only() -> None:
    injected, _ = marked(per_client=2, images=4, copies=2)
    assert injected.extra is not None
    assert injected.copy_index is not None
    subject = np.repeat(np.arange(6), injected.copies)
    for j in range(6):
        own = np.unique(injected.copy_index[subject == j])
        assert len(own) == 4
        mark = injected.examples.inputs[j, 0, -3:, -3:]
        for i, picture in enumerate(injected.extra.inputs[:, 0, -3:, -3:]):
            assert np.array_equal(picture, mark) == (i in own)
        assert set(injected.extra.targets[own].tolist()) == {int(injected.examples.targets[j])}
        assert injected.examples.targets[j] == injected.owner[j], "labels like those of the holder's own rows"


def test_example_is_the_mark_on_the_mean_and_not_trained_on() -> None:
    injected, _ = marked(images=3)
    assert injected.copy_index is not None
    assert injected.copy_index.min() == 0
    background = injected.examples.inputs.copy()
    background[:, :, -3:, -3:] = space(1, 8, 8).mean[:, -3:, -3:]
    np.testing.assert_array_equal(background, np.repeat(space(1, 8, 8).mean[None], 3, axis=0))


def test_marked_images_equal_rows_of_the_data_outside_the_mark() -> None:
    injected, _ = marked(images=4)
    assert injected.extra is not None
    stock = reserve(120, 1, 8, 8)
    clean = stock.take(injected.extra.ids - 1000)
    differs = injected.extra.inputs != clean.inputs
    assert differs[:, :, -3:, -3:].all()
    differs[:, :, -3:, -3:] = False
    assert not differs.any()
    np.testing.assert_array_equal(injected.extra.targets, clean.targets)


def test_mark_takes_the_modal_label_where_a_label_runs_out() -> None:
    few = reserve(120, 1, 8, 8).take(np.array([0, 1, 4, 7, 10]))  # class 0 once, class 1 four times
    injected = UniqueFeature(images=4).plan(clients(1, 1, 8, 8), Reserve(few), space(1, 8, 8), np.random.default_rng(0))
    assert injected.examples.targets.tolist() == [1]


def test_marks_cover_the_range_of_the_data() -> None:
    where = space(1, 8, 8, low=np.full((1, 8, 8), -2, np.float32), high=np.full((1, 8, 8), 3, np.float32))
    marks = UniqueFeature().references(3000, where, np.random.default_rng(0))[:, 0, -3:, -3:]
    assert stats.kstest(marks.ravel(), stats.uniform(-2, 5).cdf).pvalue > 1e-3
    assert stats.kstest(marks.ravel(), stats.uniform(-2, 4.8).cdf).pvalue < 1e-3
