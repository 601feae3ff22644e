"""Tests of `fedmem/reporting/screen_notes.py`: what stands below the values of a first screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmem.reporting import screen_notes as notes
from fedmem.results.run_summary import Leak, Place
from tests.reporting.verdict_helpers import finding, kind, measured
from tests.results.run_summary_helpers import SUMMARY

LEAK = Leak(
    source="leakage", view="a message", is_sent=True, leaking=(), closer=(), not_significant=("a",), uncompared=(),
    keys=(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("leak", "text"),
    [
        (LEAK, "Reconstruction: not significant from every view that is sent"),
        (replace(LEAK, leaking=("a",)), "Reconstruction: a message leaks a"),
        (
            replace(LEAK, closer=("a", "b")),
            "Reconstruction: a message is closer to a and b than to held-out examples, but not significantly better "
            "than guesses",
        ),
        (
            replace(LEAK, leaking=("a",), closer=("b",)),
            "Reconstruction: a message leaks a and is closer to b than to held-out examples",
        ),
        (replace(LEAK, is_sent=False, leaking=("a",)), ""),
        (replace(LEAK, not_significant=()), "Reconstruction: undefined from every view that is sent"),
    ],
)
def test_what_is_closer_than_held_out_examples_is_named(leak: Leak, text: str) -> None:
    assert notes.reconstruction_text([leak]) == text


def test_examples_that_values_leave_out_are_counted() -> None:
    some = kind("a", finding("memorised", measured(0.5, n=70), measured(0.5, n=76)), examples=80)
    every = kind("b", finding("detectable", measured(0.5, n=60), None), examples=60)
    assert notes.num_examples(some) == 76
    assert notes.left_out_text([some, every]) == "Left out of these values: 4 of 140 examples"
    assert notes.left_out_text([every]) == ""
    extracted = replace(finding("memorised", measured(0.5, n=3), None), shows="extracted")
    assert notes.left_out_text([kind("c", extracted, examples=60)]) == "", "its counts are of other things"


def test_the_released_model_is_named_where_it_differs() -> None:
    other = replace(finding("memorised", None, measured(0.5)), released=measured(0.4321))
    full, short = notes.released_texts([kind("a", other), kind("b", finding("memorised", None, measured(0.5)))])
    assert short == "Released model: memorisation 0.43 a"
    assert full.endswith(short)
    assert "last observed round" in full
    assert notes.released_texts([kind("b", finding("memorised", None, measured(0.5)))]) == ()


def test_the_limits_of_a_guarantee_stand_behind_it() -> None:
    (plain,) = SUMMARY.guarantees
    limited = replace(plain, epsilon=3.0, delta=1e-3, other_neighbours=("replace: 5.85",), limits=("one run",))
    text = notes.guarantee_text(replace(SUMMARY, guarantees=(limited,)))
    assert text.startswith("Guaranteed: epsilon 3.00, delta 0.001 for a ")
    assert text.endswith("; replace: 5.85; one run)")
    assert notes.guarantee_text(replace(SUMMARY, guarantees=())) == ""


def test_lists_name_every_value_that_a_screen_counts() -> None:
    places = tuple(Place(kind=f"k{i}", title="LiRA AUC", level="local") for i in range(9))
    summary = replace(SUMMARY, not_significant=places, below=(), undefined=places[:1])
    assert "9 values" in notes.unclear_text(summary, 80)
    first, second = notes.unclear_lists(summary)
    assert all(f"LiRA AUC of k{i} (local)" in first for i in range(9))
    assert second == "Undefined: LiRA AUC of k0 (local)."


def test_the_standard_error_is_of_measured_examples() -> None:
    wide = finding("memorised", measured(0.02, 0.24, n=24), measured(0.01, 0.1, n=30))
    text = notes.power_text([kind("a", wide, examples=32)], 8)
    assert "about 0.35 for one example, 0.072 for a mean of 24, if they do not influence each other" in text
    assert text.endswith("the widest interval here reaches 0.24 from its value")
    assert "at most" not in text
    assert notes.power_text([kind("a", wide)], 1) == ""
