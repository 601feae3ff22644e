"""Each injection draws from the distribution that it states."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.isolated import Isolated
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.modalities.undescribed import modality_of_shape

CLASSES = 4


def rows(targets: IntArray) -> Examples:
    """Rows whose input tells their id."""
    ids = np.arange(len(targets))
    return Examples(inputs=ids.astype(np.float32)[:, None], targets=targets, ids=ids)


def pictures(*shape: int) -> Space:
    """What is public about pictures of this shape with values from 0 to 1, 0.25 on average."""
    whole = np.ones(shape, np.float32)
    return Space(
        num_classes=CLASSES,
        num_rows=1000,
        mean=np.float32(0.25) * whole,
        low=0 * whole,
        high=whole,
        modality=modality_of_shape(whole.shape),
    )


SPACE = pictures(1)


def skewed(count: int) -> list[ClientData]:
    """Two clients: the first holds only class 0, the second classes 1 and 2 as 3 to 1."""
    first = ClientData(client=0, examples=rows(np.zeros(count, np.int64)))
    return [first, ClientData(client=1, examples=rows(np.tile([1, 1, 1, 2], count // 4)))]


@pytest.mark.parametrize(
    "injection",
    [
        RandomPattern(per_client=3, copies=2, values="uniform"),
        Typical(per_client=3, copies=2),
        Mislabelled(per_client=3, copies=2),
    ],
)
def test_every_client_holds_its_number_of_examples(injection: RandomPattern | Typical | Mislabelled) -> None:
    injected = injection.plan(skewed(8), Reserve(rows(np.arange(80) % CLASSES)), SPACE, np.random.default_rng(0))
    assert injected.owner.tolist() == [0, 0, 0, 1, 1, 1]
    assert injected.copies.tolist() == [2] * 6


def test_typical_rows_are_unaltered_and_look_like_their_holder() -> None:
    reserve = rows(np.arange(4000) % CLASSES)
    injected = Typical(per_client=400).plan(skewed(8), Reserve(reserve), SPACE, np.random.default_rng(0))
    kept = reserve.take(injected.examples.ids)
    np.testing.assert_array_equal(injected.examples.inputs, kept.inputs)
    np.testing.assert_array_equal(injected.examples.targets, kept.targets)
    assert set(kept.targets[injected.owner == 0].tolist()) == {0}
    counts = np.bincount(kept.targets[injected.owner == 1], minlength=CLASSES)
    assert counts[0] == counts[3] == 0
    assert stats.binomtest(int(counts[1]), 400, 0.75).pvalue > 1e-3
    assert stats.binomtest(int(counts[1]), 400, 0.5).pvalue < 1e-3


def test_mislabelled_rows_have_any_other_label_equally_often() -> None:
    reserve = rows(np.arange(4000) % CLASSES)
    injected = Mislabelled(per_client=900).plan(skewed(8), Reserve(reserve), SPACE, np.random.default_rng(0))
    true = reserve.targets[injected.examples.ids]
    assert set(true[injected.owner == 0].tolist()) == {0}
    assert not np.any(injected.examples.targets == true)
    counts = np.bincount((injected.examples.targets - true) % CLASSES, minlength=CLASSES)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    assert stats.chisquare(counts[1:], counts.sum() * np.array([0.4, 0.3, 0.3])).pvalue < 1e-3


def test_mislabelled_with_two_classes_flips() -> None:
    injected = Mislabelled(per_client=5).plan(
        [ClientData(client=0, examples=rows(np.array([0, 1])))],
        Reserve(rows(np.arange(20) % 2)),
        replace(SPACE, num_classes=2),
        np.random.default_rng(0),
    )
    np.testing.assert_array_equal(injected.examples.targets, 1 - injected.examples.ids % 2)


@pytest.mark.parametrize(("values", "mean", "variance"), [("binary", 0.5, 1 / 4), ("uniform", 0.5, 1 / 12)])
def test_patterns_are_independent_pixels(values: str, mean: float, variance: float) -> None:
    injection = RandomPattern(values=values)  # type: ignore[arg-type]
    patterns = injection.references(4000, pictures(1, 6, 6), np.random.default_rng(0)).reshape(4000, 36)
    error = np.sqrt(variance / 4000)
    assert np.abs(patterns.mean(0) - mean).max() < 4.5 * error
    assert patterns.var(0) == pytest.approx(np.full(36, variance), rel=0.1)
    correlation = np.corrcoef(patterns.T) - np.eye(36)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_canaries_and_references_come_from_one_generator_with_labels_of_their_own() -> None:
    clients = [
        ClientData(
            client=0,
            examples=Examples(inputs=np.zeros((8, 40), np.float32), targets=np.zeros(8, np.int64), ids=np.arange(8)),
        )
    ]
    injection = RandomPattern(per_client=2000)
    injected = injection.plan(clients, Reserve(clients[0].examples), pictures(40), np.random.default_rng(0))
    references = injection.references(2000, pictures(40), np.random.default_rng(1))
    # Ones per pattern are binomial for both.
    assert stats.ks_2samp(injected.examples.inputs.sum(1), references.sum(1)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(injected.examples.targets, minlength=CLASSES)).pvalue > 1e-3
    by_label = [injected.examples.inputs[injected.examples.targets == label].mean() for label in range(CLASSES)]
    assert by_label == pytest.approx([0.5] * CLASSES, abs=0.02)


def test_binary_patterns_want_room() -> None:
    with pytest.raises(ComponentError, match=r"at least 32 values .*\(5,\).*write `values: uniform`"):
        RandomPattern().references(3, pictures(5), np.random.default_rng(0))
    assert RandomPattern(values="uniform").references(3, pictures(5), np.random.default_rng(0)).shape == (3, 5)


def test_running_out_of_spare_rows_is_an_error() -> None:
    with pytest.raises(ComponentError, match=r"\b4 rows .*\b3 are left"):
        Typical(per_client=4).plan(skewed(8)[:1], Reserve(rows(np.zeros(3, np.int64))), SPACE, np.random.default_rng(0))


def test_isolated_examples_have_a_feature_each_and_fill_ins_with_another_label() -> None:
    space = pictures(1, 8, 8)
    planned = Isolated(per_client=20, copies=2, amplitude=7.0).plan(
        skewed(8), Reserve(rows(np.zeros(1, np.int64))), space, np.random.default_rng(0)
    )
    flat = planned.examples.inputs.reshape(40, -1)
    assert (np.count_nonzero(flat, axis=1) == 1).all()
    assert set(flat[flat != 0].tolist()) == {7.0}
    assert len(np.unique(flat.argmax(1))) == 40
    assert planned.replacements is not None
    np.testing.assert_array_equal(planned.replacements.inputs, planned.examples.inputs)
    assert (planned.replacements.targets != planned.examples.targets).all()
    assert set(planned.replacements.targets.tolist()) == set(planned.examples.targets.tolist()) == set(range(CLASSES))
    with pytest.raises(ComponentError, match=r"needs a feature for each of 66 examples, but inputs have 64; lower"):
        Isolated(per_client=33).plan(skewed(8), Reserve(rows(np.zeros(1, np.int64))), space, np.random.default_rng(0))
