"""The federation of a scenario, from files that stay as they are while they are read, and data that no field names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import ComponentError, Problem, RunError, ScenarioError
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


def require_same_source(scenario: Scenario) -> None:
    """Errors: `ScenarioError` where the run that a scenario is derived from had other data than it has itself.

    The numbers of removed examples, and pairs of examples, mean nothing on other data. Compared are the files that are
    read, and the code of the data set, the partition and the injections. A scenario without `derive` passes.
    """
    if scenario.derived_from is None:
        return
    from fedmem.contracts.families import kind_of, nested_components
    from fedmem.results.provenance import components_of, files_of
    from fedmem.results.read import read

    manifest = read(scenario.derived_from).manifest
    makers = nested_components((scenario.dataset, scenario.partition, scenario.injections))
    kinds = sorted({kind_of(part) for _, part in makers})
    code, stored = components_of(scenario), manifest.get("components", {})
    changes = [f"the code of {kind}" for kind in kinds if stored.get(kind) != code[kind]]
    differing = {name for name, _ in files_of(scenario).items() ^ manifest.get("files", {}).items()}
    changes += [f"the files of {name}" for name in sorted(differing) if name.partition(" (")[0] in kinds]
    if changes:
        problem = Problem(
            path="derive.from",
            message=f"{scenario.derived_from} was made from other data. Changed since: {', '.join(changes)}. "
            "Put that back, or run its scenario again with --force, and derive from that",
        )
        raise ScenarioError([scenario.place(problem)])


def build_federation(scenario: Scenario, out: Path | str | None = None) -> Federation:
    """The federation of a scenario; that of a phase starts from the models of the phase before, which are in `out`.

    Without `out` it starts from initial weights, which is enough for all but training.

    Errors: one `ScenarioError` with all that is wrong, each with its place; `RunError` where a file changed meanwhile.
    """
    from fedmem.federation import build as federations
    from fedmem.results.provenance import files_of

    require_same_source(scenario)
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
