"""Tests of `fedmem/estimators/source_inference.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Labels
from fedmem.estimators.source_inference import SourceInference
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins, summaries

Local = Mapping[int, Mapping[int, FloatArray]]


def bank(is_in: BoolArray, local: Local, owner: list[int], counts: list[list[int]] | None = None) -> Bank:
    whole = np.zeros((len(local), *is_in.shape))
    made = bank_of_margins(whole, is_in, local=local, owner=owner)
    return made if counts is None else replace(made, label_counts=np.array(counts))


def by_key(view: View) -> dict[tuple[str, str], Estimate]:
    found = SourceInference().estimate(view)
    return {(e.metric, " ".join(str(value) for _, value in e.labels.items)): e for e in found}


def noise(
    is_in: BoolArray, clients: int, rng: np.random.Generator, rounds: int = 1
) -> dict[int, dict[int, FloatArray]]:
    return {r: {k: rng.normal(size=is_in.shape) for k in range(clients)} for r in range(1, rounds + 1)}


def test_clients_that_look_rows_up_are_named() -> None:
    """A client that holds a row has a large margin, and all others guess: named where in, by chance where out."""
    is_in, owner = coins(6, 4, np.random.default_rng(0)), [0, 1, 2, 3]
    local = {1: {k: np.where(is_in & (np.array(owner) == k), 5.0, -1.0) for k in range(4)}}
    found = by_key(summaries(bank(is_in, local, owner))["owner"])
    top = found["source_inference", "loss 1"]
    assert (top.value, top.null) == (1.0, 0.25)
    assert (found["source_inference", "loss 3"].value, found["source_inference", "loss 3"].null) == (1.0, 0.75)
    assert (found["source_rank", ""].value, found["source_rank", ""].null) == (1.0, 0.5)
    assert (found["source_inference", "rounds 1"].value, found["source_inference", "rounds 1"].null) == (1.0, 0.25)


@pytest.mark.parametrize("clients", [2, 3, 7])
def test_equal_models_give_one_in_k(clients: int) -> None:
    rng = np.random.default_rng(1)
    is_in, same = coins(4, 3, rng), rng.normal(size=(4, 3))
    found = by_key(summaries(bank(is_in, {1: dict.fromkeys(range(clients), same)}, [0, 1, 1]))["owner"])
    for name in ("loss 1", "rounds 1"):
        assert found["source_inference", name].value == pytest.approx(1 / clients)
        assert found["source_inference", name].null == pytest.approx(1 / clients)
        assert found["source_inference", name].p == 1
    assert found["source_inference", "loss 3"].value == pytest.approx(min(1.0, 3 / clients))
    assert found["source_rank", ""].value == 0.5


def naive(view: View, local: Mapping[int, FloatArray], top: int) -> tuple[float, float]:
    """The mean share over in runs and over out runs, with loops."""
    audit = view.audit
    sides: dict[bool, list[float]] = {True: [], False: []}
    for j in range(len(audit)):
        for side in (True, False):
            named = []
            for r in range(audit.runs):
                if audit.is_in[r, j] == side:
                    loss = {k: float(np.logaddexp(0, -margin[r, j])) for k, margin in local.items()}
                    order = sorted(loss, key=lambda k: loss[k])
                    named.append(float(int(audit.owner[j]) in order[:top]))
            sides[side].append(float(np.mean(named)))
    return float(np.mean(sides[True])), float(np.mean(sides[False]))


@pytest.mark.parametrize("top", [1, 3])
def test_the_share_equals_a_naive_loop(top: int) -> None:
    rng = np.random.default_rng(2)
    is_in, owner = coins(6, 5, rng), [0, 1, 2, 3, 4]
    local = noise(is_in, 5, rng)
    for j, k in enumerate(owner):
        local[1][k][:, j] += 1.5 * is_in[:, j]
    view = summaries(bank(is_in, local, owner))["owner"]
    found = by_key(view)["source_inference", f"loss {top}"]
    assert (found.value, found.null) == pytest.approx(naive(view, local[1], top))


def test_sizes_and_labels_are_baselines_and_prior() -> None:
    """Every label is 0. Client 0 is the largest, client 1 has the largest share of the label."""
    is_in = np.array([[True] * 3, [False] * 3])
    margins = {0: np.full((2, 3), 0.0), 1: np.full((2, 3), 0.1), 2: np.full((2, 3), 0.3)}
    counts = [[40, 60], [9, 1], [1, 9]]
    view = summaries(bank(is_in, {1: margins}, [0, 1, 2], counts))["owner"]
    found = by_key(view)
    assert found["source_inference", "loss 1"].value == pytest.approx(1 / 3)  # the third, for every example
    assert found["source_inference", "size 1"].value == pytest.approx(1 / 3)
    rows = {(r.labels.text("rule"), r.labels.integer("top")): r.value for _, r in SourceInference().tests(view)}
    assert {name for name, _ in rows} == {"chance", "labels", "size"}
    assert all(value == pytest.approx(1 / 3) for (_, top), value in rows.items() if top == 1)
    assert all(value == 1 for (_, top), value in rows.items() if top == 3)
    own = summaries(bank(is_in, {1: margins}, [1, 1, 1], counts))["owner"]
    first = {r.labels.text("rule"): r.value for _, r in SourceInference().tests(own) if r.labels.integer("top") == 1}
    assert first["chance"] == pytest.approx(1 / 3)
    assert (first["labels"], first["size"]) == (1.0, 0.0)
    assert by_key(own)["source_over_labels", "1"].value == -1.0
    large = summaries(bank(is_in, {1: margins}, [0, 0, 0], counts))["owner"]
    assert by_key(large)["source_inference", "loss 1"].value == 0.0
    assert by_key(large)["source_inference", "size 1"].value == 1.0  # log 10 is more than all differences of loss


def skewed(rng: np.random.Generator, gain: float) -> View:
    """Owners know their label better, in and out alike, and remember a row by `gain`."""
    is_in, owner = coins(8, 8, rng), [0, 0, 1, 1, 2, 2, 3, 3]
    local = noise(is_in, 4, rng, rounds=2)
    for margins in local.values():
        for j, k in enumerate(owner):
            margins[k][:, j] += 2.0 + gain * is_in[:, j]
    return summaries(bank(is_in, local, owner, [[9, 1], [1, 9]] * 2), deals=99)["owner"]


def test_label_skew_alone_is_seen_as_no_memorisation() -> None:
    rng = np.random.default_rng(3)
    found = [by_key(skewed(rng, 0.0)) for _ in range(60)]
    for name in ("loss 1", "rounds 1"):
        estimates = [one["source_inference", name] for one in found]
        gaps = [e.value - e.null for e in estimates]
        assert np.mean([e.null for e in estimates]) > 0.6  # far above 1/4
        assert abs(np.mean(gaps)) < 3 * np.std(gaps) / math.sqrt(60)
        assert np.mean([e.p < 0.05 for e in estimates]) < 0.15
    assert all(one["source_over_labels", "1"].value > 0 for one in found)  # models know more than the counts of labels
    memory = [by_key(skewed(rng, 3.0))["source_inference", "loss 1"] for _ in range(5)]
    assert np.mean([e.value - e.null for e in memory]) > 0.15
    assert all(e.value > e.null for e in memory)


def test_ranks_over_rounds_average_out_noise() -> None:
    rng = np.random.default_rng(4)
    is_in, owner = coins(8, 40, rng), [j % 5 for j in range(40)]
    local = noise(is_in, 5, rng, rounds=8)
    for margins in local.values():
        for j, k in enumerate(owner):
            margins[k][:, j] += 1.0 * is_in[:, j]
    found = by_key(summaries(bank(is_in, local, owner))["owner"])
    assert found["source_inference", "rounds 1"].value > found["source_inference", "loss 1"].value + 0.2


def test_clients_away_and_diverged_models_are_no_candidates() -> None:
    is_in = np.array([[True, True], [False, False]])
    near, far = np.full((2, 2), 1.0), np.full((2, 2), 2.0)
    local = {1: {0: near, 1: far, 2: near}, 2: {0: near, 2: np.full((2, 2), np.nan)}}
    view = summaries(bank(is_in, local, [0, 1]))["owner"]
    found = by_key(view)
    # example 0 is shown at round 2, where the only other client has diverged; example 1 at round 1
    assert found["source_inference", "loss 1"].n == 1
    assert found["source_inference", "loss 1"].examples is not None
    assert found["source_inference", "loss 1"].examples.tolist() == [1]
    assert found["source_inference", "loss 1"].value == 1.0
    assert found["source_inference", "loss 1"].p == 1.0


def test_holders_of_a_copy_are_no_candidates() -> None:
    is_in = np.array([[True], [False]])
    made = bank(is_in, {1: {k: np.full((2, 1), float(k)) for k in range(3)}}, [1])
    audit = replace(made.audit, copies=np.array([2], np.int32), copy_owner=np.array([1, 2], np.int32))
    found = by_key(summaries(replace(made, audit=audit))["owner"])
    assert found["source_inference", "loss 1"].value == 1.0  # client 2 has the smallest loss, and holds it


def test_only_at_the_owner() -> None:
    is_in = coins(4, 2, np.random.default_rng(5))
    views = summaries(bank(is_in, noise(is_in, 3, np.random.default_rng(6)), [0, 1]))
    assert [bool(SourceInference().estimate(view)) for view in views.values()] == [
        view.place == "owner" for view in views.values()
    ]


def test_the_exchange_of_attackers_is_by_owner() -> None:
    """All rows of one owner are one observation: with two owners p is at least 2/4."""
    is_in, owner = coins(6, 8, np.random.default_rng(7)), [0] * 4 + [1] * 4
    local = {1: {k: np.where(np.array(owner) == k, 5.0, -1.0) * np.ones((6, 1)) for k in range(4)}}
    view = summaries(bank(is_in, local, owner, [[1, 9], [1, 9], [5, 5], [9, 1]]))["owner"]
    found = by_key(view)["source_over_labels", "1"]
    assert (found.value, found.p, found.redeals) == (1.0, 0.5, 3)
    assert found.labels == Labels.of(top=1)


def test_ranks_are_of_rounds_up_to_that_of_the_example() -> None:
    is_in = np.array([[True], [False]])
    margins = {client: np.full((2, 1), value) for client, value in enumerate((3.0, 2.0, 1.0))}
    local = {1: margins, 2: {0: margins[2], 2: margins[0]}}  # the owner, client 1, is away in round 2
    found = by_key(summaries(bank(is_in, local, [1]))["owner"])
    assert found["source_inference", "rounds 1"].value == 0.0  # client 0 is ahead until then, and level afterwards
