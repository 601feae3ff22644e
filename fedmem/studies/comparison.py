"""The results of finished runs side by side: every measure by setting, level and seed, as arrays.

Reads the measurements of run folders and nothing else. The tables that come of them are pure functions of the values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.results.read import Run
from fedmem.studies.contrasts import (
    LEVEL,
    Contrast,
    Mean,
    Ratio,
    bound_interval,
    contrast,
    detectable_difference,
    differences_of,
    is_divisible,
    mean_of,
    retention_ratio,
    seeds_for,
    simultaneous,
    verdict_of,
    why_undefined,
)
from fedmem.studies.grid import Setting, label_of
from fedmem.studies.quantities import (
    Quantity,
    Series,
    conditions_of_settings,
    constant_accuracies,
    gather,
    warned_settings,
)
from fedmem.studies.trades import Trade, trades_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting in one quantity: its mean, and how it differs from its reference (None for a reference itself).

    `contrast` has the 95 % interval and p of this difference alone. `adjusted` has the simultaneous interval and the p
    adjusted over the `tests` differences of its family, see `Comparison.family_of`.

    `other_rates` says that it has no seed with the reference's false positive rate, so that nothing is compared.
    `other_examples` says that means are over other examples than the reference's, for example because other clients
    participated. `saturated` says that its mean is at an end of the measure, `reference_saturated` the same of its
    reference. `other_condition` says that values of only one of the two are conditional on something that all runs
    share, such as batches.
    """

    quantity: Quantity
    setting: int
    mean: Mean
    contrast: Contrast | None
    adjusted: Contrast | None
    tests: int
    detectable: float
    seeds: int
    other_rates: bool = False
    other_examples: bool = False
    saturated: bool = False
    reference_saturated: bool = False
    other_condition: bool = False

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `not significant`, `identical`, `undefined`, `saturated` or `other rates`.

        Empty for a reference. `higher` and `lower`: the simultaneous interval excludes 0. `undefined`: it does not
        exist, with fewer than two seeds or differences that are all equal. `saturated`: both means are at the end of
        what the measure shows, so that no difference could be seen.
        """
        if self.contrast is None or self.adjusted is None:
            return ""
        if self.other_rates:
            return "other rates"
        if self.saturated and self.reference_saturated:
            return "saturated"
        return verdict_of(self.contrast, self.adjusted)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The retention of one measure and kind in a setting, and its difference to the reference.

    The interval and p of `difference` are simultaneous over `tests` differences of retention, see
    `Comparison.family_of`; `contrast` has those of this difference alone. `detectable` is as in `Row`.

    `saturated` says that the value at the owning client is at the end of the measure, so that the ratio is too high.
    `reference_saturated` says the same of the reference. `other_condition` is as in `Row`. `reason` says why the ratio
    is undefined; empty where it is not.
    """

    quantity: Quantity
    setting: int
    ratio: Ratio
    difference: Contrast | None
    contrast: Contrast | None = None
    tests: int = 1
    detectable: float = math.nan
    saturated: bool = False
    reference_saturated: bool = False
    other_condition: bool = False
    reason: str = ""

    @property
    def verdict(self) -> str:
        """As that of a `Row`; `saturated` where one of the two ratios is too high, which a difference does not show."""
        if self.contrast is None or self.difference is None:
            return ""
        if self.saturated or self.reference_saturated:
            return "saturated"
        return verdict_of(self.contrast, self.difference)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: S settings, each with its reference by place (itself: it is one), and their seeds.

    `warnings` are those of the runs, each once, the most serious first; `warned` has the settings of each.
    `conditions` (S,) are what the values of each setting are conditional on, empty texts for nothing. They are () where
    no setting is conditional.
    `constant_accuracy` (S, seeds) is the test accuracy of always giving the most frequent answer, None where it is not
    stored.
    """

    settings: tuple[Setting, ...]
    reference: tuple[int, ...]
    seeds: tuple[int, ...]
    series: tuple[Series, ...]
    measures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    warned: tuple[tuple[int, ...], ...] = ()
    constant_accuracy: tuple[tuple[float | None, ...], ...] = ()
    conditions: tuple[str, ...] = ()

    @staticmethod
    def of(
        runs: Mapping[tuple[int, int], Run],
        settings: Sequence[Setting],
        reference: Sequence[int],
        seeds: Sequence[int],
        measures: Sequence[str] = (),
    ) -> Comparison:
        """From finished runs by setting and place of the seed; `measures` are tested instead of the headline.

        Errors: those of reading a run.
        """
        shape = len(settings), len(seeds)
        warned = warned_settings(runs)
        constant = constant_accuracies(runs, shape).tolist()
        return Comparison(
            settings=tuple(settings),
            reference=tuple(reference),
            seeds=tuple(seeds),
            series=gather(runs, shape),
            measures=tuple(measures),
            warnings=tuple(warned),
            warned=tuple(warned.values()),
            conditions=conditions_of_settings(runs, len(settings)),
            constant_accuracy=tuple(tuple(None if math.isnan(share) else share for share in row) for row in constant),
        )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names of the settings."""
        return tuple(map(label_of, self.settings))

    def condition(self, setting: int) -> str:
        """The condition of the values of a setting; empty for none."""
        return self.conditions[setting] if self.conditions else ""

    @property
    def has_conditions(self) -> bool:
        """Whether values of some setting are conditional."""
        return any(self.conditions)

    def other_condition(self, setting: int) -> bool:
        """Whether the values of a setting and those of its reference are not conditional on the same."""
        return self.condition(setting) != self.condition(self.reference[setting])

    @cached_property
    def tested_series(self) -> tuple[Series, ...]:
        """The series that are tabled and tested: the headline, or the requested measures."""
        selection = [
            series
            for series in self.series
            if series.quantity.level in ("local", "global")
            and (series.quantity.metric in self.measures if self.measures else series.quantity.headline)
        ]
        measures = list(dict.fromkeys((series.quantity.metric, series.quantity.labels) for series in selection))
        kinds = list(dict.fromkeys(series.quantity.kind for series in self.series))

        def place(series: Series) -> tuple[int, int, bool]:
            quantity = series.quantity
            measure = measures.index((quantity.metric, quantity.labels))
            return measure, kinds.index(quantity.kind), quantity.level != "local"

        return tuple(sorted(selection, key=place))

    def family_of(self, quantity: Quantity) -> Hashable:
        """The question that a difference belongs to: equal for the differences that are adjusted together.

        Where measures were asked for, all of them are one question. Otherwise each measure is one, over its kinds,
        levels, rates and pairs of settings, so that what else is measured changes no p.
        """
        return () if self.measures else (quantity.metric, quantity.labels.without("fpr", "view"))

    def _family_sizes(self, quantities: Iterable[Quantity]) -> Counter[Hashable]:
        """The number of differences in each family, whether or not they can be computed."""
        pairs = sum(other != setting for setting, other in enumerate(self.reference))
        return Counter(self.family_of(quantity) for quantity in quantities for _ in range(pairs))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every setting in every tested quantity; differences are adjusted over those of their family."""
        drafts = []
        sizes = self._family_sizes(series.quantity for series in self.tested_series)
        for series in self.tested_series:
            for setting in self.settings_with_values:
                other = self.reference[setting]
                drafts.append((series, setting, None if other == setting else series.contrast_with(setting, other)))
        return tuple(
            Row(
                quantity=series.quantity,
                setting=setting,
                mean=bound_interval(mean_of(series.values[setting]), *series.quantity.range),
                contrast=_bound_difference(difference, series.quantity),
                adjusted=_bound_difference(difference and simultaneous(difference, tests), series.quantity),
                tests=tests,
                detectable=math.nan
                if difference is None
                else detectable_difference(difference.sd, difference.n, tests),
                seeds=0 if difference is None else seeds_for(difference.value, difference.sd, tests),
                other_rates=difference is not None
                and difference.n == 0
                and not series.same_rate(setting, self.reference[setting]).all(),
                other_examples=bool(series.quantity.kind) and series.other_examples(setting, self.reference[setting]),
                saturated=series.is_saturated(setting),
                reference_saturated=series.is_saturated(self.reference[setting]),
                other_condition=self.other_condition(setting),
            )
            for series, setting, difference in drafts
            for tests in (sizes[self.family_of(series.quantity)],)
        )

    @cached_property
    def retention(self) -> tuple[Retention, ...]:
        """The retention of each tested measure that has a null."""
        entries = []
        has_effects = [
            series
            for series in self.tested_series
            if series.quantity.level == "local"
            and not np.isnan(series.paired).all()
            and not np.isnan(series.null).all()
        ]
        sizes = self._family_sizes(series.quantity for series in has_effects)
        for series in has_effects:
            local, whole = differences_of(series.values, series.null), differences_of(series.paired, series.paired_null)
            tests = sizes[self.family_of(series.quantity)]
            for setting in self.settings_with_values:
                other = self.reference[setting]
                same_rate = np.where(series.same_rate(setting, other), 1.0, math.nan)
                difference = None
                if other != setting:
                    difference = _ratio_contrast(
                        (whole[setting] * same_rate, local[setting], series.n[setting]),
                        (whole[other], local[other], series.n[other]),
                    )
                entries.append(
                    Retention(
                        quantity=series.quantity,
                        setting=setting,
                        ratio=retention_ratio(whole[setting], local[setting], series.n[setting]),
                        difference=difference and simultaneous(difference, tests),
                        contrast=difference,
                        tests=tests,
                        detectable=math.nan
                        if difference is None
                        else detectable_difference(difference.sd, difference.n, tests),
                        saturated=series.is_saturated(setting),
                        reference_saturated=series.is_saturated(other),
                        other_condition=self.other_condition(setting),
                        reason=why_undefined(
                            np.where(np.isnan(whole[setting]), np.nan, local[setting]), series.n[setting]
                        ),
                    )
                )
        return tuple(entries)

    @cached_property
    def trades(self) -> tuple[Trade, ...]:
        """Utility against each other tested quantity of the aggregate; empty where no run measured utility.

        All settings are compared over the seeds of which every one has both, so that none is ahead by its seeds. A
        setting without any such seed, because its runs failed, is no trade and on no front: see
        `settings_without_values`.
        """
        use = next(
            (s for s in self.series if s.quantity.useful and (s.quantity.level, s.quantity.kind) == ("global", "")),
            None,
        )
        if use is None:
            return ()
        settings = range(len(self.labels))
        constant = np.array(self.constant_accuracy, dtype=np.float64) if self.constant_accuracy else None
        pairs = len(self.labels) * (len(self.labels) - 1) // 2
        harms = [s for s in self.tested_series if s.quantity.level == "global" and s.quantity.kind]
        families = Counter(self.family_of(harm.quantity) for harm in harms)
        return tuple(
            trade
            for harm in harms
            # others have it at another false positive rate
            if all(harm.same_rate(setting, other).all() for setting in settings for other in settings)
            for trade in trades_of(use, harm, LEVEL / max(1, pairs * families[self.family_of(harm.quantity)]), constant)
        )

    @cached_property
    def settings_without_values(self) -> tuple[int, ...]:
        """The settings of which no run has any value, because all of them failed."""
        return tuple(np.flatnonzero(~self._has_values.any(axis=1)).tolist())

    @cached_property
    def settings_with_values(self) -> tuple[int, ...]:
        """The others: the settings of which some run is finished."""
        return tuple(np.flatnonzero(self._has_values.any(axis=1)).tolist())

    @cached_property
    def missing_seeds(self) -> Mapping[int, tuple[int, ...]]:
        """The seeds whose run failed, by setting, of the settings that have other runs."""
        return {
            setting: tuple(self.seeds[place] for place in np.flatnonzero(~self._has_values[setting]).tolist())
            for setting in self.settings_with_values
            if not self._has_values[setting].all()
        }

    @cached_property
    def _has_values(self) -> BoolArray:
        """(settings, seeds) whether a run has any value."""
        has_values = np.zeros((len(self.settings), len(self.seeds)), dtype=bool)
        for series in self.series:
            has_values |= ~np.isnan(series.n)
        return has_values


def _bound_difference(difference: Contrast | None, quantity: Quantity) -> Contrast | None:
    """A difference whose interval holds nothing impossible."""
    return difference and bound_interval(difference, -quantity.max_difference, quantity.max_difference)


Effects = tuple[FloatArray, FloatArray, FloatArray]
"""Of one setting: at the aggregate, at the owning client, and over how many examples, by seed."""


def _ratio_contrast(first: Effects, other: Effects) -> Contrast:
    """The difference of two ratios of sums over the seeds that both have, by the jackknife over seeds.

    Value, interval and p share one centre: the difference of the ratios, not the mean of the pseudo-values.
    """
    parts = np.array([*first, *other])
    parts = parts[:, ~np.isnan(parts).any(axis=0)]
    none = Contrast(value=math.nan, low=math.nan, high=math.nan, p=math.nan, sd=math.nan, n=parts.shape[1])
    if not (is_divisible(parts[1], parts[2]) and is_divisible(parts[4], parts[5])):
        return none
    (ratio, ratios), (reference, references) = (_pseudo_values(*side) for side in (parts[:3], parts[3:]))
    if not np.isfinite([ratios, references]).all():  # without one seed nothing is left to keep
        return replace(none, value=ratio - reference)
    return contrast(ratios, references)


def _pseudo_values(whole: FloatArray, local: FloatArray, weights: FloatArray) -> tuple[float, FloatArray]:
    """A ratio of sums over seeds (S,), and its jackknife pseudo-values (S,), moved so that their mean is the ratio."""
    sums = whole * weights, local * weights
    ratio = float(sums[0].sum() / sums[1].sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (sums[0].sum() - sums[0]) / (sums[1].sum() - sums[1])
        return ratio, ratio - (len(whole) - 1) * (without - without.mean())
