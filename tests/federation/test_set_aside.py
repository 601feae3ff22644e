"""Tests of `fedmem/federation/set_aside.py`."""

from __future__ import annotations

import numpy as np

from fedmem.datasets.synthetic import Synthetic
from fedmem.federation import build
from fedmem.federation.set_aside import BaseRows
from fedmem.injections.existing import Existing
from fedmem.injections.typical import Typical
from fedmem.partitions.flower import Flower
from fedmem.partitions.natural import Natural
from tests.federation.build_helpers import scenario


def test_coins_do_not_depend_on_the_partition() -> None:
    data = Synthetic(rows=900, test=50, groups=5)
    own, mixed = (build.build(scenario(partition=part, dataset=data)) for part in (Natural(), Flower()))
    np.testing.assert_array_equal(own.audit.is_in, mixed.audit.is_in)


def test_base_rows_count_what_was_set_aside() -> None:
    asked = scenario(partition=Natural(), dataset=Synthetic(rows=900, test=50, groups=5))
    data = build.load(asked)
    built = build.build(asked, data)
    assert data.natural is not None
    rows = BaseRows(data.train, built.base, np.full(5, 7))  # type: ignore[arg-type]
    assert rows[1].num_rows == len(built.base[1]) + 7
    assert [part.client for part in rows[1:3]] == [1, 2]


def test_held_rows_of_owners_are_audited_too() -> None:
    """Rows that clients hold are taken after the reserves, and are replaced by rows of the same client."""
    asked = scenario(
        partition=Natural(),
        dataset=Synthetic(rows=900, test=50, groups=5),
        injections=(Typical(per_client=2), Existing(share=0.2)),
    )
    data = build.load(asked)
    built = build.build(asked, data)
    assert data.natural is not None
    owner = dict(zip(data.train.ids.tolist(), data.natural.tolist(), strict=True))
    assert [owner[row] for row in built.audit.examples.ids.tolist()] == built.audit.owner.tolist()
    used = built.replacement >= 0
    clients = np.broadcast_to(built.audit.owners, used.shape)[used]
    assert [owner[row] for row in built.store.ids[built.replacement[used]].tolist()] == clients.tolist()
    real = np.concatenate([built.store.ids, built.test.ids, built.population.ids])
    assert len(np.unique(real)) == len(real) == sum(built.counts.values()) - built.counts["total"]
