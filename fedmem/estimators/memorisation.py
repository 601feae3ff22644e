"""Memorisation as self-influence: what training on an example does to the model's answer on that same example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Reading
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.single_examples import p_of_few
from fedmem.estimation.statistics import mean, means_by_coin, newcombe
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.two_way import of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Self-influence after Feldman and Zhang (2020), with whole federations as the trainings.

    mem_j = mean over in runs of M − mean over out runs of M. M is correctness (no label, the definition of the paper)
    or the probability of the label (label `statistic` = `probability`, less noisy). For a passage, correctness is the
    share of its tokens that are predicted. That makes this the counterfactual memorisation of Zhang et al. (2023). The
    probability is the geometric mean over its tokens. From −1 to 1, 0 without memorisation; the value of a kind is the
    mean over its examples. Coins are fair, so it is the effect under half of the audit set. With `coins: {law: rate}`
    it is that under another share. With `exclusion: replace` it is the influence of the example minus that of its
    replacement row.

    - M is averaged over the models of a place (the others) before runs are compared;
    - an example without an observed in run or without an observed out run is left out and lowers `n`;
    - the interval of a single example is Newcombe's, on correctness, with as many trials as runs with different
      coins. For passages it is wider than necessary, since shares vary less than coins.

    Fields: none.

    >>> Memorisation().min_runs
    2
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="memorisation",
            title="memorisation",
            aside="self-influence, −1 to 1",
            means="How much more often the model is right about an example when the example itself was trained on. "
            "Runs in which the example is in at random are compared with runs in which it is out.",
            is_not="It is not over-fitting and not difficulty. An example that the model gets right either way has "
            "memorisation zero, although it was learned.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
            headline=True,
            shows="memorised",
            terms=(("memorisation", "how much likelier the answer is right if the example was trained on"),),
            order=2,
            saturated=(-0.95, 0.95),
            bound="memorisation",
            compares="correct",
        ),
    )
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate")
    reads_relearning: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, by correctness and by probability."""
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            probability = np.exp(-np.logaddexp(0.0, -view.margin))  # the margin is the log odds of the label
        estimates: list[Estimate] = []
        for statistic, values in (("", view.correct), ("probability", probability)):
            estimates.extend(_by_kind(view, mean(values, axis=1), statistic))
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()


def _by_kind(view: View, values: FloatArray, statistic: str) -> Sequence[Estimate]:
    """Self-influence from one value per run and example (R, m)."""
    audit = view.audit
    inside, outside = (side[0] for side in means_by_coin(values, audit.is_in, np.ones((1, audit.runs))))
    influence = inside - outside
    estimates = []
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(influence))
        if not len(rows):
            continue
        is_measured = ~np.isnan(values[:, rows])
        ins, outs = (is_measured & audit.is_in[:, rows]).sum(0), (is_measured & ~audit.is_in[:, rows]).sum(0)
        share = audit.num_coin_rows / audit.runs  # twins are no further trials
        low = high = None
        if not statistic:
            trials, others = ins * share, outs * share
            low, high = newcombe(inside[rows] * trials, trials, outside[rows] * others, others)
        estimates.append(
            Estimate(
                metric="memorisation",
                kind=kind,
                labels=Labels.of(statistic=statistic),
                value=float(influence[rows].mean()),
                influence=place_among(of_difference(values[:, rows], audit.is_in[:, rows]), rows, len(audit)),
                null=0.0,
                bounds=(-1.0, 1.0),
                p=of_means(values, rows, view.redeals) if view.round is None else math.nan,
                redeals=num_redeals(view.redeals, rows),
                n=len(rows),
                examples=rows,
                per_example=influence[rows],
                per_example_low=low,
                per_example_high=high,
                per_example_n=ins + outs,
                per_example_p=p_of_few(average_twins(values, audit), coins_of_rows(audit), rows)
                if view.round is None
                else None,
            )
        )
    return estimates
