"""Tests of `fedmem/attacks/nearest_mean.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.attacks.nearest_mean import NearestMean
from fedmem.contracts.data import Examples
from tests.attacks.priors_helpers import POPULATION, granted, one
from tests.lab import digits, gradient_of, network, parameters


def test_nearest_mean_with_one_mean_is_the_mean_of_its_class() -> None:
    rows = digits().take(np.array([3, 5, 15]))
    found = one(NearestMean(means=1), granted(rows))
    assert found.labels.tolist() == np.sort(rows.targets).tolist()
    for image, label in zip(found.inputs, found.labels, strict=True):
        own = POPULATION.inputs[POPULATION.targets == label].astype(np.float64).mean(0)
        np.testing.assert_allclose(image, own, atol=1e-6)


def test_nearest_mean_picks_the_group_with_the_targets_gradient() -> None:
    """Oracle: two far apart groups of one class; the target's example lies in one of them."""
    rng = np.random.default_rng(0)
    low, high = (np.clip(level + 0.02 * rng.standard_normal((20, 1, 8, 8)), 0, 1) for level in (0.1, 0.9))
    high[:, :, :4] = 0.1  # lit below only
    inputs = np.concatenate([low, high]).astype(np.float32)
    known = Examples(inputs=inputs, targets=np.full(40, 7), ids=np.arange(40))
    for place, group in ((3, inputs[:20]), (33, inputs[20:])):
        row = Examples(inputs=inputs[place : place + 1], targets=np.array([7]), ids=np.array([0]))
        target = granted(row, known)
        found = one(NearestMean(means=2), target)
        np.testing.assert_allclose(found.inputs[0], group.mean(0), atol=1e-5)
        flipped = replace(target, gradient={name: -value for name, value in target.gradient.items()})
        # the wrong sign gives another label, for which there is only the mean of all
        np.testing.assert_allclose(one(NearestMean(means=2), flipped).inputs[0], inputs.mean(0), atol=1e-5)


def test_repeated_labels_cycle_through_the_means() -> None:
    rows = digits().take(np.flatnonzero(digits().targets == 4)[:5])
    found = one(NearestMean(means=2), granted(rows))
    assert found.labels.tolist() == [4] * 5
    first, second = found.inputs[0], found.inputs[1]
    assert not np.array_equal(first, second)
    for i, expected in enumerate((first, second, first, second, first)):
        np.testing.assert_array_equal(found.inputs[i], expected)


def test_the_distance_is_that_of_the_answers_together() -> None:
    model, rows = network(), digits().take(np.array([3, 5, 15]))
    found = one(NearestMean(), granted(rows))
    mine, wanted = (
        torch.cat(
            [value.flatten() for value in gradient_of(model, parameters(model), inputs, labels).values()]
        ).double()
        for inputs, labels in ((found.inputs, found.labels), (rows.inputs, rows.targets))
    )
    expected = 1 - torch.nn.functional.cosine_similarity(mine, wanted, dim=0)
    assert found.distance == pytest.approx(expected.item(), abs=1e-5)
    assert 0 < found.distance < 1


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_empty_gradient_and_one_row_of_population_give_the_mean(value: float) -> None:
    target = granted(digits().take(np.arange(2)), POPULATION.take(np.arange(1)))
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    found = one(NearestMean(), blank)
    assert math.isnan(found.distance)
    np.testing.assert_allclose(found.inputs, np.repeat(POPULATION.inputs[:1], 2, axis=0), atol=1e-6)


def test_groups_start_from_the_generator_alone() -> None:
    target = granted(digits().take(np.arange(6)))
    np.testing.assert_array_equal(one(NearestMean(), target).inputs, one(NearestMean(), target).inputs)
