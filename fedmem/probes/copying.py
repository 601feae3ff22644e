"""Whether samples of a generative model copy what it was trained on: C_T and authenticity, by random inclusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure, base_of
from fedmem.contracts.measurement import Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.signal import signal_measures
from fedmem.probes._copy_statistics import authenticity, data_copying
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT
from fedmem.probes._subjects import subjects_of_kinds


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Tests of copying, from G samples of each model and the examples of a kind that its place holds.

    The examples in are the training rows T, and those out are the held-out rows P. Only a coin decides which is which,
    so both are of one distribution at every owning client, whatever its data are.

    - `data_copying`: C_T, the rank-sum z-score of distances from T, of samples against P. Each of `cells` cells has a
      score of its own, and their mean is weighted by the shares of P. A cell is what is nearest to one of as
      many random rows of T and P;
    - `authenticity`: the share of samples that are farther from their nearest row r* of T than the nearest other row of
      T is from r*;
    - `data_copying_gain`, `authenticity_gain`: the value minus that with T and P exchanged (`coin` = `out` for models,
      `statistic` = `out` in summaries). Without copying, coins make both exchangeable, so the difference is 0 on
      average for any model. Copying lowers it.

    All models draw with the same noise, from one stream. An attacker needs samples, and rows that may have been trained
    on. Rows with the label `place` = `owner` are of the owning client's model.

    `summarise` has means over models by kind, of each round and of the summary. The summary reads each place at its
    last observed round. Intervals are at 95 %, by client and by run. NaN values do not count: a place without examples
    on both sides has NaN, and a model that has diverged has no reading. Authenticity is NaN where T has one row.

    Fields

    - `samples`: G.
    - `cells`: how many cells C_T has.
    - `min_share`: the share of the samples that a cell must exceed (τ).
    - `kinds`: the injections whose examples are read; if left out, all without canaries.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look.

    Errors: `ComponentError` for kinds that no injection has. A network that is no generative model is refused.

    >>> [measure.name for measure in Copying.measures]
    ['data_copying', 'data_copying_gain', 'authenticity', 'authenticity_gain']

    References: Meehan, Chaudhuri and Dasgupta (2020), for C_T. Alaa, van Breugel, Saveliev and van der Schaar (2022),
    for authenticity.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="data_copying",
                title="data copying (C_T)",
                means="A z-score of how near samples are to rows that were trained on, compared with other rows.",
                is_not="Without copying it is also below 0 where samples are too much alike, but in − out is not.",
                trained_on="lower",
                digits=2,
            )
        ),
        *signal_measures(
            Measure(
                name="authenticity",
                title="authenticity",
                means="The share of samples that are farther from their nearest training row than the nearest other "
                "row is from it.",
                is_not="It is no probability of being new: samples of the true distribution have about one half.",
                unit="share",
                range=(0.0, 1.0),
                trained_on="lower",
            )
        ),
    )
    compares_held_out: ClassVar[bool] = True
    draws_samples: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    samples: Annotated[int, Gt(0)] = 200
    cells: Annotated[int, Gt(0)] = 1
    min_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    names_injections: ClassVar[tuple[str, ...]] = ("kinds",)

    kinds: tuple[str, ...] = ()
    runs: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Readings of each model for each kind that it holds."""
        federation = context.federation
        subjects = subjects_of_kinds(federation, self.kinds, federation.audit.role != "canary")
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.run < self.runs:
                readings += [(transition, reading) for reading in self._of_model(transition, subjects, context)]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and in − out, of each round and in the summary."""
        last: dict[tuple[object, ...], int] = {}
        for one in measurements:
            place = one.level, one.run, one.client
            last[place] = max(one.round_number, last.get(place, 0))
        final = [one for one in measurements if last[one.level, one.run, one.client] == one.round_number]
        return [_as_proxy(one) for one in summed_up(measurements, self.measures, final)]

    def _of_model(self, transition: Transition, subjects: Sequence[int], context: Context) -> Iterator[Reading]:
        """The readings of one model."""
        import torch

        from fedmem.training.sampling import draw_samples

        federation = context.federation
        seed = int(context.stream("samples").integers(2**62))
        samples = draw_samples(
            federation.model,
            transition.kept,
            federation.modality,
            federation.test if len(federation.test) else federation.population,
            self.samples,
            torch.Generator().manual_seed(seed),
        )
        if (samples < 0).any() if federation.modality.tokens else not np.isfinite(samples).all():
            return
        place = "owner" if transition.level == "local" else None
        for kind, rows in _subjects_by_kind(federation, transition, subjects):
            is_in = federation.audit.is_in[transition.run, rows]
            examples = federation.audit.examples.take(rows)
            compared = federation.modality.comparison_rows(examples.inputs, examples.targets)
            for coin in ("", OUT):
                labels = Labels.of(kind=kind, coin=coin, place=place)
                values = self._statistics(samples, compared, is_in != bool(coin), federation, context)
                for metric, value in values.items():
                    yield Reading(metric=metric, value=value, labels=labels)

    def _statistics(
        self, samples: NDArray[Any], rows: NDArray[Any], trained: BoolArray, federation: Federation, context: Context
    ) -> dict[str, float]:
        """C_T and authenticity with these rows as training rows, and all others held out."""
        modality = federation.modality
        of_samples, between = modality.distances(samples, rows), modality.distances(rows, rows)
        if not trained.any() or trained.all():
            return {"data_copying": float("nan"), "authenticity": float("nan")}
        centres = context.stream("cells").permutation(len(rows))[: self.cells]
        return {
            "data_copying": data_copying(
                of_samples[:, trained].min(axis=1),
                between[~trained][:, trained].min(axis=1),
                of_samples[:, centres].argmin(axis=1),
                between[~trained][:, centres].argmin(axis=1),
                self.min_share,
            ),
            "authenticity": authenticity(of_samples[:, trained], between[trained][:, trained]),
        }


def _subjects_by_kind(
    federation: Federation, transition: Transition, subjects: Sequence[int]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each kind with the examples of it that the place holds: those of its client, or of all clients."""
    audit = federation.audit
    is_read = np.isin(np.arange(len(audit)), subjects)
    if transition.client >= 0:
        is_read &= audit.holds([transition.client])[0]
    for kind in audit.kinds:
        rows = np.flatnonzero(is_read & (audit.kind == kind))
        if len(rows):
            yield kind, rows


def _as_proxy(measurement: Measurement) -> Measurement:
    """A summary under the names and labels by which tables show values of in, of out, and their difference."""
    reading = measurement.reading
    labels = reading.labels.without("coin", "contrast", "minus")
    if reading.metric.endswith(".difference"):
        return replace(measurement, reading=replace(reading, metric=f"{base_of(reading.metric)}_gain", labels=labels))
    return replace(measurement, reading=replace(reading, labels=labels.plus(statistic=reading.labels.get("coin"))))
