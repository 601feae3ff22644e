"""Whether values of clients that a single run gives rank clients as retraining without them does.

Runs leave each client out at random. The value by retraining is the mean utility of the runs with the client minus that
of the runs without it (Banzhaf value). A value that is computed in a run exists where the run has the client.

Both share the noise of their runs, since the values of all rounds of a run sum to its utility. A client whose runs
happen to be good has large values of both kinds. So runs are split into halves, and

    split = mean over halvings and both crossings of ρ(values from one half, values by retraining from the other),

with ρ Spearman's correlation over clients. It is 0 without a relation, and too small with one, since halves are noisy.
`corrected` divides it by the square root of both reliabilities; see `rank_agreement`.

Test examples are not split. Both values are about the utility on the same test examples, and not on others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.rank_agreement import Halves, RankAgreement, Ranks, Resampling, rank_agreement
from fedmem.estimation.statistics import jackknife

FEWEST = 4
"""The fewest clients whose ranks are compared."""


@dataclass(frozen=True, kw_only=True)
class ClientAgreement:
    """The agreement of ranks over n clients.

    `low` and `high` are the interval of `split`, by a jackknife over clients. `ranks` has p by shuffled clients, the
    corrected correlation with its interval, and both reliabilities.
    """

    n: int
    split: float
    low: float
    high: float
    ranks: RankAgreement


def client_agreement(
    values: FloatArray,
    utility: FloatArray,
    client_in: BoolArray,
    rng: np.random.Generator,
    *,
    halvings: int = 20,
    coin_rows: IntArray | None = None,
) -> ClientAgreement | None:
    """The agreement of values (R, N) of clients in runs with those by retraining, from utilities (R,).

    A client counts that is in and out in two runs or more of each half, in each halving. None with fewer clients than
    `FEWEST`.

    Args:
        values: (R, N), NaN where there is none; runs without the client do not count.
        utility: (R,), NaN where the model has diverged.
        client_in: (R, N) whether a run has a client.
        rng: Draws the halvings and the shuffles.
        halvings: Number of halvings.
        coin_rows: (R,) equal for twins, which are in the same half.
    """
    halves = Halves.draw(client_in, halvings, rng, coin_rows)
    of_values = halves.means(values, "in")
    by_retraining = halves.means(np.repeat(utility[:, None], client_in.shape[1], axis=1), "gain")
    is_usable = np.isfinite(of_values).all((0, 1)) & np.isfinite(by_retraining).all((0, 1))
    n = int(is_usable.sum())
    if n < FEWEST:
        return None
    of_values, by_retraining = of_values[..., is_usable], by_retraining[..., is_usable]
    resampling = Resampling.draw(np.arange(n), rng)
    first, second = (Ranks.of(quantity, resampling.weights) for quantity in (by_retraining, of_values))
    ranks = rank_agreement(first, second, resampling.shuffles)
    without = np.array(
        [crossed_correlation(np.delete(by_retraining, k, axis=-1), np.delete(of_values, k, axis=-1)) for k in range(n)]
    )
    low, high = (
        float(np.clip(end, -1.0, 1.0)) if math.isfinite(end) else math.nan for end in jackknife(ranks.split, without)
    )
    return ClientAgreement(n=n, split=ranks.split, low=low, high=high, ranks=ranks)


def crossed_correlation(first: FloatArray, second: FloatArray) -> float:
    """Mean rank correlation of two quantities (2, H, n), each from the half of the runs that the other is not from.

    Where all values are equal, the correlation is 0.

    >>> rising = np.arange(3.0) * np.ones((2, 1, 1))
    >>> round(crossed_correlation(rising, rising), 9), round(crossed_correlation(rising, -rising), 9)
    (1.0, -1.0)
    """
    from scipy.stats import rankdata

    ranks = [rankdata(quantity, axis=-1) for quantity in (first, second)]
    centred = [rank - rank.mean(axis=-1, keepdims=True) for rank in ranks]
    lengths = [np.sqrt(np.square(rank).sum(axis=-1, keepdims=True)) for rank in centred]
    one, two = (
        np.divide(rank, length, out=np.zeros_like(rank), where=length > 0)
        for rank, length in zip(centred, lengths, strict=True)
    )
    return float((one * two[::-1]).sum(axis=-1).mean())
