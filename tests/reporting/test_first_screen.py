"""Tests of `fedmem/reporting/first_screen.py`: at most 16 lines, none too wide, and nothing alarming hidden."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedmem.reporting.first_screen import LINES, FirstScreen
from fedmem.reporting.verdict import verdict_of
from fedmem.results.run_summary import Key, KindSummary, Place, RunSummary
from tests.reporting.verdict_helpers import NOTHING, finding, kind, measured
from tests.results.run_summary_helpers import SUMMARY

HIGH, LOW = measured(0.9), measured(0.01, p=0.7)
PAGE = Path("runs/quickstart/0123456789ab/report.html")


def summary_of(kinds: list[KindSummary], **facts: object) -> RunSummary:
    verdicts = tuple(verdict_of(level, kinds) for level in ("local", "global"))
    plain = replace(SUMMARY, alarms=(), failures=0, guarantees=(), leaks=(), undefined=())
    return replace(plain, kinds=tuple(kinds), verdicts=verdicts, **facts)  # type: ignore[arg-type]


def lines(summary: RunSummary, width: int = 80) -> list[str]:
    found = [text for text, _ in FirstScreen(summary=summary, page=PAGE).lines(width)]
    assert len(found) <= LINES
    assert max(map(len, found)) <= width, max(found, key=len)
    return found


def full_kind(name: str) -> KindSummary:
    retention = measured(0.5)
    return kind(
        name,
        finding("exposed", measured(6.0), measured(4.0), retention),
        finding("memorised", HIGH, HIGH, retention),
        finding("detectable", HIGH, LOW, retention),
    )


def test_three_kinds_fit_80_columns_with_all_intervals() -> None:
    found = lines(summary_of([full_kind(name) for name in ("random_pattern", "mislabelled", "typical")]))
    assert not any("…" in line for line in found)
    text = "\n".join(found)
    for name in ("random_pattern", "mislabelled", "typical"):
        (row,) = [line for line in found if line.startswith(f"{name} ") and " memorisation " in line]
        assert row.split(" memorisation ")[1].split() == [".90", "[.85,", ".95]"] * 2 + [".50", "[.45,", ".55]"]
    assert text.count("exposure") >= 3
    assert found[-1] == f"Report: {PAGE}"


def test_a_wide_terminal_has_one_line_a_kind() -> None:
    found = lines(summary_of([full_kind(name) for name in ("a", "b", "c")]), 10_000)
    (row,) = [line for line in found if line.startswith("a ")]
    assert row.split()[1] == "60"
    assert "0.90 [0.85, 0.95] → 0.90 [0.85, 0.95], 0.50 [0.45, 0.55]" in row
    assert "without memorisation 0.5" in next(line for line in found if line.startswith("kind"))


@pytest.mark.parametrize("width", [60, 80, 100, 140, 10_000])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 14, 40])
def test_any_number_of_kinds_fits_and_the_rest_is_counted(width: int, count: int) -> None:
    kinds = [kind(f"kind_with_a_long_name_{i}", finding("memorised", LOW, LOW)) for i in range(count)]
    found = lines(summary_of(kinds), width)
    shown = sum(line.startswith(("kind_", "kin")) and "memorisation" not in line.split(":")[0] for line in found)
    if count >= 14:
        assert any("more rows, 0 of them significant: --full" in line for line in found)
        assert shown < count


def test_significant_rows_are_the_last_to_be_left_out() -> None:
    kinds = [kind(f"quiet{i}", finding("memorised", LOW, LOW)) for i in range(30)]
    kinds.insert(20, kind("loud", finding("memorised", HIGH, HIGH)))
    found = lines(summary_of(kinds))
    assert any(line.startswith("loud") for line in found)
    loud = [kind(f"loud{i}", finding("memorised", HIGH, HIGH)) for i in range(30)]
    found = lines(summary_of(loud))
    shown = sum(line.startswith("loud") for line in found)
    assert any(f"{30 - shown} more rows, {30 - shown} of them significant" in line for line in found)


def test_nothing_alarming_is_hidden_by_shortening() -> None:
    kinds = [full_kind(f"kind{i}") for i in range(20)]
    long = "a text that is much longer than one line of a terminal " * 5
    found = lines(
        summary_of(
            kinds,
            alarms=(long, long, long),
            warnings=(long, long),
            failures=7,
            client_rounds=90,
            audits=(long,),
            guarantees=SUMMARY.guarantees,
            leaks=SUMMARY.leaks,
            undefined=tuple(Place(kind=f"k{i}", title="LiRA AUC", level="local") for i in range(30)),
        )
    )
    text = "\n".join(found)
    for part in (
        "ALARM: a text",
        "(and 2 more: manifest.json)",
        "WARNING: a text",
        "(and 1 more: --full)",
        "FAILED: 7 of 90 client rounds; see participation.parquet",
        "Guaranteed: epsilon ∞",
        "the aggregate leaks pin <b>",
        "Undefined: 30 values (named with --full)",
        "models memorise kind0, kind1, kind2 and 17 more",
        "Report: ",
    ):
        assert part in text, part


def test_values_without_interval_and_few_examples_are_shown() -> None:
    keys = tuple(
        Key(metric=metric, level="local", subject=subject, labels={})
        for subject in ("pin", "0", "1")
        for metric in ("exposure", "exposure.p")
    )
    local = replace(measured(9.0), low=math.nan, high=math.nan, examples=1, keys=keys)
    few = replace(finding("exposed", measured(9.0), None), local=local)
    found = "\n".join(lines(summary_of([kind("pin", few), kind("row", finding("memorised", NOTHING, HIGH))])))
    assert "9.00 (1 of 2 sig.)" in found  # the kind itself is no example
    assert "pin (exposure: 1 of 2 examples, p 0.002)" in verdict_of("local", [kind("pin", few)]).text
    assert any(line.startswith("row") and "–" in line for line in found.splitlines())


def test_kinds_with_exposure_alone_and_one_level_are_shown() -> None:
    found = lines(summary_of([kind("pin", finding("exposed", None, measured(5.0)))]))
    assert any("neither memorisation nor membership was measured" in line for line in found)
    assert any(line.startswith("The aggregate memorises pin") for line in found)


def test_an_equal_answer_gives_way_to_its_finer_statistic() -> None:
    nothing = finding("memorised", replace(NOTHING, value=0.0), None)
    finer = replace(finding("memorised", HIGH, None), labels={"statistic": "probability"}, title="by probability")
    found = "\n".join(lines(summary_of([kind("pin", nothing, finer)])))
    assert "by probability" in found
    assert "memorisation  " not in found


def test_a_page_that_was_not_written_is_not_named() -> None:
    found = FirstScreen(summary=summary_of([]), page=None).lines(80)
    assert found
    assert not any(line.startswith("Report") for line, _ in found)


@pytest.mark.parametrize("text", ["[red]x[/red]", "a\nb", "x" * 300])
def test_hostile_names_stay_on_their_line(text: str) -> None:
    found = lines(summary_of([kind(text, finding("memorised", HIGH, HIGH))], headline=f"{text}: 8 runs"))
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("target", "said"), [(8.0, "epsilon 7.94 (target 8), delta"), (math.nan, "epsilon 7.94, delta")]
)
def test_the_target_epsilon_stands_beside_the_guarantee(target: float, said: str) -> None:
    guarantee = replace(SUMMARY.guarantees[0], epsilon=7.94, target=target)
    (line,) = [line for line in lines(summary_of([], guarantees=(guarantee,)), 100) if line.startswith("Guaranteed")]
    assert said in line


def test_where_interval_and_p_disagree_p_is_in_the_row() -> None:
    unclear = replace(measured(0.07, p=0.02), p_adjusted=0.066)
    summary = summary_of([kind("existing", finding("memorised", HIGH, unclear, measured(0.5)))])
    row = next(line for line in lines(summary) if line.startswith("existing"))
    assert row.endswith("aggregate p .066")
    row = next(line for line in lines(summary, 10_000) if line.startswith("existing"))
    assert "0.07 [0.02, 0.12] p 0.066" in row


def test_a_null_other_than_zero_stands_beside_its_measure() -> None:
    for width, text in ((80, "exposure(1.4)"), (10_000, "exposure (without memorisation 1.44)")):
        assert text in "\n".join(lines(summary_of([full_kind("pin")]), width))


def test_a_finding_that_decides_is_shown_and_others_are_not() -> None:
    finer = replace(finding("memorised", HIGH, HIGH), labels={"statistic": "probability"}, is_headline=False)
    control = replace(finding("detectable", HIGH, HIGH), title="control AUC", is_headline=False)
    guessing = measured(0.51, p=0.7)
    attack, answers = finding("detectable", guessing, guessing), finding("memorised", LOW, LOW)
    found = "\n".join(lines(summary_of([kind("pin", answers, attack, control)])))
    assert "control AUC" in found, "the attack of short tables shows nothing"
    found = "\n".join(lines(summary_of([kind("pin", answers, finer, attack, control)])))
    assert "mem. by prob." in found
    assert "control AUC" not in found, "the kind is memorised"
    assert "memorisation" not in found.partition("At the owning")[0], "right answers show no more"
    found = "\n".join(lines(summary_of([kind("pin", finding("memorised", HIGH, HIGH), finer, attack)])))
    assert "by prob." not in found


@pytest.mark.parametrize("width", [60, 80, 100])
def test_limits_of_guarantees_and_left_out_are_whole(width: int) -> None:
    covered = replace(
        SUMMARY.guarantees[0],
        epsilon=3.47,
        unit="record",
        part="client",
        other_neighbours=("replace: 5.85",),
        limits=("one run", "not reported losses, which may say more than updates"),
    )
    kinds = [replace(full_kind(f"k{i}"), examples=61) for i in range(5)]
    found = lines(summary_of(kinds, guarantees=(covered,), warnings=("w " * 90,)), width)
    text = " ".join(found)
    assert "zero_out; replace: 5.85; one run; not reported losses, which may say more than updates)" in text
    assert "Left out of these values: 5 of 305 examples" in text
    assert any(line.startswith("k0 ") for line in found)


def test_nulls_that_differ_between_cells_are_a_range() -> None:
    first, second = finding("detectable", HIGH, LOW), finding("detectable", HIGH, LOW)
    other = replace(first, aggregate=replace(LOW, null=0.509))
    found = lines(summary_of([kind("a", other), kind("b", second)]), 10_000)
    assert "LiRA AUC (without memorisation 0.5 to 0.509)" in "\n".join(found)
