"""Tests of `strategies/foolsgold.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.foolsgold import FoolsGold
from tests.strategies.strategies_helpers import aggregate
from tests.strategies.weighing_helpers import follow


def fools(history: np.ndarray, kappa: float) -> np.ndarray:
    """Weights as published, in loops; without the pardon they would be others."""
    count = len(history)
    likeness = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j:
                cosine = history[i] @ history[j] / (np.linalg.norm(history[i]) * np.linalg.norm(history[j]))
                likeness[i, j] = max(0.0, cosine)
    most = likeness.max(axis=1)
    for i in range(count):
        for j in range(count):
            if most[j] > most[i]:
                likeness[i, j] *= most[i] / most[j]
    own = 1 - likeness.max(axis=1)
    own = own / own.max()
    with np.errstate(divide="ignore"):
        out: np.ndarray = np.clip(kappa * (np.log(own / (1 - own)) + 0.5), 0, 1)
        return out


@pytest.mark.parametrize("kappa", [0.5, 1.0])
def test_foolsgold_is_the_published_one(kappa: float) -> None:
    rng = np.random.default_rng(0)
    history, w = np.zeros((9, 5)), np.zeros(5)
    rounds = []
    for number in range(4):
        who = sorted(rng.permutation(9)[:5].tolist())
        moves = rng.normal(size=(5, 5))
        if number:
            # two that move alike, and one that has something of both
            moves[1] = moves[0] + 0.1 * moves[1]
            moves[2] = moves[2] + 0.5 * moves[0]
        rounds.append((moves.astype(np.float32), who))
    weighed = []
    for (moved, who), after in zip(rounds, follow(FoolsGold(kappa=kappa), rounds), strict=True):
        history[who] += moved
        weights = fools(history[who], kappa)
        w = w + weights @ moved / weights.sum()
        np.testing.assert_allclose(after, w, rtol=1e-4, atol=1e-4)
        weighed += weights.tolist()
    assert any(0 < weight < 1 for weight in weighed)
    assert {0.0, 1.0} <= set(weighed)


def test_sybils_of_one_attacker_lose_their_weight() -> None:
    rng = np.random.default_rng(1)
    attack = rng.normal(size=20)
    moves = np.concatenate([np.eye(20)[:5] * 3, np.tile(attack, (4, 1))]).astype(np.float32)
    after = follow(FoolsGold(), [(moves, list(range(9)))])[0]
    np.testing.assert_allclose(after, moves[:5].mean(0), atol=1e-5)
    assert not np.allclose(aggregate(FedAvg(), moves), moves[:5].mean(0), atol=0.1)


def test_histories_are_what_is_compared_not_single_updates() -> None:
    """Two clients that agree today are no attacker if they never agreed before."""
    first = np.array([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]], dtype=np.float32)
    second = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=np.float32)
    with_past = follow(FoolsGold(), [(first, [0, 1, 2]), (second, [0, 1, 2])])
    np.testing.assert_allclose(with_past[1] - with_past[0], second.mean(0), atol=1e-5)
    np.testing.assert_allclose(follow(FoolsGold(), [(second, [0, 1, 2])])[0], second[2], atol=1e-6)
    # a past is its client's, whatever its place in the cohort
    moved = follow(FoolsGold(), [(first, [0, 1, 2]), (second, [3, 4, 5])])
    np.testing.assert_allclose(moved[1] - moved[0], second[2], atol=1e-6)


def test_identical_updates_all_lose_their_weight() -> None:
    rng = np.random.default_rng(2)
    for scale in (1.0, np.array([[1.0], [2.0], [0.3]])):
        moves = (np.tile(rng.normal(size=6), (3, 1)) * scale).astype(np.float32)
        np.testing.assert_allclose(follow(FoolsGold(), [(moves, [0, 1, 2])])[0], 0.0, atol=1e-3)
    still = np.zeros((3, 6), dtype=np.float32)
    assert follow(FoolsGold(), [(still, [0, 1, 2])])[0].tolist() == [0.0] * 6
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    assert follow(FoolsGold(), [(opposite, [0, 1])])[0].tolist() == [0.0, 0.0]
    mixed = np.array([[1.0, 0.0], [-1.0, 0.5]], dtype=np.float32)
    np.testing.assert_allclose(follow(FoolsGold(), [(mixed, [0, 1])])[0], [0.0, 0.25], atol=1e-6)
