"""Names of measures, checked before anything is trained, as far as a scenario says what it will measure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.families import kind_of
from fedmem.errors import Problem, ScenarioError
from fedmem.wording import did_you_mean

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

METRICS = {
    "exposure": ("exposure", "exposure_gain"),
    "exposure_skewnormal": ("exposure_extrapolated",),
    "memorisation": ("memorisation",),
    "membership": ("auc", "tpr"),
    "client_influence": ("client_influence",),
    "utility": ("test_accuracy", "train_accuracy", "generalisation_gap", "generalisation_loss_gap"),
    "client_gap": ("client_accuracy_gap", "client_loss_gap"),
}
"""By the kind of an estimator or probe what it is mostly asked for."""


def check_metric(name: str, scenarios: Sequence[Scenario], *, source: str = "", path: str = "") -> None:
    """Refuses what is a slip of the pen for a measure that one of these scenarios has, or one that none of them has.

    Other names pass, since other components may measure anything. Errors: `ScenarioError`.
    """
    there = {kind_of(part) for scenario in scenarios for part in (*scenario.estimators, *scenario.probes)}
    known = [metric for kind, metrics in METRICS.items() if kind in there for metric in metrics]
    lacking = next((kind for kind, metrics in METRICS.items() if name in metrics and kind not in there), "")
    if name in known:
        return
    if lacking and there <= METRICS.keys():
        message = f"{name} is measured by {lacking}, which this scenario does not have; it has: {', '.join(known)}"
    elif difflib.get_close_matches(name, known, n=1, cutoff=0.85):
        message = f"{name} is measured by no run{did_you_mean(name, known)}"
    else:
        return
    raise ScenarioError([Problem(path=path, message=message, source=source)])
