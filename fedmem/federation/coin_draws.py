"""Draws of inclusion coins: which audit examples, and which clients, are in which run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.errors import ComponentError
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def draw_coins(scenario: Scenario, count: int, rates: FloatArray | None) -> BoolArray:
    """(R, count) coins of examples, the same for twins, by the law of the scenario.

    The first R / twins runs have those of a scenario of so many runs. Coins are drawn example by example, so that
    another injection at the end leaves the coins of the earlier ones as they are.

    Args:
        scenario: Its `coins`, runs, twins and seed.
        count: Number of examples.
        rates: (R,) of `draw_rates`.
    """
    rows, rng = scenario.runs // scenario.twins, stream(scenario.seed, "coins")
    if rates is None:
        coins = flip(rows, count, rng, scenario.coins.rate)
    else:
        coins = (rng.random((count, rows)) < rates[:rows]).T
    return np.tile(coins, (scenario.twins, 1))


def draw_one_of(scenario: Scenario, owner: IntArray | NDArray[np.int32], *, is_shared: bool) -> BoolArray:
    """(R, m) coins under `one_of`: of the examples of each owner, one is in in each run; the same for twins.

    An example is in in as many runs as any other of its owner, or in one more. Owners are drawn independently.

    Args:
        scenario: Its runs, twins and seed.
        owner: (m,) the owning client of each example.
        is_shared: Whether examples have a coin together, or an example has several owners.

    Errors: `ComponentError` where examples share coins or owners, have no owner, or are the only one of it, and where
    there are fewer runs than examples.
    """
    rows = scenario.runs // scenario.twins
    clients, counts = np.unique(owner, return_counts=True)
    if is_shared or (len(owner) and clients[0] < 0):
        raise ComponentError(
            "coins.law",
            "one_of draws one example of each owning client, but some are in or out together, or have no owning client "
            "or several. Use injections with one owner and `included: each`",
        )
    if not len(owner) or counts.min() < 2 or counts.max() > rows:
        raise ComponentError(
            "coins.law",
            "one_of draws one example of each owning client, which needs at least two and no more than runs without "
            f"twins ({rows}). Here they are {counts.tolist()}",
        )
    coins = np.zeros((rows, len(owner)), dtype=bool)
    for client in clients.tolist():
        rng, examples = stream(scenario.seed, "one of", client=client), np.flatnonzero(owner == client)
        dealt = rng.permutation(np.resize(rng.permutation(len(examples)), rows))
        coins[np.arange(rows), examples[dealt]] = True
    return np.tile(coins, (scenario.twins, 1))


def draw_client_coins(scenario: Scenario, count: int) -> BoolArray:
    """(R, count) coins of clients, which are always balanced; the same for twins."""
    coins = flip(scenario.runs // scenario.twins, count, stream(scenario.seed, "client coins"))
    return np.tile(coins, (scenario.twins, 1))


def draw_rates(scenario: Scenario) -> FloatArray | None:
    """(R,) the inclusion rates of runs under `owen` and `beta`, the same for twins; None under another law."""
    law = scenario.coins.as_law
    if not law.varies:
        return None
    uniform = draw_from_strata(scenario.runs // scenario.twins, stream(scenario.seed, "inclusion rates"))
    return np.tile(uniform if law.law == "owen" else beta_quantiles(uniform, law.alpha, law.beta), scenario.twins)


def draw_from_strata(count: int, rng: np.random.Generator) -> FloatArray:
    """(count,) numbers in (0, 1), one at random in each of `count` equal strata, in random order.

    Each of them is uniform, so that means over them have no bias, and together they are spread evenly.

    >>> sorted((draw_from_strata(4, np.random.default_rng(0)) * 4).astype(int).tolist())
    [0, 1, 2, 3]
    """
    return np.asarray((rng.permutation(count) + rng.random(count)) / count)


def beta_quantiles(uniform: FloatArray, alpha: float, beta: float) -> FloatArray:
    """The quantiles of Beta(beta, alpha) at these numbers: the inclusion rates of the Beta(alpha, beta)-Shapley value.

    A large alpha weights small sets of examples.

    >>> beta_quantiles(np.array([0.5]), 16.0, 1.0).round(3).tolist()
    [0.042]
    """
    from scipy.special import betaincinv

    return np.asarray(betaincinv(beta, alpha, uniform), dtype=np.float64)


def flip(runs: int, count: int, rng: np.random.Generator, rate: float | None = None) -> BoolArray:
    """(runs, count) coins: each column is independent of the others, with exactly round(rate * runs) ones.

    Without a rate that is half of the runs, which are 1 or even in number. A single run has fair coins, or coins with
    this probability.
    """
    if runs == 1:
        return rng.random((1, count)) < (0.5 if rate is None else rate)
    assert rate is not None or runs % 2 == 0, "the scenario admits 1 or an even number of runs"
    row = np.arange(runs) % 2 == 0 if rate is None else np.arange(runs) < round(rate * runs)
    return np.ascontiguousarray(rng.permuted(np.tile(row, (count, 1)), axis=1).T)
