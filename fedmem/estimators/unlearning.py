"""Unlearning, verified by random inclusion: how much memorisation a phase removed, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import FOREVER
from fedmem.contracts.estimator import Estimate, Influence, SetEvidence, View
from fedmem.contracts.evidence import BEFORE
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Level, Reading
from fedmem.estimation.coin_groups import num_clusters, over_independent_draws
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import in_minus_out, means_by_coin, student_mean
from fedmem.estimation.twins import average_twins
from fedmem.estimation.two_way import half_width, of_difference, of_ins, place_among, ratio_interval


@dataclass(frozen=True, kw_only=True)
class Unlearning:
    """A phase against the one before, at the aggregate: memorisation, loss and accuracy.

    Runs that trained on a forgotten example went through the same phase as runs that never did. The latter stand for
    the retrained models. With `included: each` they may have had other examples to forget; with `included: together`
    they had none. So `memorisation` in the phase is the *residual*, 0 after perfect unlearning. It is below 0 where the
    example is less likely than if nobody had trained on it (over-forgetting). In addition:

    - `memorisation_before`: memorisation at the model before the phase, on the same examples;
    - `memorisation_change`: memorisation now minus before, paired by run and example, for every kind. For kinds that
      are retained it shows whether forgetting others exposes them, over runs that had something to forget;
    - `share_removed` = 1 − Σ residual / Σ before, for forgotten kinds, with Fieller's interval. 1 is all, 0 is nothing,
      and above 1 is over-forgetting. Undefined where memorisation before is not above 0 by its interval;
    - `loss_change`: the loss now minus that before, over runs that trained on the example;
    - `test_accuracy_change`: accuracy on the test set now minus before, with Student's t interval over the runs that
      had something to forget. Most unlearners leave all other runs as they are, which would halve the cost.

    Memorisation is by the probability of the label (label `statistic` = `probability`) and by correctness (no label). A
    kind is forgotten if clients trained on it before, and no client trains on it in the phase.

    Other estimators of the phase add evidence. `membership` with `lira` is U-LiRA. After perfect unlearning its AUC is
    that without memorisation, about 1/2. It is above 1/2 if a memory is left, and also if examples were over-forgotten:
    the shadow runs show the attack the direction. `exposure` gives the exposure gain that is left, in bits.

    The models before are those that the unlearner was given. Without an unlearner they are those of round 0.

    Fields: none.

    >>> Unlearning().needs_phase
    True

    Reference: Hayes et al. (2024), Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="memorisation_before",
            title="memorisation before the phase",
            means="Memorisation at the aggregate with which the phase before ended, on the same examples.",
            is_not="It is not what is left: see `memorisation` of the phase.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
        Measure(
            name="memorisation_change",
            title="change of memorisation",
            means="Memorisation now minus that at the aggregate before the phase, by the same runs and examples.",
            is_not="It is not the effect of the unlearner alone: a phase trains on the remaining rows as well.",
            unit="share",
            range=(-2.0, 2.0),
            null=0.0,
            direction="neither",
        ),
        Measure(
            name="share_removed",
            title="share of memorisation removed",
            means="1 minus the memorisation that is left, divided by that before the phase, both summed over examples. "
            "1 is all and 0 is nothing. Above 1, examples are less likely than if nobody had trained on them.",
            is_not="A value of 1 does not prove that nothing is left: see the interval, and the AUC of an attack.",
            direction="neither",
            digits=2,
        ),
        Measure(
            name="loss_change",
            title="change of loss",
            means="The loss now minus that before the phase, over runs that trained on the example.",
            is_not="It is not forgetting: a phase may raise the loss of all examples alike.",
            unit="nats",
            direction="neither",
        ),
        Measure(
            name="test_accuracy_change",
            title="change of test accuracy",
            means="Accuracy of the aggregate on the test set, now minus before the phase: the cost of unlearning.",
            is_not="It is no memorisation.",
            unit="share",
            range=(-1.0, 1.0),
            direction="higher is better",
            section="utility",
        ),
    )
    levels: ClassVar[tuple[Level, ...]] = ("global",)
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    needs_phase: ClassVar[bool] = True
    reads_relearning: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind: memorisation before and its change by both statistics, and the change of the loss."""
        if view.level != "global":
            return ()
        return [estimate for kind in view.audit.kinds for estimate in _of_kind(view, kind)]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The share of memorisation that was removed, by forgotten kind, and the change of test accuracy."""
        if view.level != "global":
            return ()
        shares = [
            _share_removed(view, kind, statistic, values)
            for kind in view.audit.kinds
            if _is_forgotten(view, kind)
            for statistic, values in _statistics(view)
        ]
        return [(None, reading) for reading in (*filter(None, shares), *_accuracy(view))]


@dataclass(frozen=True)
class _Pair:
    """Values (R, m) now and before the phase; NaN where either is."""

    now: FloatArray
    before: FloatArray


def _pair(now: FloatArray, before: FloatArray) -> _Pair:
    is_measured = np.isfinite(now) & np.isfinite(before)
    return _Pair(np.where(is_measured, now, np.nan), np.where(is_measured, before, np.nan))


def _statistics(view: View) -> Iterator[tuple[str, _Pair]]:
    """Correctness and probability of the label, by their labels."""
    before = _at_start(view.sets, "audit", view.audit.runs)
    for statistic, name in (("", "correct"), ("probability", "margin")):
        now, then = getattr(view, name)[:, 0], before[name]
        if statistic:
            with np.errstate(invalid="ignore"):  # NaN in, NaN out
                now, then = (np.exp(-np.logaddexp(0.0, -margin)) for margin in (now, then))
        yield statistic, _pair(now, then)


