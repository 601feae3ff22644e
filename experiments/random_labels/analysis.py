"""From a finished run to how many random labels are answered, in and out, and how much of it is memorisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fedmem.contracts.evidence import Bank
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.results.read import read, read_bank
from fedmem.studies.experiment import table_over_seeds

KINDS = ("true_label", "random_label")
KEYS = ["data", "arm", "what", "kind", "level", "round"]

MEMORY, FITTED, GUESSED, ACCURACY = "memorisation", "right, in", "right, out", "test accuracy"


def of_folder(folder: Path) -> pd.DataFrame:
    """The values of a run folder: `what`, `kind`, `level`, `round` and `value`.

    Memorisation is by the probability of the label. `right, in` is the share of examples that are answered with their
    label in runs that were trained on them. `right, out` is that in the other runs. Test accuracy is that on true
    labels, a mean over runs and, at the level of clients, over clients.
    """
    measured = read(folder).measurements
    is_round = measured.scope.astype(str).str.endswith("round") & (measured.place.astype(str) != "others")
    by_probability = (measured.metric == "memorisation") & (measured.statistic.astype(str) == "probability")
    memory = measured[is_round & by_probability & measured.subject.astype(str).isin(KINDS)]
    tests = measured[(measured.scope.astype(str) == "round") & (measured.metric == "test_accuracy")]
    frames = [
        frame.assign(level=frame.level.astype(str), what=what)[["what", "kind", "level", "round", "value"]]
        for frame, what in (
            (memory.assign(kind=memory.subject.astype(str)), MEMORY),
            (tests.assign(kind=""), ACCURACY),
        )
    ]
    values = pd.concat([*frames, pd.DataFrame(list(_answers(read_bank(folder))))], ignore_index=True)
    return values[values["round"] > 0].assign(value=lambda frame: frame.value.astype(float))


def _answers(bank: Bank) -> Iterator[dict[str, str | int | float]]:
    """The share of right answers on the examples of each kind, in and out, of each view."""
    for view in views(bank, permute_coins(bank.audit, 1, np.random.default_rng(0))):
        if view.round is None or view.place == "others":
            continue
        right = view.correct[:, 0]
        for kind in KINDS:
            of_kind = bank.audit.kind == kind
            for what, is_counted in ((FITTED, bank.audit.is_in), (GUESSED, ~bank.audit.is_in)):
                counted = np.where(is_counted & of_kind, right, np.nan)
                if np.isfinite(counted).any():
                    share = float(np.nanmean(counted))
                    yield {"what": what, "kind": kind, "level": view.level, "round": view.round, "value": share}


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
