"""Tests of `fedmem/federation/held_rows.py`: rows of clients under coins, on whole federations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.federation import Federation
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.federation import build
from fedmem.injections.existing import Existing
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.feature_skew import FeatureSkew
from fedmem.partitions.iid import IID
from fedmem.partitions.natural import Natural
from tests.federation.build_helpers import scenario

OTHERS = (RandomPattern(per_client=2), Mislabelled(per_client=2), Typical(per_client=1, copies=3))


def built(*injections: Any, **changes: Any) -> Federation:
    return build.build(scenario(injections=injections, **changes))


def trained_ids(federation: Federation, run: int, client: int) -> list[int]:
    return [int(i) for i in federation.store.ids[federation.rows(run, client, 1)]]


def held_ids(federation: Federation) -> list[set[int]]:
    return [set(federation.store.ids[rows].tolist()) for rows in federation.base]


@pytest.mark.parametrize("partition", [IID(), Natural(), Dirichlet(alpha=0.5, min_rows=9)])
@pytest.mark.parametrize("exclusion", ["replace", "remove"])
def test_base_chosen_and_replacements_are_the_partition(partition: Any, exclusion: str) -> None:
    fields = {"partition": partition, "exclusion": exclusion}
    plain, own = built(**fields), built(Existing(per_client=4), **fields)
    for client, ids in enumerate(held_ids(plain)):
        base = held_ids(own)[client]
        chosen = set(own.audit.examples.ids[own.audit.owner == client].tolist())
        others = {i for run in range(4) for i in trained_ids(own, run, client)} - base - chosen
        assert len(chosen) == 4
        assert base | chosen | others <= ids
        assert len(base) == len(ids) - 4 * (2 if exclusion == "replace" else 1)
        assert others <= ids - base - chosen
    assert sum(own.counts.values()) == 2 * own.counts["total"]


def test_a_row_is_trained_on_where_its_coin_says_in() -> None:
    federation = built(Existing(per_client=3))
    audit = federation.audit
    assert audit.is_in.sum(axis=0).tolist() == [2] * 15
    assert (audit.role == "typical").all()
    sizes = {len(trained_ids(federation, run, client)) for run in range(4) for client in range(5)}
    for run in range(4):
        for client in range(5):
            ids = trained_ids(federation, run, client)
            assert len(set(ids)) == len(ids), "no row stands twice"
            mine = np.flatnonzero(audit.owner == client)
            assert [int(audit.examples.ids[j]) in ids for j in mine] == audit.is_in[run, mine].tolist()
            others = {i for k in range(5) if k != client for i in trained_ids(federation, run, k)}
            assert not others & set(ids)
    assert len(sizes) <= 2  # 62 or 63 rows in each client, minus three, in every run


def test_replacement_rows_change_from_run_to_run() -> None:
    federation = built(Existing(per_client=10), runs=16)
    chosen = {tuple(sorted(row[row >= 0].tolist())) for row in federation.replacement}
    assert len(chosen) > 8
    stands_in = np.bincount(federation.replacement[federation.replacement >= 0])
    used = stands_in[stands_in > 0]
    assert len(used) == 50, "each row of the pool is used"
    assert used.max() < 16


def test_rows_and_replacement_rows_are_exchangeable() -> None:
    """Drawn rows and the rows that replace them have one law: no label is commoner in the one than in the other."""
    chosen, others = [], []
    for seed in range(40):
        federation = built(Existing(per_client=10), seed=seed, dataset=Synthetic(rows=400, test=50, classes=2))
        chosen.append(federation.audit.examples.targets.mean())
        rows = np.unique(federation.replacement[federation.replacement >= 0])
        others.append(federation.store.targets[rows].mean())
    gap = np.mean(chosen) - np.mean(others)
    assert abs(gap) < 4 * np.sqrt(2 * 0.25 / (40 * 50))


def test_a_later_injection_shifts_no_earlier_draw() -> None:
    before, after = (
        built(*OTHERS, Existing(per_client=2)),
        built(*OTHERS, Existing(per_client=2), Existing(share=0.1, label="more")),
    )
    plain = built(*OTHERS)
    for first, other in ((plain, before), (before, after)):
        count = len(first.audit)
        np.testing.assert_array_equal(first.audit.examples.inputs, other.audit.examples.inputs[:count])
        np.testing.assert_array_equal(first.audit.is_in, other.audit.is_in[:, :count])
        copies = int(first.audit.copies.sum())
        for run in range(4):
            rows = first.replacement[run], other.replacement[run, :copies]
            ids = [part.store.ids[row][row >= 0].tolist() for part, row in zip((first, other), rows, strict=True)]
            assert ids[0] == ids[1]
    assert set.union(*held_ids(after)) < set.union(*held_ids(plain))


def test_rows_keep_the_version_that_their_client_sees() -> None:
    skew = FeatureSkew(transform="rotation", strength=1.0, base=IID())
    federation, plain = built(Existing(per_client=2), partition=skew), built(partition=skew)
    seen = {int(i): row for i, row in zip(plain.store.ids, plain.store.inputs, strict=True)}
    for i, row in zip(federation.store.ids.tolist(), federation.store.inputs, strict=True):
        np.testing.assert_array_equal(row, seen[i])


@pytest.mark.parametrize(
    ("where", "reason"),
    [("test", "in the test set"), ("population", "in the population"), ("reserve", "set aside for other injections")],
)
def test_rows_that_nobody_holds_are_refused_with_the_reason(where: str, reason: str) -> None:
    federation = built(Typical(per_client=2))
    ids = {
        "test": federation.test.ids,
        "population": federation.population.ids,
        "reserve": federation.audit.examples.ids,
    }[where]
    held = int(federation.store.ids[federation.base[0][0]])
    with pytest.raises(ComponentError, match=f"no client holds all of these rows: row {ids[1]} is {reason}") as error:
        built(Typical(per_client=2), Existing(rows=(held, int(ids[1]))))
    assert error.value.path == "injections[1].rows"


def test_rows_that_are_not_there_or_audited_already_are_refused() -> None:
    with pytest.raises(ComponentError, match="row 9999 is not in the data, whose rows are 0 to 449"):
        built(Existing(rows=(9999,)))
    held = sorted(held_ids(built())[2])[:3]
    with pytest.raises(ComponentError, match=rf"row {held[1]} is included at random by injections\[0\] already"):
        built(Existing(rows=tuple(held)), Existing(rows=(held[1],), label="again"))
    pool = built(Existing(rows=tuple(held)))
    other = int(pool.store.ids[pool.replacement[pool.replacement >= 0][0]])
    with pytest.raises(ComponentError, match=r"among the replacement rows of injections\[0\]; put this injection be"):
        built(Existing(rows=tuple(held)), Existing(rows=(other,), label="again"))


def test_a_plan_and_its_declaration_have_to_agree() -> None:
    class Undeclared(Typical):
        """Takes rows of clients, and does not say so."""

        def plan(self, clients: Any, reserve: Any, space: Any, rng: np.random.Generator) -> InjectionPlan:
            rows = clients[0].examples.take(np.arange(2))
            zeros = np.zeros(2, np.int32)
            return InjectionPlan(examples=rows, owner=zeros, copies=zeros + 1, taken=rows.ids)

    with pytest.raises(ComponentError, match="declares `takes_held = True`"):
        built(Undeclared(per_client=2))


def test_notes_count_rows_and_clients() -> None:
    assert built(*OTHERS, Existing(per_client=2, clients=(0, 3))).notes == (
        "existing: 4 rows that 2 clients hold are audited, and 4 others of theirs are replacement rows",
    )
    assert built(Existing(per_client=1, clients=(3,)), exclusion="remove").notes == (
        "existing: 1 row that 1 client holds is audited",
    )
