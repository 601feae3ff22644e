"""Tests of `fedmem/results/run_html.py`."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fedmem.results.run_html import run_html, value_text
from tests.results.run_summary_helpers import SUMMARY, VALUE


def test_everything_from_files_is_escaped() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    finding = replace(SUMMARY.kinds[0].findings[0], title=hostile)
    summary = replace(
        SUMMARY,
        headline=hostile,
        alarms=(hostile,),
        warnings=(hostile,),
        kinds=(replace(SUMMARY.kinds[0], kind=hostile, findings=(finding,)),),
        models=(replace(SUMMARY.models[0], title=hostile),),
        verdicts=tuple(replace(verdict, text=hostile) for verdict in SUMMARY.verdicts),
        report=hostile,
    )
    page = run_html(summary, hostile)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 10
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign, assignment]
    parser.feed(page)
    assert set(tags) <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td", "code"}


def test_what_is_alarming_and_long_is_counted() -> None:
    page = run_html(replace(SUMMARY, kinds=SUMMARY.kinds * 40), "folder")
    assert "ALARM: epsilon is above its guarantee" in page
    assert "2 of 48 client rounds failed" in page
    assert "10 more rows" in page
    assert len(re.findall("<tr>", page)) == 31


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "0.90 [0.80, 0.95]†"),
        ({"low": 0.4}, "0.90 [0.40, 0.95]† not significant"),
        ({"low": math.nan}, "0.90 [no interval]† undefined"),
        ({"value": math.nan}, "undefined"),
        ({"null": math.nan, "saturated": False}, "0.90 [0.80, 0.95]"),
    ],
)
def test_a_value_is_shown_with_its_state(changes: dict[str, float], text: str) -> None:
    assert value_text(replace(VALUE, **changes), 2) == text  # type: ignore[arg-type]
