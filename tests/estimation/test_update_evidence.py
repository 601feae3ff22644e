"""Tests of `fedmem/estimation/update_evidence.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Models, SetEvidence
from fedmem.contracts.evidence import SignalEvidence
from fedmem.estimation.update_evidence import (
    Updates,
    companions,
    count_clients,
    first_of_coin_rows,
    halves_of,
    sizes_up_to,
    standardise,
    stored_rounds,
    sum_clients,
)


def evidence(values: dict[str, FloatArray], rounds: tuple[int, ...] = (1, 2), aggregate: bool = False) -> SetEvidence:
    """Signals (S, R, N) of some rounds by the rest of their name, read on two rows of the test set."""
    blocks = []
    for name, table in values.items():
        _, runs, clients = table.shape
        client = np.full(runs, -1) if aggregate else np.tile(np.arange(clients), runs)
        blocks += [
            SignalEvidence(
                round=number, level="global" if aggregate else "local", name=f"update_feature.{name}", set="test",
                run=np.repeat(np.arange(runs), clients).astype(np.int32), client=client.astype(np.int32),
                values=np.repeat(table[place].reshape(-1, 1), 2, axis=1),
            )
            for place, number in enumerate(rounds)
        ]  # fmt: skip
    models = Models(runs=2, round=np.array([1]), client=np.array([0]), of=np.zeros((1, 0), dtype=np.int64))
    return SetEvidence(models=models, blocks=(), targets=np.zeros(2, dtype=np.int64), signals=tuple(blocks))


def table(seed: int, size: tuple[int, int, int] = (2, 3, 4)) -> FloatArray:
    return np.random.default_rng(seed).normal(size=size)


def stored() -> dict[str, FloatArray]:
    # out of order on purpose
    names = ("projection.10", "projection.2", "first.0", "label.1", "label.0")
    facts = {"weight": np.abs(table(20)), "rows": np.abs(table(21))}
    return {name: table(place) for place, name in enumerate(names)} | facts


def updates() -> Updates:
    found = Updates.of(evidence(stored()), 3, [2, 1], 4)
    assert found is not None
    return found


def test_features_are_read_in_the_order_of_their_numbers() -> None:
    found, values = updates(), stored()
    np.testing.assert_array_equal(found.blocks[0][..., 0], values["projection.2"])
    np.testing.assert_array_equal(found.blocks[0][..., 1], values["projection.10"])
    np.testing.assert_array_equal(found.blocks[1][..., 0], values["first.0"])
    np.testing.assert_array_equal(found.facts, np.stack([values["label.0"], values["label.1"], values["rows"]], axis=3))
    assert found.is_there.all()


def test_rounds_and_levels_without_features_have_none() -> None:
    test = evidence(stored())
    assert Updates.of(test, 3, [7], 4) is None
    assert (stored_rounds(test, None), stored_rounds(test, 2), stored_rounds(test, 3)) == ([1, 2], [2], [])
    assert count_clients(test) == 4
    whole = evidence({name: values[:, :, :1] for name, values in stored().items()}, aggregate=True)
    found = Updates.of(whole, 3, [1, 2], 0)
    assert found is not None
    assert (count_clients(whole), found.weight.shape) == (0, (2, 3, 1))


def test_a_sum_weights_and_then_normalises() -> None:
    found = updates()
    members = np.zeros((2, 3, 4), dtype=bool)
    members[:, :, [1, 3]] = True
    features, facts = sum_clients(found, members)
    expected = []
    for place in range(2):
        parts = []
        for block in found.blocks:
            total = sum(found.weight[place, :, k, None] * block[place, :, k] for k in (1, 3))
            parts.append(total / np.linalg.norm(total, axis=1, keepdims=True))
        expected.append(np.concatenate(parts, axis=1))
    np.testing.assert_allclose(features, np.mean(expected, axis=0))
    np.testing.assert_allclose(facts, found.facts[:, :, [1, 3]].sum(axis=2).mean(axis=0))


def test_the_length_of_an_update_does_not_count() -> None:
    found = updates()
    alone = np.zeros((2, 3, 4), dtype=bool)
    alone[:, :, 2] = True
    longer = Updates(blocks=tuple(7 * block for block in found.blocks), facts=found.facts, weight=3 * found.weight)
    np.testing.assert_allclose(sum_clients(found, alone)[0], sum_clients(longer, alone)[0])


def test_only_rounds_with_the_sum_count() -> None:
    found = updates()
    members = np.zeros((2, 3, 4), dtype=bool)
    members[1, 0, 2] = True
    features, facts = sum_clients(found, members)
    np.testing.assert_allclose(facts[0], found.facts[1, 0, 2])
    assert np.isnan(features[1:]).all()
    assert np.isnan(facts[1:]).all()


def test_diverged_and_zero_updates_are_not_there() -> None:
    values = stored()
    values["projection.2"][0, 1, 2] = np.nan
    for name in ("projection.2", "projection.10", "first.0"):
        values[name][1, 2, 3] = 0.0
    found = Updates.of(evidence(values), 3, [1, 2], 4)
    assert found is not None
    assert np.argwhere(~found.is_there).tolist() == [[0, 1, 2], [1, 2, 3]]
    taken = found.take(np.array([1, 2]), np.array([3, 2]))
    assert np.argwhere(~taken.is_there).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_companions_are_present_and_nested() -> None:
    is_there = np.ones((2, 5, 6), dtype=bool)
    is_there[0, 1, 4] = is_there[1, 2, 0] = False
    is_there[0, 3, 2:] = False
    sums = [companions(is_there, 0, size, np.random.default_rng(3)) for size in (1, 2, 5)]
    for size, members in zip((1, 2, 5), sums, strict=True):
        assert not (members & ~is_there).any()
        assert not members[1, 2].any()  # the target is away
        complete = members.any(axis=2)
        assert (members[complete].sum(axis=1) == size).all()
        assert members[complete][:, 0].all()
    assert not (sums[0] & ~sums[1])[sums[1].any(axis=2)].any()
    assert not sums[2][0, 3].any()  # too few clients
    assert sums[1][0, 3].sum() == 2


def test_sizes_are_those_that_some_round_has() -> None:
    is_there = np.ones((1, 2, 6), dtype=bool)
    assert sizes_up_to((10, 5, 2), is_there) == [1, 2, 5]
    assert sizes_up_to((2,), np.zeros((1, 2, 6), dtype=bool)) == [1]


def test_constant_columns_become_zero() -> None:
    columns = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])
    found = standardise(columns)
    np.testing.assert_allclose(found[:2], [[-1, 0], [1, 0]])
    assert np.isnan(standardise(np.full((2, 2), np.nan))).all()


def test_twins_count_once_and_halves_are_halves() -> None:
    assert first_of_coin_rows(np.array([0, 1, 1, 0])).tolist() == [0, 1]
    halves = halves_of(8, 3, np.random.default_rng(0))
    assert halves.sum(axis=1).tolist() == [4, 4, 4]
    assert halves.shape == (3, 8)
    assert pytest.approx(0.5) == halves.mean()
