"""Tests of `fedmem/reporting/reconstruction_section.py`."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fedmem.estimation.statistics import newcombe
from fedmem.probes._clusters import mean_interval
from fedmem.reporting.cells import Value
from fedmem.reporting.reconstruction_section import (
    _adjusted_text,
    _sort_by_sign,
    _verdict,
    _widen,
    leaks,
    reconstruction_section,
)
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


def value(low: float, high: float) -> Value:
    return Value(value=(low + high) / 2, low=low, high=high, n=9)


def test_kinds_are_listed_above_below_and_not_significant() -> None:
    values = {
        "a": value(0.1, 0.2),
        "b": value(-0.2, -0.1),
        "c": value(-0.1, 0.1),
        "d": value(1.0, 2.0),
        "e": value(math.nan, math.nan),
    }
    found = _sort_by_sign(values, "above for {}", "below for {}")
    assert found[:2] == ["above for a, d", "below for b"]
    assert found[2].endswith(" c, e")
    assert len(found) == 3
    assert _sort_by_sign({}, "above for {}", "below for {}") == []


def test_leakage_needs_a_gain_over_the_prior_or_identification() -> None:
    above, unclear = value(0.2, 0.5), value(-0.2, 0.5)
    assert _verdict({"a": above}, {"a": above}).startswith("leaks a (")
    assert _verdict({"a": above}, {"a": unclear}, ["a"]).startswith("leaks a (")
    assert _verdict({"a": above}, {"a": unclear}).startswith("closer than held-out examples, but not significantly")
    many = {kind: value(0.02, 0.5) for kind in "abcdef"}
    assert "leaks" not in _verdict(many, many), "intervals hold for all kinds at once"


def test_the_share_beside_the_words_is_that_of_the_table() -> None:
    """The words are about a comparison with held-out examples; a share of 1 alone would contradict them."""
    above, unclear = value(0.2, 0.5), value(-0.2, 0.5)
    text = _verdict({"a": above}, {"a": unclear}, [], {"a": value(0.12, 0.76)})
    assert "identified significantly more often than held-out examples" in text
    assert "a (identified 0.44)" in text
    assert "identified" not in _verdict({"a": above}, {"a": unclear}), "of an attack that identifies nothing"


@pytest.mark.parametrize(("owners", "runs"), [(2, 1), (8, 1), (2, 2)])
def test_no_kind_leaks_by_chance_in_more_than_one_of_20(owners: int, runs: int) -> None:
    """Three kinds without leakage, with an effect of each owner and each run; 1500 audits have an error of 0.6 %."""
    rng = np.random.default_rng(5)
    pairs = list(product(range(owners), range(runs)))
    ways = tuple(zip(*pairs, strict=True))
    errors = 0
    for _ in range(1500):
        values = {}
        for kind in "abc":
            drawn = (rng.normal(size=(owners, 1)) + rng.normal(size=(1, runs)) * (runs > 1)).ravel()
            low, high = mean_interval(drawn, *ways)
            clusters = min(count for count in (owners, runs) if count > 1)
            values[kind] = Value(value=drawn.mean(), low=low, high=high, n=len(drawn), clusters=clusters)
        errors += any(value.is_significant for value in _widen(values).values())
    assert errors / 1500 < 0.065
    if runs == 1:
        assert errors / 1500 > 0.03, "no wider than that asks for"


def test_widened_intervals_hold_those_of_a_higher_level() -> None:
    drawn = np.random.default_rng(1).normal(size=5)
    low, high = mean_interval(drawn, range(5))
    one = Value(value=drawn.mean(), low=low, high=high, n=5, clusters=5)
    found = _widen(dict.fromkeys("abc", one))["a"]
    assert (found.low, found.high) == pytest.approx(mean_interval(drawn, range(5), level=1 - 0.05 / 3))
    for k, n in ((6, 6), (5, 6), (40, 40)):
        low, high = (float(end) for end in newcombe(k, n, 0, n))
        share = Value(value=k / n, low=low, high=high, n=n, clusters=1000)
        assert _widen(dict.fromkeys("abc", share), shares=True)["a"].low <= newcombe(k, n, 0, n, 1 - 0.05 / 3)[0]


def test_deciding_intervals_are_shown_where_rows_differ() -> None:
    """A row excludes 0 and the words do not: the wider interval of all kinds stands beside the words."""
    few = {kind: value(0.05, 1.0) for kind in "abc"}
    text = _adjusted_text(few, {}, {})
    wide = _widen(few)["a"]
    assert f"a, gain over held-out examples {wide.text(2)}" in text
    assert "all 3 kinds at once" in text
    assert wide.low < 0
    assert _adjusted_text({"a": value(0.05, 1.0)}, {"a": value(-1.0, 1.0)}, {}) == "", "the words follow the rows"
    share = {kind: value(0.05, 1.0) for kind in "abc"}
    assert "identified, in − out" in _adjusted_text({}, {}, share)


def test_weights_alone_have_a_value_at_each_level(tmp_path: Path) -> None:
    """The view has one name at both levels: neither takes the place of the other."""
    rows = []
    for level, gain in (("local", 1.5), ("global", -0.5)):
        rows.append(row("margin", gain, "pattern", "view=model", level=level))
        rows.append(row("margin.difference", gain, "pattern", "contrast=coins minus=out view=model", level=level))
    write(tmp_path / "run", bank(), measurements=rows, scenario_yaml=SCENARIO)
    summary = Summary(read(tmp_path / "run"))
    blocks, notes = reconstruction_section(summary, "some", others=False)
    ((title, n, at_client, at_aggregate),) = blocks[0][1]
    assert (title, n) == ("pattern, weights alone", "80")
    assert at_client.startswith("1.50 [")
    assert at_aggregate.startswith("−0.50 [")
    assert [note.partition(":")[0].rpartition(", ")[2] for note in notes] == ["of a client", "of the aggregate"]
    assert "leaks pattern" in notes[0]
    assert "further off" in notes[1]
    assert [(leak.leaking, {key.level for key in leak.keys}) for leak in leaks(summary)] == [
        (("pattern",), {"local"}),
        ((), {"global"}),
    ]
