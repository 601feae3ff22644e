"""Tests of `fedmem/contracts/measurement.py`."""

from __future__ import annotations

import math

import pytest

from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Measurement, Reading


def test_labels_are_equal_in_any_order_and_drop_empty_values() -> None:
    one, other = Labels.of(b=1, a="x", c=None, d=""), Labels.of({"a": "x"}, b=1)
    assert one == other
    assert hash(one) == hash(other)
    assert list(one) == ["a", "b"]
    assert one.integer("c", 5) == 5


def test_plus_replaces_and_none_removes_a_label() -> None:
    labels = Labels.of(a="x", b=1)
    assert labels.plus(b=2, c=True) == Labels.of(a="x", b=2, c=True)
    assert labels.plus(a=None) == labels.only(["b"]) == labels.without("a") == Labels.of(b=1)
    assert labels == Labels.of(a="x", b=1), "labels do not change"
    assert labels.has(Labels.of(b=1))
    assert not labels.has(Labels.of(b=2))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [("text", "a", 1), ("whole", 3, 3.0), ("whole", 3, True), ("number", 0.5, "0.5"), ("yes", True, 1)],
)
def test_label_accepts_values_of_its_kind_only(kind: str, good: object, bad: object) -> None:
    label = Label("x", kind, "a test")  # type: ignore[arg-type]
    assert label.fits(good)
    assert not label.fits(bad)


@pytest.mark.parametrize(
    ("run", "round_number", "scope"),
    [(0, 2, "run"), (None, 2, "round"), (0, None, "run_summary"), (None, None, "summary")],
)
def test_scope_follows_from_run_and_round(run: int | None, round_number: int | None, scope: str) -> None:
    reading = Reading(metric="m", value=math.nan)
    place = {"run": run, "round": round_number}
    assert Measurement(**place, level="global", client=NO_CLIENT, source="x", reading=reading).scope == scope
