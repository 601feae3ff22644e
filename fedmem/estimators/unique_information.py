"""Unique information: by how much training on one example moves what models say about test examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, Influence, SetEvidence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.contracts.signal import class_name
from fedmem.estimation.randomisation import deals_of, num_redeals, two_sided
from fedmem.estimation.statistics import welch_columns
from fedmem.estimation.two_way import of_difference, place_among

_OF_LOGITS = Measure(
    name="unique_information",
    title="unique information",
    means="Half of the squared change of the logits that training on the example causes, the mean over test examples.",
    is_not="It is a proxy, not memorisation: an example may inform without being memorised. Noise makes it negative as "
    "often as positive.",
    unit="nats",
    null=0.0,
    direction="neither",
    section="proxies",
)

_OF_MARGINS = Measure(
    name="margin_unique_information",
    title="unique information of margins",
    means="Half of the squared change of the margin that training on the example causes, the mean over test examples.",
    is_not="It is a proxy, not memorisation: an example may inform without being memorised. It is not the unique "
    "information of all logits, for which the scenario needs the signal logits. With two classes it is twice as much. "
    "Noise makes it negative as often as positive.",
    unit="nats",
    null=0.0,
    direction="neither",
    section="proxies",
)

_LOGIT = "logit"
"""The quantity of a signal that is read: centred logits of test examples."""


@dataclass(frozen=True, kw_only=True)
class UniqueInformation:
    """Functional unique information after Harutyunyan et al. (2021), measured from runs instead of linearised.

    F-SI_j = E_x ‖f_in(x) − f_out(x)‖² / (2 σ²) with σ = 1. Here f are the logits of test example x, centred over
    classes, since the softmax is blind to what is added to all of them. The unit is nats, for noise of variance σ² on
    each logit. The mean of f over runs with the example is f_in, and that over runs without it is f_out. So this is
    about the mean model, as self-influence is.

    `unique_information` needs the signal `logits`, and is there at levels and rounds at which it was read. At a place
    where it was not, `margin_unique_information` is formed in its stead: f is then the margin of the label alone. With
    two classes the margin is the difference of both logits. Centred logits are ± half of it, so that the value of
    margins is exactly twice that of logits. With more classes neither follows from the other.

    The square of an estimated difference is too large by its variance. The product of the differences of two halves of
    the runs is unbiased. The value is the mean of this product over all ways to halve the runs, in closed form. It may
    be negative. Its null is 0, and p is from re-dealt coins. It is only in the summary, at the aggregate and at the
    owner. The model of each example is the one from which its memorisation is read.

    Intervals are of first order. In simulations of 16 runs they were 1.2 times as wide as necessary, and without an
    effect 1.3 times.

    Not here: the unique information of weights, which needs models, and the version with labels drawn from the model.

    Fields: none.

    >>> UniqueInformation().min_runs
    4
    """

    measures: ClassVar[tuple[Measure, ...]] = (_OF_LOGITS, _OF_MARGINS)
    needs_independent_runs: ClassVar[bool] = True
    min_runs: ClassVar[int] = 4

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, from the logits or else the margins of the test set; none without one."""
        audit = view.audit
        measure, parts = _OF_LOGITS, list(_groups(view, _products_of_logits))
        if not parts:
            measure, parts = _OF_MARGINS, list(_groups(view, _products_of_margins))
        values, changes = np.full(len(audit), np.nan), np.full(audit.is_in.shape, np.nan)
        for part in parts:
            coins = audit.is_in[:, part.examples]
            values[part.examples] = part.information(coins)
            changes[:, part.examples] = part.changes(coins)
        estimates = []
        for kind in audit.kinds:
            rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(values))
            if len(rows):
                estimates.append(_estimate(view, measure, parts, rows, values, changes))
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()


@dataclass(frozen=True)
class _Part:
    """Examples that share a model, and the products of what its runs say of the test set: (R, R), the mean over it.

    `is_counted` (R, c) says which runs have the model and the owner.
    """

    examples: IntArray
    products: FloatArray
    is_counted: BoolArray

    def information(self, coins: BoolArray) -> FloatArray:
        """(..., c) the unbiased half square of in − out under coins (..., R, c); NaN with fewer than two on a side."""
        inside, outside = self._sides(coins)
        pairs = _without_diagonal(self.products)
        with np.errstate(divide="ignore", invalid="ignore"):
            both = [
                np.einsum("...rc,rs,...sc->...c", side, pairs, side, optimize=True) / (n * (n - 1))
                for side, n in ((inside, inside.sum(-2)), (outside, outside.sum(-2)))
            ]
            crossed = np.einsum("...rc,rs,...sc->...c", inside, self.products, outside, optimize=True)
            crossed = crossed / (inside.sum(-2) * outside.sum(-2))
        enough = (inside.sum(-2) > 1) & (outside.sum(-2) > 1)
        return np.asarray(np.where(enough, _HALF * (both[0] + both[1] - 2 * crossed), np.nan))

    def changes(self, coins: BoolArray) -> FloatArray:
        """(R, c) the product of each run with in − out of the other runs; in mean minus out mean is twice the value."""
        inside, outside = self._sides(coins)
        pairs = _without_diagonal(self.products)
        # without the run itself, whose square would look like an effect that all examples of the run share
        others_in, others_out = (np.maximum(side.sum(0) - side, 1) for side in (inside, outside))
        return np.where(self.is_counted, pairs @ inside / others_in - pairs @ outside / others_out, np.nan)

    def _sides(self, coins: BoolArray) -> tuple[FloatArray, FloatArray]:
        return (coins & self.is_counted).astype(np.float64), (~coins & self.is_counted).astype(np.float64)


