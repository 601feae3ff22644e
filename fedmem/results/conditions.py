"""The column of values that are conditional on something that all runs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMN = "conditional_on"
"""The column of measurements and tables. A run without conditional values does not have it."""

MEANS = "batches: the value is conditional on the batches that all runs share; other runs have no such column"
"""The meaning of the column."""


def condition_of(scenario: Mapping[str, Any]) -> str:
    """The condition of all values of a run, from its resolved scenario; empty without one.

    The default draws other batches in each run, so that values are means over batches. With `batches: shared` they are
    about one sequence of batches.

    >>> condition_of({"batches": "shared"}), condition_of({"batches": "per_run"}), condition_of({})
    ('batches', '', '')
    """
    return "batches" if scenario.get("batches") == "shared" else ""
