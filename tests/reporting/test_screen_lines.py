"""Tests of `fedmem/reporting/screen_lines.py`."""

from __future__ import annotations

from fedmem.reporting.screen_lines import Rows, first_of, fit, width_of

TABLE = [("", "", "value"), *((f"name{i}", "x", f"0.{i}0 [0.1, 0.2]") for i in range(9))]


def test_preferred_rows_are_kept_and_the_rest_counted() -> None:
    preferred = [i in (3, 8) for i in range(9)]
    significant = [i == 8 for i in range(9)]
    rows = Rows.of(TABLE, significant, 4, preferred=preferred)
    assert not rows.is_whole
    assert [line.split()[0] for line, _ in rows.lines[1:3]] == ["name3", "name8"]
    assert rows.lines[-1][0] == "… 7 more rows, 0 of them significant: --full"
    (one_more,) = [line for line, _ in Rows.of(TABLE, significant, 9).lines if line.startswith("…")]
    assert one_more == "… 2 more rows, 0 of them significant: --full"
    assert Rows.of(TABLE, significant, 10).is_whole


def test_a_table_is_narrowed_step_by_step() -> None:
    whole, gap = fit(TABLE, 100)
    assert (whole[1][2], gap) == ("0.00 [0.1, 0.2]", 2)
    short, gap = fit(TABLE, width_of(TABLE) - 1)
    assert (short[1][2], gap) == (".00 [.1, .2]", 2)


def test_further_texts_are_counted() -> None:
    assert list(first_of("ALARM", ["a", "b"], "here", 40, "red")) == [("ALARM: a (and 1 more: here)", "red")]
    assert list(first_of("ALARM", [], "here", 40, "red")) == []
