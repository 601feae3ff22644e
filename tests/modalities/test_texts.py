"""Likeness of texts: tokens as multisets, in place and in order, without padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmem.modalities.texts import in_order, in_proportion, modal_tokens, similarity

ROW = st.lists(st.integers(0, 3), max_size=6).map(lambda tokens: np.array((tokens + [-1] * 6)[:6]))


def shared(found: list[int], truth: list[int]) -> int:
    """Tokens that both have, each as often as both have it."""
    return (Counter(t for t in found if t >= 0) & Counter(t for t in truth if t >= 0)).total()


@given(st.lists(ROW, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=4))
def test_similarity_equals_plain_counts_and_is_1_for_equal_texts(
    found: list[np.ndarray], truth: list[np.ndarray]
) -> None:
    alike = similarity(np.array(found), np.array(truth))
    for i, one in enumerate(found):
        for j, true in enumerate(truth):
            longer = max((one >= 0).sum(), (true >= 0).sum(), 1)
            assert alike.tokens[i, j] == shared(one.tolist(), true.tolist()) / longer
            same = sum(a == b >= 0 for a, b in zip(one.tolist(), true.tolist(), strict=True))
            assert alike.in_place[i, j] == same / longer
            assert (alike.both[i, j] == 1) == (one.tolist() == true.tolist() and true[0] >= 0)
            assert 0 <= alike.in_place[i, j] <= in_order(one, true) <= alike.tokens[i, j] <= 1


@given(ROW, ROW)
def test_tokens_in_order_are_the_longest_common_subsequence(found: np.ndarray, truth: np.ndarray) -> None:
    first, second = ([t for t in row.tolist() if t >= 0] for row in (found, truth))

    def longest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    assert in_order(found, truth) == longest(0, 0) / max(len(first), len(second), 1)


@given(st.lists(ROW, min_size=1, max_size=5))
def test_guesses_of_a_population_are_modal_tokens_and_its_shares(rows: list[np.ndarray]) -> None:
    population = np.array(rows)
    (ordinary,), (shares,) = modal_tokens(population), in_proportion(population)
    for place, token in enumerate(ordinary.tolist()):
        column = population[:, place].tolist()
        assert column.count(token) == max(map(column.count, column))
    tokens = population[population >= 0]
    if len(tokens):
        assert (shares >= 0).all()
        for token in range(4):
            assert abs((shares == token).sum() - 6 * (tokens == token).mean()) < 1
    else:
        assert (shares == -1).all()


def test_similarity_weighs_order_and_counts_equally() -> None:
    truth = np.arange(14)[None]
    few, many = truth.copy(), truth.copy()
    few[0, 6:] = 20  # six in place
    many[0] = 20
    many[0, :4], many[0, 4:8] = truth[0, :4], truth[0, [5, 4, 7, 6]]  # eight shared, four of them in place
    alike = similarity(np.concatenate([few, many]), truth)
    assert alike.tokens[0, 0] < alike.tokens[1, 0]
    assert alike.in_place[0, 0] > alike.in_place[1, 0]
    assert alike.both[0, 0] == alike.both[1, 0] == 12 / 28


def test_equal_remainders_go_to_the_lowest_tokens() -> None:
    assert in_proportion(np.array([[0, 0, 0], [0, 1, 1], [1, 1, 2]])).tolist() == [[0, 0, 1]]
    assert in_proportion(np.array([[3, 5, 5]]), 6).tolist() == [[3, 3, 5, 5, 5, 5]]
