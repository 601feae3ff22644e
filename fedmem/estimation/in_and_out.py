"""Estimates of a quantity of single examples: over runs with the example, over runs without it, and the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure, gain_of
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import means_by_coin, student_columns, welch_columns
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.two_way import of_difference, of_ins, place_among

Side = Literal["in", "out"]


def estimate_in_and_out(
    view: View, quantity: ExampleValues, measure: Measure, *, main: Side = "in", is_retained: bool = False
) -> Sequence[Estimate]:
    """Per kind, three estimates over the same examples, those with a value on both sides.

    - `<name>`: the mean over examples of the mean over the runs of the `main` side;
    - `<name>` with the label `statistic`: the same over the other side, by its name;
    - `<name>_gain`: in − out; null 0, with p in the summary. It has a retention if `is_retained`.

    Values of single examples have Student's t interval over runs, a difference that of Welch.
    """
    audit = view.audit
    values = np.where(np.isfinite(quantity.values), quantity.values, np.nan)  # a model that has diverged
    is_in = audit.is_in
    inside, outside = (side[0] for side in means_by_coin(values, is_in, np.ones((1, audit.runs))))
    is_measured = ~np.isnan(values)
    ins, outs = (is_measured & is_in).sum(0), (is_measured & ~is_in).sum(0)
    gain = gain_of(measure)
    estimates = []
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(inside - outside))
        if not len(rows):
            continue
        columns, coins = values[:, rows], is_in[:, rows]
        # twins are averaged: they are no further trials
        independent, row_coins = average_twins(columns, audit), coins_of_rows(audit)[:, rows]
        sides = (np.where(row_coins, independent, np.nan), np.where(row_coins, np.nan, independent))
        means = {"in": inside[rows], "out": outside[rows]}
        counts = {"in": ins[rows], "out": outs[rows]}
        for side, of_side, coin in (("in", sides[0], coins), ("out", sides[1], ~coins)):
            low, high = student_columns(of_side)
            estimates.append(
                Estimate(
                    metric=measure.name,
                    kind=kind,
                    labels=quantity.labels.plus(statistic=None if side == main else side),
                    value=float(means[side].mean()),
                    influence=place_among(of_ins(columns, coin), rows, len(audit)),
                    null=math.nan,
                    bounds=measure.range,
                    n=len(rows),
                    examples=rows,
                    per_example=means[side],
                    per_example_low=np.clip(low, *measure.range),
                    per_example_high=np.clip(high, *measure.range),
                    per_example_n=counts[side],
                )
            )
        low, high = welch_columns(*sides)
        estimates.append(
            Estimate(
                metric=gain.name,
                kind=kind,
                labels=quantity.labels,
                value=float((inside - outside)[rows].mean()),
                influence=place_among(of_difference(columns, coins), rows, len(audit)),
                null=0.0,
                bounds=gain.range,
                p=of_means(values, rows, view.redeals) if view.round is None else math.nan,
                redeals=num_redeals(view.redeals, rows),
                n=len(rows),
                examples=rows,
                per_example=(inside - outside)[rows],
                per_example_low=np.clip(low, *gain.range),
                per_example_high=np.clip(high, *gain.range),
                per_example_n=(ins + outs)[rows],
                signed=not is_retained,
            )
        )
    return estimates
