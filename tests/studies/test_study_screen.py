"""Tests of `fedmem/studies/study_screen.py`: at most 20 lines, none too wide, and nothing significant hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fedmem.studies.comparison import Comparison
from fedmem.studies.reading_notes import few_seeds_warning
from fedmem.studies.report import study_warnings
from fedmem.studies.study_screen import LINES, StudyScreen
from fedmem.studies.study_summary import StudySummary
from tests.studies.study_helpers import FIRM, LIKE, MORE, as_sweep, series_of, study_of, summary_of

LAST = ("Report: runs/digits/compare-01/comparison.html",)


def lines(summary: StudySummary, width: int = 80) -> list[str]:
    found = [text for text, _ in StudyScreen(summary=summary, last=LAST).lines(width)]
    assert len(found) <= LINES
    assert max(map(len, found[: -len(LAST)])) <= width, max(found, key=len)
    assert found[-1:] == list(LAST)
    return found


def small() -> Comparison:
    return study_of(
        [
            series_of("canary", "local", [FIRM, LIKE, FIRM]),
            series_of("canary", "global", [FIRM, MORE, LIKE]),
            series_of("", "local", [FIRM, LIKE, LIKE], metric="test_accuracy"),
            series_of("", "global", [FIRM, LIKE, LIKE], metric="test_accuracy"),
        ]
    )


def test_each_setting_has_a_line_with_intervals_and_arrows() -> None:
    found = lines(summary_of(small()))
    assert found[0] == "digits: 3 settings x 5 seeds: fedavg; krum; bulyan"
    rows = {tuple(line.split()[:3]): line for line in found if line.startswith("memorisation, canary")}
    assert set(rows) == {("memorisation,", "canary", name) for name in ("fedavg", "krum", "bulyan")}
    assert "0.71 [0.68, 0.73]↑" in rows["memorisation,", "canary", "krum"]
    assert sum("↑" in line and "[" in line for line in found) == 1
    assert any(line.startswith("With krum, memorisation of canary (aggregate)") for line in found)
    assert "8 adjusted differences: 1 significant, 6 not significant, 1 identical (--full)" in found


def test_arrows_turn_with_the_values() -> None:
    turned = study_of([series_of("canary", "global", [MORE, FIRM])])
    found = lines(summary_of(turned))
    assert sum("↓" in line and "[" in line for line in found) == 1
    assert not any("↑" in line and "[" in line for line in found)


@pytest.mark.parametrize("width", [60, 80, 100, 10_000])
@pytest.mark.parametrize("num_kinds", [1, 4, 30])
def test_any_number_of_rows_fits_and_the_rest_is_counted(width: int, num_kinds: int) -> None:
    values: Sequence[Sequence[float]] = [FIRM, LIKE, LIKE]
    series = [series_of(f"kind{i}", level, values) for i in range(num_kinds) for level in ("local", "global")]
    series[-1] = series_of(f"kind{num_kinds - 1}", "global", [FIRM, [1.5, 1.6, 1.5, 1.52, 1.49], LIKE])
    found = lines(summary_of(study_of(series), fronts=("a: b",) * 9, failures=("x" * 300,) * 3), width)
    if width >= 80:
        assert any("↑" in line and "[" in line for line in found), "significant rows are the last to be left out"
    assert any(line.startswith("FAILED: xxx") and "2 more: --full" in line for line in found)
    if num_kinds == 30:
        assert any("more rows, 0 of them significant: --full" in line for line in found)


def test_many_sentences_are_counted() -> None:
    many = summary_of(small())
    many = replace(many, sentences=many.sentences * 20)
    assert any("more sentences: --full" in line for line in lines(many))


def test_a_sweep_says_that_nothing_is_compared() -> None:
    found = lines(summary_of(as_sweep(small())))
    assert any(line.startswith("Nothing is compared") for line in found)
    assert "is lowest with bulyan and highest with krum (not tested)" in " ".join(found)
    assert not any("↑" in line for line in found)


def test_a_sweep_says_no_word_of_significance() -> None:
    series = [series_of(f"kind{i}", "global", [FIRM, LIKE, MORE]) for i in range(30)]
    found = lines(summary_of(as_sweep(study_of(series))))
    assert sum(line.startswith("…") and line.endswith("more rows: --full") for line in found) == 1
    assert "significant" not in " ".join(found)


@pytest.mark.parametrize("is_sweep", [True, False])
def test_fronts_have_their_caveat_and_their_axis(is_sweep: bool) -> None:
    """Rows of utility are shown before rows whose intervals are the whole range."""
    vague = [series_of(f"kind{i}", "global", [(0.0, 1.0, 0.5, 0.0, 1.0)] * 3) for i in range(30)]
    vague = [replace(each, quantity=replace(each.quantity, range=(0.3, 0.7))) for each in vague]
    use = series_of("", "global", [FIRM, LIKE, LIKE], metric="test_accuracy")
    study = study_of([*vague, use])
    assert {row.is_anything for row in summary_of(study).values if row.kind} == {True}
    found = lines(summary_of(as_sweep(study) if is_sweep else study, fronts=("auc, a: krum",) * 6), 120)
    assert sum(line.startswith("test accuracy") for line in found) == 3
    caveat = "by means, not tested" if is_sweep else "by means, significant or not"
    assert f"Front ({caveat}): test accuracy and auc, a: krum (and 5 more fronts: --full)" in found
    long = lines(summary_of(study, fronts=("memorisation, random_pattern: fedavg; fedmedian; Halfway",)), 80)
    assert any(line.endswith("random_pattern: fedavg; fedmedian; Halfway") for line in long)


NOT_LEARNT = "nothing shows that the aggregate has learnt anything: on the test set, it is no better. Train longer."


def test_each_warning_is_short_and_names_its_setting() -> None:
    study = replace(
        small(), seeds=(0, 1, 2, 3, 4), warnings=(f"WARNING: {NOT_LEARNT}", "b; c"), warned=((1,), (0, 1, 2))
    )
    warnings = study_warnings(study)
    assert warnings == (f"With krum, {NOT_LEARNT}", "b; c")
    few = few_seeds_warning(3)
    found = [line for line in lines(summary_of(study, warnings=(*warnings, few)), 100) if line.startswith("WARNING")]
    assert found[0] == "WARNING: With krum, nothing shows that the aggregate has learnt anything (--full)"
    assert found[1] == "WARNING: b (--full)"
    assert found[2] == f"WARNING: {few.partition('. ')[0]} (--full)"
    many = [line for line in lines(summary_of(study, warnings=(*warnings, few, few))) if line.startswith("WARNING")]
    assert (len(many), many[-1]) == (3, "WARNING: 2 more warnings: --full")
