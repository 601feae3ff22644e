"""The robust and the accelerated strategies against naive loops, and against what would be wrong."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies._rule import Round
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedprox import FedProx
from strategies.krum import Krum
from strategies.multikrum import MultiKrum
from strategies.trimmed_mean import TrimmedMean


def one_round(sent: Any, before: Any = None, sizes: Any = None, number: int = 1, clients: Any = None) -> Round:
    """One run: `sent` (K, P) as the only parameter, `w`."""
    sent = torch.as_tensor(np.asarray(sent, dtype=np.float32))
    places = len(sent)
    before = np.zeros(sent.shape[1:]) if before is None else before
    return Round(
        number=number,
        before={"w": torch.as_tensor(np.asarray(before, dtype=np.float32))[None]},
        sent={"w": sent[None]},
        weights=torch.tensor([[1.0] * places if sizes is None else list(map(float, sizes))], dtype=torch.float64),
        present=torch.ones((1, places), dtype=torch.bool),
        clients=torch.arange(places)[None] if clients is None else torch.tensor([clients]),
    )


def aggregate(strategy: Any, sent: Any, **others: Any) -> np.ndarray:
    out: np.ndarray = strategy.rule({}, one_round(sent, **others))[0]["w"][0].numpy()
    return out


# --- trimmed mean -----------------------------------------------------------------------------------------------------


def naive_trimmed(sent: np.ndarray, cut: int) -> np.ndarray:
    """Coordinate by coordinate, in Python."""
    return np.array([np.mean(sorted(column)[cut : len(column) - cut]) for column in sent.astype(np.float64).T])


@settings(max_examples=60, deadline=None)
@given(places=st.integers(1, 12), beta=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.49]), seed=st.integers(0, 99))
def test_trimmed_mean_is_the_naive_one(places: int, beta: float, seed: int) -> None:
    # few different values, hence ties
    sent = np.random.default_rng(seed).integers(-2, 3, size=(places, 7)) / 8
    cut = int(beta * 100) * places // 100
    got = aggregate(TrimmedMean(beta=beta), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, cut), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("places", [1, 4, 5, 9, 10])
@pytest.mark.parametrize("beta", [0.0, 0.2, 0.4])
def test_trimmed_mean_agrees_with_flowers(places: int, beta: float) -> None:
    sent = np.random.default_rng(places).normal(size=(places, 50)).astype(np.float32)
    np.testing.assert_allclose(aggregate(TrimmedMean(beta=beta), sent), trim_mean(sent, beta), rtol=1e-5, atol=1e-6)


def test_trimming_one_too_few_or_too_many_would_be_seen() -> None:
    sent = np.array([[0.0], [1.0], [3.0], [7.0], [100.0]])
    got = aggregate(TrimmedMean(beta=0.2), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, 1), rtol=1e-6)
    assert not np.allclose(got, naive_trimmed(sent, 0))
    assert not np.allclose(got, naive_trimmed(sent, 2))


def test_a_product_that_is_whole_up_to_rounding_is_whole() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point; Flower would cut 28."""
    sent = np.arange(100.0)[:, None] ** 3
    got = aggregate(TrimmedMean(beta=0.29), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, 29), rtol=1e-6)
    assert not np.allclose(trim_mean(sent, 0.29), naive_trimmed(sent, 29), rtol=1e-6)


def test_a_client_that_sends_no_numbers_is_cut_off() -> None:
    sent = np.array([[1.0], [2.0], [3.0], [np.nan], [4.0]])
    assert aggregate(TrimmedMean(beta=0.2), sent).tolist() == [3.0]
    assert np.isnan(aggregate(TrimmedMean(beta=0.0), sent)).all()


def test_trimmed_mean_hangs_on_no_order_to_the_last_bit() -> None:
    sent = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    first = aggregate(TrimmedMean(beta=0.2), sent)
    for order in list(permutations(range(5)))[::17]:
        assert np.array_equal(aggregate(TrimmedMean(beta=0.2), sent[list(order)]), first)


# --- Krum -------------------------------------------------------------------------------------------------------------


def naive_scores(sent: np.ndarray, neighbours: int) -> list[float]:
    """Sum of squared distances to the nearest others, in plain loops."""
    scores = []
    for i, one in enumerate(sent):
        apart = [sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True)) for other in sent]
        scores.append(sum(sorted(apart[:i] + apart[i + 1 :])[:neighbours]))
    return scores


@settings(max_examples=60, deadline=None)
@given(places=st.integers(3, 9), f=st.integers(0, 3), keep=st.integers(1, 4), seed=st.integers(0, 99))
def test_krum_is_the_naive_one(places: int, f: int, keep: int, seed: int) -> None:
    sent = np.random.default_rng(seed).normal(size=(places, 6)).astype(np.float32)
    scores = naive_scores(sent, max(1, places - f - 2))
    best = sorted(range(places), key=lambda k: (scores[k], k))[:keep]
    got = aggregate(MultiKrum(f=f, keep=keep), sent)
    np.testing.assert_allclose(got, sent[best].mean(0), rtol=1e-5, atol=1e-6)
    if keep == 1:
        assert np.array_equal(got, sent[best[0]])
        assert np.array_equal(got, aggregate(Krum(f=f), sent))


