"""Labels read off real gradients: one example, distinct labels, repeated ones, beside what a guess would get."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._labels import guess_labels, infer_labels, last_bias
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.datasets.fashion_mnist import FashionMnist
from fedmem.fetched import files
from tests.lab import gradient_of, parameters


@cache
def clothes() -> Examples:
    folder = files.cache_folder() / "fashion_mnist"
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
    assert all(infer_labels(bias, 1) == one.targets for bias, one in zip(biases, rows, strict=True))
    assert not any(infer_labels(-bias, 1) == one.targets for bias, one in zip(biases, rows, strict=True))


def impact(bias: FloatArray, count: int) -> IntArray:
    """Wainakh et al. (2022): take the label of the least entry, add the mean impact of one example, and again."""
    slope, negative = bias.copy(), bias < 0
    step, found = abs(bias[negative].sum()) / count * (1 + 1 / len(bias)), []
    for _ in range(count):
        found.append(int(slope.argmin()))
        slope[found[-1]] += step
    return np.sort(np.array(found))


def test_repeated_labels_are_inferred_better_than_guessed() -> None:
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
