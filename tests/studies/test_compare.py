"""Comparing settings: numbers traced back to the runs by hand, the same files again, failures, interruptions."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.cli.progress import ManyRunsProgress
from fedmem.contracts.events import RoundFinished, ScenarioFailed, ScenarioFinished, ScenariosStarted, TrainingStarted
from fedmem.errors import ScenarioError
from fedmem.studies import compare as comparing
from fedmem.studies.compare import ComparedRuns, compare
from fedmem.studies.contrasts import mean_of
from fedmem.studies.figures import draw_all, slug
from fedmem.studies.report import Table
from fedmem.studies.study_page import page
from tests.studies.compare_helpers import SEEDS, VARY, by_hand, one, rows_of, small


def test_points_are_hundredths(made: ComparedRuns) -> None:
    table = made.differences
    chosen = table[(table.metric == "test_accuracy") & (table.level == "global")]
    assert set(chosen.unit) == {"points"}
    assert chosen.effect.tolist()[2:] == pytest.approx((100 * chosen.difference).tolist()[2:])


def test_local_values_are_those_of_the_owner(made: ComparedRuns) -> None:
    place = {"metric": "exposure", "level": "local", "subject": "random_pattern", "place": "owner"}
    expected = [one(frame, **place) for frame in rows_of(made, 1)]
    table = made.values
    chosen = table[
        (table.metric == "exposure") & (table.level == "local") & (table.setting == made.comparison.labels[1])
    ]
    assert chosen.value.tolist() == expected
    assert chosen.seed.tolist() == list(range(SEEDS))


def test_p_is_adjusted_over_the_differences_of_a_measure(made: ComparedRuns) -> None:
    tested = made.differences[made.differences.reference != ""]
    compared_settings = tested.setting.nunique()
    for metric, rows in tested.groupby("metric"):
        places = rows[["kind", "level"]].drop_duplicates()
        assert set(rows.tests) == {len(places) * 2}, metric
        called = rows.dropna(subset="p")
        assert called.p_adjusted.tolist() == pytest.approx((called.p * called.tests).clip(upper=1.0).tolist())
    assert compared_settings == 2


def test_printed_differences_and_verdicts_agree(made: ComparedRuns) -> None:
    tested = made.differences.dropna(subset="p")
    called = (tested.difference_low > 0) | (tested.difference_high < 0)
    assert (called == (tested.p_adjusted < 0.05)).all()
    assert (called == tested.verdict.isin(["higher", "lower"]))[tested.verdict != "saturated"].all()
    assert ((tested.difference_low < tested.unadjusted_low) & (tested.difference_high > tested.unadjusted_high)).any()


def test_retention_is_the_ratio_of_sums_over_seeds(made: ComparedRuns) -> None:
    about = {"metric": "exposure", "subject": "random_pattern"}
    for setting in range(4):
        frames = rows_of(made, setting)
        local = np.array([one(frame, level="local", place="owner", **about) for frame in frames])
        whole = np.array([one(frame, level="global", place="", **about) for frame in frames])
        null = one(frames[0], metric="exposure.null", level="local", place="owner", subject="random_pattern")
        table = made.retention
        found = table[(table.metric == "exposure") & (table["with"] == "")].retention.tolist()[setting]
        if mean_of(local - null).low > 0:
            assert found == pytest.approx((whole - null).sum() / (local - null).sum())
            assert found != pytest.approx(whole.sum() / local.sum(), rel=1e-3)  # the null counts
        else:
            assert math.isnan(found)
    assert made.retention.retention.notna().any()


def test_repeated_comparison_trains_nothing_and_is_equal(made: ComparedRuns) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted(made.path.iterdir())}

    before = content()
    again = compare(
        small(), vary=VARY, seeds=range(SEEDS), reference={"strategy.kind": "fedavg"}, out=made.path.parents[1]
    )
    assert again.path == made.path
    assert all(outcome.was_finished for outcome in again.outcomes)
    assert content() == before
    assert {"comparison.html", "differences.csv", "exposure_levels.png", "exposure_rounds.png", "retention.png"} <= set(
        before
    )


def test_comparison_file_describes_what_was_compared(made: ComparedRuns) -> None:
    content = json.loads((made.path / "comparison.json").read_text())
    assert content["reference"] == [made.comparison.labels[i] for i in (0, 1, 0, 1)]
    assert content["runs"] == [outcome.scenario.id for outcome in made.outcomes]
    assert content["settings"][3] == {"strategy.kind": "fedmedian", "sampler": "{kind: everyone}"}
    with pytest.raises(AttributeError, match="its tables are values, rounds"):
        made.nothing  # noqa: B018


@pytest.mark.usefixtures("undrawn")
def test_chosen_measures_are_a_smaller_family(made: ComparedRuns) -> None:
    fewer = compare(small(), vary=VARY, seeds=range(SEEDS), measures=["exposure"], out=made.path.parents[1])
    assert set(fewer.differences.metric) == {"exposure"}
    assert fewer.path != made.path
    assert fewer.comparison.reference == (0, 0, 0, 0)
    with pytest.raises(ScenarioError, match=r"nothing is measured by no component .*; choose from: .*exposure"):
        compare(small(), vary=VARY, seeds=range(SEEDS), measures=["nothing"], out=made.path.parents[1])
    with pytest.raises(ScenarioError, match=r"strategy.kind takes fedavg, fedmedian"):
        compare(small(), vary=VARY, seeds=range(SEEDS), reference=["strategy.kind=krum"], out=made.path.parents[1])
    with pytest.raises(ScenarioError, match=r"client.lr does not vary"):
        compare(small(), vary=VARY, seeds=range(SEEDS), reference={"client.lr": 0.1}, out=made.path.parents[1])


@pytest.mark.usefixtures("undrawn")
def test_failed_run_is_left_out_and_tried_again(tmp_path: Path) -> None:
    quick = small(rounds=2, runs=2, estimators=[{"kind": "memorisation"}], probes=[])
    vary: dict[str, list[Any]] = {
        "strategy.kind": ["fedavg", "tests.execution.many_scenarios_helpers:Breaking"],
        "client.lr": [0.1, 0.3],
    }
    made = compare(quick, vary=vary, seeds=(0, 1), out=tmp_path, jobs=1)
    assert [(dict(cell.setting)["client.lr"], cell.seed) for cell, _ in made.failures] == [
        ("0.1", 0),
        ("0.1", 1),
        ("0.3", 0),
        ("0.3", 1),
    ]
    assert "4 of 8 runs failed" in made.failure_text
    assert "Breaking, lr=0.1, seed 0: broken" in made.failure_text
    assert set(made.values.setting) == {"fedavg, lr=0.1", "fedavg, lr=0.3"}
    assert set(made.differences.setting) == {"fedavg, lr=0.1", "fedavg, lr=0.3"}
    assert made.differences["mean"].notna().all()
    assert "broken" in (made.path / "comparison.html").read_text()
    assert made.trades.empty
    text = " ".join(line for line, _ in Table(made.comparison).lines(300))
    said = "they are on no front: Breaking, lr=0.1; Breaking, lr=0.3"
    assert said in text
    assert said in (made.path / "comparison.html").read_text()
    again = compare(quick, vary=vary, seeds=(0, 1), out=tmp_path, jobs=1)
    assert [outcome.was_finished for outcome in again.outcomes] == [True] * 4 + [False] * 4


@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_means_and_no_intervals(made: ComparedRuns) -> None:
    single = compare(small(), vary=VARY, seeds=[0], out=made.path.parents[1], jobs=1)
    assert single.differences.difference.notna().any()
    assert single.differences[["mean_low", "difference_low", "p", "p_adjusted", "detectable"]].isna().all(axis=None)
    assert set(single.differences.verdict[1:4]) <= {"undefined"}
    text = "\n".join(line for line, _ in Table(single.comparison).lines(120))
    assert "With one seed no difference has an interval" in text
    assert "With one seed no difference has an interval" in page(single.comparison, "", [])[0]
    assert "With one seed" not in "\n".join(line for line, _ in Table(made.comparison).lines(120))


def test_a_planted_difference_is_called_by_its_side(made: ComparedRuns) -> None:
    for shift, verdict in ((50.0, "higher"), (-50.0, "lower")):
        found = by_hand(partial(np.add, shift), made)
        last = [row for row in found.rows if row.setting == 3]
        assert {row.verdict for row in last if row.contrast is not None and row.contrast.sd > 0} == {verdict}
        assert all(row.verdict == "" for row in found.rows if row.setting < 2)


@pytest.mark.usefixtures("undrawn")
def test_rates_are_compared_at_one_false_positive_rate_only(tmp_path: Path) -> None:
    """Fewer clients take part, so fewer outs are seen, and the smallest rate that they support is larger."""
    changed = small(rounds=2, estimators=[{"kind": "membership", "attack": {"kind": "loss_threshold"}}])
    vary = ["sampler={kind: uniform, size: 2},{kind: everyone}"]
    made = compare(changed, vary=vary, seeds=(0, 1), measures=["tpr", "auc"], out=tmp_path, jobs=1)
    rates = made.values[(made.values.metric == "tpr") & (made.values.level == "local")]
    assert rates.fpr.notna().all()
    assert not set(rates.fpr[rates.setting == "uniform size=2"]) & set(rates.fpr[rates.setting == "everyone"])
    table = made.differences.set_index(["metric", "level", "setting"])
    assert table.verdict["tpr", "local", "everyone"] == "other rates"
    assert math.isnan(table.difference["tpr", "local", "everyone"])
    assert table.difference_seeds["tpr", "local", "everyone"] == 0
    # an AUC has no rate
    assert table.difference_seeds["auc", "local", "everyone"] == 2
    kept = made.retention[(made.retention.metric == "tpr") & (made.retention.setting == "everyone")]
    assert kept.difference.isna().all()
    text = "\n".join(line for line, _ in Table(made.comparison).lines(140))
    assert "other rates" in text
    # nor are means over the same examples, which is said of whoever is compared
    assert table.other_examples.tolist() == [False, True] * (len(table) // 2)
    assert "Read over other examples than the reference's: everyone." in " ".join(text.split())


def test_seeds_with_another_rate_do_not_count_and_make_no_front(made: ComparedRuns) -> None:
    one = next(one for one in made.comparison.tested_series if one.quantity.level == "global" and one.quantity.kind)
    fpr = np.full_like(one.values, 0.1)
    fpr[2, 0] = 0.2
    found = replace(
        made.comparison, series=(*(s for s in made.comparison.series if s is not one), replace(one, fpr=fpr))
    )
    row = next(row for row in found.rows if row.quantity == one.quantity and row.setting == 2)
    assert row.contrast is not None
    assert row.contrast.n == SEEDS - 1
    assert row.contrast.value == pytest.approx((one.values[2, 1:] - one.values[0, 1:]).mean())
    assert row.verdict != "other rates"
    assert one.quantity in {trade.quantity for trade in made.comparison.trades}
    assert one.quantity not in {trade.quantity for trade in found.trades}


def test_tables_and_figures_take_what_is_missing(made: ComparedRuns) -> None:
    for empty in (by_hand(lambda values: np.full_like(values, np.nan), made), replace(made.comparison, series=())):
        assert all(math.isnan(row.mean.value) for row in empty.rows if row.setting == 3)
        assert [line for line, _ in Table(empty).lines(100)]
    assert all(
        drawing.png().startswith(b"\x89PNG")
        for _, drawing, _ in draw_all(by_hand(lambda values: values * np.nan, made))
    )
    assert not list(draw_all(replace(made.comparison, series=())))


def test_the_page_escapes_and_loads_nothing(made: ComparedRuns) -> None:
    evil = tuple((("strategy.kind", f"<script>alert({place})</script>"),) for place in range(4))
    text, pictures = page(replace(made.comparison, settings=evil), "<b>title</b>", ["<i>cause</i>"])
    assert "<script>alert" not in text
    assert "<b>title" not in text
    assert "<i>cause" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert {f"{name}.png" for name in pictures} == {file.name for file in made.path.glob("*.png")}
    assert slug("../evil name") == "evil_name"


def test_progress_counts_and_prints_failures() -> None:
    from io import StringIO

    now, stream = [0.0], StringIO()
    with ManyRunsProgress(stream=stream, every_seconds=0, clock=lambda: now[0]) as tally:
        tally(ScenariosStarted(total=4, finished=1))
        now[0] = 10.0
        tally(TrainingStarted(place=1, rounds=10, runs=2))
        tally(RoundFinished(place=1, round=5, rounds=10, first=0, last=1))
        assert tally.text() == "1 of 4 done, 1 running (round 5 of 10), 0 failed, about 50 s left"
        tally(ScenarioFinished(place=1, folder="runs/tiny/0123"))
        tally(ScenarioFailed(place=2, error="broke"))
        tally(TrainingStarted(place=3, rounds=10, runs=2))
        tally(RoundFinished(place=3, round=9, rounds=10, first=0, last=1))
        assert tally.text().startswith("2 of 4 done, 1 running (round 9 of 10), 1 failed")
        tally(ScenarioFinished(place=3, folder="runs/tiny/4567"))
    text = stream.getvalue()
    assert "4 scenarios, 1 of them finished before" in text
    assert "scenario 3 failed: broke" in text
    assert text.endswith("3 of 4 done, 0 running, 1 failed\n")


def test_a_whole_component_may_be_set_and_its_kind_varied(tmp_path: Path) -> None:
    comparing.check_distinct_names({"strategy.kind": ["fedavg"]}, ["strategy={kind: krum}", "strategy.kinds=1"])


def test_compare_is_exported_by_the_package() -> None:
    assert fedmem.compare is compare


@pytest.mark.slow
@pytest.mark.nightly
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """A real process, ended by the kernel when its first run is there."""
    file = tmp_path / "tiny.yaml"
    file.write_text(small(rounds=12).to_yaml())
    arguments = [
        str(file),
        "--vary",
        "strategy.kind=fedavg,fedmedian",
        "--seeds",
        "0:8",
        "--out",
        str(tmp_path / "out"),
    ]
    code = "from fedmem.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "compare", *arguments, "--jobs", "1", "--quiet"])
    place, end = tmp_path / "out" / "tiny", time.monotonic() + 60
    while not list(place.glob("[!.]*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = {path.parent: path.stat().st_mtime_ns for path in place.glob("[!.]*/manifest.json")}
    assert 0 < len(there) < 16
    assert not list(place.glob("compare-*"))
    made = compare(file, vary=["strategy.kind=fedavg,fedmedian"], seeds="0:8", out=tmp_path / "out", jobs=1)
    assert sum(outcome.was_finished for outcome in made.outcomes) == len(there)
    assert all((path / "manifest.json").stat().st_mtime_ns == when for path, when in there.items())
    assert not made.failures
