"""Client shards whose network nobody trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import sampler_declaration
from fedmem.federation.roster import Cohorts

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def untrained_shards_warnings(scenario: Scenario, federation: Federation) -> tuple[str, ...]:
    """A sentence where in some run no client of a shard is ever in a cohort, so that its network stays as it was.

    Cohorts of a sampler that looks at losses are not known before training; then there is none.
    """
    shards = scenario.client_shards
    if shards == 1 or sampler_declaration(scenario.sampler).needs:
        return ()
    cohorts = Cohorts.draw(scenario, federation)
    if cohorts.rounds < scenario.rounds:
        return ()
    is_trained = np.zeros((len(cohorts.rosters), shards), dtype=bool)
    for number in range(1, scenario.rounds + 1):
        roster, client = cohorts.participants(number)
        is_trained[roster, client % shards] = True
    missing = np.flatnonzero(~is_trained.all(axis=0))
    if not len(missing):
        return ()
    runs = int((~is_trained).any(axis=1).sum()) * cohorts.runs_per_roster
    listed = ", ".join(map(str, missing))
    return (
        f"in {runs} of {scenario.runs} runs no client of shard {listed} takes part in any round. Its network stays as "
        "it was and is averaged into all answers; use a sampler that reaches every shard, more rounds, or fewer "
        "client_shards",
    )
