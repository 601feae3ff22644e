"""Strategies that weigh clients by who they are like, or when they were last heard, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from strategies.fedavg import FedAvg
from strategies.foolsgold import FoolsGold
from strategies.rotate import Rotate
from strategies.typicality import Typicality
from tests.strategies.test_strategies import aggregate, one_round


def follow(strategy: Any, rounds: list[tuple[np.ndarray, list[int]]], clients: int = 9) -> list[np.ndarray]:
    """The model after each round, from zero; updates instead of models."""
    model = torch.zeros(rounds[0][0].shape[1])
    state, after = strategy.state({"w": model[None]}, clients), []
    for number, (moves, who) in enumerate(rounds, start=1):
        sent = model.numpy() + moves
        found, state = strategy.rule(state, one_round(sent, before=model, number=number, clients=who))
        model = found["w"][0]
        after.append(model.numpy())
    return after


# --- FoolsGold --------------------------------------------------------------------------------------------------------


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


def test_hands_of_one_attacker_lose_their_weight() -> None:
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


def test_when_all_are_alike_nobody_is_heard() -> None:
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


# --- typicality -------------------------------------------------------------------------------------------------------


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


def test_the_atypical_client_loses_weight_as_stated_and_gains_it_below_zero() -> None:
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


def test_who_has_nothing_to_be_compared_with_agrees_by_0() -> None:
    assert aggregate(Typicality(), [[3.0, 1.0]], before=np.zeros(2)).tolist() == [3.0, 1.0]
    # the middle one did not move, and the two others are each other's opposite
    got = aggregate(Typicality(beta=1.0), [[2.0], [0.0], [-2.0]], before=[0.0])
    assert got[0] == pytest.approx(0.0, abs=1e-6)
    still = aggregate(Typicality(beta=1.0), [[1.0], [0.0]], before=[0.0])
    assert still[0] == pytest.approx(0.5, rel=1e-5)


# --- rotate -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [0, 1, 3])
def test_who_counted_rests(rest: int) -> None:
    rng = np.random.default_rng(5)
    last: dict[int, int] = {}
    w, turns = np.zeros(4), []
    rounds = [(rng.normal(size=(4, 4)).astype(np.float32), sorted(rng.permutation(9)[:4].tolist())) for _ in range(12)]
    for number, ((moves, who), after) in enumerate(zip(rounds, follow(Rotate(rest=rest), rounds), strict=True), 1):
        counted = [k for k, client in enumerate(who) if client not in last or number - last[client] > rest]
        last |= {who[k]: number for k in counted}
        w = w + moves[counted].mean(0) if counted else w
        np.testing.assert_allclose(after, w, rtol=1e-4, atol=1e-5)
        turns.append(len(counted))
    assert (min(turns) == 4) == (rest == 0)


def test_where_all_rest_the_model_is_kept() -> None:
    moves = np.ones((3, 2), dtype=np.float32)
    after = follow(Rotate(rest=2), [(moves, [0, 1, 2])] * 7)
    assert [model[0] for model in after] == [1, 1, 1, 2, 2, 2, 3]


def test_no_rest_is_fedavg_to_the_last_bit() -> None:
    rng = np.random.default_rng(6)
    strategy, plain = Rotate(rest=0), FedAvg()
    state = strategy.state({"w": torch.zeros((1, 30))}, 5)
    for number in range(1, 4):
        round_number = one_round(rng.normal(size=(5, 30)), sizes=[3, 1, 4, 1, 5], number=number)
        after, state = strategy.rule(state, round_number)
        assert torch.equal(after["w"], plain.rule({}, round_number)[0]["w"])


# --- who sends no numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [FoolsGold(), Typicality()], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_is_not_finite_counts_as_absent(strategy: Any, bad: float) -> None:
    rng = np.random.default_rng(7)
    sent, before = rng.normal(size=(6, 4)), rng.normal(size=4)
    state = strategy.state({"w": torch.zeros((1, 4))}, 6)
    kept, left = strategy.rule(state, one_round(sent[1:], before=before, clients=range(1, 6)))
    sent[0, 2] = bad
    got, later = strategy.rule(state, one_round(sent, before=before))
    assert torch.equal(got["w"], kept["w"])
    assert all(torch.equal(later[name], left[name]) for name in left)
    nobody = strategy.rule(state, one_round(np.full((3, 4), bad), before=before))[0]["w"]
    assert np.array_equal(nobody[0].numpy(), before.astype(np.float32))
