"""Localisation: how much of a memory goes with a block of the network when that block is swapped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.signal import variants_of
from fedmem.estimation.coin_groups import num_clusters, over_independent_draws
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import in_minus_out, mean, student_mean
from fedmem.estimation.two_way import FEWEST, half_width, of_difference, place_among, ratio_interval

LARGEST_FALL = 0.02
"""A swap that lowers test accuracy by more than this tells nothing about memories alone."""

_NONE, _ALL = "none", "all"
_LEVEL = 0.05


@dataclass(frozen=True)
class _Swap:
    """The hybrids of one source and block, and the same models without a swap: (R, m) each."""

    source: str
    block: int
    statistic: str
    values: FloatArray
    unswapped: FloatArray
    accuracy: FloatArray
    unswapped_accuracy: FloatArray


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Memorisation of hybrids, and the share of it that is lost with each block that is swapped.

    The signal `block_swap` replaces one block of a model by that of a source. Sources are the model before the
    participation, the initial model, that of the other level, and that of an earlier round. Models with and without an
    example are swapped alike.
    For each kind, place, `block_source` and `swapped_block`:

    - `swapped_memorisation`: memorisation of the hybrid, mean over in runs minus mean over out runs. By correctness, or
      by the probability of the label (`statistic` = `probability`);
    - `memory_lost` = 1 − Σ memorisation of the hybrids / Σ memorisation of the models, over the same examples and runs.
      1 means that all of the memory went with the block, 0 none of it. Its interval is Fieller's. Where memorisation of
      the models is not significant, by its interval and by p, it is undefined and the label `resolved` is `no`;
    - `swap_accuracy_change`: test accuracy of the hybrids minus that of the models. Its interval is over runs, for
      these clients and test examples.

    Without a block that it needs, a network loses memories along with everything else. Where test accuracy falls by
    more than 2 percentage points, `memory_lost` is undefined and the label `void` is `accuracy`. Without test examples
    the label is `unknown`. Blocks have the numbers of `block_swap`, and 0 stands for all together. A swap of all blocks
    is a check that attributes nothing to a block, so it is never void.

    Shares of blocks need not add up to 1: blocks work together, and each is swapped alone. Twins and examples that are
    in or out together count as one draw. All values are in the summary.

    Fields: none.

    >>> Localisation().reads_signals
    ('swap_margin', 'swap_correct', 'swap_accuracy')

    Reference: Maini et al. (2023), Can neural network memorization be localized?
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="swapped_memorisation",
            title="memorisation after a swap",
            means="Memorisation of the model with one block from the source, the others its own.",
            is_not="It is not what the block holds, but what the model memorises without it: see `memory_lost`.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
            against="swapped_block",
        ),
        Measure(
            name="memory_lost",
            title="memory lost with a block",
            means="1 minus memorisation after the swap divided by memorisation before it. Sums over the same examples "
            "are divided.",
            is_not="Shares of blocks do not add up to 1. It is undefined where the swap lowers test accuracy by more "
            "than 2 percentage points, or where memorisation is not significant.",
            direction="neither",
            digits=2,
            against="swapped_block",
        ),
        Measure(
            name="swap_accuracy_change",
            title="test accuracy after a swap, minus before",
            means="Test accuracy of the model with one block from the source, minus that of the model itself.",
            is_not="It is not a loss of memories: a fall says that the block is needed for everything.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            against="swapped_block",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("swapped_block", "whole", "the block that is swapped; 0: all"),
        Label("block_source", "text", "the model that the block is from"),
        Label("void", "text", "why memory_lost is undefined: the swap lowers test accuracy, or accuracy is unknown"),
    )
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    reads_signals: ClassVar[tuple[str, ...]] = ("swap_margin", "swap_correct", "swap_accuracy")

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per source, block and kind: memorisation of the hybrids."""
        if view.round is not None:
            return ()
        return [
            estimate for swap in _swaps(view) for kind in view.audit.kinds for estimate in _of_kind(view, swap, kind)
        ]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The share that is lost, and the change of test accuracy."""
        if view.round is not None:
            return ()
        readings: list[Reading] = []
        for swap in _swaps(view):
            for kind in view.audit.kinds:
                rows = _rows(view, kind, swap)
                if len(rows):
                    readings += _accuracy_and_loss(view, swap, kind, rows)
        return [(None, reading) for reading in readings]


def _swaps(view: View) -> Iterator[_Swap]:
    """Every source and block that was read, with and without the swap."""
    margin, correct, accuracy = (
        {name: mean(values, axis=1) for name, values in variants_of(view.signals, quantity).items()}
        for quantity in Localisation.reads_signals
    )
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        probability = {name: np.exp(-np.logaddexp(0.0, -values)) for name, values in margin.items()}
    for name in margin:
        source, _, block = name.rpartition(".")
        unswapped = f"{source}.{_NONE}"
        if block == _NONE:
            continue
        for statistic, values in (("", correct), ("probability", probability)):
            yield _Swap(
                source=source,
                block=0 if block == _ALL else int(block),
                statistic=statistic,
                values=values[name],
                unswapped=values[unswapped],
                accuracy=accuracy[name],
                unswapped_accuracy=accuracy[unswapped],
            )


def _rows(view: View, kind: str, swap: _Swap) -> IntArray:
    """The examples of a kind whose hybrids were read in an in run and in an out run."""
    influence = in_minus_out(swap.values + 0 * swap.unswapped, view.audit.is_in)
    return np.flatnonzero((view.audit.kind == kind) & ~np.isnan(influence))


def _of_kind(view: View, swap: _Swap, kind: str) -> Iterator[Estimate]:
    """Memorisation of the hybrids of a kind."""
    rows = _rows(view, kind, swap)
    if not len(rows):
        return
    audit = view.audit
    effects = in_minus_out(swap.values[:, rows], audit.is_in[:, rows])
    yield Estimate(
        metric="swapped_memorisation",
        kind=kind,
        labels=_labels(swap),
        value=float(effects.mean()),
        influence=place_among(of_difference(swap.values[:, rows], audit.is_in[:, rows]), rows, len(audit)),
        null=0.0,
        bounds=(-1.0, 1.0),
        p=of_means(swap.values, rows, view.redeals),
        redeals=num_redeals(view.redeals, rows),
        n=len(rows),
        examples=rows,
        signed=True,
    )


def _labels(swap: _Swap, **more: str | None) -> Labels:
    return Labels.of({"block_source": swap.source, "swapped_block": swap.block, "statistic": swap.statistic, **more})


def _accuracy_and_loss(view: View, swap: _Swap, kind: str, rows: IntArray) -> Iterator[Reading]:
    """The change of accuracy, once for both statistics, and the share that is lost."""
    change = mean((swap.accuracy - swap.unswapped_accuracy)[:, rows], axis=1)
    fall = -float(mean(change, axis=0))
    if not swap.statistic and not math.isnan(fall):
        low, high = student_mean(change) if np.isfinite(change).sum() >= FEWEST else (math.nan, math.nan)
        yield Reading(
            metric="swap_accuracy_change",
            value=-fall,
            low=max(low, -1.0) if math.isfinite(low) else low,
            high=min(high, 1.0) if math.isfinite(high) else high,
            n=len(rows),
            subject=kind,
            labels=_labels(swap),
        )
    void = None
    if swap.block:
        # a tie of rounding is no fall beyond the limit
        void = "unknown" if math.isnan(fall) else "accuracy" if fall > LARGEST_FALL + 1e-12 else None
    yield _share_lost(view, swap, kind, rows, void)


def _share_lost(view: View, swap: _Swap, kind: str, rows: IntArray, void: str | None) -> Reading:
    """1 − Σ memorisation of the hybrids / Σ memorisation of the models."""
    is_in = view.audit.is_in[:, rows]
    hybrid, model = swap.values + 0 * swap.unswapped, swap.unswapped + 0 * swap.values
    top, bottom = ((_sum(part[:, rows], is_in), _influence(view, part, rows)) for part in (hybrid, model))
    answered: BoolArray = np.asarray(~np.isnan(hybrid[:, rows]).all(1))
    clusters = num_clusters(view.audit, rows, answered)
    value = low = high = math.nan
    reasons: Mapping[str, str | None] = {"void": void}
    if void is None:
        p, largest_p = of_means(model, rows, view.redeals), max(_LEVEL, 2 / (num_redeals(view.redeals, rows) + 1))
        # NaN, an unknown width, is no proof; an unknown p denies nothing
        if p > largest_p or not bottom[0] - half_width(*bottom, clusters) > 0:
            reasons = {"resolved": "no"}
        else:
            value = 1.0 - top[0] / bottom[0]
            low, high = (1.0 - end for end in reversed(ratio_interval(top, bottom, clusters)))
    return Reading(
        metric="memory_lost",
        value=value,
        low=low,
        high=high,
        n=len(rows),
        subject=kind,
        labels=_labels(swap, **reasons),
    )


def _sum(values: FloatArray, is_in: BoolArray) -> float:
    """The mean over examples of in minus out: sums over the same examples have the same ratio."""
    return float(in_minus_out(values, is_in).mean())


def _influence(view: View, values: FloatArray, rows: IntArray) -> Influence:
    """The contributions to that mean, twins and groups as one draw."""
    audit = view.audit
    parts = place_among(of_difference(values[:, rows], audit.is_in[:, rows]), rows, len(audit))
    return over_independent_draws(parts, audit, rows)
