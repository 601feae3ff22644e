"""What finished runs say when they are set side by side: every measure by setting, level and seed, as arrays.

Reads the measurements of run folders and nothing else. The tables that come of them are pure functions of the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedmem.contracts.types import FloatArray
from fedmem.estimation.saturation import Zone
from fedmem.reporting.sections import warnings
from fedmem.reporting.summary import Summary
from fedmem.results.read import Run
from fedmem.studies.contrasts import (
    LEVEL,
    Contrast,
    Mean,
    Ratio,
    contrast,
    detectable,
    dominated,
    holm,
    mean_of,
    resolved,
    retained,
    seeds_for,
    within,
)
from fedmem.studies.grid import Setting, label_of
from fedmem.studies.quantities import Quantity, Series, _over_rounds, _quantities


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting in one quantity: its mean, and how it differs from its reference (None for a reference itself).

    `other_rates` says that it has no seed with the reference's false positive rate, so that nothing is compared;
    `other_examples` that means are over other examples than the reference's, as where others took part. `saturated`
    says that its mean is at an end of the measure, `reference_saturated` the same of its reference.
    """

    quantity: Quantity
    setting: int
    mean: Mean
    contrast: Contrast | None
    adjusted: float
    detectable: float
    seeds: int
    other_rates: bool = False
    other_examples: bool = False
    saturated: bool = False
    reference_saturated: bool = False

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `identical`, `unresolved`, `saturated` or `other rates`, empty for a reference.

        `saturated`: both means are at the end of what the measure shows, so that no difference could be seen.
        """
        if self.contrast is None:
            return ""
        if self.other_rates:
            return "other rates"
        if self.saturated and self.reference_saturated:
            return "saturated"
        if self.contrast.identical:
            return "identical"
        if not self.adjusted < LEVEL:
            return "unresolved"
        return "higher" if self.contrast.value > 0 else "lower"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What aggregation retains of one measure and kind in a setting, and its difference to the reference.

    `saturated` says that the value at the holder is at the end of the measure, so that the ratio is too high.
    """

    quantity: Quantity
    setting: int
    ratio: Ratio
    difference: Contrast | None
    saturated: bool = False


