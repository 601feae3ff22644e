"""Tests of `fedmem/studies/study_sentences.py`: each sentence is bound to values, and flips with them."""

from __future__ import annotations

import math

import pytest

from tests.studies.study_helpers import FIRM, LIKE, MORE, as_sweep, sentences, series_of, study_of, texts

NAN = (math.nan,) * 5


def test_a_significant_difference_flips_with_the_values() -> None:
    higher = study_of([series_of("canary", "global", [FIRM, MORE])])
    assert texts(higher) == ["With krum, memorisation of canary (aggregate) is significantly higher than with fedavg."]
    lower = study_of([series_of("canary", "global", [MORE, FIRM])])
    assert texts(lower) == ["With krum, memorisation of canary (aggregate) is significantly lower than with fedavg."]
    alike = study_of([series_of("canary", "global", [FIRM, LIKE])])
    assert texts(alike) == ["No value of krum differs significantly from fedavg; this does not mean that none does."]


def test_sentences_follow_the_adjusted_p() -> None:
    """The same difference is significant alone, and not among forty."""
    hardly = (0.53, 0.57, 0.53, 0.56, 0.60)
    alone = study_of([series_of("canary", "global", [FIRM, hardly])])
    assert "significantly higher" in texts(alone)[0]
    among = study_of([series_of(f"kind{i}", "global", [FIRM, hardly]) for i in range(40)])
    assert texts(among) == ["No value of krum differs significantly from fedavg; this does not mean that none does."]


def test_each_sentence_names_the_differences_that_decide_it() -> None:
    found = sentences(
        study_of(
            [
                series_of("canary", "local", [FIRM, MORE, LIKE]),
                series_of("canary", "global", [MORE, FIRM, MORE]),
                series_of("", "global", [FIRM, FIRM, LIKE], metric="test_accuracy"),
            ]
        )
    )
    assert [(each.state, each.settings) for each in found] == [
        ("significant", ("krum",)),
        ("significant", ("krum",)),
        ("not significant", ("bulyan",)),
    ]
    assert sorted(each.differences for each in found[:2]) == [(0,), (2,)]
    assert found[2].differences == (1, 3, 5)


def test_identical_and_undefined_are_two_things() -> None:
    same = study_of([series_of("canary", "global", [FIRM, FIRM, LIKE])])
    assert texts(same)[1] == "In every seed, values of krum are identical to those of fedavg."
    shifted = tuple(value + 0.1 for value in FIRM)
    constant = study_of([series_of("canary", "global", [FIRM, shifted])])
    assert texts(constant) == ["All differences of krum to fedavg are undefined."]
    (one_seed,) = sentences(study_of([series_of("canary", "global", [FIRM[:1], MORE[:1]])]))
    assert one_seed.state == "undefined"
    assert "With one seed" in one_seed.text


def test_a_setting_without_a_finished_run_is_named() -> None:
    found = texts(study_of([series_of("canary", "global", [FIRM, LIKE, NAN])]))
    assert found[-1] == "bulyan has no finished run, so all of its values are undefined."
    assert not any("bulyan" in text for text in found[:-1])
    alone = texts(study_of([series_of("canary", "global", [FIRM, NAN])]))
    assert alone == ["krum has no finished run, so all of its values are undefined."]


def test_few_seeds_are_said() -> None:
    few = study_of([series_of("canary", "global", [FIRM[:4], MORE[:4]])])
    assert texts(few)[0].endswith("than with fedavg (few seeds).")


def test_kinds_and_levels_of_one_setting_are_compared() -> None:
    series = [
        series_of("canary", "local", [MORE]),
        series_of("canary", "global", [FIRM]),
        series_of("typical", "local", [FIRM]),
        series_of("typical", "global", [LIKE]),
    ]
    assert set(texts(study_of(series))) == {
        "canary has significantly higher memorisation (owning client) than typical.",
        "At the owning client, memorisation of canary is significantly higher than in the aggregate.",
    }
    turned = [series_of(kind, level, [FIRM]) for kind in ("canary", "typical") for level in ("local", "global")]
    assert texts(study_of(turned)) == ["In every seed, values are identical for canary and typical."]


@pytest.mark.parametrize(
    ("values", "low", "high"), [([FIRM, MORE], "fedavg", "krum"), ([MORE, FIRM], "krum", "fedavg")]
)
def test_a_sweep_names_its_extremes_and_tests_nothing(values: list[tuple[float, ...]], low: str, high: str) -> None:
    (sentence,) = sentences(as_sweep(study_of([series_of("canary", "global", values)])))
    assert (
        sentence.text
        == f"In the aggregate, memorisation of canary is lowest with {low} and highest with {high} (not tested)."
    )
    assert (sentence.state, sentence.settings) == ("not tested", (low, high))
    assert texts(as_sweep(study_of([series_of("canary", "global", [FIRM, FIRM])]))) == []
