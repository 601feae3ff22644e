"""Tests of `fedmem/errors.py`."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.errors import MAX_LINES, ComponentError, Problem, RunError, ScenarioError, message_lines, shorten


@given(st.text(max_size=60), st.integers(11, 40))
def test_shortened_text_keeps_both_ends_within_its_limit(text: str, most: int) -> None:
    found = shorten(text, most)
    if len(text) <= most:
        assert found == text
    else:
        first, _, last = found.partition(" … ")
        assert len(found) <= most
        assert text.startswith(first)
        assert text.endswith(last)
        assert first
        assert last


@given(st.lists(st.lists(st.text("ab ", max_size=9), min_size=1, max_size=30).map("\n".join), max_size=30))
def test_messages_take_a_limited_number_of_lines(messages: list[str]) -> None:
    assert len(message_lines(messages)) <= MAX_LINES


def test_problem_names_source_line_path_and_message() -> None:
    assert (
        str(Problem(path="client.lr", message="too large", line=8, source="x.yaml")) == "x.yaml:8  client.lr: too large"
    )
    assert str(Problem(path="", message="too large")) == "too large"


@pytest.mark.parametrize(
    "error",
    [
        ScenarioError([Problem(path="a", message="b", line=2), Problem(path="c", message="d")]),
        ComponentError("client.lr", "too large"),
        RunError("round 3: no"),
    ],
)
def test_error_is_equal_after_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_mistakes_of_the_user_have_exit_code_2_and_failed_runs_1() -> None:
    assert (ScenarioError.exit_code, ComponentError.exit_code, RunError.exit_code) == (2, 2, 1)
