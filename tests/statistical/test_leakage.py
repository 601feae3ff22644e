"""Does gradient inversion do what it is said to do, and would these tests notice if it did not?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import t
from torch import nn

from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Examples
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.probes._clusters import difference_interval, mean_interval
from fedmem.seeding import stream
from tests.lab import digits, gradient_of, network, parameters, target_of

pytestmark = pytest.mark.statistical

PRIORS = digits().take(np.arange(1500, 1700)).inputs


def batches(size: int, count: int = 10) -> list[Examples]:
    rng = np.random.default_rng(size)
    return [digits().take(rng.choice(1400, size, replace=False)) for _ in range(count)]


def matched(images: np.ndarray, truth: np.ndarray) -> FloatArray:
    errors = squared_errors(images, truth)
    return psnr(errors[assign(errors), np.arange(len(truth))])


def results(targets: list[GradientTarget], truth: list[Examples]) -> tuple[FloatArray, FloatArray]:
    """PSNR of every image, and of its baseline guess among grey, mean and equally many real images."""
    found = InvertingGradients().reconstruct(targets, [stream(0, "attack", client=t) for t in range(len(targets))])
    rng = np.random.default_rng(0)
    own, prior = [], []
    for reconstruction, rows in zip(found, truth, strict=True):
        own.append(matched(reconstruction.inputs, rows.inputs))
        grey, mean = np.full_like(PRIORS[:1], 0.5), PRIORS.mean(0, keepdims=True)
        real = PRIORS[rng.permutation(len(PRIORS))[: len(rows)]]
        prior.append(np.max([matched(batch, rows.inputs) for batch in (grey, mean, real)], axis=0))
    return np.concatenate(own), np.concatenate(prior)


@cache
def single(sign: float) -> tuple[FloatArray, FloatArray]:
    model, rows = network(nn.Sigmoid), batches(1)
    targets = [target_of(model, parameters(model), one) for one in rows]
    flipped = [replace(one, gradient={n: sign * g for n, g in one.gradient.items()}) for one in targets]
    return results(flipped, rows)


def clearly_better(own: FloatArray, prior: FloatArray) -> bool:
    """At least 8 of 10 images are 3 dB better than their baseline guess."""
    return int((own > prior + 3).sum()) >= 8


def test_one_untrained_image_in_one_step_is_reconstructed() -> None:
    assert clearly_better(*single(1.0))


def test_gradient_of_wrong_sign_reconstructs_nothing() -> None:
    assert not clearly_better(*single(-1.0))
    assert single(-1.0)[0].mean() < single(1.0)[0].mean() - 10


@cache
def by_batch(size: int, epochs: int = 0) -> tuple[FloatArray, FloatArray]:
    model, rows = network(nn.ReLU), batches(size)
    params = descended(model, epochs)
    return results([target_of(model, params, one) for one in rows], rows)


def descended(model: nn.Module, epochs: int) -> Params:
    params, data, rng = parameters(model), digits(), np.random.default_rng(9)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(1400), 140):
            gradient = gradient_of(model, params, data.inputs[rows], data.targets[rows])
            params = {name: value - 0.1 * gradient[name] for name, value in params.items()}
    return params


def test_one_image_is_easier_than_eight() -> None:
    assert by_batch(1)[0].mean() > by_batch(8)[0].mean() + 10


def test_an_untrained_model_gives_away_more_than_a_trained_one() -> None:
    own, prior = by_batch(8)
    trained, trained_prior = by_batch(8, epochs=15)
    difference = (own - prior).mean() - (trained - trained_prior).mean()
    assert difference > 1


def test_many_steps_taken_for_one_gradient_give_away_less() -> None:
    """The update of two epochs on 57 rows, read as a gradient, is no better than what was known before."""
    model, data = network(nn.ReLU), digits()
    before, rng = parameters(model), np.random.default_rng(3)
    targets, truth = [], []
    for _ in range(4):
        rows = rng.choice(1400, 57, replace=False)
        after, steps = before, 0
        for _ in range(2):
            for batch in np.array_split(rng.permutation(rows), 6):
                gradient = gradient_of(model, after, data.inputs[batch], data.targets[batch])
                after = {name: value - 0.1 * gradient[name] for name, value in after.items()}
                steps += 1
        update = {name: (before[name] - after[name]) / (0.1 * steps) for name in before}
        truth.append(data.take(rows))
        targets.append(replace(target_of(model, before, truth[-1]), gradient=update))
    own, prior = results(targets, truth)
    assert (own - prior).mean() < 0
    assert (own - prior).mean() < (by_batch(8)[0] - by_batch(8)[1]).mean() - 2


@pytest.mark.parametrize("clusters", [4, 12])
def test_cluster_interval_holds_its_level_and_a_naive_one_not(clusters: int) -> None:
    """Few clusters of victims with a common part: 95 % intervals of the mean must cover 0 about 95 % of the time."""
    rng, size, repetitions = np.random.default_rng(clusters), 5, 2000
    covered = naive = percentile = 0
    names = np.repeat(np.arange(clusters), size).tolist()
    for _ in range(repetitions):
        common = rng.normal(size=(clusters, 1))
        groups = common + 0.5 * rng.normal(size=(clusters, size))
        values = groups.reshape(-1)
        low, high = mean_interval(values, names)
        covered += low <= 0 <= high
        low, high = t.interval(0.95, len(values) - 1, loc=values.mean(), scale=values.std(ddof=1) / len(values) ** 0.5)
        naive += low <= 0 <= high
        draws = groups.mean(1)[rng.integers(clusters, size=(200, clusters))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        percentile += low <= 0 <= high
    assert 0.935 < covered / repetitions < 0.965
    assert naive / repetitions < 0.75
    if clusters == 4:
        assert percentile / repetitions < 0.88, "why the interval is not a percentile bootstrap over clusters"


@pytest.mark.parametrize("run_effect", [0.0, 0.7])
def test_intervals_cover_with_repeated_examples_and_runs(run_effect: float) -> None:
    """Eight holders of three examples, each attacked in 6 runs and 2 rounds, by coin an in or an out.

    Examples, holders and runs have effects of their own and nothing leaks: the mean of the ins is 0, and so is the
    difference. Clusters of (run, holder, round), which take every attack for news, cover far too little.
    """
    rng, repetitions = np.random.default_rng(7), 400
    runs, rounds, owners, examples = 6, 2, 8, 3
    shape = (runs, rounds, owners, examples)
    run, round_number, owner, _ = (axis.reshape(-1) for axis in np.indices(shape))
    every = list(zip(run, round_number, owner, strict=True))
    covered = difference = naive = 0
    for _ in range(repetitions):
        values = (
            rng.normal(size=(1, 1, owners, examples))
            + 0.5 * rng.normal(size=(1, 1, owners, 1))
            + run_effect * rng.normal(size=(runs, 1, 1, 1))
            + 0.5 * rng.normal(size=shape)
        ).reshape(-1)
        coins = np.stack([rng.permutation(np.arange(runs) % 2 == 0) for _ in range(owners * examples)], axis=1)
        is_in = np.repeat(coins.reshape(runs, 1, owners, examples), rounds, axis=1).reshape(-1)
        low, high = mean_interval(values[is_in], owner[is_in].tolist(), run[is_in].tolist())
        covered += low <= 0 <= high
        low, high = mean_interval(values[is_in], [names for names, own in zip(every, is_in, strict=True) if own])
        naive += low <= 0 <= high
        ways = [(names[is_in].tolist(), names[~is_in].tolist()) for names in (owner, run)]
        low, high = difference_interval(values[is_in], values[~is_in], *ways)
        difference += low <= 0 <= high
    assert covered / repetitions > 0.93
    assert difference / repetitions > 0.93
    assert naive / repetitions < 0.8


def test_the_difference_is_found_where_something_leaks() -> None:
    rng, found = np.random.default_rng(8), 0
    owner, run = (axis.reshape(-1) for axis in np.indices((8, 6)))
    for _ in range(100):
        values = (rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 6))).reshape(-1)
        is_in = np.stack([rng.permutation(6) % 2 == 0 for _ in range(8)]).reshape(-1)
        ways = [(names[is_in].tolist(), names[~is_in].tolist()) for names in (owner, run)]
        low, _ = difference_interval(values[is_in] + 1.5, values[~is_in], *ways)
        found += low > 0
    assert found > 80
