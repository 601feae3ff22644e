"""Pointwise V-information: how many bits about its label a model gets from the input of an example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure, gain_of
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.estimation.in_and_out import estimate_in_and_out
from fedmem.estimation.statistics import mean

_MEASURE = Measure(
    name="v_information",
    gain="v_information_gain",
    title="pointwise V-information",
    means="The bits about the label that models without the example get from its input. It is log2 of the probability "
    "of the label, minus log2 of its share among the labels of training rows.",
    is_not="It is a proxy, not memorisation: a low value is a hard or wrong label. Its difference in − out is the "
    "memorisation of the example by log2 of the probability.",
    unit="bits",
    direction="neither",
    trained_on="higher",
    digits=2,
    section="proxies",
)


@dataclass(frozen=True, kw_only=True)
class VInformation:
    """PVI after Ethayarajh, Choi and Swayamdipta (2022), with the models of all runs and a label prior in closed form.

    PVI_j = log2 p(y_j | x_j) − log2 g(y_j) in bits, with p the probability of the label. The prior g is the best answer
    without the input: g(y) = (n_y + 1) / (n + C). There are C classes, and n_y of n base rows have this label.

    - `v_information`: the mean over runs without the example, which is the definition: the example is held out. With
      the label `statistic` = `in`, over runs with it. Negative values are worse than the prior, and mark wrong labels;
    - `v_information_gain`: in − out. The prior cancels, so this is mean log2 p over in runs minus that over out runs,
      exactly. It is the counterfactual memorisation of the example in bits. So the PVI of a model that has trained on
      the example is that of one that has not, plus memorisation.

    The value of a kind is the mean over its examples, its V-information. The mean over models of a place comes first.
    Log probabilities come from logits in float64 and are finite, but a single confident wrong answer can dominate a
    mean. Texts have no label prior, so that they have the difference alone.

    Fields:
        prior: Whose labels the prior counts: those of the `owner`, or of the whole `federation`. They differ where
            labels are skewed: an owner knows how common its labels are.

    >>> VInformation().prior
    'owner'
    """

    measures: ClassVar[tuple[Measure, ...]] = (_MEASURE, gain_of(_MEASURE))
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "prior",
            "text",
            "whose labels the best answer without the input counts: the owner's, or the federation's",
            titles=(("owner", "with the prior of the owner"), ("federation", "with the prior of the federation")),
        ),
    )
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True

    prior: Literal["owner", "federation"] = "owner"

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind: out, in and their difference; for texts their difference alone."""
        (quantity,) = self.example_values(view)
        estimates = estimate_in_and_out(view, quantity, _MEASURE, main="out", is_retained=True)
        return [e for e in estimates if "prior" in quantity.labels or e.metric == _MEASURE.gain]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_values(self, view: View) -> Sequence[ExampleValues]:
        """Bits (R, m), without a prior and its label for texts."""
        bits = -mean(view.loss, axis=1) / math.log(2)
        if view.label_counts is None:
            return (ExampleValues(metric="v_information", values=bits),)
        null_bits = np.log2(_prior(view, self.prior))
        labels = Labels.of(prior=self.prior)
        return (ExampleValues(metric="v_information", labels=labels, values=bits - null_bits),)


def _prior(view: View, whose: str) -> FloatArray:
    """(m,) the share of the label of each example among base rows, each label counted once more."""
    assert view.label_counts is not None
    audit, counts = view.audit, view.label_counts
    everywhere = counts.sum(0)
    of_each = np.where((audit.owner >= 0)[:, None], counts[audit.owner], everywhere) if whose == "owner" else everywhere
    of_each = np.broadcast_to(of_each, (len(audit), counts.shape[1]))
    rows = of_each[np.arange(len(audit)), audit.examples.labels]
    return np.asarray((rows + 1) / (of_each.sum(1) + counts.shape[1]))
