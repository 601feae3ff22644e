"""Consistency (C-score): how often models that did not train on an example are right about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure, gain_of
from fedmem.contracts.measurement import Reading
from fedmem.estimation.in_and_out import estimate_in_and_out
from fedmem.estimation.statistics import mean, wilson

_MEASURE = Measure(
    name="consistency",
    title="consistency (C-score)",
    means="The share of runs without the example whose model is right about it.",
    is_not="It is a proxy, not memorisation. Published scores are for other shares of the data.",
    unit="share",
    range=(0.0, 1.0),
    direction="neither",
    section="proxies",
)


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The C-score of Jiang, Zhang, Talwar and Mozer (2021) at one share of the data, with federations as trainings.

    `consistency` of example j is the mean correctness about j over the runs without j, from 0 (hard or wrongly
    labelled) to 1 (regular). With the label `statistic` = `in` it is that over runs with j, which is no C-score: these
    models have seen the answer. The difference of the two is the memorisation of j. A correlation of consistency with
    memorisation is therefore spurious if both are from the same runs: split the runs.

    - the mean over models of a place (the others) comes first;
    - published scores are for other shares of the data. Here, half of the audit examples are in each run, and all base
      rows;
    - the interval of a single example is Wilson's over the runs of its side. For passages, where correctness is the
      share of tokens, it is wider than necessary.

    Of the five metrics of Carlini, Erlingsson and Papernot (2019), stored evidence has none. Confidence and agreement
    need the probabilities of all classes, and the adversarial distance needs gradients.

    Fields: none.

    >>> Consistency().measures[0].range
    (0.0, 1.0)
    """

    measures: ClassVar[tuple[Measure, ...]] = (_MEASURE,)
    min_runs: ClassVar[int] = 2

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, over runs without the example and over runs with it."""
        (quantity,) = self.example_values(view)
        estimates = estimate_in_and_out(view, quantity, _MEASURE, main="out")
        return [_with_wilson(e) for e in estimates if e.metric != gain_of(_MEASURE).name]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_values(self, view: View) -> Sequence[ExampleValues]:
        """Correctness (R, m)."""
        return (ExampleValues(metric="consistency", values=mean(view.correct, axis=1)),)


def _with_wilson(e: Estimate) -> Estimate:
    """The same with Wilson's interval of each example, of as many trials as runs."""
    assert e.per_example is not None
    assert e.per_example_n is not None
    low, high = wilson(e.per_example * e.per_example_n, e.per_example_n)
    return replace(e, per_example_low=np.minimum(low, e.per_example), per_example_high=np.maximum(high, e.per_example))
