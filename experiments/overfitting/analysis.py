"""From a finished run to memorisation, test loss and generalisation gap by round, and at the lowest test loss."""

from __future__ import annotations

import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KINDS = ("mislabelled", "random_pattern", "typical")
KEYS = ["data", "arm", "what", "kind", "level", "at"]

MEMORY, LOSS, ACCURACY, GAP = "memorisation", "test loss", "test accuracy", "accuracy gap"
LOWEST, LAST, ROUND = "lowest test loss", "last round", "round of the lowest test loss"

_METRICS = {"test_loss": LOSS, "test_accuracy": ACCURACY, "client_accuracy_gap": GAP}


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run: `what`, `kind`, `level`, `at` and `value`.

    `at` is a round, or the round in which the mean test loss of the models of a level is lowest, or the last. Test
    loss, test accuracy and gap are means over runs, and over clients at the level `local`. The gap is the accuracy on
    the base rows of a client minus test accuracy.
    """
    rounds = _by_round(run)
    parts = []
    for level, part in rounds.groupby("level"):
        losses = part[part.what == LOSS].set_index("round")["value"]
        lowest, last = int(losses.index[int(losses.argmin())]), int(losses.index.max())
        chosen = [part[part["round"] == number].assign(at=name) for number, name in ((lowest, LOWEST), (last, LAST))]
        row = {"what": ROUND, "kind": "", "level": level, "at": LOWEST, "value": float(lowest)}
        parts += [part.assign(at=part["round"].astype(str)), *chosen, pd.DataFrame([row])]
    return pd.concat(parts, ignore_index=True)[["what", "kind", "level", "at", "value"]]


def _by_round(run: Run) -> pd.DataFrame:
    """The values of each observed round after the first aggregate: `what`, `kind`, `level`, `round`, `value`."""
    rows = run.measurements
    asked = rows[(rows.scope.astype(str) == "round") & (rows.place.astype(str) != "others") & (rows["round"] > 0)]
    metric, subject = asked.metric.astype(str), asked.subject.astype(str)
    is_memory = (metric == "memorisation") & (asked.statistic.astype(str) == "probability") & subject.isin(KINDS)
    is_model = metric.isin(list(_METRICS)) & ~subject.str.startswith("client")
    found = asked[is_memory | is_model]
    return pd.DataFrame(
        {
            "what": found.metric.astype(str).map(lambda name: _METRICS.get(name, MEMORY)),
            "kind": subject[found.index].where(is_memory[found.index], ""),
            "level": found.level.astype(str),
            "round": found["round"].astype(int),
            "value": found.value.astype(float),
        }
    )


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
