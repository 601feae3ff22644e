"""Tests of `fedmem/wording.py`."""

from __future__ import annotations

import pytest

from fedmem.wording import bytes_text, choices, did_you_mean


@pytest.mark.parametrize(("given", "suggested"), [("dirichelt", True), ("IID", True), ("zzzz", False), (3, False)])
def test_suggestion_needs_a_near_spelling(given: object, suggested: bool) -> None:
    assert bool(did_you_mean(given, ["iid", "dirichlet"])) == suggested


def test_choices_list_all_or_nothing() -> None:
    assert choices("zzzz", ["b", "a"]) == "; choose from: b, a"
    assert choices("zzzz", iter(())) == "; choose from: nothing, it takes none"
    assert choices("aa", iter(["aaa", "b"])) == " (did you mean 'aaa'?); choose from: aaa, b"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (9_940_000, "9.9 MB"), (10_000_000, "10 MB"), (999_000_000, "999 MB"), (1e9, "1.0 GB")],
)
def test_bytes_have_the_unit_of_their_size(count: float, text: str) -> None:
    assert bytes_text(count) == text
