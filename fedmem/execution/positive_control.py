"""The positive control of an audit: the same scenario without noise, in which the audit should raise the alarm.

An audit that finds nothing says something only if it finds a mechanism without any noise. So an audit with `alarm`
runs the scenario once more, with a noise multiplier of zero, and says what it finds there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedmem.contracts.client import client_declaration
from fedmem.contracts.defence import defence_declaration
from fedmem.contracts.measurement import Measurement
from fedmem.contracts.sampler import Pilot
from fedmem.contracts.strategy import strategy_declaration
from fedmem.estimators.audit import Audit
from fedmem.privacy.mechanisms import with_noise_multiplier

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

METRIC = "epsilon_hat.control"
"""The result of the audit without noise, after the last round, with the labels of its `epsilon_hat.permitted`."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """The result of the positive control.

    Attributes:
        row: The epsilon that the audit finds without noise, a row of source `audit`.
        permitted: The epsilon of the guarantee, above which a bound is an alarm.
        runs: How many runs were trained for it.
        seconds: How long it took.
    """

    row: Measurement
    permitted: float
    runs: int
    seconds: float

    @property
    def raises_alarm(self) -> bool:
        """Whether the audit raises the alarm on a mechanism without noise; if not, it has no power."""
        return self.row.reading.value > self.permitted

    def as_record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "of": self.row.reading.subject,
            "epsilon_hat": self.row.reading.value,
            "permitted": self.permitted,
            "power": self.raises_alarm,
            "runs": self.runs,
            "seconds": self.seconds,
        }


def record_of_stored(stored: Mapping[str, Any], rows: Sequence[Measurement]) -> dict[str, Any]:
    """The control in a manifest, with what these rows permit, which may have been computed again."""
    (reading,) = [row.reading for row in rows if row.reading.metric == METRIC]
    permitted = [
        row.reading.value
        for row in rows
        if (row.reading.metric, row.reading.labels) == ("epsilon_hat.permitted", reading.labels)
        and row.reading.subject == reading.subject
    ]
    limit = permitted[0] if permitted else math.nan
    return {**stored, "permitted": limit, "power": reading.value > limit}


def audit_of(scenario: Scenario) -> Audit | None:
    """The audit that runs a positive control; None where there is none."""
    return next(
        (
            estimator
            for estimator in scenario.estimators
            if isinstance(estimator, Audit) and estimator.alarm and estimator.control
        ),
        None,
    )


def runs_of(audit: Audit, scenario: Scenario) -> tuple[int, ...]:
    """The runs that are trained for it: that of `one_run`, or all of them for `over_runs`."""
    return (audit.run,) if audit.method == "one_run" else tuple(range(scenario.runs))


def without_noise(scenario: Scenario) -> Scenario:
    """The same scenario with a noise multiplier of zero, observed at the last round and by the audit alone."""
    changes: dict[str, Any] = {
        "probes": (),
        "estimators": (audit_of(scenario),),
        "observe": scenario.observe.model_copy(update={"every": None, "rounds": ()}),
        "privacy": scenario.privacy.model_copy(update={"target_epsilon": None}),
        "defences": tuple(
            defence for defence in scenario.defences if defence_declaration(defence).gaussian_deviation is None
        ),
    }
    if client_declaration(scenario.client).noise_multiplier:
        changes["client"] = with_noise_multiplier(scenario.client, 0.0)
    if strategy_declaration(scenario.strategy).noise_multiplier:
        changes["strategy"] = with_noise_multiplier(scenario.strategy, 0.0)
    return scenario.model_copy(update=changes)


def control(
    scenario: Scenario, federation: Federation, rows: Sequence[Measurement], pilot: Pilot | None = None
) -> Control | None:
    """Train the scenario without noise and audit it; None without an audit that may raise an alarm, or its guarantee.

    Guarantees:

    - coins, rosters, weights and batches are those of the scenario, which stays as it is. The control is trained after
      it, with streams of the same names, and shares only the data with it.
    """
    from fedmem.estimation.estimates import estimate
    from fedmem.execution.bank import gather
    from fedmem.privacy.guaranteed_bounds import PERMITTED, is_of

    audit = audit_of(scenario)
    if audit is None:
        return None
    audit_rows = [row for row in rows if is_of(row, audit) and row.round == scenario.rounds]
    permitted = next(
        (row for row in audit_rows if row.reading.metric == PERMITTED and row.reading.subject == audit.example_kind),
        None,
    )
    if permitted is None:
        return None
    started = time.perf_counter()
    quiet, run_numbers = without_noise(scenario), runs_of(audit, scenario)
    simulated = gather(quiet, federation, runs=run_numbers, pilot=pilot)
    control_rows = [
        row
        for row in estimate(simulated.bank, quiet.estimators, 0)
        if row.round == scenario.rounds
        and row.reading.metric == "epsilon_hat"
        and row.reading.subject == audit.example_kind
    ]
    if not control_rows:
        return None
    reading = replace(control_rows[0].reading, metric=METRIC, labels=permitted.reading.labels)
    return Control(
        row=replace(control_rows[0], reading=reading),
        permitted=permitted.reading.value,
        runs=len(run_numbers),
        seconds=time.perf_counter() - started,
    )
