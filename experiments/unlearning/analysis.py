"""From finished phases to what is left of forgotten examples, what an attack finds, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fedmem.contracts.unlearner import unlearner_declaration
from fedmem.results.read import Run
from fedmem.scenario.scenario import Scenario
from fedmem.studies.experiment import over_seeds

FORGOTTEN, RETAINED = "forget", "canary"
"""The kind that is forgotten, and the memorised kind that is not."""

AT_ONCE, AFTER = "at once", "after the rounds"
"""The unlearned model, and the model after the rounds of the phase."""

_METRICS: Mapping[str, tuple[str, str]] = {
    "memorisation": ("residual", "probability"),
    "memorisation_before": ("before", "probability"),
    "memorisation_change": ("change", "probability"),
    "share_removed": ("share_removed", "probability"),
    "test_accuracy_change": ("accuracy_change", ""),
    "auc": ("auc", ""),
    "exposure_gain": ("bits", ""),
}
"""Metric -> its name here and the label `statistic` of its rows."""

_KEPT = {"residual": "kept", "bits": "kept_bits"}


def of_run(run: Run) -> pd.DataFrame:
    """The values of one phase: `what`, `kind`, `place`, `attack`, `when` and `value`."""
    rows = run.measurements
    rows = rows[rows.subject.astype(str).isin([FORGOTTEN, RETAINED, ""]) & rows.metric.isin(list(_METRICS))]
    is_read = rows.statistic.astype(str) == rows.metric.map(lambda metric: _METRICS[metric][1])
    last, first = rows.scope == "summary", (rows.scope == "round") & (rows["round"] == 0)
    parts = [
        rows[is_read & last].assign(when=AFTER),
        rows[is_read & first & (rows.level == "global")].assign(when=AT_ONCE),
    ]
    found = pd.concat(parts, ignore_index=True)
    place = found.place.astype(str).replace({"owner": "local", "": "global"})
    return pd.DataFrame(
        {
            "what": found.metric.map(lambda metric: _METRICS[metric][0]),
            "kind": found.subject.astype(str),
            "place": place,
            "attack": found.attack.astype(str),
            "when": found.when,
            "value": found.value.astype(float),
        }
    )


def of_first(run: Run) -> pd.DataFrame:
    """Memorisation and bits of models that somebody keeps from the first training, at each level."""
    found = of_run(run)
    found = found[found.what.isin(list(_KEPT)) & (found.when == AFTER)]
    return found.assign(what=found.what.map(_KEPT))


def stored_models(scenario: Scenario, folder: Path) -> pd.DataFrame:
    """Counts of what a method reads from before the phase, for each run: models, bytes, rounds, trainings, gradients.

    Args:
        scenario: The scenario of the phase.
        folder: The folder of the first training.
    """
    from fedmem.results.read import read

    assert scenario.previous is not None
    counts = {"models": 0.0, "mib": 0.0, "trainings": 0.0, "gradients": 0.0, "rounds": float(scenario.rounds)}
    if scenario.unlearner is not None:
        declared, before = unlearner_declaration(scenario.unlearner), scenario.previous
        needed = {} if declared.stored_models is None else declared.stored_models(before.rounds)
        entries = read(folder).manifest.get("models", ())
        for entry in entries:
            if entry["round"] in needed.get(entry["level"], ()):
                counts["models"] += entry["models"] / before.runs
                counts["mib"] += entry["bytes"] / before.runs / 2**20
        counts["gradients"] = float(declared.steps)
        if declared.trained_rounds is not None:
            counts["trainings"] = float(len(declared.trained_rounds(before.rounds)) * before.clients)
    return pd.DataFrame([{"what": what, "value": value} for what, value in counts.items()])


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of every value of a phase."""
    keys = ["federation", "method", "what", "kind", "place", "attack", "when"]
    rows = []
    for key, group in values.fillna({"kind": "", "attack": ""}).groupby(keys, sort=True):
        found = over_seeds(group.sort_values("seed").value.to_numpy(dtype=np.float64))
        rows.append({**dict(zip(keys, key, strict=True)), **found})
    return pd.DataFrame(rows)


def costs(values: pd.DataFrame) -> pd.DataFrame:
    """The costs of each method in a run, the same in every seed but for bytes of headers."""
    kinds: Sequence[str] = ("rounds", "models", "mib", "trainings", "gradients")
    found = values[values.what.isin(kinds)].groupby(["federation", "method", "what"]).value.mean().unstack()
    return found[list(kinds)].reset_index()
