"""Tests of `fedmem/estimators/trajectories.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import SignalEvidence
from fedmem.errors import ComponentError
from fedmem.estimation.estimates import estimate
from fedmem.estimators import trajectories
from fedmem.estimators.trajectories import Trajectories
from tests.banks import coins, make_bank
from tests.estimators.estimators_helpers import by_key
from tests.estimators.series_helpers import answers, bank_of_margins, summaries
from tests.narrowing import present

# row of answers -> forgetting, first learning, final learning
ROWS = {
    "111111": (0, 0, 0),
    "000000": (1, 1, 1),  # never learnt
    "011111": (0, 1 / 6, 1 / 6),
    "110100": (2 / 5, 0, 1),
    "010101": (2 / 5, 1 / 6, 5 / 6),
    "101111": (1 / 5, 0, 2 / 6),
    ".1.0.1": (1 / 2, 0, 2 / 3),  # only three models were there
    ".....0": (np.nan, 1, 1),  # no step was seen
}
EVENTS = ("forgetting", "first_learning", "final_learning")


def measured(view: View, clock: str) -> dict[str, FloatArray]:
    """(R, m) by measure, at one clock."""
    quantities = Trajectories().example_values(view)
    return {one.metric: one.values for one in quantities if one.labels.get("clock") == clock}


def repeated(margin: FloatArray, runs: int = 2) -> FloatArray:
    return np.repeat(margin, runs, axis=1)


def test_events_are_those_of_rows_written_by_hand() -> None:
    margin = repeated(answers(*ROWS))
    view = summaries(bank_of_margins(margin, coins(2, len(ROWS), np.random.default_rng(0))))[""]
    found = measured(view, "rounds")
    for place, (row, expected) in enumerate(ROWS.items()):
        np.testing.assert_allclose([found[name][1, place] for name in EVENTS], expected, err_msg=row)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("_RIGHT", -0.5),  # a threshold that nothing is below
        ("_divide", lambda count, of: count),  # no normaliser
        ("_divide", lambda count, of: count / np.maximum(of + 1, 1)),
        ("_divide", lambda count, of: -count / np.maximum(of, 1)),
    ],
)
def test_broken_threshold_sign_or_normaliser_is_found(
    name: str, broken: float | Callable[..., FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectories, name, broken)
    with pytest.raises(AssertionError):
        test_events_are_those_of_rows_written_by_hand()


def test_means_are_sums_over_models_divided_by_their_number() -> None:
    margin = np.random.default_rng(1).normal(size=(5, 4, 3))
    margin[2, :, 0] = np.nan
    view = summaries(bank_of_margins(margin, coins(4, 3, np.random.default_rng(0))))[""]
    found = measured(view, "rounds")
    for run in range(4):
        for j in range(3):
            row = margin[:, run, j][~np.isnan(margin[:, run, j])]
            p = 1 / (1 + np.exp(-row))
            np.testing.assert_allclose(found["cumulative_loss"][run, j], -np.log(p).sum() / len(p))
            np.testing.assert_allclose(found["confidence"][run, j], p.sum() / len(p))
            np.testing.assert_allclose(
                found["confidence_spread"][run, j], np.sqrt(((p - p.mean()) ** 2).sum() / len(p))
            )
            np.testing.assert_allclose(found["log_odds_aum"][run, j], row.sum() / len(p))


def test_constant_loss_is_the_cumulative_loss_for_any_length() -> None:
    is_in = coins(4, 2, np.random.default_rng(0))
    for length in (2, 7):
        found = measured(summaries(bank_of_margins(np.full((length, 4, 2), 0.3), is_in))[""], "rounds")
        np.testing.assert_allclose(found["cumulative_loss"], np.logaddexp(0, -0.3))
        assert not found["confidence_spread"].any()


def test_order_of_rounds_changes_events_and_no_means() -> None:
    margin = np.random.default_rng(2).normal(size=(6, 4, 20))
    is_in = coins(4, 20, np.random.default_rng(0))
    one = measured(summaries(bank_of_margins(margin, is_in))[""], "rounds")
    other = measured(summaries(bank_of_margins(margin[[3, 0, 5, 1, 4, 2]], is_in))[""], "rounds")
    for name in one:
        same = np.allclose(one[name], other[name])
        assert same != (name in EVENTS), name


def test_two_models_of_each_participation_are_counted() -> None:
    whole = answers("110010")  # the aggregate of rounds 1 to 6
    own = {2: 1.0, 4: 1.0, 6: -1.0}  # the owner's models after rounds 2, 4 and 6
    local = {r: {0: np.full((2, 1), margin)} for r, margin in own.items()}
    local[3] = {1: np.full((2, 1), 1.0)}
    view = summaries(bank_of_margins(repeated(whole), coins(2, 1, np.random.default_rng(0)), local=local))
    # received 1 1, 3 0, 5 1; so the owner's models are 1 1, 0 1, 1 0 and the aggregates 1 1, 0 0, 1 0
    owner, aggregate = measured(view["owner"], "participations"), measured(view[""], "participations")
    np.testing.assert_allclose([owner[name][0, 0] for name in EVENTS], (2 / 5, 0, 1))
    np.testing.assert_allclose([aggregate[name][0, 0] for name in EVENTS], (2 / 5, 0, 1))
    assert owner["log_odds_aum"][0, 0] == pytest.approx(1 / 3)
    assert aggregate["log_odds_aum"][0, 0] == pytest.approx(-1 / 3)
    assert "rounds" not in {one.labels.get("clock") for one in Trajectories().example_values(view["owner"])}


def test_other_clients_count_their_own_participations() -> None:
    is_in = coins(2, 1, np.random.default_rng(0))
    wrong, right = np.full((2, 1), -1.0), np.full((2, 1), 1.0)
    local = {1: {1: right, 2: wrong}, 2: {1: wrong}, 3: {0: right, 2: wrong}}
    view = summaries(bank_of_margins(repeated(answers("000")), is_in, local=local))["others"]
    # client 1 kept 1, received 0, kept 0; client 2 never learnt it
    found = measured(view, "participations")
    np.testing.assert_allclose([found[name][0, 0] for name in EVENTS], [(1 / 2 + 1) / 2, (0 + 1) / 2, 1])


def test_passages_are_right_where_most_tokens_are() -> None:
    bank = bank_of_margins(np.ones((2, 2, 2)), coins(2, 2, np.random.default_rng(0)))
    shares = [np.array([[0.6, 0.5]] * 2), np.array([[0.4, 0.9]] * 2)]
    evidence = tuple(replace(e, correct=share) for e, share in zip(bank.evidence, shares, strict=True))
    found = measured(summaries(replace(bank, evidence=evidence))[""], "rounds")
    assert found["forgetting"][0].tolist() == [1, 0]
    assert found["final_learning"][0].tolist() == [1, 0.5]


def test_estimates_are_in_out_and_their_difference() -> None:
    rng = np.random.default_rng(3)
    is_in = coins(8, 10, rng)
    margin = rng.normal(size=(4, 8, 10)) + 2 * is_in
    view = summaries(bank_of_margins(margin, is_in))[""]
    found, values = by_key(Trajectories().estimate(view)), measured(view, "rounds")
    for name in ("forgetting", "cumulative_loss"):
        inside = np.array([values[name][c, j].mean() for j, c in enumerate(is_in.T)])
        outside = np.array([values[name][~c, j].mean() for j, c in enumerate(is_in.T)])
        expected = {
            (name, "rounds"): inside,
            (name, "rounds out"): outside,
            (f"{name}_gain", "rounds"): inside - outside,
        }
        for key, value in expected.items():
            np.testing.assert_allclose(present(found[(*key, "typical")].per_example), value)
    gain = found["cumulative_loss_gain", "rounds", "typical"]
    assert gain.value < 0
    assert gain.p <= 2 / 51


def test_shuffled_coins_give_nothing() -> None:
    rng = np.random.default_rng(4)
    margin = rng.normal(size=(4, 8, 20)) + rng.normal(size=20)
    p = []
    for _ in range(40):
        view = summaries(bank_of_margins(margin, coins(8, 20, rng)), deals=99)[""]
        p += [e.p for e in Trajectories().estimate(view) if e.metric in ("forgetting_gain", "log_odds_aum_gain")]
    assert np.mean(np.array(p) <= 0.1) <= 0.2
    assert 0.35 < np.mean(p) < 0.65


def test_uneven_rounds_are_refused() -> None:
    bank = bank_of_margins(np.ones((3, 2, 1)), coins(2, 1, np.random.default_rng(0)), rounds=(5, 10, 12))
    with pytest.raises(ComponentError, match=r"observe: .*5, 10, 12 differ; write observe: \{every: 1\}"):
        Trajectories().estimate(summaries(bank)[""])
    alone = bank_of_margins(np.ones((1, 2, 1)), coins(2, 1, np.random.default_rng(0)), rounds=(5,))
    assert not Trajectories().estimate(summaries(alone)[""])


def test_participations_are_counted_where_all_were_seen() -> None:
    for rounds, clocks in (((0, 1, 2, 3, 4), {"rounds", "participations"}), ((0, 2, 4), {"rounds"})):
        view = summaries(make_bank(runs=2, rounds=rounds))[""]
        assert {one.labels.get("clock") for one in Trajectories().example_values(view)} == clocks


def test_levels_are_compared_and_nothing_is_retained() -> None:
    rows = estimate(make_bank(runs=8, rounds=(0, 1, 2, 3)), [Trajectories()], 20)
    metrics = {row.reading.metric for row in rows}
    assert {"forgetting", "forgetting.difference", "forgetting_gain.p"} <= metrics
    assert "retention" not in metrics
    levels = [row for row in rows if row.reading.labels.get("contrast") == "levels"]
    assert {row.reading.labels.get("clock") for row in levels} == {"participations"}
    assert {row.round for row in rows} == {None}


def test_aum_is_the_mean_logit_margin_where_it_was_read() -> None:
    rng = np.random.default_rng(5)
    logits, label = rng.normal(size=(4, 6, 3, 5)), 2  # rounds, runs, examples, classes
    rest = np.delete(logits, label, axis=-1)
    log_odds = logits[..., label] - np.log(np.exp(rest).sum(-1))
    margin = logits[..., label] - rest.max(-1)
    bank = bank_of_margins(log_odds, coins(6, 3, rng))
    blocks = tuple(
        SignalEvidence(
            round=part.round, level=part.level, name="logit_margin", run=part.run, client=part.client, values=values
        )
        for part, values in zip(bank.evidence, margin, strict=True)
    )
    found = measured(summaries(replace(bank, signals=blocks))[""], "rounds")
    np.testing.assert_allclose(found["aum"], margin.mean(0))
    assert "aum" not in measured(summaries(bank)[""], "rounds")
    # both are equal with two classes, and with more differ by log(C - 1) at most
    gap = found["aum"] - found["log_odds_aum"]
    assert (gap > 0).all()
    assert (gap <= np.log(4)).all()
