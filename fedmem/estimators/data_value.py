"""Value of audit examples: what each adds to the usefulness of a model, as a semivalue from random inclusion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, ExampleTarget, Influence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.estimation.randomisation import deals_of, num_redeals, of_means, two_sided
from fedmem.estimation.semivalues import contributions, mean_semivalue
from fedmem.estimation.statistics import in_minus_out, mean, means_by_coin, welch_columns
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.two_way import of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class DataValue:
    """Value of audit example j for the test set, with the audit examples as players and a training as the game.

    U(S) is the usefulness of the model that was trained on the audit examples S and all base rows. It is the accuracy
    on the test set (no label), or minus the mean loss in nats (label `statistic` = `loss`, less noisy). At the global
    level the model is the last observed aggregate. At the local level it is that of the owner of j, in the round from
    which the memorisation of j is read. The test set is the same. Test rows of single clients are not stored, so the
    value for the data of its own client is missing. Only in the summary.

    The law of random inclusion (`coins`) decides the semivalue, which the label `semivalue` names:

    - `balanced`: the Banzhaf value, mean of U over in runs minus mean over out runs. `rate`: the same with that share
      of the others, `binomial`;
    - `owen`: the Shapley value. The values of all players sum to U(all) − U(none);
    - `beta`: the Beta(alpha, beta)-Shapley value. A large alpha weights small sets.

    With `exclusion: remove`, U(S) is a training on S and nothing else is different. With `exclusion: replace` each
    absent example has a replacement row in its place. The value is then that of the example minus that of the row, and
    U(none) is a training on replacement rows. Examples in one coin group are one player, with one value.

    `owen` and `beta` estimates have no bias for any fixed curve of U against the number of examples; see
    `fedmem.estimation.semivalues`. Runs whose model has diverged do not count.

    - p: coins of the kind are dealt again with the rates of their runs. The hypothesis is that no example of the kind
      changes U;
    - the interval of a single example is Welch's for `balanced` and `rate`. Otherwise it is Student's with as many
      degrees of freedom as runs that count, and needs three runs with the example and three without. In simulations
      it held 97 % or more at a nominal 95 %;
    - values of both signs cancel in a mean, so it has no retention.

    Fields: none.

    >>> DataValue().coin_laws
    ('balanced', 'rate', 'owen', 'beta')

    References: Ghorbani and Zou (2019), Data Shapley. Wang and Jia (2023), Data Banzhaf. Kwon and Zou (2022), Beta
    Shapley.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="data_value",
            title="value of an example",
            means="What training on one example adds to accuracy on the test set, averaged over sets of other audit "
            "examples. With the statistic loss, what it takes off the mean loss.",
            is_not="It is not memorisation: an example may be memorised and of no use. Values of both signs cancel in "
            "a mean.",
            null=0.0,
            direction="neither",
            digits=5,
            terms=(("value", "what one example adds to accuracy on the test set, or takes off its mean loss"),),
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("semivalue", "text", "how sets of other examples are weighted: banzhaf, shapley, beta or binomial"),
    )
    min_runs: ClassVar[int] = 4
    needs_test: ClassVar[tuple[Level, ...]] = ("global",)
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta")

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, by accuracy and by loss."""
        estimates: list[Estimate] = []
        for statistic in _statistics(view):
            columns = np.full(view.audit.is_in.shape, np.nan)
            for examples, utilities in _utilities(view, statistic):
                columns[:, examples] = utilities[:, None]
            is_read: BoolArray = np.asarray(~np.isnan(view.margin).all((0, 1)))
            columns[:, ~is_read] = np.nan
            one_rate = not view.audit.coin_law.varies
            estimates += (_by_difference if one_rate else _by_rates)(view, columns, statistic)
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_targets(self, view: View) -> Sequence[ExampleTarget]:
        """The value by loss from any part of the runs, where all runs have one rate of inclusion."""
        if not _statistics(view) or view.audit.coin_law.varies:
            return ()
        columns = np.full(view.audit.is_in.shape, np.nan)
        for examples, utilities in _utilities(view, "loss"):
            columns[:, examples] = utilities[:, None]

        def from_runs(is_counted: BoolArray) -> FloatArray:
            return in_minus_out(columns[is_counted], view.audit.is_in[is_counted])

        return (ExampleTarget(metric="data_value", labels=Labels.of(statistic="loss"), from_runs=from_runs),)


def _statistics(view: View) -> tuple[str, ...]:
    """The measurements at this view: none except in the summary, with a test set, at one place of each level."""
    test = view.sets.get("test")
    is_there = view.round is None and view.place != "others" and test is not None and test.size > 0
    return ("", "loss") if is_there else ()


def _utilities(view: View, statistic: str) -> Iterator[tuple[IntArray, FloatArray]]:
    """Examples that share a model, and its usefulness (R,) in each run; NaN where it has diverged or is not there."""
    test = view.sets["test"]
    models = test.models

    def usefulness(pair: int) -> FloatArray:
        loss = test.loss(pair)
        of_rows = -loss if statistic else test.correct(pair)
        return np.where(np.isfinite(loss).all(1), of_rows.mean(1), np.nan)

    if view.level == "global":
        last = np.flatnonzero(models.round == models.round.max())
        yield np.arange(len(view.audit)), mean(np.stack([usefulness(pair) for pair in last.tolist()]), axis=0)
        return
    of = models.of[0]
    for pair in np.unique(of[of >= 0]).tolist():
        yield np.flatnonzero(of == pair), usefulness(pair)


def _by_difference(view: View, columns: FloatArray, statistic: str) -> Iterator[Estimate]:
    """In minus out, per kind: without bias where all runs have one rate."""
    audit = view.audit
    inside, outside = (side[0] for side in means_by_coin(columns, audit.is_in, np.ones((1, audit.runs))))
    values = inside - outside
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(values))
        if not len(rows):
            continue
        of_rows, coins = average_twins(columns[:, rows], audit), coins_of_rows(audit)[:, rows]
        low, high = welch_columns(np.where(coins, of_rows, np.nan), np.where(coins, np.nan, of_rows))
        yield Estimate(
            metric="data_value",
            kind=kind,
            labels=_labels(audit, statistic),
            value=float(values[rows].mean()),
            influence=place_among(of_difference(columns[:, rows], audit.is_in[:, rows]), rows, len(audit)),
            null=0.0,
            p=of_means(columns, rows, view.redeals),
            redeals=num_redeals(view.redeals, rows),
            n=len(rows),
            examples=rows,
            per_example=values[rows],
            per_example_low=low,
            per_example_high=high,
            per_example_n=(~np.isnan(columns[:, rows])).sum(0),
            signed=True,
        )


def _by_rates(view: View, columns: FloatArray, statistic: str) -> Iterator[Estimate]:
    """Semivalues where runs have rates of their own, per kind."""
    audit = view.audit
    first, players = np.unique(audit.coin_groups, return_index=True)[1], audit.num_coin_groups(np.arange(len(audit)))
    of_rows, coins = average_twins(columns, audit), coins_of_rows(audit)
    sizes = coins[:, first].sum(1)
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(of_rows).all(0))
        if not len(rows):
            continue
        values, low, high = (np.full(len(rows), np.nan) for _ in range(3))
        cells, models = np.zeros((len(coins), len(rows))), []
        # examples that share a model share its usefulness
        patterns, which = np.unique(np.nan_to_num(of_rows[:, rows], nan=math.inf), axis=1, return_inverse=True)
        for number in range(patterns.shape[1]):
            of_model, runs = np.flatnonzero(which.reshape(-1) == number), np.isfinite(patterns[:, number])
            if np.count_nonzero(runs) < DataValue.min_runs:
                continue
            utilities = patterns[runs, number]
            found = contributions(utilities, coins[np.ix_(runs, rows[of_model])], sizes[runs], players, audit.coin_law)
            values[of_model], low[of_model], high[of_model] = found.values, found.low, found.high
            cells[np.ix_(runs, of_model)] = found.changes
            models.append((of_model, runs, utilities))
        is_known = ~np.isnan(values)
        n = int(is_known.sum())
        if not n:
            continue
        middle = float(values[is_known].mean())
        examples = np.where(is_known, values - middle, 0.0) / n * (math.sqrt(n / (n - 1)) if n > 1 else 0.0)
        yield Estimate(
            metric="data_value",
            kind=kind,
            labels=_labels(audit, statistic),
            value=middle,
            influence=_of_runs(audit, examples[is_known], cells[:, is_known] / n, rows[is_known]),
            null=0.0,
            p=_p(view, rows, models, sizes, players, n),
            redeals=num_redeals(view.redeals, rows),
            n=n,
            examples=rows[is_known],
            per_example=values[is_known],
            per_example_low=low[is_known],
            per_example_high=high[is_known],
            per_example_n=(~np.isnan(columns[:, rows[is_known]])).sum(0),
            signed=True,
        )


def _labels(audit: AuditSet, statistic: str) -> Labels:
    return Labels.of(statistic=statistic, semivalue=audit.coin_law.semivalue)


def _of_runs(audit: AuditSet, examples: FloatArray, of_coin_rows: FloatArray, rows: IntArray) -> Influence:
    """Contributions of coin rows as those of runs: each at the first of its twins."""
    cells = np.zeros((audit.runs, len(rows)))
    cells[np.unique(audit.coin_rows, return_index=True)[1]] = of_coin_rows
    return place_among(Influence(examples=examples, cells=cells), rows, len(audit))


def _p(
    view: View,
    rows: IntArray,
    models: Sequence[tuple[IntArray, BoolArray, FloatArray]],
    sizes: IntArray,
    players: int,
    n: int,
) -> float:
    """p of the mean over a kind, under coins of the kind that are drawn again with the rates of their runs."""
    audit = view.audit
    deals = deals_of(view.redeals, rows)[:, np.unique(audit.coin_rows, return_index=True)[1]]
    if len(deals) < 2:
        return math.nan
    first = np.unique(audit.coin_groups[rows], return_index=True)[1]
    in_groups = deals[:, :, first].sum(2)
    all_sizes = sizes - in_groups[0] + in_groups
    total = np.zeros(len(deals))
    for of_model, runs, utilities in models:
        num_in = deals[:, :, of_model].sum(2)[:, runs]
        means = mean_semivalue(utilities, num_in, len(of_model), all_sizes[:, runs], players, audit.coin_law)
        total += means * len(of_model) / n
    return two_sided(total)