def test_a_wrong_number_of_neighbours_would_be_seen() -> None:
    """Four in a row and a tight pair far off: with one neighbour the pair would win, with all of them the middle."""
    sent = np.array([[0.0], [1.0], [2.1], [3.0], [50.0], [50.1]])
    chosen = {n: int(np.argmin(naive_scores(sent, n))) for n in (1, 3, 5)}
    assert len(set(chosen.values())) == 3
    assert aggregate(Krum(f=1), sent) == np.float32(sent[chosen[3]])


def test_up_to_f_wild_clients_are_never_chosen() -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        honest, wild = rng.normal(size=(5, 8)), rng.normal(size=(2, 8)) * 100
        sent = np.concatenate([honest, wild])[rng.permutation(7)].astype(np.float32)
        got = aggregate(Krum(f=2), sent)
        assert np.abs(got).max() < 10, trial


def test_few_clients_are_decided() -> None:
    assert aggregate(Krum(f=2), [[4.0, 5.0]]).tolist() == [4.0, 5.0]
    # the nearest pair of three always ties: the lower number goes first, wherever it stands
    sent = [[0.0], [10.0], [1.0]]
    assert aggregate(Krum(), sent).tolist() == [0.0]
    assert aggregate(Krum(), [sent[2], sent[0], sent[1]], clients=[2, 0, 1]).tolist() == [0.0]
    assert aggregate(Krum(), sent, clients=[7, 3, 2]).tolist() == [1.0]
    assert aggregate(MultiKrum(keep=9), sent)[0] == pytest.approx(11 / 3)


def test_models_that_are_not_finite_are_never_chosen_and_spoil_nothing() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        sent = [[bad, 0.0], [1.0, 1.0], [1.5, 1.0], [3.0, 1.0], [1.2, 1.0]]
        assert np.isfinite(aggregate(Krum(f=1), sent)).all()
        assert np.isfinite(aggregate(MultiKrum(f=1, keep=3), sent)).all()


def test_small_updates_of_large_models_are_told_apart() -> None:
    """The shortcut |x|^2 + |y|^2 - 2 x y in float32 loses them, and would choose another client."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=20_000)
    steps = rng.normal(size=(7, 20_000)) * np.array([3, 3, 3, 1, 3, 3, 3])[:, None] * 1e-5
    sent = (base + steps).astype(np.float32)
    squares = (sent * sent).sum(1)
    shortcut = squares[:, None] + squares[None] - 2 * sent @ sent.T
    assert shortcut.min() < 0
    got = aggregate(Krum(f=1), sent)
    assert np.array_equal(got, sent[3])
    broken = np.sort(shortcut, axis=1)[:, 1:5].sum(1).argmin()
    exact = ((sent[:, None].astype(np.float64) - sent[None]) ** 2).sum(2)
    assert np.sort(exact, axis=1)[:, 1:5].sum(1).argmin() == 3
    assert broken != 3


def test_krum_weights_nobody_by_size() -> None:
    sent = np.random.default_rng(2).normal(size=(5, 3))
    for keep in (1, 3):
        plain, weighted = (aggregate(MultiKrum(keep=keep), sent, sizes=s) for s in ([1] * 5, [1, 99, 5, 7, 30]))
        assert np.array_equal(plain, weighted)


# --- momentum and proximal averaging ----------------------------------------------------------------------------------


def test_fedavgm_follows_the_published_recursion() -> None:
    """Three rounds of v = beta v + d, w = w + eta v in float64; a damped velocity would be another one."""
    rng = np.random.default_rng(3)
    strategy = FedAvgM(momentum=0.8, server_lr=0.5)
    w, v, damped = rng.normal(size=4), np.zeros(4), np.zeros(4)
    model = torch.tensor(w, dtype=torch.float32)
    state = strategy.state({"w": model[None]}, 2)
    w = model.double().numpy()
    other = w.copy()
    for number in range(1, 4):
        sent = rng.normal(size=(2, 4)).astype(np.float32)
        after, state = strategy.rule(state, one_round(sent, before=model, sizes=[30, 10], number=number))
        model = after["w"][0]
        mean = 0.75 * sent[0] + 0.25 * sent[1]
        v, damped = 0.8 * v + (mean - w), 0.8 * damped + 0.2 * (mean - other)
        w, other = w + 0.5 * v, other + 0.5 * damped
        np.testing.assert_allclose(model.numpy(), w, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.numpy(), other, rtol=1e-2)


def test_without_momentum_or_pull_they_are_fedavg_to_the_last_bit() -> None:
    sent = np.random.default_rng(4).normal(size=(3, 50))
    mean = aggregate(FedAvg(), sent, sizes=[3, 7, 11])
    assert np.array_equal(aggregate(FedAvgM(momentum=0.0), sent, sizes=[3, 7, 11]), mean)
    assert np.array_equal(aggregate(FedProx(mu=0.0), sent, sizes=[3, 7, 11]), mean)
    assert np.array_equal(aggregate(FedProx(mu=5.0), sent, sizes=[3, 7, 11]), mean)
