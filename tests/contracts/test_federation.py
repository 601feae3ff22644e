"""The digest of a federation: equal for equal contents, and only for these."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.data import Examples
from fedmem.contracts.deduplication import Duplicates
from fedmem.contracts.federation import Federation, TriggeredRows, digest
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.training_mode import TrainingMode
from fedmem.federation.build import build
from fedmem.modalities.tables import Tables
from tests.narrowing import present
from tests.tiny import tiny


@pytest.fixture(scope="module")
def whole() -> Federation:
    built = build(tiny(leave_out={"clients": "all"}, initial_weights="per_run"))
    return replace(built, pilot=replace(built, initials=()), unpooled=replace(built, initials=()))


def test_digest_of_a_federation_ignores_object_identity(whole: Federation) -> None:
    again = build(tiny(leave_out={"clients": "all"}, initial_weights="per_run"))
    again = replace(again, base=Ragged.of(again.base), store=replace(again.store, inputs=again.store.inputs.copy()))
    assert digest(again) == digest(replace(whole, pilot=None, unpooled=None))


def test_scenarios_with_other_data_have_other_digests() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 4},
        {"clients": 4},
        {"model": {"kind": "mlp", "hidden": [9]}},
        {"exclusion": "remove"},
    ]
    assert len({digest(build(tiny(**change))) for change in changes}) == len(changes)


def nudged(array: Any) -> Any:
    """The same array with another last value."""
    other = array.copy()
    if other.dtype.kind == "U":
        other.flat[-1] = "?"
    else:
        other.flat[-1] = not other.flat[-1] if other.dtype == bool else other.flat[-1] - 1
    return other


def examples(rows: Examples) -> list[Examples]:
    return [replace(rows, **{field.name: nudged(getattr(rows, field.name))}) for field in fields(rows)]


def changed(federation: Federation) -> dict[str, list[Federation]]:
    """Federations that differ in one field, each; of records within it, in one field of these."""
    audit, references = federation.audit, federation.references
    arrays = [field.name for field in fields(audit) if isinstance(getattr(audit, field.name), np.ndarray)]
    audits = [
        *(replace(audit, **{name: nudged(getattr(audit, name))}) for name in arrays),
        *(replace(audit, examples=rows) for rows in examples(audit.examples)),
        replace(audit, client_in=None),
        replace(audit, copy_owner=np.roll(audit.owners, 1)),
    ]
    moved = {name: value + 1e-3 for name, value in federation.initial.items()}
    base = list(federation.base)
    by_field: dict[str, list[Any]] = {
        "store": examples(federation.store),
        "base": [base[::-1], [np.concatenate(base[:2]), *base[2:], base[0][:0]]],
        "audit": audits,
        "trained_rows": [nudged(federation.trained_rows)],
        "replacement": [nudged(federation.replacement)],
        "test": examples(federation.test),
        "population": examples(federation.population),
        "references": [(), tuple(replace(one, inputs=nudged(one.inputs)) for one in references)],
        "initial": [moved],
        "frozen": [{"base.weight": np.zeros(2)}, {"base.weight": np.ones(2)}],
        "initials": [(), (*federation.initials[:-1], moved)],
        "counts": [{**federation.counts, "more": 1}],
    }
    rows = federation.test.inputs[:2]
    simple: dict[str, list[Any]] = {
        "audit_start": [federation.audit_start + 1],
        "num_classes": [federation.num_classes + 1],
        "shifted": [not federation.shifted],
        "by_client": [not federation.by_client],
        "pilot": [None, replace(federation, pilot=None, replacement=nudged(federation.replacement))],
        "unpooled": [None],
        "modality": [Tables(blocks=(1, 2)), Tables(blocks=(2, 1))],
        "client_names": [("ada", "ben"), ("ben", "ada")],
        "absent_clients": [(0,), (1,)],
        "learnt": [("ranges",)],
        "test_rows": [np.array([0])],
        "class_names": [("cat", "dog"), ("dog", "cat")],
        "notes": [("audit: 3 rows",), ("audit: 4 rows",)],
        "warnings": [("audit: 3 copies are cut",), ("audit: 4 copies are cut",)],
        "initial_notes": [("2 tensors are from a",), ("2 tensors are from b",)],
        "foreign_rows": [{"audit": 3}, {"audit": 4}],
        "duplicates": [
            Duplicates(features=Ragged.of(parts), overlap=overlap)
            for parts, overlap in (([[0], [1]], 1.0), ([[0], [0]], 1.0), ([[0], [1]], 0.5))
        ],
        "mode": [TrainingMode(draws=True), TrainingMode(statistics=("norm.running_mean",))],
        "triggers": [(TriggeredRows(kind="backdoor", target=label, clean=rows, triggered=rows),) for label in (0, 1)],
        "sources": [None, replace(present(federation.sources), sensitive=("age",))],
    }
    return {
        name: [replace(federation, **{name: value}) for value in values]
        for name, values in {**by_field, **simple}.items()
    }


def test_the_digest_differs_where_any_field_differs(whole: Federation) -> None:
    others = changed(whole)
    assert set(others) == {field.name for field in fields(whole)} - {"model", "prefix", "before", "row_columns"}, (
        "a new field needs a line here"
    )
    alike = [(name, i) for name, ones in others.items() for i, one in enumerate(ones) if digest(one) == digest(whole)]
    assert not alike


def test_labels_of_base_rows_are_counted_by_client(whole: Federation) -> None:
    counts = present(whole.label_counts)
    assert counts.shape == (whole.num_clients, whole.num_classes)
    for client, rows in enumerate(whole.base):
        for label in range(whole.num_classes):
            assert counts[client, label] == sum(whole.store.targets[row] == label for row in rows)
    texts = replace(whole.store, targets=np.stack([whole.store.targets] * 2, axis=1))
    assert replace(whole, store=texts).label_counts is None
