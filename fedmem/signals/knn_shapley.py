"""KNN-Shapley: the Shapley value of an example for a classifier by nearest neighbours, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._support import choose_rows, own_rows, trained_support


@dataclass(frozen=True, kw_only=True)
class KnnShapley(ObservedRounds):
    """The value of an example among the rows that a client trains on, if test rows are classified by K neighbours.

    The players are N rows: the example, and the rows that the client of a model trains on in that run and round. Labels
    are those of training. At the aggregate these are the rows of all clients, which no server has. The example is there
    whether or not its run trains on it. Its other copies never are. U(S) is the share of the K nearest rows in S that
    have the label of a test row. Each row counts 1/K, also where S has fewer than K. Neighbours are by Euclidean
    distance of features after the last hidden block. Sorted from the nearest, the values for one test row are

        v_N = 1[y_N = y] min(K, N) / (N K),
        v_i = v_{i+1} + (1[y_i = y] − 1[y_{i+1} = y]) / K × min(K, i) / i.

    The signal is the mean over test rows, from −1/K to 1/K. It is below 0 for an example that takes the place of better
    neighbours, such as one with a wrong label. The values of all N rows sum to U of all. An example comes after rows
    that are exactly as near. NaN where features are not finite. Local models are read for the examples of their own
    clients.

    Fields

    - `k`: the number K of neighbours.
    - `rows`: how many rows of clients at most. From more, rows are drawn at random, the same for all rounds.
    - `test_rows`: how many test rows at most, drawn at random, the same for all models.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> KnnShapley().k
    5

    Reference: Jia et al. (2019), Efficient task-specific data valuation for nearest neighbor algorithms.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="knn_shapley",
            title="KNN-Shapley",
            means="The Shapley value of the example for classifying test rows by their nearest training rows.",
            is_not="It is about neighbours in features, not about training on the example.",
            range=(-1.0, 1.0),
            digits=5,
        )
    )
    texts: ClassVar[bool] = False
    min_blocks: ClassVar[int] = 1
    owners_only: ClassVar[bool] = True

    k: Annotated[int, Gt(0)] = 5
    rows: Annotated[int, Gt(0)] = 1000
    test_rows: Annotated[int, Gt(0)] = 200

    @property
    def model_rows(self) -> int:
        """The rows of clients and the test rows."""
        return self.rows + self.test_rows

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        from fedmem.training.blocks import features_of, hidden_blocks
        from fedmem.training.derivatives import double

        federation, examples = context.federation, context.examples
        found, is_read = np.full((len(context.transitions), len(examples)), np.nan), context.is_owner()
        test = federation.test.take(
            choose_rows(context, np.arange(len(federation.test)), self.test_rows, "test rows of KNN-Shapley")
        )
        blocks = hidden_blocks(context.network, double(examples.inputs[:1]))
        for t, transition in enumerate(context.transitions):
            subjects = np.flatnonzero(is_read[t])
            if not len(subjects) or not len(test):
                continue
            rows = trained_support(context, transition, self.rows, "rows of KNN-Shapley")
            support = federation.store.take(rows)
            inputs = double(np.concatenate([examples.inputs[subjects], support.inputs, test.inputs]))
            features = features_of(context.network, context.params(t), inputs, blocks)[0][-1].numpy()
            parts = np.split(features, [len(subjects), len(subjects) + len(rows)])
            labels = (examples.labels[subjects], support.labels, test.labels)
            found[t, subjects] = values_among(parts, labels, own_rows(context, rows)[subjects], self.k)
        return {"knn_shapley": found}


def values_among(
    features: list[FloatArray], labels: tuple[IntArray, IntArray, IntArray], is_own: BoolArray, k: int
) -> FloatArray:
    """(m,) the value of each example, if it is added to the support without its own rows.

    Args:
        features: (m, w) of the examples, (n, w) of the support and (t, w) of the test rows.
        labels: The labels of the three.
        is_own: (m, n) rows of the support that are an example itself.
        k: K.

    Examples:
        >>> line = [np.array([[0.1], [0.1]]), np.array([[1.0], [2.0]]), np.array([[0.0]])]
        >>> nobody = np.zeros((2, 2), dtype=bool)
        >>> values_among(line, (np.array([1, 0]), np.array([1, 0]), np.array([1])), nobody, 1).round(3).tolist()
        [0.5, -0.5]
    """
    import torch

    of_examples, of_support, of_test = (torch.from_numpy(np.ascontiguousarray(part)) for part in features)

    def distances(to: torch.Tensor) -> FloatArray:
        # exact differences, so that equal rows are equally near
        return np.asarray(torch.cdist(of_test, to, compute_mode="donot_use_mm_for_euclid_dist").numpy())

    near, far = distances(of_examples), distances(of_support)
    order = np.argsort(far, axis=1, kind="stable")
    far = np.take_along_axis(far, order, axis=1)
    hits = (labels[1][order] == labels[2][:, None]).astype(np.float64)
    is_hit = (labels[0] == labels[2][:, None]).astype(np.float64)
    found = np.full(len(is_own), np.nan)
    groups: BoolArray = np.asarray(is_own.any(1))
    is_finite = np.isfinite(far).all() and np.isfinite(near).all(0)
    is_other: BoolArray = np.asarray(~is_own, dtype=np.bool_)
    shared = _tails(hits, k)
    for example in np.flatnonzero(np.broadcast_to(is_finite, len(found))).tolist():
        distance, hit, tails = far, hits, shared
        if groups[example]:
            is_left = is_other[example, order]
            distance, hit = far[is_left].reshape(len(far), -1), hits[is_left].reshape(len(far), -1)
            tails = _tails(hit, k)
        place = (distance <= near[:, example, None]).sum(1)  # nearer rows, and rows as near
        found[example] = _value_at(is_hit[:, example], place, hit, tails, k).mean()
    return found


def _tails(hits: FloatArray, k: int) -> FloatArray:
    """(t, n) the values of n sorted rows for t test rows, if one row was before all of them.

    They do not depend on where that row is before them, so they serve an example at any place.
    """
    rows = hits.shape[1]
    if not rows:
        return hits
    place = np.arange(2, rows + 1)
    steps = (hits[:, :-1] - hits[:, 1:]) / k * np.minimum(k, place) / place
    last = hits[:, -1:] * min(k, rows + 1) / ((rows + 1) * k)
    return np.asarray(np.cumsum(np.concatenate([last, steps[:, ::-1]], axis=1), axis=1)[:, ::-1])


def _value_at(is_hit: FloatArray, place: IntArray, hits: FloatArray, tails: FloatArray, k: int) -> FloatArray:
    """(t,) the values of an example that comes after `place` (t,) of the sorted rows."""
    rows = hits.shape[1]
    last: FloatArray = is_hit * min(k, rows + 1) / ((rows + 1) * k)
    if not rows:
        return last
    test, behind = np.arange(len(place)), np.minimum(place, rows - 1)
    step = (is_hit - hits[test, behind]) / k * np.minimum(k, place + 1) / (place + 1)
    return np.asarray(np.where(place < rows, tails[test, behind] + step, last), dtype=np.float64)
