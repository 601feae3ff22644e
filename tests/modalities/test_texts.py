"""Tokens found: as multisets, in place, without padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.modalities.texts import in_order, in_proportion, likeness, overlap, score_tokens, usual

TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(TOKENS, TOKENS)
def test_shared_tokens_are_those_of_a_plain_count(found: list[int], truth: list[int]) -> None:
    left, shared = list(found), 0
    for token in truth:
        if token in left:
            left.remove(token)
            shared += 1
    assert overlap(np.array(found), np.array(truth)) == shared == overlap(np.array(truth), np.array(found))


@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.permutations(range(4)))
def test_order_is_no_matter_for_recall_and_exact_match_but_for_the_ordered_one(
    tokens: list[int], order: list[int]
) -> None:
    truth, found = np.array([tokens]), np.array([[tokens[i] for i in order]])
    scores = score_tokens(found, truth)
    assert (scores.recall[0], scores.exact[0]) == (1.0, 1.0)
    assert scores.ordered[0] == float(found.tolist() == truth.tolist())


@given(st.lists(TOKENS.map(lambda row: (row * 8)[:5]), min_size=1, max_size=5), st.data())
def test_a_batch_is_paired_whatever_its_order(rows: list[list[int]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    truth = np.array(rows)
    scores = score_tokens(truth[order], truth)
    assert scores.recall.tolist() == scores.exact.tolist() == scores.ordered.tolist() == [1.0] * len(rows)
    assert [Counter(truth[order][place]) for place in scores.place] == [Counter(row) for row in rows]


def test_repeats_count_as_often_as_they_are_there() -> None:
    scores = score_tokens(np.array([[7, 7, 7, 7]]), np.array([[7, 7, 1, 2]]))
    assert scores.recall.tolist() == [0.5]
    assert scores.exact.tolist() == [0.0]


def test_padding_is_no_token_found_or_missed() -> None:
    truth = np.array([[5, 6, 0, 0], [0, 0, 0, 0]])
    found = np.array([[6, 5, 0, 0], [5, 0, 0, 0]])
    scores = score_tokens(found, truth, padding=0)
    assert scores.place.tolist() == [0, 1]
    assert scores.recall[0] == scores.exact[0] == 1.0
    assert np.isnan(scores.recall[1]), "nothing to be found"
    assert scores.exact[1] == 0.0, "one too many"
    assert score_tokens(np.array([[5, 6, 6, 0]]), truth[:1], padding=0).exact.tolist() == [0.0], "one too many"


def test_fewer_rebuilt_than_true_ones_stand_for_several() -> None:
    scores = score_tokens(np.array([[1, 2]]), np.array([[1, 2], [2, 3]]))
    assert scores.recall.tolist() == [1.0, 0.5]
    assert scores.recall.mean() == pytest.approx(0.75)


ROW = st.lists(st.integers(0, 3), max_size=6).map(lambda tokens: np.array((tokens + [-1] * 6)[:6]))


@given(st.lists(ROW, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=4))
def test_likeness_is_that_of_plain_counts_and_one_for_equal_texts_alone(
    found: list[np.ndarray], truth: list[np.ndarray]
) -> None:
    alike = likeness(np.array(found), np.array(truth))
    for i, one in enumerate(found):
        for j, true in enumerate(truth):
            longer = max((one >= 0).sum(), (true >= 0).sum(), 1)
            assert alike.tokens[i, j] == overlap(one, true, padding=-1) / longer
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
def test_guesses_of_a_population_are_its_commonest_tokens_and_its_shares(rows: list[np.ndarray]) -> None:
    population = np.array(rows)
    (ordinary,), (shares,) = usual(population), in_proportion(population)
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


def test_equal_likeness_is_equal_however_it_is_made_up() -> None:
    truth = np.arange(14)[None]
    few, many = truth.copy(), truth.copy()
    few[0, 6:] = 20  # six in place
    many[0] = 20
    many[0, :4], many[0, 4:8] = truth[0, :4], truth[0, [5, 4, 7, 6]]  # eight shared, four of them in place
    alike = likeness(np.concatenate([few, many]), truth)
    assert alike.tokens[0, 0] < alike.tokens[1, 0]
    assert alike.in_place[0, 0] > alike.in_place[1, 0]
    assert alike.both[0, 0] == alike.both[1, 0] == 12 / 28


def test_of_equal_remainders_the_lowest_tokens_get_the_places() -> None:
    assert in_proportion(np.array([[0, 0, 0], [0, 1, 1], [1, 1, 2]])).tolist() == [[0, 0, 1]]
    assert in_proportion(np.array([[3, 5, 5]]), 6).tolist() == [[3, 3, 5, 5, 5, 5]]