def _at_start(sets: Mapping[str, SetEvidence], name: str, runs: int) -> dict[str, FloatArray]:
    """Loss, margin and correctness (R, n) of a set at the models before the phase; NaN where they were not observed."""
    blocks = sets.get(f"{name}{BEFORE}", sets.get(name))
    found = {}
    for column in ("loss", "margin", "correct"):
        values = np.full((runs, 0 if blocks is None else blocks.size), np.nan)
        for block in () if blocks is None else blocks.blocks:
            if block.round == 0:
                values[block.run] = getattr(block, column)
        found[column] = values
    return found


def _is_forgotten(view: View, kind: str) -> bool:
    """Whether nobody trains on a kind in the phase, although somebody did before."""
    audit = view.audit
    of_kind = audit.kind == kind
    return bool(((audit.stop < 1) & (audit.start < FOREVER))[of_kind].all())


def _forgetting_runs(view: View) -> BoolArray:
    """(R,) the runs that trained on something that is forgotten; all of them where no kind is forgotten."""
    forgotten = [_is_forgotten(view, kind) for kind in view.audit.kinds]
    names = [kind for kind, is_forgotten in zip(view.audit.kinds, forgotten, strict=True) if is_forgotten]
    if not names:
        return np.ones(view.audit.runs, dtype=np.bool_)
    trained: BoolArray = np.asarray(view.audit.is_in[:, np.isin(view.audit.kind, names)].any(1))
    return trained


def _rows(view: View, kind: str, values: FloatArray) -> IntArray:
    """The examples of a kind with a value in an in run and in an out run."""
    inside, outside = (side[0] for side in means_by_coin(values, view.audit.is_in, np.ones((1, view.audit.runs))))
    return np.flatnonzero((view.audit.kind == kind) & ~np.isnan(inside - outside))


def _of_kind(view: View, kind: str) -> Iterator[Estimate]:
    audit = view.audit
    for statistic, values in _statistics(view):
        change = values.now - values.before
        if not _is_forgotten(view, kind):  # a cost: an average with runs that nothing was done to would hide it
            change = np.where(_forgetting_runs(view)[:, None], change, np.nan)
        rows = _rows(view, kind, change)
        if not len(rows):
            continue
        columns = [("memorisation_change", change, (-2.0, 2.0))]
        columns += [("memorisation_before", values.before, (-1.0, 1.0))] if view.round is None else []
        for metric, of_metric, bounds in columns:
            of_each = in_minus_out(of_metric[:, rows], audit.is_in[:, rows])
            yield Estimate(
                metric=metric,
                kind=kind,
                labels=Labels.of(statistic=statistic),
                value=float(of_each.mean()),
                influence=place_among(of_difference(of_metric[:, rows], audit.is_in[:, rows]), rows, len(audit)),
                null=0.0,
                bounds=bounds,
                p=of_means(of_metric, rows, view.redeals) if view.round is None else math.nan,
                redeals=num_redeals(view.redeals, rows),
                n=len(rows),
                examples=rows,
                signed=True,
            )
    loss = _pair(view.loss[:, 0], _at_start(view.sets, "audit", audit.runs)["loss"])
    change = loss.now - loss.before
    rows = _rows(view, kind, change)
    if len(rows):
        inside = means_by_coin(change[:, rows], audit.is_in[:, rows], np.ones((1, audit.runs)))[0][0]
        yield Estimate(
            metric="loss_change",
            kind=kind,
            value=float(inside.mean()),
            influence=place_among(of_ins(change[:, rows], audit.is_in[:, rows]), rows, len(audit)),
            null=math.nan,
            n=len(rows),
            examples=rows,
            signed=True,
        )


def _share_removed(view: View, kind: str, statistic: str, values: _Pair) -> Reading | None:
    """1 − Σ residual / Σ before; NaN where the latter is not above 0 by its interval."""
    audit = view.audit
    rows = _rows(view, kind, values.now - values.before)
    if not len(rows):
        return None
    is_in = audit.is_in[:, rows]
    left, before = (
        (
            float(in_minus_out(of_time[:, rows], is_in).mean()),
            _over_draws(view, of_difference(of_time[:, rows], is_in), rows),
        )
        for of_time in (values.now, values.before)
    )
    answered: BoolArray = np.asarray(~np.isnan(values.now[:, rows]).all(1))
    clusters = num_clusters(audit, rows, answered)
    value = low = high = math.nan
    if before[0] - half_width(*before, clusters) > 0:
        value = 1 - left[0] / before[0]
        low, high = (1 - end for end in reversed(ratio_interval(left, before, clusters)))
    labels = Labels.of(statistic=statistic)
    return Reading(metric="share_removed", value=value, low=low, high=high, n=len(rows), subject=kind, labels=labels)


def _over_draws(view: View, contributions: Influence, rows: IntArray) -> Influence:
    """Contributions of what was drawn independently: coin rows and coin groups."""
    return over_independent_draws(place_among(contributions, rows, len(view.audit)), view.audit, rows)


def _accuracy(view: View) -> Iterator[Reading]:
    """The change of test accuracy in runs with something to forget; none without a test set."""
    test = view.sets.get("test")
    if np.isnan(view.margin).all():
        return
    before = _at_start(view.sets, "test", view.audit.runs)["correct"]
    if test is None or not before.size:
        return
    change = (test.correct(len(test.models.round) - 1) - before).mean(1)
    change = np.where(_forgetting_runs(view), change, np.nan)
    change = average_twins(change[:, None], view.audit)[:, 0]
    change = change[np.isfinite(change)]
    if len(change):
        low, high = student_mean(change)
        yield Reading(metric="test_accuracy_change", value=float(change.mean()), low=low, high=high, n=len(change))
