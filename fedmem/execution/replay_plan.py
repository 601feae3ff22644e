"""How many local trainings probes will repeat, counted before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.probe import probe_declaration
from fedmem.observation.replays import REMEMBERED

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.contracts.probe import Probe
    from fedmem.federation.roster import Cohorts
    from fedmem.scenario.scenario import Scenario


def count_replays(scenario: Scenario, federation: Federation, cohorts: Cohorts, times: float) -> int:
    """The local trainings that all probes repeat in all runs, at most.

    There are `times` as many runs as those whose cohorts were drawn. Where only the first rounds were drawn, the others
    count as their mean.
    """
    return round(times * sum(_of_probe(probe, scenario, federation, cohorts) for probe in scenario.probes))


def _of_probe(probe: Probe, scenario: Scenario, federation: Federation, cohorts: Cohorts) -> float:
    declared = probe_declaration(probe)
    levels = [level for level in probe.levels if level in scenario.observe.levels]
    if declared.replays_per_client is None or not levels:
        return 0.0
    due = [
        number
        for number in scenario.observed_rounds
        if number > 0
        and (probe.every is None or number % probe.every == 0 or number == scenario.rounds)
        and (not declared.rounds or number in declared.rounds)
    ]
    drawn = [number for number in due if number <= cohorts.rounds] or [1] * bool(due)
    remembered = REMEMBERED // max(
        1, sum(value.numel() * value.element_size() for value in federation.initial.values())
    )
    counts = []
    for number in drawn:
        examples, clients = np.unique(_examples(federation, cohorts, number), return_counts=True)
        replays = sum(
            declared.replays_per_client(held) * many
            for held, many in zip(examples.tolist(), clients.tolist(), strict=True)
            if held
        )
        # what a probe has asked for at one level is remembered for the other, as far as there is room
        counts.append(replays + (len(levels) - 1) * max(0, replays - remembered))
    return float(np.mean(counts)) * len(due) if counts else 0.0


def _examples(federation: Federation, cohorts: Cohorts, round_number: int) -> IntArray:
    """On how many audit examples each client of each run trains in a round."""
    audit = federation.audit
    rosters, clients = cohorts.participants(round_number)
    each = cohorts.runs_per_roster
    runs = np.tile(rosters, each) + np.repeat(np.arange(each), len(rosters))
    holds = audit.holds(np.arange(federation.num_clients))
    is_trained = audit.is_in & audit.is_active(round_number)
    clients = np.tile(clients, each)
    examples = (holds[clients] & is_trained[runs]).sum(axis=1)
    return np.asarray(examples if audit.client_in is None else examples * audit.client_in[runs, clients])
