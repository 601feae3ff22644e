"""Estimates of signals: means over runs that trained on an example, over runs that did not, and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedmem.contracts.estimator import Estimate, Estimator, ExampleValues, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.contracts.needs import measures_of
from fedmem.contracts.signal import AnySignal, quantities_of
from fedmem.estimation.in_and_out import estimate_in_and_out
from fedmem.estimation.statistics import mean


@dataclass(frozen=True, kw_only=True)
class SignalMeans:
    """The estimator of a signal: what `estimate_in_and_out` yields for each quantity, by kind and without retention.

    The mean over the runs with the example is what is published as a score of the example. That over runs without it is
    difficulty without memorisation. Values of several models of a place are averaged first.
    """

    signal: AnySignal

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the signal."""
        return measures_of(self.signal)

    @property
    def min_runs(self) -> int:
        """One in run and one out run."""
        return 2

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per quantity and kind."""
        declared = {measure.name: measure for measure in self.measures}
        quantities = self.example_values(view)
        return [
            estimate
            for quantity in quantities
            for estimate in estimate_in_and_out(view, quantity, declared[quantity.metric])
        ]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_values(self, view: View) -> Sequence[ExampleValues]:
        """The values of each run and example (R, m)."""
        return [
            ExampleValues(metric=measure.name, values=mean(view.signals[measure.name], axis=1))
            for measure in quantities_of(self.signal)
            if measure.name in view.signals
        ]


def with_signals(estimators: Sequence[Estimator], signals: Sequence[AnySignal]) -> list[Estimator]:
    """The estimators of a scenario, and those of its signals after them."""
    return [*estimators, *(SignalMeans(signal=signal) for signal in signals)]
