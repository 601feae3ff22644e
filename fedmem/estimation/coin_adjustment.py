"""Lower the noise of in − out differences: subtract what the coins of other examples explain, without bias.

Runs differ in which other examples are in. What that does to the outcome y of example j is noise for the difference of
its in and out runs. It is predicted from the coins of the others, and the prediction is subtracted:

    adjusted_j = mean over in runs of (y − f) − mean over out runs of (y − f).

The prediction f is linear in features of the coins of the others, which are chosen before any outcome is seen. They
count the examples that are in, among those of the same owner, and among the nearest ones to j by their inputs. Examples
with the same label as j and those with other labels are counted separately.

Why it has no bias. The in runs of j are divided at random into K parts, and the out runs as well. A fold is one part of
each, and f is fitted on the runs outside the fold. Given these runs, their coins and their outcomes, f is a fixed
function of the coins of others. Every way in which the coins of j could have fallen inside the fold is equally likely.
None of them changes the coins of others. So the mean of f over in runs of the fold and that over out runs have the same
expectation. This holds for any outcome, linear or not. A fit on all runs would know the outcomes that it corrects. With
more in than out runs in a fold, f would remove part of the effect of j.

Coefficients are the same for all examples of a kind, since a few runs cannot tell those of single examples apart. They
are in units of the spread of each outcome in the training runs.
"""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.estimation.twins import coins_of_rows

FOLDS = 4
"""K, where there are so many in runs."""

_NEAREST = (2, 6, 16)
"""How many of the nearest examples are in the first feature, in the first two, and in the first three."""

_SHRINKAGE = 5.0
"""The ridge of each coefficient: as if the coins of others explained a fifth of the variance."""

_BLOCK = 2**23
"""Numbers that are handled at once."""


def features_of(audit: AuditSet, rows: IntArray) -> FloatArray:
    """(G, n, F) features of the coins of all other examples, for the examples `rows`, in each coin row.

    Each is centred, and divided by its standard deviation under fair coins. No feature of an example depends on its own
    coin, nor on any outcome. Features that would be empty for all examples are left out.
    """
    coins = (coins_of_rows(audit) - 0.5) * 1.0
    features = []
    for chosen in _groups(audit, rows):
        size = float(chosen.sum(1).mean())
        if size > 0:
            features.append(coins @ chosen.T.astype(np.float64) / np.sqrt(size / 4))
    return np.stack(features, axis=-1) if features else np.zeros((len(coins), len(rows), 0))


def _groups(audit: AuditSet, rows: IntArray) -> list[BoolArray]:
    """(n, m) each: which other examples a feature counts."""
    labels, inputs = audit.examples.labels, audit.examples.inputs
    is_other = rows[:, None] != np.arange(len(audit))
    alike = labels[rows][:, None] == labels
    sides = [is_other & alike, is_other & ~alike]
    owner = (audit.owner[rows][:, None] == audit.owner) & (audit.owner >= 0)
    groups = [side & owner for side in sides]
    if inputs.dtype.kind != "f" or not inputs[0].size:
        return groups  # tokens have no distance
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    squares = np.square(flat).sum(1)
    distance = squares[rows][:, None] + squares - 2 * flat[rows] @ flat.T
    for side in sides:
        order = np.argsort(np.where(side, distance, np.inf), axis=1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
        groups += [
            side & (place >= start) & (place < stop) for start, stop in zip((0, *_NEAREST[:-1]), _NEAREST, strict=True)
        ]
    return groups


def balanced_folds(is_in: BoolArray, order: IntArray, folds: int = FOLDS) -> IntArray:
    """(G, n) the fold of each run, with as many in as out runs in each fold; −1 for an example that cannot have any.

    Args:
        is_in: (G, n) coins.
        order: (G,) a random order of the runs, drawn independently of coins and outcomes.
        folds: The most folds.

    Examples:
        >>> coins = np.array([[1, 1], [1, 1], [0, 0], [0, 1]], dtype=bool)
        >>> balanced_folds(coins, np.array([2, 0, 1, 3])).T.tolist()
        [[0, 1, 0, 1], [-1, -1, -1, -1]]
    """
    ordered = is_in[order]
    number = np.where(ordered, np.cumsum(ordered, axis=0), np.cumsum(~ordered, axis=0)) - 1
    half = is_in.sum(0)
    is_even = (half == len(is_in) - half) & (half > 1)
    found = np.empty(is_in.shape, dtype=np.int64)
    found[order] = np.where(is_even, number % np.minimum(folds, np.maximum(half, 1)), -1)
    return found


def adjust(values: FloatArray, is_in: BoolArray, features: FloatArray, folds: IntArray) -> FloatArray:
    """(G, n) values minus what the features predict, each predicted from the runs outside its fold.

    Args:
        values: (G, n) outcomes of the examples of a kind. An example with a value that is missing stays as it is.
        is_in: (G, n) their coins.
        features: (G, n, F) as `features_of` has them.
        folds: (G, n) as `balanced_folds` has them.
    """
    usable = np.flatnonzero(~np.isnan(values).any(0) & (folds >= 0).all(0))
    adjusted = values.copy()
    if not len(usable) or not features.shape[-1]:
        return adjusted
    y, coins, z, fold = values[:, usable], is_in[:, usable], features[:, usable], folds[:, usable]
    pairs = [(column, number) for column in range(len(usable)) for number in np.unique(fold[:, column]).tolist()]
    step = max(1, _BLOCK // (len(usable) * z.shape[-1]))
    for start in range(0, len(pairs), step):
        block = pairs[start : start + step]
        training = np.stack([fold[:, column] != number for column, number in block]).astype(np.float64)
        coefficients, spread = _fit(y, coins, z, training)
        for (column, number), beta, scale in zip(block, coefficients, spread, strict=True):
            inside = fold[:, column] == number
            adjusted[inside, usable[column]] -= scale[column] * (z[inside, column] @ beta)
    return adjusted


def _fit(y: FloatArray, coins: BoolArray, z: FloatArray, training: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(J, F) coefficients and (J, n) spreads of outcomes from each of J sets of training runs (J, G).

    The mean over in runs and that over out runs are subtracted from outcomes and features of each example.
    """
    runs, n, count = z.shape
    products, crossed = np.zeros((len(training), count, count)), np.zeros((len(training), n, count))
    squares = np.zeros((len(training), n))
    for side in (coins, ~coins):
        size = np.maximum(training @ side, 1.0)
        side_y, side_z = np.where(side, y, 0.0), np.where(side[..., None], z, 0.0)
        of_y = training @ side_y
        of_z = (training @ side_z.reshape(runs, -1)).reshape(len(training), n, count)
        both = np.einsum("rif,rig->rfg", side_z, side_z).reshape(runs, -1)
        products += (training @ both).reshape(-1, count, count) - np.einsum("jif,jig,ji->jfg", of_z, of_z, 1 / size)
        with_y = (training @ (side_z * side_y[..., None]).reshape(runs, -1)).reshape(len(training), n, count)
        crossed += with_y - of_z * (of_y / size)[..., None]
        squares = squares + training @ np.square(side_y) - np.square(of_y) / size
    spread = np.sqrt(np.maximum(squares, 0.0) / training.sum(1, keepdims=True))
    known = spread > 1e-9 * (np.abs(y).max(0) + 1e-300)
    total = np.einsum("jif,ji->jf", crossed, np.where(known, 1 / np.where(known, spread, 1.0), 0.0))
    ridge = _SHRINKAGE * count * np.eye(count)
    return np.linalg.solve(products + ridge, total[..., None])[..., 0], np.where(known, spread, 0.0)
