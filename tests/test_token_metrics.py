"""Tokens found: as multisets, in place, without padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.token_metrics import overlap, score_tokens

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
