"""The robust attack: how much surer a model is of an example than of others, by what reference models make of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class Rmia:
    """Relative membership inference, leave one run out (Zarifzadeh, Liu and Shokri, 2024).

    Let p_r be the probability that run r gives to the label. Then ratio(x) = p_r(x) / p(x), where p(x) is the expected
    probability without knowing whether x was trained on. The score is the share of population examples z with
    `ratio(x) >= γ ratio(z)`, from 0 to 1; higher means member. Run r is the target and enters no p; the references are:

    - `online`: p(x) = ½ (mean over the other in runs + mean over the other out runs);
    - `offline`: p(x) = ½ ((1 + a) mean over the other out runs + 1 − a), no reference has seen x. The line stands for
      the missing half: a model that has seen x is taken to give it a p_out + (1 − a);
    - no run trains on any z, so p(z) is, online, the mean over all other runs, and offline the same line through it.

    The score has n + 1 possible values for n population examples, and equal scores are ties. So a population of 1000 or
    more resolves small false positive rates. Within one model the order is that of ratio(x), whatever γ and z, except
    for ties. γ and z put different models on one scale. An AUC near ½ may come from one of two limits:

    - γ asks by how much z is to be beaten. The authors used 2. Where membership changes probabilities by less than a
      factor of γ, all scores are 0 and equal. The AUC is then exactly ½ without an interval, which is no evidence that
      nothing leaks. So the default is 1. In one federation (32 runs, digits, mislabelled examples, aggregate) the AUC
      was 0.97 with 1, 0.81 with 2, and 0.99 for `lira`;
    - offline p(x) is at least ½ (1 − a), 0.35 by default, however improbable the references find x. They find
      mislabelled examples and canaries improbable, for example. There the score knows little more than p_r(x) (AUC 0.50
      to 0.51 in the same federation). A larger `a` lowers that floor.

    - everything in logarithms, so that no small probability becomes 0; equality with γ counts as beaten;
    - references that were not observed are left out; without any on a side that is needed the score is NaN;
    - online, exchanging in and out exchanges nothing else, so the AUC without memorisation is exactly ½ on average.
      Offline, a target that is out has one reference less, which moves the AUC by less than 0.01 at 8 runs. With fewer
      it moves rates at small false positive rates too much: `offline` needs 8 runs, `online` 4;
    - NaN everywhere without a population.

    Fields:
        mode: Which runs are references. `online` uses runs with and without the example, `offline` only those without.
        gamma: How many times the ratio of z it takes to beat z (γ), at least 1; above 1 small effects are ties.
        a: Slope of the line that replaces runs with the example, 0 to 1; read by `offline` only.

    >>> margin = np.array([[3.0, 0.2], [0.1, 2.9], [2.8, 0.0], [0.0, 3.1]])
    >>> population = np.log1p(np.exp(-np.tile(np.linspace(-1.0, 1.0, 20), (1, 4, 1))))
    >>> signals = Signals(margin=margin, is_in=margin > 1, population=population, model=np.zeros(2, int))
    >>> scores = Rmia().scores(signals)
    >>> bool(scores[margin > 1].min() > scores[margin < 1].max())
    True
    """

    title: ClassVar[str] = "RMIA"
    legend: ClassVar[str] = "attack that compares ratios of likelihoods with those of reference data"
    knows: ClassVar[str] = (
        "losses of shadow federations with the same participation schedule, and reference data that no model trains on"
    )
    counts_groups: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True

    mode: Literal["online", "offline"] = "online"
    gamma: Annotated[float, annotated_types.Ge(1)] = 1.0
    a: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 0.3

    @property
    def min_runs(self) -> int:
        """Offline the out runs are the only references, and a target that is out is one of them less."""
        return 4 if self.mode == "online" else 8

    @property
    def null_auc(self) -> float | None:
        """The AUC without memorisation, where nothing but the names of in and out tells them apart."""
        return 0.5 if self.mode == "online" else None

    def scores(self, signals: Signals) -> FloatArray:
        """Shares of the population that are beaten (R, m)."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m): what is known of the population does not depend on them."""
        if signals.population is None or signals.model is None or not signals.population.shape[2]:
            return lambda is_in: np.full(signals.margin.shape, np.nan)
        log_p, bars = -signals.loss, []
        for model, losses in enumerate(signals.population):
            others = _mean_without(-losses, ~np.isnan(losses))
            sure = np.sort(-losses - (others if self.mode == "online" else self._line(others)), axis=1)
            bars.append((np.flatnonzero(signals.model == model), sure, (~np.isnan(sure)).sum(1).tolist()))

        def scores(is_in: BoolArray) -> FloatArray:
            shares, ratio = np.full(signals.margin.shape, np.nan), self._ratio(log_p, is_in)
            for examples, sure, counts in bars:
                reach = ratio[:, examples] - np.log(self.gamma) + _ROUNDING
                for run, usable in enumerate(counts):
                    if usable:  # NaN sorts last
                        shares[run, examples] = np.searchsorted(sure[run, :usable], reach[run], side="right") / usable
            return np.where(np.isnan(ratio), np.nan, shares)

        return scores

    def _ratio(self, log_p: FloatArray, is_in: BoolArray) -> FloatArray:
        """log ratio(x) (R, m)."""
        is_measured = ~np.isnan(log_p)
        outs = _mean_without(log_p, is_measured & ~is_in)
        if self.mode == "offline":
            return log_p - self._line(outs)
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            return np.asarray(log_p - np.logaddexp(_mean_without(log_p, is_measured & is_in), outs) + np.log(2))

    def _line(self, outs: FloatArray) -> FloatArray:
        """log of ½ ((1 + a) p_out + 1 − a) from log p_out."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a = 1 leaves nothing to add; NaN in, NaN out
            return np.asarray(np.logaddexp(np.log1p(self.a) + outs, np.log(1 - self.a)) - np.log(2))


_ROUNDING = 1e-12
"""Ratios that are equal but for rounding are equal."""

_PART = 2**20
"""Probabilities that are handled at once."""


def _mean_without(log_p: FloatArray, group: BoolArray) -> FloatArray:
    """log of the mean probability over the runs in `group`, without the row's own run (R, n); NaN without any."""
    runs, means = len(log_p), np.full(log_p.shape, np.nan)
    step = max(1, _PART // max(runs * runs, 1))
    for start in range(0, log_p.shape[1], step):
        part = slice(start, start + step)
        rest = group[None, :, part] & ~np.eye(runs, dtype=bool)[:, :, None]
        count = rest.sum(1)
        used = np.where(rest, log_p[None, :, part], -np.inf)
        top = used.max(1)
        top = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            total = np.log(np.exp(used - top[:, None]).sum(1)) + top
        means[:, part] = np.where(count > 0, total - np.log(np.maximum(count, 1)), np.nan)
    return means
