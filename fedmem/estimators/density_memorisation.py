"""Memorisation by log-density: how much more probable an example is under models that were trained on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.single_examples import p_of_few
from fedmem.estimation.statistics import mean, means_by_coin, welch_columns
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.two_way import of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class DensityMemorisation:
    """Self-influence with log p in the place of correctness (van den Burg and Williams, 2021), over whole federations.

    M_j = mean over in runs of log p(x_j) − mean over out runs of log p(x_j), in nats for each example, unbounded; 0
    without memorisation. The value of a kind is the mean over its examples. For rows without labels log p is the
    log-density that the model gives. For passages it is the sum over the tokens that are asked for, for other rows log
    p of the label.

    - Where a model only estimates or bounds log p, M is the difference of estimates. A gap that is larger for in runs
      than for out runs enters M, so compare bounds (`bound: iwae` and `elbo` of the `vae`);
    - log p is averaged over the models of a place (the others) before runs are compared;
    - values that are not finite, as of a model that diverged, count as not observed. An example without an in run or
      without an out run is left out and lowers `n`;
    - the interval of a single example is Welch's over runs; it has none with fewer than two runs on a side;
    - the mean over examples is dominated by few of them, since M has heavy tails. Single values are in the report.

    Fields: none.

    >>> DensityMemorisation().min_runs
    2

    Reference: van den Burg and Williams (2021), On memorization in probabilistic deep generative models.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="density_memorisation",
            title="memorisation by log-density",
            aside="in nats",
            means="By how much log p of an example is larger in runs that were trained on it at random than in runs "
            "that were not.",
            is_not="It is not over-fitting, which compares other examples, and not closeness of samples to training "
            "examples. Nats of inputs of different sizes do not compare.",
            unit="nats",
            null=0.0,
            headline=True,
            shows="memorised",
            terms=(("memorisation by log-density", "log p with the example in training minus log p without it"),),
            order=2,
        ),
    )
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate")
    densities: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind."""
        audit = view.audit
        values = _log_p(view)
        inside, outside = (side[0] for side in means_by_coin(values, audit.is_in, np.ones((1, audit.runs))))
        gain = inside - outside
        estimates = []
        for kind in audit.kinds:
            rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(gain))
            if not len(rows):
                continue
            of_rows, is_in = values[:, rows], audit.is_in[:, rows]
            inner, outer = (average_twins(np.where(side, of_rows, np.nan), audit) for side in (is_in, ~is_in))
            low, high = welch_columns(inner, outer)
            is_final = view.round is None
            estimates.append(
                Estimate(
                    metric="density_memorisation",
                    kind=kind,
                    value=float(gain[rows].mean()),
                    influence=place_among(of_difference(of_rows, is_in), rows, len(audit)),
                    null=0.0,
                    p=of_means(values, rows, view.redeals) if is_final else math.nan,
                    redeals=num_redeals(view.redeals, rows),
                    n=len(rows),
                    examples=rows,
                    per_example=gain[rows],
                    per_example_low=low,
                    per_example_high=high,
                    per_example_n=(~np.isnan(of_rows)).sum(0),
                    per_example_p=p_of_few(average_twins(values, audit), coins_of_rows(audit), rows)
                    if is_final
                    else None,
                )
            )
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()


def _log_p(view: View) -> FloatArray:
    """(R, m) log p in nats, NaN where it is not finite or was not observed."""
    values = -view.loss * view.audit.examples.num_targets  # the loss of a passage is a mean over its tokens
    return mean(np.where(np.isfinite(values), values, np.nan), axis=1)
