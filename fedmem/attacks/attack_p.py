"""The attack by rank among reference data: how much of a population has a larger loss at the same model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import MembershipGrant, Signals


@dataclass(frozen=True, kw_only=True)
class AttackP:
    """Attack P of Ye, Maddi, Murakonda, Bindschaedler and Shokri (2022): needs one model and a population.

    The score is the number of population examples with a larger loss at the same model, divided by n + 1. It is from 0
    to n / (n + 1); higher means member. So 1 − score is the p-value of the hypothesis that the example is one more of
    the population. For an example that is exchangeable with the population, P(score ≥ k / (n + 1)) = 1 − k / (n + 1)
    exactly, without ties. With ties it is at most that.

    - An audit example is exchangeable with the population only if both come from one distribution. With label skew or
      wrong labels it is not, and scores differ between examples whether or not they are members;
    - `by_class` compares with population examples of the same label only, which is a threshold for each class. The
      score then has n_y + 1 values, and is 0 for a label that the population lacks. Use 20 rows a class or more;
    - does not read the coins; NaN where the margin is NaN, and everywhere without a population.

    Fields:
        by_class: Compare with population examples of the same label only.

    >>> signals = Signals(
    ...     margin=np.array([[0.5]]), is_in=np.array([[True]]), model=np.zeros(1, int),
    ...     population=np.log1p(np.exp(-np.array([[[-1.0, 0.0, 1.0]]]))),
    ... )
    >>> AttackP().scores(signals).tolist()
    [[0.5]]

    Reference: Ye et al. (2022), Enhanced membership inference attacks against machine learning models.
    """

    title: ClassVar[str] = "attack P"
    legend: ClassVar[str] = "attack by the share of reference data with a larger loss at the same model"
    knows: ClassVar[str] = "losses of one model, and reference data that it does not train on"
    needs_population: ClassVar[bool] = True
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    by_class: bool = False

    @property
    def reads(self) -> tuple[MembershipGrant, ...]:
        """Labels, for thresholds by class."""
        return ("labels",) if self.by_class else ()

    def scores(self, signals: Signals) -> FloatArray:
        """Numbers of population examples with a larger loss, divided by all of them and one (R, m)."""
        scores, loss = np.full(signals.margin.shape, np.nan), signals.loss
        if signals.population is None or signals.model is None:
            return scores
        for examples, rows in self._groups(signals):
            for model, losses in enumerate(signals.population):
                columns = examples[signals.model[examples] == model]
                for run, values in enumerate(losses):
                    if np.isfinite(values).any():
                        usable = np.sort(values[rows][~np.isnan(values[rows])])
                        larger = len(usable) - np.searchsorted(usable, loss[run, columns], side="right")
                        scores[run, columns] = larger / (len(usable) + 1)
        return np.where(np.isnan(loss), np.nan, scores)

    def _groups(self, signals: Signals) -> Iterator[tuple[IntArray, IntArray]]:
        """Audit examples with the population examples that they are compared with."""
        population = np.arange(0 if signals.population is None else signals.population.shape[2])
        if not self.by_class or signals.labels is None or signals.population_labels is None:
            yield np.arange(signals.margin.shape[1]), population
            return
        for label in np.unique(signals.labels):
            yield np.flatnonzero(signals.labels == label), population[signals.population_labels == label]
