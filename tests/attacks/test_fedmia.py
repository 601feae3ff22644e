"""Tests of `fedmem/attacks/fedmia.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.attacks.fedmia import FedMia
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.randomisation import of_auc, permute_coins
from tests.attacks.membership_helpers import everything
from tests.attacks.series_helpers import of_series, one_federation_each
from tests.banks import coins, make_audit

II = FedMia(signal="update_alignment")


def naive(signals: Signals, name: str, sign: float, tail: str) -> FloatArray:
    """The mean over rounds of a two-sample tail, with loops."""
    runs, m = signals.margin.shape
    scores = np.full((runs, m), np.nan)
    for r in range(runs):
        for j in range(m):
            terms = []
            for own, others in zip(signals.series[name], signals.others[name], strict=True):
                rest = [sign * x for x in others[:, r, j] if not np.isnan(x)]
                if len(rest) < 2 or np.isnan(own[r, j]):
                    continue
                above, n = sign * own[r, j] - np.mean(rest), len(rest)
                if tail == "t":
                    terms.append(stats.t.cdf(above / (np.std(rest, ddof=1) * np.sqrt(1 + 1 / n)), df=n - 1))
                else:
                    terms.append(stats.norm.cdf(above / np.sqrt(np.var(rest) + 1e-8)))
            if terms and not np.isnan(signals.margin[r, j]):
                scores[r, j] = np.mean(terms)
    return scores


@pytest.mark.parametrize("attack", [FedMia(), II, FedMia(tail="normal")])
def test_fedmia_equals_a_naive_loop(attack: FedMia) -> None:
    rng = np.random.default_rng(0)
    is_in = coins(6, 5, rng)
    signals = one_federation_each(is_in, rng, name=attack.signal, shift=1.0)
    for values in (signals.series[attack.signal], *signals.others[attack.signal]):
        values[rng.random(values.shape) < 0.2] = np.nan
    want = naive(signals, attack.signal, -1.0 if attack.signal == "loss" else 1.0, attack.tail)
    np.testing.assert_allclose(attack.scores(signals), want, rtol=1e-9)


@pytest.mark.parametrize("others", [2, 3, 9])
def test_a_term_is_uniform_where_the_client_is_one_of_them(others: int) -> None:
    rng = np.random.default_rng(others)
    is_in = coins(40, 100, rng)
    signals = one_federation_each(is_in, rng, name="update_alignment", rounds=1, others=others)
    assert stats.kstest(II.scores(signals).ravel(), "uniform").pvalue > 0.01
    normal = FedMia(signal="update_alignment", tail="normal").scores(signals)
    assert stats.kstest(normal.ravel(), "uniform").pvalue < 1e-6  # too many near 0 and 1, even with nine others


def test_a_shift_of_members_gives_the_area_of_the_t_tail() -> None:
    """With many others and one round, scores order as s − μ does: AUC = Φ(d / √2)."""
    rng = np.random.default_rng(1)
    is_in = coins(40, 200, rng)
    signals = one_federation_each(is_in, rng, name="update_alignment", rounds=1, others=60, shift=1.5)
    area = everything(II.scores(signals), is_in)
    # s − μ varies by 1 + 1/60
    assert abs(area - stats.norm.cdf(1.5 / np.sqrt(2 * (1 + 1 / 60)))) < 0.01


def test_averaging_over_rounds_helps() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(10, 100, rng)
    areas = [
        everything(II.scores(one_federation_each(is_in, rng, name=II.signal, rounds=s, shift=1.0)), is_in)
        for s in (1, 3, 9)
    ]
    assert areas[0] + 0.05 < areas[1] < areas[2] - 0.05


def test_the_sign_of_a_loss_is_turned() -> None:
    rng = np.random.default_rng(3)
    is_in = coins(10, 50, rng)
    lower = one_federation_each(is_in, rng, shift=-3.0)
    assert everything(FedMia().scores(lower), is_in) > 0.9


def test_label_skew_alone_is_no_membership() -> None:
    """A client that fits all rows of its label better is far above the others, in and out alike: p is uniform."""
    rng = np.random.default_rng(4)
    p, areas = [], []
    for _ in range(60):
        is_in = coins(8, 6, rng)
        signals = one_federation_each(is_in, rng, name=II.signal, rounds=2, skew=3.0)
        scores = II.scores(signals)
        assert scores.mean() > 0.6
        redeals = permute_coins(make_audit(["typical"] * 6, [0] * 6, is_in), 99, rng)
        p.append(of_auc(scores, np.arange(6), redeals))
        areas.append(everything(scores, is_in))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert abs(np.mean(areas) - 0.5) < 3 * np.std(areas) / np.sqrt(60)


def test_ties_and_too_few_others() -> None:
    is_in = np.array([[True, False]] * 2)
    same = np.full((1, 2, 2), 0.1 + 0.2)
    equal = of_series(is_in, name="loss", own=same, others=[np.full((3, 2, 2), 0.3)])
    assert (FedMia().scores(equal) == 0.5).all()  # equal to rounding
    assert np.abs(FedMia(tail="normal").scores(equal) - 0.5).max() < 1e-6
    lower = of_series(is_in, name="loss", own=same - 0.1, others=[np.full((3, 2, 2), 0.3)])
    assert (FedMia().scores(lower) == 1).all()
    one = of_series(is_in, name="loss", own=same, others=[np.full((1, 2, 2), 0.3)])
    assert np.isnan(FedMia().scores(one)).all()
    none = Signals(margin=same[0], is_in=is_in, series={"loss": same[:0]}, others={"loss": []})
    assert np.isnan(FedMia().scores(none)).all()


def test_rounds_without_a_value_do_not_count() -> None:
    rng = np.random.default_rng(5)
    is_in = coins(6, 4, rng)
    signals = one_federation_each(is_in, rng, rounds=3)
    own, others = signals.series["loss"], list(signals.others["loss"])
    away = of_series(
        is_in,
        name="loss",
        own=np.concatenate([own[:1], np.full_like(own[:1], np.nan), own[1:]]),
        others=[others[0], 5 * others[1], *others[1:]],
    )
    np.testing.assert_array_equal(FedMia().scores(away), FedMia().scores(signals))
    hidden = Signals(
        margin=np.where(np.arange(4) == 2, np.nan, signals.margin),
        is_in=is_in,
        series=signals.series,
        others=signals.others,
    )
    assert (np.isnan(FedMia().scores(hidden)).all(0) == (np.arange(4) == 2)).all()
