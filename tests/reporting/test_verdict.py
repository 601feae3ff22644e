"""Tests of `fedmem/reporting/verdict.py`: each sentence follows from its numbers, and flips with them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fedmem.contracts.measurement import Level
from fedmem.reporting.verdict import list_text, verdict_of
from fedmem.results.run_summary import Measured
from tests.reporting.verdict_helpers import NOTHING, finding, kind, measured

HIGH, AT_NULL = measured(0.9), measured(0.01, p=0.6)
LEVELS: tuple[Level, ...] = ("local", "global")


@pytest.mark.parametrize("level", LEVELS)
def test_a_value_above_its_null_is_memorised(level: Level) -> None:
    verdict = verdict_of(level, [kind("pin", finding("memorised", HIGH, HIGH))])
    assert verdict.memorised == ("pin",)
    assert "pin (memorisation 0.90 [0.85, 0.95], n = 60, p 0.002)" in verdict.text
    assert "pin" in verdict.short
    assert "0.90" not in verdict.short


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "value",
    [
        replace(HIGH, low=-0.01),
        replace(HIGH, p=0.051),
        replace(HIGH, low=0.0),
        measured(-0.4),
    ],
)
def test_interval_and_p_must_both_exclude_the_null(level: Level, value: Measured) -> None:
    verdict = verdict_of(level, [kind("pin", finding("memorised", value, value))])
    assert (verdict.memorised, verdict.not_significant, verdict.undefined) == ((), ("pin",), ())
    assert "memorisation is not significant for pin" in verdict.text
    assert ("interval and p disagree" in verdict.text) == value.p_and_interval_differ
    assert verdict.text.endswith("Not significant does not mean absent.")


def test_a_verdict_names_only_what_was_measured() -> None:
    guessing = measured(0.51, p=0.6)
    memorisation, membership = finding("memorised", AT_NULL, AT_NULL), finding("detectable", guessing, guessing)
    both = verdict_of("global", [kind("pin", memorisation, membership)]).text
    assert "neither memorisation nor membership is significant for pin" in both
    assert "not measured" not in both
    alone = verdict_of("global", [kind("pin", memorisation)]).text
    assert alone.startswith("In the aggregate, memorisation is not significant for pin; membership was not measured.")
    attack = verdict_of("global", [kind("pin", membership)]).text
    assert attack.startswith("In the aggregate, membership is not significant for pin; memorisation was not measured.")
    beside = verdict_of("global", [kind("pin", finding("memorised", HIGH, HIGH)), kind("other", memorisation)]).text
    assert beside.endswith("other: not significant; membership was not measured.")
    of_no_value = verdict_of("global", [kind("pin", finding("memorised", NOTHING, NOTHING), membership)]).text
    assert of_no_value.startswith("In the aggregate, membership is not significant for pin.")


def test_the_adjusted_p_is_the_one_that_decides_and_is_named() -> None:
    adjusted = replace(HIGH, p=0.01, p_adjusted=0.04, num_tests=4)
    assert "n = 60, adjusted p 0.04)" in verdict_of("local", [kind("pin", finding("memorised", adjusted, None))]).text
    above = verdict_of("local", [kind("pin", finding("memorised", replace(adjusted, p_adjusted=0.051), None))])
    assert above.memorised == ()
    assert "unclear for pin: interval and p disagree" in above.text


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [NOTHING, replace(HIGH, low=math.nan), replace(HIGH, high=math.nan)])
def test_nan_is_undefined_and_not_no_memorisation(level: Level, value: Measured) -> None:
    verdict = verdict_of(level, [kind("pin", finding("memorised", value, value))])
    assert (verdict.memorised, verdict.not_significant, verdict.undefined) == ((), (), ("pin",))
    assert "undefined" in verdict.text
    assert "not significant" not in verdict.text


def test_one_level_flips_without_the_other() -> None:
    local = verdict_of("local", [kind("pin", finding("memorised", HIGH, AT_NULL))])
    aggregate = verdict_of("global", [kind("pin", finding("memorised", HIGH, AT_NULL))])
    assert (local.memorised, aggregate.memorised) == (("pin",), ())
    assert local.text.startswith("At the owning client, models memorise pin")
    assert aggregate.text.startswith("In the aggregate, memorisation is not significant")


def test_the_aggregate_retains_only_what_clients_memorise() -> None:
    retained = verdict_of("global", [kind("pin", finding("memorised", HIGH, HIGH))])
    assert retained.text.startswith("The aggregate retains memorisation of pin")
    alone = verdict_of("global", [kind("pin", finding("memorised", AT_NULL, HIGH))])
    assert alone.text.startswith("The aggregate memorises pin")
    unobserved = verdict_of("global", [kind("pin", finding("memorised", None, HIGH))])
    assert unobserved.text.startswith("The aggregate memorises pin")


@pytest.mark.parametrize("memorisation", [AT_NULL, NOTHING, None])
def test_detectable_membership_is_never_called_safe(memorisation: Measured | None) -> None:
    findings = [finding("memorised", memorisation, memorisation), finding("detectable", HIGH, HIGH)]
    verdict = verdict_of("global", [kind("row", *findings)])
    assert (verdict.memorised, verdict.detectable, verdict.not_significant) == ((), ("row",), ())
    assert "but membership of row (LiRA AUC 0.90 [0.85, 0.95], n = 60, p 0.002) is detectable" in verdict.text
    state = {None: "not measured", NOTHING: "undefined"}.get(memorisation, "not significant")
    assert f"memorisation is {state}" in verdict.text


def test_detectable_membership_stands_beside_memorisation() -> None:
    kinds = [
        kind("typical", finding("memorised", AT_NULL, AT_NULL), finding("detectable", measured(0.7), AT_NULL)),
        kind("pin", finding("memorised", measured(0.4), HIGH)),
        kind("pattern", finding("exposed", measured(6.0), measured(6.0))),
        kind("other", finding("memorised", AT_NULL, AT_NULL)),
        kind("few", finding("memorised", NOTHING, NOTHING)),
    ]
    verdict = verdict_of("local", kinds)
    assert verdict.text == (
        "At the owning client, models memorise pin (memorisation 0.40 [0.35, 0.45], n = 60, p 0.002) and pattern "
        "(exposure 6.00 [5.95, 6.05] bits, n = 60, p 0.002); membership of typical "
        "(LiRA AUC 0.70 [0.65, 0.75], n = 60, p 0.002) is detectable; other: not significant; few: undefined."
    )


def test_null_of_the_measure_decides_and_not_zero() -> None:
    below = measured(1.4, p=math.nan)
    assert verdict_of("local", [kind("pin", finding("exposed", below, None))]).memorised == ()
    assert verdict_of("local", [kind("pin", finding("exposed", measured(1.6, p=math.nan), None))]).memorised


def test_a_saturated_value_is_marked() -> None:
    verdict = verdict_of("local", [kind("pin", finding("memorised", replace(HIGH, saturated=True), None))])
    assert "0.90 [0.85, 0.95]†" in verdict.text


@pytest.mark.parametrize(("significant", "names"), [(2, ("pin",)), (0, ())])
def test_few_examples_are_decided_one_by_one(significant: int, names: tuple[str, ...]) -> None:
    few = replace(measured(9.0), low=math.nan, high=math.nan, examples=significant)
    assert verdict_of("local", [kind("pin", finding("exposed", few, None), examples=3)]).memorised == names


def test_levels_without_values_say_so() -> None:
    verdict = verdict_of("local", [kind("pin", finding("memorised", None, HIGH))])
    assert verdict.text == "At the owning client, neither memorisation nor membership was measured."
    assert verdict.keys == ()


def test_keys_are_those_of_the_level_that_decides() -> None:
    kinds = [kind("pin", finding("memorised", HIGH, HIGH), finding("detectable", HIGH, None))]
    assert [(key.metric, key.level) for key in verdict_of("local", kinds).keys] == [
        ("memorisation", "local"),
        ("LiRA AUC", "local"),
    ]
    assert [(key.metric, key.level) for key in verdict_of("global", kinds).keys] == [
        ("memorisation", "global"),
        ("memorisation", "local"),  # which decides between retaining and memorising
    ]


def test_long_lists_are_counted() -> None:
    kinds = [kind(f"k{i}", finding("memorised", HIGH, HIGH)) for i in range(12)]
    verdict = verdict_of("local", kinds)
    assert verdict.short == "At the owning client, models memorise k0, k1, k2 and 9 more."
    assert len(verdict.memorised) == 12
    assert list_text([]) == ""


def test_an_auc_below_its_null_is_not_detectable() -> None:
    """Decided: an attacker who turns scores around must know the sign beforehand; the value is named beside."""
    below = measured(0.378)
    verdict = verdict_of("global", [kind("typical", finding("detectable", None, below))])
    assert (verdict.detectable, verdict.memorised) == ((), ())
    assert verdict_of("global", [kind("typical", finding("detectable", None, measured(0.622)))]).detectable


def test_both_sentences_cite_the_same_measure() -> None:
    right = finding("memorised", measured(0.33), measured(0.0, p=0.7))
    finer = replace(finding("memorised", measured(0.31), measured(0.1)), title="memorisation by probability")
    levels: tuple[Level, Level] = ("local", "global")
    for level, value in zip(levels, ("0.31", "0.10"), strict=True):
        assert f"memorisation by probability {value}" in verdict_of(level, [kind("a", right, finer)]).text
