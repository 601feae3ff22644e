"""How many models a scenario saves, and the disk space that they take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params
from fedmem.errors import Problem, ScenarioError
from fedmem.federation.roster import Cohorts
from fedmem.observation.personal_layers import PersonalLayers
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

JOINING = 2
"""How often saved models are on the disk at most: in shards, and in the files that are joined from them."""


def count_saved(scenario: Scenario, federation: Federation, cohorts: Cohorts) -> int:
    """The number of models that a scenario saves; rounds whose cohort is not known count as the mean of the others."""
    save = scenario.save.models
    if save is None:
        return 0
    runs = min(scenario.runs, save.runs or scenario.runs)
    counts = [cohorts.count(number) for number in range(1, cohorts.rounds + 1)]
    # where clients keep layers, the aggregate is completed for each of them
    layers = PersonalLayers.of(scenario.client, federation)
    owners = 1 if layers is None else len(layers.clients)
    total = 0.0
    for round_number in save.rounds:
        cohort = counts[round_number - 1] if 0 < round_number <= len(counts) else sum(counts) / max(1, len(counts))
        local = cohort / cohorts.runs if round_number else 0
        total += runs * local * ("local" in save.levels)
        total += runs * (owners if round_number else 1) * ("global" in save.levels)
    return round(total)


def bytes_of(models: int, federation: Federation) -> int:
    """The bytes of so many models of a federation and of the frozen part that they share, without headers of files."""
    frozen = _bytes(federation.stored_frozen) if models else 0
    return models * _bytes(federation.initial) + frozen


def _bytes(params: Params) -> int:
    return sum(value.numel() * value.element_size() for value in params.values())


def require_disk(scenario: Scenario, federation: Federation, place: Path, stored: int = 0) -> None:
    """Finds out before any training whether the disk of a place has room for the models that are to be saved.

    Args:
        scenario: The scenario.
        federation: Its federation.
        place: The folder of the run, which need not exist.
        stored: Bytes of models that an interrupted training has stored there already.

    Errors: `ScenarioError` at `save.models`, with what is needed and what is free.
    """
    if scenario.save.models is None:
        return
    models = count_saved(scenario, federation, Cohorts.draw(scenario, federation))
    needed = JOINING * bytes_of(models, federation) - stored
    existing = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        message = (
            f"{models:,} models take {bytes_text(needed)} while shards are joined, and {bytes_text(free)} are free in "
            f"{existing}; save fewer models, or use another disk with --out"
        )
        raise ScenarioError([scenario.place(Problem(path="save.models", message=message))])
