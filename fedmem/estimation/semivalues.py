"""Semivalues of audit examples from runs with random inclusion.

The players are the m coin groups. S is the set of those that are in, and U(S) a utility of the model. A semivalue of
player j weights its marginal contributions by the law of an inclusion rate q. Given q, all others are in independently:

    φ_j = ∫ (E[U | j in] − E[U | j out]) dμ(q).

At q = 1/2 it is the Banzhaf value, and with q ~ U(0, 1) the Shapley value. With q ~ Beta(β, α) it is the
Beta(α, β)-Shapley value (Kwon and Zou, 2022). Where all runs have one rate, the mean of U over in runs minus that over
out runs has no bias.

Where rates vary, that difference would compare runs with many and with few examples. E[(in/q − out/(1 − q)) U] is φ_j,
but its variance grows without end as q comes near 0 or 1. The size s of S says all about q that S says. The mean of
this weight given S has the same expectation and less variance:

    w_j(S) = (α + β + m − 1) (in / (β + s − 1) − out / (α + m − s − 1)).

A curve f(s) of utility against size takes off what all examples share, as a control variate. Its own semivalue is known
and added again, so that any fixed f leaves no bias:

    φ_j = E[w_j(S) (U − f(s))] + Σ_t P(t) (f(t + 1) − f(t)),

where P is the law of the size of m − 1 players. Here f is a polynomial of degree 1 to 4, the higher the more runs there
are. It is fitted to the other runs by least squares. In a simulated game with a utility that is concave in size, the
standard deviation was a thirtieth of that without a curve.

Reference: Castro, Gómez and Tejada (2009), for sampling. Owen (1972), for the integral over q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.coin_law import CoinLaw

_FEWEST_RUNS = (5, 12, 24, 64)
"""The fewest runs to which a curve of degree 1, 2, 3 and 4 is fitted; to fewer runs a constant."""

_FEWEST_ON_A_SIDE = 3
"""The fewest runs with an example, and without it, for which its interval held its level in simulations."""


def size_weights(is_in: BoolArray, sizes: IntArray, players: int, law: CoinLaw) -> FloatArray:
    """The weights w_j(S) of examples, of the same shape (..., R, n) as the coins.

    Args:
        is_in: (..., R, n) coins of examples.
        sizes: (..., R) how many players are in.
        players: m.
        law: A law with rates that vary.

    Examples:
        >>> size_weights(np.array([[True, False]]), np.array([1]), 2, CoinLaw(law="owen")).tolist()
        [[3.0, -3.0]]
    """
    inside, outside = _scales(sizes, players, law)
    return np.where(is_in, inside[..., None], -outside[..., None])


def mean_weights(num_in: FloatArray, count: int, sizes: IntArray, players: int, law: CoinLaw) -> FloatArray:
    """(..., R) the mean of the weights of `count` examples of which `num_in` (..., R) are in."""
    inside, outside = _scales(sizes, players, law)
    return np.asarray((num_in * inside - (count - num_in) * outside) / count)


def _scales(sizes: IntArray, players: int, law: CoinLaw) -> tuple[FloatArray, FloatArray]:
    """E[1/q] and E[1/(1 − q)] given the size; 0 where nobody is in, and nobody out, so that no weight needs them."""
    total = law.alpha + law.beta + players - 1
    inside, outside = law.beta + sizes - 1.0, law.alpha + players - sizes - 1.0
    is_some, is_less = sizes > 0, sizes < players
    return (
        np.where(is_some, total / np.where(is_some, inside, 1.0), 0.0),
        np.where(is_less, total / np.where(is_less, outside, 1.0), 0.0),
    )


def degree_of_curve(runs: int, players: int, law: CoinLaw) -> int:
    """The degree of the curve of utility against size: lower where runs are few, or sizes hardly differ.

    >>> owen = CoinLaw(law="owen")
    >>> [degree_of_curve(runs, 100, owen) for runs in (4, 8, 16, 32, 64)], degree_of_curve(64, 3, owen)
    ([0, 1, 2, 3, 4], 2)
    """
    from scipy.stats import betabinom

    low, high = (float(betabinom.ppf(at, players, law.beta, law.alpha)) for at in (0.1, 0.9))
    return min(sum(runs >= fewest for fewest in _FEWEST_RUNS), max(int(high - low) - 1, 0))


def _basis(sizes: IntArray, players: int, law: CoinLaw, degree: int) -> FloatArray:
    """(..., degree + 1) powers of the place −1 to 1 of a size in the law of rates, where runs lie evenly."""
    from scipy.special import betainc

    place = 2 * betainc(law.beta, law.alpha, sizes / players) - 1
    return np.asarray(place[..., None] ** np.arange(degree + 1))


def slopes_of_powers(players: int, law: CoinLaw, degree: int) -> FloatArray:
    """(degree + 1,) the semivalue of a player in the games whose utility is each power of the curve.

    >>> slopes_of_powers(4, CoinLaw(law="owen"), 1).tolist()  # 2 s/4 − 1
    [0.0, 0.5]
    """
    from scipy.stats import betabinom

    others = np.arange(players)
    mass = betabinom.pmf(others, players - 1, law.beta, law.alpha) if players > 1 else np.ones(1)
    return np.asarray(mass @ (_basis(others + 1, players, law, degree) - _basis(others, players, law, degree)))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The curve of utility against size, fitted without one run at a time.

    Attributes:
        rest: (..., R) U − f(s) of each run, with f from all other runs.
        shared: (..., R) the semivalue of f without each run.
        pulls: (..., R, K) the change of each coefficient of f by each run.
        design: (..., R, K) the powers.
        slopes: (K,) of `slopes_of_powers`.
    """

    rest: FloatArray
    shared: FloatArray
    pulls: FloatArray
    design: FloatArray
    slopes: FloatArray


