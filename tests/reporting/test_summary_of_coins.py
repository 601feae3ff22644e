"""What the table says of re-dealt coins, of usual false positive rates, and of the aggregate that is released."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from fedmem.contracts.measurement import Measurement
from fedmem.reporting.page import report
from fedmem.reporting.sections import sections, unobserved_notes
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.labelling import labels
from tests.reporting.page_helpers import SCENARIO, at, printed, row
from tests.results.read_helpers import bank, write

NOTHING = {"low": math.nan, "high": math.nan}


def measured() -> list[Measurement]:
    found = []
    for level, place, value in (("local", "owner", 0.5), ("global", "", 0.05)):
        more, here = {"level": level, **NOTHING}, at(place)
        # of pattern at the aggregate p tells an effect that the interval [−0.05, 0.15] does not
        for kind, p in (("pattern", 0.004), ("typical-own", 0.4)):
            found += [
                row("memorisation", value, kind, here, level=level),
                row("memorisation.null", 0.0, kind, here, **more),
                row("memorisation.p", p if kind == "pattern" or level == "global" else 0.002, kind, here, **more),
            ]
            lira = f"{here} attack=lira"
            found += [
                row("auc", 0.5 + value, kind, lira, level=level),
                row("auc.null", 0.478 if kind == "pattern" else 0.484, kind, lira, **more),
                row("auc.p", 0.002, kind, lira, **more),
            ]
            for fpr, rate in (("0.1", 0.6), ("0.01", 0.31), ("0.0078", 0.22)):
                found += [
                    row("tpr", rate, kind, f"{lira} fpr={fpr}", level=level),
                    row("tpr.null", float(fpr) + 0.0007, kind, f"{lira} fpr={fpr}", **more),
                ]
    # at the last round the aggregate has forgotten pattern, and typical-own is the same
    found.append(row("memorisation", 0.013, "pattern", "", round=10, n=90))
    found.append(row("memorisation", 0.05, "typical-own", "", round=10))
    found.append(row("memorisation", 0.9, "pattern", "", round=5))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=measured(), scenario_yaml=SCENARIO)
    return tmp_path / "run"


def blocks(folder: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """The rows of the first section by heading and label."""
    first = next(sections(Summary(read(folder))))
    return {heading: {cells[0]: cells[1:] for cells in rows} for heading, rows in first.blocks}


def test_p_stands_behind_its_interval(folder: Path) -> None:
    rows = blocks(folder)["memorisation (self-influence, −1 to 1) (without memorisation: 0)"]
    assert rows["pattern"][1:] == ("0.500 [0.400, 0.600] p 0.004", "0.050 [−0.050, 0.150] p 0.004")
    assert "p 0.004" in printed(folder)
    assert "of no memorisation: twice the share of other random inclusions" in printed(folder)
    assert "p 0.004" in report(folder).read_text(encoding="utf-8")


def test_table_explains_where_p_and_interval_disagree(folder: Path) -> None:
    notes = " ".join(next(sections(Summary(read(folder)))).notes)
    assert "p and interval differ for memorisation of pattern, global" in notes
    assert "typical-own" not in notes.partition("lira")[0].partition("LiRA")[0], "they agree there"
    assert "p asks whether these examples are memorised at all" in notes


def test_the_released_aggregate_has_a_row_where_it_differs(folder: Path) -> None:
    rows = blocks(folder)["memorisation (self-influence, −1 to 1) (without memorisation: 0)"]
    assert list(rows) == ["pattern", "pattern, released", "typical-own"]
    assert rows["pattern, released"] == ("90", "", "0.013 [−0.087, 0.113]")
    assert "released is the last aggregate" in " ".join(printed(folder).split())


def test_the_null_of_an_attack_that_reads_coins_is_its_own(folder: Path) -> None:
    assert "LiRA AUC (without memorisation: 0.478 to 0.484)" in blocks(folder)


def test_rates_are_shown_at_the_smallest_and_standard_fprs(folder: Path) -> None:
    found = blocks(folder)
    titles = [heading for heading in found if "TPR" in heading]
    assert [title.partition(" (")[0] for title in titles] == [
        "LiRA TPR at FPR 0.0078",
        "LiRA TPR at FPR 0.1",
        "LiRA TPR at FPR 0.01",
    ]
    for title, rate in zip(titles, ("0.220", "0.600", "0.310"), strict=True):
        assert found[title]["pattern"][1].startswith(rate)
    summary = Summary(read(folder))
    at_tenth = summary.value("tpr", "global", "pattern", labels("attack=lira fpr=0.1"))
    smallest = summary.value("tpr", "global", "pattern", labels("attack=lira"))
    assert at_tenth is not None
    assert smallest is not None
    assert (at_tenth.value, smallest.value, smallest.fpr) == (0.6, 0.22, 0.0078)
    assert {value.fpr for _, _, _, value in summary.entries("tpr", labels("attack=lira"))} == {0.0078}


def test_p_at_its_floor_is_marked_and_all_p_are_counted(tmp_path: Path) -> None:
    floor = [
        row("memorisation", 0.5, "pattern", ""),
        row("memorisation.p", 0.01, "pattern", "", n=199, **NOTHING),
        row("memorisation", 0.5, "typical-own", ""),
        row("memorisation.p", 0.02, "typical-own", "", n=199, **NOTHING),
    ]
    write(tmp_path / "run", bank(), measurements=floor, scenario_yaml=SCENARIO)
    rows = blocks(tmp_path / "run")["memorisation (self-influence, −1 to 1) (without memorisation: 0)"]
    assert rows["pattern"][2] == "0.500 [0.400, 0.600] p ≤ 0.01"
    assert rows["typical-own"][2] == "0.500 [0.400, 0.600] p 0.02"
    notes = " ".join(next(sections(Summary(read(tmp_path / "run")))).notes)
    assert "The 2 values of p are not adjusted for their number" in notes
    assert "≤ marks the smallest p" in notes


def test_a_released_rate_at_another_fpr_has_its_row(tmp_path: Path) -> None:
    found = [
        row("tpr", 0.041, "pattern", "attack=lira fpr=0.0625"),
        row("tpr", 0.041, "pattern", "attack=lira fpr=0.031", round=10),
        row("tpr", 0.2, "typical-own", "attack=lira fpr=0.031", round=10),
    ]
    write(tmp_path / "run", bank(), measurements=found, scenario_yaml=SCENARIO)
    (rates,) = [rows for heading, rows in blocks(tmp_path / "run").items() if "TPR" in heading]
    assert list(rates) == ["pattern", "pattern, released", "typical-own, released"]


def test_examples_of_clients_never_observed_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(), measurements=measured(), scenario_yaml=SCENARIO)
    summary = Summary(read(tmp_path / "run"))
    owners = summary.run.audit["owner"].tolist()
    assert not list(unobserved_notes(replace_participation(summary, owners)))
    (note,) = unobserved_notes(replace_participation(summary, owners[:1]))
    missing = [owner for owner in owners if owner >= 0 and owner != owners[0]]
    assert missing
    assert note.startswith(f"{len(missing)} of {len(owners)} audit examples are left out of all rows but released")
    assert "Observe more rounds" in note


def replace_participation(summary: Summary, clients: list[int]) -> Summary:
    """The same summary of a run in which these clients alone took part, in round 10."""
    frame = pd.DataFrame({"run": 0, "round": 10, "client": clients, "num_examples": 1, "failed": False})
    summary.run.__dict__["participation"] = frame
    return summary
