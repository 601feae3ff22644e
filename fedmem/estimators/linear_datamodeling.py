"""Linear datamodeling score: whether an approximation of influence predicts how runs differ by what they trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Reading
from fedmem.estimation.datamodeling import (
    ScoredModels,
    balanced_half,
    ceiling,
    datamodel,
    mean_of_models,
    mean_score,
)

DATAMODEL = "datamodel"
"""The baseline: outcomes over in runs minus those over out runs."""

ALL = "all"
"""The subject of a row over the examples of all kinds."""

AUDIT, WITHOUT_ITSELF, TEST = "audit", "audit without itself", "test"

_ON = "_on"
"""After the name of a signal: its influences on targets."""


@dataclass(frozen=True, kw_only=True)
class LinearDatamodeling:
    """Linear datamodeling score (LDS) of every signal that reads influence on `targets`, in the summary.

    For target i and run r, an influence τ predicts g_i(r) = Σ_j τ_ij · is_in[r, j], summed over the audit examples j
    that are in. The score is Spearman's correlation over runs of g_i(r) with the margin of i in run r. `lds` is its
    mean over targets, −1 to 1. It is 0 for influences that predict nothing, and negative where their sign is wrong.

    Influences and scores are from different runs. The runs are split into two halves. The mean of τ over the models of
    one half is scored on the other half, and the reverse, and both scores are averaged. The halves are those of 64
    drawn halvings in which examples are in most equally often. From the same runs, a score would be high by their noise
    alone; see `fedmem.estimation.datamodeling`.

    The label `of` is the signal. `datamodel` is a baseline from runs alone: the mean margin of i over in runs of j
    minus that over out runs, among the runs of one half, scored on the other. The label `targets` says which they are:

    - `audit`: audit examples, with their own inclusion in the sum;
    - `audit without itself`: the same without it and the others of its coin group, so that only influence on others
      is scored;
    - `test`: test examples.

    At the aggregate, all is read at its model of the last observed round. At owning clients, it is read at the model of
    the summary: only the client's own examples are summed, and audit targets are its own. A client's targets count like
    those of any other. There is no row at the aggregate where clients have layers of their own.

    - `lds`: the interval is Student's by the jackknife over runs (coin rows of twins), n the number of targets;
    - `lds.p`: two-sided p of no relation, with coins dealt to other runs of the same half, n the number of such deals;
    - `lds.ceiling`: with twins, √(SNR / (1 + SNR)), the correlation of what all coins decide with the margin in a run.
      It is undefined where twins differ as much as other runs, and too high on average where coins decide little. In
      simulations in which they decide nothing, it was .3 where it was defined.

    Runs whose model has diverged are left out. A target counts where it has a margin in all other runs, and margins and
    predictions that are not all the same. Each half needs four runs with different coins.

    Under `exclusion: remove`, a run without j has a row less, as the prediction says. Under `exclusion: replace`, other
    rows stand in the place of j. Their influence is in no sum, and lowers the score.

    Fields: none.

    >>> LinearDatamodeling().min_runs
    16

    Reference: Park, Georgiev, Ilyas, Leclerc and Madry (2023), TRAK: attributing model behavior at scale.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="lds",
            title="linear datamodeling score",
            means="Rank correlation over runs of a target's margin with the sum of the influences of the examples that "
            "the run trained on. Influences are from other runs.",
            is_not="It does not say that influences are as large as effects, and noise of training lowers it.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("targets", "text", "the examples whose margins influences predict"),
    )
    min_runs: ClassVar[int] = 16
    counts_groups: ClassVar[bool] = True
    reads_influence: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: a correlation over runs is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The scores of every signal and of the baseline, for each set of targets."""
        if view.round is not None or view.place == "others":
            return ()
        places = _at_owners(view) if view.level == "local" else _at_aggregate(view)
        return [(None, reading) for reading in _readings(view, places)]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The models of one place in R runs.

    Attributes:
        examples: (n,) the audit examples that are summed.
        influences: Signal -> target -> (R, n).
        margins: Target -> (R,).
    """

    examples: IntArray
    influences: Mapping[str, Mapping[str, FloatArray]]
    margins: Mapping[str, FloatArray]