def _without_diagonal(products: FloatArray) -> FloatArray:
    """The products of different runs; the square of a single run has its noise."""
    return products - np.diag(np.diag(products))


_HALF = 0.5
"""1 / (2 σ²) with σ = 1 in units of a logit or a margin."""

_Products = Callable[[SetEvidence, int], tuple[FloatArray, BoolArray] | None]
"""The products (R, R) of what runs say of a test set at one model, the mean over examples, and which runs count (R,).

None where nothing was read.
"""


def _groups(view: View, products_of: _Products) -> Iterator[_Part]:
    """Examples that share a model: in the summary, with a test set, at a single model per run."""
    test = view.sets.get("test")
    if view.round is not None or view.margin.shape[1] != 1 or view.place == "others" or test is None or not test.size:
        return
    of = test.models.of[0]
    for pair in np.unique(of[of >= 0]).tolist():
        read = products_of(test, pair)
        if read is not None:
            products, known = read
            examples = np.flatnonzero(of == pair)
            is_counted = known[:, None] & ~np.isnan(view.margin[:, 0, examples])
            if is_counted.any():
                yield _Part(examples, products, is_counted)


def _products_of_margins(test: SetEvidence, pair: int) -> tuple[FloatArray, BoolArray]:
    margin = test.margin(pair)
    known: BoolArray = np.asarray(np.isfinite(margin).all(1))
    return _products(margin, known) / test.size, known


def _products_of_logits(test: SetEvidence, pair: int) -> tuple[FloatArray, BoolArray] | None:
    """The sum over classes, one after the other, so that the logits of all classes are never there at once."""
    names = list(_names_of_logits(test))
    known = np.ones(test.models.runs, dtype=bool)
    for name in names:
        values = test.signal(pair, name)
        if values is None or not values.shape[1]:
            return None
        known &= np.isfinite(values).all(1)
    if not names:
        return None
    total, size = np.zeros((test.models.runs,) * 2), 0
    for name in names:
        values = test.signal(pair, name)
        assert values is not None
        total, size = total + _products(values, known), values.shape[1]
    return total / size, known


def _names_of_logits(test: SetEvidence) -> Iterator[str]:
    """The stored names of the logits of all classes, in order."""
    stored = {block.name for block in test.signals}
    return takewhile(stored.__contains__, (class_name(_LOGIT, label) for label in count()))


def _products(values: FloatArray, known: BoolArray) -> FloatArray:
    """(R, R) products of runs that are known, of values (R, n) from their mean, summed; 0 for other runs."""
    if not known.any():
        return np.zeros((len(known),) * 2)
    # measured from the mean, equal models differ by exactly nothing
    centred = np.where(known[:, None], values - values[known].mean(0), 0.0)
    return np.asarray(centred @ centred.T)


def _estimate(
    view: View, measure: Measure, parts: Sequence[_Part], rows: IntArray, values: FloatArray, changes: FloatArray
) -> Estimate:
    """The estimate of one kind."""
    audit, n = view.audit, len(rows)
    coins, columns = audit.is_in[:, rows], changes[:, rows]
    spread = (values[rows] - values[rows].mean()) / n * (math.sqrt(n / (n - 1)) if n > 1 else 0.0)
    cells = of_difference(columns, coins).cells
    low, high = welch_columns(np.where(coins, columns, np.nan), np.where(coins, np.nan, columns))
    half = (high - low) / 2
    return Estimate(
        metric=measure.name,
        kind=str(audit.kind[rows[0]]),
        value=float(values[rows].mean()),
        influence=place_among(Influence(examples=spread, cells=cells), rows, len(audit)),
        null=0.0,
        n=n,
        p=_p(view, parts, rows),
        redeals=num_redeals(view.redeals, rows),
        examples=rows,
        per_example=values[rows],
        per_example_low=values[rows] - half,
        per_example_high=values[rows] + half,
        per_example_n=(~np.isnan(columns)).sum(0),
    )


def _p(view: View, parts: Sequence[_Part], rows: IntArray) -> float:
    """p of the mean over these examples, from re-dealt coins; NaN without any."""
    deals = deals_of(view.redeals, rows)
    if len(deals) < 2:
        return math.nan
    total, known = np.zeros(len(deals)), np.zeros(len(deals))
    for part in parts:
        of_kind = np.isin(part.examples, rows)
        if of_kind.any():
            examples = _Part(part.examples[of_kind], part.products, part.is_counted[:, of_kind])
            found = examples.information(deals[:, :, np.searchsorted(rows, examples.examples)])
            total, known = total + np.nansum(found, axis=1), known + (~np.isnan(found)).sum(1)
    return two_sided(total / np.where(known > 0, known, np.nan))