@dataclass(frozen=True, kw_only=True)
class Trade:
    """A setting between utility and one measure; `better` is a setting that has more of one and no less of the other.

    `sure` says whether both differences to that setting are told from chance, unadjusted. `saturated` says that the
    measure is at its end.
    """

    quantity: Quantity
    setting: int
    use: Mean
    harm: Mean
    better: int
    sure: bool
    saturated: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: S settings, each with its reference by place (itself: it is one), and their seeds.

    `warnings` are those of the runs, each once.
    """

    settings: tuple[Setting, ...]
    reference: tuple[int, ...]
    seeds: tuple[int, ...]
    series: tuple[Series, ...]
    measures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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
        shape = (len(settings), len(seeds))
        found: dict[Quantity, dict[str, FloatArray]] = {}
        rounds: dict[Quantity, dict[int, FloatArray]] = {}
        warned: dict[str, None] = {}
        zones: dict[Quantity, Zone] = {}
        for place, run in sorted(runs.items()):
            summary = Summary(run)
            warned |= dict.fromkeys(warnings(run))
            for quantity, numbers in _quantities(summary):
                arrays = found.setdefault(quantity, {name: np.full(shape, np.nan) for name in numbers})
                for name, value in numbers.items():
                    arrays[name][place] = value
                zone = summary.zone(quantity.metric, quantity.kind)
                zones[quantity] = zones.get(quantity, zone).joined(zone)
                over = rounds.setdefault(quantity, {})
                for round, seen in _over_rounds(summary, quantity):
                    over.setdefault(round, np.full(shape, np.nan))[place] = seen
        series = tuple(
            Series(quantity=quantity, rounds=dict(sorted(rounds[quantity].items())), zone=zones[quantity], **arrays)
            for quantity, arrays in found.items()
        )
        return Comparison(
            settings=tuple(settings),
            reference=tuple(reference),
            seeds=tuple(seeds),
            series=series,
            measures=tuple(measures),
            warnings=tuple(warned),
        )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names of the settings."""
        return tuple(map(label_of, self.settings))

    @cached_property
    def tested(self) -> tuple[Series, ...]:
        """What is tabled and tested: the headline, or the measures that were asked for."""
        wanted = [
            one
            for one in self.series
            if one.quantity.level in ("local", "global")
            and (one.quantity.metric in self.measures if self.measures else one.quantity.headline)
        ]
        measures = list(dict.fromkeys((one.quantity.metric, one.quantity.labels) for one in wanted))
        kinds = list(dict.fromkeys(one.quantity.kind for one in self.series))

        def place(one: Series) -> tuple[int, int, bool]:
            quantity = one.quantity
            measure = measures.index((quantity.metric, quantity.labels))
            return measure, kinds.index(quantity.kind), quantity.level != "local"

        return tuple(sorted(wanted, key=place))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every setting in every tested quantity. Holm's adjustment is over all of these differences together."""
        drafts = []
        for one in self.tested:
            for setting in range(len(self.labels)):
                other = self.reference[setting]
                drafts.append((one, setting, None if other == setting else one.against(setting, other)))
        adjusted = holm(np.array([math.nan if found is None else found.p for _, _, found in drafts]))
        tests = max(1, int(np.count_nonzero(~np.isnan(adjusted))))
        return tuple(
            Row(
                quantity=one.quantity,
                setting=setting,
                mean=within(mean_of(one.values[setting]), *one.quantity.range),
                contrast=None if found is None else within(found, -one.quantity.most, one.quantity.most),
                adjusted=p,
                detectable=math.nan if found is None else detectable(found.sd, found.n, tests),
                seeds=0 if found is None else seeds_for(found.value, found.sd, tests),
                other_rates=found is not None
                and found.n == 0
                and not one.alike(setting, self.reference[setting]).all(),
                other_examples=bool(one.quantity.kind) and one.other_examples(setting, self.reference[setting]),
                saturated=one.saturated(setting),
                reference_saturated=one.saturated(self.reference[setting]),
            )
            for (one, setting, found), p in zip(drafts, adjusted.tolist(), strict=True)
        )

    @cached_property
    def retention(self) -> tuple[Kept, ...]:
        """What aggregation keeps of each tested measure that has a value without memorisation."""
        found = []
        for one in self.tested:
            if one.quantity.level == "local" and not np.isnan(one.paired).all() and not np.isnan(one.null).all():
                local, whole = _above(one.values, one.null), _above(one.paired, one.paired_null)
                for setting in range(len(self.labels)):
                    other = self.reference[setting]
                    same = np.where(one.alike(setting, other), 1.0, math.nan)
                    found.append(
                        Kept(
                            quantity=one.quantity,
                            setting=setting,
                            ratio=retained(whole[setting], local[setting], one.n[setting]),
                            difference=None
                            if other == setting
                            else _ratio_contrast(
                                (whole[setting] * same, local[setting], one.n[setting]),
                                (whole[other], local[other], one.n[other]),
                            ),
                            saturated=one.saturated(setting),
                        )
                    )
        return tuple(found)

    @cached_property
    def trades(self) -> tuple[Trade, ...]:
        """Utility against each other tested quantity of the aggregate; empty where no run measured utility.

        All settings are compared over the seeds of which every one has both, so that none is ahead by its seeds. A
        setting without any such seed, because its runs failed, is no trade and on no front: see `without`.
        """
        use = next(
            (s for s in self.series if s.quantity.useful and (s.quantity.level, s.quantity.kind) == ("global", "")),
            None,
        )
        if use is None:
            return ()
        found = []
        for one in self.tested:
            settings = range(len(self.labels))
            if not all(one.alike(setting, other).all() for setting in settings for other in settings):
                continue  # some have it at another false positive rate
            if one.quantity.level == "global" and one.quantity.kind:
                both = ~(np.isnan(use.values) | np.isnan(one.values))
                there = both[both.any(axis=1)].all(axis=0)
                uses, harms = (
                    [within(mean_of(values[there]), *series.quantity.range) for values in series.values]
                    for series in (use, one)
                )
                best = dominated(np.array([m.value for m in uses]), np.array([m.value for m in harms]))
                for setting, better in enumerate(best):
                    if math.isnan(uses[setting].value) or math.isnan(harms[setting].value):
                        continue
                    sure = better >= 0 and all(
                        contrast(series.values[better][there], series.values[setting][there]).p < LEVEL
                        for series in (use, one)
                    )
                    found.append(
                        Trade(
                            quantity=one.quantity,
                            setting=setting,
                            use=uses[setting],
                            harm=harms[setting],
                            better=better,
                            sure=sure,
                            saturated=one.zone.holds(harms[setting].value),
                        )
                    )
        return tuple(found)

    @cached_property
    def without(self) -> tuple[int, ...]:
        """The settings of which no run has any value, because all of them failed."""
        there = np.zeros(len(self.settings), dtype=bool)
        for one in self.series:
            there |= ~np.isnan(one.n).all(axis=1)
        return tuple(np.flatnonzero(~there).tolist())


def _above(values: FloatArray, null: FloatArray) -> FloatArray:
    """The effects; what differs from no memorisation by rounding only is none."""
    apart = values - null
    return np.where(np.abs(apart) <= 1e-12 * np.maximum(np.abs(values), np.abs(null)), 0.0, apart)


Effects = tuple[FloatArray, FloatArray, FloatArray]
"""Of one setting: at the aggregate, at the holder, and over how many examples, by seed."""


def _ratio_contrast(one: Effects, other: Effects) -> Contrast:
    """The difference of two ratios of sums over the seeds that both have, by the jackknife over seeds."""
    parts = np.array([*one, *other])
    parts = parts[:, ~np.isnan(parts).any(axis=0)]
    n = parts.shape[1]
    if not (resolved(parts[1], parts[2]) and resolved(parts[4], parts[5])):
        return Contrast(value=math.nan, low=math.nan, high=math.nan, p=math.nan, sd=math.nan, n=n)
    parts = np.array([parts[0] * parts[2], parts[1] * parts[2], parts[3] * parts[5], parts[4] * parts[5]])
    sums = parts.sum(axis=1)
    left = sums[:, None] - parts  # without each seed
    value = float(sums[0] / sums[1] - sums[2] / sums[3])
    pseudo = n * value - (n - 1) * (left[0] / left[1] - left[2] / left[3])
    found = contrast(pseudo, np.zeros(n))
    half = (found.high - found.low) / 2
    return Contrast(value=value, low=value - half, high=value + half, p=found.p, sd=found.sd, n=n)
