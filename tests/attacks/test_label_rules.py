"""Labels read off real gradients: one example, distinct labels, repeated ones, beside what a guess would get."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmem.attacks._labels import distinct_labels, guess_labels, infer_labels, last_bias, single_label
from fedmem.contracts.data import Examples
from fedmem.contracts.types import FloatArray, IntArray
from fedmem.datasets import _published
from fedmem.datasets.fashion_mnist import FashionMnist
from fedmem.errors import RunError
from tests.lab import gradient_of, parameters


@cache
def clothes() -> Examples:
    folder = _published.cache_folder() / "fashion_mnist"
    if not all((folder / file).is_file() for file in FashionMnist.published.files):
        pytest.skip("fashion_mnist is not fetched here")
    return FashionMnist(rows=1000, test=10).load(np.random.default_rng(0)).train


@cache
def lenet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, stride=2), nn.Tanh(), nn.Conv2d(6, 12, 5, stride=2), nn.Tanh(), nn.Flatten(),
            nn.Linear(192, 10),
        )  # fmt: skip


def bias_of(rows: Examples) -> FloatArray:
    return last_bias(gradient_of(lenet(), parameters(lenet()), rows.inputs, rows.targets), 10)


def share(found: IntArray, truth: IntArray) -> float:
    return float(np.minimum(*(np.bincount(some, minlength=10) for some in (found, truth))).sum() / len(truth))


def test_one_label_is_always_found_and_never_from_the_wrong_sign() -> None:
    rows = [clothes().take(np.array([i])) for i in range(40)]
    biases = [bias_of(one) for one in rows]
    assert all(single_label(bias) == one.targets[0] for bias, one in zip(biases, rows, strict=True))
    assert not any(single_label(-bias) == one.targets[0] for bias, one in zip(biases, rows, strict=True))


def test_distinct_labels_are_found_in_real_gradients_and_not_from_the_wrong_sign() -> None:
    rng, right, wrong = np.random.default_rng(1), 0, 0
    for _ in range(20):
        labels = np.sort(rng.permutation(10)[:5])
        rows = clothes().take(np.array([rng.choice(np.flatnonzero(clothes().targets == label)) for label in labels]))
        bias = bias_of(rows)
        right += distinct_labels(bias, 5).tolist() == labels.tolist()
        wrong += distinct_labels(-bias, 5).tolist() == labels.tolist()
    assert right == 20
    assert wrong <= 1


def impact(bias: FloatArray, count: int) -> IntArray:
    """Wainakh et al. (2022): take the label of the least entry, add the mean impact of one example, and again."""
    slope, negative = bias.copy(), bias < 0
    step, found = abs(bias[negative].sum()) / count * (1 + 1 / len(bias)), []
    for _ in range(count):
        found.append(int(slope.argmin()))
        slope[found[-1]] += step
    return np.sort(np.array(found))


def test_repeated_labels_are_found_better_than_by_guessing_and_no_worse_than_by_mean_impact() -> None:
    rng = np.random.default_rng(2)
    shares = {"inferred": [], "guess": [], "impact": [], "wrong sign": []}  # type: dict[str, list[float]]
    for _ in range(30):
        rows = clothes().take(rng.choice(len(clothes()), 16))
        bias = bias_of(rows)
        for name, found in (
            ("inferred", infer_labels(bias, 16)),
            ("guess", guess_labels(16, 10)),
            ("impact", impact(bias, 16)),
            ("wrong sign", infer_labels(-bias, 16)),
        ):
            shares[name].append(share(found, rows.targets))
    assert np.mean(shares["inferred"]) > 0.95
    assert np.mean(shares["inferred"]) > np.mean(shares["guess"]) + 0.15
    assert np.mean(shares["inferred"]) >= np.mean(shares["impact"]) - 0.01
    assert np.mean(shares["wrong sign"]) < np.mean(shares["guess"])


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, np.nan]), min_size=1, max_size=6))
def test_ties_go_to_the_lowest_class_and_what_is_no_number_counts_as_nothing(bias: list[float]) -> None:
    clean = [0.0 if value != value else value for value in bias]
    assert single_label(bias) == clean.index(min(clean))
    for count in range(1, len(bias) + 1):
        found = distinct_labels(bias, count).tolist()
        assert found == sorted(sorted(range(len(bias)), key=lambda label: (clean[label], label))[:count])


def test_more_distinct_examples_than_classes_are_refused() -> None:
    with pytest.raises(RunError, match="3 examples cannot all be of different classes: there are 2"):
        distinct_labels([0.1, -0.1], 3)
