"""Tests of `fedmem/reporting/summarise.py`: the summary says what the rows say, and flips with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.measure import Measure, to_json
from fedmem.contracts.measurement import Measurement
from fedmem.reporting.summarise import summarise, write_summary
from fedmem.results.read import read
from fedmem.results.run_summary import FILE, Finding, Key, Measured, RunSummary, read_summary, sha256_of
from tests.reporting.page_helpers import SCENARIO, row, rows
from tests.results.read_helpers import bank, write

NOTHING: dict[str, Any] = {"low": math.nan, "high": math.nan}

# Of these rows: pattern is memorised at both levels, typical-own's interval in the aggregate contains 0.


def summary_of(folder: Path, measurements: list[Measurement], **extra: Any) -> RunSummary:
    stored = bank(m=20, canaries=10, seed=1)
    write(folder, stored, measurements=measurements, scenario_yaml=SCENARIO, force=True, **extra)
    return summarise(read(folder))


def changed(
    measurements: list[Measurement], metric: str, kind: str, level: str, statistic: str = "", **facts: Any
) -> list[Measurement]:
    """The same rows, with other numbers in those of a metric in the summary."""
    found = []
    for one in measurements:
        reading = one.reading
        about = (reading.metric, reading.subject, one.level, one.round)
        is_meant = about == (metric, kind, level, None) and reading.labels.get("place") != "others"
        is_meant &= reading.labels.get("statistic") == (statistic or None)
        found.append(replace(one, reading=replace(reading, **facts)) if is_meant else one)
    return found


def finding(summary: RunSummary, kind: str, metric: str, statistic: str = "") -> Finding:
    (found,) = [
        f
        for k in summary.kinds
        if k.kind == kind
        for f in k.findings
        if (f.metric, f.labels.get("statistic", ""), f.labels.get("attack", "lira")) == (metric, statistic, "lira")
    ]
    return found


def test_values_are_those_of_the_rows(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "run", rows())
    memorisation = finding(summary, "pattern", "memorisation")
    assert memorisation.local is not None
    assert memorisation.aggregate is not None
    assert memorisation.retention is not None
    assert (memorisation.local.value, memorisation.aggregate.value, memorisation.retention.value) == (0.75, 0.5, 0.67)
    membership = finding(summary, "typical-own", "auc")
    assert membership.title == "LiRA AUC"
    assert membership.aggregate is not None
    assert membership.aggregate.null == 0.5
    assert [(f.title, f.is_headline) for f in summary.kinds[1].findings] == [
        ("memorisation", True),
        ("memorisation by probability", False),
        ("LiRA AUC", True),
        ("loss threshold AUC", False),
    ]
    assert Key(metric="memorisation", level="global", subject="pattern", labels={}) in memorisation.aggregate.keys
    assert [value.title for value in summary.models] == ["test accuracy", "generalisation gap"]


@pytest.mark.parametrize(("level", "index"), [("local", 0), ("global", 1)])
def test_a_verdict_flips_with_its_rows(tmp_path: Path, level: str, index: int) -> None:
    """Only rows that the verdict names as its own change it."""
    before = summary_of(tmp_path / "run", rows()).verdicts[index]
    assert "pattern" in before.memorised
    measurements = rows()
    for metric, statistic in (("memorisation", ""), ("memorisation", "probability"), ("exposure", "")):
        assert any((key.metric, key.subject) == (metric, "pattern") for key in before.keys)
        measurements = changed(measurements, metric, "pattern", level, statistic, low=-0.1)
    after = summary_of(tmp_path / "run", measurements).verdicts[index]
    assert "pattern" not in after.memorised
    assert after.text != before.text
    undefined = changed(measurements, "memorisation", "typical-own", level, value=math.nan, **NOTHING)
    undefined = changed(undefined, "memorisation", "typical-own", level, "probability", value=math.nan, **NOTHING)
    undefined = changed(undefined, "auc", "typical-own", level, value=math.nan, **NOTHING)
    assert summary_of(tmp_path / "run", undefined).verdicts[index].undefined == ("typical-own",)


def test_p_above_the_level_denies_an_interval_and_is_listed(tmp_path: Path) -> None:
    measurements = [*rows(), row("memorisation.p", 0.2, "pattern", n=200, low=math.nan, high=math.nan)]
    summary = summary_of(tmp_path / "run", measurements)
    memorisation = finding(summary, "pattern", "memorisation")
    assert memorisation.aggregate is not None
    value = memorisation.aggregate
    assert (value.p, value.p_adjusted, value.state) == (0.2, 0.2, "not significant")
    assert any("interval and p disagree" in limit and "pattern (global, p 0.2)" in limit for limit in summary.limits)
    assert ("pattern", "global") in [(place.kind, place.level) for place in summary.not_significant]


def test_unresolved_retention_is_undefined(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "run", rows())
    assert ("typical-own", "memorisation", "retention") in [
        (place.kind, place.title, place.level) for place in summary.undefined
    ]


def test_equal_answers_are_judged_by_probability(tmp_path: Path) -> None:
    """All runs answer alike: self-influence is 0 without an interval, and the probability decides."""
    measurements = changed(rows(), "memorisation", "pattern", "local", value=0.0, **NOTHING)
    summary = summary_of(tmp_path / "run", measurements)
    found = [f for f in summary.kinds[0].findings if f.metric == "memorisation"]
    assert [f.title for f in found] == ["memorisation", "memorisation by probability"]
    assert [f.local.state if f.local else "" for f in found] == ["undefined", "significant"]


def of_small_kind(folder: Path, p_values: list[float], runs: int) -> Measured:
    """The exposure of a kind of three examples, each in in half of the runs."""
    measurements = [row("exposure", 5.0, "pattern", "place=owner", level="local", **NOTHING)]
    for subject, p in enumerate(p_values):
        measurements.append(row("exposure", 5.0, str(subject), "place=owner", level="local", n=4))
        measurements.append(row("exposure.p", p, str(subject), "place=owner", level="local", n=4, **NOTHING))
    stored = bank()
    coins = np.tile(np.arange(runs) % 2 == 0, (len(stored.audit), 1)).T
    stored = replace(stored, audit=replace(stored.audit, is_in=coins))
    scenario = SCENARIO.replace("runs: 4", f"runs: {runs}")
    write(folder, stored, measurements=measurements, scenario_yaml=scenario)
    local = finding(summarise(read(folder)), "pattern", "exposure").local
    assert local is not None
    return local


@pytest.mark.parametrize(("p_values", "significant"), [([0.01, 0.04, 0.5], 1), ([0.02, 0.03, 0.04], 0)])
def test_examples_of_a_small_kind_are_adjusted(tmp_path: Path, p_values: list[float], significant: int) -> None:
    local = of_small_kind(tmp_path / "run", p_values, runs=10)
    assert local.examples == significant
    assert local.state == ("significant" if significant else "not significant")
    assert {key.subject for key in local.keys} == {"pattern", "0", "1", "2"}
    assert local.num_tested == 3


@pytest.mark.parametrize(("runs", "state"), [(6, "undefined"), (8, "not significant")])
def test_runs_too_few_for_any_small_p_are_undefined(tmp_path: Path, runs: int, state: str) -> None:
    """Three p are at least 3 / 20 by Holm with six runs, and 3 / 70 with eight."""
    assert of_small_kind(tmp_path / "run", [0.3, 0.4, 0.5], runs).state == state


@pytest.mark.parametrize(("low", "state"), [(0.4, "significant"), (-0.1, "not significant")])
def test_a_kind_without_null_is_judged_by_its_gain(tmp_path: Path, low: float, state: str) -> None:
    """Exposure of what people wrote is high without memorisation; its gain has the null 0."""
    written = [one for one in rows() if not one.reading.metric.startswith("exposure")]
    written += [
        row(metric, value, "pattern", about, level=level, low=least)
        for metric, value, least in (("exposure", 9.0, 8.5), ("exposure_gain", 0.5, low))
        for level, about in (("local", "place=owner"), ("global", ""))
    ]
    found = finding(summary_of(tmp_path / "run", written), "pattern", "exposure_gain")
    assert found.shows == "exposed"
    assert found.aggregate is not None
    assert (found.aggregate.state, found.aggregate.null) == (state, 0.0)
    kept = finding(summary_of(tmp_path / "run", rows()), "pattern", "exposure")
    assert kept.aggregate is not None, "where the null is known, exposure itself"


def test_a_measure_of_ones_own_is_shown_without_an_edit(tmp_path: Path) -> None:
    own = Measure(name="echo", title="echo", means="Echo.", null=0.0, headline=True, shows="memorised", order=1)
    manifest = {"executor": "stacked", "measures": [to_json(own)]}
    measurements = [row("echo", 0.9, "typical-own", place, level=level) for place, level in (("", "global"),)]
    summary = summary_of(tmp_path / "run", measurements, manifest=manifest)
    assert summary.verdict("global").memorised == ("typical-own",)


def test_without_any_estimate_there_is_still_a_summary(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "run", [])
    assert [verdict.memorised for verdict in summary.verdicts] == [(), ()]
    assert all("was measured" in verdict.text for verdict in summary.verdicts)
    assert summary.failures == 1


def test_what_is_alarming_is_in_the_summary(tmp_path: Path) -> None:
    manifest = {"executor": "stacked", "alarms": ["too much"], "warnings": ["careful"]}
    summary = summary_of(tmp_path / "run", rows(), manifest=manifest)
    assert (summary.alarms, summary.warnings) == (("too much",), ("careful",))
    assert any("losses are not numbers" in limit for limit in summary.limits)


def test_the_file_is_written_once_and_with_equal_bytes(tmp_path: Path) -> None:
    summary_of(tmp_path / "run", rows())
    summary = write_summary(tmp_path / "run")
    file = tmp_path / "run" / FILE
    before, when = file.read_bytes(), file.stat().st_mtime_ns
    assert json.loads(before)["measurements_sha256"] == sha256_of(tmp_path / "run/measurements.parquet")
    assert read_summary(tmp_path / "run").verdicts == summary.verdicts
    write_summary(tmp_path / "run")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, when)
    summary_of(tmp_path / "other", rows())
    write_summary(tmp_path / "other")
    assert (tmp_path / "other" / FILE).read_bytes() == before


def test_what_is_below_its_null_is_explained(tmp_path: Path) -> None:
    """Named with what it means; an AUC above its null is not among them."""
    low = changed(rows(), "auc", "typical-own", "global", value=0.378, low=0.297, high=0.466)
    summary = summary_of(tmp_path / "run", low)
    (said,) = [limit for limit in summary.limits if limit.startswith("Significantly below")]
    assert "LiRA AUC of typical-own (global)" in said
    assert "counts as neither memorised nor detectable" in said
    unchanged = summary_of(tmp_path / "other", rows())
    assert not any("LiRA AUC of typical-own" in limit for limit in unchanged.limits if "Significantly below" in limit)
