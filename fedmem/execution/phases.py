"""The models that a phase starts from: the final ones of the phase before, in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.arrays import Params
from fedmem.errors import RunError

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def folder_before(scenario: Scenario, out: Path | str) -> Path | None:
    """The folder of the phase before; None where this is the first training."""
    previous = scenario.previous
    return None if previous is None else Path(out) / previous.name / previous.id


def models_before(scenario: Scenario, folder: Path) -> tuple[Params, ...]:
    """The final models of the phase before, one for each run.

    Errors: `RunError` where they are missing or damaged.
    """
    from fedmem.results.read import read

    run = read(folder)
    stacked = run.params()
    runs = {len(value) for value in stacked.values()}
    if runs != {scenario.runs}:
        raise RunError(
            f"{folder / 'params.safetensors'} has models of {', '.join(map(str, sorted(runs)))} runs, should be "
            f"{scenario.runs}; run the scenario again with --force"
        )
    return tuple({name: value[run] for name, value in stacked.items()} for run in range(scenario.runs))


def phase_record(scenario: Scenario) -> dict[str, Any] | None:
    """The place of a phase among its phases, for the manifest; None for a training that follows none."""
    if scenario.after is None or scenario.previous is None:
        return None
    relearn = scenario.after.relearn
    return {
        "phase": scenario.after.phase,
        "name": scenario.after.name,
        "after": scenario.previous.id,
        "forget": scenario.after.forget.model_dump(mode="json"),
        **({"relearn": relearn.model_dump(mode="json")} if relearn else {}),
    }
