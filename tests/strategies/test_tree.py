"""Tests of `strategies/_tree.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest

from fedmem.engines._flower import in_process
from fedmem.strategies._tree import moved_by_one
from fedmem.strategies.dp_ftrl import DpFtrl
from tests.cohorts import by_rule, cohort, flat, models


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def by_force(rounds: int, pause: int, turns: int, restart: int | None) -> int:
    """The largest sum of squares over all ways to take part, node by node."""
    length = restart or rounds
    nodes = [
        range(start, start + size)
        for tree in range(0, rounds, length)
        for size in (2**level for level in range(rounds.bit_length()))
        for start in range(tree, min(tree + length, rounds) - size + 1, size)
    ]
    best = 0
    for count in range(turns + 1):
        for when in combinations(range(rounds), count):
            if all(b - a >= pause for a, b in pairwise(when)):
                best = max(best, sum(sum(t in node for t in when) ** 2 for node in nodes))
    return best


@pytest.mark.parametrize("restart", [None, 4, 5])
@pytest.mark.parametrize("pause", [1, 2, 3, 5])
def test_sensitivity_of_one_client_is_bounded_and_tight(pause: int, restart: int | None) -> None:
    for rounds in (1, 6, 8, 11):
        for turns in (1, 2, 4):
            bound = moved_by_one(rounds, pause, turns, restart)
            true = by_force(rounds, pause, turns, restart)
            assert true <= bound <= 1.5 * true
            if turns == 1:
                assert bound == true
    assert moved_by_one(8, 1, restart=restart) == by_force(8, 1, 8, restart)


def test_height_bound_fails_where_participations_share_nodes() -> None:
    """So the test above can fail: turns times the height is too little as soon as two are in one node."""
    assert by_force(8, 2, 4, None) > 4 * 4
    assert moved_by_one(8, 8, 4) == by_force(8, 8, 4, None) == 4


def test_tree_releases_move_within_the_stated_sensitivity() -> None:
    """Of all the noisy sums of nodes that are released, recovered from the models by hand."""
    rng = np.random.default_rng(3)
    before = models(rng, 1)
    strategy = DpFtrl(clip=0.5, expected_cohort_size=1.0, noise_multiplier=0.0)
    there = [cohort(rng, 3) for _ in range(8)]
    far = {name: value + 5.0 for name, value in before[0].items()}
    turns = (0, 3, 6)
    loud = [one.sending([*one.sent[:2], far]) if t in turns else one.at([0, 1]) for t, one in enumerate(there)]
    quiet = [one.at([0, 1]) for one in there]
    gaps = []
    for with_it, without in zip(loud, quiet, strict=True):
        one, other = (by_rule(strategy, [[part]], before)[0] for part in (with_it, without))
        gaps.append(flat(one) - flat(other))
    sums = np.cumsum([np.zeros_like(gaps[0]), *gaps], axis=0)
    nodes = [(s, s + size) for size in (1, 2, 4, 8) for s in range(0, 8, size)]
    moved = sum(float(np.sum((sums[b] - sums[a]) ** 2)) for a, b in nodes) / 0.5**2
    assert moved <= moved_by_one(8, 3, 3) * (1 + 1e-4)
    assert moved > 0.5 * moved_by_one(8, 3, 3)
