"""Estimates from the evidence of a run, when it is trained and later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Measurement
from fedmem.errors import FolderError

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def measure(path: Path | str) -> Path:
    """Recompute all estimates and the privacy guarantee of a finished run from its evidence; nothing is trained.

    Readings of probes are kept as they are: they were taken on models that are gone. Their images are drawn again.
    Equal to the last bit to what `run` wrote, as long as fedmem has not changed.
    """
    from fedmem.contracts.families import sources
    from fedmem.execution.positive_control import METRIC as CONTROL
    from fedmem.execution.positive_control import record_of_stored
    from fedmem.privacy import guaranteed_bounds
    from fedmem.privacy.spending import largest_epsilon_of, spending_record
    from fedmem.reporting.measures import measures_to_store
    from fedmem.reporting.summarise import finish_folder
    from fedmem.results.provenance import provenance_of_measuring
    from fedmem.results.read import read, read_bank
    from fedmem.results.write import replace_measurements
    from fedmem.scenario.loading import load_scenario

    folder = Path(path)
    stored = read(folder)
    assert stored.scenario, "a missing file is named as a file of this folder"
    scenario = load_scenario(folder / "scenario.yaml")
    if scenario.id != stored.manifest.get("id"):
        raise FolderError(
            f"{folder / 'scenario.yaml'} describes {scenario.id}, but its results are those of "
            f"{stored.manifest.get('id')}: the file was changed, or this version computes other numbers. Put the old "
            f"file back, or run the new one with: fedmem run {folder / 'scenario.yaml'}"
        )
    probe_sources = set(sources(scenario.probes))
    probe_measurements = [measurement for measurement in stored.rows() if measurement.source in probe_sources]
    controls = [measurement for measurement in stored.rows() if measurement.reading.metric == CONTROL]
    bank = read_bank(folder)
    # Read what estimates do not need as well: nothing is replaced in a folder that is damaged.
    stored.reconstructions()
    measurements = [*probe_measurements, *estimates_of(scenario, bank, probe_measurements), *controls]
    others = [alarm for alarm in stored.manifest.get("alarms", ()) if not alarm.startswith(guaranteed_bounds.ALARM)]
    alarms = [*guaranteed_bounds.alarms(scenario, measurements), *others]
    changes: dict[str, Any] = {
        "privacy": spending_record(scenario, bank, largest_epsilon_of(stored.manifest)),
        "alarms": alarms,
        "measures": measures_to_store(scenario),
        **provenance_of_measuring(scenario, stored.manifest),
    }
    if stored.manifest.get("positive_control"):
        changes["positive_control"] = record_of_stored(stored.manifest["positive_control"], measurements)
    replace_measurements(folder, measurements, changes)
    finish_folder(folder)
    return folder


def estimates_of(scenario: Scenario, bank: Bank, probed: Sequence[Measurement]) -> Sequence[Measurement]:
    """All estimates from the evidence of a run, with guarantees; `probed` are the readings of its probes."""
    from fedmem.estimation.estimates import estimate
    from fedmem.privacy import guaranteed_bounds, spending

    estimates = estimate(bank, scenario.estimators, scenario.bootstrap, scenario.signals)
    guaranteed = [
        *guaranteed_bounds.guarantees_of_audits(scenario, bank, estimates),
        *guaranteed_bounds.of_canary_clients(scenario, probed),
        *spending.epsilon_rows(scenario, bank),
        *guaranteed_bounds.bounds(scenario, bank, estimates),
    ]
    return [*estimates, *spending.checked_rows(guaranteed, [*scenario.estimators, *scenario.probes])]
