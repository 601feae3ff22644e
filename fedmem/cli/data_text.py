"""Lines of `fedmem check` on a data set: rows, classes, choices of its loader, and clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.events import count
from fedmem.contracts.injection import injection_declaration
from fedmem.wording import client_text

if TYPE_CHECKING:
    from fedmem.contracts.arrays import IntArray
    from fedmem.contracts.data import Dataset
    from fedmem.contracts.federation import Federation
from fedmem.contracts.injection import Injection

_CLASSES, _CLIENTS, _DECISIONS = 12, 12, 40
"""The most of each that are listed one by one."""

_NAME = 16
"""The most characters of a name in a table."""


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


def class_lines(federation: Federation, injections: Sequence[Injection], width: int) -> Iterator[tuple[str, str]]:
    """A table of rows by client and class, where an injection chooses rows by class; no line without such an injection.

    The rows of a client are all that it trains on in some run: audit examples and replacement rows count. At most 12
    clients are shown, and as many classes as fit.
    """
    declared = [injection_declaration(injection) for injection in injections]
    is_wanted = any(each.by_class or each.reserved_class is not None for each in declared)
    if not is_wanted or federation.store.several_targets:
        return
    targets, num_classes = federation.store.targets, federation.num_classes
    shown = range(min(federation.num_clients, _CLIENTS))
    counts = [np.bincount(targets[_rows_of(federation, k)], minlength=num_classes).tolist() for k in shown]
    clients = [client_text(client, federation.client_names)[:_NAME] for client in range(len(counts))]
    classes = [str(name)[:_NAME] for name in federation.class_names or range(num_classes)]
    columns = [
        [name, *(str(of_client[label]) for of_client in counts)] for label, name in enumerate(classes[:_CLASSES])
    ]
    cells = [["rows by class", *clients], *columns]
    while len(cells) > 2 and sum(max(map(len, column)) + 2 for column in cells) > width:
        cells.pop()
    widths = [max(map(len, column)) for column in cells]
    for number, row in enumerate(zip(*cells, strict=True)):
        first, *rest = (
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        yield "" if number else "by class", "  ".join([first, *rest])
    left_out = [
        f"{more} more {noun}"
        for more, noun in ((federation.num_clients - len(counts), "clients"), (num_classes - len(cells) + 1, "classes"))
        if more > 0
    ]
    if left_out:
        yield "", f"… and {' and '.join(left_out)}"


def _rows_of(federation: Federation, client: int) -> IntArray:
    """The rows that a client trains on in some run."""
    audit = federation.audit
    examples = np.flatnonzero(audit.owners == client)
    of_client = np.repeat(audit.owners, audit.copies) == client
    replacements = federation.replacement[:, of_client]
    own = federation.audit_start + examples
    return np.unique(np.concatenate([federation.base[client], own, replacements[replacements >= 0]]))


def _size(data: Dataset) -> str:
    """How many rows of which shape there are, and the training rows of each class."""
    shape = " × ".join(map(str, data.train.inputs.shape[1:]))
    text = (
        f"{len(data.train):,} training and {count(len(data.test), 'test row')} of {data.modality.kind}, inputs {shape}"
    )
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
