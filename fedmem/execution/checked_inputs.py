"""The federation of a scenario, from files that stay as they are while they are read, and data that no field names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import ComponentError, RunError, ScenarioError
from fedmem.execution.phases import folder_before, models_before
from fedmem.federation.phases import start_from

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


def changed_data(scenario: Scenario, manifest: Mapping[str, Any]) -> list[str]:
    """Data of the user's components that differ from this manifest, though no file that they name has changed."""
    from fedmem.results.provenance import kinds_with_unknown_files

    kinds = kinds_with_unknown_files(scenario)
    if not kinds or data_digest(scenario, build_federation(scenario)) == manifest.get("data"):
        return []
    return [f"the data that {', '.join(kinds)} makes"]


def data_digest(scenario: Scenario, federation: Federation) -> str | None:
    """The digest of the federation, where files may have made it that nobody can name; else None."""
    from fedmem.contracts.federation import digest
    from fedmem.results.provenance import kinds_with_unknown_files

    if not kinds_with_unknown_files(scenario):
        return None
    return digest(federation if scenario.after is None else start_from(federation, ()))


def build_federation(scenario: Scenario, out: Path | str | None = None) -> Federation:
    """The federation of a scenario; that of a phase starts from the models of the phase before, which are in `out`.

    Without `out` it starts from initial weights, which is enough for all but training.

    Errors: one `ScenarioError` with all that is wrong, each with its place; `RunError` where a file changed meanwhile.
    """
    from fedmem.federation import build as federations
    from fedmem.results.provenance import files_of

    files = files_of(scenario)
    try:
        federation = federations.build(scenario)
    except (ComponentError, ScenarioError):
        federations.require(scenario)  # tells all that is wrong, not only what came first
        raise
    if files_of(scenario) != files:
        names = ", ".join(sorted(name for name, _ in files.items() ^ files_of(scenario).items()))
        raise RunError(f"the files of {names} changed while they were read; run again when they are complete")
    before = None if out is None else folder_before(scenario, out)
    return federation if before is None else start_from(federation, models_before(scenario, before), before)
