"""Estimates from the evidence of a run, when it is trained and later."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Measurement
from fedmem.errors import FolderError

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def measure(path: Path | str, changes: Sequence[str] = ()) -> Path:
    """Recompute all estimates and the privacy guarantee of a finished run from its evidence; nothing is trained.

    Readings of probes are kept as they are: they were taken on models that are gone. Their images are drawn again.
    Equal to the last bit to what `run` wrote, as long as fedmem has not changed.

    Signals may be added after those of the run, in its `scenario.yaml` or by a change. They are read at the models that
    `save.models` stored, with the bytes that the run would have read. They are undefined at all others. The folder then
    holds them like all other signals. `signals=[...]` without them takes them out again.

    Args:
        path: The folder of the run.
        changes: Changes of its scenario, such as `signals=[{kind: el2n}]`.

    Errors: `FolderError` where anything but added signals differs from what was trained, with its name.
    `ComponentError` at a signal that saved models do not suffice for. `RunError` for missing or damaged files.
    """
    from fedmem.contracts.families import sources
    from fedmem.execution.added_signals import ENTRY, NOTE, add_signals, trained_scenario
    from fedmem.execution.positive_control import METRIC as CONTROL
    from fedmem.execution.positive_control import record_of_stored
    from fedmem.privacy import guaranteed_bounds
    from fedmem.privacy.spending import largest_epsilon_of, spending_record
    from fedmem.reporting.measures import measures_to_store
    from fedmem.reporting.summarise import finish_folder
    from fedmem.results.provenance import provenance_of_measuring
    from fedmem.results.read import read, read_bank
    from fedmem.results.write import Replacement, replace_measurements, replace_signals
    from fedmem.scenario.loading import load_scenario

    stored = read(Path(path))
    folder = Path(path).resolve()
    assert stored.scenario, "a missing file is named as a file of this folder"
    scenario = load_scenario(folder / "scenario.yaml", changes)
    trained = trained_scenario(scenario, stored.manifest.get("id"))
    if trained is None:
        raise FolderError(
            f"{folder / 'scenario.yaml'}{' with these changes' * bool(changes)} describes {scenario.id}, but its "
            f"results are those of {stored.manifest.get('id')}. More was changed than signals after those of the run, "
            "or this version computes other numbers. Put the old values back, or run the new ones with: fedmem run "
            f"{shlex.join([str(folder / 'scenario.yaml'), *changes])}"
        )
    probe_sources = set(sources(scenario.probes))
    probe_measurements = [measurement for measurement in stored.rows() if measurement.source in probe_sources]
    controls = [measurement for measurement in stored.rows() if measurement.reading.metric == CONTROL]
    bank = read_bank(folder)
    # Read what estimates do not need as well: nothing is replaced in a folder that is damaged.
    stored.reconstructions()
    bank, added = add_signals(stored, scenario, trained, bank)
    measurements = [*probe_measurements, *estimates_of(scenario, bank, probe_measurements), *controls]
    others = [alarm for alarm in stored.manifest.get("alarms", ()) if not alarm.startswith(guaranteed_bounds.ALARM)]
    alarms = [*guaranteed_bounds.alarms(scenario, measurements), *others]
    manifest_changes: dict[str, Any] = {
        "privacy": spending_record(scenario, bank, largest_epsilon_of(stored.manifest)),
        "alarms": alarms,
        "measures": measures_to_store(scenario),
        **provenance_of_measuring(trained, stored.manifest),
    }
    if stored.manifest.get("positive_control"):
        manifest_changes["positive_control"] = record_of_stored(stored.manifest["positive_control"], measurements)
    if added or ENTRY in stored.manifest:
        warnings = [text for text in stored.manifest.get("warnings") or () if not text.startswith(NOTE)]
        manifest_changes["warnings"] = [*warnings, *(signal.text(trained.runs) for signal in added)]
        manifest_changes[ENTRY] = [asdict(signal) for signal in added]
        results = Replacement(scenario.to_yaml(), bank.signals, measurements, manifest_changes)
        replace_signals(folder, results, draw=finish_folder)
    else:
        replace_measurements(folder, measurements, manifest_changes)
        finish_folder(folder)
    return Path(path)


def estimates_of(scenario: Scenario, bank: Bank, probed: Sequence[Measurement]) -> Sequence[Measurement]:
    """All estimates from the evidence of a run, with guarantees; `probed` are the readings of its probes."""
    from fedmem.estimation.estimates import estimate
    from fedmem.privacy import guaranteed_bounds, spending
    from fedmem.privacy.identification_bounds import identification_bounds

    estimates = estimate(bank, scenario.estimators, scenario.bootstrap, scenario.signals)
    guaranteed = [
        *guaranteed_bounds.guarantees_of_audits(scenario, bank, estimates),
        *guaranteed_bounds.of_canary_clients(scenario, probed),
        *spending.epsilon_rows(scenario, bank),
        *guaranteed_bounds.bounds(scenario, bank, estimates),
        *identification_bounds(scenario, bank, estimates),
    ]
    return [*estimates, *spending.checked_rows(guaranteed, [*scenario.estimators, *scenario.probes])]
