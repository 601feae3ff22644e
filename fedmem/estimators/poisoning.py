"""Poisoning that reveals: whether a row of an attacker makes examples of others more memorised."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Reading
from fedmem.estimation.cells import (
    Cells,
    contrast,
    influence_of,
    interaction,
    p_of_interaction,
    spread,
    without_negative_covariance,
)
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import mean
from fedmem.estimation.two_way import combine, place_among, widening


@dataclass(frozen=True, kw_only=True)
class Poisoning:
    """The effect of poison on its targets, by the random inclusion of both: T of the target and P of its poison.

    Let v_tp be the mean of M over runs with T = t and P = p. M is correctness, or the probability of the label (label
    `statistic` = `probability`). Then

    - `memorisation_with_poison` is v_11 − v_01, and `memorisation_without_poison` is v_10 − v_00;
    - `poisoning` is their difference, positive where poison adds memorisation. What poison adds to M whether the target
      is in or not cancels in it. What it adds to the margin does not. Probabilities near 0 and 1 hardly move, and
      others do;
    - `auc_with_poison` and `auc_without_poison` are the areas under the ROC curve of one example, over its runs, with
      the margin as score. `poisoning_auc` is their difference, positive where poison reveals membership. A place
      has one model per run, or the mean margin of its models;
    - `poison_push` is the mean probability of the label over runs with P = 1 minus that with P = 0, both with T = 0. It
      is negative where poison pushes the model away from the label. Losses would let a few examples decide it.

    The value of a kind is the mean over its examples with poison that have a value in all four cells. Memorisation and
    push have exact p from the coins. That of `poisoning` is approximate, see `fedmem.estimation.cells`. The areas have
    intervals alone. Every number is at the owner of the target, at other clients and at the aggregate.

    Intervals are over runs and targets. A covariance of targets in one run that is negative by chance does not make
    them narrower. In 1,000 simulations of 20 targets without effects, 94 to 98 % of the intervals contained the truth.

    Fields: none.

    >>> Poisoning().needs_aims
    True

    Reference: Tramèr et al. (2022), Truth Serum: Poisoning Machine Learning Models to Reveal Their Secrets.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="poisoning",
            title="memorisation added by poison",
            means="Memorisation of examples in runs with the poison that aims at them, minus that in runs without it.",
            is_not="It is not the harm that poison does whether the target is in or not.",
            unit="share",
            range=(-2.0, 2.0),
            null=0.0,
            headline=True,
        ),
        Measure(
            name="memorisation_with_poison",
            title="memorisation with poison",
            means="Memorisation of an example in runs that train on the poison that aims at it.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
        Measure(
            name="memorisation_without_poison",
            title="memorisation without poison",
            means="Memorisation of an example in runs that do not train on the poison that aims at it.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
        Measure(
            name="poisoning_auc",
            title="AUC added by poison",
            means="AUC of the margin of one example over its runs with poison, minus that over its runs without it.",
            is_not="It is not the success of an attack on one model, since thresholds differ between examples.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
        Measure(
            name="auc_with_poison",
            title="AUC with poison",
            means="AUC of the margin of one example, with runs in which it is in as positives, in runs with poison.",
            unit="share",
            range=(0.0, 1.0),
            null=0.5,
        ),
        Measure(
            name="auc_without_poison",
            title="AUC without poison",
            means="AUC of the margin of one example, with runs in which it is in as positives, in runs without poison.",
            unit="share",
            range=(0.0, 1.0),
            null=0.5,
        ),
        Measure(
            name="poison_push",
            title="probability changed by poison",
            means="Probability of the label of an example that is out, in runs with poison minus that without it.",
            is_not="It says nothing about membership, since none of these runs has the example.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
        ),
    )
    min_runs: ClassVar[int] = 8
    needs_independent_runs: ClassVar[bool] = True
    needs_aims: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind of target."""
        audit = view.audit
        if audit.aims_at is None:
            return ()
        poison = np.flatnonzero(audit.aims_at >= 0)
        with np.errstate(invalid="ignore"):
            margin = mean(view.margin, axis=1)
            probability = mean(np.exp(-np.logaddexp(0.0, -view.margin)), axis=1)
        # a model that has diverged says nothing
        hidden = ~np.isfinite(margin)
        measured = {
            name: np.where(hidden, np.nan, values)
            for name, values in (("", mean(view.correct, axis=1)), ("probability", probability), ("margin", margin))
        }
        estimates: list[Estimate] = []
        for kind in dict.fromkeys(audit.kind[audit.aims_at[poison]].tolist()):
            of_kind = poison[audit.kind[audit.aims_at[poison]] == kind]
            pairs = _Pairs(view, kind, audit.aims_at[of_kind], of_kind).with_values(measured["margin"])
            if len(pairs.targets):
                for statistic in ("", "probability"):
                    estimates.extend(pairs.memorisation(measured[statistic], Labels.of(statistic=statistic)))
                estimates.extend(pairs.areas(measured["margin"]))
                estimates.append(pairs.push(measured["probability"]))
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()


@dataclass(frozen=True)
class _Pairs:
    """n targets of a kind and their poison, by their places in the audit set (n,) each."""

    view: View
    kind: str
    targets: IntArray
    poison: IntArray

    @property
    def coins(self) -> tuple[BoolArray, BoolArray]:
        """(R, n) those of the targets and of their poison."""
        is_in = self.view.audit.is_in
        return is_in[:, self.targets], is_in[:, self.poison]

    def with_values(self, values: FloatArray) -> _Pairs:
        """Those with a value in all four cells."""
        has = ~np.isnan(contrast(values[:, self.targets], interaction(*self.coins)))
        return _Pairs(self.view, self.kind, self.targets[has], self.poison[has])

    def memorisation(self, values: FloatArray, labels: Labels) -> Iterator[Estimate]:
        """With poison, without it, and the difference."""
        t, p = self.coins
        columns, summary = values[:, self.targets], self.view.round is None
        for name, side in (("memorisation_with_poison", p), ("memorisation_without_poison", ~p)):
            cells: Cells = ((1.0, t & side), (-1.0, ~t & side))
            on_side = np.full_like(values, np.nan)
            on_side[:, self.targets] = np.where(side, columns, np.nan)
            exact = of_means(on_side, self.targets, self.view.redeals) if summary else math.nan
            yield self._estimate(
                name, contrast(columns, cells), influence_of(columns, cells), (-1.0, 1.0), exact, labels=labels
            )
        cells = interaction(t, p)
        redeals = replace(self.view.redeals, coins=self.view.redeals.coins[:, :, self.poison])
        approximate = p_of_interaction(columns, t, redeals) if summary else math.nan
        yield self._estimate(
            "poisoning", contrast(columns, cells), influence_of(columns, cells), (-2.0, 2.0), approximate, labels=labels
        )

    def areas(self, margin: FloatArray) -> Iterator[Estimate]:
        """The AUC with poison, without it, and the difference."""
        t, p = self.coins
        columns = margin[:, self.targets]
        (with_it, of_with), (without, of_without) = (_area(columns, t & side, ~t & side) for side in (p, ~p))
        yield self._estimate("auc_with_poison", with_it, of_with, (0.0, 1.0), null=0.5)
        yield self._estimate("auc_without_poison", without, of_without, (0.0, 1.0), null=0.5)
        difference = combine(((1.0, of_with), (-1.0, of_without)))
        yield self._estimate("poisoning_auc", with_it - without, difference, (-1.0, 1.0))

    def push(self, values: FloatArray) -> Estimate:
        """The change by poison where the target is out."""
        t, p = self.coins
        columns = np.where(t, np.nan, values[:, self.targets])
        cells: Cells = ((1.0, ~t & p), (-1.0, ~t & ~p))
        redeals = replace(self.view.redeals, coins=self.view.redeals.coins[:, :, self.poison])
        exact = of_means(columns, np.arange(len(self.targets)), redeals) if self.view.round is None else math.nan
        return self._estimate("poison_push", contrast(columns, cells), influence_of(columns, cells), (-1.0, 1.0), exact)

    def _estimate(
        self,
        metric: str,
        each: FloatArray,
        parts: Influence,
        bounds: tuple[float, float],
        p: float = math.nan,
        *,
        labels: Labels | None = None,
        null: float = 0.0,
    ) -> Estimate:
        return Estimate(
            metric=metric,
            kind=self.kind,
            labels=Labels.of() if labels is None else labels,
            value=float(each.mean()),
            influence=place_among(without_negative_covariance(parts), self.targets, len(self.view.audit)),
            null=null,
            bounds=bounds,
            p=p,
            redeals=num_redeals(self.view.redeals, self.targets),
            n=len(self.targets),
            examples=self.targets,
            per_example=each,
            signed=True,
        )


def _area(values: FloatArray, inside: BoolArray, outside: BoolArray) -> tuple[FloatArray, Influence]:
    """(n,) the AUC of each example over its runs on two sides, ties counted half, and the contributions to its mean."""
    runs, n = values.shape
    places = np.full(values.shape, np.nan)
    for j in range(n):
        ins, outs = (np.flatnonzero(side[:, j] & ~np.isnan(values[:, j])) for side in (inside, outside))
        gaps = np.sign(values[ins, j][:, None] - values[outs, j][None]) / 2 + 0.5
        places[ins, j], places[outs, j] = gaps.mean(1), gaps.mean(0)
    each = contrast(places, ((1.0, inside),))
    pairs = np.zeros(values.shape)
    for side in (inside, outside):
        counted = side & ~np.isnan(places)
        size = counted.sum(0)
        share = np.where(counted, 1.0 / np.maximum(size, 1), 0.0) / n
        pairs += share * np.where(counted, places - each, 0.0) * widening(size, runs)
    return each, Influence(examples=spread(each), cells=pairs)
