"""Names of measures, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.measure import base_of
from fedmem.errors import Problem, ScenarioError
from fedmem.reporting.measures import WRITTEN, measures_of_scenario, shipped_by
from fedmem.wording import choices

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def check_metric(name: str, scenarios: Sequence[Scenario], *, source: str = "", path: str = "") -> None:
    """Refuses a measure that no component of these scenarios declares.

    Raises:
        ScenarioError: with the component that would measure it, or with the nearest names.
    """
    by_kind: dict[str, tuple[str, ...]] = {}
    for scenario in scenarios:
        by_kind |= measures_of_scenario(scenario)
    metrics = [metric for names in by_kind.values() for metric in names] + [measure.name for measure in WRITTEN]
    base = base_of(name)
    if base in metrics:
        return
    lacking = [kind for kind, names in shipped_by().items() if base in names]
    if lacking:
        message = f"{name} is measured by {' or '.join(lacking)}, which this scenario does not have; it has: "
        message += ", ".join(metrics)
    else:
        message = f"{name} is measured by no component of this scenario{choices(base, metrics)}"
    raise ScenarioError([Problem(path=path, message=message, source=source)])