def fit_curve(utilities: FloatArray, sizes: IntArray, players: int, law: CoinLaw) -> Curve:
    """Fits utilities (R,) against sizes (..., R) by least squares, without each run."""
    degree = degree_of_curve(len(utilities), players, law)
    design = _basis(sizes, players, law, degree)
    # a little ridge, for deals in which all sizes are alike; otherwise it changes nothing but rounding
    gram = np.swapaxes(design, -1, -2) @ design + 1e-10 * np.eye(degree + 1)
    moves = design @ np.linalg.inv(gram)
    middle = float(utilities.mean())
    coefficients = np.einsum("...rk,r->...k", moves, utilities - middle)
    leverage = np.clip((moves * design).sum(-1), 0.0, 1 - 1e-9)
    rest = (utilities - middle - np.einsum("...rk,...k->...r", design, coefficients)) / (1 - leverage)
    pulls = moves * rest[..., None]
    slopes = slopes_of_powers(players, law, degree)
    shared = (coefficients @ slopes)[..., None] - pulls @ slopes
    return Curve(rest=rest, shared=shared, pulls=pulls, design=design, slopes=slopes)


def semivalues(utilities: FloatArray, is_in: BoolArray, sizes: IntArray, players: int, law: CoinLaw) -> FloatArray:
    """(n,) estimates of φ from utilities (R,), the coins (R, n) of some examples and the sizes (R,).

    >>> coins = np.array([[False], [True], [False], [True]])
    >>> semivalues(np.full(4, 0.7), coins, coins.sum(1), 1, CoinLaw(law="owen")).tolist()
    [0.0]
    """
    curve = fit_curve(utilities, sizes, players, law)
    weights = size_weights(is_in, sizes, players, law)
    return np.asarray((weights * curve.rest[:, None] + curve.shared[:, None]).mean(0))


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """Semivalues, and what each run adds to them.

    Attributes:
        values: (n,) the semivalues.
        changes: (R, n) the first-order change of each by each run. They sum to 0 over runs, and the variance of a
            semivalue is about the sum of their squares.
        low, high: (n,) intervals at 95 % by Student's t. The degrees of freedom are the effective number of runs,
            (Σ c²)² / Σ c⁴. NaN for an example with fewer than three runs in, or out.
    """

    values: FloatArray
    changes: FloatArray
    low: FloatArray
    high: FloatArray


def contributions(
    utilities: FloatArray, is_in: BoolArray, sizes: IntArray, players: int, law: CoinLaw
) -> Contributions:
    """The semivalues of some examples from utilities (R,), their coins (R, n) and the sizes (R,)."""
    from scipy.special import stdtrit

    curve = fit_curve(utilities, sizes, players, law)
    weights = size_weights(is_in, sizes, players, law)
    runs, degree = len(utilities), len(curve.slopes) - 1
    values = (weights * curve.rest[:, None] + curve.shared[:, None]).mean(0)
    # the curve moves the semivalue by its own semivalue, minus what the runs at hand took off
    sensitivity = curve.slopes[:, None] - np.einsum("rn,rk->kn", weights, curve.design) / runs
    changes = weights * curve.rest[:, None] / runs + curve.pulls @ sensitivity
    changes = (changes - changes.mean(0)) * math.sqrt(runs / max(runs - 1, 1))
    square = np.square(changes).sum(0)
    fewest = np.minimum(is_in.sum(0), (~is_in).sum(0))
    is_known = (fewest >= _FEWEST_ON_A_SIDE) & (square > (1e-12 * np.abs(utilities).max(initial=0.0)) ** 2)
    effective = square**2 / np.where(is_known, (changes**4).sum(0), 1.0)
    freedom = np.maximum(np.minimum(effective, runs - 1 - degree), 1.0)
    half = np.where(is_known, stdtrit(freedom, 0.975) * np.sqrt(square), math.nan)
    return Contributions(values=values, changes=changes, low=values - half, high=values + half)


def mean_semivalue(
    utilities: FloatArray, num_in: FloatArray, count: int, sizes: IntArray, players: int, law: CoinLaw
) -> FloatArray:
    """(...,) the mean of the semivalues of `count` examples, for each deal of coins.

    Args:
        utilities: (R,) the same under all deals.
        num_in: (..., R) how many of the examples are in.
        count: The number of examples.
        sizes: (..., R) how many players are in.
        players: m.
        law: A law with rates that vary.
    """
    curve = fit_curve(utilities, sizes, players, law)
    weights = mean_weights(num_in, count, sizes, players, law)
    return np.asarray((weights * curve.rest + curve.shared).mean(-1))
