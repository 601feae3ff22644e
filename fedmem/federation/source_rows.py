"""The rows of the data set that audit examples come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import SourceRows
from fedmem.contracts.data import Dataset, Examples


def source_rows(data: Dataset, examples: Examples) -> SourceRows:
    """The original rows of the data set with the ids of these examples, before clients transform them.

    >>> from fedmem.modalities.tables import Tables
    >>> rows = Examples(inputs=np.eye(2, dtype=np.float32), targets=np.array([0, 1]), ids=np.array([7, 9]))
    >>> data = Dataset(train=rows, test=rows, num_classes=2, modality=Tables(), columns={"job": np.array(["a", "b"])})
    >>> relabelled = Examples(inputs=rows.inputs, targets=np.array([1, 1]), ids=np.array([7, -1]))
    >>> source = source_rows(data, relabelled)
    >>> source.target.tolist(), source.is_altered.tolist(), source.cells["job"].tolist()
    ([0, -1], [False, True], ['a', ''])
    """
    order = np.argsort(data.train.ids, kind="stable")
    ids = data.train.ids[order]
    places = np.searchsorted(ids, examples.ids).clip(max=max(len(ids) - 1, 0))
    is_real = (examples.ids >= 0) & (ids[places] == examples.ids) if len(ids) else np.zeros(len(examples), dtype=bool)
    real = np.flatnonzero(is_real)
    rows = order[places[real]]
    target = np.full(len(examples), -1, dtype=np.int64)
    if not examples.several_targets:
        target[real] = data.train.targets[rows]
    is_altered = np.ones(len(examples), dtype=bool)
    is_altered[real] = ~data.modality.are_equal(data.train.take(rows), examples.take(real))
    cells = {}
    for name, values in data.columns.items():
        if name in data.dropped:
            continue
        column = _texts(values)
        texts = ["" for _ in range(len(examples))]
        for place, row in zip(real.tolist(), rows.tolist(), strict=True):
            texts[place] = column(row)
        cells[name] = np.array(texts, dtype=np.str_)
    return SourceRows(target=target, is_altered=is_altered, cells=cells, sensitive=tuple(data.sensitive))


def _texts(values: NDArray[Any]) -> Callable[[int], str]:
    """The cell of a row as text: empty where it is missing, whole where all numbers of the column are.

    >>> text = _texts(np.array([120.0, np.nan]))
    >>> text(0), text(1)
    ('120', '')
    """
    if values.dtype.kind != "f":
        return lambda row: str(values[row])
    finite = values[np.isfinite(values)]
    is_whole = bool((finite % 1 == 0).all() and (np.abs(finite) < 2**53).all())

    def text(row: int) -> str:
        value = float(values[row])
        return "" if np.isnan(value) else str(int(value) if is_whole and np.isfinite(value) else values[row])

    return text
