"""The most memorised examples: known scores, ties, the null, and what is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import hypergeom

from fedmem.errors import ComponentError, RunError
from fedmem.estimation.statistics import newcombe, wilson
from fedmem.estimators.consistency import Consistency
from fedmem.estimators.exposure import Exposure
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.reporting.top_examples import headline
from fedmem.results.top import NO_INTERVAL, Choice, notes, rank_examples
from tests.results.read_helpers import write
from tests.results.top_helpers import answers, bank, birth_years, coins, finished, stored

RATES = [(4, 4), (8, 0), (5, 4), (8, 3), (2, 4), (7, 2), (8, 3), (0, 0), (8, 8)]


def test_known_scores_are_in_order_with_their_ties(tmp_path: Path) -> None:
    frame = finished(tmp_path / "run", RATES).top(n=5)
    assert frame["subject"].tolist() == [1, 3, 6, 5, 2]
    assert frame["global"].tolist() == [1.0, 0.625, 0.625, 0.625, 0.125]
    assert frame["rank"].tolist() == [1, 2, 2, 2, 5]
    assert frame["tied"].tolist() == [False, True, True, True, False]
    assert finished(tmp_path / "again", RATES).top(n=99)["subject"].tolist()[-1] == 4


def test_p_and_intervals_are_those_of_the_counts(tmp_path: Path) -> None:
    frame = finished(tmp_path / "run", RATES).top(n=2)
    expected = [hypergeom.sf(7, 16, 8, 8), hypergeom.sf(7, 16, 11, 8)]
    assert frame["p"].tolist() == pytest.approx(expected, rel=1e-9)
    # the second p is shared by two examples: the third smallest of nine
    assert frame["p_adjusted"].tolist() == pytest.approx([9 * expected[0], 9 / 3 * expected[1]], rel=1e-9)
    low, high = newcombe([8, 8], 8, [0, 3], 8, 1 - 0.05 * 2 / 9)
    assert frame["global_low"].tolist() == pytest.approx(low.tolist())
    assert frame["global_high"].tolist() == pytest.approx(high.tolist())
    assert frame["significant"].tolist() == [True, True]
    assert set(frame["local_n"]) == {16}


def test_a_smaller_choice_has_narrower_intervals_only_if_all(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    some, every = (rank_examples(run, Choice(n=n)) for n in (1, 9))
    assert some.interval_level == pytest.approx(1 - 0.05 / 9)
    assert every.interval_level == pytest.approx(0.95)
    assert some.frame["global_low"][0] < every.frame["global_low"][0]


def test_the_level_decides_the_order(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES, list(reversed(RATES)))
    assert run.top(n=1, level="local")["subject"].tolist() == [7]
    assert run.top(n=1, level="global")["subject"].tolist() == [1]
    assert run.top(n=1, level="local")["global"].tolist() == [0.0]


@pytest.mark.parametrize("client", ["Süd", "1", "#1", 1])
def test_a_client_is_its_name_or_its_number(tmp_path: Path, client: Any) -> None:
    frame = finished(tmp_path / "run", RATES).top(client=client)
    assert frame["subject"].tolist() == [1, 7, 4]
    assert set(frame["owner_name"]) == {"Süd"}


def test_a_name_that_is_a_number_comes_before_the_number(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    assert set(run.top(client="0")["owner"]) == {2}
    assert set(run.top(client="#0")["owner"]) == {0}
    assert set(run.top(client=0)["owner"]) == {0}


def test_a_kind_and_its_true_labels(tmp_path: Path) -> None:
    frame = finished(tmp_path / "run", RATES).top(kind="mislabelled")
    assert frame["subject"].tolist() == [1, 3, 5, 7]
    assert set(frame["target_name"]) == {"<dog>"}
    assert set(frame["true_target_name"]) == {"cat"}


def test_candidates_are_those_that_are_asked_for(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    assert rank_examples(run, Choice(kind="mislabelled")).candidates == 4
    assert rank_examples(run, Choice(n=2)).further_ties == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(kind="mislabeled"), "did you mean 'mislabelled'.*typical, mislabelled"),
        (Choice(client="Ost"), "client: 'Ost' is no client that holds.*choose from: Nord, Süd, 0"),
        (Choice(client=7), "client: '7'"),
        (Choice(client=-1), "client: '-1'"),
        (Choice(measure="memorization"), "did you mean 'memorisation'.*probability_memorisation"),
        (Choice(n=0), "n: is 0"),
    ],
)
def test_mistakes_are_answered_with_choices(tmp_path: Path, choice: Choice, message: str) -> None:
    run = finished(tmp_path / "run", RATES)
    with pytest.raises(ComponentError, match=message) as caught:
        rank_examples(run, choice)
    assert caught.value.exit_code == 2


def test_a_run_without_scores_of_examples_says_what_to_add(tmp_path: Path) -> None:
    write(tmp_path / "run")
    from fedmem.results.read import read

    with pytest.raises(RunError, match="add the estimator memorisation"):
        read(tmp_path / "run").top()


def test_scores_that_are_no_shares_have_p_and_no_interval(tmp_path: Path) -> None:
    frame = finished(tmp_path / "run", RATES).top(n=2, measure="probability_memorisation")
    assert frame["subject"].tolist()[0] == 1
    assert frame["p"][0] == pytest.approx(hypergeom.sf(7, 16, 8, 8))
    assert np.isnan(frame["global_low"]).all()
    assert set(frame["global_note"]) == {NO_INTERVAL}


def test_a_null_run_marks_no_example(tmp_path: Path) -> None:
    """Of runs without memorisation 5 % at most mark anything; here few seeds, the rate itself is held in estimation."""
    marked = 0
    for seed in range(5):
        is_in, rng = coins(30, seed), np.random.default_rng(100 + seed)
        right = rng.random(is_in.shape) < rng.random(30)
        run = stored(tmp_path / str(seed), bank(is_in, right, right, ["typical"] * 30))
        ranking = rank_examples(run, Choice())
        marked += bool(ranking.significant)
        assert ranking.frame["global"][0] > 0.2, "the winner's curse"
    assert marked <= 1


def test_an_effect_of_one_example_is_found_among_many(tmp_path: Path) -> None:
    is_in, rng = coins(30), np.random.default_rng(1)
    right = rng.random(is_in.shape) < 0.5
    right[:, 7] = answers(is_in, [(8, 0)] * 30)[:, 7]
    frame = stored(tmp_path / "run", bank(is_in, right, right, ["typical"] * 30)).top()
    assert frame["subject"][0] == 7
    assert frame["significant"].tolist() == [True] + [False] * 9


def test_the_frame_carries_what_its_reader_must_know(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [(8, 0), (5, 4), (8, 0), (4, 4)])
    frame = run.top(n=1)
    assert frame["candidates"].tolist() == [4]
    assert frame["level_of_interval"].tolist() == [1 - 0.05 / 4]
    assert frame.attrs["note"] == " ".join(notes(rank_examples(run, Choice(n=1))))
    assert "too high on average" in frame.attrs["note"]
    assert "1 more example has the score of the last one" in frame.attrs["note"]


def test_examples_without_a_score_are_counted(tmp_path: Path) -> None:
    is_in = coins(6)
    whole = answers(is_in, [(8, 0)] * 6)
    made = bank(is_in, whole, whole, ["typical"] * 6)
    seen = tuple(part for part in made.evidence if part.level == "global" or (part.client != 2).all())
    run = stored(tmp_path / "run", replace(made, evidence=seen))
    ranking = rank_examples(run, Choice(level="local"))
    assert (ranking.candidates, ranking.unscored) == (4, 2)
    with pytest.warns(UserWarning, match="2 more have no score here"):
        assert len(run.top(level="local")) == 4
    assert "2 more have no score here" in " ".join(notes(ranking))
    whole_run = finished(tmp_path / "all", RATES)
    assert "have no score" not in " ".join(notes(rank_examples(whole_run, Choice(level="local"))))


def test_likely_secrets_of_people_are_not_significant(tmp_path: Path) -> None:
    """Birth years that nobody memorised rank high among uniform references; only drawn secrets have p of ranks."""
    drawn, written = (
        stored(tmp_path / "-".join(kinds), birth_years(kinds), estimators=[Exposure()]) for kinds in ((), ("years",))
    )
    metrics = {"exposure.null", "exposure_p", "exposure_rejected"}
    assert metrics <= set(drawn.measurements.metric)
    assert not metrics & set(written.measurements.metric)
    values = [
        run.measurements.query("metric == 'exposure' and subject == 'years'").value.iloc[-1] for run in (drawn, written)
    ]
    assert values[0] == values[1] > 6
    assert drawn.top(measure="exposure", n=40)["significant"].mean() > 0.9, "what was wrong"
    ranking = rank_examples(written, Choice(measure="exposure", n=40))
    assert ranking.frame["p"].isna().all()
    assert not ranking.frame["significant"].any()
    assert ranking.significant is None
    assert any("only the comparison of in and out runs" in note for note in notes(ranking))
    tables = [
        next(part for part in sections(Summary(run)) if part.title == "LOCAL AND GLOBAL") for run in (drawn, written)
    ]
    has_null = [any("without memorisation" in heading for heading, _ in part.blocks) for part in tables]
    has_note = [any("only the comparison of in and out runs" in note for note in part.notes) for part in tables]
    assert (has_null, has_note) == ([True, False], [False, True])


def test_intervals_of_an_estimator_are_widened_for_the_selection(tmp_path: Path) -> None:
    is_in = coins(6)
    right = answers(is_in, [(8, 1), (8, 2), (8, 3), (8, 5), (8, 6), (8, 4)])
    run = stored(tmp_path / "run", bank(is_in, right, right, ["typical"] * 6), estimators=(Consistency(),))
    every, some = (run.top(n=n, measure="consistency") for n in (6, 1))
    low, high = wilson([6, 5], 8)
    assert every["subject"].tolist()[:2] == [4, 3]
    assert every["global_low"].tolist()[:2] == pytest.approx(low.tolist())
    assert every["global_high"].tolist()[:2] == pytest.approx(high.tolist())
    assert some["level_of_interval"].item() == pytest.approx(1 - 0.05 / 6)
    factor = stdtrit(7, 1 - 0.025 / 6) / stdtrit(7, 0.975)
    assert some["global_low"].item() == pytest.approx(max(0, 0.75 - factor * (0.75 - low[0])))
    assert some["global_high"].item() == pytest.approx(min(1, 0.75 + factor * (high[0] - 0.75)))
    assert np.isnan(some["p"].item())
    assert "most memorised" not in headline(run, rank_examples(run, Choice(n=1, measure="consistency")))


def test_p_of_one_draw_are_adjusted_for_any_dependence(tmp_path: Path) -> None:
    rates = [(8, 1)] * 2 + [(7, 2)] * 4 + [(4, 4)] * 6
    is_in = np.repeat(coins(6), 2, axis=1)
    made = bank(is_in, answers(is_in, rates), answers(is_in, rates), ["typical"] * 12)
    grouped = replace(made, audit=replace(made.audit, coin_group=np.repeat(np.arange(6) * 2, 2)))
    apart, together = (
        rank_examples(stored(tmp_path / name, one), Choice(n=4))
        for name, one in (("apart", made), ("together", grouped))
    )
    factor = sum(1 / i for i in range(1, 13))
    before, after = (one.frame["p_adjusted"].to_numpy() for one in (apart, together))
    np.testing.assert_allclose(after, np.minimum(1.0, before * factor))
    assert (before <= 0.05).sum() > (after <= 0.05).sum(), "the test can fail"
    assert (1 - together.interval_level) * factor == pytest.approx(1 - apart.interval_level)
    assert "adjusted for any dependence" in together.frame.attrs["note"]
    assert "dependence" not in apart.frame.attrs["note"]
