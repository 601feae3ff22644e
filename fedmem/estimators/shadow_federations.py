"""An informed adversary that learns from whole federations which row of a client a further one was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.estimation.shadow_runs import identify, reconstruct
from fedmem.estimation.statistics import clopper_pearson
from fedmem.estimation.update_evidence import count_clients, first_of_coin_rows, stored_columns, stored_rounds
from fedmem.seeding import stream

_START = "weight_feature.projection."

OVER = ("mean", "best")
"""The guesses without the model."""


@dataclass(frozen=True, kw_only=True)
class ShadowFederations:
    """How well whole federations show which row of a client, the victim, a further run was trained on.

    Under `coins: {law: one_of}` each run has exactly one of the m candidates of a victim. All its other rows are the
    same in all runs. Each run is a target once, and its shadow runs are others.

    - `shadow_identified`: the share of runs whose candidate is identified among the m, 0 to 1. The attack is a linear
      discriminant on the signal `weight_features`, see `fedmem.estimation.shadow_runs`. Chance is 1/m. n counts runs,
      and the interval is exact (Clopper and Pearson, 95 %). It has no row where a candidate is in fewer than two runs.
    - `shadow_identified.null`: 1/m.
    - `shadow_identified.bound`: the largest share that any attack can reach under the guarantee of the scenario, from
      `fedmem.privacy.identification_bounds`. It has no row where nothing adds noise.
    - `shadow_gain`: PSNR of a reconstruction of the row minus that of a guess without the model, in dB. Ridge
      regression is trained on runs with other candidates, so no shadow run has the row. With `over` = `mean` the guess
      is the mean of shadow rows. Models that are all equal have a gain of 0 over it, and noise one of about 0 or less.
      With `over` = `best` it is the better of that mean and the shadow row that is nearest to the truth. As this guess
      knows the truth, the gain over it is below 0 without leakage. n counts candidates, whose runs are averaged first.
      The interval (95 %) is by a jackknife over candidates, since all guesses depend on the same other candidates. It
      has no row with fewer than four candidates, nor for texts.

    Places: the message of the victim, and at level `global` the aggregate. `seen` = `another` is the control: the
    message of one other client, which has not seen the row. After the first round that client began with an aggregate,
    so that a value above chance is leakage through the aggregate. In the summary the attack reads all observed rounds
    together. Of twins, the first counts. Runs whose model has diverged, or without one, do not count.

    The adversary is granted all other rows, the candidates, the algorithm and the law of all that is random. It knows
    the initial weights and the batches exactly if all runs share them (`initial_weights`, `batches`).

    Fields:
        folds: Number of parts into which runs, and candidates, are dealt.

    >>> ShadowFederations().coin_laws
    ('one_of',)

    References: Balle, Cherubin and Hayes (2022), Reconstructing training data with informed adversaries.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="shadow_identified",
            title="Rows identified by shadow federations",
            means="Share of runs whose unknown row is identified among the candidates by other runs.",
            is_not="The attack knows all other rows and the candidates; chance is 1 / candidates.",
            range=(0.0, 1.0),
            direction="higher is worse",
            bound="identified",
            terms=(("shadow federation", "another run of the same federation, of which an attack knows the rows"),),
        ),
        Measure(
            name="shadow_gain",
            title="Gain of reconstructions by shadow federations",
            means="PSNR of a row reconstructed from the model minus that of a guess without the model, in dB.",
            is_not="It is no distance: a gain above 0 may still be far from the row.",
            direction="higher is worse",
            unit="dB",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("victim", "number", "the client whose row is unknown"),
        Label(
            "seen",
            "text",
            "whose model the attack reads",
            (("owner", "the victim"), ("another", "one other client, as a control"), ("aggregate", "the aggregate")),
        ),
        Label(
            "over",
            "text",
            "the guess without the model",
            (("mean", "the mean of other rows"), ("best", "the better of the mean and the nearest other row")),
        ),
    )
    min_runs: ClassVar[int] = 8
    needs_test: ClassVar[tuple[Level, ...]] = ("local", "global")
    reads_set_signals: ClassVar[tuple[str, ...]] = ("weight_feature",)
    coin_laws: ClassVar[tuple[str, ...]] = ("one_of",)
    densities: ClassVar[bool] = True

    folds: Annotated[int, Ge(2)] = 5

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: a share of runs is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """By victim and whose model is read."""
        test = view.sets.get("test")
        if test is None or view.round == 0 or view.place not in ("owner", ""):
            return ()
        clients = 0 if view.level == "global" else count_clients(test)
        columns = stored_columns(test, _START, view.audit.runs, stored_rounds(test, view.round), clients)
        if not columns:
            return ()
        # (R, N, S q): all rounds side by side
        features = np.concatenate([np.moveaxis(column, 0, 2) for column in columns.values()], axis=2)
        first = first_of_coin_rows(view.audit.coin_rows)
        readings: list[Reading] = []
        for victim in np.unique(view.audit.owner).tolist():
            rows = np.flatnonzero(view.audit.owner == victim)
            classes = view.audit.is_in[np.ix_(first, rows)].argmax(axis=1)
            seen = {"aggregate": 0} if not clients else {"owner": victim, "another": (victim + 1) % clients}
            for name, place in seen.items():
                if name != "another" or place != victim:
                    labels = Labels.of(victim=victim, seen=name)
                    inputs = view.audit.examples.inputs[rows]
                    readings += self._of_victim(features[first, place], classes, inputs, labels)
        return [(None, reading) for reading in readings]

    def _of_victim(
        self, features: FloatArray, classes: IntArray, inputs: FloatArray, labels: Labels
    ) -> Iterator[Reading]:
        is_there = np.isfinite(features).all(axis=1)
        features, classes, m = features[is_there], classes[is_there], len(inputs)
        if not len(classes):
            return
        if np.bincount(classes, minlength=m).min() >= 2:
            right = identify(features, classes, self.folds, stream(0, "folds of shadow runs"))
            low, high = clopper_pearson(int(right.sum()), len(right))
            yield Reading(
                metric="shadow_identified", value=float(right.mean()), low=low, high=high, n=len(right), labels=labels
            )
            yield Reading(metric="shadow_identified.null", value=1 / m, n=len(right), labels=labels)
        if m >= 4 and np.issubdtype(inputs.dtype, np.floating):
            truth = inputs.reshape(m, -1).astype(np.float64)
            gains = reconstruct(features, classes, truth, self.folds, stream(0, "folds of shadow rows"))
            for name, column, of_rows in zip(OVER, (0, 1), (gains.over_mean, gains.over_best), strict=True):
                yield Reading(
                    metric="shadow_gain",
                    value=gains.mean[column],
                    low=gains.interval[column][0],
                    high=gains.interval[column][1],
                    n=int(np.isfinite(of_rows).sum()),
                    labels=labels.plus(over=name),
                )
