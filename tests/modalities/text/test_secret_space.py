"""The members of a template are numbered, drawn, and found again by their tokens."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.modalities.text.secret_space import Candidates

options = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4, unique=True)
spaces = st.builds(
    Candidates,
    prefix=st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple),
    positions=st.lists(options.map(tuple), max_size=3).map(tuple),
)


@given(spaces)
def test_members_are_all_choices_in_order(space: Candidates) -> None:
    every = [space.prefix + tuple(token for part in chosen for token in part) for chosen in product(*space.positions)]
    assert [space.member_tokens(i) for i in range(space.size)] == every
    assert len(every) == space.size
    assert max(map(len, every)) == space.max_length


@given(spaces)
def test_index_of_a_member_is_the_first_with_its_tokens(space: Candidates) -> None:
    every = [space.member_tokens(i) for i in range(space.size)]
    for i, tokens in enumerate(every):
        assert space.index(tokens) == every.index(tokens)
        assert space.number(space.options_of(i)) == i


@given(spaces, st.lists(st.integers(0, 3), max_size=8))
def test_other_tokens_are_no_member(space: Candidates, tokens: list[int]) -> None:
    every = {space.member_tokens(i) for i in range(space.size)}
    there = tuple(tokens) in every or (*tokens, *space.ending) in every
    assert space.has(tokens) == there
    if not there:
        with pytest.raises(ValueError, match="no member"):
            space.index(tokens)


@given(spaces, st.data())
def test_space_after_a_prefix_has_the_members_that_begin_so(space: Candidates, data: st.DataObject) -> None:
    every = [space.member_tokens(i) for i in range(space.size)]
    beginning = data.draw(st.sampled_from(every))
    beginning = beginning[: data.draw(st.integers(1, len(beginning)))]
    left = space.with_prefix(beginning)
    ways = {
        (j, tuple(token for part in chosen for token in part))
        for j in range(len(space.positions) + 1)
        for chosen in product(*space.positions[:j])
        if space.prefix + tuple(token for part in chosen for token in part) == beginning
    }
    begin_so = [tokens for tokens in every if tokens[: len(beginning)] == beginning]
    if left is not None:
        assert len(ways) == 1
        assert [left.member_tokens(i) for i in range(left.size)] == begin_so
        assert all(left.has(tokens) for tokens in begin_so)
    elif len(ways) == 1:
        ((read, _),) = ways
        assert len(begin_so) > math.prod(len(options) for options in space.positions[read:])  # others begin so too


def test_no_space_is_left_after_what_no_member_begins_with() -> None:
    space = Candidates(prefix=(7,), positions=(((0, 1), (1,)), ((5,), (6,))))
    assert space.with_prefix((7,)) == space
    assert space.with_prefix((7, 0)) is None  # within an option
    assert space.with_prefix((7, 2)) is None
    assert space.with_prefix((8,)) is None
    assert space.with_prefix((7, 1, 6)) == Candidates(prefix=(7, 1, 6), positions=())
    assert Candidates(prefix=(7,), positions=(((0,), (0, 0)), ((0,), (1,)))).with_prefix((7, 0, 0)) is None  # two ways
    assert (
        Candidates(prefix=(7,), positions=(((0,), (0, 1)), ((5,), (6,)))).with_prefix((7, 0)) is None
    )  # a longer one follows


def test_fixed_text_is_not_secret_wherever_it_stands() -> None:
    space = Candidates(prefix=(9, 9), positions=(((1,), (2,)), ((5, 5),), ((3, 4), (3,))))
    assert [space.secret(i) for i in (0, 1)] == [
        (False, False, True, False, False, True, True),
        (False, False, True, False, False, True),
    ]


def test_fixed_text_at_the_end_may_be_left_out() -> None:
    space = Candidates(prefix=(9,), positions=(((1,), (2,)), ((5,),), ((6, 7),)))
    assert space.ending == (5, 6, 7)
    assert [space.index((9, 2)), space.index((9, 2, 5, 6, 7))] == [1, 1]
    with pytest.raises(ValueError, match="no member"):
        space.index((9, 2, 5))


def test_spaces_beyond_all_counting_are_numbered_exactly() -> None:
    digits = tuple((digit,) for digit in range(10))
    space = Candidates(prefix=(11,), positions=(digits,) * 40)
    assert space.size == 10**40
    assert space.index(space.member_tokens(10**39 + 7)) == 10**39 + 7
    with pytest.raises(IndexError, match="of 1000"):
        space.member_tokens(10**40)
    assert len(set(space.sample(50, np.random.default_rng(0)))) == 50


def test_draws_are_uniform_over_members() -> None:
    space = Candidates(prefix=(0,), positions=(((1,), (2,), (3, 3)), ((4,), (5,))))
    counts = np.bincount(space.sample(6000, np.random.default_rng(1)), minlength=space.size)
    assert len(counts) == 6
    # 5 standard errors
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(6000 / 6 * 5 / 6)


@pytest.mark.parametrize(
    "slots", [((),), (((1,), ()),), (((1,), (2,), (1,)),)], ids=["no options", "an empty option", "an option twice"]
)
def test_invalid_spaces_are_refused(slots: tuple[tuple[tuple[int, ...], ...]]) -> None:
    with pytest.raises(AssertionError):
        Candidates(prefix=(0,), positions=slots)
    with pytest.raises(AssertionError):
        Candidates(prefix=(), positions=(((1,), (2,)),))
