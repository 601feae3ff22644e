"""How much of what models say about an example is decided by inclusion, from twins: the rest is noise of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.estimation.statistics import jackknife, mean
from fedmem.estimation.twins import coins_of_rows, sets_without_twins

_PARTS = ("own", "others", "noise")


@dataclass(frozen=True, kw_only=True)
class NoiseCeiling:
    """Parts of the variance of an outcome over runs, by an analysis of variance with twins.

    Twins have the same coins and rows, and differ in training noise: batches, and initial weights and cohorts where
    each run has its own. With T twins, the variance of an outcome of one example over runs is the sum of three parts:

    - `own`: (mean over in runs − mean over out runs)² / 4, minus its noise;
    - `others`: the variance over coin rows within each side, minus 1/T of the noise. It is from the coins of other
      examples, and from replacement rows;
    - `noise`: the variance between twins.

    Each part is without bias, and the parts are summed over the examples of a kind before they are divided.

    - `variance_share`: a part of the whole, with the label `part`. Noise in the shares may lead outside 0 to 1;
    - `noise_ceiling`: √(1 − share of noise), the largest correlation that anything known before training can have with
      the outcome of a single run. No prediction from coins does better. Undefined where the share is above 1.

    The label `of` names the outcome: the probability of the label, or a quantity of a signal or another estimator. Both
    are in the summary, with Student's t interval by the jackknife over coin rows.

    Fields: none.

    >>> NoiseCeiling().needs_twins
    True

    Reference: Searle, Casella and McCulloch (1992), Variance Components, for the analysis of variance.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="variance_share",
            title="share of the variance over runs",
            means="The share of the variance of an outcome over runs that is due to one cause.",
            is_not="A large share of noise does not mean that an example is not memorised.",
            null=math.nan,
            direction="neither",
            digits=2,
        ),
        Measure(
            name="noise_ceiling",
            title="noise ceiling",
            means="The largest correlation that a prediction from inclusion can have with the outcome of a run.",
            range=(0.0, math.inf),
            direction="neither",
            digits=2,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "part",
            "text",
            "the cause of a part of the variance over runs",
            (
                ("own", "its own inclusion"),
                ("others", "inclusion of others, and replacement rows"),
                ("noise", "training"),
            ),
        ),
    )
    min_runs: ClassVar[int] = 8
    needs_twins: ClassVar[bool] = True
    reads_quantities: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: a share of variance is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Shares and ceiling of every quantity and kind."""
        if view.round is not None:
            return ()
        with np.errstate(invalid="ignore"):
            probability = np.exp(-np.logaddexp(0.0, -view.margin))
        quantities = [ExampleValues(metric="probability", values=mean(probability, axis=1)), *view.quantities]
        return [(None, reading) for quantity in quantities for reading in _readings(view, quantity)]


def _readings(view: View, quantity: ExampleValues) -> Iterator[Reading]:
    audit = view.audit
    values = np.stack([quantity.values[runs] for runs in _runs_by_coin_row(view)])
    labels = Labels.of(of=quantity.metric, options=str(quantity.labels) or None)
    coins = coins_of_rows(audit)
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & np.isfinite(values).all((0, 1)))
        if not len(rows):
            continue
        groups = np.arange(len(coins))
        whole = components(values[:, :, rows], coins[:, rows])
        without = np.array(
            [components(values[:, groups != g][:, :, rows], coins[groups != g][:, rows]) for g in groups]
        )
        total, totals = whole.sum(), without.sum(1)
        if not total > 0 or not (totals > 0).all():
            continue
        n, ceilings = len(rows), np.sqrt(np.clip(1 - without[:, 2] / totals, 0.0, None))
        for part, name in enumerate(_PARTS):
            share = float(whole[part] / total)
            low, high = jackknife(share, without[:, part] / totals)
            about = labels.plus(part=name)
            yield Reading(metric="variance_share", value=share, low=low, high=high, n=n, subject=kind, labels=about)
        if whole[2] <= total:
            ceiling = math.sqrt(1 - whole[2] / total)
            low, high = jackknife(ceiling, ceilings)
            low = max(low, 0.0)
            yield Reading(metric="noise_ceiling", value=ceiling, low=low, high=high, n=n, subject=kind, labels=labels)


def _runs_by_coin_row(view: View) -> list[IntArray]:
    """Sets of runs without twins, each in the order of coin rows."""
    rows = view.audit.coin_rows
    return [runs[np.argsort(rows[runs])] for runs in sets_without_twins(view.audit)]


def components(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """(3,) the parts of the variance over runs, own, others and noise, summed over examples.

    Args:
        values: (T, G, n) outcomes of T twins of each of G coin rows.
        is_in: (G, n) coins, with two or more runs on each side.

    Examples:
        >>> coins = np.array([[True], [True], [False], [False]])
        >>> components(np.where(coins, 3.0, 1.0)[None].repeat(2, 0), coins).tolist()
        [1.0, 0.0, 0.0]
    """
    twins, groups = values.shape[:2]
    noise = values.var(axis=0, ddof=1).mean(0)
    of_rows = values.mean(0)
    ins, outs = is_in.sum(0), (~is_in).sum(0)
    means = [np.where(side, of_rows, 0.0).sum(0) / n for side, n in ((is_in, ins), (~is_in, outs))]
    deviations = of_rows - np.where(is_in, *means)
    between = np.square(deviations).sum(0) / (groups - 2)
    own = (np.square(means[0] - means[1]) - between * (1 / ins + 1 / outs)) / 4
    return np.array([own.sum(), (between - noise / twins).sum(), noise.sum()])
