"""Small games whose semivalues are known, and semivalues by enumeration of their definition."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from math import comb, factorial

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import beta as beta_function
from scipy.special import betaln

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.coin_law import CoinLaw

Game = Callable[[BoolArray], FloatArray]
"""Coins (R, m) -> utilities (R,)."""


def glove(coins: BoolArray) -> FloatArray:
    """One left glove and two right ones; a pair is worth 1."""
    return (coins[:, 0] & (coins[:, 1] | coins[:, 2])).astype(np.float64)


def additive(coins: BoolArray) -> FloatArray:
    """Player j adds j, so that player 0 is a dummy."""
    return coins @ np.arange(coins.shape[1], dtype=np.float64)


def table_game(m: int, seed: int) -> Game:
    """A random utility for each set."""
    values = np.random.default_rng(seed).normal(size=2**m)
    return lambda coins: values[coins @ (2 ** np.arange(m))]


def sets_of(m: int) -> BoolArray:
    """(2^m, m) all sets."""
    return np.array(list(product([False, True], repeat=m)), dtype=bool)


def shapley(game: Game, m: int) -> FloatArray:
    """The mean marginal contribution over all orders."""
    total = np.zeros(m)
    for order in permutations(range(m)):
        coins = np.zeros((m + 1, m), dtype=bool)
        for step, player in enumerate(order):
            coins[step + 1 :, player] = True
        total[list(order)] += np.diff(game(coins))
    return total / factorial(m)


def marginals(game: Game, m: int) -> FloatArray:
    """(m, m) the mean marginal contribution of each player to sets of 0, ..., m − 1 others."""
    sums = np.zeros((m, m))
    coins = sets_of(m)
    for player in range(m):
        without = coins[~coins[:, player]]
        added = without.copy()
        added[:, player] = True
        np.add.at(sums[player], without.sum(1), game(added) - game(without))
    return sums / [comb(m - 1, size) for size in range(m)]


def beta_shapley(game: Game, m: int, law: CoinLaw) -> FloatArray:
    """By the weights m B(j + β − 1, m − j + α) / B(α, β) × C(m − 1, j − 1) of Kwon and Zou, over sizes j − 1."""
    j = np.arange(1, m + 1)
    weights = np.exp(betaln(j + law.beta - 1, m - j + law.alpha)) / beta_function(law.alpha, law.beta)
    return marginals(game, m) @ (weights * [comb(m - 1, size - 1) for size in j.tolist()])


def chances(coins: BoolArray, law: CoinLaw) -> FloatArray:
    """The probability of each set, for a rate from Beta(β, α)."""
    sizes, m = coins.sum(1), coins.shape[1]
    return np.asarray(
        np.exp(betaln(law.beta + sizes, law.alpha + m - sizes) - betaln(law.beta, law.alpha)), dtype=np.float64
    )


def by_integral(game: Game, m: int, law: CoinLaw) -> FloatArray:
    """∫ (E[U | in] − E[U | out]) dμ(q) with Gauss and Legendre's rule, exact for whole parameters."""
    nodes, weights = leggauss(40)
    coins, total = sets_of(m), np.zeros(m)
    utilities = game(coins)
    for q, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        density = q ** (law.beta - 1) * (1 - q) ** (law.alpha - 1) / beta_function(law.beta, law.alpha)
        mass = q ** coins.sum(1) * (1 - q) ** (m - coins.sum(1))
        for player in range(m):
            inside = coins[:, player]
            gap = (mass * utilities)[inside].sum() / q - (mass * utilities)[~inside].sum() / (1 - q)
            total[player] += weight * density * gap
    return total
