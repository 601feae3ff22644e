"""Saturated values are marked wherever a reader meets them: in tables, figures and comparisons."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.evidence import ReferenceEvidence
from fedmem.contracts.measurement import Measurement
from fedmem.estimation.saturation import MARK, NOWHERE, SaturationZone
from fedmem.estimators.exposure import null_mean
from fedmem.reporting import drawing
from fedmem.reporting.drawing import Drawing
from fedmem.reporting.measures import zone_of_metric
from fedmem.reporting.page import report
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from fedmem.studies import tables
from fedmem.studies.comparison import Comparison
from fedmem.studies.report import Table, saturation_note
from fedmem.studies.study_page import page
from tests.estimation.saturation_helpers import SHARP, compared
from tests.reporting.page_helpers import SCENARIO, at, printed, row
from tests.results.read_helpers import bank, write

CEILING = math.log2(10)
"""Of exposure among the nine references that the stored bank of the tests has."""


@pytest.mark.parametrize("count", [2, 9, 300, 4095])
def test_exposure_is_saturated_within_half_a_bit_of_its_ceiling(count: int) -> None:
    ceiling = math.log2(count + 1)
    zone = zone_of_metric("exposure", [count])
    assert zone.holds(ceiling)
    assert zone.holds(ceiling - 0.499)
    assert not zone.holds(ceiling - 0.501)
    assert not zone.holds(0.0), "a low exposure hides nothing"
    gain = zone_of_metric("exposure_gain", [count])
    assert gain.top == pytest.approx(zone.top - null_mean(count))
    assert zone_of_metric("exposure", [count, 10 * count]) == zone, "the fewest references decide"


def test_other_measures_have_decided_rules() -> None:
    for metric, value in (("auc", 0.99), ("auc", 0.01), ("tpr", 1.0), ("tpr", 0.0), ("memorisation", 0.95)):
        assert zone_of_metric(metric).holds(value), metric
    for metric, value in (("auc", 0.98), ("auc", 0.5), ("tpr", 0.01), ("memorisation", 0.9), ("memorisation", 0.0)):
        assert not zone_of_metric(metric).holds(value), metric
    assert zone_of_metric("test_accuracy").holds(1.0)
    assert not zone_of_metric("test_accuracy").holds(0.0)
    for metric in ("exposure", "exposure_extrapolated", "cross_influence"):
        assert zone_of_metric(metric) == NOWHERE, metric
    assert not zone_of_metric("auc").holds(math.nan)
    assert SaturationZone(top=3.0).union(SaturationZone(top=2.0, bottom=0.0)) == SaturationZone(top=2.0, bottom=0.0)


def stored(folder: Path, measurements: Sequence[Measurement]) -> Path:
    write(folder / "run", bank(), measurements=measurements, scenario_yaml=SCENARIO)
    return folder / "run"


def levels(metric: str, local: float, whole: float, *, digits: str = "") -> list[Measurement]:
    """A measure of canaries at the holder, at the aggregate, their difference, and retention."""
    kind, nothing = "pattern", {"low": math.nan, "high": math.nan}
    found = []
    for level, place, value in (("local", "owner", local), ("global", "", whole)):
        about = f"{at(place)} {digits}"
        found.append(row(metric, value, kind, about, level=level))
        found.append(row(f"{metric}.null", 1.15, kind, about, level=level, **nothing))
    difference = f"contrast=levels minus=global {digits}"
    found.append(row(f"{metric}.difference", local - whole, kind, difference))
    found.append(row("retention", 0.9, kind, f"of={metric} {digits}"))
    return found


def test_table_marks_saturated_values_and_explains_the_marks(tmp_path: Path) -> None:
    text = printed(stored(tmp_path, levels("exposure", CEILING - 0.1, CEILING - 0.4)))
    assert re.search(rf"pattern +80 +3\.22 \[[^]]*\]{MARK} +2\.92 \[[^]]*\]{MARK}\n", text)
    # the interval alone would say that the holder's is higher
    assert re.search(r"exposure: local − global\n  pattern +80 +0\.30 \[0\.20, 0\.40\] +both saturated\n", text)
    assert re.search(rf"0\.90 \[0\.80, 1\.00\]{MARK}\n", text), "retention divides by the saturated value"
    assert re.search(rf"^{MARK}: saturated: within half a bit", text, re.MULTILINE)
    assert re.search(r"^both saturated: ", text, re.MULTILINE)


def test_one_saturated_side_hides_a_part_of_the_difference(tmp_path: Path) -> None:
    text = printed(stored(tmp_path, levels("exposure", CEILING - 0.1, 1.5)))
    assert re.search(rf"pattern +80 +3\.22 \[[^]]*\]{MARK} +1\.50 \[1\.40, 1\.60\]\n", text)
    assert re.search(r"1\.72 \[1\.62, 1\.82\] +local higher, capped\n", text)
    assert re.search(r"^capped: ", text, re.MULTILINE)


def test_table_without_saturated_values_has_no_mark(tmp_path: Path) -> None:
    text = printed(stored(tmp_path, [*levels("exposure", 2.6, 1.5), *levels("memorisation", 0.9, 0.5)]))
    assert MARK not in text
    assert re.search(r"1\.10 \[1\.00, 1\.20\] +local higher\n", text)
    for word in ("both saturated", "capped"):
        assert word not in text


def test_kinds_are_compared_by_their_own_values(tmp_path: Path) -> None:
    rows = []
    for kind, value in (("pattern", 0.995), ("typical-own", 1.0)):
        rows.append(row("auc", value, kind, "attack=lira"))
        rows.append(row("auc.null", 0.5, kind, "attack=lira"))
    rows.append(
        row(
            "auc.difference", -0.005, "pattern", "contrast=kinds minus=typical-own attack=lira", low=-0.008, high=-0.002
        )
    )
    text = printed(stored(tmp_path, rows))
    assert re.search(r"pattern − typical-own +80 +−0\.005 \[[^]]*\] +both saturated\n", text)


def test_the_number_of_references_is_that_of_the_evidence(tmp_path: Path) -> None:
    """Not that of the scenario: canaries of a small space are ranked among all its members."""
    folder = stored(tmp_path, levels("exposure", CEILING - 0.1, 1.5))
    run = read(folder)
    assert run.reference_counts == {"pattern": {9}}
    assert Summary(run).saturation_zone("exposure", "pattern").top == pytest.approx(CEILING - 0.5)
    assert Summary(run).saturation_zone("exposure", "typical-own") == NOWHERE


def test_families_have_counts_of_their_own(tmp_path: Path) -> None:
    one = bank()
    first = one.references[0]
    audit = replace(one.audit, kind=np.array(["pattern", "secret", "secret", *one.audit.kind[3:]]))
    blocks: list[ReferenceEvidence] = []
    for family, count, subjects in (("pattern", 9, [0]), ("secret", 99, [1, 2]), ("pattern", 9, [0])):
        places = np.array(subjects)
        names = np.unique(audit.examples.labels[places])
        shape = (len(first.run), len(places))
        zeros, quantiles = np.zeros(shape, np.int32), np.zeros((len(first.run), len(names), 8), np.float32)
        blocks.append(
            replace(
                first, family=family, count=count, subjects=places, less=zeros, ties=zeros, labels=names,
                quantiles=quantiles, round=len(blocks),
            )
        )  # fmt: skip
    write(tmp_path / "run", replace(one, audit=audit, references=tuple(blocks)), scenario_yaml=SCENARIO)
    assert read(tmp_path / "run").reference_counts == {"pattern": {9}, "secret": {99}}


def test_the_figures_of_a_run_know_its_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def watch(draw: Callable[..., Drawing]) -> Callable[..., Drawing]:
        def drawn_with(title: str, *given: Any, zones: Any = None, **more: Any) -> Drawing:
            found[title] = zones
            return draw(title, *given, zones=zones or {}, **more)

        return drawn_with

    for name in ("over_rounds", "local_against_global"):
        monkeypatch.setattr(drawing, name, watch(getattr(drawing, name)))
    rows = [
        row("exposure", 3.0, "pattern", at(place), level=level, round=round_number)
        for round_number in (0, 5, None)
        for level, place in (("local", "owner"), ("global", ""))
    ]
    report(stored(tmp_path, [*rows, *levels("exposure", 3.0, 3.0)]))
    ((family, zone),) = found["exposure"].items()
    assert family == "pattern (n = 80)"
    assert (zone.top, zone.bottom) == pytest.approx((CEILING - 0.5, -math.inf))


def test_two_saturated_means_show_no_difference() -> None:
    found = compared(SHARP, SaturationZone(top=7.7))
    (first, second) = found.rows
    assert (first.verdict, second.verdict) == ("", "saturated")
    assert second.adjusted is not None
    assert second.adjusted.p < 0.001, "p alone would call it"
    lines = "\n".join(line for line, _ in Table(found).lines(140))
    assert lines.count(MARK) >= 3
    assert "both saturated: no difference can be seen" in lines
    assert "Two saturated values cannot show a difference." in " ".join(lines.split())
    assert "Two saturated values cannot show a difference." in page(found, "", [])[0]
    (_, told) = tables.differences(found)
    assert (told["verdict"], told["saturated"], told["reference_saturated"]) == ("saturated", True, True)
    assert all(value["saturated"] for value in tables.values(found))
    assert all(value["saturated"] for value in tables.rounds(found))


def test_one_saturated_mean_is_compared_and_marked() -> None:
    found = compared(SHARP, SaturationZone(top=8.0))
    row = found.rows[1]
    assert row.verdict == "lower"
    assert (row.saturated, row.reference_saturated) == (False, True)
    assert saturation_note(found)


def test_the_test_is_counted_among_the_others() -> None:
    """A test that is not made because of its outcome would make the other ones too sharp."""
    both, none = (compared(SHARP, zone) for zone in (SaturationZone(top=7.7), NOWHERE))
    assert both.rows[1].adjusted is not None
    assert both.rows[1].adjusted == none.rows[1].adjusted
    assert both.rows[1].tests == none.rows[1].tests == 1


def test_table_without_saturated_means_has_no_mark() -> None:
    found = compared(SHARP, NOWHERE)
    assert found.rows[1].verdict == "lower"
    assert saturation_note(found) == ""
    assert MARK not in "\n".join(line for line, _ in Table(found).lines(140))
    assert MARK not in page(found, "", [])[0]


def test_retention_of_a_saturated_local_value_is_marked() -> None:
    found = compared(SHARP, SaturationZone(top=7.7), level="local")
    assert [kept.saturated for kept in found.retention] == [True, True]
    assert [kept["saturated"] for kept in tables.retention(found)] == [True, True]
    assert [kept.saturated for kept in replace(found, series=compared(SHARP, NOWHERE, "local").series).retention] == [
        False,
        False,
    ]


def test_comparison_uses_the_ceiling_of_the_references(tmp_path: Path) -> None:
    folders = [stored(tmp_path / str(place), levels("exposure", CEILING - 0.1, CEILING - 0.2)) for place in range(4)]
    runs = {(place // 2, place % 2): read(folder) for place, folder in enumerate(folders)}
    settings = [(("a", "1"),), (("a", "2"),)]
    found = Comparison.of(runs, settings, [0, 0], [0, 1])
    zones = {one.quantity.level: one.zone for one in found.series if one.quantity.metric == "exposure"}
    assert {level: zone.top for level, zone in zones.items()} == pytest.approx(
        {"local": CEILING - 0.5, "global": CEILING - 0.5}
    )
    assert {row.verdict for row in found.rows if row.setting == 1} == {"saturated"}
