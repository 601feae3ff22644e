"""Trajectories: when models learn and forget an example over the rounds, and how sure of it they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure, as_proxy, gain_of
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.series import Series, explain_uneven
from fedmem.errors import ComponentError
from fedmem.estimation.in_and_out import estimate_in_and_out
from fedmem.estimation.statistics import mean

_NOT = "It is a proxy, not memorisation: an example may be hard whether or not models were trained on it."

_DECLARED = (
    Measure(
        name="forgetting",
        title="forgetting",
        means="The share of steps from one model of a sequence to the next at which a right answer becomes wrong. It "
        "is 1 if no answer is right.",
        is_not=_NOT,
        unit="share",
        range=(0.0, 1.0),
        trained_on="lower",
    ),
    Measure(
        name="first_learning",
        title="first learning",
        means="The share of a sequence of models that comes before the first right answer; 1 if no answer is right.",
        is_not=_NOT,
        unit="share",
        range=(0.0, 1.0),
        trained_on="lower",
    ),
    Measure(
        name="final_learning",
        title="final learning",
        means="The share of a sequence of models up to the last wrong answer; 1 if the last answer is wrong.",
        is_not=_NOT,
        unit="share",
        range=(0.0, 1.0),
        trained_on="lower",
    ),
    Measure(
        name="cumulative_loss",
        title="cumulative loss",
        means="The sum of the losses of a sequence of models, divided by their number.",
        is_not=_NOT,
        unit="nats",
        range=(0.0, np.inf),
        trained_on="lower",
    ),
    Measure(
        name="confidence",
        title="confidence",
        means="The mean probability of the label over a sequence of models.",
        is_not=_NOT,
        unit="share",
        range=(0.0, 1.0),
        trained_on="higher",
    ),
    Measure(
        name="confidence_spread",
        title="spread of confidence",
        means="The standard deviation of the probability of the label over a sequence of models.",
        is_not=_NOT,
        unit="share",
        range=(0.0, 0.5),
    ),
    Measure(
        name="aum",
        title="AUM",
        means="The area under the margin: the mean logit margin over a sequence of models.",
        is_not="It is a proxy, not memorisation. Its size depends on the scale of the weights.",
        trained_on="higher",
    ),
    Measure(
        name="log_odds_aum",
        title="AUM of log odds",
        means="The mean margin, which is the log odds of the label, over a sequence of models.",
        is_not="It is not the AUM of Pleiss et al. (2020), whose margin is to the strongest other class. With two "
        "classes both are equal; with C classes the AUM is larger by log(C − 1) at most. It is a proxy, not "
        "memorisation.",
        trained_on="higher",
    ),
)

_MEASURES = tuple(map(as_proxy, _DECLARED))


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Values of an example in the models of one place over the observed rounds, as proxies of memorisation.

    Each measure is a number for one run, place and example, from a sequence of models. It has three values: over runs
    with the example, over runs without it (label `statistic` = `out`), and their difference (`<name>_gain`, with p).
    They answer different questions: the first is published practice, the second is difficulty without membership. Only
    in the summary. Over n models with correctness c, loss l and probability p of the label:

    - `forgetting` (Toneva et al., 2019): the number of steps from c = 1 to c = 0, divided by the n − 1 steps. If no
      answer is right, it is 1. They count on each batch before its update, this counts after the round;
    - `first_learning`: the number of models before the first right answer, divided by n; 1 if none is right. With n
      observed rounds that are s rounds apart, the first right answer is in round s (n × `first_learning` + 1);
    - `final_learning`: the position of the last wrong answer, divided by n; 0 if none is wrong;
    - `cumulative_loss` (Ravikumar et al., 2025): Σ l / n;
    - `confidence`, `confidence_spread` (Swayamdipta et al., 2020): mean and standard deviation of p;
    - `aum` (Pleiss et al., 2020): the mean logit margin. It needs `signals: [{kind: logit_margin}]`;
    - `log_odds_aum`: the mean margin, from evidence that is always stored. It is smaller by log(C − 1) at most,
      and of passages by any amount.

    The label `clock` says which sequence:

    - `rounds`: the aggregate at each observed round. Other clients change it too: what is forgotten here is what the
      federation forgets;
    - `participations`: each round of the owning client gives two models. The first is the aggregate that it received,
      the second is its own after training or, at the aggregate, the aggregate of that round. So local and global are
      the same pairs. Forgetting and learning count both models, and the other measures only the second. Each other
      client has its own participations, and the mean is over clients. This clock needs `observe: {every: 1}`.

    Counts are divided, because clients have different numbers of participations. Rounds without a model are skipped,
    and so is the initial model. Observed rounds must be evenly spaced, since fewer events are seen where rounds are far
    apart. For a passage, an answer is right if more than half of its tokens are. Proxies have no retention.

    Fields: none.

    >>> Trajectories().needs_even_rounds
    True
    """

    measures: ClassVar[tuple[Measure, ...]] = tuple(item for one in _MEASURES for item in (one, gain_of(one)))
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "clock",
            "text",
            "what counts the models of a sequence: rounds, or participations of a client",
            titles=(("rounds", "by rounds"), ("participations", "by participations")),
        ),
    )
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    needs_even_rounds: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, measure and clock: in, out and their difference."""
        declared = {measure.name: measure for measure in _MEASURES}
        quantities = self.example_values(view)
        return [e for one in quantities for e in estimate_in_and_out(view, one, declared[one.metric])]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_values(self, view: View) -> Sequence[ExampleValues]:
        """The measures of each run and example (R, m), by clock; none but in the summary.

        Raises:
            ComponentError: if the observed rounds are not evenly spaced.
        """
        if view.round is not None or view.series is None or len(view.series.rounds) < 2:
            return ()
        # the summary shows examples of which local and global are the same pairs, or one that a caller chose
        hidden: BoolArray = np.asarray(np.isnan(view.margin).all((0, 1)))
        series = view.series.hide(hidden)
        if series.step is None:
            raise ComponentError("observe", explain_uneven("trajectories", series.rounds.tolist()))
        quantities: list[ExampleValues] = []
        if view.level == "global":
            quantities += _label_clock("rounds", _events(series.correct()) | _means(series, 0, _EVERY))
        if series.participated is not None and series.step == 1:
            quantities += _label_clock("participations", _over_clients(series, view))
        return quantities


def _label_clock(clock: str, values_by_name: Mapping[str, FloatArray]) -> list[ExampleValues]:
    labels = Labels.of(clock=clock)
    return [ExampleValues(metric=name, labels=labels, values=values) for name, values in values_by_name.items()]


def _over_clients(series: Series, view: View) -> dict[str, FloatArray]:
    """Each measure by participations, the mean over the sequences of a place (R, m)."""
    sums: dict[str, FloatArray] = {}
    counts: dict[str, FloatArray] = {}
    for q in range(series.size):
        for name, values in _of_participations(series, q, view).items():
            is_known = ~np.isnan(values)
            sums[name] = sums.get(name, 0.0) + np.where(is_known, values, 0.0)
            counts[name] = counts.get(name, 0.0) + is_known
    return {
        name: np.where(counts[name] > 0, total / np.maximum(counts[name], 1), np.nan) for name, total in sums.items()
    }


def _of_participations(series: Series, q: int, view: View) -> dict[str, FloatArray]:
    """The measures of the q-th sequence: of two models a participation for events, of the second for means."""
    assert series.participated is not None
    # the aggregate is there without the owner, too
    is_counted: BoolArray = series.participated[:, None] if view.level == "global" else _EVERY
    before, after = series.correct_before(q), series.correct(q)
    answers = np.where(is_counted[:, None], np.stack([before, after], axis=1), np.nan)
    return _events(answers.reshape(-1, *after.shape[1:])) | _means(series, q, is_counted)


def _events(correct: FloatArray) -> dict[str, FloatArray]:
    """Forgetting and learning (R, m) from correctness (n, R, m); models that are NaN are skipped."""
    shape = correct.shape[1:]
    seen, steps, forgotten = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    first, final, earlier = np.full(shape, np.nan), np.zeros(shape), np.full(shape, np.nan)
    for answers in correct:
        is_known, is_right = ~np.isnan(answers), answers > _RIGHT
        steps += is_known & ~np.isnan(earlier)
        forgotten += is_known & (earlier == 1) & ~is_right
        first = np.where(is_known & is_right & np.isnan(first), seen, first)
        seen += is_known
        final = np.where(is_known & ~is_right, seen, final)
        earlier = np.where(is_known, is_right, earlier)
    never = np.isnan(first)
    return {
        "forgetting": _divide(np.where(never, steps, forgotten), steps),
        "first_learning": _divide(np.where(never, seen, first), seen),
        "final_learning": _divide(final, seen),
    }


def _means(series: Series, q: int, is_counted: BoolArray) -> dict[str, FloatArray]:
    """Loss, confidence and margins (R, m) of the q-th sequence over the models that are counted."""
    loss, margin = (np.where(is_counted, values, np.nan) for values in (series.loss(q), series.margin(q)))
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        confidence = np.exp(-np.logaddexp(0.0, -margin))  # the margin is the log odds of the label
    middle = mean(confidence, axis=0)
    means = {
        "cumulative_loss": mean(loss, axis=0),
        "confidence": middle,
        "confidence_spread": np.sqrt(mean(np.square(confidence - middle), axis=0)),
        "log_odds_aum": mean(margin, axis=0),
    }
    logit_margin = series.signal(_LOGIT_MARGIN, q)
    if logit_margin is not None:
        means["aum"] = mean(np.where(is_counted, logit_margin, np.nan), axis=0)
    return means


def _divide(count: FloatArray, of: FloatArray) -> FloatArray:
    return np.where(of > 0, count / np.maximum(of, 1), np.nan)


_LOGIT_MARGIN = "logit_margin"
"""The measure of the signal that AUM averages."""

_EVERY: BoolArray = np.ones((1, 1, 1), dtype=bool)
"""All rounds and examples count."""

_RIGHT = 0.5
"""An answer is right where more than this share of its tokens is."""
