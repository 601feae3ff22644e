"""Whether proxies rank examples as memorisation does, at each place, from runs that do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.estimation.rank_agreement import Halves, RankAgreement, Variant, partial_out, rank_agreement
from fedmem.estimation.statistics import holm, mean
from fedmem.seeding import stream

ALL = "all"
"""The subject of a row over the examples of all kinds."""

_VARIANTS: tuple[Variant, ...] = ("in", "out", "gain")

_GIVEN = "class and owner"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The agreement of one variant of a proxy with memorisation, over one kind of example."""

    kind: str
    labels: Labels
    found: RankAgreement


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well proxies rank examples as memorisation does, in the summary, at each place.

    Proxies are all signals, and all estimators that give values of single examples in each run. The final loss is one
    more. Each has three variants (label `statistic`), as in the table of proxies. `in` is over runs with the example,
    `out` is over runs without it, and `gain` is the difference. Memorisation is that by probability.

    Values from the same runs share their noise. So runs are split into halves. Memorisation is taken from one half and
    the proxy from the other, and the correlation is corrected for the noise of both; see
    `fedmem.estimation.rank_agreement`.

    - `agreement`: the corrected rank correlation, −1 to 1. It is undefined where the ranks of memorisation or of the
      proxy hardly repeat in other runs. The interval is over examples, or over owners where eight or more hold some;
    - `agreement_split`: the correlation before the correction, too small where there is a relation;
    - `agreement.p`: p of no relation by shuffled examples, adjusted by Holm over all rows of a place;
    - `reliability`: how well the ranks of a quantity repeat in other runs.

    Rows are by kind, and over all kinds together (`all`), where most of a correlation may be that kinds differ. With
    the label `given`, ranks are first freed of the label and of the owner's number of audit examples.

    Fields:
        halvings: random halvings of the runs.
        min_examples: the fewest examples of a kind that has rows.

    >>> Agreement().min_runs
    16

    Reference: Feldman and Zhang (2020), for memorisation. Spearman (1904), for the correction.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="agreement",
            title="agreement with memorisation",
            means="Rank correlation of a proxy with memorisation over examples, from other runs, corrected for noise.",
            is_not="It does not say that a proxy is as large as memorisation, or that it causes it.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
        ),
        Measure(
            name="agreement_split",
            title="agreement from split runs",
            means="Rank correlation of a proxy with memorisation from other runs, not corrected for noise.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
        ),
        Measure(
            name="reliability",
            title="reliability",
            means="Rank correlation of a quantity with itself from other runs.",
            is_not="It does not say whether the quantity is right.",
            range=(-1.0, 1.0),
            direction="neither",
            digits=2,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("given", "text", "what the ranks of both quantities are freed of before they are compared"),
    )
    min_runs: ClassVar[int] = 16
    reads_quantities: ClassVar[bool] = True

    halvings: Annotated[int, Ge(2)] = 10
    min_examples: Annotated[int, Ge(3)] = 20

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: a correlation is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """All rows of the place."""
        if view.round is not None:
            return ()
        halves = Halves.draw(view.audit.is_in, self.halvings, stream(0, "agreement halves"))
        rows = [*self._rows(view, halves)]
        adjusted = holm(np.array([row.found.p for row in rows])) if rows else np.zeros(0)
        return [
            (None, reading) for row, p in zip(rows, adjusted.tolist(), strict=True) for reading in _readings(row, p)
        ]

    def _rows(self, view: View, halves: Halves) -> Iterator[_Row]:
        with np.errstate(invalid="ignore"):
            probability = np.exp(-np.logaddexp(0.0, -view.margin))
        memory = halves.means(mean(probability, axis=1), "gain")
        final_loss = ExampleValues(metric="loss", values=mean(view.loss, axis=1))
        groups = self._groups(view)
        for quantity in (final_loss, *view.quantities):
            for variant in _VARIANTS:
                proxy = halves.means(quantity.values, variant)
                for kind, rows in groups.items():
                    options = str(quantity.labels) or None
                    labels = Labels.of(of=quantity.metric, statistic=variant, options=options)
                    pair = memory[:, :, rows], proxy[:, :, rows]
                    yield from self._compare(view, kind, labels, rows, pair)
                    if kind != ALL:
                        freed = labels.plus(given=_GIVEN)
                        yield from self._compare(view, kind, freed, rows, pair, free=True)

    def _groups(self, view: View) -> dict[str, IntArray]:
        """The examples of each kind, and all of them where there are several kinds."""
        kinds = view.audit.kinds
        groups = {kind: np.flatnonzero(view.audit.kind == kind) for kind in kinds}
        return {**groups, ALL: np.arange(len(view.audit))} if len(kinds) > 1 else groups

    def _compare(
        self,
        view: View,
        kind: str,
        labels: Labels,
        rows: IntArray,
        pair: tuple[FloatArray, FloatArray],
        *,
        free: bool = False,
    ) -> Iterator[_Row]:
        is_usable = ~(np.isnan(pair[0]).any((0, 1)) | np.isnan(pair[1]).any((0, 1)))
        rows, memory, proxy = rows[is_usable], pair[0][:, :, is_usable], pair[1][:, :, is_usable]
        if len(rows) < self.min_examples:
            return
        if free:
            given = _columns(view, rows)
            if len(given) >= len(rows) // 2:  # too few examples to free them of so much
                return
            memory, proxy = partial_out(memory, given), partial_out(proxy, given)
        rng = stream(0, f"agreement {kind} {labels}")
        owner = view.audit.owner[rows].astype(np.int64)
        yield _Row(kind=kind, labels=labels, found=rank_agreement(memory, proxy, owner, rng))


def _columns(view: View, rows: IntArray) -> dict[str, FloatArray]:
    """One column for each label but the first, and the number of audit examples of the owner."""
    labels = view.audit.examples.labels[rows]
    owners = view.audit.owner
    held = np.array([np.count_nonzero(owners == owner) for owner in owners[rows]], dtype=np.float64)
    columns = {f"label {label}": (labels == label).astype(np.float64) for label in np.unique(labels)[1:]}
    return {**columns, "held": held} if np.ptp(held) > 0 else columns


def _readings(row: _Row, p: float) -> Iterator[Reading]:
    found, labels, n = row.found, row.labels, row.found.n
    yield Reading(
        metric="agreement",
        value=found.corrected,
        low=found.low,
        high=found.high,
        n=n,
        subject=row.kind,
        labels=labels,
    )
    yield Reading(metric="agreement.p", value=p, n=n, subject=row.kind, labels=labels)
    yield Reading(metric="agreement_split", value=found.split, n=n, subject=row.kind, labels=labels)
    yield Reading(metric="reliability", value=found.other_reliability, n=n, subject=row.kind, labels=labels)
