"""The rows of combined runs: which set and example each is about, and p adjusted over single examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.audit_set import AuditSet
from fedmem.estimation.single_examples import adjust

if TYPE_CHECKING:
    import pandas as pd

_NOT_LABELS = ("subject", "value", "low", "high", "n", "set", "example", "p_adjusted")
"""Columns in which rows about the examples of one question differ."""


def with_examples(frame: pd.DataFrame, audit: AuditSet) -> pd.DataFrame:
    """The frame with the set and the example of each row, and with p adjusted over single examples."""
    import pandas as pd

    numbers = {str(number): number for number in range(len(audit))}
    first = {name: place for place, name in reversed(list(enumerate(audit.kind.tolist())))}
    is_single = frame["subject"].isin(numbers.keys() - first.keys())
    number = frame["subject"].where(is_single).map(numbers)
    names = [
        audit.kind[int(place)] if place == place else subject
        for place, subject in zip(number, frame["subject"], strict=True)
    ]
    starts = pd.Series(names, index=frame.index).map(first)
    frame = frame.assign(set=names, example=(number - starts).astype("Int64"), p_adjusted=np.nan)
    labels = [name for name in frame.columns if name not in _NOT_LABELS]
    of_p = frame[is_single & frame["metric"].str.endswith(".p")]
    for _, rows in of_p.groupby(labels, dropna=False):
        frame.loc[rows.index, "p_adjusted"] = adjust(rows["value"].to_numpy(np.float64))
    return frame
