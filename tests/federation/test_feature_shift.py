"""With a partition that shifts features, clients see their own version of a row, and nothing else changes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.federation import build
from fedmem.federation.feature_shift import replacement_pairs, viewers
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.injections.unique_feature import UniqueFeature
from fedmem.models.mlp import MLP
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.feature_skew import FeatureSkew
from fedmem.scenario.scenario import Scenario
from tests.banks import make_audit

BASE = Dirichlet(alpha=1.0, min_rows=2)
SKEW = FeatureSkew(transform="rotation", strength=1.0, base=BASE)


def scenario(partition: Any, **changes: Any) -> Scenario:
    fields: dict[str, Any] = {
        "name": "small",
        "rounds": 4,
        "runs": 4,
        "clients": 4,
        "dataset": Synthetic(rows=400, test=50),
        "model": MLP(hidden=(4,)),
        "injections": (
            RandomPattern(per_client=2),
            Mislabelled(per_client=2),
            NearDuplicate(per_client=1),
            Typical(per_client=1, copies=2, start=2, stop=3),
        ),
        "population": 40,
        "references": 20,
    }
    return Scenario(**(fields | changes), partition=partition)


def built(partition: Any, **changes: Any) -> Federation:
    return build.build(scenario(partition, **changes))


@pytest.fixture(scope="module")
def pair() -> tuple[Federation, Federation]:
    """The same federation without and with the shift."""
    return built(BASE), built(SKEW)


@pytest.mark.parametrize("run", range(4))
@pytest.mark.parametrize("round_number", [1, 2, 4])
def test_a_client_trains_on_rows_as_it_sees_them(
    pair: tuple[Federation, Federation], run: int, round_number: int
) -> None:
    plain, shifted = pair
    canaries = {row.tobytes() for row in plain.audit.examples.inputs[plain.audit.role == "canary"]}
    for client in range(4):
        before = plain.store.take(plain.rows(run, client, round_number))
        after = shifted.store.take(shifted.rows(run, client, round_number))
        np.testing.assert_array_equal(after.ids, before.ids)
        np.testing.assert_array_equal(after.targets, before.targets)
        turned = np.rot90(before.inputs, client, axes=(-2, -1))
        as_it_is = np.array([row.tobytes() in canaries for row in before.inputs])
        expected = np.where(as_it_is[:, None, None, None], before.inputs, turned)
        np.testing.assert_array_equal(after.inputs, expected)
        assert client == 0 or not np.array_equal(after.inputs, before.inputs)


def test_feature_skew_changes_training_inputs_only(pair: tuple[Federation, Federation]) -> None:
    plain, shifted = pair
    for name in ("test", "population"):
        np.testing.assert_array_equal(getattr(plain, name).inputs, getattr(shifted, name).inputs)
    np.testing.assert_array_equal(plain.references[0].inputs, shifted.references[0].inputs)
    for name in ("is_in", "owner", "kind", "copies", "start", "stop"):
        np.testing.assert_array_equal(getattr(plain.audit, name), getattr(shifted.audit, name))
    np.testing.assert_array_equal(plain.audit.examples.ids, shifted.audit.examples.ids)
    assert plain.counts == shifted.counts
    assert (plain.shifted, shifted.shifted) == (False, True)


def test_audit_examples_are_measured_as_their_owner_sees_them(pair: tuple[Federation, Federation]) -> None:
    plain, shifted = pair
    audit = shifted.audit
    store = shifted.store.inputs[shifted.audit_start : shifted.audit_start + len(audit)]
    np.testing.assert_array_equal(audit.examples.inputs, store)
    for j in range(len(audit)):
        turns = 0 if audit.role[j] == "canary" else int(audit.owner[j])
        expected = np.rot90(plain.audit.examples.inputs[j], turns, axes=(-2, -1))
        np.testing.assert_array_equal(audit.examples.inputs[j], expected)


def test_replacement_row_is_stored_once_for_each_client(pair: tuple[Federation, Federation]) -> None:
    plain, shifted = pair
    used = np.unique(shifted.replacement[shifted.replacement >= 0])
    np.testing.assert_array_equal(used, np.arange(used[0], len(shifted.store)))
    np.testing.assert_array_equal(plain.replacement >= 0, shifted.replacement >= 0)


def test_marked_images_are_refused_under_feature_skew() -> None:
    injections = (Typical(per_client=1), UniqueFeature(per_client=1, images=2))
    assert not build.check(scenario(BASE, injections=injections))
    (problem,) = build.check(scenario(SKEW, injections=injections))
    assert problem.path == "injections[1]"
    assert "Use another partition, or a canary that needs no real row" in problem.message
    with pytest.raises(ComponentError, match="differ in more than the canary"):
        built(SKEW, injections=injections)


def test_feature_skew_works_without_replacement_or_audit_rows() -> None:
    for changes in ({"injections": ()}, {"exclusion": "remove"}):
        plain, shifted = built(BASE, **changes), built(SKEW, **changes)
        for client in range(4):
            seen = shifted.store.inputs[shifted.base[client]]
            np.testing.assert_array_equal(seen, np.rot90(plain.store.inputs[plain.base[client]], client, axes=(-2, -1)))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), examples=st.integers(1, 8), runs=st.integers(1, 5), clients=st.integers(1, 4))
def test_pairs_of_row_and_client_are_those_of_a_plain_loop(seed: int, examples: int, runs: int, clients: int) -> None:
    rng = np.random.default_rng(seed)
    copies = rng.integers(1, 4, size=examples).astype(np.int32)
    rows = Examples(
        inputs=np.zeros((examples, 1), np.float32), targets=np.zeros(examples, np.int64), ids=np.arange(examples)
    )
    audit = AuditSet(
        examples=rows,
        kind=np.full(examples, "typical"),
        role=np.full(examples, "typical"),
        owner=rng.integers(clients, size=examples).astype(np.int32),
        copies=copies,
        is_in=np.zeros((runs, examples), dtype=bool),
    )
    fill = rng.integers(100, 106, size=(runs, copies.sum())) * rng.integers(0, 2, size=(runs, copies.sum()))
    fill[fill == 0] = -1
    changed, row, client = replacement_pairs(audit, fill, 100, clients)
    subject = np.repeat(np.arange(examples), copies)
    expected = {
        (fill[run, slot] - 100, audit.owner[subject[slot]])
        for run in range(runs)
        for slot in range(copies.sum())
        if fill[run, slot] >= 0
    }
    assert sorted(expected) == list(zip(row.tolist(), client.tolist(), strict=True))
    for run in range(runs):
        for slot in range(copies.sum()):
            if fill[run, slot] < 0:
                assert changed[run, slot] == -1
            else:
                found = changed[run, slot] - 100
                assert (row[found], client[found]) == (fill[run, slot] - 100, audit.owner[subject[slot]])


def test_a_canary_on_a_real_row_is_seen_as_its_references_are() -> None:
    """References are never shifted, so a shifted canary would be told from them by the shift alone."""
    audit = make_audit(["random_pattern", "typical", "typical"], [2, 2, -1], np.ones((1, 3), dtype=bool))
    real = replace(audit, examples=replace(audit.examples, ids=np.arange(3)))
    viewer, extra = viewers(real, np.array([-1, 0, 1]), 2)
    assert viewer.tolist() == [-1, 2, -1]
    assert extra.tolist() == [2, -1], "what stands for an example is seen by who sees the example"
    made, _ = viewers(audit, np.array([-1, -1, -1]), 0)
    assert made.tolist() == [-1, -1, -1], "what was made without a real row keeps its pixels"
