"""Windows share no token: whatever is split by windows never meets a place of another part."""

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmem.contracts.arrays import IntArray
from fedmem.modalities.text.windows import (
    PADDING,
    cut_windows,
    inputs_and_targets,
    join_windows,
    prefix_and_start,
    texts,
)

sizes = st.lists(st.integers(0, 40), max_size=5)
lengths = st.integers(2, 12)


def documents(sizes: Sequence[int]) -> list[IntArray]:
    ends = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in itertools.pairwise(ends)]


@given(sizes, lengths)
def test_no_place_is_in_two_windows_and_each_is_in_its_own(sizes: list[int], length: int) -> None:
    texts = documents(sizes)
    found = cut_windows(texts, length)
    real = found.tokens[found.tokens != PADDING]
    assert len(np.unique(real)) == len(real)
    for tokens, document, start in zip(found.tokens, found.document, found.start, strict=True):
        there = tokens[tokens != PADDING]
        np.testing.assert_array_equal(there, texts[document][start : start + len(there)])
        assert (tokens[len(there) :] == PADDING).all()


@given(sizes, lengths)
def test_remainder_of_a_cut_is_less_than_half_a_window(sizes: list[int], length: int) -> None:
    found = cut_windows(documents(sizes), length)
    for number, size in enumerate(sizes):
        kept = int((found.tokens[found.document == number] != PADDING).sum())
        assert size - kept < (length + 1) / 2 if size > length else kept == (size if size >= 2 else 0)


@given(sizes, lengths)
def test_every_window_asks_for_something_and_comes_back(sizes: list[int], length: int) -> None:
    tokens = cut_windows(documents(sizes), length).tokens
    inputs, targets = inputs_and_targets(tokens)
    assert inputs.shape == targets.shape == (len(tokens), length)
    assert (inputs >= 0).all()
    assert ((targets != PADDING).sum(axis=1) >= 1).all()
    np.testing.assert_array_equal(join_windows(inputs, targets), tokens)


def test_windows_share_no_token_unlike_those_of_stride_length() -> None:
    """The usual way, L inputs and a stride of L, asks of one window for the first token of the next."""
    text = np.arange(9)
    usual = [set(text[start : start + 5].tolist()) for start in (0, 4)]
    assert usual[0] & usual[1] == {4}
    first, second = cut_windows([text], 4).tokens[:2]
    assert not set(first.tolist()) & set(second.tolist())


@given(st.lists(st.lists(st.integers(-1, 5), min_size=4, max_size=4), min_size=1, max_size=5))
def test_texts_end_with_the_last_asked_token_of_each_row(targets: list[list[int]]) -> None:
    wanted = np.array(targets)
    inputs = np.random.default_rng(0).integers(6, size=wanted.shape)
    for row, found in enumerate(texts(inputs, wanted).tolist()):
        tokens, _ = prefix_and_start(inputs[row], wanted[row])
        assert found == [*tokens, *[PADDING] * (5 - len(tokens))]
