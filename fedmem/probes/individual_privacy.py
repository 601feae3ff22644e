"""The privacy that the records of a client have actually spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.privacy.accounting import epsilon_of_spent
from fedmem.probes._clusters import mean_over_runs


@dataclass(frozen=True, kw_only=True)
class IndividualPrivacy:
    """Epsilon of records by the gradients that they really had, for clients like `dp_sgd` (Feldman and Zrnic, 2021).

    A record that is in a batch moves the noisy sum by min(|g|, S), S the clip. Let q be the sum of min(|g|, S)^2 / S^2
    over all steps of all rounds so far. The record has spent a q / (2 z^2) at Rényi order a, converted at the best
    order. For each client that took part in the round

    - `individual_epsilon`, `record=mean`: at the mean q of its rows, about what a typical record has spent;
    - `record=most`: at the sum over rounds of the largest q of a round, which no record of it exceeds.

    Sampling of batches gives no amplification, so both are about an adversary that knows the batches. Compare them with
    each other and over rounds. Compare them with the guarantee of the run only where they are below it. Small where
    gradients are shorter than the clip; large for records that stay hard.

    Guarantees:

    - **depend on the data**: no guarantee, not private themselves, for internal study and never to be published; every
      reading says `data_dependent`;
    - neighbours: the contribution of the record is zero instead;
    - watching changes nothing; 0 without steps, infinite without noise.

    `summarise` adds the means over runs and clients for each round (no run, no client), with Student's t interval (95
    %) over runs. It repeats the last observed round as the summary.

    Fields

    - `delta`: the delta of the conversion. Use the delta of the scenario's `privacy` to compare with its guarantee.
    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local`, where the steps are.

    >>> IndividualPrivacy().levels
    ('local',)

    Reference: Feldman and Zrnic (2021), individual privacy accounting via a Rényi filter.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="individual_epsilon",
            title="individual epsilon",
            means="The epsilon that a client has spent on its own records, given the lengths of their gradients.",
            is_not="It depends on the data, so it is no guarantee and must not be published as one.",
            unit="nats",
            range=(0.0, math.inf),
            section="none",
        ),
    )
    counts_groups: ClassVar[bool] = True

    row_labels: ClassVar[tuple[Label, ...]] = (Label("record", "text", "mean or most: which record of the client"),)

    delta: Annotated[float, Gt(0), Lt(1)] = 1e-5
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local",)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Two readings of each client; none of clients whose records are not hidden."""
        client = context.client
        spending = [transition for transition in transitions if "spent_sum" in transition.report]
        if not spending or not isinstance(client, PrivateAlgorithm):
            return []
        rows = np.array([max(1, transition.num_examples) for transition in spending])
        spent = {
            "mean": np.array([transition.report["spent_sum"] for transition in spending]) / rows,
            "most": np.array([transition.report["spent_most"] for transition in spending]),
        }
        readings = []
        for which, values in spent.items():
            epsilon = epsilon_of_spent(values, client.per_example.noise_multiplier, self.delta)
            labels = Labels.of(record=which, delta=float(f"{self.delta:g}"), claim="data_dependent")
            for transition, value in zip(spending, epsilon.tolist(), strict=True):
                reading = Reading(metric="individual_epsilon", value=value, n=transition.num_examples, labels=labels)
                readings.append((transition, reading))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The means of each round, and those of the last once more, as the summary."""
        groups: dict[tuple[int, Labels], list[Measurement]] = {}
        for measurement in measurements:
            groups.setdefault((measurement.round_number, measurement.reading.labels), []).append(measurement)
        means = []
        for (_, labels), rows in groups.items():
            mean = replace(mean_over_runs(rows, "individual_epsilon", bounds=(0.0, np.inf)), labels=labels)
            means.append(replace(rows[0], run=None, client=NO_CLIENT, reading=mean))
        last = max((measurement.round_number for measurement in means), default=0)
        return [*means, *(replace(measurement, round=None) for measurement in means if measurement.round == last)]
