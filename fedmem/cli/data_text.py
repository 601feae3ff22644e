"""Lines of `fedmem check` on a data set: rows, classes, choices of its loader, and clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.wording import client_text

if TYPE_CHECKING:
    from fedmem.contracts.data import Dataset
    from fedmem.contracts.federation import Federation

_CLASSES, _CLIENTS, _DECISIONS = 12, 12, 40
"""The most of each that are listed one by one."""


def data_lines(data: Dataset, federation: Federation) -> Iterator[tuple[str, str]]:
    """Titles with what is beside them; the lines of a title have it once.

    >>> from fedmem.federation.build import build, load
    >>> from fedmem.scenario.loading import parse_scenario
    >>> scenario = parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}")
    >>> [title for title, _ in data_lines(load(scenario), build(scenario))]
    ['data', 'clients']
    """
    yield "data", _size(data)
    for number, line in enumerate(data.decisions[:_DECISIONS]):
        yield "" if number else "decided", line
    if len(data.decisions) > _DECISIONS:
        yield "", f"… and {len(data.decisions) - _DECISIONS} more"
    yield "clients", _clients(federation)


def _size(data: Dataset) -> str:
    """How many rows of which shape there are, and the training rows of each class."""
    shape = " × ".join(map(str, data.train.inputs.shape[1:]))
    text = f"{len(data.train):,} training and {len(data.test):,} test rows of {data.modality.kind}, inputs {shape}"
    if data.train.several_targets:
        return f"{text}, {data.num_classes:,} tokens"
    counts = np.bincount(data.train.targets, minlength=data.num_classes).tolist()
    names = data.class_names or tuple(f"class {label}" for label in range(data.num_classes))
    return f"{text}; training rows by class: {_counts(names, counts, _CLASSES)}"


def _clients(federation: Federation) -> str:
    """How many rows each client keeps for itself."""
    sizes = [len(rows) for rows in federation.base]
    names = [client_text(client, federation.client_names) for client in range(len(sizes))]
    return f"{len(sizes):,}, rows without audit examples: {_counts(names, sizes, _CLIENTS)}"


def _counts(names: Sequence[str], counts: Sequence[int], max_count: int) -> str:
    """Each name with its count; of many the smallest, the median and the largest."""
    if len(counts) <= max_count:
        pairs = list(zip(names, counts, strict=False))
        if any("," in name for name in names):
            return "; ".join(f"{name}: {count:,}" for name, count in pairs)
        return ", ".join(f"{name} {count:,}" for name, count in pairs)
    low, high = int(np.argmin(counts)), int(np.argmax(counts))
    return (
        f"{counts[low]:,} ({names[low]}) to {counts[high]:,} ({names[high]}), median {np.median(counts):,.0f}, in "
        f"{len(counts):,}"
    )
