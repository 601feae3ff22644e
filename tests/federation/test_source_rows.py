"""Audit examples beside the rows of the data set that they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedmem.datasets.npz import Npz
from fedmem.federation import build
from fedmem.federation.source_rows import source_rows
from fedmem.injections.corrupted import Corrupted
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from tests.federation.build_helpers import scenario


def test_true_labels_and_alterations_are_those_of_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((200, 1, 4, 4)).astype(np.float32), np.arange(200) % 3
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    injections: Any = (
        Mislabelled(per_client=1), Corrupted(per_client=1), Typical(per_client=1),
        RandomPattern(per_client=1, values="uniform"),
    )  # fmt: skip
    built = build.build(scenario(dataset=Npz(path=str(tmp_path / "mine.npz")), injections=injections, population=0))
    audit, sources = built.audit, built.sources
    assert sources is not None
    real = audit.examples.ids >= 0
    assert (sources.target[real] == y[audit.examples.ids[real]]).all()
    wrong = sources.target != audit.examples.targets
    assert {kind: set(wrong[audit.kind == kind].tolist()) for kind in audit.kinds if kind != "random_pattern"} == {
        "mislabelled": {True}, "corrupted": {False}, "typical": {False}
    }  # fmt: skip
    assert {kind: set(sources.is_altered[audit.kind == kind].tolist()) for kind in audit.kinds} == {
        "mislabelled": {False}, "corrupted": {True}, "typical": {False}, "random_pattern": {True}
    }  # fmt: skip
    assert (sources.target[~real] == -1).all()


def test_cells_follow_the_ids_and_not_the_places() -> None:
    from fedmem.contracts.data import Dataset, Examples
    from fedmem.modalities.tables import Tables

    rows = Examples(inputs=np.eye(3, dtype=np.float32), targets=np.arange(3), ids=np.array([30, 10, 20]))
    data = Dataset(train=rows, test=rows, num_classes=3, modality=Tables(), columns={"age": np.array([3, 1, 2])})
    found = source_rows(data, rows.take(np.array([2, 0])))
    assert found.cells["age"].tolist() == ["2", "3"]
    assert found.target.tolist() == [2, 0]
