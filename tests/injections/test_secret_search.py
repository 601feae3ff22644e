"""Tests of `fedmem/injections/_secret_search.py`."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.data import Examples
from fedmem.injections._secret_search import SecretSearch, other_windows
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import inputs_and_targets

PINS = Candidates(prefix=(7, 8), positions=tuple(((0,), (1,)) for _ in range(3)))
"""7 8, then three bits."""

VOCABULARY = Vocabulary.of(tuple("01234567890"[:10]))


def examples(windows: dict[int, list[int]]) -> Examples:
    """Windows by id."""
    inputs, targets = inputs_and_targets(np.array(list(windows.values()), dtype=np.int64))
    return Examples(inputs=inputs, targets=targets, ids=np.array(list(windows)))


WINDOWS = {
    0: [5, 7, 8, 1, 0, 1],  # row 0: the whole secret 101
    1: [5, 5, 5, 7, 8, 1],  # row 1: its text and first bit, the rest in row 2
    2: [0, 1, 5, 5, 5, 5],
    3: [5, 5, 5, 5, 7, 8],  # row 3: only its text; all of the value in row 4
    4: [1, 0, 1, 5, 5, 5],
    6: [5, 5, 7, 8, 1, 0],  # row 5: the rest is in the test set
    8: [1, 5, 5, 5, 5, 5],  # row 6: the beginning is in the population
    9: [5, 5, 7, 8, 1, 1],  # row 7: a piece of another secret, in row 8 as well
    10: [0, 5, 5, 5, 5, 5],
    11: [5, 5, 5, 7, 8, 1],  # row 9: the rest of the text is left out
}
SET_ASIDE = {
    "in the test set": examples({7: [1, 5, 5, 7, 8, 1], 12 + 8: [7, 8, 1, 0, 1, 5]}),
    "in the population": examples({5: [7, 8, 1, 0, 1, 5]}),
    "left out": examples({5: [7, 8, 1, 0, 1, 5]}),
}


def test_pieces_of_cut_copies_are_found_wherever_the_rest_is() -> None:
    search = SecretSearch.of(PINS, examples(WINDOWS), VOCABULARY, SET_ASIDE)
    assert search.windows == {5: [0]}
    assert search.pieces[5] == [1, 2, 4, 5, 9]
    assert search.rows_by_secret() == {5: [0, 1, 2, 4, 5, 9]}
    assert search.cut[5] == 4


def test_windows_that_no_client_holds_are_counted_once() -> None:
    search = SecretSearch.of(PINS, examples(WINDOWS), VOCABULARY, SET_ASIDE)
    assert search.elsewhere == {"in the test set": 1, "in the population": 1}


def test_value_without_its_text_is_found_in_other_windows() -> None:
    tokens = np.array([[5, 1, 0, 1, 5], [5, 1, 0, 1, 1], [0, 1, 0, 1, 5], [8, 1, 0, 1, 5], [5, 5, 1, 0, 1]])
    assert other_windows(PINS, 5, tokens, taken=[3]) == [0, 4]


def test_no_text_goes_on_with_the_text_of_the_next_author() -> None:
    rows = examples(
        {
            0: [7, 8, 1, 0, 1, 5],  # row 0: the whole secret 101
            1: [5, 5, 7, 8, 1, 0],  # row 1: the rest is dropped with the end of the text
            2: [1, 5, 5, 7, 8, 1],  # row 2: another text of one window; the rest is dropped
            3: [0, 1, 5, 5, 5, 5],  # row 3: a third text, which is no end of any copy
        }
    )
    search = SecretSearch.of(PINS, rows, VOCABULARY, {}, np.array([0, 2, 3]))
    assert search.windows == {5: [0]}
    assert search.pieces == {5: [1, 2]}
    assert search.cut == {5: 2}
    assert SecretSearch.of(PINS, rows.take(np.arange(2)), VOCABULARY, {}).pieces == {5: [1]}


def test_a_longer_number_at_a_window_end_is_no_secret() -> None:
    rows = examples({0: [5, 7, 8, 1, 0, 1], 1: [1, 5, 5, 5, 5, 5], 2: [5, 7, 8, 0, 0, 1], 3: [1, 5, 5, 5, 5, 5]})
    search = SecretSearch.of(PINS, rows, VOCABULARY, {}, np.array([0, 3]))
    assert (search.windows, search.longer) == ({1: [2]}, 1)
    cut = examples({1: [1, 5, 5, 5, 5, 5]})
    assert SecretSearch.of(PINS, rows.take(np.array([0])), VOCABULARY, {"cut": cut}).windows == {}
