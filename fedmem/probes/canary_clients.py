"""The epsilon that clients of random direction show, all in one training run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
from annotated_types import Gt, Lt

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.privacy.accounting import Adjacency
from fedmem.privacy.canary_directions import CanaryDirections as Directions
from fedmem.privacy.canary_directions import flatten
from fedmem.privacy.epsilon_bounds import AuditedUnit, Finding
from fedmem.privacy.epsilon_estimates import one_shot, two_shots

_COSINE = "canary_cosine"


@dataclass(frozen=True, kw_only=True)
class CanaryClients:
    """One-shot estimate of the epsilon of clients, from the canary clients of the strategy (Andrew et al., 2024).

    With `strategy: {kind: dp_fedavg, canary_clients: 200}` k clients are added to the real ones. They send 10 S times a
    direction u_j, uniform on the sphere of all d parameters, and are clipped as all clients are. They show in the
    cosine with u_j, which without the client is N(0, 1/d) whatever else was trained. For each run, each observed round
    r and each j

    - `canary_cosine`, with `shown` = `final` and `canary` = j: cos(u_j, w_r - w_0), for an adversary that sees the
      model of round r alone;
    - `shown` = `step` and `canary` = j, or `fresh` = j of as many directions that no client has: cos(u_j, w_r -
      w_(r-1)), where every round is observed.

    `summarise` fits a normal distribution to the cosines of all runs, and reports the epsilon between it and the null

    - `epsilon_one_shot`, at least 0, in nats, with `low` and `high`: the smallest and largest where mean and spread are
      moved by two standard errors. `shown` = `final` is about the model of a round. Where every round is observed,
      `shown` = `iterates` is about the largest cosine of all rounds so far, against that of fresh directions;
    - `epsilon_one_shot.ceiling`: the value if every canary client pointed exactly where the model went.

    n counts canary clients of all runs. The labels say claim, unit, adjacency, how many in a run, d and delta.

    Guarantees:

    - an **estimate, never a bound**: it assumes that cosines are normal, and that random directions leak most. It is
      near the truth for a sum with noise and a thousand directions, and too high on average with a hundred. So `low` is
      evidence against a guarantee. After many rounds it is the epsilon that a final model shows for such clients;
    - the unit is a client, neighbours are with it and without it, or with its place left empty;
    - watching changes nothing; canary clients do: they push the model, and `expected_cohort_size` counts them;
    - NaN where fewer than two cosines are known, because nothing moved or models have diverged.

    `privacy` also reports the guarantee of the strategy, `epsilon_one_shot.permitted`, after the last round.

    Fields

    - `delta`: the delta at which epsilon is reported. Use the delta of the scenario's `privacy` to compare with its
      guarantee.
    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `global`, where the noise is.

    >>> CanaryClients().levels
    ('global',)

    Reference: Andrew et al. (2024), one-shot empirical privacy estimation for federated learning.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="epsilon_one_shot",
            title="epsilon, estimated from canary clients",
            means="The epsilon between two normal distributions fitted to the cosines of canary clients.",
            is_not="It is an estimate and no bound.",
            unit="nats",
            range=(0.0, math.inf),
            section="privacy",
            order=10,
            terms=(
                (
                    "epsilon about",
                    "an estimate, no bound; in brackets where mean and spread are moved by two standard errors",
                ),
            ),
        ),
        Measure(
            name="canary_cosine",
            title="cosine with a canary direction",
            means="The cosine of the movement of the model with the direction of a canary client.",
            range=(-1.0, 1.0),
            section="none",
        ),
    )
    counts_groups: ClassVar[bool] = True
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "shown",
            "text",
            "what an adversary sees",
            (("final", "last model"), ("iterates", "models of all rounds")),
        ),
        Label("canary", "whole", "the number of the canary client"),
        Label("fresh", "whole", "the number of a direction that no client has"),
        Label("canaries", "whole", "the number of canary clients in a run"),
        Label("dimensions", "whole", "the number of parameters"),
    )
    canary_clients: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True

    delta: Annotated[float, Gt(0), Lt(1)] = 1e-5
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["global"], ...] = ("global",)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """The cosines of each run, from round 1 on."""
        canaries = context.canaries
        if canaries is None:
            return []
        rounds = context.observed_rounds
        every_round = self.every in (None, 1) and rounds == tuple(range(len(rounds)))
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.level == "global" and transition.round > 0:
                initial = context.federation.initial_of(transition.run)
                readings += ((transition, reading) for reading in _cosines(canaries, transition, initial, every_round))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The estimates of each round, over all runs."""
        cosines: dict[tuple[int, str], dict[tuple[int, int], float]] = {}
        about: dict[int, Measurement] = {}
        for measurement in measurements:
            labels = measurement.reading.labels
            whose = "canary" if "canary" in labels else "fresh"
            key = measurement.round_number, f"{labels.get('shown')} {whose}"
            cosines.setdefault(key, {})[measurement.run_number, labels.integer(whose)] = measurement.reading.value
            about[measurement.round_number] = measurement
        summaries: list[Measurement] = []
        largest: dict[str, FloatArray] = {}
        for round_number, last in sorted(about.items()):
            audited = AuditedUnit(unit="client", adjacency=cast("Adjacency", last.reading.labels.text("adjacency")))
            cosines_of = {
                who: np.array([value for _, value in sorted(cosines[round_number, who].items())])
                for who in ("final canary", "step canary", "step fresh")
                if (round_number, who) in cosines
            }
            for who in cosines_of.keys() - {"final canary"}:
                largest[who] = np.fmax(largest.get(who, cosines_of[who]), cosines_of[who])
            runs = len({run for run, _ in cosines[round_number, "final canary"]})
            findings = {"final": self._final(cosines_of["final canary"], last.reading.n, audited)}
            if len(largest) == 2:
                findings["iterates"] = self._iterates(largest["step canary"], largest["step fresh"], audited)
            for view, finding in findings.items():
                labels = Labels.of(
                    claim="estimate",
                    method="one_shot",
                    shown=view,
                    unit="client",
                    adjacency=audited.adjacency,
                    canaries=len(cosines_of["final canary"]) // runs,
                    dimensions=last.reading.n,
                    delta=float(f"{self.delta:g}"),
                )
                summaries += (
                    replace(last, run=None, client=NO_CLIENT, reading=replace(reading, labels=labels))
                    for reading in _readings(finding)
                )
        return summaries

    def _final(self, cosines: FloatArray, dimension: int, audited: AuditedUnit) -> Finding | None:
        few = np.count_nonzero(~np.isnan(cosines)) < 2
        return None if few else one_shot(cosines, dimension, audited=audited, delta=self.delta)

    def _iterates(self, inside: FloatArray, outside: FloatArray, audited: AuditedUnit) -> Finding | None:
        few = min(np.count_nonzero(~np.isnan(side)) for side in (inside, outside)) < 2
        return None if few else two_shots(inside, outside, audited=audited, delta=self.delta)


def _cosines(canaries: Directions, transition: Transition, initial: Params, every_round: bool) -> Iterator[Reading]:
    """The cosines of one run after one round."""
    after = flatten(transition.kept)
    movements = {"final": _unit(after - flatten(initial))}
    if every_round:
        movements["step"] = _unit(after - flatten(transition.before))
    shapes = {name: tuple(value.shape) for name, value in initial.items()}
    for fresh in (False, True) if every_round else (False,):
        for j, direction in enumerate(canaries.directions(transition.run, shapes, fresh=fresh)):
            for what, movement in movements.items():
                if what == "step" or not fresh:
                    number = {"fresh" if fresh else "canary": j}
                    labels = Labels.of(number, shown=what, adjacency=canaries.adjacency)
                    value = float(direction @ movement)
                    yield Reading(metric=_COSINE, value=value, n=len(after), labels=labels)


def _unit(vector: FloatArray) -> FloatArray:
    """`vector` scaled to length one; NaN where nothing moved, or not to a number."""
    length = np.sqrt(vector @ vector)
    return vector / length if 0 < length < np.inf else np.full_like(vector, np.nan)


def _readings(finding: Finding | None) -> Iterator[Reading]:
    """An estimate and its ceiling."""
    if finding is None:
        yield Reading(metric="epsilon_one_shot", value=np.nan, n=0)
        yield Reading(metric="epsilon_one_shot.ceiling", value=np.nan, n=0)
        return
    n = finding.trials
    yield Reading(metric="epsilon_one_shot", value=finding.epsilon, low=finding.low, high=finding.high, n=n)
    yield Reading(metric="epsilon_one_shot.ceiling", value=finding.ceiling, n=n)