def _at_aggregate(view: View) -> list[_Place]:
    """The aggregate of the last observed round."""
    models, series = view.sets["audit"].models, view.series
    # the last of the models is the aggregate of the last round, whatever the rounds at which examples are read
    pair = len(models.round) - 1
    if series is None or models.client[pair] != NO_CLIENT or models.round[pair] != series.rounds[-1]:
        return []
    signals = {name: series.signal(name) for name in series.signals}
    read = {name: values[-1] for name, values in signals.items() if values is not None}
    return [_place(view, np.arange(len(view.audit)), read, pair)]


def _at_owners(view: View) -> list[_Place]:
    """The model of each owning client at the round of the summary."""
    of = view.sets["audit"].models.of[0]
    read = {name: values[:, 0] for name, values in view.signals.items()}
    return [_place(view, np.flatnonzero(of == pair), read, pair) for pair in np.unique(of[of >= 0]).tolist()]


def _place(view: View, examples: IntArray, signals: Mapping[str, FloatArray], pair: int) -> _Place:
    influences: dict[str, dict[str, FloatArray]] = {}
    targets = {}
    for name, values in signals.items():
        quantity, _, target = name.partition(".")
        kind, _, number = target.partition(".")
        is_read = quantity.endswith(_ON) and kind in view.sets and number.isdigit()
        if is_read and (kind == TEST or int(number) in examples):
            influences.setdefault(quantity.removesuffix(_ON), {})[target] = values[:, examples]
            targets[target] = kind, int(number)
    margins = {kind: view.sets[kind].margin(pair) for kind in {kind for kind, _ in targets.values()}}
    return _Place(
        examples=examples,
        influences=influences,
        margins={target: margins[kind][:, number] for target, (kind, number) in targets.items()},
    )


def _readings(view: View, places: Sequence[_Place]) -> Iterator[Reading]:
    audit = view.audit
    coins = audit.is_in & audit.owner_in
    half = balanced_half(audit.is_in, audit.coin_rows)
    signals = sorted({name for place in places for name in place.influences})
    for which in (AUDIT, WITHOUT_ITSELF, TEST):
        for signal in (*signals, *((DATAMODEL,) if signals else ())):
            parts = [
                part
                for place in places
                if (part := _models(place, signal, which, coins, audit.coin_groups)) is not None
            ]
            found = mean_score(parts, half, audit.coin_rows, view.redeals.shuffles)
            if found is None:
                continue
            about = Labels.of(of=signal, targets=which)
            yield Reading(
                metric="lds", value=found.value, low=found.low, high=found.high, n=found.n, subject=ALL, labels=about
            )
            if not math.isnan(found.p):
                yield Reading(metric="lds.p", value=found.p, n=len(view.redeals.shuffles), subject=ALL, labels=about)
        if which != WITHOUT_ITSELF:
            yield from _ceiling(places, which, audit.coin_rows)


def _models(place: _Place, signal: str, which: str, coins: BoolArray, coin_groups: IntArray) -> ScoredModels | None:
    """The models of one place on the targets of a signal; None where it has no such target."""
    names = [name for name in place.margins if name.startswith(f"{which.partition(' ')[0]}.")]
    of_signal = place.influences.get(signal, {})
    names = names if signal == DATAMODEL else [name for name in names if name in of_signal]
    if not names:
        return None
    outcomes = np.stack([place.margins[name] for name in names], axis=1)
    omitted = np.zeros((len(names), len(place.examples)), dtype=bool)
    if which == WITHOUT_ITSELF:
        # under one coin, the effect of a target on itself would pass for that of the others of its group
        targets = np.array([int(name.partition(".")[2]) for name in names])
        omitted = coin_groups[targets][:, None] == coin_groups[place.examples]
    return ScoredModels(
        influences=datamodel(outcomes)
        if signal == DATAMODEL
        else mean_of_models(np.stack([of_signal[name] for name in names], axis=1)),
        outcomes=outcomes,
        coins=coins[:, place.examples],
        omitted=omitted,
    )


def _ceiling(places: Sequence[_Place], which: str, coin_rows: IntArray) -> Iterator[Reading]:
    """The largest correlation, where there are twins."""
    margins = [
        np.stack(some, axis=1)
        for place in places
        if (some := [margin for name, margin in place.margins.items() if name.startswith(f"{which}.")])
    ]
    value, low, high = ceiling(margins, coin_rows)
    if not math.isnan(value):
        n, labels = sum(some.shape[1] for some in margins), Labels.of(targets=which)
        yield Reading(metric="lds.ceiling", value=value, low=low, high=high, n=n, subject=ALL, labels=labels)
