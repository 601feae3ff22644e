"""From a finished run to what the server learnt: shares of rows, and differences between in and out examples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KEYS = ["data", "arm", "what", "seen", "level"]

SEEN = {"local": "message", "sum 2": "sum of 2", "sum 4": "sum of 4"}
"""Level and number of clients -> what the server sees."""

LEVELS = {"message": "local", "sum of 2": "sum", "sum of 4": "global"}
"""The cohort has four clients, so a sum of 4 is the whole that the aggregate is made of."""

IMPRINT, TRAP, HONEST = "imprint", "trap weights", "real message"
EXPECTED, ISOLATED = ", formula", ", alone"
IN_OUT, OUT = ", in − out", ", out"
IDENTIFIED = ", identified in − out"
ACTIVATION, ASCENT, PASSIVE = "activation, in − out", "AUC of ascent", "AUC of fall"
_NAMES = {"imprint": IMPRINT, "trap_weights": TRAP}


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run folder: `what`, `seen`, `level` and `value`, of the summary.

    Shares are of the rows of a message or sum. `in − out` is the difference of audit examples, `out` their control.
    `identified in − out` asks whether a quotient is nearer to an example than to all images of its gallery.
    `formula` is the expected share, and `alone` the share of rows that are alone in a bin of the model that was sent.
    """
    rows = run.measurements
    found = []
    for row in rows[rows.scope == "summary"].to_dict("records"):
        clients = "" if pd.isna(row["clients"]) else f" {int(row['clients'])}"
        seen, what = SEEN.get(f"{row['level']}{clients}"), _what(row)
        if seen is not None and what:
            found.append({"what": what, "seen": seen, "level": LEVELS[seen], "value": float(row["value"])})
    return pd.DataFrame(found, columns=["what", "seen", "level", "value"])


def _what(row: Mapping[Hashable, Any]) -> str:
    """The name of a row here; "" if it is not asked for."""
    label = {name: str(row[name]) for name in ("metric", "source", "statistic", "place", "server", "coin")}
    metric, name = label["metric"], _NAMES.get(label["source"], "")
    if metric == "activation.difference" and label["place"] == "owner":
        return ACTIVATION
    if metric == "active_auc" and label["place"] == "owner":
        return {"ascent": ASCENT, "passive": PASSIVE}.get(label["statistic"], "")
    if not name:
        return ""
    if metric in ("isolated_rows", "isolated_rows_expected"):
        return name + (ISOLATED if metric == "isolated_rows" else EXPECTED)
    if label["server"] == "honest":
        # both probes read the same real message
        name = HONEST if name == IMPRINT else ""
    if name and metric == "identified.difference":
        return name + IDENTIFIED
    if not name or metric not in ("exact", "exact_rows", "exact.difference"):
        return ""
    if metric == "exact":
        return name + OUT if label["coin"] == "out" else ""
    return name if metric == "exact_rows" else name + IN_OUT


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
