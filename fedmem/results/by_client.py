"""Results by client: a measure over the audit examples that each client owns, from one run with any injections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmem.contracts.estimator import Estimator
from fedmem.contracts.needs import measures_of
from fedmem.errors import ComponentError, RunError
from fedmem.estimation.by_client import ClientEstimate, estimates_by_client
from fedmem.results.conditions import COLUMN as CONDITION
from fedmem.results.examples import with_names
from fedmem.results.read import read_bank
from fedmem.results.tidy import with_condition
from fedmem.scenario import catalogue
from fedmem.wording import choices

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.contracts.measurement import Level
    from fedmem.results.read import Run

NOTE = (
    "The columns low and high are the 95 % interval of each client alone. The columns adjusted_low, adjusted_high and "
    "p_adjusted allow for all clients of a measure, kind and level together (column tests; Bonferroni). Clients "
    "whose adjusted intervals do not overlap differ. With fewer than 8 examples of a client, or fewer than 8 runs, "
    "there is no interval. Without a measured example the value is undefined (n is 0)."
)
"""How to read the frame; `frame.attrs["note"]`."""


COLUMNS = frozenset(
    (
        *("client", "client_name", "level", "kind", "metric", "value", "low", "high", "n", "null", "p"),
        *("adjusted_low", "adjusted_high", "p_adjusted", "tests", CONDITION),
    )
)
"""The columns of the frame that are no labels of the measure."""


def frame_by_client(run: Run, measure: str, level: Level | None, kind: str | None) -> pd.DataFrame:
    """The frame of `Run.by_client`. Errors: `ComponentError` with choices, `RunError` for a run without estimators."""
    import pandas as pd

    estimators = [catalogue.build("estimator", mapping) for mapping in run.scenario.get("estimators") or ()]
    if not estimators:
        raise RunError(f"{run.path} has no estimators, so nothing is known of its clients; add one and run again")
    measures = {name: estimator for estimator in estimators for name in _measures_of(estimator)}
    if measure not in measures:
        raise ComponentError("measure", f"no estimator of this run has {measure!r}{choices(measure, measures)}")
    bank = read_bank(run.path)
    if kind is not None and kind not in bank.audit.kinds:
        raise ComponentError("kind", f"no audit example is of kind {kind!r}{choices(kind, bank.audit.kinds)}")
    selection = [estimator for estimator in estimators if measure in _measures_of(estimator)]
    rows = [
        row
        for row in estimates_by_client(bank, selection, measure, int(run.scenario.get("bootstrap", 0)))
        if level in (None, row.level) and kind in (None, row.kind)
    ]
    if not rows:
        raise ComponentError(
            "measure",
            f"{measure!r} has no value for the audit examples of any client: it needs more examples or runs, or it "
            "measures something else",
        )
    names = list(dict.fromkeys(name for row in rows for name in row.labels if name != "place"))
    frame = with_names(pd.DataFrame([_columns(row, names) for row in rows]), run.client_names)
    frame = with_condition(frame, run)
    frame.attrs["note"] = NOTE
    return frame


def _measures_of(estimator: Estimator) -> list[str]:
    return [measure.name for measure in measures_of(estimator)]


def _columns(row: ClientEstimate, labels: list[str]) -> dict[str, Any]:
    """A row of the frame; labels are columns of their own."""
    (low, high), (adjusted_low, adjusted_high) = row.interval, row.adjusted
    return {
        "client": row.client,
        "level": row.level,
        "kind": row.kind,
        "metric": row.metric,
        **{name: row.labels.get(name) or "" for name in labels},
        "value": row.value,
        "low": low,
        "high": high,
        "n": row.n,
        "null": row.null,
        "p": row.p,
        "adjusted_low": adjusted_low,
        "adjusted_high": adjusted_high,
        "p_adjusted": row.p_adjusted,
        "tests": row.tests,
    }
