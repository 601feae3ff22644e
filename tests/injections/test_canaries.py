"""Each generator of canaries draws what it states, and a flaw in it would be seen."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.blended_patch import BlendedPatch
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.random_row import RandomRow
from fedmem.injections.unique_feature import UniqueFeature
from fedmem.modalities.tables import Tables
from fedmem.modalities.undescribed import modality_of_shape

CLASSES = 3


def space(*shape: int, **changes: Any) -> Space:
    """Values from 0 to 1 with a mean that differs from feature to feature."""
    mean = np.linspace(0.1, 0.6, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    whole = np.ones(shape, np.float32)
    own = Space(
        num_classes=CLASSES, num_rows=500, mean=mean, low=0 * whole, high=whole, modality=modality_of_shape(shape)
    )
    return replace(own, **changes)


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


@settings(max_examples=30, deadline=None)
@given(
    opacity=st.floats(0.05, 1), size=st.floats(0.6, 1), height=st.integers(8, 12), width=st.integers(8, 12),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_patch_is_blended_and_nothing_else_is_touched(
    opacity: float, size: float, height: int, width: int, seed: int
) -> None:
    where = space(2, height, width)
    (found,) = BlendedPatch(opacity=opacity, size=size).references(1, where, np.random.default_rng(seed))
    keys = (found - (1 - opacity) * where.mean) / opacity
    inside = np.isclose(keys, 0, atol=1e-4 / opacity) | np.isclose(keys, 1, atol=1e-4 / opacity)
    outside = np.isclose(found, where.mean)
    assert np.all(inside | outside)
    rows, columns = np.flatnonzero(~outside.all(axis=(0, 2))), np.flatnonzero(~outside.all(axis=(0, 1)))
    assert rows[-1] - rows[0] < int(height * size + 0.5)
    assert columns[-1] - columns[0] < int(width * size + 0.5)


def test_keys_are_fair_and_places_uniform() -> None:
    where = space(1, 9, 9, mean=np.full((1, 9, 9), 0.25, np.float32))
    found = BlendedPatch(opacity=1.0, size=0.67).references(8000, where, np.random.default_rng(0))
    assert set(np.unique(found).tolist()) == {0.0, 0.25, 1.0}
    ones, zeros = int((found == 1).sum()), int((found == 0).sum())
    assert ones + zeros == 8000 * 36
    assert stats.binomtest(ones, ones + zeros, 0.5).pvalue > 1e-3
    assert stats.binomtest(ones, ones + zeros, 0.51).pvalue < 1e-3
    top = (found[:, 0] != 0.25).any(axis=2).argmax(axis=1)
    assert stats.chisquare(np.bincount(top, minlength=4)).pvalue > 1e-3


def test_a_patch_too_small_to_be_unique_is_refused() -> None:
    with pytest.raises(ComponentError, match="a patch of 4 x 4 pixels has 16 values, but at least 32") as caught:
        BlendedPatch(size=0.5).references(1, space(1, 8, 8), np.random.default_rng(0))
    assert caught.value.path == "injections.size"


def marked(**fields: Any) -> tuple[InjectionPlan, UniqueFeature]:
    injection = UniqueFeature(**fields)
    stock = Reserve(reserve(120, 1, 8, 8))
    return injection.plan(clients(3, 1, 8, 8), stock, space(1, 8, 8), np.random.default_rng(0)), injection


def test_the_mark_of_an_example_is_on_its_pictures_and_on_no_others() -> None:
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


def test_the_example_is_the_mark_on_the_mean_and_is_not_trained_on() -> None:
    injected, _ = marked(images=3)
    assert injected.copy_index is not None
    assert injected.copy_index.min() == 0
    background = injected.examples.inputs.copy()
    background[:, :, -3:, -3:] = space(1, 8, 8).mean[:, -3:, -3:]
    np.testing.assert_array_equal(background, np.repeat(space(1, 8, 8).mean[None], 3, axis=0))


def test_pictures_are_rows_of_the_data_but_for_the_mark() -> None:
    injected, _ = marked(images=4)
    assert injected.extra is not None
    stock = reserve(120, 1, 8, 8)
    clean = stock.take(injected.extra.ids - 1000)
    differs = injected.extra.inputs != clean.inputs
    assert differs[:, :, -3:, -3:].all()
    differs[:, :, -3:, -3:] = False
    assert not differs.any()
    np.testing.assert_array_equal(injected.extra.targets, clean.targets)


def test_where_a_label_runs_out_the_mark_takes_the_commonest_label_of_its_pictures() -> None:
    few = reserve(120, 1, 8, 8).take(np.array([0, 1, 4, 7, 10]))  # class 0 once, class 1 four times
    injected = UniqueFeature(images=4).plan(clients(1, 1, 8, 8), Reserve(few), space(1, 8, 8), np.random.default_rng(0))
    assert injected.examples.targets.tolist() == [1]


def test_marks_cover_the_range_of_the_data() -> None:
    where = space(1, 8, 8, low=np.full((1, 8, 8), -2, np.float32), high=np.full((1, 8, 8), 3, np.float32))
    marks = UniqueFeature().references(3000, where, np.random.default_rng(0))[:, 0, -3:, -3:]
    assert stats.kstest(marks.ravel(), stats.uniform(-2, 5).cdf).pvalue > 1e-3
    assert stats.kstest(marks.ravel(), stats.uniform(-2, 4.8).cdf).pvalue < 1e-3


BLOCKS = (1, 4, 1, 2)


def table(**changes: Any) -> Space:
    low = np.array([-1, 0, 0, 0, 0, 5, 0, 0], np.float32)
    high = np.array([3, 1, 1, 1, 1, 5.5, 1, 1], np.float32)
    return space(8, low=low, high=high, modality=Tables(blocks=BLOCKS), **changes)


def test_rows_are_ones_that_the_table_could_hold_and_columns_independent() -> None:
    found = RandomRow().references(6000, table(), np.random.default_rng(0))
    assert found.dtype == np.float32
    assert (found[:, 1:5].sum(1) == 1).all()
    assert (found[:, 6:].sum(1) == 1).all()
    assert stats.chisquare(found[:, 1:5].sum(0)).pvalue > 1e-3
    assert stats.kstest(found[:, 0], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert stats.kstest(found[:, 0], stats.uniform(-1, 3.8).cdf).pvalue < 1e-3
    assert stats.kstest(found[:, 5], stats.uniform(5, 0.5).cdf).pvalue > 1e-3
    joint = [[(found[:, 1 + i] * found[:, 6 + j]).sum() for j in range(2)] for i in range(4)]
    assert stats.chi2_contingency(joint).pvalue > 1e-3
    assert abs(np.corrcoef(found[:, 0], found[:, 5])[0, 1]) < 0.05


def test_a_table_without_blocks_is_all_numbers() -> None:
    found = RandomRow().references(50, space(4), np.random.default_rng(0))
    assert len(np.unique(found)) == 200


def test_a_table_with_too_few_rows_is_refused() -> None:
    constant = replace(table(), high=np.where(np.repeat(np.array(BLOCKS) == 1, BLOCKS), table().low, table().high))
    with pytest.raises(ComponentError, match=r"only 8 different rows .* fewer than 2\^32"):
        RandomRow().references(1, constant, np.random.default_rng(0))


@pytest.mark.parametrize("injection", [BlendedPatch(), UniqueFeature()])
def test_pictures_are_asked_for(injection: BlendedPatch | UniqueFeature) -> None:
    with pytest.raises(ComponentError, match=r"draws on images, but inputs have shape \(8,\).*random_row"):
        injection.references(1, table(), np.random.default_rng(0))


def test_tables_and_pictures_are_not_mixed_up() -> None:
    with pytest.raises(ComponentError, match="use random_row"):
        RandomPattern().references(1, table(), np.random.default_rng(0))
    with pytest.raises(ComponentError, match="use random_pattern"):
        RandomRow().references(1, space(1, 8, 8), np.random.default_rng(0))
