"""Selection, medians, clipping and votes against naive loops, optimality conditions and enumerable cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.bulyan import Bulyan
from strategies.centred_clipping import CentredClipping
from strategies.fedavg import FedAvg
from strategies.geometric_median import GeometricMedian
from strategies.multikrum import MultiKrum
from strategies.norm_clipping import NormClipping
from strategies.sign_majority import SignMajority
from tests.strategies.test_strategies import aggregate, naive_scores, one_round

# --- Multi-Krum and Bulyan --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("places", "f", "kept"), [(9, 1, 4), (9, 2, 2), (9, 3, 1), (3, 1, 1), (1, 0, 1)])
def test_multikrum_keeps_as_many_as_the_proof_allows(places: int, f: int, kept: int) -> None:
    sent = np.random.default_rng(places + f).normal(size=(places, 4))
    assert np.array_equal(aggregate(MultiKrum(f=f), sent), aggregate(MultiKrum(f=f, keep=kept), sent))


def naive_bulyan(sent: np.ndarray, f: int) -> np.ndarray:
    """As published: choose by Krum and take out, theta times; then around the median, coordinate by coordinate."""
    f = min(f, max(0, (len(sent) - 3) // 4))
    left = list(range(len(sent)))
    chosen: list[int] = []
    while len(chosen) < len(sent) - 2 * f:
        neighbours = min(max(1, len(left) - f - 2), len(left) - 1)
        scores = naive_scores(sent[left], neighbours) if neighbours else [0.0]
        chosen.append(left.pop(int(np.argmin(scores))))
    beta = len(chosen) - 2 * f
    result = []
    for column in sent[chosen].astype(np.float64).T:
        middle = np.median(column)
        result.append(np.mean(sorted(column, key=lambda value: (abs(value - middle), value))[:beta]))
    return np.array(result)


@settings(max_examples=60, deadline=None)
@given(places=st.integers(1, 13), f=st.integers(0, 3), seed=st.integers(0, 99))
def test_bulyan_is_the_naive_one(places: int, f: int, seed: int) -> None:
    sent = np.random.default_rng(seed).normal(size=(places, 6)).astype(np.float32)
    np.testing.assert_allclose(aggregate(Bulyan(f=f), sent), naive_bulyan(sent, f), rtol=1e-5, atol=1e-6)


def test_bulyan_that_chose_only_once_would_be_seen() -> None:
    differ = 0
    for seed in range(20):
        sent = np.random.default_rng(seed).normal(size=(7, 6)).astype(np.float32)
        once = np.argsort(naive_scores(sent, 4))[:5]
        values = sent[once].astype(np.float64)
        near = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0)[:3]
        differ += not np.allclose(np.take_along_axis(values, near, 0).mean(0), aggregate(Bulyan(f=1), sent), rtol=1e-3)
    assert differ > 5


def test_bulyan_resists_f_and_falls_back_where_clients_are_few() -> None:
    rng = np.random.default_rng(0)
    for trial in range(10):
        sent = np.concatenate([rng.normal(size=(9, 5)), rng.normal(size=(2, 5)) * 1e5])[rng.permutation(11)]
        assert np.abs(aggregate(Bulyan(f=2), sent)).max() < 5, trial
    few = rng.normal(size=(6, 5))
    np.testing.assert_allclose(aggregate(Bulyan(f=2), few), few.mean(0), rtol=1e-5, atol=1e-6)
    assert Bulyan(f=2).min_cohort == 11


# --- geometric median -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(places=st.integers(3, 9), weighting=st.sampled_from(["size", "uniform"]), seed=st.integers(0, 99))
def test_no_small_step_lessens_the_sum_of_distances(places: int, weighting: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sent, sizes = rng.normal(size=(places, 5)).astype(np.float32), rng.integers(1, 9, places)
    got = aggregate(GeometricMedian(weighting=weighting, iterations=2000), sent, sizes=sizes).astype(np.float64)
    weights = sizes if weighting == "size" else np.ones(places)

    def cost(point: np.ndarray) -> float:
        return float(float(weights @ np.linalg.norm(sent - point, axis=1)) / weights.sum())

    best = cost(got)
    for step in (0.1, 0.01):
        for direction in rng.normal(size=(20, 5)):
            assert cost(got + step * direction / np.linalg.norm(direction)) > best - 1e-6
    # the mean is not it
    assert cost(np.average(sent, axis=0, weights=weights)) > best


def test_known_geometric_medians() -> None:
    # the middle one of an odd number on a line, the centre of a square, the corner of an angle of 120 degrees or more
    line = [[0.0], [1.0], [2.0], [50.0], [1e6]]
    assert aggregate(GeometricMedian(), line)[0] == pytest.approx(2.0, abs=1e-3)
    square = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]
    assert aggregate(GeometricMedian(), square) == pytest.approx([1.0, 1.0], abs=1e-6)
    blunt = [[-3.0, 0.5], [0.0, 0.0], [3.0, 0.5]]
    assert aggregate(GeometricMedian(iterations=5000), blunt) == pytest.approx([0.0, 0.0], abs=1e-3)
    heavy = aggregate(GeometricMedian(weighting="size"), [[0.0], [1.0]], sizes=[1, 3])
    assert heavy[0] == pytest.approx(1.0, abs=1e-3)


def test_one_step_is_weiszfelds_from_the_mean() -> None:
    sent = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    mean = sent.astype(np.float64).mean(0)
    pull = 1 / np.linalg.norm(sent - mean, axis=1)
    expected = (pull / pull.sum()) @ sent
    np.testing.assert_allclose(aggregate(GeometricMedian(iterations=1), sent), expected, rtol=1e-5, atol=1e-6)
    wrong = np.linalg.norm(sent - mean, axis=1)
    assert not np.allclose((wrong / wrong.sum()) @ sent, expected, rtol=1e-2)


def test_clients_in_one_place_divide_by_nothing() -> None:
    assert aggregate(GeometricMedian(), [[1.0, 2.0]] * 3).tolist() == [1.0, 2.0]
    assert aggregate(GeometricMedian(), [[1.0], [1.0], [9.0]])[0] == pytest.approx(1.0, abs=1e-4)


# --- clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 3])
def test_centred_clipping_follows_the_published_recursion(iterations: int) -> None:
    rng = np.random.default_rng(2)
    strategy = CentredClipping(radius=1.5, iterations=iterations)
    w, v, forgetful = rng.normal(size=4).astype(np.float32), np.zeros(4), np.zeros(4)
    state = strategy.state({"w": torch.from_numpy(w)[None]}, 3)
    for number in range(1, 4):
        sent = (w + rng.normal(size=(5, 4)) * 2).astype(np.float32)
        after, state = strategy.rule(state, one_round(sent, before=w, number=number))
        forgetful = np.zeros(4)
        for _ in range(iterations):
            for start in (v, forgetful):
                gaps = sent.astype(np.float64) - w - start
                start += (gaps * np.minimum(1, 1.5 / np.linalg.norm(gaps, axis=1))[:, None]).mean(0)
        np.testing.assert_allclose(after["w"][0].numpy(), w + v, rtol=1e-5, atol=1e-5)
        assert number == 1 or not np.allclose(after["w"][0].numpy(), w + forgetful, rtol=1e-2)
        w = after["w"][0].numpy()


def test_a_wide_ball_clips_nothing() -> None:
    sent, before = np.random.default_rng(3).normal(size=(5, 8)), np.ones(8)
    mean = aggregate(FedAvg(weighting="uniform"), sent, before=before)
    strategy = CentredClipping(radius=1e9)
    state = strategy.state({"w": torch.ones((1, 8))}, 5)
    wide = strategy.rule(state, one_round(sent, before=before))[0]["w"][0].numpy()
    np.testing.assert_allclose(wide, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aggregate(NormClipping(radius=1e9), sent, before=before), mean, rtol=1e-5, atol=1e-6)


def test_norm_clipping_is_the_plain_loop() -> None:
    rng = np.random.default_rng(4)
    sent, before, sizes = rng.normal(size=(6, 3)), rng.normal(size=3), [1, 2, 3, 4, 5, 6]
    sent[2] = before
    for weighting, weights in (("uniform", np.ones(6)), ("size", np.array(sizes, dtype=float))):
        expected = before.astype(np.float64)
        for row, weight in zip(sent - before, weights / weights.sum(), strict=True):
            length = np.linalg.norm(row)
            expected = expected + weight * (row if length <= 1.2 else row * 1.2 / length)
        got = aggregate(NormClipping(radius=1.2, weighting=weighting), sent, before=before, sizes=sizes)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert {np.linalg.norm(row) > 1.2 for row in sent - before} == {True, False}


# --- votes ------------------------------------------------------------------------------------------------------------


def test_votes_are_counted_coordinate_by_coordinate() -> None:
    rng = np.random.default_rng(5)
    sent, before = rng.integers(-1, 2, size=(6, 40)).astype(float), np.zeros(40)
    got = aggregate(SignMajority(server_lr=0.25), sent, before=before, sizes=[99, 1, 1, 1, 1, 1])
    expected = [0.25 * np.sign(sum(column > 0) - sum(column < 0)) for column in sent.T]
    assert got.tolist() == expected
    assert {-0.25, 0.0, 0.25} == set(got.tolist())


def test_length_buys_no_votes() -> None:
    assert aggregate(SignMajority(server_lr=1.0), [[1e6], [-1e-6], [-1e-6]], before=[0.0]).tolist() == [-1.0]


# --- who sends no numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [Bulyan(), CentredClipping(), GeometricMedian(), NormClipping(), SignMajority()], ids=str
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_counts_as_absent(strategy: Any, bad: float) -> None:
    rng = np.random.default_rng(6)
    sent, before = rng.normal(size=(8, 4)), rng.normal(size=4)
    state = strategy.state({"w": torch.zeros((1, 4))}, 8)
    kept = strategy.rule(state, one_round(sent[1:], before=before, clients=range(1, 8)))[0]["w"]
    sent[0, 2] = bad
    assert torch.equal(strategy.rule(state, one_round(sent, before=before))[0]["w"], kept)
    nobody = strategy.rule(state, one_round(np.full((3, 4), bad), before=before))[0]["w"]
    assert np.array_equal(nobody[0].numpy(), before.astype(np.float32))
