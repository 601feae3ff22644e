"""Tests of `strategies/typicality.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.typicality import Typicality
from tests.strategies.strategies_helpers import aggregate


def typical(moves: np.ndarray, sizes: np.ndarray, beta: float) -> np.ndarray:
    """The definition in loops."""
    weights = []
    for k, move in enumerate(moves):
        others = sum((o / np.linalg.norm(o) for j, o in enumerate(moves) if j != k), start=np.zeros(moves.shape[1]))
        weights.append(sizes[k] * np.exp(beta * (move @ others) / (np.linalg.norm(move) * np.linalg.norm(others))))
    out: np.ndarray = np.array(weights) / sum(weights)
    return out


@pytest.mark.parametrize("beta", [-3.0, 0.5, 4.0])
def test_typicality_is_its_definition(beta: float) -> None:
    rng = np.random.default_rng(3)
    moves, sizes, before = rng.normal(size=(6, 5)) + 0.7, rng.integers(1, 9, 6), rng.normal(size=5)
    got = aggregate(Typicality(beta=beta), before + moves, before=before, sizes=sizes)
    np.testing.assert_allclose(got, before + typical(moves, sizes, beta) @ moves, rtol=1e-4, atol=1e-5)
    for wrong in (-beta, 2 * beta, 0.0):
        assert not np.allclose(got, before + typical(moves, sizes, wrong) @ moves, rtol=1e-2, atol=1e-3)
    # nor is a client compared with a mean that it is part of
    whole = (moves / np.linalg.norm(moves, axis=1, keepdims=True)).sum(0)
    shares = sizes * np.exp(beta * moves @ whole / np.linalg.norm(moves, axis=1) / np.linalg.norm(whole))
    assert not np.allclose(got, before + shares / shares.sum() @ moves, rtol=1e-3, atol=1e-3)


def test_a_beta_of_0_is_fedavg_to_the_last_bit() -> None:
    sent, sizes = np.random.default_rng(4).normal(size=(5, 40)), [3, 1, 4, 1, 5]
    mean = aggregate(FedAvg(), sent, sizes=sizes)
    assert np.array_equal(aggregate(Typicality(beta=0.0), sent, sizes=sizes), mean)


def test_typicality_weighs_the_atypical_client_by_beta() -> None:
    """Eight in one direction, one against it: the agreement is 1 and -1, the ratio of weights exp(-2 beta)."""
    moves = np.concatenate([np.tile([1.0, 0.0], (8, 1)), [[-1.0, 0.0]]])
    for beta in (-1.0, 1.0, 3.0):
        got = aggregate(Typicality(beta=beta), moves, before=np.zeros(2))[0]
        against = np.exp(-2 * beta)
        assert got == pytest.approx((8 - against) / (8 + against), rel=1e-5)
    assert np.isfinite(aggregate(Typicality(beta=5000.0), moves, before=np.zeros(2))).all()


def test_length_decides_nothing_about_who_is_typical() -> None:
    """One that shouts against eight: were directions weighed by length, it would be the typical one."""
    moves = np.concatenate([np.tile([1.0, 0.1], (8, 1)), [[-1000.0, 0.0]]])
    weights = typical(moves, np.ones(9), 2.0)
    assert weights[8] < weights[0] / 40
    got = aggregate(Typicality(beta=2.0), moves, before=np.zeros(2))
    np.testing.assert_allclose(got, weights @ moves, rtol=1e-4)


def test_typicality_without_direction_agrees_by_0() -> None:
    assert aggregate(Typicality(), [[3.0, 1.0]], before=np.zeros(2)).tolist() == [3.0, 1.0]
    # the middle one did not move, and the two others are each other's opposite
    got = aggregate(Typicality(beta=1.0), [[2.0], [0.0], [-2.0]], before=[0.0])
    assert got[0] == pytest.approx(0.0, abs=1e-6)
    still = aggregate(Typicality(beta=1.0), [[1.0], [0.0]], before=[0.0])
    assert still[0] == pytest.approx(0.5, rel=1e-5)
