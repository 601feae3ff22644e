"""The epsilon that the runs prove: how far models distinguish members, as a lower bound of the guarantee."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.privacy.epsilon_bounds import (
    AuditedUnit,
    Finding,
    epsilon_by_split,
    epsilon_over_thresholds,
    guess,
    one_run,
)
from fedmem.privacy.epsilon_estimates import gaussian_estimate
from fedmem.seeding import stream


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Empirical epsilon of records included at random, by kind, at every observed round after the first model.

    Scores are margins, log p_y − log Σ_{c≠y} p_c. The unit is a record, with all copies under its coin. Neighbours
    differ by it (`exclusion: remove`, add_remove: n rows against n - 1) or have another row in its place (`replace`).
    The guarantee of `dp_sgd` keeps the number of rows, so an audit by removal has no guarantee to compare with. Two
    ways to count:

    - `one_run` (Steinke, Nasr and Jagielski, 2023): the coins of run `run` alone. The audit guesses the share
      `guesses` of m examples of a kind: "in" for the half with the highest scores, "out" for the half with the lowest.
      The bound holds however examples influence one another. More canaries give a tighter bound;
    - `over_runs`: R/2 runs with an example and R/2 without are trials of that example. Each example has a bound
      (Clopper and Pearson, 1934). It is at `thresholds` declared beforehand, the error divided by their number. By
      default it is at one threshold, chosen on half of the runs and tested on the other half. A kind has the bound of
      its best example, the error divided by their number. `epsilon_gdp` is an estimate over all examples as if scores
      were normal, not a bound.

    Metrics, in nats: `epsilon_hat`, at least 0, lies below the true epsilon with probability `confidence`.
    `epsilon_hat.ceiling` is its value if every guess were right: where the two are near, there were too few trials. The
    number n counts trials. The labels are claim, method, unit, adjacency, copies, delta. No bound holds for the largest
    of several readings, nor for the sum over rounds. Never in the summary, which picks the round by participation.

    Where a part of the scenario adds noise, `epsilon_hat.permitted` at the last round is its guarantee for the same
    neighbours and the same delta. See docs/privacy.md. With `alarm` a bound above it fails the run. Such an audit has a
    positive control. The scenario is trained once more with a noise multiplier of zero (the declared run alone, or all
    runs for `over_runs`). `epsilon_hat.control` is the bound of the audit there. Where that is not above the permitted
    value, the audit has no power, and a bound below the guarantee is no evidence for the guarantee.

    Fields:
        method: What is counted.
        example_kind: The kind of audit example that is audited; by default each kind separately.
        level: Which models are read, the aggregates or those of the owners.
        run: Whose random inclusion `one_run` guesses.
        guesses: Share of the examples that `one_run` guesses; the middle is not guessed.
        thresholds: Of margins, declared for `over_runs`.
        delta: At which epsilon is reported.
        confidence: Of each single bound.
        alarm: Whether a bound above the guarantee is an alarm; at most one audit of a run may raise it, of one kind.
        control: Whether an audit with `alarm` trains the scenario once more without noise, as its positive control.

    >>> Audit(example_kind="random_pattern", alarm=True).method
    'one_run'
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="epsilon_hat",
            title="epsilon, proven by an audit",
            means="A lower bound of epsilon that holds with the confidence of the audit.",
            is_not="It is not the epsilon of the guarantee, nor an upper bound of anything. A bound near 0 may be "
            "too few trials.",
            unit="nats",
            range=(0.0, math.inf),
            section="privacy",
            order=10,
            terms=(
                (
                    "epsilon at least",
                    "proven by an audit; true with the confidence of the audit, by default 95 %",
                ),
                ("ceiling", "the largest bound that the audit can prove, if every guess is right"),
                (
                    "permitted",
                    "the guarantee for the neighbours that the audit compared; a bound above it shows an error",
                ),
            ),
        ),
        Measure(
            name="epsilon_gdp",
            title="epsilon, if scores were normal",
            means="An estimate of epsilon from the shift of normal scores.",
            is_not="It is not a bound.",
            unit="nats",
            range=(0.0, math.inf),
            section="privacy",
            order=10,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("guesses", "number", "the share of the examples that are guessed"),
        Label("thresholds", "whole", "the number of thresholds declared beforehand"),
        Label("copies", "whole", "the copies of an example that are in or out together"),
    )
    min_runs: ClassVar[int] = 1
    compares_held_out: ClassVar[bool] = True
    bounds_epsilon: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    method: Literal["one_run", "over_runs"] = "one_run"
    example_kind: str = ""
    level: Level = "global"
    run: Annotated[int, annotated_types.Ge(0)] = 0
    guesses: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.5
    thresholds: tuple[float, ...] = ()
    delta: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 1e-5
    confidence: Annotated[float, annotated_types.Gt(0.5), annotated_types.Lt(1)] = 0.95
    alarm: bool = False
    control: bool = True

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that must be observed."""
        return (self.level,)

    @property
    def needs_independent_runs(self) -> bool:
        """Counting over runs takes each as a trial of its own."""
        return self.method == "over_runs"

    @property
    def labels_of_rows(self) -> Labels:
        """The labels that distinguish the rows of this audit from others: its method of counting, and its delta."""
        counted = (
            {"guesses": self.guesses} if self.method == "one_run" else {"thresholds": len(self.thresholds) or None}
        )
        return Labels.of(counted, method=self.method, delta=_round_delta(self.delta))

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: bounds have no contributions, and no difference of two of them is one."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Findings of every kind, and of every example where each has trials of its own."""
        place = {"global": ("global", ""), "local": ("local", "owner")}.get(self.level)
        if (view.level, view.place) != place or view.round in (0, None):
            return ()
        findings: list[tuple[int | None, Reading]] = []
        for kind in view.audit.kinds:
            rows = np.flatnonzero(view.audit.kind == kind)
            if self.example_kind in ("", kind):
                findings += (
                    self._in_one_run(view, kind, rows)
                    if self.method == "one_run"
                    else self._over_runs(view, kind, rows)
                )
        return findings

    def _unit_of(self, view: View, rows: IntArray) -> AuditedUnit:
        """The difference between the two sides; of examples with different copies the largest."""
        adjacency: Literal["add_remove", "replace"] = "add_remove" if view.exclusion == "remove" else "replace"
        return AuditedUnit(unit="record", adjacency=adjacency, copies=max(1, int(view.audit.copies[rows].max())))

    def _in_one_run(self, view: View, kind: str, rows: IntArray) -> Iterator[tuple[int | None, Reading]]:
        """The finding of one kind, in the run that was declared."""
        if self.run >= view.audit.runs:
            return
        # participation of the owner is no secret and independent of coins; a model that diverged has no margin
        is_usable = ~np.isnan(view.margin[:, 0, rows]).all(0) & view.audit.owner_in[self.run, rows]
        rows = rows[is_usable]
        scores, is_in = view.margin[self.run, 0, rows], view.audit.is_in[self.run, rows]
        many = int(self.guesses * len(rows))
        if not many:
            return
        is_scored = ~np.isnan(scores)
        scores = np.where(is_scored, scores, np.median(scores[is_scored]) if is_scored.any() else 0.0)
        right = guess(scores, is_in, many, stream(0, "audit ties", round_number=view.round))
        finding = _one_run(right, many, len(rows), self._unit_of(view, rows), self.delta, self.confidence)
        yield from ((self.run, reading) for reading in self._readings(finding, kind))

    def _over_runs(self, view: View, kind: str, rows: IntArray) -> Iterator[tuple[int | None, Reading]]:
        """The findings of single examples, that of the kind, and the estimate."""
        margins = view.margin[:, 0]
        rows = np.array(
            [row for row in rows.tolist() if _has_both_sides(margins[:, row], view.audit.is_in[:, row])], np.int64
        )
        if not len(rows):
            return
        whole = [self._of_example(view, row, 1 - (1 - self.confidence) / len(rows)) for row in rows.tolist()]
        best = max(whole, key=lambda item: item.epsilon)
        yield from ((None, reading) for reading in self._readings(best, kind))
        yield None, self._gaussian_reading(view, kind, rows)
        for row in rows.tolist():
            finding = self._of_example(view, row, self.confidence)
            yield from ((None, reading) for reading in self._readings(finding, str(row)))

    def _of_example(self, view: View, row: int, confidence: float) -> Finding:
        """The bound of one example."""
        margins, is_in = view.margin[:, 0, row], view.audit.is_in[:, row]
        inside, outside, audited = margins[is_in], margins[~is_in], self._unit_of(view, np.array([row]))
        if self.thresholds:
            return epsilon_over_thresholds(
                inside,
                outside,
                np.array(self.thresholds),
                audited=audited,
                delta=self.delta,
                confidence=confidence,
            )
        # halves are drawn without looking at scores, and in the same way for every example
        halves = stream(0, "audit halves")
        return epsilon_by_split(inside, outside, halves, audited=audited, delta=self.delta, confidence=confidence)

    def _gaussian_reading(self, view: View, kind: str, rows: IntArray) -> Reading:
        """Epsilon as if scores were normal: thresholds between the means of half of the runs, counts in the other."""
        hits = inside = alarms = outside = 0
        for row in rows.tolist():
            halves = stream(0, "audit halves")
            is_in = view.audit.is_in[:, row]
            sides = [view.margin[side, 0, row] for side in (is_in, ~is_in)]
            sides = [halves.permutation(side[~np.isnan(side)]) for side in sides]
            (first_in, last_in), (first_out, last_out) = (np.split(side, [len(side) // 2]) for side in sides)
            if not len(first_in) or not len(first_out):
                continue
            threshold = (first_in.mean() + first_out.mean()) / 2
            hits, inside = hits + int((last_in > threshold).sum()), inside + len(last_in)
            alarms, outside = alarms + int((last_out > threshold).sum()), outside + len(last_out)
        audited = self._unit_of(view, rows)
        estimate = gaussian_estimate(
            hits, inside, alarms, outside, audited=audited, delta=self.delta, confidence=self.confidence
        )
        return Reading(
            metric="epsilon_gdp",
            value=estimate.epsilon,
            low=estimate.low,
            high=estimate.high,
            n=estimate.trials,
            subject=kind,
            labels=self._labels_of(estimate),
        )

    def _readings(self, finding: Finding, subject: str) -> Iterator[Reading]:
        """A finding and its ceiling."""
        for metric, value in (("epsilon_hat", finding.epsilon), ("epsilon_hat.ceiling", finding.ceiling)):
            labels = self._labels_of(finding)
            yield Reading(metric=metric, value=value, n=finding.trials, subject=subject, labels=labels)

    def _labels_of(self, finding: Finding) -> Labels:
        """The same for every reading of one audit of a kind."""
        audited = finding.audited
        about = {"unit": audited.unit, "adjacency": audited.adjacency, "copies": audited.copies}
        return self.labels_of_rows.plus(claim=finding.claim, **about)


def _round_delta(delta: float) -> float:
    """A delta as labels give it, to six digits."""
    return float(f"{delta:g}")


def _has_both_sides(margins: FloatArray, is_in: BoolArray) -> bool:
    """Whether there are trials on both sides."""
    is_scored = ~np.isnan(margins)
    return bool((is_scored & is_in).any() and (is_scored & ~is_in).any())


@lru_cache(maxsize=4096)
def _one_run(right: int, guesses: int, canaries: int, audited: AuditedUnit, delta: float, confidence: float) -> Finding:
    return one_run(right, guesses, canaries, audited=audited, delta=delta, confidence=confidence)
