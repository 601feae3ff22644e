"""Tests of `fedmem/modalities/text/occurrences.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmem.modalities.text.occurrences import find_cut, find_occurrences
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.windows import PADDING

CODES = Candidates(prefix=(7, 8), positions=(((0,), (1,)), ((2, 2), (2,)), ((0,), (1,))))


@given(st.lists(st.sampled_from([0, 1, 2, 7, 8]), min_size=12, max_size=12))
def test_every_occurrence_is_a_member_and_none_is_missed(tokens: list[int]) -> None:
    found = find_occurrences(CODES, np.array([tokens]))
    spans = list(zip(found.start.tolist(), found.stop.tolist(), found.number.tolist(), strict=True))
    for start, stop, number in spans:
        assert CODES.index(tokens[start:stop]) == number
        assert tokens[stop : stop + 1] not in ([0], [1])
    begins = {
        start
        for start in range(12)
        if any(CODES.has(tokens[start:stop]) and tokens[stop : stop + 1] not in ([0], [1]) for stop in range(13))
    }
    assert begins == {start for start, _, _ in spans}


def test_an_occurrence_that_a_window_cuts_is_counted_alone() -> None:
    text = [5, 5, 5, 7, 8, 1, 2, 0, 5, 5]
    for end in range(1, 9):
        windows = np.array([text[:end] + [5] * (8 - end)])
        assert len(find_occurrences(CODES, windows).row) == (end >= 8)
    first, then = np.array([text[:5]]), np.array([text[5:]])
    assert len(find_cut(CODES, first, then).row) == 1
    assert len(find_cut(CODES, then, first).row) == 0


@given(st.lists(st.sampled_from([0, 1, 2, 7, 8]), min_size=16, max_size=16))
def test_windows_find_what_the_uncut_text_has(tokens: list[int]) -> None:
    windows = np.array(tokens).reshape(2, 8)
    after = np.stack([windows[1], np.full(8, PADDING)])
    found, cut = find_occurrences(CODES, windows, following=after), find_cut(CODES, windows[:1], windows[1:])
    starts = {*(8 * found.row + found.start).tolist(), *cut.start.tolist()}
    assert starts == set(find_occurrences(CODES, np.array([tokens])).start.tolist())
